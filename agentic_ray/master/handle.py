"""`Job`: what a caller holds of a submitted job. The record behind it is `jobs.JobRecord`."""

from __future__ import annotations

import contextvars
import os
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from agentic_ray.awaiting import in_thread
from agentic_ray.errors import AgenticRayError, JobTimeoutError
from agentic_ray.master.jobs import JobEvent, JobRecord, JobState, lifecycle, raise_failure
from agentic_ray.master.logs import LogLine
from agentic_ray.pictures import Timeline
from agentic_ray.schedule.spans import job_html, timeline_of
from agentic_ray.shown import Shown, one_line
from agentic_ray.tracebacks import entry

if TYPE_CHECKING:
    from agentic_ray.schedule.metrics import PlacementRecord


class Owner(Protocol):
    """Methods of its master that a handle needs."""

    def record(self, job_id: str) -> JobRecord: ...
    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobRecord: ...
    def cancel(self, job_id: str) -> bool: ...
    def logs(self, job_id: str, first: int = 0) -> list[LogLine]: ...


class UnderWay(Protocol):
    """A job that runs: it can be told to stop, and asked how far it is."""

    @property
    def items_done(self) -> int: ...
    @property
    def items_total(self) -> int: ...
    def cancel(self) -> None: ...
    def events(self) -> list[JobEvent]: ...
    def placements(self) -> list[PlacementRecord]: ...
    def placements_by_graph(self) -> list[list[PlacementRecord]]: ...
    def graphs(self) -> list[dict[str, Any]]: ...


class Job:
    """A submitted job. Made by `Master.submit`; safe to use from any thread.

    A handle keeps its job's result, also when the master has forgotten the job.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> job = ar.submit("default", {"data": [1, 2, 3]})
    >>> job.result(timeout=60)
    14
    >>> job.status().value
    'succeeded'
    """

    def __init__(self, owner: Owner, job_id: str) -> None:
        self.id = job_id
        self._owner = owner
        self._final: JobRecord | None = None
        self._under_way: UnderWay | None = None
        self.cell = contextvars.Context()

    def submitted_here(self) -> None:
        """For the master: what the job prints belongs to the cell of a notebook that calls this.

        ipykernel keeps that in context variables of this name, which a new thread has not.
        """
        for variable, value in contextvars.copy_context().items():
            if variable.name == "parent_header":
                self.cell.run(variable.set, value)

    def enter(self, under_way: UnderWay) -> None:
        """For the master: the job runs, and this tells of its work on the cluster."""
        self._under_way = under_way

    def settle(self, record: JobRecord) -> None:
        """For the master: this is how the job ended."""
        self._final = record

    @property
    def settled(self) -> JobRecord | None:
        """Record of the ended job, once the handle knows it; else None."""
        return self._final

    @property
    def record(self) -> JobRecord:
        """Everything known of the job now."""
        return self._final or self._owner.record(self.id)

    def status(self) -> JobState:
        """The state now; compares equal to its name, e.g. ``"succeeded"``."""
        return self.record.state

    @entry
    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the job goes on after that.

        Raises
        ------
        JobTimeoutError
            Not there in time; also when the job itself ran longer than it may.
        JobCancelledError
            The job was cancelled.
        The workload's own exception
            It failed in this process; otherwise TaskError with its type and message.
        """
        record = self._final or self._owner.wait(self.id, timeout)
        if not record.state.finished:
            raise JobTimeoutError(f"job {self.id} is {record.state.value} after {timeout} seconds")
        raise_failure(record)
        return record.result

    def cancel(self) -> bool:
        """Cancel the job; False if it has finished already.

        A queued job never runs. A running one is told to stop, and is cancelled once it has:
        its work on the cluster stops. Code of its own is interrupted (JobCancelledError) and
        killed if it goes on for a second; in a thread of this process (``Master(runners=0)``) it
        runs to its next use of the cluster.
        """
        return self._final is None and self._owner.cancel(self.id)

    def events(self) -> list[JobEvent]:
        """List the events of the job and of its work on the cluster, in order.

        Of the latter only what happened while this handle, or one like it, was held.
        """
        events = lifecycle(self.record)
        if self._under_way is not None:
            events += self._under_way.events()
        return sorted(events, key=lambda event: event.time)

    def logs(self, first: int = 0) -> list[LogLine]:
        """Return the lines that the job has printed so far, to both streams, from line number
        ``first`` on; see `Master.logs`.

        Raises
        ------
        UnknownJobError
            The master has forgotten the job.
        """
        return self._owner.logs(self.id, first)

    def placements(self) -> list[PlacementRecord]:
        """Where each finished bundle of the job ran and why; as `events`, of a held job only."""
        return [] if self._under_way is None else self._under_way.placements()

    def timeline(self, path: str | os.PathLike[str] | None = None) -> Timeline:
        """Return where and when the job's bundles ran as a picture; write it to ``path`` too.

        The path ends with ``.html``, ``.svg`` or ``.json`` (for Perfetto). It shows what
        `placements` lists: of a held job only.

        Raises
        ------
        NothingRanError
            Nothing is known of work on the cluster.
        """
        return timeline_of(self._shown().label, self.placements(), path=path)

    @property
    def metrics(self) -> Mapping[str, Any] | None:
        """E, L, D and F of the finished job; None before, or if it used no cluster."""
        return self.record.metrics

    def __await__(self) -> Generator[Any, None, Any]:
        """``await job``: as `result`, in a thread.

        Cancelling what waits leaves the job as it is, as the timeout of `result` does; `cancel`
        stops it.
        """
        return in_thread(self.result, cancelled=lambda: None).__await__()

    def _shown(self) -> Shown:
        try:
            record = self.record
        except AgenticRayError as error:  # forgotten, or its master is gone
            return Shown(f"Job {self.id}", "unknown", one_line(error))
        begun = record.started_at or record.created_at
        state = record.state.value
        if record.cancel_requested and not record.state.finished:
            state = "being cancelled"
        return Shown(
            f"Job {self.id} {record.workload}",
            state,
            "" if record.error is None else record.error.line,
            done=0 if self._under_way is None else self._under_way.items_done,
            seconds=(record.finished_at or time.time()) - begun,
        )

    def __repr__(self) -> str:
        return f"<{self._shown().text()}>"

    def _repr_html_(self) -> str:
        shown = self._shown()
        try:
            records, metrics = self.placements(), self.metrics
        except AgenticRayError:  # of another process, forgotten, or its master is gone
            records, metrics = [], None
        if not records:
            return shown.html()
        return job_html(shown.html(), timeline_of(shown.label, records), metrics)
