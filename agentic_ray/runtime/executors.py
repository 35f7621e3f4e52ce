"""The Ray side of execution on CPUs: the executor actor of a node, the process lane.

They run bundles with `execute.run_payload` and decide nothing. GPUs have executors of their own, in
``gpu_executor``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.runtime.allocator import keep_freed_memory
from agentic_ray.runtime.calibrate import HostRates, host_rates
from agentic_ray.runtime.execute import Payload, run_payload, with_printed
from agentic_ray.runtime.handed import KeptArrays
from agentic_ray.runtime.joining import refuse_ray_client
from agentic_ray.runtime.lines import LineEnd
from agentic_ray.runtime.memory_use import memory_use
from agentic_ray.runtime.printed import Taken, descriptors, install
from agentic_ray.runtime.watch import run_watched
from agentic_ray.schedule.events import MemoryUse
from agentic_ray.telemetry.collector import Collector, NodeReport

RAY_RETRIES = 1
"""Number of times that Ray re-runs a call whose process died, before the Dispatcher is told."""

_CANCELLED_KEPT_SECONDS = 60.0

refuse_ray_client()  # under Ray Client the names below would be made with other arguments

_Method = TypeVar("_Method", bound=Callable[..., Any])
CONTROL_GROUP = {"control": 2}
# Calls about the executor itself: they pass running bundles by, and are pointless later.
control: Callable[[_Method], _Method] = ray.method(concurrency_group="control", max_task_retries=0)


def _attempt_number() -> int:
    return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())


class CancelledTokens:
    """Tokens of calls that must stop, kept a while because a call may start later."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def add(self, token: str) -> None:
        now = time.monotonic()
        for old in [t for t, at in self._at.items() if now - at > _CANCELLED_KEPT_SECONDS]:
            del self._at[old]
        self._at[token] = now

    def __contains__(self, token: object) -> bool:
        return token in self._at


class CpuExecutor:
    """Executor of a node's CPUs: threads that share memory, mapped objects and compiled kernels.

    Bundles are sent ahead, so more calls may be in the actor than ``slots``; the surplus waits here
    and its waiting does not count as work.
    """

    def __init__(self, slots: int, threads: int) -> None:
        keep_freed_memory()
        install()
        self._node_id = ray.get_runtime_context().get_node_id()
        self._cancelled = CancelledTokens()
        self._slots = slots
        self._busy = 0
        self._free = threading.Condition()
        self._kept = KeptArrays()
        self._lines = LineEnd(self._run, threads)
        self._report: NodeReport | None = None
        self._collector = Collector(self._node_id, push=self._keep)
        self._collector.start()

    def _keep(self, report: NodeReport) -> None:
        self._report = report

    @control
    def calibrate(self) -> HostRates:
        """Measure the work that a CPU slot of this node does a second, once a host."""
        return host_rates()

    @control
    def report(self) -> NodeReport | None:
        """Return the newest sample of this node; None before the first."""
        return self._report

    @control
    def memory_use(self, own_bytes: int, ours: Sequence[int]) -> MemoryUse:
        """Tell who holds this node's memory; see `memory_use.memory_use`."""
        return memory_use(own_bytes, ours)

    @control
    def set_slots(self, slots: int) -> None:
        """Change the number of bundles that may run at once."""
        with self._free:
            self._slots = slots
            self._free.notify_all()

    @control
    def cancel(self, token: str) -> None:
        """Make the call with this token stop at its next check."""
        self._cancelled.add(token)

    @control
    def drop(self, names: Sequence[str]) -> None:
        """Forget arrays that were kept."""
        self._kept.drop(names)

    @control
    def open_line(self) -> str | None:
        """Open a line; return the path at which a caller on the same machine reaches this executor
        without Ray."""
        return self._lines.open()

    @control
    def pid(self) -> int:
        return os.getpid()

    def run(self, token: str, payload: Payload, *handed: Any) -> Any:
        """Run a bundle; return its Report followed by its large outputs in order."""
        return answer(self._run(token, payload, *handed, ray_attempt=_attempt_number()))

    def _run(
        self, token: str, payload: Payload, *handed: Any, ray_attempt: int = 0
    ) -> tuple[Any, ...]:
        inputs = self._kept.inputs(token, payload, handed)
        entered = time.perf_counter()
        with self._free:
            while self._busy >= self._slots:
                self._free.wait()
            self._busy += 1
        waited_seconds = time.perf_counter() - entered
        try:
            report, *large = run_payload(
                payload,
                inputs,
                node_id=self._node_id,
                pid=os.getpid(),
                ray_attempt=ray_attempt,
                waited_seconds=waited_seconds,
                is_cancelled=lambda: token in self._cancelled,
            )
            return self._kept.keep(payload, inputs, report), *large
        finally:
            with self._free:
                self._busy -= 1
                self._free.notify()


def _run_in_process(payload: Payload, *inputs: Any) -> Any:
    """The process lane: a plain Ray task, so that a crash, a leak or the GIL harms no other."""
    install()
    taken = Taken()
    with descriptors(taken):
        report, *large = run_payload(
            payload,
            inputs,
            node_id=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            ray_attempt=_attempt_number(),
        )
    return answer((with_printed(report, taken), *large))


def _run_watched(payload: Payload, *inputs: Any) -> Any:
    """Run a bundle in a child of such a process, which reports how the child died."""
    return answer(run_watched(payload, inputs, node_id=ray.get_runtime_context().get_node_id()))


def answer(results: tuple[Any, ...]) -> Any:
    """Return results as Ray wants them: a bare value where there is one return value."""
    return results[0] if len(results) == 1 else results


process_lane = ray.remote(num_cpus=0, max_retries=0)(_run_in_process)
watched_lane = ray.remote(num_cpus=0, max_retries=0)(_run_watched)
# No retries by Ray here: a task that was cancelled by force may be among those it runs again
# (https://github.com/ray-project/ray/issues/54260). The Dispatcher retries, and lost values are
# computed again from the task graph.


def start_cpu_executor(node_id: str, slots: int, threads: int) -> Any:
    """Start a CPU executor on ``node_id`` and return its handle; Ray restarts it if its process
    dies.

    It holds no CPUs itself: the session's reservation does, while there is work.
    """
    actor = ray.remote(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=RAY_RETRIES,
        max_concurrency=threads,
        concurrency_groups=CONTROL_GROUP,
    )(CpuExecutor)
    return actor.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
    ).remote(slots, threads)
