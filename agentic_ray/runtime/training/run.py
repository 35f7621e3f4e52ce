"""Runs Ray Train in a thread of the caller's process, and hears of the training meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.runtime.leases import Lease
from agentic_ray.runtime.training.desk import Desk, News
from agentic_ray.runtime.training.link import Link
from agentic_ray.telemetry.devices import VISIBLE_DEVICES

_DEFAULTS: Final = {
    # Ray Train looks after its workers every two seconds otherwise.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # What the loop prints goes the way of all workers' output.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # A node that leaves ends the lease, and the session tells of that.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # The loop's relative paths are those of the worker's process.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Variables that Ray Train reads in the caller's process; what the user has set goes before."""
_CALLS_AT_ONCE: Final = 16
_END_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Group:
    """Workers on the nodes of a lease: ``each`` on every node, with ``cpus`` CPUs each."""

    lease: Lease
    each: int
    cpus: int
    on_gpu: bool

    @property
    def environments(self) -> dict[str, dict[str, str]]:
        """Environment variables of the workers, by their node."""
        return {
            options["scheduling_strategy"].node_id: dict(options["runtime_env"]["env_vars"])
            for options in self.lease.node_options
        }


@dataclass(frozen=True, slots=True)
class Storage:
    """Folder of checkpoints: ``name`` in ``parent``, on a file system of pyarrow's (None: this
    machine's, or one that all nodes share)."""

    parent: str
    name: str
    files: Any = None


class Fitting:
    """A training under way; made by `begin_training`.

    Attributes
    ----------
    over : bool
        Whether Ray Train has come to its end.
    error : str
        The error that it ended with; empty if it is done.
    checkpoint : str or None
        Path of the last checkpoint, when it is done.
    """

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self.over = False
        self.error = ""
        self.checkpoint: str | None = None

    def news(self) -> News:
        """Return the news since the last call; none, and an error, if what hears them is gone."""
        try:
            found: News = ray.get(self._desk.news.remote())
        except ray_errors.RayError as error:
            self.error = self.error or f"{type(error).__name__}: {error}"
            self.over = True
            return News({}, (), 0, None)
        return found

    def run(self, fit: Callable[[], str | None]) -> None:
        """Train to the end, in the thread of the training."""
        try:
            self.checkpoint = fit()
        except Exception as error:  # for the caller, who raises it or tries again elsewhere
            self.error = f"{type(error).__name__}: {error}"
        self.over = True

    def stop(self) -> None:
        """End the controller of the training, and with it the workers. A controller that has not
        started workers yet finds no desk, and ends by itself."""
        try:
            controller = ray.get(self._desk.controller.remote())
            if controller is not None and not self.over:
                ray.kill(controller)
            ray.kill(self._desk)
        except ray_errors.RayError:
            pass  # Ray is gone, and all of it


@contextmanager
def begin_training(
    loop: Callable[[Link], None],
    group: Group,
    storage: Storage,
    *,
    retries: int,
    kept_checkpoints: int,
) -> Iterator[Fitting]:
    """Start a training; leaving the block ends what is left of it.

    Parameters
    ----------
    loop : callable
        Called in each worker.
    group : Group
    storage : Storage
    retries : int
        Restarts after workers that died.
    kept_checkpoints : int
    """
    from agentic_ray.runtime.training.placed import fit  # it imports PyTorch

    added = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    os.environ.update(added)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Desk).options(
        num_cpus=0, max_concurrency=_CALLS_AT_ONCE, scheduling_strategy=here
    )
    desk = actor.remote()
    fitting = Fitting(desk)
    environments = group.environments

    def run() -> str | None:
        return fit(
            desk,
            loop=loop,
            node_ids=[node_id for node_id in environments for _ in range(group.each)],
            environments=environments,
            on_gpu=group.on_gpu,
            process_environment=_process_environment(group),
            storage=(storage.parent, storage.name, storage.files),
            retries=retries,
            kept_checkpoints=kept_checkpoints,
        )

    # (in a thread, so that Ray Train leaves Ctrl-C to the caller)
    thread = threading.Thread(target=fitting.run, args=(run,), name="training", daemon=True)
    thread.start()
    try:
        yield fitting
    finally:
        fitting.stop()
        thread.join(_END_SECONDS)
        for name in added:
            os.environ.pop(name, None)


def _process_environment(group: Group) -> dict[str, str]:
    """Return what every worker's process is started with. (The lease's cards differ by node.)"""
    shared = {"OMP_NUM_THREADS": str(group.cpus)}
    for variables in group.environments.values():
        shared.update(variables)
    del shared[VISIBLE_DEVICES]
    return shared
