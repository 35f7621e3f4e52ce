"""Ray Train's TorchTrainer with workers on leased nodes and cards. Imports PyTorch.

Ray Train places workers by a placement group. Each of its bundles is bound here to the node of a
lease by the node's label, and takes one byte of memory and nothing else from Ray: CPUs and cards
are held by the session, in whose books the lease is. The cards of a lease are made visible by UUID
before the process group begins.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train.torch.config import _TorchBackend

from agentic_ray.runtime.failures import PackedError
from agentic_ray.runtime.training.desk import Member
from agentic_ray.runtime.training.link import Link

NODE_LABEL = "ray.io/node-id"


@dataclass
class PlacedTorchConfig(ray.train.torch.TorchConfig):  # type: ignore[misc]  # Ray has no types
    """PyTorch's process group among workers on leased cards.

    Parameters
    ----------
    environments : dict
        Environment variables of the workers by their node: the cards of the lease.
    desk : actor handle
        Told of each group of workers.
    """

    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    desk: Any = None

    @property
    def backend_cls(self) -> Any:
        return PlacedTorchBackend

    @property
    def train_func_context(self) -> Any:
        return nullcontext


class PlacedTorchBackend(_TorchBackend):  # type: ignore[misc]
    """Shows each worker the cards of its node's lease, and then begins the process group."""

    def on_start(self, worker_group: Any, backend_config: PlacedTorchConfig) -> None:
        workers = worker_group.get_workers()
        calls = [
            worker_group.execute_single_async(
                rank, _enter, backend_config.environments[worker.metadata.node_id]
            )
            for rank, worker in enumerate(workers)
        ]
        ray.get(calls)
        members = tuple(
            Member(worker.actor, rank, worker.metadata.pid, worker.metadata.node_id)
            for rank, worker in enumerate(workers)
        )
        controller = ray.get_runtime_context().current_actor
        ray.get(backend_config.desk.group.remote(controller, members))
        super().on_start(worker_group, backend_config)


class PlacedTrainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """TorchTrainer without Ray Train's own clean-up of placement groups.

    That asks Ray's dashboard whether the controller is alive, and an embedded Ray has none. The
    group ends with the controller, and that with the caller's process.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()
        return [one for one in found if type(one).__name__ != "PlacementGroupCleanerCallback"]


def _enter(variables: dict[str, str]) -> None:
    """Set environment variables of a worker, before it uses a card."""
    # (it tells of each report)
    logging.getLogger("ray.train.v2._internal.execution.context").setLevel(logging.WARNING)
    os.environ.update(variables)


class RayLink:
    """`Link` of a worker, made in its process."""

    def __init__(self, desk: Any, on_gpu: bool) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.local_rank: int = context.get_local_rank()
        self.on_gpu = on_gpu
        self._desk = desk

    def report(self, metrics: Mapping[str, Any], folder: str | None) -> None:
        """Wait for all workers to report, and keep the files of ``folder``, if there is one, as the
        training's checkpoint, together with those of the other workers."""
        checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(folder)
        ray.train.report(dict(metrics), checkpoint=checkpoint)

    def tell(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Tell the caller of a report, which is number ``index`` of the curve."""
        ray.get(self._desk.report.remote(index, dict(metrics)))

    @contextmanager
    def checkpoint(self) -> Iterator[str | None]:
        """Give a folder with the files of the last checkpoint; None if there is none."""
        found = ray.train.get_checkpoint()
        if found is None:
            yield None
            return
        with found.as_directory() as folder:
            yield folder

    def failed(self, error: BaseException) -> bool:
        """Tell that the loop raised; return whether that ends the training."""
        packed = PackedError.pack(error, "the training loop")
        return bool(ray.get(self._desk.failed.remote(self.rank, os.getpid(), packed)))


def _work(config: dict[str, Any]) -> None:
    """Run the loop in a worker."""
    on_gpu: bool = config["on_gpu"]
    link = RayLink(config["desk"], on_gpu)
    if on_gpu:  # (Ray Train, which has given no GPU out, says "cpu" to Accelerate)
        os.environ["ACCELERATE_TORCH_DEVICE"] = f"cuda:{link.local_rank}"
    try:
        config["loop"](link)
    except BaseException as error:
        if link.failed(error):
            # The caller ends all workers now. Until then none begins anew.
            threading.Event().wait()
        raise


def fit(
    desk: Any,
    *,
    loop: Callable[[Link], None],
    node_ids: list[str],
    environments: dict[str, dict[str, str]],
    on_gpu: bool,
    process_environment: dict[str, str],
    storage: tuple[str, str, Any],
    retries: int,
    kept_checkpoints: int,
) -> str | None:
    """Train to the end; return the path of the last checkpoint.

    Parameters
    ----------
    desk : actor handle
    loop : callable
        Called in each worker.
    node_ids : list of str
        Node of each worker.
    environments, process_environment : dict
        Environment variables of workers by their node, and of all workers' processes.
    on_gpu : bool
    storage : tuple
        Folder and name of the training in it, and a file system of pyarrow's or None.
    retries : int
        Restarts after workers that died.
    kept_checkpoints : int
    """
    folder, name, files = storage
    trainer = PlacedTrainer(
        _work,
        train_loop_config={"loop": loop, "desk": desk, "on_gpu": on_gpu},
        torch_config=PlacedTorchConfig(
            backend="nccl" if on_gpu else "gloo", environments=environments, desk=desk
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=len(node_ids),
            resources_per_worker={"memory": 1},
            label_selector=[{NODE_LABEL: node_id} for node_id in node_ids],
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            storage_filesystem=files,
            failure_config=ray.train.FailureConfig(max_failures=retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=kept_checkpoints),
            worker_runtime_env={"env_vars": process_environment},
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    checkpoint = trainer.fit().checkpoint
    return None if checkpoint is None else str(checkpoint.path)
