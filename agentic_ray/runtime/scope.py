"""What one job puts on the cluster: its runs are counted, and cancelled, as one."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentic_ray.errors import JobCancelledError
from agentic_ray.runtime.run import Run, RunEvent
from agentic_ray.schedule.metrics import Metrics, PlacementRecord, summarise

if TYPE_CHECKING:
    from agentic_ray.runtime.stages import Stages


class JobScope:
    """The runs of one job. Made by `job_scope`; safe to use from any thread.

    Of a finished run its values are let go, and what is told of it is kept.

    Parameters
    ----------
    job_id : str
    priority : int
        Added to that of each run.

    Attributes
    ----------
    stages : Stages or None
        Where finished stages are kept, if they are.
    """

    def __init__(self, job_id: str, priority: int = 0) -> None:
        self.job_id = job_id
        self.priority = priority
        self.stages: Stages | None = None
        self._lock = threading.Lock()
        self._live: dict[int, Run] = {}
        self._records: list[PlacementRecord] = []
        self._events: list[RunEvent] = []
        self._slots: dict[tuple[str, str], int] = {}
        self._asked = 0
        self._failed = 0
        self._recovered = 0
        self._cancelled = False

    def check(self) -> None:
        """Raise JobCancelledError if the job is cancelled."""
        if self._cancelled:
            raise JobCancelledError(f"job {self.job_id} was cancelled")

    def add(self, run: Run) -> None:
        """For the session: this run is the job's."""
        with self._lock:
            self._live[id(run)] = run
            self._slots |= run.slots
            self._asked += run.asked
            cancelled = self._cancelled
        run.on_done(lambda: self._fold(run))
        if cancelled:
            run.cancel()

    def cancel(self) -> None:
        """Stop the job's runs, and those still to come."""
        with self._lock:
            self._cancelled = True
            runs = list(self._live.values())
        for run in runs:
            run.cancel()

    def log(self, kind: str, text: str) -> None:
        """Something happened to the job itself."""
        with self._lock:
            self._events.append(RunEvent(time.time(), kind, "", "", text))

    def placements(self) -> list[PlacementRecord]:
        """Where each finished bundle ran and why."""
        with self._lock:
            return [*self._records, *(r for run in self._live.values() for r in run.placements())]

    def events(self) -> list[RunEvent]:
        """What happened to the runs, in order."""
        with self._lock:
            events = [*self._events, *(e for run in self._live.values() for e in run.events())]
        return sorted(events, key=lambda event: event.time)

    @property
    def items_done(self) -> int:
        """Logical tasks that have finished."""
        with self._lock:
            folded = sum(record.items for record in self._records)
            return folded + sum(run.items_done for run in self._live.values())

    def metrics(self, makespan_seconds: float) -> Metrics | None:
        """The job's figures over ``makespan_seconds``; None if it put nothing on the cluster."""
        records = self.placements()
        if not records:
            return None
        with self._lock:
            live = self._live.values()
            return summarise(
                records,
                slots=self._slots,
                makespan_seconds=makespan_seconds,
                asked=self._asked,
                failed=self._failed + sum(len(run.failed_bundles) for run in live),
                recovered=self._recovered + sum(len(run.recovered_bundles) for run in live),
            )

    def _fold(self, run: Run) -> None:
        with self._lock:
            if self._live.pop(id(run), None) is None:
                return
            self._records += run.placements()
            self._events += run.events()
            self._failed += len(run.failed_bundles)
            self._recovered += len(run.recovered_bundles)


_current: contextvars.ContextVar[JobScope | None] = contextvars.ContextVar("job", default=None)


def current_scope() -> JobScope | None:
    """The job that this thread works for."""
    return _current.get()


@contextlib.contextmanager
def job_scope(job_id: str, *, priority: int = 0) -> Iterator[JobScope]:
    """Graphs submitted inside, in this thread, belong to the job."""
    scope = JobScope(job_id, priority)
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)
