"""Where an expression's tasks run: in threads of the caller's process, or on the executors.

Work is predicted either way from what its tasks were seen to take, and by the cost model's rates
before that. Which of the two it is changes no bit: the tasks are the same.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from agentic_ray.array.core import memory, sizing
from agentic_ray.array.core.chunks import rules
from agentic_ray.array.core.program import Call
from agentic_ray.array.core.threads import Ran
from agentic_ray.graph import CostHint, Task, TaskGraph
from agentic_ray.schedule.bounds import least_seconds
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel, size_of_cost, steepest

T = TypeVar("T")

STARTING_SECONDS = 4.0
"""Seconds that the start of a session takes where there is none."""
TASK_SECONDS = 3e-5
"""Seconds that a thread of this process spends on a task beside the task's own work."""
MEMORY_SHARE = 0.25
"""Share of the free memory that a plan may take in this process."""
SURELY_FITS_BYTES = 64 << 20
"""Plans that write no more than this are not checked for memory."""
WORTH_SECONDS = 2e-3
"""Shorter work is done in one thread: starting another takes a tenth of a millisecond."""
MOST_SHARE = 0.85
"""Several threads are started if the work is then predicted to take at most this share of the time
in one thread: a chain of short tasks is slower in two threads, which wait for each other."""
WELL_KNOWN = 5
"""Times that tasks of a codelet and size ran in this process, from which on only these count."""
SHARED_BYTES = 4 << 20
"""Tasks that read or write fewer bytes have too few cache blocks to share them out."""
MOST_TASKS = 20_000
"""Plans of more tasks are left to the executors."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """The prediction for one plan: where it runs, and how long it takes.

    Parameters
    ----------
    here : bool
        Whether it runs in this process.
    threads : int
        Number of threads, if so.
    here_seconds, there_seconds : float or None
        Predicted for this process and for the executors; None: not looked at.
    why : str
        For people.
    """

    here: bool
    threads: int = 1
    here_seconds: float | None = None
    there_seconds: float | None = None
    why: str = ""

    def __str__(self) -> str:
        threads = f" in {self.threads} threads" if self.threads > 1 else ""
        where = f"in this process{threads}" if self.here else "by the session"
        seconds = ", ".join(
            f"{known:.2g} s {place}"
            for known, place in (
                (self.here_seconds, "here"),
                (self.there_seconds, "on the executors"),
            )
            if known is not None
        )
        told = "; ".join(
            part for part in (self.why, f"predicted: {seconds}" * bool(seconds)) if part
        )
        return f"{where} ({told})" if told else where


class Learnt:
    """The seconds that tasks took in this process. Safe to use from several threads."""

    def __init__(self) -> None:
        self.model = CostModel()
        self._lock = threading.Lock()

    def expect(self, rates: Calibration) -> None:
        """Use these rates to predict tasks that never ran here."""
        with self._lock:
            self.model.calibration = rates

    def seconds(self, tasks: Sequence[Task], elsewhere: Sequence[float] = ()) -> list[float]:
        """Predict the seconds that each task takes in one thread.

        Parameters
        ----------
        elsewhere : sequence of float, optional
            Seconds that each task took on executors, infinite where none ran it. They are the most
            that is expected of a task that ran here few times: one slow time, on a machine that
            was busy, would otherwise keep such tasks away, and never be corrected.
        """

        def predicted(task: Task, limit: float) -> float:
            own = self.model.task_seconds(task, "cpu") or 0.0
            if self.model.times_seen(task, "cpu") < WELL_KNOWN:
                own = min(own, limit)
            return TASK_SECONDS + own

        return self._of_each(tasks, elsewhere or itertools.repeat(math.inf), predicted)

    def seen(self, tasks: Sequence[Task]) -> list[float | None]:
        """Predict the seconds of each task as `seconds` does; None where no such task ran here."""

        def predicted(task: Task, _: float) -> float | None:
            known = self.model.times_seen(task, "cpu")
            return self.model.task_seconds(task, "cpu") if known else None

        return self._of_each(tasks, itertools.repeat(0.0), predicted)

    def _of_each(
        self, tasks: Sequence[Task], beside: Iterable[float], predict: Callable[[Task, float], T]
    ) -> list[T]:
        """Return ``predict(task, its number of beside)`` for each task: very many share a codelet
        and a cost, and are predicted once."""
        known: dict[tuple[int, int], T] = {}
        found: list[T] = []
        with self._lock:
            for task, number in zip(tasks, beside, strict=False):
                key = (id(task.codelet), id(task.cost))
                if key not in known:
                    known[key] = predict(task, number)
                found.append(known[key])
        return found

    def observe(self, tasks: Sequence[Task], ran: Ran) -> None:
        """Remember the mean seconds of each codelet's tasks, as those of one task of mean size."""
        groups: dict[str, list[Task]] = {}
        for task in tasks:
            groups.setdefault(task.codelet.name, []).append(task)
        with self._lock:
            for group in groups.values():
                known = [ran.seconds[task.key] for task in group if task.key in ran.seconds]
                if known:
                    cost = sum((task.cost for task in group), CostHint(items=0))
                    size = size_of_cost(cost) / len(group)
                    mean = max(sum(known) / len(known), 1e-9)
                    name, slope = group[0].codelet.name, steepest(group[0].cost)
                    self.model.observe_size(name, "cpu", size, mean, steepest=slope)


learnt = Learnt()
"""The predictions of this process."""


def prospect(tasks: Sequence[Task], outputs: Sequence[str], *, put_bytes: int) -> Prospect:
    """Decide where to run a plan that is not small enough to be computed here in any case.

    Parameters
    ----------
    outputs : sequence of str
        Keys of the results, which are to be here at the end.
    put_bytes : int
        Bytes that this process would have to send to the executors first.
    """
    limit = rules().seconds_here
    if limit <= 0:
        return Prospect(False, why="work in this process is switched off")
    if len(tasks) > MOST_TASKS:
        return Prospect(False, why="many tasks")
    if any(task.tag == "gpu" or task.codelet.opaque for task in tasks):
        return Prospect(False)
    session = _session()
    if session is not None:
        wanted = set(outputs)
        made = sum(task.cost.written_bytes for task in tasks if task.key in wanted)
        about = session.prospect(tasks, put_bytes + made, learnt.seen(tasks))
        if about is None:
            return Prospect(False, why="it is part of a job, or there are GPUs")
        learnt.expect(about.rates)
        there, each, slots = about.seconds, about.seen_seconds, about.slots
    elif _is_forked():
        return Prospect(False)
    else:
        there, each, slots = STARTING_SECONDS, [], sizing.slots_of_host()
    threads = max(1, min(sizing.slots_of_host(), slots))
    here = seconds_in(threads, tasks, learnt.seconds(tasks, each))
    if not (here <= limit and here <= there):
        return Prospect(False, threads, here, there)
    if not _fits(tasks, outputs, threads):
        return Prospect(False, threads, here, there, "it needs much of this process's memory")
    return Prospect(True, threads, here, there)


def _session() -> Any:
    """The session if there is one; starts nothing."""
    runtime = sys.modules.get("agentic_ray.runtime.current")
    return None if runtime is None else runtime.current_session()


def _is_forked() -> bool:
    """Whether this process was forked off one with a session."""
    runtime = sys.modules.get("agentic_ray.runtime.connection")
    return runtime is not None and runtime.is_forked()


def _fits(tasks: Sequence[Task], outputs: Sequence[str], threads: int) -> bool:
    if sum(task.cost.written_bytes for task in tasks) <= SURELY_FITS_BYTES:
        return True
    need = memory.predict(TaskGraph(tasks, outputs))
    most = need.live_bytes + threads * need.task_bytes
    return bool(most <= MEMORY_SHARE * psutil.virtual_memory().available)


def seconds_in(threads: int, tasks: Sequence[Task], seconds: Sequence[float]) -> float:
    """Return the least time in which so many threads can run tasks, listed in a valid order, of
    which each takes ``seconds`` in one thread."""
    if threads == 1:
        return sum(seconds)
    shared = {task.key for task in tasks if _is_shared_out(task)}
    return least_seconds(tasks, seconds, threads, shared)


def _is_shared_out(task: Task) -> bool:
    """Whether idle threads take parts of a task (`sharing`): it has several cache blocks."""
    function = task.codelet.cpu
    kernel = function.kernel if isinstance(function, Call) else function
    cost = task.cost
    return getattr(kernel, "shares_blocks", False) and (
        max(cost.read_bytes, cost.written_bytes) >= SHARED_BYTES
    )


def threads_for(tasks: Sequence[Task]) -> int:
    """Return the number of threads of this process for tasks that stay here in any case."""
    threads = sizing.slots_of_host()
    if threads == 1 or not tasks:
        return 1
    seconds = learnt.seconds(tasks)
    alone = sum(seconds)
    worth = alone > WORTH_SECONDS and seconds_in(threads, tasks, seconds) < MOST_SHARE * alone
    return threads if worth else 1
