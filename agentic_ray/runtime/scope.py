"""The runs that one job puts on the cluster, counted and cancelled together."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentic_ray.errors import JobCancelledError
from agentic_ray.graph.shape import GraphShape, shape_of
from agentic_ray.graph.task import TaskGraph
from agentic_ray.runtime.run import Run, RunEvent
from agentic_ray.schedule.metrics import Metrics, PlacementRecord, summarise

if TYPE_CHECKING:
    from agentic_ray.runtime.stages import Stages


_MOST_SHAPES = 100
"""Most graphs of one job whose shapes are kept."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """New records of one run of a job; they replace the records from number ``first`` on."""

    run: int
    first: int
    records: tuple[PlacementRecord, ...]


class JobScope:
    """The runs of one job. Made by `job_scope`; safe to use from any thread.

    The values of a finished run are dropped; its records and events are kept.

    Parameters
    ----------
    job_id : str
    priority : int
        Number added to the priority of each run.

    Attributes
    ----------
    stages : Stages or None
        Keeper of finished stages, if there is one.
    """

    def __init__(self, job_id: str, priority: int = 0) -> None:
        self.job_id = job_id
        self.priority = priority
        self.stages: Stages | None = None
        self._lock = threading.Lock()
        self._live: dict[int, Run] = {}
        self._numbers: dict[int, int] = {}
        self._folded: dict[int, list[PlacementRecord]] = {}
        self._shapes: list[GraphShape] = []
        self._items = 0
        self._expected = 0
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

    def add(self, run: Run, graph: TaskGraph) -> None:
        """Add a run of this graph to the job. For the session."""
        shape = shape_of(graph) if len(self._shapes) < _MOST_SHAPES else None
        with self._lock:
            self._live[id(run)] = run
            self._numbers[id(run)] = len(self._folded)
            self._folded[len(self._folded)] = []
            self._items += run.items_total
            if shape is not None:
                self._shapes.append(shape)
            self._slots |= run.slots
            self._asked += run.asked
            cancelled = self._cancelled
        run.on_done(lambda: self._fold(run))
        if cancelled:
            run.cancel()

    def expect(self, items: int) -> None:
        """Announce that ``items`` logical tasks will be asked for, in runs one after the other."""
        with self._lock:
            self._expected += items

    def cancel(self) -> None:
        """Cancel the job's present and future runs."""
        with self._lock:
            self._cancelled = True
            runs = list(self._live.values())
        for run in runs:
            run.cancel()

    def log(self, kind: str, text: str) -> None:
        """Add an event of the job itself."""
        with self._lock:
            self._events.append(RunEvent(time.time(), kind, "", "", text))

    def placements(self) -> list[PlacementRecord]:
        """List where each finished bundle ran and why."""
        with self._lock:
            return [record for records in self._by_run().values() for record in records]

    def events(self) -> list[RunEvent]:
        """Return the events of the runs, in order."""
        with self._lock:
            events = [*self._events, *(e for run in self._live.values() for e in run.events())]
        return sorted(events, key=lambda event: event.time)

    def fresh(self, seen: Mapping[int, int]) -> list[Fresh]:
        """Return the new records of each run: those beyond the number ``seen``, or all if the run
        has begun anew with fewer."""
        with self._lock:
            by_run = self._by_run()
        found = []
        for number, records in by_run.items():
            before = seen.get(number, 0)
            first = before if before <= len(records) else 0
            if first != before or len(records) > first:
                found.append(Fresh(number, first, tuple(records[first:])))
        return found

    def shapes(self, seen: int = 0) -> list[GraphShape]:
        """Return shapes of the job's graphs from number ``seen`` on, of the first hundred."""
        with self._lock:
            return self._shapes[seen:]

    @property
    def items_done(self) -> int:
        """Number of logical tasks that have finished."""
        with self._lock:
            folded = sum(record.items for records in self._folded.values() for record in records)
            return folded + sum(run.items_done for run in self._live.values())

    @property
    def items_total(self) -> int:
        """Number of logical tasks of all runs so far, or of those expected if they are more."""
        return max(self._items, self._expected)

    def metrics(self, makespan_seconds: float) -> Metrics | None:
        """Compute the figures over ``makespan_seconds``; None if nothing was put on the cluster."""
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

    def _by_run(self) -> dict[int, list[PlacementRecord]]:
        live = {self._numbers[known]: run.placements() for known, run in self._live.items()}
        return self._folded | live

    def _fold(self, run: Run) -> None:
        with self._lock:
            if self._live.pop(id(run), None) is None:
                return
            self._folded[self._numbers.pop(id(run))] = run.placements()
            self._events += run.events()
            self._failed += len(run.failed_bundles)
            self._recovered += len(run.recovered_bundles)


_current: contextvars.ContextVar[JobScope | None] = contextvars.ContextVar("job", default=None)


def current_scope() -> JobScope | None:
    """Return the job that this thread works for."""
    return _current.get()


@contextlib.contextmanager
def job_scope(job_id: str, *, priority: int = 0) -> Iterator[JobScope]:
    """Make graphs that this thread submits inside the block belong to the job."""
    scope = JobScope(job_id, priority)
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)
