"""The master: accepts jobs, runs the next one when there is room, knows how each ended.

Decisions are in ``queue`` and ``jobs``, storage in ``store``, what workloads do in ``workloads``.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    JobCancelledError,
    JobTimeoutError,
    QueueFullError,
    SessionError,
    UnknownWorkloadError,
)
from agentic_ray.master.handle import Job
from agentic_ray.master.jobs import JobFailure, JobRecord, JobState, advance
from agentic_ray.master.jsonvalues import dumps, to_json
from agentic_ray.master.queue import JobQueue
from agentic_ray.master.store import JobStore, MemoryStore
from agentic_ray.master.workloads import DEFAULT, Registry, Workload, normalise, registry

if TYPE_CHECKING:
    from agentic_ray.runtime import JobScope

_logger = logging.getLogger("agentic_ray")

PRIORITY_LIMIT = 1_000_000
"""Priorities are between minus this and this."""

FIGURES = ("efficiency", "imbalance", "decomposition", "recovery")
"""E, L, D and F, by their names in `schedule.metrics.Metrics`."""

_CANCEL_GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the master began; ``queued`` and ``running`` are now.

    ``figures`` are sums of E, L, D and F over the ``measured`` jobs, those that used the cluster.
    """

    submitted: int
    queued: int
    running: int
    finished: Mapping[JobState, int]
    measured: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Running:
    """A job under way in its thread."""

    timer: threading.Timer | None = None
    scope: JobScope | None = None
    settled: bool = False
    """It has timed out: how it ended is written down, though its workload has not stopped."""


class Master:
    """Runs jobs in this process: strict priority, then first in first out.

    Parameters
    ----------
    max_running : int
        Workloads that run at once, each in a thread. Their work on the cluster shares one
        session. A workload that waits for another job holds its place meanwhile.
    max_queued : int
        Jobs that may wait; more are refused.
    workloads : Registry, optional
        Default: those registered in this process.
    store : JobStore, optional
        Default: in memory, where the oldest of over 1000 finished jobs are forgotten.

    Examples
    --------
    >>> from agentic_ray import Master
    >>> master = Master()
    >>> task_id = master.submit_task({"data": [1, 2, 3, 4, 5]})
    >>> master.job(task_id).result()
    55
    """

    def __init__(
        self,
        *,
        max_running: int = 8,
        max_queued: int = 10_000,
        workloads: Registry = registry,
        store: JobStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value in (("max_running", max_running), ("max_queued", max_queued)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidTypeError(f"{name} must be an int, not {value!r}")
            if value < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, not {value}")
        self._max_running = max_running
        self._max_queued = max_queued
        self._workloads = workloads
        self._store: JobStore = MemoryStore() if store is None else store
        self._clock = clock
        self._queue = JobQueue()
        self._running: dict[str, _Running] = {}
        self._handles: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
        self._sequence = itertools.count()
        self._submitted = 0
        self._finished: Counter[JobState] = Counter()
        self._measured = 0
        self._figures = dict.fromkeys(FIGURES, 0.0)
        self._closed = False
        self._changed = threading.Condition(threading.RLock())

    # --- intake ------------------------------------------------------------------------

    def submit(
        self,
        workload: str | Callable[[Any], Any],
        params: Any,
        *,
        priority: int = 0,
        timeout_seconds: float | None = None,
    ) -> Job:
        """Accept a job; returns at once.

        Parameters
        ----------
        workload : str or function
            A registered workload, by name or itself.
        params : JSON-able
            Its parameters; checked here.
        priority : int
            Higher runs first.
        timeout_seconds : float, optional
            Longest time it may run, not counting the queue; then it fails.

        Raises
        ------
        UnknownWorkloadError
            No such workload.
        InvalidParametersError
            The parameters do not fit its schema, or are not JSON.
        InvalidTypeError, InvalidArgumentError
            Priority or timeout cannot be used.
        QueueFullError
            As many jobs wait as may.
        SessionError
            The master is closed.
        """
        found = self._find(workload)
        _check_options(priority, timeout_seconds)
        plain, text = normalise(params)
        found.prepare(plain)
        with self._changed:
            if self._closed:
                raise SessionError("the master is closed and takes no more jobs")
            if len(self._queue) >= self._max_queued:
                raise QueueFullError(
                    f"the queue is full: {len(self._queue)} jobs wait; try again later"
                )
            record = JobRecord(
                id=uuid.uuid4().hex,
                workload=found.name,
                version=found.version,
                params=plain,
                priority=priority,
                sequence=next(self._sequence),
                created_at=self._clock(),
                timeout_seconds=timeout_seconds,
                size_bytes=len(text),
            )
            self._store.put(record)
            self._submitted += 1
            self._queue.push(record)
            job = self._handles[record.id] = Job(self, record.id)
            self._start_next()
        return job

    def submit_task(self, task_data: Mapping[str, Any]) -> str:
        """Submit to the default workload; returns the task's identifier."""
        return self.submit(DEFAULT, task_data).id

    # --- questions ---------------------------------------------------------------------

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """What is known of a task: ``task_id``, ``state``, ``result``, ``error`` and more.

        Raises
        ------
        UnknownJobError
            There is no such task, or it is forgotten.
        """
        return self.record(task_id).to_dict()

    def record(self, job_id: str) -> JobRecord:
        """The job as it is now; UnknownJobError if there is none."""
        with self._changed:
            return self._store.get(job_id)

    def job(self, job_id: str) -> Job:
        """The handle of a job; UnknownJobError if there is none."""
        with self._changed:
            found = self._handles.get(job_id)
            if found is None:
                record = self._store.get(job_id)
                found = self._handles[job_id] = Job(self, job_id)
                if record.state.finished:
                    found.settle(record)
            return found

    def jobs(self) -> list[JobRecord]:
        """All jobs known, in the order of submission."""
        with self._changed:
            return sorted(self._store.records(), key=lambda record: record.sequence)

    def statistics(self) -> Statistics:
        """Counts for monitoring."""
        with self._changed:
            finished = {state: self._finished[state] for state in JobState if state.finished}
            return Statistics(
                self._submitted,
                len(self._queue),
                len(self._running),
                finished,
                self._measured,
                dict(self._figures),
            )

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobRecord:
        """The record once the job has finished, or as it is after ``timeout_seconds``."""
        # The handle keeps the end of the job for us, however quickly the store forgets it.
        job = self.job(job_id)
        with self._changed:
            self._changed.wait_for(lambda: job.record.state.finished, timeout_seconds)
            return job.record

    # --- ending ------------------------------------------------------------------------

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False if it has finished already. See `Job.cancel`.

        Raises
        ------
        UnknownJobError
            There is no such job.
        """
        with self._changed:
            record = self._store.get(job_id)
            if record.state.finished:
                return False
            self._request_cancel(record)
        return True

    def close(self, drain: bool = True, timeout_seconds: float | None = None) -> bool:
        """Take no more jobs and end.

        Parameters
        ----------
        drain : bool
            Let all accepted jobs finish first; otherwise cancel them.
        timeout_seconds : float, optional
            Longest wait for that; then the rest is cancelled.

        Returns
        -------
        bool
            False if a workload did not stop although it was told to.
        """
        with self._changed:
            self._closed = True
            if drain:
                self._changed.wait_for(self._idle, timeout_seconds)
            unfinished = [record for record in self.jobs() if not record.state.finished]
            for record in unfinished:
                self._request_cancel(record)
            return self._changed.wait_for(self._idle, _CANCEL_GRACE_SECONDS)

    def __enter__(self) -> Master:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(drain=error is None)

    # --- inside ------------------------------------------------------------------------

    def _find(self, workload: str | Callable[[Any], Any]) -> Workload:
        if not isinstance(workload, str):
            workload = self._workloads.name_of(workload)
        return self._workloads.get(workload)

    def _idle(self) -> bool:
        return not self._running and not self._queue

    def _start_next(self) -> None:
        """Start jobs while there is room. Called with the lock held."""
        while len(self._running) < self._max_running:
            job_id = self._queue.pop()
            if job_id is None:
                return
            record = advance(self._store.get(job_id), JobState.RUNNING, self._clock())
            thread = threading.Thread(
                target=self._run, args=(record,), name=f"job-{job_id[:8]}", daemon=True
            )
            running = self._running[job_id] = _Running()
            if record.timeout_seconds is not None:
                running.timer = threading.Timer(
                    record.timeout_seconds, self._time_out, args=(record,)
                )
                running.timer.daemon = True
                running.timer.start()
            self._store.put(record)
            thread.start()
            self._changed.notify_all()

    def _run(self, record: JobRecord) -> None:
        """One job, in its own thread."""
        result: Any = None
        size = 0
        error: BaseException | None = None
        try:
            workload = self._workloads.get(record.workload)
            if workload.version != record.version:
                raise UnknownWorkloadError(
                    f"the job is for version {record.version} of workload {record.workload!r}, "
                    f"which is now at version {workload.version}"
                )
            # imported when first run: importing the master must not start to load Ray
            from agentic_ray.runtime import job_scope

            with job_scope(record.id, priority=record.priority) as scope:
                self._entered(record, scope)
                value = workload.function(workload.prepare(record.params))
            result = to_json(value)
            size = len(dumps(result))
        except BaseException as raised:  # the thread is this job's alone: so is what ends it
            error = raised
        with self._changed:
            running = self._running.pop(record.id)
            if running.timer is not None:
                running.timer.cancel()
            if not running.settled:
                self._ended(self._store.get(record.id), running.scope, error, result, size)
            self._start_next()
            self._changed.notify_all()

    def _entered(self, record: JobRecord, scope: JobScope) -> None:
        """From now on the job can be cancelled through its scope; it may have been before."""
        with self._changed:
            running = self._running[record.id]
            running.scope = scope
            if running.settled or self._store.get(record.id).cancel_requested:
                scope.cancel()
            handle = self._handles.get(record.id)
            if handle is not None:
                handle.enter(scope)

    def _ended(
        self,
        record: JobRecord,
        scope: JobScope | None,
        error: BaseException | None,
        result: Any,
        size: int,
    ) -> None:
        record = replace(record, metrics=self._measure(record, scope))
        if record.cancel_requested:
            # Also where it came to a result, or to some other error on being torn down.
            stopped = JobCancelledError("cancelled while it ran")
            self._finish(record, JobState.CANCELLED, error=stopped)
        elif error is not None:
            self._finish(record, JobState.FAILED, error=error)
        else:
            self._finish(record, JobState.SUCCEEDED, result=result, size=size)

    def _measure(self, record: JobRecord, scope: JobScope | None) -> Mapping[str, Any] | None:
        seconds = self._clock() - (record.started_at or 0.0)
        metrics = None if scope is None else scope.metrics(max(seconds, 0.0))
        if metrics is None:
            return None
        figures = asdict(metrics)
        self._measured += 1
        for name in FIGURES:
            self._figures[name] += figures[name]
        return figures

    def _time_out(self, record: JobRecord) -> None:
        """Fail a job at once; its place is free again when its workload has stopped."""
        with self._changed:
            running = self._running.get(record.id)
            if running is None:
                return
            running.settled = True
            text = f"it ran longer than its {record.timeout_seconds:g} seconds"
            now = self._store.get(record.id)
            self._finish(now, JobState.FAILED, error=JobTimeoutError(text))
            if running.scope is not None:
                running.scope.cancel()

    def _request_cancel(self, record: JobRecord) -> None:
        """Called with the lock held."""
        if self._queue.remove(record.id):
            stopped = JobCancelledError("cancelled while it waited")
            self._finish(record, JobState.CANCELLED, error=stopped)
        else:
            self._store.put(replace(record, cancel_requested=True))
            scope = self._running[record.id].scope
            if scope is not None:
                scope.cancel()

    def _finish(
        self,
        record: JobRecord,
        state: JobState,
        *,
        error: BaseException | None = None,
        result: Any = None,
        size: int = 0,
    ) -> None:
        """Write down how a job ended. Called with the lock held."""
        failure = None if error is None else JobFailure.of(error)
        done = advance(
            record, state, self._clock(), result=result, error=failure, result_bytes=size
        )
        if failure is not None and state is JobState.FAILED:
            _logger.warning("job %s (%s) failed:\n%s", done.id, done.workload, failure.traceback)
        self._finished[state] += 1
        handle = self._handles.get(done.id)
        if handle is not None:
            handle.settle(done)
        self._store.put(done)
        self._changed.notify_all()


def _check_options(priority: Any, timeout_seconds: Any) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidTypeError(f"priority must be an int, not {priority!r}")
    if abs(priority) > PRIORITY_LIMIT:
        raise InvalidArgumentError(f"priority must be within ±{PRIORITY_LIMIT}, not {priority}")
    if timeout_seconds is None:
        return
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float):
        raise InvalidTypeError(f"timeout_seconds must be a number, not {timeout_seconds!r}")
    if not 0 < timeout_seconds <= threading.TIMEOUT_MAX:
        raise InvalidArgumentError(f"timeout_seconds must be > 0, not {timeout_seconds}")
