"""`Job`: what a caller holds of a submitted job. The record behind it is `jobs.JobRecord`."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from agentic_ray.awaiting import in_thread
from agentic_ray.errors import AgenticRayError, JobTimeoutError
from agentic_ray.master.jobs import JobEvent, JobRecord, JobState, lifecycle, raise_failure
from agentic_ray.shown import Shown, one_line
from agentic_ray.tracebacks import entry

if TYPE_CHECKING:
    from agentic_ray.runtime import JobScope
    from agentic_ray.schedule.metrics import PlacementRecord


class Owner(Protocol):
    """What a handle needs of its master."""

    def record(self, job_id: str) -> JobRecord: ...
    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobRecord: ...
    def cancel(self, job_id: str) -> bool: ...


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
        self._scope: JobScope | None = None
        self.cell = contextvars.Context()

    def submitted_here(self) -> None:
        """For the master: what the job prints belongs to the cell of a notebook that calls this.

        ipykernel keeps that in context variables of this name, which a new thread has not.
        """
        for variable, value in contextvars.copy_context().items():
            if variable.name == "parent_header":
                self.cell.run(variable.set, value)

    def enter(self, scope: JobScope) -> None:
        """For the master: the job runs, and puts its work on the cluster in this scope."""
        self._scope = scope

    def settle(self, record: JobRecord) -> None:
        """For the master: this is how the job ended."""
        self._final = record

    @property
    def settled(self) -> JobRecord | None:
        """How the job ended, once the handle knows."""
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
        its work on the cluster stops, code of its own runs to its next use of the cluster.
        """
        return self._final is None and self._owner.cancel(self.id)

    def events(self) -> list[JobEvent]:
        """What happened to the job and to its work on the cluster, in order.

        Of the latter only what happened while this handle, or one like it, was held.
        """
        events = lifecycle(self.record)
        if self._scope is not None:
            events += [
                JobEvent(event.time, event.kind, event.text, event.bundle, event.node_id)
                for event in self._scope.events()
            ]
        return sorted(events, key=lambda event: event.time)

    def placements(self) -> list[PlacementRecord]:
        """Where each finished bundle of the job ran and why; as `events`, of a held job only."""
        return [] if self._scope is None else self._scope.placements()

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
            done=0 if self._scope is None else self._scope.items_done,
            seconds=(record.finished_at or time.time()) - begun,
        )

    def __repr__(self) -> str:
        return f"<{self._shown().text()}>"

    def _repr_html_(self) -> str:
        return self._shown().html()
