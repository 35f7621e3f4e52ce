"""The master: accepts jobs, runs the next one when there is room, knows how each ended.

Decisions are in ``core`` and ``queue``, storage in ``store`` and ``journal``, what workloads do
in ``workloads``.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalError,
    SessionError,
)
from agentic_ray.master.cache import cache_key, open_cache
from agentic_ray.master.checks import (
    check_limit,
)
from agentic_ray.master.clock import Clock
from agentic_ray.master.core import (
    MAX_ATTEMPTS,
    MasterCore,
)
from agentic_ray.master.handle import Job
from agentic_ray.master.intake import read_submission, same_submission
from agentic_ray.master.jobs import ANONYMOUS, JobRecord, JobState, advance
from agentic_ray.master.journal import Journal
from agentic_ray.master.jsonvalues import json_value
from agentic_ray.master.logs import LogLine, LogShelf
from agentic_ray.master.operations import Operations
from agentic_ray.master.own_session import OwnSession
from agentic_ray.master.queue import QUEUED_BYTES, QueueLimits
from agentic_ray.master.runners.pool import RunnerPool
from agentic_ray.master.running import InRunners, InThreads, Workplace
from agentic_ray.master.statistics import Statistics
from agentic_ray.master.store import JobStore, MemoryStore, Receipt
from agentic_ray.master.traces import Trace, TraceShelf
from agentic_ray.master.workloads import DEFAULT, Parameters, Registry, Workload, registry
from agentic_ray.unknown import stop_if_planned
from agentic_ray.watching import watches

_logger = logging.getLogger("agentic_ray")

CACHE_BYTES = 256 << 20
"""Results kept for equal jobs, unless told otherwise."""

_KEEP_RETRY_SECONDS = 0.5
_CANCEL_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 1.0


class Master:
    """Runs jobs in this process: by priority, fairly between users, then first in first out.

    Parameters
    ----------
    max_running : int
        Workloads that run at once, each in a thread. Their work on the cluster shares one
        session. A workload that waits for another job holds its place meanwhile.
    max_queued : int
        Jobs that may wait; more are refused.
    max_queued_bytes : int
        JSON text of the parameters of jobs that wait; more is refused.
    max_queued_per_user, max_running_per_user : int, optional
        The same of one user.
    ageing_seconds : float
        A job that has waited so long counts as one priority higher, and so on.
    workloads : Registry, optional
        Default: those registered in this process.
    journal : path or URL, optional
        Where accepted jobs outlive this process, see `Journal`; its unfinished jobs are taken
        over. Default: jobs live in memory, where the oldest of over 1000 finished ones are
        forgotten.
    store : JobStore, optional
        In place of both.
    cache_bytes : int
        Results kept, as JSON text, to answer equal jobs at once; 0 turns that off.
    on_lost : callable, optional
        Told, from another thread, when the journal is lost to another master or damaged; this
        master has stopped then.
    on_end : callable, optional
        Told of each job that has ended, with the master's lock held: it must return at once.
    held : bool
        Accept jobs, but start none before `begin`.
    runners : int
        Run each job's function in a process of its own, and keep so many of them ready when there
        is nothing to do. A job that crashes, hangs past its time-out, takes too much memory or is
        cancelled then harms nobody else. 0: functions run in threads of this process, whose
        objects they see, and which ends with a job that crashes.
    max_attempts : int
        With ``runners``: a job whose process died is run again, unless its workload has effects,
        until it has ended so many processes; then it fails with PoisonJobError.
    memory_bytes : int, optional
        With ``runners``: by so much the process of a job may grow; see `workload`.
    session : callable, optional
        With ``runners``: gives the path at which a session is lent to them (`lending.Lender`).
        Default: this process's session is.
    tracer : opentelemetry.trace.Tracer, optional
        Makes a span of each job, with its graphs and bundles in it; see `spans.Tracing`.
    clock, steady_clock : callable
        The wall clock, which dates records, and the one that everything is decided by.

    Raises
    ------
    JournalLockedError, JournalCorruptError, JournalError
        As `Journal`.

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
        max_queued_bytes: int = QUEUED_BYTES,
        max_queued_per_user: int | None = None,
        max_running_per_user: int | None = None,
        ageing_seconds: float = 60.0,
        workloads: Registry = registry,
        journal: str | Path | None = None,
        store: JobStore | None = None,
        cache_bytes: int = CACHE_BYTES,
        on_lost: Callable[[JournalError], None] | None = None,
        on_end: Callable[[JobRecord], None] | None = None,
        held: bool = False,
        runners: int = 0,
        max_attempts: int = MAX_ATTEMPTS,
        memory_bytes: int | None = None,
        session: Callable[[], str] | None = None,
        tracer: Any = None,
        clock: Callable[[], float] = time.time,
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stop_if_planned("a master's jobs")
        for name, value, optional in (
            ("max_running", max_running, False),
            ("max_queued", max_queued, False),
            ("max_queued_bytes", max_queued_bytes, False),
            ("max_queued_per_user", max_queued_per_user, True),
            ("max_running_per_user", max_running_per_user, True),
            ("max_attempts", max_attempts, False),
            ("memory_bytes", memory_bytes, True),
            ("runners", runners or None, True),
        ):
            if not (optional and value is None):
                check_limit(name, value)
        if not ageing_seconds > 0:
            raise InvalidArgumentError(f"ageing_seconds must be > 0, not {ageing_seconds}")
        if journal is not None and store is not None:
            raise InvalidArgumentError("give either a journal or a store, not both")
        self._workloads = workloads
        self._clock = Clock(clock, steady_clock)
        limits = QueueLimits(
            max_queued,
            max_queued_per_user,
            max_running_per_user,
            float(ageing_seconds),
            max_queued_bytes,
        )
        if journal is not None:
            store = Journal(journal)
        self._store: JobStore = MemoryStore() if store is None else store
        beside, key = None, b""
        if isinstance(self._store, Journal):
            beside, key = self._store.path, self._store.key
        try:
            self._cache = open_cache(cache_bytes, beside, key)
        except JournalError:
            self._store.close()
            raise
        self._logs = LogShelf(None if beside is None else Path(f"{beside}.logs"))
        self._lender: OwnSession | None = None
        workplace: Workplace = InThreads()
        if runners:
            if session is None:
                session = self._lender = OwnSession()
            workplace = InRunners(RunnerPool(runners), self._logs, session, memory_bytes)
        self._operations = Operations(
            MasterCore(max_running, limits, held=held, max_attempts=max_attempts),
            self._clock,
            self._store,
            workplace,
            workloads,
            self._cache,
            TraceShelf(None if beside is None else Path(f"{beside}.traces")),
            lambda job_id: Job(self, job_id),
            on_lost,
            on_end,
            tracer,
        )
        self._core, self._changed = self._operations.core, self._operations.changed
        self._submitters: Counter[str] = Counter()
        self._closed = False
        try:
            self._sequence = self._operations.recover()
        except BaseException:
            workplace.close()
            self._store.close()
            raise

    def begin(self) -> None:
        """Start jobs, after having been ``held``."""
        with self._changed:
            self._operations.carry_out(self._core.begin(self._clock()))

    def hold(self) -> None:
        """Start no more jobs until `begin`; those that run go on."""
        with self._changed:
            self._core.hold()

    @property
    def held(self) -> bool:
        """Whether jobs wait for `begin`."""
        return self._core.held

    # --- intake ------------------------------------------------------------------------

    def submit(
        self,
        workload: str | Callable[[Any], Any],
        params: Any,
        *,
        priority: int = 0,
        timeout_seconds: float | None = None,
        deadline_seconds: float | None = None,
        user: str = ANONYMOUS,
        idempotency_key: str | None = None,
        cache: bool = True,
        tags: Sequence[str] = (),
        retry_of: str = "",
    ) -> Job:
        """Accept a job; returns at once, with a journal as soon as the job is in it.

        Parameters
        ----------
        workload : str or function
            A registered workload, by name or itself.
        params : JSON-able or Parameters
            Its parameters; checked here.
        priority : int
            Higher runs first.
        timeout_seconds : float, optional
            Longest time it may run, not counting the queue; then it fails.
        deadline_seconds : float, optional
            Longest time from now, counting the queue; then it fails.
        user : str
            On whose behalf; users share the queue fairly.
        idempotency_key : str, optional
            Submitting the same again with the same key gives the same job, for as long as the
            job is known.
        cache : bool
            The result of an equal job may answer this one, see `workload`.
        tags : sequence of str
            Up to 20 words by which the job can be found.
        retry_of : str
            The job of which this one is a repetition.

        Raises
        ------
        UnknownWorkloadError
            No such workload.
        InvalidParametersError
            The parameters do not fit its schema, or are not JSON.
        InvalidTypeError, InvalidArgumentError
            Another argument cannot be used.
        SerializationError
            The workload cannot be sent to a process of its own.
        QueueFullError
            As many jobs wait as may.
        IdempotencyError
            The key was given before with something else.
        JournalTimeoutError
            The journal does not answer, so that it is not known whether the job was written.
            It is withdrawn: if it turns out to be written it ends as cancelled, without having
            run, as long as this master lives. Submitting again with the same key is safe.
        JournalError
            The job could not be written down, so it was not accepted.
        SessionError
            The master is closed.
        """
        found = self._find(workload)
        self._operations.workplace.check(found)
        asked = read_submission(
            found,
            params,
            self._clock().wall,
            priority=priority,
            timeout_seconds=timeout_seconds,
            deadline_seconds=deadline_seconds,
            user=user,
            idempotency_key=idempotency_key,
            tags=tags,
            retry_of=retry_of,
        )
        record = asked.record
        answer = self._cached(found, user, asked.params_digest) if cache else None
        old = self._submitted_before(record)
        with self._changed:
            if self._closed or self._operations.broken is not None:
                raise self._operations.broken or SessionError(
                    "the master is closed and takes no more jobs"
                )
            earlier = same_submission(asked, old, self._core, self._store)
            if earlier is not None:
                job = self._operations.handle(earlier)
                pending = self._operations.receipts.get(job.id)
                receipts = [] if pending is None else [pending]
                if pending is not None and self._core.is_live(job.id):
                    self._core.reclaim(job.id)
            else:
                record = replace(record, sequence=next(self._sequence))
                job = self._operations.handle(record)
                job.submitted_here()
                receipts = self._accept(record, answer)
            self._submitters[job.id] += 1
        try:
            for receipt in receipts:
                receipt.wait(self._store.answer_seconds)
        finally:
            self._submitter_gone(job.id, receipts)
        if earlier is not None:
            self._operations.settle(job)
        for watch in watches():
            watch.jobs.append(job)
        return job

    def submit_task(self, task_data: Mapping[str, Any]) -> str:
        """Submit to the default workload; returns the task's identifier."""
        return self.submit(DEFAULT, task_data).id

    def retry(self, job_id: str, *, user: str | None = None) -> Job:
        """Submit again what a job that has finished was submitted with; a new job.

        Priority, time-out and tags are those of the job, which stays as it is. A deadline is not
        taken over, and the result is computed anew.

        Parameters
        ----------
        user : str, optional
            Default: that of the job.

        Raises
        ------
        UnknownJobError
            There is no such job.
        InvalidArgumentError
            It has not finished.
        QueueFullError, JournalError, UnknownWorkloadError, InvalidParametersError
            As `submit`.
        """
        old = self.outline(job_id)
        if not old.state.finished:
            raise InvalidArgumentError(f"job {job_id} is {old.state.value}; only ended jobs retry")
        return self.submit(
            old.workload,
            Parameters.of(json_value(old.params)),
            priority=old.priority,
            timeout_seconds=old.timeout_seconds,
            user=old.user if user is None else user,
            cache=False,
            tags=old.tags,
            retry_of=old.id,
        )

    # --- questions ---------------------------------------------------------------------

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """Return the facts known of a task: ``task_id``, ``state``, ``result``, ``error`` and more.

        Raises
        ------
        UnknownJobError
            There is no such task, or it is forgotten.
        """
        return self.record(task_id).to_dict()

    def record(self, job_id: str) -> JobRecord:
        """The job as it is now; UnknownJobError if there is none."""
        return self._store.get(job_id)

    @property
    def workloads(self) -> Registry:
        """The workloads that jobs may be of."""
        return self._workloads

    def outline(self, job_id: str) -> JobRecord:
        """As `record`, without a result that is stored apart."""
        return self._store.outline(job_id)

    def at_hand(self, job_id: str) -> JobRecord | None:
        """The job as others see it now, without a result that is stored apart; None if it has to be
        looked up in the journal, or there is none. Takes no lock and waits for nothing."""
        return self._store.known(job_id)

    def stored_result(self, record: JobRecord) -> bytes | Path | None:
        """The text of a result that is stored apart, as it is kept: its file, or its content.

        None if the record itself has the result.

        Raises
        ------
        ResultCorruptError
            It is missing or damaged.
        """
        return self._store.stored_result(record)

    def job(self, job_id: str) -> Job:
        """The handle of a job; UnknownJobError if there is none."""
        with self._changed:
            found = self._operations.handle_at_hand(job_id)
        if found is None:
            record = self._store.get(job_id)
            with self._changed:
                found = self._operations.handle(record)
        self._operations.settle(found)
        return found

    def jobs(self) -> list[JobRecord]:
        """All jobs known, in the order of submission.

        With a journal: the unfinished and the last 1000 finished ones; results too large for
        it are left out, `record` has them.
        """
        with self._changed:
            return sorted(self._store.records(), key=lambda record: record.sequence)

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        """Up to so many jobs, newest first, of all that are kept, in the journal too.

        Those that are not at hand (see `jobs`) come without params and result.

        Parameters
        ----------
        before : int or None
            Only those whose ``sequence`` is less: the last of the page before.
        owner : str or None
            Only those of this user.
        """
        return self._store.page(before, owner, count)

    def count(self, owner: str | None) -> int:
        """Return how many jobs are kept, of all users or of one."""
        return self._store.count(owner)

    def logs(self, job_id: str, first: int = 0) -> list[LogLine]:
        """Return the lines that the job has printed so far, from line number ``first`` on: the
        newest MiB.

        Of jobs that run in threads of this process (``runners=0``) there is nothing: what they
        print goes where this process's output goes.

        Raises
        ------
        UnknownJobError
            There is no such job.
        """
        self.record(job_id)
        return self._logs.lines(job_id, first)

    def watch(
        self, watcher: Callable[[JobRecord], None], missed: Callable[[], None] = lambda: None
    ) -> None:
        """Have ``watcher`` told of each step of each job, in order, once others can see it.

        (``missed`` is for masters of another process, whose steps may be lost on the way.)

        It is called with the master's lock held, so it must return at once, raise nothing and ask
        the master nothing.
        """
        with self._changed:
            self._operations.watchers.append(watcher)

    def progress(self) -> dict[str, tuple[int, int]]:
        """Return, for each job that runs, the logical tasks done and those asked for so far."""
        with self._changed:
            running = dict(self._operations.under_way)
        return {job_id: (one.items_done, one.items_total) for job_id, one in running.items()}

    def trace(self, job_id: str) -> Trace:
        """Return the job's work on the cluster: its graphs, events, and placements with reasons.

        Of the last jobs only; an empty one of others, and of those that used no cluster.

        Raises
        ------
        UnknownJobError
            There is no such job.
        """
        self.record(job_id)
        with self._changed:
            running = self._operations.under_way.get(job_id)
        if running is not None:
            return Trace.of(running, self._operations.traces.before(job_id))
        return self._operations.traces.get(job_id)

    def statistics(self) -> Statistics:
        """Counts for monitoring."""
        with self._changed:
            core = self._core
            return self._operations.tally.statistics(core.queued, core.running, core.queued_bytes)

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobRecord:
        """The record once the job has finished, or as it is after ``timeout_seconds``.

        Raises
        ------
        UnknownJobError
            There is no such job.
        SessionError, JournalError
            The master ended and left the job in the journal.
        """
        # The handle keeps the end of the job for us, however quickly the store forgets it.
        job = self.job(job_id)
        with self._changed:
            self._changed.wait_for(
                lambda: job.settled is not None or self._operations.broken is not None,
                timeout_seconds,
            )
            if job.settled is not None:
                return job.settled
            if self._operations.broken is not None:
                raise self._operations.broken
        return self._store.get(job_id)

    # --- ending ------------------------------------------------------------------------

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False if it has finished already. See `Job.cancel`.

        Raises
        ------
        UnknownJobError
            There is no such job.
        JournalTimeoutError
            The journal does not answer; the job is stopped, and that is written when it does.
        JournalError
            It could not be written down.
        """
        with self._changed:
            live = self._core.is_live(job_id)
            commands = self._core.cancel(job_id, self._clock()) if live else []
            receipts = self._operations.carry_out(commands)
        if not live:
            self._store.get(job_id)
        for receipt in receipts:
            receipt.wait(self._store.answer_seconds)
        return bool(commands)

    def close(self, drain: bool = True, timeout_seconds: float | None = None) -> bool:
        """Take no more jobs and end.

        Parameters
        ----------
        drain : bool
            Let all accepted jobs finish first. Otherwise, and for what is left after
            ``timeout_seconds``: with a journal it stays there for the next master, running
            workloads being told to stop; without one it is cancelled.
        timeout_seconds : float, optional
            Longest wait for that. A journal that does not answer ends it earlier.

        Returns
        -------
        bool
            False if a workload did not stop although it was told to.
        """
        with self._changed:
            self._closed = True
            if drain:
                self._drain(timeout_seconds)
            if self._store.durable:
                if not self._core.idle and self._operations.broken is None:
                    self._operations.broken = SessionError(
                        "the master is closed; the job stays in the journal, and the next master "
                        "on it goes on with it"
                    )
                self._operations.carry_out(self._core.halt())
            else:
                for job_id in self._core.live_ids():
                    self._operations.carry_out(self._core.cancel(job_id, self._clock()))
            self._changed.notify_all()
            stopped = self._changed.wait_for(lambda: self._core.idle, _CANCEL_GRACE_SECONDS)
        # Without the lock: the journal's last writes still report here.
        self._store.close()
        self._operations.workplace.close()
        if self._lender is not None:
            self._lender.close()
        self._operations.alarms.close()
        self._operations.stages.close(_CANCEL_GRACE_SECONDS)
        return stopped

    def _drain(self, timeout_seconds: float | None) -> None:
        """Wait for the jobs to end, as long as the journal answers. Called with the lock held."""
        until = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not (self._core.idle or self._operations.broken is not None or self._store.stalled):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(min(left, _LOOK_SECONDS))

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

    def _cached(self, workload: Workload, user: str, digest: str) -> tuple[Any, int] | None:
        key = None if self._cache is None else cache_key(workload, user, digest)
        return None if key is None or self._cache is None else self._cache.get(key)

    def _accept(self, record: JobRecord, answer: tuple[Any, int] | None) -> list[Receipt]:
        """A new job, with its result if that is known. Called with the lock held."""
        if answer is None:
            receipts = self._operations.carry_out(self._core.submit(record, self._clock()))
        else:
            now = record.created_at
            running = advance(replace(record, cached=True), JobState.RUNNING, now)
            done = advance(
                running, JobState.SUCCEEDED, now, result=answer[0], result_bytes=answer[1]
            )
            receipts = self._operations.carry_out(self._core.answer(replace(done, attempts=0)))
        self._operations.tally.submitted()
        return receipts

    def _submitted_before(self, record: JobRecord) -> JobRecord | None:
        """The job of the same idempotency key, if it has to be looked up in the journal."""
        key, user = record.idempotency_key, record.user
        if not key:
            return None
        with self._changed:
            at_hand = self._core.job_of_key(user, key) or self._store.known_key(user, key)
        return at_hand or self._store.find(user, key)

    def _submitter_gone(self, job_id: str, receipts: Iterable[Receipt]) -> None:
        """A submit returns or raises; the last one that had no answer takes its job with it."""
        with self._changed:
            self._submitters[job_id] -= 1
            if self._submitters[job_id]:
                return
            del self._submitters[job_id]
            if not all(receipt.settled for receipt in receipts):
                self._core.withdraw(job_id)
