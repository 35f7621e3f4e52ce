"""Where the master keeps its records: the `JobStore` protocol, and the one in memory.

A store is called under the master's lock and needs none of its own for that, and must answer
at once there. `get`, `find` and `keep_result`, which may have to wait for a disk or a server,
are called without the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from heapq import nlargest
from pathlib import Path
from typing import Protocol

from agentic_ray.errors import JournalError, JournalTimeoutError, UnknownJobError
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.results import ResultStore

Done = Callable[[JournalError | None], None]
"""Told once whether a record is as safe as it gets; from any thread."""


class Receipt:
    """Whether one record is durable."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: JournalError | None = None

    def settle(self, error: JournalError | None) -> None:
        """Settle the write: it is durable, or ``error`` keeps it from being."""
        self._error = error
        self._done.set()

    @property
    def settled(self) -> bool:
        """Whether that is known."""
        return self._done.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Return when it is; raise what kept it from being.

        Raises
        ------
        JournalTimeoutError
            Neither is known after so many seconds.
        """
        if not self._done.wait(seconds):
            raise JournalTimeoutError(f"the journal has not answered for {seconds:g} seconds")
        if self._error is not None:
            raise self._error


class JobStore(Protocol):
    """Keeps the records of jobs.

    ``write`` makes a record durable, ``put`` makes it what is seen; a record is written before
    anybody is told of what it says.
    """

    @property
    def durable(self) -> bool:
        """Whether unfinished jobs outlive this process."""
        ...

    @property
    def answer_seconds(self) -> float | None:
        """Seconds to wait for a write before the caller is told that there is no answer."""
        ...

    @property
    def stalled(self) -> bool:
        """Whether a write has waited for longer than that."""
        ...

    def recover(self, lost: Callable[[JournalError], None]) -> list[JobRecord]:
        """The unfinished jobs of an earlier process, oldest first; called once, at the start.

        ``lost`` is called, from any thread, when nothing can be written any more.
        """
        ...

    def next_sequence(self) -> int:
        """The first ``sequence`` that no record has."""
        ...

    def write(self, record: JobRecord, done: Done, *, first: bool) -> None:
        """Begin to make a record durable, in the order of the calls.

        A ``first`` one may fail; others are tried again until they are written or the store is
        closed or lost.
        """
        ...

    def keep_result(self, job_id: str, text: str) -> str | None:
        """Store a result too large for a record; the reference, None if it is not too large."""
        ...

    def stage_results(self) -> ResultStore | None:
        """Where finished stages of unfinished jobs are kept; None if they are not."""
        ...

    def put(self, record: JobRecord) -> None:
        """Show this record instead of the job's earlier one."""
        ...

    def known(self, job_id: str) -> JobRecord | None:
        """The newest record of the job if it is at hand; a result stored apart is left out."""
        ...

    def known_key(self, user: str, key: str) -> JobRecord | None:
        """The job that this user submitted with this idempotency key, if it is at hand."""
        ...

    def get(self, job_id: str) -> JobRecord:
        """The newest record of the job with its result; UnknownJobError if there is none."""
        ...

    def outline(self, job_id: str) -> JobRecord:
        """As `get`, without a result that is stored apart."""
        ...

    def stored_result(self, record: JobRecord) -> bytes | Path | None:
        """The text of a result that is stored apart, or the file that holds it; None: it is not."""
        ...

    def find(self, user: str, key: str) -> JobRecord | None:
        """The job that this user submitted with this idempotency key."""
        ...

    def knows(self, job_ids: Collection[str]) -> set[str]:
        """Return the ids, of these, that are jobs of this store."""
        ...

    def records(self) -> Iterator[JobRecord]:
        """The records at hand, oldest job first; results that are stored apart are left out."""
        ...

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        """Up to so many jobs, newest first, of all that are kept; without params and results where
        they are not at hand. Fewer than ``count``: there are no more.

        Parameters
        ----------
        before : int or None
            Only those whose ``sequence`` is less.
        owner : str or None
            Only those of this user.
        """
        ...

    def count(self, owner: str | None) -> int:
        """Return how many jobs are kept, of all users or of one."""
        ...

    def close(self) -> None:
        """Write what is to be written, and let go."""
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

    durable = False
    answer_seconds: float | None = None
    stalled = False

    def __init__(self, *, max_finished: int = 1000, max_finished_bytes: int = 256 << 20) -> None:
        self._max_finished = max_finished
        self._max_finished_bytes = max_finished_bytes
        self._records: dict[str, JobRecord] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._finished: dict[str, None] = {}
        self._finished_bytes = 0

    def recover(self, lost: Callable[[JournalError], None]) -> list[JobRecord]:
        return []

    def next_sequence(self) -> int:
        return 0

    def write(self, record: JobRecord, done: Done, *, first: bool) -> None:
        done(None)

    def keep_result(self, job_id: str, text: str) -> str | None:
        return None

    def stage_results(self) -> ResultStore | None:
        return None

    def put(self, record: JobRecord) -> None:
        self._records[record.id] = record
        if record.idempotency_key:
            self._keys[record.user, record.idempotency_key] = record.id
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

    def known(self, job_id: str) -> JobRecord | None:
        return self._records.get(job_id)

    def known_key(self, user: str, key: str) -> JobRecord | None:
        job_id = self._keys.get((user, key))
        return None if job_id is None else self._records.get(job_id)

    def outline(self, job_id: str) -> JobRecord:
        return self.get(job_id)

    def stored_result(self, record: JobRecord) -> bytes | Path | None:
        return None

    def find(self, user: str, key: str) -> JobRecord | None:
        return self.known_key(user, key)

    def knows(self, job_ids: Collection[str]) -> set[str]:
        return {job_id for job_id in job_ids if job_id in self._records}

    def records(self) -> Iterator[JobRecord]:
        return iter(tuple(self._records.values()))

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        fitting = (
            record
            for record in tuple(self._records.values())
            if (before is None or record.sequence < before) and owner in (None, record.user)
        )
        return nlargest(count, fitting, key=lambda record: record.sequence)

    def count(self, owner: str | None) -> int:
        return sum(owner in (None, record.user) for record in tuple(self._records.values()))

    def close(self) -> None:
        """Nothing is held that would have to be let go."""

    def _evict(self, job_id: str) -> None:
        del self._finished[job_id]
        record = self._records.pop(job_id)
        self._finished_bytes -= record.size_bytes
        self._keys.pop((record.user, record.idempotency_key), None)
