"""Carries out what the master's core decides: writes, shows, starts and stops jobs.

`Operations` holds the lock, the tables of jobs under way and the threads of jobs; what is asked of
it by users is in `Master`.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from agentic_ray.errors import JobMemoryError, JournalError, SessionError
from agentic_ray.ids import marked
from agentic_ray.master.alarms import Alarms
from agentic_ray.master.cache import ResultCache
from agentic_ray.master.clock import Clock
from agentic_ray.master.core import Command, MasterCore, Show, Start, Stop, Write
from agentic_ray.master.handle import Job, UnderWay
from agentic_ray.master.jobs import JobEvent, JobFailure, JobRecord, JobState
from agentic_ray.master.outcome import Died, Done
from agentic_ray.master.running import Workplace, run_job
from agentic_ray.master.spans import JobSpan
from agentic_ray.master.stages import StageShelf
from agentic_ray.master.statistics import Tally
from agentic_ray.master.store import JobStore, Receipt
from agentic_ray.master.traces import TraceShelf
from agentic_ray.master.workloads import Registry

_logger = logging.getLogger("agentic_ray")

_KEEP_RETRY_SECONDS = 0.5


class Operations:
    """Jobs under way in one master.

    Parameters
    ----------
    core : MasterCore
        Decides; it is only asked with the lock ``changed`` held.
    clock : Clock
    store : JobStore
    workplace : Workplace
        Where functions of jobs run.
    workloads : Registry
    cache : ResultCache, optional
    traces : TraceShelf
    new_handle : callable
        Makes the handle of a job.
    on_lost, on_end : callable, optional
        As of `Master`.
    tracer : opentelemetry.trace.Tracer, optional
        Makes spans of jobs.

    Attributes
    ----------
    changed : threading.Condition
        The master's lock; notified after each step of a job.
    broken : Exception or None
        Why the master has stopped.
    under_way : dict
        Jobs whose function runs, by identifier.
    receipts : dict
        First writes of jobs that the store has not answered yet.
    watchers : list of callable
        Told of each step of each job.
    """

    def __init__(
        self,
        core: MasterCore,
        clock: Clock,
        store: JobStore,
        workplace: Workplace,
        workloads: Registry,
        cache: ResultCache | None,
        traces: TraceShelf,
        new_handle: Callable[[str], Job],
        on_lost: Callable[[JournalError], None] | None,
        on_end: Callable[[JobRecord], None] | None,
        tracer: Any = None,
    ) -> None:
        self.core = core
        self.clock = clock
        self.store = store
        self.workplace = workplace
        self.traces = traces
        self.changed = threading.Condition(threading.RLock())
        self.tally = Tally()
        self.alarms = Alarms()
        self.broken: JournalError | SessionError | None = None
        self.under_way: dict[str, UnderWay] = {}
        self.receipts: dict[str, Receipt] = {}
        self.watchers: list[Callable[[JobRecord], None]] = []
        self._workloads = workloads
        self._cache = cache
        self._handles: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
        self._new_handle = new_handle
        self._on_lost = on_lost
        self._on_end = on_end
        self._tracer = tracer

    def recover(self) -> itertools.count[int]:
        """Go on with the jobs that the store has; return the numbers for new ones.

        Raises
        ------
        JournalError
            They cannot be read, or their first step not written.
        """
        with self.changed:
            unfinished = self.store.recover(self.stop_on)
            self.stages = StageShelf(
                self.store.stage_results(),
                {record.id for record in unfinished},
                self.store.knows,
            )
            numbers = itertools.count(self.store.next_sequence())
            receipts = self.carry_out(self.core.recover(unfinished, self.clock()))
        for receipt in receipts:
            receipt.wait(self.store.answer_seconds)
        return numbers

    def handle_at_hand(self, job_id: str) -> Job | None:
        """Return the handle of a job if somebody holds one. Called with the lock held."""
        return self._handles.get(job_id)

    def handle(self, record: JobRecord) -> Job:
        """Return the one handle of a job, made if need be. Called with the lock held."""
        found = self._handles.get(record.id)
        if found is None:
            found = self._handles[record.id] = self._new_handle(record.id)
        return found

    def settle(self, job: Job) -> None:
        """Let the handle of a job that has ended keep how. Called without the lock."""
        if job.settled is None:
            with self.changed:
                if self.core.is_live(job.id):
                    return
            record = self.store.get(job.id)
            if record.state.finished:
                job.settle(record)

    def carry_out(self, commands: Iterable[Command]) -> list[Receipt]:
        """Carry out the core's commands; return a receipt for each write to the store.

        Called with the lock held.
        """
        receipts = []
        for command in commands:
            match command:
                case Write():
                    receipts.append(self._write(command))
                case Show(record):
                    self._show(record)
                case Start(record):
                    self._start(record)
                case Stop(job_id):
                    under_way = self.under_way.get(job_id)
                    if under_way is not None:
                        under_way.cancel()
        self.changed.notify_all()
        return receipts

    def _write(self, write: Write) -> Receipt:
        record, receipt = write.record, Receipt()
        if write.first:
            self.receipts[record.id] = receipt

        def done(error: JournalError | None) -> None:
            with self.changed:
                if error is None:
                    self.carry_out(self.core.written(record, self.clock()))
                elif write.first:
                    self.core.refused(record.id)
                if write.first:
                    del self.receipts[record.id]
                self.changed.notify_all()
            receipt.settle(error)

        self.store.write(record, done, first=write.first)
        return receipt

    def _show(self, record: JobRecord) -> None:
        self.store.put(record)
        for watcher in self.watchers:
            watcher(record)
        if record.state is JobState.QUEUED and record.deadline_at is not None:
            text = "its deadline passed before it had finished"
            left = self.core.seconds_left(record.id, self.clock())
            if left is not None:
                self.alarms.set(left, lambda: self._expire(record.id, text))
        if not record.state.finished:
            return
        if record.error is not None and record.state is JobState.FAILED:
            shown = record.error.traceback
            with marked(record.ids):
                _logger.warning("job %s (%s) failed:\n%s", record.id, record.workload, shown)
        self.tally.finished(record.state)
        if self._on_end is not None:
            self._on_end(record)
        self.stages.drop(record.id)
        self.traces.ended(record.id)
        handle = self._handles.get(record.id)
        if handle is not None:
            handle.settle(record)

    def _start(self, record: JobRecord) -> None:
        if record.timeout_seconds is not None:
            text = f"it ran longer than its {record.timeout_seconds:g} seconds"
            attempt = record.attempts
            self.alarms.set(record.timeout_seconds, lambda: self._expire(record.id, text, attempt))
        handle = self._handles.get(record.id)
        cell = contextvars.Context() if handle is None else handle.cell.copy()
        threading.Thread(
            target=cell.run, args=(self._run, record), name=f"job-{record.id[:8]}", daemon=True
        ).start()

    def _run(self, record: JobRecord) -> None:
        """Run a job to its end, in its own thread."""
        span = None if self._tracer is None else JobSpan(self._tracer, record)
        trace = record.traceparent if span is None else span.traceparent
        with marked(record.ids, trace=trace):
            _logger.info("job %s (%s) runs", record.id, record.workload)
            ended = run_job(
                record,
                self._workloads,
                self.workplace,
                self.stages,
                self._cache,
                lambda under_way: self._entered(record, under_way),
            )
            if span is not None:
                self._end_span(span, record.id, ended)
            if isinstance(ended, Died):
                self._died(record, ended)
            else:
                self._done(record, ended)
            _logger.info("job %s (%s) runs no more", record.id, record.workload)

    def _end_span(self, span: JobSpan, job_id: str, ended: Done | Died) -> None:
        with self.changed:
            under_way = self.under_way.get(job_id)
        graphs = [] if under_way is None else under_way.placements_by_graph()
        if isinstance(ended, Died):
            span.end(graphs, JobFailure("Died", ended.how), None)
        else:
            span.end(graphs, ended.failure, ended.metrics)

    def _done(self, record: JobRecord, ended: Done) -> None:
        """The function of a job has come to its end."""
        reference = None if ended.failure is not None else self._keep(record, ended.text)
        self._keep_trace(record.id)
        with self.changed:
            self.under_way.pop(record.id, None)
            if ended.metrics is not None:
                self.tally.measured(ended.metrics)
            self.carry_out(
                self.core.ended(
                    record.id,
                    self.clock(),
                    result=ended.result,
                    result_bytes=len(ended.text),
                    result_reference=reference,
                    error=ended.failure,
                    metrics=ended.metrics,
                )
            )

    def _died(self, record: JobRecord, died: Died) -> None:
        """The process of a job has ended before the job had."""
        with self.changed:
            under_way = self.under_way.pop(record.id, None)
            if died.of_memory:
                error = JobMemoryError(died.how)
                commands = self.core.ended(record.id, self.clock(), error=error)
            else:
                commands = self.core.died(record.id, died.how, self.clock())
                again = self.core.live_record(record.id)
                if again is not None and again.state is JobState.QUEUED:
                    _logger.warning("job %s is run again: %s", record.id, died.how)
                    if under_way is not None:
                        event = JobEvent(self.clock().wall, "run again", died.how)
                        self.traces.again(record.id, under_way, event)
                        under_way = None
            if under_way is not None:
                self.traces.keep(record.id, under_way)
            self.carry_out(commands)

    def _keep_trace(self, job_id: str) -> None:
        with self.changed:
            under_way = self.under_way.get(job_id)
        if under_way is not None:
            self.traces.keep(job_id, under_way)

    def _entered(self, record: JobRecord, under_way: UnderWay) -> None:
        """From now on the job can be told to stop; that may have been wished before."""
        with self.changed:
            self.under_way[record.id] = under_way
            now = self.core.live_record(record.id) or record
            if now.cancel_requested or now.state.finished or self.broken is not None:
                under_way.cancel()
            handle = self._handles.get(record.id)
            if handle is not None:
                handle.enter(under_way)

    def _keep(self, record: JobRecord, text: str) -> str | None:
        """Store a large result; on a full disk, try until there is room or the master ends."""
        warned = False
        while True:
            try:
                return self.store.keep_result(record.id, text)
            except JournalError as error:
                if not warned:
                    _logger.error("the result of job %s waits: %s", record.id, error)
                    warned = True
            with self.changed:
                if self.changed.wait_for(lambda: self.broken is not None, _KEEP_RETRY_SECONDS):
                    return None

    def _expire(self, job_id: str, text: str, attempt: int | None = None) -> None:
        with self.changed:
            self.carry_out(self.core.expire(job_id, text, self.clock(), attempt))

    def stop_on(self, error: JournalError) -> None:
        """The journal can be written no more: stop, and leave the jobs as it has them."""
        _logger.error("the master stops: %s", error)
        with self.changed:
            self.broken = error
            self.carry_out(self.core.halt())
        if self._on_lost is not None:
            self._on_lost(error)
