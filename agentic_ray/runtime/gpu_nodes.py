"""The GPU executors of one node: how many there should be; starting, retiring, bringing them back.

`plan_gpus` decides from NVML's and Ray's figures; `NodeGpus` does it. CPUs are in ``nodes``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray import exceptions as ray_errors

from agentic_ray.runtime.answers import Answers
from agentic_ray.runtime.gpu_executor import GpuStatus, start_gpu_executor
from agentic_ray.schedule.events import DeviceSlots
from agentic_ray.telemetry.state import GpuState

_logger = logging.getLogger("agentic_ray")

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0
"""Longest pause before an executor that could not be started is tried again; the pause doubles up
to here."""
USUAL_START_SECONDS: Final = 20.0
"""Seconds in which an executor is usually up, importing CuPy and making a CUDA context included."""
_BUDGET_STEP: Final = 0.02
"""A change of the memory budget below this fraction of the device is not announced."""


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """Changes to be made to the GPU executors of a node.

    Parameters
    ----------
    start : int
        Executors to start.
    share : float
        Ray GPUs that each of them holds; below 1 for MIG instances of a GPU that Ray counts once.
    retire : tuple of (str, str)
        UUIDs of executors to end, with the reasons.
    reason : str
        Reason why there are fewer than Ray or NVML counts, or empty.
    """

    start: int
    share: float
    retire: tuple[tuple[str, str], ...]
    reason: str


def plan_gpus(
    ray_gpus: float,
    gpus: Sequence[GpuState],
    gpus_reason: str | None,
    running: Collection[str],
    starting: int,
) -> GpuPlan:
    """Relate the GPUs that Ray counts on a node to those that NVML lists. Pure.

    Parameters
    ----------
    ray_gpus : float
        Ray's count.
    gpus, gpus_reason
        Newest report of the node.
    running : collection of str
        UUIDs that have an executor.
    starting : int
        Number of executors that have been started and have no device yet.
    """
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    retire = tuple(
        (uuid, "NVML no longer lists it" if gpu is None else gpu.reason or "it is not healthy")
        for uuid in running
        if (gpu := by_uuid.get(uuid)) is None or not gpu.healthy
    )
    usable = [gpu for gpu in gpus if gpu.healthy]
    count = math.floor(ray_gpus + 1e-6)
    instances = len(gpus)
    share = 1.0
    if count and any(gpu.mig_parent for gpu in gpus) and count < instances:
        share = math.floor(count / instances * 1e4) / 1e4  # a number that Ray's arithmetic can hold
        allowed = instances
    else:
        allowed = count
    wanted = min(allowed, len(usable))
    start = max(0, wanted - (len(running) - len(retire)) - starting)
    return GpuPlan(start, share, retire, _mismatch(count, allowed, gpus, gpus_reason))


def _mismatch(count: int, allowed: int, gpus: Sequence[GpuState], why: str | None) -> str:
    if count and not gpus:
        return (
            f"Ray counts {count} GPUs, NVML lists none ({why or 'no reason given'}); none is used. "
            "In a container NVML needs the driver capability 'utility'"
        )
    if allowed > len(gpus):
        return f"Ray counts {count} GPUs, NVML lists {len(gpus)}; the others are not used"
    if allowed < len(gpus):
        return f"NVML lists {len(gpus)} GPUs, Ray counts {count}; the others are not used"
    return ""


@dataclass(slots=True)
class _Executor:
    actor: Any
    budget_bytes: int
    total_bytes: int
    arrays: bool
    asked: bool = False


class NodeGpus:
    """Keeper of one executor on each usable GPU of a node. Safe to use from several threads.

    Parameters
    ----------
    factory : str
        Path of the device class, as for `device_factory`.
    answers : Answers
        The thread that deals with executors' answers.
    changed : callable
        Called when devices or their memory budgets have changed.
    lost : callable
        Called with ``(uuid, reason)`` when a device is gone, after its executor was forgotten.
    """

    def __init__(
        self,
        node_id: str,
        host: str,
        ray_gpus: float,
        factory: str,
        answers: Answers,
        changed: Callable[[], None],
        lost: Callable[[str, str], None],
    ) -> None:
        self._node_id = node_id
        self._host = host
        self._ray_gpus = ray_gpus
        self._factory = factory
        self._answers = answers
        self._changed = changed
        self._lost = lost
        self._lock = threading.RLock()
        self._executors: dict[str, _Executor] = {}
        self._starting: list[Any] = []
        self._opening: dict[str, Any] = {}
        self._unwanted: list[Any] = []
        self._usable: frozenset[str] = frozenset()
        self._failures = 0
        self._not_before = 0.0
        self._updated = False
        self._since = time.monotonic()
        self._told: set[str] = set()
        self._resting = False
        self._closed = False

    # --- questions -----------------------------------------------------------------------

    def executor(self, uuid: str) -> Any | None:
        """Return the actor handle of this device's executor; None when there is none."""
        with self._lock:
            found = self._executors.get(uuid)
            return None if found is None else found.actor

    @property
    def settled(self) -> bool:
        """Whether nothing is about to come up. An executor that has not come up in a while, because
        others hold the GPU for instance, may come at any time and is not waited for."""
        with self._lock:
            if not self._ray_gpus or (self._updated and not self._starting):
                return True
            return time.monotonic() > self._since + USUAL_START_SECONDS

    @property
    def awaited(self) -> int:
        """Number of executors that wait for Ray to give them a GPU, which others hold."""
        with self._lock:
            return len(self._starting) - len(self._opening)

    def devices(self) -> list[DeviceSlots]:
        """Return the devices for a NodeUp event."""
        with self._lock:
            return [
                DeviceSlots(
                    uuid,
                    "gpu" if executor.arrays else "card",
                    1,
                    memory_bytes=executor.budget_bytes,
                    memory_total_bytes=executor.total_bytes,
                )
                for uuid, executor in self._executors.items()
            ]

    # --- doing ---------------------------------------------------------------------------

    def update(self, gpus: Sequence[GpuState], gpus_reason: str | None) -> None:
        """Adapt the executors to a report of the node."""
        if not self._ray_gpus:
            return
        with self._lock:
            if self._resting:
                return
            self._updated = True
            self._usable = frozenset(gpu.uuid for gpu in gpus if gpu.healthy)
            plan = plan_gpus(
                self._ray_gpus, gpus, gpus_reason, self._executors, len(self._starting)
            )
            actors = [(uuid, self._executors.pop(uuid).actor, why) for uuid, why in plan.retire]
            if not self._starting:
                # kept until now, so that Ray did not give the same GPU out again
                for actor in self._unwanted:
                    ray.kill(actor)
                self._unwanted.clear()
            if time.monotonic() >= self._not_before:
                for _ in range(plan.start):
                    self._start(plan.share)
            for uuid, executor in self._executors.items():
                self._ask(uuid, executor)
        if plan.reason:
            self._tell(plan.reason)
        for uuid, actor, why in actors:
            ray.kill(actor)
            self._lost(uuid, f"{why} (GPU of {self._host})")

    def died(self, uuid: str, actor: Any, reason: str) -> None:
        """Note that this device's executor is dead or useless; another is started in time."""
        with self._lock:
            known = self._executors.get(uuid)
            if known is None or known.actor is not actor or self._closed:
                return
            del self._executors[uuid]
            self._postpone()
        ray.kill(actor)
        self._lost(uuid, reason)

    def rest(self) -> None:
        """Give the GPUs back to Ray, until `wake`."""
        with self._lock:
            if self._resting:
                return
            self._resting = True
            actors = self._take_all()
        for actor in actors:
            ray.kill(actor)
        if actors:
            self._changed()

    def wake(self) -> None:
        """Ask for the GPUs again; the next `update` starts executors."""
        with self._lock:
            if self._resting:
                self._resting = self._updated = False
                self._since = time.monotonic()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            actors = self._take_all()
        for actor in actors:
            ray.kill(actor)

    def _take_all(self) -> list[Any]:
        """Forget all actors and return them."""
        actors = [executor.actor for executor in self._executors.values()]
        actors += self._starting + self._unwanted
        self._executors.clear()
        self._starting.clear()
        self._opening.clear()
        self._unwanted.clear()
        return actors

    # --- an executor comes up --------------------------------------------------------------

    def _start(self, share: float) -> None:
        actor = start_gpu_executor(self._node_id, share)
        self._starting.append(actor)
        self._answers.when(actor.assigned.remote(), lambda future: self._open(actor, future))

    def _open(self, actor: Any, assigned: Any) -> None:
        """Choose the device of an executor that Ray has started, among those that Ray's choice
        stands for."""
        with self._lock:
            if actor not in self._starting:
                return  # closed, or given back meanwhile
            uuid = self._choose(actor, assigned)
            if uuid is not None:
                self._opening[uuid] = actor  # instances of one GPU are opened at the same time
        if uuid is None:
            self._changed()  # it is not awaited any more
            return
        self._answers.when(
            actor.open.remote(uuid, self._factory),
            lambda future: self._opened(actor, uuid, future),
        )

    def _choose(self, actor: Any, assigned: Any) -> str | None:
        """Return the device for an executor that Ray has started; None if there is none for it."""
        error = assigned.exception()
        if error is not None:
            self._give_up(actor, f"its executor did not start: {error}")
            return None
        candidates: tuple[str, ...] = assigned.result()
        taken = {*self._executors, *self._opening}
        free = [uuid for uuid in candidates if uuid in self._usable and uuid not in taken]
        if free:
            return free[0]
        self._starting.remove(actor)
        self._unwanted.append(actor)
        self._postpone()
        shown = ", ".join(candidates) or "none that NVML lists"
        self._tell(f"Ray gave out {shown}, which cannot be used now")
        return None

    def _opened(self, actor: Any, uuid: str, opened: Any) -> None:
        with self._lock:
            if self._opening.get(uuid) is not actor:
                return  # closed, or given back meanwhile
            del self._opening[uuid]
            error = opened.exception()
            if error is not None:
                self._give_up(actor, _first_line(error))
            else:
                self._starting.remove(actor)
                self._failures = 0
                status: GpuStatus = opened.result()
                budget, total = status.budget_bytes, status.memory.total_bytes
                self._executors[uuid] = _Executor(actor, budget, total, status.arrays)
                if not status.arrays:
                    self._tell(f"GPUs run functions only, arrays stay on CPUs: {status.reason}")
        self._changed()

    def _give_up(self, actor: Any, reason: str) -> None:
        self._starting.remove(actor)
        ray.kill(actor)
        self._postpone()
        self._tell(f"a GPU is not usable: {reason}")

    def _postpone(self) -> None:
        pause = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._not_before = time.monotonic() + pause

    def _tell(self, text: str) -> None:
        """Log ``text`` once: every report brings it again."""
        if text not in self._told:
            self._told.add(text)
            _logger.warning("node %s (%s): %s", self._node_id[:12], self._host, text)

    # --- and is asked how it is ------------------------------------------------------------

    def _ask(self, uuid: str, executor: _Executor) -> None:
        if executor.asked:
            return
        executor.asked = True

        def received(future: Any) -> None:
            error = future.exception()
            if error is not None:
                if isinstance(error, ray_errors.ActorDiedError):
                    self.died(uuid, executor.actor, "the process of its executor died")
                executor.asked = False
                return
            status: GpuStatus = future.result()
            with self._lock:
                executor.asked = False
                change = abs(status.budget_bytes - executor.budget_bytes)
                if change <= _BUDGET_STEP * max(1, executor.total_bytes):
                    return
                executor.budget_bytes = status.budget_bytes
                executor.total_bytes = status.memory.total_bytes
            self._changed()

        self._answers.when(executor.actor.status.remote(), received)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None)
    return str(cause or error).strip().splitlines()[0]
