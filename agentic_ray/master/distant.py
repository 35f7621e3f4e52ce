"""`DistantMaster`: a master that runs elsewhere in the cluster, as the service needs it.

It is reached through a `gateway` process, so that no call of Ray's is made in this one. This
process, the gateway and the master may each end and come back; jobs do not notice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Final

from agentic_ray.errors import AgenticRayError, SessionError
from agentic_ray.ids import current_ids
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.logs import LogLine
from agentic_ray.master.statistics import Statistics
from agentic_ray.master.steps import Position
from agentic_ray.master.traces import Trace
from agentic_ray.master.workloads import Registry, Workload

_ANSWER_SECONDS: Final = 20.0
_WAIT_SECONDS: Final = 2.0
_LATE_SECONDS: Final = 8.0
_PAUSE: Final = 0.5
_CATALOGUE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A workload as another process tells of it: all but its function."""

    name: str
    version: str
    description: str
    effects: bool
    cache: bool
    builtin: bool
    schema: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the master has accepted."""

    id: str
    record: JobRecord


class DistantMaster:
    """A master behind the gateway at ``path``; safe to use from any thread.

    Parameters
    ----------
    path : str
        The socket of the `Gateway`.
    name : str
        Of the master, for messages.
    """

    held = False

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        self._free: list[Connection[Any, Any]] = []
        self._lock = threading.Lock()
        self._watchers: list[tuple[Callable[[JobRecord], None], Callable[[], None]]] = []
        self._workloads = Registry()
        self._closing = threading.Event()
        self._heard_at = -1e9
        self._follower = threading.Thread(target=self._follow, name="steps", daemon=True)
        self._follower.start()

    # --- as of `Master` ----------------------------------------------------------------

    def submit(self, workload: str, params: Any, **options: Any) -> Accepted:
        """As `Master.submit`."""
        record: JobRecord = self._call("accept", workload, params, options, current_ids())
        return Accepted(record.id, record)

    def retry(self, job_id: str) -> Accepted:
        """As `Master.retry`."""
        record: JobRecord = self._call("retry", job_id, current_ids())
        return Accepted(record.id, record)

    def record(self, job_id: str) -> JobRecord:
        """As `Master.record`."""
        found: JobRecord = self._call("record", job_id)
        return found

    def outline(self, job_id: str) -> JobRecord:
        """As `Master.outline`."""
        found: JobRecord = self._call("outline", job_id)
        return found

    def at_hand(self, job_id: str) -> JobRecord | None:
        """As `Master.at_hand`: nothing is, in this process."""
        return None

    def stored_result(self, record: JobRecord) -> bytes | Path | None:
        """As `Master.stored_result`; its content."""
        if record.result_reference is None:
            return None
        found: bytes | None = self._call("stored_result", record.id)
        return found

    def cancel(self, job_id: str) -> bool:
        """As `Master.cancel`."""
        return bool(self._call("cancel", job_id))

    def jobs(self) -> list[JobRecord]:
        """As `Master.jobs`, without params and results."""
        found: list[JobRecord] = self._call("jobs")
        return found

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        """As `Master.page`."""
        found: list[JobRecord] = self._call("page", before, owner, count)
        return found

    def count(self, owner: str | None) -> int:
        """As `Master.count`."""
        return int(self._call("count", owner))

    def logs(self, job_id: str, first: int = 0) -> list[LogLine]:
        """As `Master.logs`."""
        found: list[LogLine] = self._call("logs", job_id, first)
        return found

    def progress(self) -> dict[str, tuple[int, int]]:
        """As `Master.progress`; of nothing while the master does not answer."""
        try:
            found: dict[str, tuple[int, int]] = self._call("progress")
        except SessionError:
            return {}
        return found

    def trace(self, job_id: str) -> Trace:
        """As `Master.trace`."""
        found: Trace = self._call("trace", job_id)
        return found

    def statistics(self) -> Statistics:
        """As `Master.statistics`."""
        found: Statistics = self._call("statistics")
        return found

    @property
    def workloads(self) -> Registry:
        """The workloads that the master has, as it told some seconds ago; they cannot be run here.

        While it does not answer: those that were known last.
        """
        return self._workloads

    def watch(
        self, watcher: Callable[[JobRecord], None], missed: Callable[[], None] = lambda: None
    ) -> None:
        """As `Master.watch`. ``missed`` is told that some steps may never be heard of."""
        self._watchers.append((watcher, missed))

    # --- its state ---------------------------------------------------------------------

    @property
    def reason(self) -> str:
        """Why calls are not answered now; empty if they are."""
        silent = time.monotonic() - self._heard_at
        return f"master {self._name!r} does not answer" if silent > _LATE_SECONDS else ""

    def close(self) -> None:
        """Ask nothing more. The master goes on."""
        self._closing.set()
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _follow(self) -> None:
        known: Position | None = None
        listed_at = -1e9
        while not self._closing.is_set():
            try:
                if time.monotonic() - listed_at >= _CATALOGUE_SECONDS:
                    told: list[Listed] = self._call("catalogue")
                    self._workloads.restore({each.name: _stub(each) for each in told})
                    listed_at = time.monotonic()
                known, steps, lost = self._call("steps", known, _WAIT_SECONDS)
            except AgenticRayError:
                self._closing.wait(_PAUSE)
                continue
            self._heard_at = time.monotonic()
            for watcher, missed in tuple(self._watchers):
                if lost:
                    missed()
                for record in steps:
                    watcher(record)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the master through the gateway, and return its result.

        Raises
        ------
        SessionError
            The master does not answer. It may have run the method all the same.
        """
        try:
            with self._lock:
                connection = self._free.pop() if self._free else None
            if connection is None:
                connection = Client(self._path, "AF_UNIX")
            try:
                connection.send((method, arguments))
                if not connection.poll(_ANSWER_SECONDS):
                    raise SessionError(f"master {self._name!r} does not answer now; try again")
                done, value = connection.recv()
            except BaseException:
                connection.close()
                raise
        except (OSError, EOFError) as error:
            raise SessionError(
                f"master {self._name!r} cannot be reached now ({type(error).__name__}: {error}); "
                "try again"
            ) from error
        with self._lock:
            if self._closing.is_set():
                connection.close()
            else:
                self._free.append(connection)
        if not done:
            raise value
        return value


def _stub(listed: Listed) -> Workload:
    """A workload that can be described, and not run."""

    def elsewhere(params: Any) -> Any:
        raise SessionError("this workload runs where its master is")

    elsewhere.__doc__ = listed.description
    return Workload(
        listed.name,
        elsewhere,
        listed.version,
        lambda params: params,
        listed.builtin,
        listed.effects,
        listed.cache,
        listed.schema,
        check_text=(lambda text: None) if listed.schema else None,
    )


def listed(workload: Workload) -> Listed:
    """Describe a workload for a process that cannot run it."""
    schema = workload.schema if isinstance(workload.schema, str) else ""
    return Listed(
        workload.name,
        workload.version,
        workload.description,
        workload.effects,
        workload.cache,
        workload.builtin,
        schema if workload.check_text is not None else "",
    )
