"""Where the master keeps its records: the `JobStore` protocol, and the one in memory.

A store is called under the master's lock and needs none of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from agentic_ray.errors import UnknownJobError
from agentic_ray.master.jobs import JobRecord


class JobStore(Protocol):
    """Keeps the newest record of each job. A record that `put` took is as safe as it gets."""

    def put(self, record: JobRecord) -> None:
        """Keep this record instead of the job's earlier one."""
        ...

    def get(self, job_id: str) -> JobRecord:
        """The newest record of the job; UnknownJobError if there is none."""
        ...

    def records(self) -> Iterator[JobRecord]:
        """All records, oldest job first."""
        ...


class MemoryStore:
    """Records in this process only. Unfinished jobs stay; of finished ones, the last few.

    Parameters
    ----------
    max_finished : int
        Finished jobs kept; the ones that finished first go first.
    max_finished_bytes : int
        JSON bytes of the parameters and results of finished jobs kept. The job that finished
        last is always kept.
    """

    def __init__(self, *, max_finished: int = 1000, max_finished_bytes: int = 256 << 20) -> None:
        self._max_finished = max_finished
        self._max_finished_bytes = max_finished_bytes
        self._records: dict[str, JobRecord] = {}
        self._finished: dict[str, None] = {}
        self._finished_bytes = 0

    def put(self, record: JobRecord) -> None:
        self._records[record.id] = record
        if record.state.finished and record.id not in self._finished:
            self._finished[record.id] = None
            self._finished_bytes += record.size_bytes
            while len(self._finished) > 1 and (
                len(self._finished) > self._max_finished
                or self._finished_bytes > self._max_finished_bytes
            ):
                self._evict(next(iter(self._finished)))

    def get(self, job_id: str) -> JobRecord:
        try:
            return self._records[job_id]
        except KeyError:
            raise UnknownJobError(
                f"no job {job_id!r}; it never was, or finished so long ago that it is forgotten "
                f"(the last {self._max_finished} finished jobs are kept)"
            ) from None

    def records(self) -> Iterator[JobRecord]:
        return iter(tuple(self._records.values()))

    def _evict(self, job_id: str) -> None:
        del self._finished[job_id]
        self._finished_bytes -= self._records.pop(job_id).size_bytes
