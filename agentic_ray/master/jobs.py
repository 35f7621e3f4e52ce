"""Describes a job at one moment: `JobRecord`, `JobState`, and the legal steps between states.

Pure data and pure functions. The handle a caller holds is `handle.Job`.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError, JobCancelledError, TaskError
from agentic_ray.ids import Ids
from agentic_ray.shown import cut_line, cut_text
from agentic_ray.tracebacks import text_of

ANONYMOUS: Final = "anonymous"
"""The user of jobs that name none."""


class JobState(StrEnum):
    """``queued -> running -> succeeded | failed | cancelled``; a queued job may end at once.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.JobState("failed").finished, ar.JobState.RUNNING == "running"
    (True, True)
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether no further step follows."""
        return not _STEPS[self]


_STEPS: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job has no result.

    ``exception`` is the object itself, only in the process in which it was raised, and
    ``carried`` what it can be made of again there, if the job ran in a process of its own. What is
    stored and sent are the type's name and the message, both cut to 64 KiB. ``traceback`` is for
    the user's own eyes and never sent over HTTP.
    """

    type: str
    message: str
    traceback: str = ""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    carried: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: BaseException) -> JobFailure:
        shown = cut_text(_traceback_of(error))
        link: BaseException | None = error
        seen: set[int] = set()
        while link is not None and id(link) not in seen:
            # Kept with the job, the traceback would keep alive what the workload had at hand.
            traceback.clear_frames(link.__traceback__)
            seen.add(id(link))
            link = link.__cause__ or link.__context__
        return cls(type(error).__name__, cut_text(text_of(error)), shown, error)

    @property
    def line(self) -> str:
        """Type and message in one short line."""
        return cut_line(f"{self.type}: {self.message}")

    def to_dict(self) -> dict[str, str]:
        return {"type": self.type, "message": self.message}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job at one moment; each step makes a new record.

    Parameters
    ----------
    id : str
    workload, version : str
        The registered workload.
    params, result : JSON
        Plain JSON types.
    priority : int
        Higher runs first.
    sequence : int
        Order of submission, first in first out among equals.
    created_at, started_at, finished_at : float or None
        Seconds since the epoch.
    timeout_seconds : float or None
        Longest running time, not counting the time in the queue.
    cancel_requested : bool
        The job runs and has been told to stop.
    metrics : mapping or None
        E, L, D, F and what they are made of; None when the job put nothing on the cluster.
    size_bytes : int
        JSON size of params and result, by which a store bounds itself.
    user : str
        On whose behalf; users share the queue fairly.
    deadline_at : float or None
        Seconds since the epoch at which the job fails unless it has finished.
    idempotency_key, body_digest : str
        The key given on submit, if any, and the digest of what was submitted with it.
    effects : bool
        The workload may not run twice.
    cached : bool
        The result was there before, from an equal job.
    attempts : int
        How often the job was started.
    result_reference : str or None
        Where the result is stored if it is not with the record.
    deaths : int
        How often the process that ran the job died.
    tags : tuple of str
        Words by which its user finds it.
    retry_of : str
        The job of which this one is a repetition; empty if of none.
    request_id, traceparent : str
        The request that submitted it, and the span that this was part of (W3C Trace Context);
        empty if there was none.
    """

    id: str
    workload: str
    version: str
    params: Any
    priority: int
    sequence: int
    created_at: float
    timeout_seconds: float | None = None
    state: JobState = JobState.QUEUED
    started_at: float | None = None
    finished_at: float | None = None
    result: Any = None
    error: JobFailure | None = None
    cancel_requested: bool = False
    metrics: Mapping[str, Any] | None = None
    size_bytes: int = 0
    user: str = ANONYMOUS
    deadline_at: float | None = None
    idempotency_key: str = ""
    body_digest: str = ""
    effects: bool = False
    cached: bool = False
    attempts: int = 0
    result_reference: str | None = None
    deaths: int = 0
    tags: tuple[str, ...] = ()
    retry_of: str = ""
    request_id: str = ""
    traceparent: str = ""

    @property
    def ids(self) -> Ids:
        """Ids that lines of the log about this job carry."""
        return Ids(self.request_id, self.id, "", self.traceparent)

    def __repr__(self) -> str:
        """In one line, without params and result, which may be large."""
        error = "" if self.error is None else f", {self.error.line}"
        user = "" if self.user == ANONYMOUS else f", user={self.user!r}"
        return (
            f"<JobRecord {self.id} {self.workload} version {self.version}: {self.state.value}"
            f"{error}, priority {self.priority}{user}>"
        )

    def to_dict(self, *, with_result: bool = True) -> dict[str, Any]:
        """Return the job as JSON types, for people to see; without its params, which may be
        large."""
        shown: dict[str, Any] = {
            "task_id": self.id,
            "state": self.state.value,
            "workload": self.workload,
            "version": self.version,
            "priority": self.priority,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "timeout_seconds": self.timeout_seconds,
            "deadline_at": self.deadline_at,
            "user": self.user,
            "attempts": self.attempts,
            "cached": self.cached,
            "cancel_requested": self.cancel_requested,
            "tags": list(self.tags),
            "retry_of": self.retry_of or None,
            "request_id": self.request_id or None,
            "error": None if self.error is None else self.error.to_dict(),
            "metrics": None if self.metrics is None else dict(self.metrics),
        }
        if with_result:
            shown["result"] = self.result
        return shown


def advance(
    record: JobRecord,
    state: JobState,
    at: float,
    *,
    result: Any = None,
    error: JobFailure | None = None,
    result_bytes: int = 0,
) -> JobRecord:
    """The record after one step.

    Parameters
    ----------
    at : float
        Seconds since the epoch. A clock that went back does not make a job end before it began.

    Raises
    ------
    InvalidArgumentError
        The step is not legal, a failure has no error, or something else has one.
    """
    if state not in _STEPS[record.state]:
        raise InvalidArgumentError(
            f"job {record.id} is {record.state.value} and cannot become {state.value}"
        )
    if (error is not None) != (state in (JobState.FAILED, JobState.CANCELLED)):
        raise InvalidArgumentError(f"a {state.value} job has an error exactly when it failed")
    at = max(at, record.created_at, record.started_at or 0.0)
    if state is JobState.RUNNING:
        return replace(record, state=state, started_at=at, attempts=record.attempts + 1)
    return replace(
        record,
        state=state,
        finished_at=at,
        result=result,
        error=error,
        size_bytes=record.size_bytes + result_bytes,
    )


def without_exception(record: JobRecord) -> JobRecord:
    """The record as another process may have it: what was raised stays in its own."""
    if record.error is None or (record.error.exception is None and not record.error.carried):
        return record
    return replace(record, error=replace(record.error, exception=None, carried=None))


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as raised:  # from hooks of the user's exception
        return f"{type(error).__name__} (its traceback cannot be made: {type(raised).__name__})"


def requeued(record: JobRecord) -> JobRecord:
    """The record of a job that ran when its master, or its process, died, to be run again."""
    return replace(record, state=JobState.QUEUED, started_at=None)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job; ``bundle`` and ``node_id`` are empty if none is meant."""

    time: float
    kind: str
    text: str = ""
    bundle: str = ""
    node_id: str = ""


def lifecycle(record: JobRecord) -> list[JobEvent]:
    """The steps the job has taken, in order."""
    events = [JobEvent(record.created_at, JobState.QUEUED.value)]
    if record.started_at is not None:
        events.append(JobEvent(record.started_at, JobState.RUNNING.value))
    if record.finished_at is not None:
        text = "" if record.error is None else f"{record.error.type}: {record.error.message}"
        events.append(JobEvent(record.finished_at, record.state.value, text))
    return events


def raise_failure(record: JobRecord) -> None:
    """Raise what ended the job, the original exception where this process has it."""
    if record.error is None:
        return
    if record.error.exception is not None:
        raise record.error.exception
    if record.error.carried is not None:
        # imported here: what asks for the state of a job needs no Ray
        from agentic_ray.runtime.carried import make

        raise make(pickle.loads(record.error.carried))
    text = f"{record.error.type}: {record.error.message}"
    if record.state is JobState.CANCELLED:
        raise JobCancelledError(text)
    raise TaskError(text)
