"""The master's decisions: a pure state machine between callers, journal and workloads.

Events come in as method calls and commands go out as data; there is no clock, thread or I/O
here. Times are `Moment`s: what is decided goes by the steady clock, what is recorded by the wall
clock. `Master` carries the commands out, the simulation in the tests does so in virtual time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from agentic_ray.errors import (
    InterruptedJobError,
    JobCancelledError,
    JobTimeoutError,
    PoisonJobError,
)
from agentic_ray.master.clock import Moment
from agentic_ray.master.jobs import JobFailure, JobRecord, JobState, advance, requeued
from agentic_ray.master.queue import JobQueue, QueueLimits


@dataclass(frozen=True, slots=True)
class Write:
    """Make the record durable, after all earlier writes; then call `MasterCore.written`.

    A ``first`` record may be refused (`MasterCore.refused`): nobody was promised anything yet.
    Any other is tried again until it is written.
    """

    record: JobRecord
    first: bool = False


@dataclass(frozen=True, slots=True)
class Show:
    """The record is what there is to be seen of the job."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class Start:
    """Run the workload; then call `MasterCore.ended`."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the workload to stop; `MasterCore.ended` is still called when it has."""

    job_id: str


MAX_ATTEMPTS = 3

Command = Write | Show | Start | Stop


class _Phase(Enum):
    ACCEPTING = auto()  # the submit is being written
    WAITING = auto()  # in the queue
    STARTING = auto()  # that it runs is being written
    RUNNING = auto()
    RETURNING = auto()  # that it waits again, since its process died, is being written
    ENDING = auto()  # how it ended is being written
    ENDED = auto()  # that is written, but its workload has not stopped


@dataclass(slots=True)
class _Live:
    record: JobRecord
    phase: _Phase
    has_place: bool = False
    deadline: float | None = None  # by the steady clock
    withdrawn: bool = False


class MasterCore:
    """Jobs that are not over, by their place between submit and a durable end.

    A job is started only when the journal says that it runs, and seen to have ended only when
    the journal says how. So a crash at any moment leaves either a job that nobody was promised,
    or one that the journal knows, and no end is told that a restart could contradict.

    Parameters
    ----------
    max_running : int
        Places: workloads that run at once.
    limits : QueueLimits
    held : bool
        Start nothing before `begin`.
    max_attempts : int
        Processes of its own that a job may end before it is taken to be the cause.
    """

    def __init__(
        self,
        max_running: int,
        limits: QueueLimits,
        *,
        held: bool = False,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._max_attempts = max_attempts
        self._max_running = max_running
        self._held = held
        self._queue = JobQueue(limits)
        self._live: dict[str, _Live] = {}
        self._places = 0
        self._accepting: Counter[str] = Counter()
        self._accepting_bytes = 0
        self._keys: dict[tuple[str, str], str] = {}
        self._halted = False

    # --- questions ---------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Parameters of the jobs that wait, as JSON text."""
        return self._queue.size_bytes

    @property
    def running(self) -> int:
        """Places taken."""
        return self._places

    @property
    def held(self) -> bool:
        """Jobs wait for `begin`."""
        return self._held

    @property
    def idle(self) -> bool:
        """Nothing waits, runs or is being written."""
        return not self._live

    def is_live(self, job_id: str) -> bool:
        """Whether the job is not durably over, or its workload has not stopped."""
        return job_id in self._live

    def live_record(self, job_id: str) -> JobRecord | None:
        """The newest record of a live job, written or not."""
        live = self._live.get(job_id)
        return None if live is None else live.record

    def live_ids(self) -> list[str]:
        """Identifiers of the live jobs, in the order in which they came."""
        return list(self._live)

    def seconds_left(self, job_id: str, now: Moment) -> float | None:
        """Until a live job's deadline; None if it has none."""
        deadline = self._live[job_id].deadline
        return None if deadline is None else max(0.0, deadline - now.steady)

    def job_of_key(self, user: str, key: str) -> JobRecord | None:
        """The live job that was submitted with this idempotency key."""
        job_id = self._keys.get((user, key))
        return None if job_id is None else self._live[job_id].record

    # --- events ------------------------------------------------------------------------

    def recover(self, records: Iterable[JobRecord], now: Moment) -> list[Command]:
        """Take over the unfinished jobs of a journal, oldest first.

        Those that waited wait again; those that ran are run again, or end: cancelled if that
        was asked for, failed if their effects forbid a second run. How long they have waited,
        and how much time is left to them, the wall clock tells, since there is no other from
        one process to the next; set back, it gives no job more time than it had at first.
        """
        commands: list[Command] = []
        for record in records:
            if record.state is JobState.RUNNING:
                self._add(_Live(record, _Phase.RUNNING))
                if record.cancel_requested:
                    error: Exception = JobCancelledError("cancelled; the master died meanwhile")
                    commands += self._end(record.id, JobState.CANCELLED, now, error=error)
                    continue
                if record.effects:
                    error = InterruptedJobError(
                        "the master died while the job ran; its workload has effects, so it is "
                        "not run again: check what it did and submit it anew if need be"
                    )
                    commands += self._end(record.id, JobState.FAILED, now, error=error)
                    continue
                record = requeued(record)
            deadline = None
            if record.deadline_at is not None:
                whole = record.deadline_at - record.created_at
                deadline = now.steady + min(record.deadline_at - now.wall, whole)
            self._add(_Live(record, _Phase.WAITING, deadline=deadline))
            self._queue.push(record, now.ago(record.created_at))
            commands.append(Show(record))
        return commands + self._start_next(now)

    def begin(self, now: Moment) -> list[Command]:
        """From now on jobs are started."""
        self._held = False
        return self._start_next(now)

    def hold(self) -> None:
        """From now on, until `begin`, none is."""
        self._held = True

    def submit(self, record: JobRecord, now: Moment) -> list[Command]:
        """Accept a job, as far as deciding goes; nobody may be told before `written`.

        Raises
        ------
        QueueFullError
            As many jobs wait as may.
        """
        pending = self._accepting
        self._queue.check_room(
            record.user,
            pending.total(),
            pending[record.user],
            size_bytes=record.size_bytes,
            pending_bytes=self._accepting_bytes,
        )
        deadline = None
        if record.deadline_at is not None:
            deadline = now.steady + record.deadline_at - record.created_at
        self._add(_Live(record, _Phase.ACCEPTING, deadline=deadline))
        pending[record.user] += 1
        self._accepting_bytes += record.size_bytes
        return [Write(record, first=True)]

    def answer(self, record: JobRecord) -> list[Command]:
        """Accept a job whose result is there already, from an equal one."""
        self._add(_Live(record, _Phase.ACCEPTING))
        self._accepting[record.user] += 1
        self._accepting_bytes += record.size_bytes
        return [Write(record, first=True)]

    def withdraw(self, job_id: str) -> None:
        """Whoever submitted the job was told that the journal does not answer.

        If it is written after all it ends as cancelled, without having run, and its key is free.
        """
        live = self._live.get(job_id)
        if live is not None and live.phase is _Phase.ACCEPTING:
            live.withdrawn = True

    def reclaim(self, job_id: str) -> None:
        """Note that a job was submitted again, by its key, before it was known to be written."""
        self._live[job_id].withdrawn = False

    def refused(self, job_id: str) -> None:
        """The first record of a job could not be written: it never was."""
        live = self._live.get(job_id)
        if live is not None:
            self._accepted(live)
            self._remove(live)

    def written(self, record: JobRecord, now: Moment) -> list[Command]:
        """A record is durable."""
        live = self._live.get(record.id)
        if live is None or self._halted:
            return []
        if live.withdrawn and live.phase is _Phase.ACCEPTING and not record.state.finished:
            self._accepted(live)
            self._keys.pop((record.user, record.idempotency_key), None)
            live.record = replace(record, idempotency_key="")
            error = JobCancelledError("withdrawn: the journal did not answer its submit in time")
            return self._end(record.id, JobState.CANCELLED, now, error=error)
        if record.state.finished:
            if live.phase is _Phase.ACCEPTING:
                self._accepted(live)
            live.phase = _Phase.ENDED
            if not live.has_place:
                self._remove(live)
            return [Show(record)]
        if live.phase is _Phase.ACCEPTING:
            self._accepted(live)
            live.phase = _Phase.WAITING
            self._queue.push(record, now.steady)
            return [Show(record), *self._start_next(now)]
        if live.phase is _Phase.STARTING and record.state is JobState.RUNNING:
            live.phase = _Phase.RUNNING
            return [Show(live.record), Start(live.record)]
        if live.phase is _Phase.RETURNING and record.state is JobState.QUEUED:
            live.phase = _Phase.WAITING
            self._queue.push(live.record, now.ago(live.record.created_at))
            return [Show(live.record), *self._start_next(now)]
        return []

    def ended(
        self,
        job_id: str,
        now: Moment,
        *,
        result: Any = None,
        result_bytes: int = 0,
        result_reference: str | None = None,
        error: BaseException | JobFailure | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> list[Command]:
        """A workload has returned, or raised ``error``. Its place is free."""
        live = self._live.get(job_id)
        if live is None:
            return []
        commands: list[Command] = []
        self._leave_place(live)
        if live.phase is _Phase.RUNNING and not self._halted:
            live.record = replace(live.record, metrics=metrics)
            if live.record.cancel_requested:
                # Also where it came to a result, or to some other error on being torn down.
                stopped = JobCancelledError("cancelled while it ran")
                commands += self._end(job_id, JobState.CANCELLED, now, error=stopped)
            elif error is not None:
                commands += self._end(job_id, JobState.FAILED, now, error=error)
            else:
                live.record = replace(live.record, result_reference=result_reference)
                commands += self._end(
                    job_id, JobState.SUCCEEDED, now, result=result, result_bytes=result_bytes
                )
        elif live.phase is _Phase.ENDED or self._halted:
            self._remove(live)
        return commands + self._start_next(now)

    def died(self, job_id: str, how: str, now: Moment) -> list[Command]:
        """The process that ran the workload has died. Its place is free.

        The job is run again, unless its effects forbid that, or it has done so too often: then
        it is taken to be the cause.
        """
        live = self._live.get(job_id)
        if live is None:
            return []
        ended = live.phase is not _Phase.RUNNING or self._halted
        if ended or live.record.cancel_requested:
            return self.ended(job_id, now, error=JobCancelledError(how))
        self._leave_place(live)
        live.record = record = replace(live.record, deaths=live.record.deaths + 1)
        if record.effects:
            error: Exception = InterruptedJobError(
                f"{how} while the job ran; its workload has effects, so it is not run again: "
                "check what it did and submit it anew if need be"
            )
        elif record.deaths >= self._max_attempts:
            error = PoisonJobError(f"{how}; the job has ended {record.deaths} processes now")
        else:
            live.record = requeued(record)
            live.phase = _Phase.RETURNING
            return [Write(live.record), *self._start_next(now)]
        return [
            *self._end(job_id, JobState.FAILED, now, error=error),
            *self._start_next(now),
        ]

    def cancel(self, job_id: str, now: Moment) -> list[Command]:
        """Cancel a live job: at once if it does not run, else when it has stopped."""
        live = self._live[job_id]
        if live.phase in (_Phase.ENDING, _Phase.ENDED, _Phase.ACCEPTING) or self._halted:
            return []
        if live.phase is _Phase.RUNNING:
            live.record = replace(live.record, cancel_requested=True)
            return [Write(live.record), Show(live.record), Stop(job_id)]
        error = JobCancelledError("cancelled while it waited")
        return self._end_unstarted(live, JobState.CANCELLED, now, error)

    def expire(
        self, job_id: str, text: str, now: Moment, attempt: int | None = None
    ) -> list[Command]:
        """A live job has no more time: it fails at once, wherever it is.

        The place of one that runs is free again when its workload has stopped. The time of one
        ``attempt`` means nothing to the next.
        """
        live = self._live.get(job_id)
        if (
            live is not None
            and attempt is not None
            and (live.phase is not _Phase.RUNNING or live.record.attempts != attempt)
        ):
            return []
        if live is None or live.phase in (_Phase.ENDING, _Phase.ENDED) or self._halted:
            return []
        error = JobTimeoutError(text)
        if live.phase is _Phase.RUNNING:
            return [*self._end(job_id, JobState.FAILED, now, error=error), Stop(job_id)]
        if live.phase is _Phase.ACCEPTING:
            return []  # checked again when it waits
        return self._end_unstarted(live, JobState.FAILED, now, error)

    def halt(self) -> list[Command]:
        """Decide nothing more: jobs stay as the journal has them; workloads are to stop."""
        self._halted = True
        for live in list(self._live.values()):
            if live.phase is _Phase.STARTING:
                self._leave_place(live)
            if not live.has_place:
                self._remove(live)
        return [Stop(job_id) for job_id in self._live]

    # --- inside ------------------------------------------------------------------------

    def _start_next(self, now: Moment) -> list[Command]:
        commands: list[Command] = []
        while not (self._halted or self._held) and self._places < self._max_running:
            job_id = self._queue.pop(now.steady)
            if job_id is None:
                break
            live = self._live[job_id]
            if live.deadline is not None and now.steady >= live.deadline:
                self._queue.stopped(live.record.user)
                error = JobTimeoutError("its deadline passed while it waited")
                commands += self._end(job_id, JobState.FAILED, now, error=error)
                continue
            live.record = advance(live.record, JobState.RUNNING, now.wall)
            live.phase = _Phase.STARTING
            live.has_place = True
            self._places += 1
            commands.append(Write(live.record))
        return commands

    def _end_unstarted(
        self, live: _Live, state: JobState, now: Moment, error: Exception
    ) -> list[Command]:
        if live.phase is _Phase.STARTING:
            self._leave_place(live)
        else:
            self._queue.remove(live.record.id)
        return [
            *self._end(live.record.id, state, now, error=error),
            *self._start_next(now),
        ]

    def _end(
        self,
        job_id: str,
        state: JobState,
        now: Moment,
        *,
        error: BaseException | JobFailure | None = None,
        result: Any = None,
        result_bytes: int = 0,
    ) -> list[Command]:
        live = self._live[job_id]
        failure = JobFailure.of(error) if isinstance(error, BaseException) else error
        live.record = advance(
            live.record, state, now.wall, result=result, error=failure, result_bytes=result_bytes
        )
        live.phase = _Phase.ENDING
        return [Write(live.record)]

    def _leave_place(self, live: _Live) -> None:
        if live.has_place:
            live.has_place = False
            self._places -= 1
            self._queue.stopped(live.record.user)

    def _accepted(self, live: _Live) -> None:
        self._accepting[live.record.user] -= 1
        self._accepting_bytes -= live.record.size_bytes
        if not self._accepting[live.record.user]:
            del self._accepting[live.record.user]

    def _add(self, live: _Live) -> None:
        record = live.record
        self._live[record.id] = live
        if record.idempotency_key:
            self._keys[record.user, record.idempotency_key] = record.id

    def _remove(self, live: _Live) -> None:
        record = live.record
        del self._live[record.id]
        if record.idempotency_key:
            self._keys.pop((record.user, record.idempotency_key), None)
