"""`Journal`: the job store that outlives its process, on SQLite or PostgreSQL.

One thread writes; what waits is committed together, so that many submitters share one fsync.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalCorruptError,
    JournalError,
    JournalFencedError,
    JournalTimeoutError,
    JournalUnavailableError,
    UnknownJobError,
)
from agentic_ray.master import lease, schema
from agentic_ray.master.bounded import Bounded
from agentic_ray.master.database import (
    CALL_SECONDS,
    CommitUnknownError,
    Database,
    Row,
    SqliteDatabase,
    Transaction,
)
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.jsonvalues import loads_result
from agentic_ray.master.ledger import Ledger
from agentic_ray.master.records import COLUMNS, from_row, outline_of, to_row
from agentic_ray.master.results import DirectoryResults, ResultStore, SignedResults, open_results
from agentic_ray.master.store import Done, MemoryStore

_T = TypeVar("_T")
_R = TypeVar("_R")

_INSERT = (
    "INSERT INTO jobs (id, sequence, owner, idempotency_key, finished, finished_at, params, "
    "params_check, record, result, record_check) VALUES (:id, :sequence, :owner, "
    ":idempotency_key, :finished, :finished_at, :params, :params_check, :record, :result, "
    ":record_check)"
)
_UPDATE = (
    "UPDATE jobs SET finished = :finished, finished_at = :finished_at, record = :record, "
    "result = :result, record_check = :record_check, idempotency_key = :idempotency_key "
    "WHERE id = :id AND finished = 0"
)
_RETRY_SECONDS = 0.5
_PRUNE_EVERY = 1000
_SHOWN_FINISHED = 1000
_LARGEST_BATCH = 1000
_READ_AT_ONCE = 200

_logger = logging.getLogger("agentic_ray")


@dataclass(frozen=True, slots=True)
class _Write:
    record: JobRecord
    done: Done
    first: bool
    since: float = field(default_factory=time.monotonic)


class Journal:
    """Records in a database, the newest also in memory.

    Parameters
    ----------
    where : path or URL
        A file of SQLite, a directory for it (``journal.sqlite3`` there), or the URL of a
        PostgreSQL database (``postgresql://...``, extra ``postgres``).
    results : path or URL, optional
        Where results larger than ``inline_bytes`` go: a directory or an fsspec URL. Default:
        ``<file>.results`` beside an SQLite file; with PostgreSQL they stay in the database.
        Finished stages of unfinished jobs go beside it, to the same name with ``.stages``; with
        PostgreSQL and no ``results`` they are not kept.
    synchronous : {"FULL", "NORMAL"}
        See `SqliteDatabase`.
    lease_seconds : float
        A master that shows no life for so long is taken to be gone by the next one, unless it
        is known to be dead before.
    inline_bytes : int
        Largest result, as JSON text, kept in the database.
    max_finished : int
        Finished jobs kept; the oldest are forgotten.
    call_seconds : float
        Longest time that one call of the database may take. A submit or cancel waits for its
        write twice as long, and raises JournalTimeoutError then.

    Raises
    ------
    InvalidArgumentError
        An argument, such as the URL, cannot be used.
    JournalLockedError
        Another master that is alive has it.
    JournalCorruptError
        It is damaged, and was set aside.
    JournalError
        It cannot be opened or written.
    """

    durable = True

    def __init__(
        self,
        where: str | Path,
        *,
        results: str | Path | None = None,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        lease_seconds: float = 5.0,
        inline_bytes: int = 64 << 10,
        max_finished: int = 100_000,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidArgumentError(f"synchronous must be FULL or NORMAL, not {synchronous!r}")
        if not lease_seconds > 0:
            raise InvalidArgumentError(f"lease_seconds must be > 0, not {lease_seconds}")
        if not call_seconds > 0:
            raise InvalidArgumentError(f"call_seconds must be > 0, not {call_seconds}")
        self.path: Path | None = None
        stages = None if results is None else f"{results}.stages"
        self._inline_bytes = inline_bytes
        self._max_finished = max_finished
        self._lease_seconds = lease_seconds
        self._database: Database
        if is_url(where):
            from agentic_ray.master.postgres import PostgresDatabase

            self._database = PostgresDatabase(str(where), call_seconds)
        else:
            self.path = journal_file(where)
            self._database = SqliteDatabase(self.path, synchronous, call_seconds)
            results = results or f"{self.path}.results"
            stages = stages or f"{self.path}.stages"
        self._results: ResultStore | None = None
        self._front = MemoryStore(max_finished=_SHOWN_FINISHED)
        self._call_seconds = call_seconds
        self._reads = Bounded(call_seconds, f"the journal {self.path or 'in PostgreSQL'}")
        self._waiting: deque[_Write] = deque()
        # What the writer is about, and after a lost answer what may have been written.
        self._in_hand: list[_Write] = []
        self._doubtful: list[_Write] = []
        self._changed = threading.Condition()
        self._closing = False
        self._lost: JournalError | None = None
        self._on_lost: Callable[[JournalError], None] = _ignore
        self._ended_since_prune = 0
        try:
            if results is not None:
                self._results = open_results(results)
            token = take(self._database, lease_seconds)
            self.key = _twice(self._database, schema.secret)
            self._stages: ResultStore | None = None
            if stages is not None:
                self._stages = SignedResults(open_results(stages), self.key)
        except BaseException:
            self._database.close()
            raise
        self._ledger = Ledger(self._database, token)
        self._writer = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._writer.start()

    # --- the store ---------------------------------------------------------------------

    def recover(self, lost: Callable[[JournalError], None]) -> list[JobRecord]:
        with self._changed:
            self._on_lost = lost
            if self._lost is not None:
                raise self._lost
        ended = self._read(
            f"SELECT {COLUMNS} FROM jobs WHERE finished = 1 "
            f"ORDER BY finished_at DESC LIMIT {_SHOWN_FINISHED}"
        )
        for record in reversed(ended):
            self._front.put(record)
        unfinished: list[JobRecord] = []
        while True:
            last = unfinished[-1].sequence if unfinished else -1
            page = self._read(
                f"SELECT {COLUMNS} FROM jobs WHERE finished = 0 AND sequence > :last "
                f"ORDER BY sequence LIMIT {_READ_AT_ONCE}",
                {"last": last},
            )
            unfinished += page
            if len(page) < _READ_AT_ONCE:
                break
        for record in unfinished:
            self._front.put(record)
        return unfinished

    def next_sequence(self) -> int:
        statement = "SELECT COALESCE(MAX(sequence), -1) + 1 FROM jobs"
        return int(self._rows(statement)[0][0])

    def knows(self, job_ids: Collection[str]) -> set[str]:
        known = set()
        for job_id in job_ids:
            if self._rows("SELECT 1 FROM jobs WHERE id = :id", {"id": job_id}):
                known.add(job_id)
        return known

    @property
    def answer_seconds(self) -> float | None:
        return 2 * self._call_seconds

    @property
    def stalled(self) -> bool:
        with self._changed:
            oldest = (*self._doubtful[:1], *self._in_hand[:1], *([*self._waiting][:1]))
            now = time.monotonic()
            return any(now - write.since > 2 * self._call_seconds for write in oldest)

    def write(self, record: JobRecord, done: Done, *, first: bool) -> None:
        with self._changed:
            if self._lost is None and not self._closing:
                self._waiting.append(_Write(record, done, first))
                self._changed.notify_all()
                return
            error = self._lost or JournalError("the journal is closed")
        done(error)

    def keep_result(self, job_id: str, text: str) -> str | None:
        if self._results is None or len(text) <= self._inline_bytes:
            return None
        return self._results.put(job_id, text.encode("ascii"))

    def stage_results(self) -> ResultStore | None:
        return self._stages

    def put(self, record: JobRecord) -> None:
        if record.result_reference is not None:
            record = replace(record, result=None)
        self._front.put(record)

    def outline(self, job_id: str) -> JobRecord:
        try:
            record = self._front.get(job_id)
        except UnknownJobError:
            found = self._read(f"SELECT {COLUMNS} FROM jobs WHERE id = :id", {"id": job_id})
            if not found:
                raise UnknownJobError(f"no job {job_id!r} in the journal") from None
            record = found[0]
        return record

    def get(self, job_id: str) -> JobRecord:
        record = self.outline(job_id)
        if record.result_reference is None or self._results is None:
            return record
        reference, results = record.result_reference, self._results
        content = self._reads.call(lambda: results.get(reference))
        return replace(record, result=loads_result(content))

    def stored_result(self, record: JobRecord) -> bytes | Path | None:
        if record.result_reference is None or self._results is None:
            return None
        reference, results = record.result_reference, self._results
        if isinstance(results, DirectoryResults):
            return self._reads.call(lambda: results.verified(reference))
        return self._reads.call(lambda: results.get(reference))

    def known(self, job_id: str) -> JobRecord | None:
        return self._front.known(job_id)

    def known_key(self, user: str, key: str) -> JobRecord | None:
        return self._front.known_key(user, key)

    def find(self, user: str, key: str) -> JobRecord | None:
        known = self._front.known_key(user, key)
        if known is not None:
            return known
        found = self._read(
            f"SELECT {COLUMNS} FROM jobs WHERE owner = :owner AND idempotency_key = :key "
            "ORDER BY sequence LIMIT 1",
            {"owner": user, "key": key},
        )
        return found[0] if found else None

    def records(self) -> Iterator[JobRecord]:
        return self._front.records()

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        limits = [] if before is None else ["sequence < :before"]
        limits += [] if owner is None else ["owner = :owner"]
        where = f"WHERE {' AND '.join(limits)} " if limits else ""
        rows = self._rows(
            f"SELECT id, record FROM jobs {where}ORDER BY sequence DESC LIMIT :count",
            {"before": before, "owner": owner, "count": count},
        )
        known = ((self._front.known(job_id), text) for job_id, text in rows)
        return [self._decode(text, outline_of) if at is None else at for at, text in known]

    def count(self, owner: str | None) -> int:
        where = "" if owner is None else " WHERE owner = :owner"
        return int(self._rows(f"SELECT COUNT(*) FROM jobs{where}", {"owner": owner})[0][0])

    def close(self) -> None:
        """Write what waits, let the lease go and close the database.

        Comes back within a few times ``call_seconds``, whatever the database does.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._writer.join(3 * self._call_seconds)
        if self._writer.is_alive():
            late = JournalTimeoutError("the journal is closed, and its database does not answer")
            with self._changed:
                left = [*self._doubtful, *self._in_hand, *self._waiting]
                self._waiting.clear()
                self._lost = self._lost or late
            for write in left:
                write.done(late)
            return  # the writer's thread has the database, and ends with the process
        try:
            if self._lost is None:
                self._reads.call(self._ledger.release)
        except JournalError as error:
            _logger.warning("the next master has to wait for the journal's lease: %s", error)
        try:
            self._reads.call(self._database.close)
        except JournalError as error:
            _logger.warning("closing the journal: %s", error)

    # --- the writer's thread -----------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                idle = not self._waiting and not self._doubtful
                if idle and not self._closing:
                    self._changed.wait(self._lease_seconds / 4)
                if self._closing and not self._waiting and not self._doubtful:
                    return
            try:
                stuck = self._step()
            except Exception as error:  # nobody else would tell those who wait
                lost = error if isinstance(error, JournalError) else JournalError(repr(error))
                self._lose(lost)
                return
            if stuck:
                with self._changed:
                    if not self._closing:
                        self._changed.wait(_RETRY_SECONDS)
                        continue
                    # What cannot be written now will be done again after the next start.
                    left = [*self._doubtful, *self._waiting]
                    self._doubtful = []
                    self._waiting.clear()
                for write in left:
                    write.done(JournalError("the journal is closed, and could not be written"))
                return

    def _step(self) -> bool:
        """Write what waits, up to a batch; whether to pause before the next try."""
        if self._ledger.in_doubt:
            try:
                happened = self._ledger.settle()
            except (JournalFencedError, JournalCorruptError):
                raise
            except JournalError as error:
                with self._changed:
                    firsts = [write for write in self._waiting if write.first]
                    self._waiting = deque(write for write in self._waiting if not write.first)
                for write in firsts:
                    write.done(error)  # the database is not there, and they were not written
                return True
            with self._changed:
                settled, self._doubtful = self._doubtful, []
                if not happened:
                    self._waiting.extendleft(reversed(settled))
            for write in settled if happened else []:
                write.done(None)
        with self._changed:
            count = min(len(self._waiting), _LARGEST_BATCH)
            self._in_hand = batch = [self._waiting.popleft() for _ in range(count)]
        again = self._write_batch(batch)
        with self._changed:
            self._in_hand = []
            self._waiting.extendleft(reversed(again))
        if self._ended_since_prune >= _PRUNE_EVERY and not self._ledger.in_doubt:
            self._ended_since_prune = 0
            self._prune()
        return bool(again) or self._ledger.in_doubt

    def _write_batch(self, batch: Sequence[_Write]) -> list[_Write]:
        """Write together, or one by one if that fails; those to be tried again."""
        try:
            self._commit(batch)
        except (JournalFencedError, JournalCorruptError):
            raise
        except CommitUnknownError:
            with self._changed:
                self._doubtful = list(batch)
            return []
        except JournalError as error:
            if len(batch) <= 1 or isinstance(error, JournalUnavailableError):
                return self._failed(batch, error)
            again: list[_Write] = []
            for write in batch:
                # Nothing of a job may overtake what of it is still to be written.
                if self._ledger.in_doubt or any(
                    write.record.id == earlier.record.id for earlier in again
                ):
                    again.append(write)
                else:
                    again += self._write_batch([write])
            return again
        for write in batch:
            write.done(None)
        self._ended_since_prune += sum(write.record.state.finished for write in batch)
        return []

    def _failed(self, batch: Sequence[_Write], error: JournalError) -> list[_Write]:
        again = []
        for write in batch:
            if write.first:
                write.done(error)
            else:
                again.append(write)
        return again

    def _commit(self, batch: Sequence[_Write]) -> None:
        def work(transaction: Transaction) -> None:
            for write in batch:
                row = to_row(write.record, with_params=write.first)
                if not transaction.change(_INSERT if write.first else _UPDATE, row):
                    raise JournalFencedError(
                        f"job {write.record.id} has ended already, by another's hand; this "
                        "master stops"
                    )

        self._ledger.write(work)

    def _prune(self) -> None:
        """Forget the oldest finished jobs over the limit; at the next time if it fails."""
        references: list[str] = []
        try:
            found = self._rows(
                f"SELECT {COLUMNS}, id FROM jobs WHERE finished = 1 ORDER BY finished_at DESC "
                f"LIMIT {10 * _PRUNE_EVERY} OFFSET {self._max_finished}"
            )
            old: list[str] = []
            for *row, job_id in found:
                try:
                    record = self._decode(tuple(row), from_row)
                except JournalCorruptError as error:
                    _logger.warning("job %s is not forgotten: %s", job_id, error)
                    continue
                old.append(job_id)
                if record.result_reference is not None:
                    references.append(record.result_reference)
            self._ledger.write(lambda transaction: _delete(transaction, old))
        except (JournalFencedError, JournalCorruptError):
            raise
        except JournalError as error:
            # Also where the answer was lost: results that stay behind are swept by `compact`.
            _logger.warning("old jobs are forgotten later: %s", error)
            return
        for reference in references if self._results is not None else []:
            try:
                self._results.delete(reference)  # type: ignore[union-attr]
            except OSError as error:
                _logger.warning("result %s of a forgotten job stays: %s", reference, error)

    def _lose(self, error: JournalError) -> None:
        with self._changed:
            self._lost = error
            doubtful = self._doubtful
            left = [*self._in_hand, *self._waiting]
            self._doubtful, self._in_hand = [], []
            self._waiting.clear()
            lost = self._on_lost
        for write in doubtful:
            write.done(None if self._was_written(write, error) else error)
        for write in left:
            write.done(error)
        lost(error)

    def _was_written(self, write: _Write, error: JournalError) -> bool:
        """Whether a job whose first write is in doubt came through before we lost the lease."""
        if not (write.first and isinstance(error, JournalFencedError)):
            return False
        try:
            return bool(self.knows([write.record.id]))
        except JournalError:
            return False

    def _read(self, statement: str, values: dict[str, Any] | None = None) -> list[JobRecord]:
        return [self._decode(row, from_row) for row in self._rows(statement, values)]

    def _rows(self, statement: str, values: dict[str, Any] | None = None) -> list[Row]:
        return self._reads.call(lambda: self._database.read(statement, values))

    def _decode(self, row: _R, read: Callable[[_R], JobRecord]) -> JobRecord:
        try:
            return read(row)
        except (InvalidArgumentError, KeyError, TypeError, ValueError) as error:
            raise JournalCorruptError(
                f"journal {self.path or 'in PostgreSQL'}: a job's row cannot be read ({error}); "
                "restore a backup, or delete the row"
            ) from error


def is_url(where: str | Path) -> bool:
    """Whether this names a database server rather than a file."""
    return "://" in str(where)


def journal_file(where: str | Path) -> Path:
    """The file of a journal given by file or directory.

    Raises
    ------
    InvalidArgumentError
        It is the empty text.
    """
    if not str(where).strip():
        raise InvalidArgumentError("a journal needs a path or a URL, not an empty text")
    path = Path(where).expanduser()
    return path / "journal.sqlite3" if path.is_dir() else path


def _ignore(error: JournalError) -> None:
    """Nobody has asked yet to be told; `Journal.recover` does, and tells what was missed."""


def prepare(database: Database) -> None:
    """Make the tables where there are none.

    Raises
    ------
    JournalError
        A later version wrote them, or the database fails.
    """
    _twice(database, schema.create)


def take(database: Database, lease_seconds: float) -> int:
    """Take the lease, then bring the tables up to date; the token.

    Raises
    ------
    JournalLockedError
        A master has the journal, and is alive.
    JournalError
        The database fails.
    """
    prepare(database)
    token = lease.acquire(database, lease_seconds)
    _twice(database, schema.upgrade)
    return token


def _twice(database: Database, work: Callable[[Transaction], _T]) -> _T:
    """Once more where the answer was lost: what was done is not done again."""
    try:
        with database.transaction() as transaction:
            return work(transaction)
    except CommitUnknownError:
        with database.transaction() as transaction:
            return work(transaction)


def _delete(transaction: Transaction, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        transaction.change("DELETE FROM jobs WHERE id = :id AND finished = 1", {"id": job_id})
