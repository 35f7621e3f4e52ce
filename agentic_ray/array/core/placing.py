"""Where an expression's tasks run: in threads of the caller's process, or on the executors.

Work is predicted either way from what its tasks were seen to take, and by the cost model's rates
before that. Which of the two it is changes no bit: the tasks are the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from agentic_ray.array.core import memory, sizing
from agentic_ray.array.core.chunks import rules
from agentic_ray.array.core.threads import Ran
from agentic_ray.graph import CostHint, Task, TaskGraph
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel, size_of_cost

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

    def seconds(self, tasks: Sequence[Task]) -> float:
        """Predict the seconds that the tasks take one after the other."""
        hints: dict[tuple[int, int], tuple[Task, int]] = {}
        for task in tasks:  # very many tasks share a codelet and a cost
            key = (id(task.codelet), id(task.cost))
            found = hints.get(key)
            hints[key] = (task, 1 if found is None else found[1] + 1)
        total = 0.0
        with self._lock:
            for task, count in hints.values():
                total += count * (self.model.task_seconds(task, "cpu") or 0.0)
        return total + TASK_SECONDS * len(tasks)

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
                    self.model.observe_size(
                        group[0].codelet.name, "cpu", size, max(sum(known) / len(known), 1e-9)
                    )


learnt = Learnt()
"""The predictions of this process."""


def prospect(tasks: Sequence[Task], outputs: Sequence[str], *, put_bytes: int) -> Prospect:
    """Decide where to run a plan that is not small enough to be computed here in any case.

    Parameters
    ----------
    outputs : sequence of str
        Keys of the results.
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
        about = session.prospect(tasks, put_bytes)
        if about is None:
            return Prospect(False, why="it is part of a job, or there are GPUs")
        there, slots, rates = about
        learnt.expect(rates)
    elif _is_forked():
        return Prospect(False)
    else:
        there, slots = STARTING_SECONDS, sizing.slots_of_host()
    threads = max(1, min(sizing.slots_of_host(), slots))
    here = learnt.seconds(tasks) / min(threads, max(len(tasks), 1))
    if not (here <= limit and here <= there):
        return Prospect(False, threads, here, there)
    if not _fits(tasks, outputs, threads):
        return Prospect(False, threads, here, there, "it needs much of this process's memory")
    return Prospect(True, threads, here, there)


def _session() -> Any:
    """The session if there is one; starts nothing."""
    runtime = sys.modules.get("agentic_ray.runtime.session")
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


def threads_for(tasks: Sequence[Task]) -> int:
    """Return the number of threads of this process for tasks that stay here in any case."""
    if len(tasks) < 2:
        return 1
    threads = min(sizing.slots_of_host(), len(tasks))
    return threads if threads > 1 and learnt.seconds(tasks) > WORTH_SECONDS else 1
