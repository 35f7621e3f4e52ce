"""`Journal`: the job store that outlives its process, on SQLite or PostgreSQL.

One thread writes; what waits is committed together, so that many submitters share one fsync.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalCorruptError,
    JournalError,
    JournalFencedError,
    UnknownJobError,
)
from agentic_ray.master import lease
from agentic_ray.master.database import (
    SCHEMA_VERSION,
    TABLES,
    Database,
    Row,
    SqliteDatabase,
    Transaction,
)
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.jsonvalues import loads
from agentic_ray.master.records import COLUMNS, from_row, to_row
from agentic_ray.master.results import ResultStore, open_results
from agentic_ray.master.store import Done, MemoryStore

_INSERT = (
    "INSERT INTO jobs (id, sequence, owner, idempotency_key, finished, finished_at, params, "
    "params_check, record, result, record_check) VALUES (:id, :sequence, :owner, "
    ":idempotency_key, :finished, :finished_at, :params, :params_check, :record, :result, "
    ":record_check)"
)
_UPDATE = (
    "UPDATE jobs SET finished = :finished, finished_at = :finished_at, record = :record, "
    "result = :result, record_check = :record_check WHERE id = :id AND finished = 0"
)
_RETRY_SECONDS = 0.5
_PRUNE_EVERY = 1000
_SHOWN_FINISHED = 1000
_LARGEST_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Write:
    record: JobRecord
    done: Done
    first: bool


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

    Raises
    ------
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
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidArgumentError(f"synchronous must be FULL or NORMAL, not {synchronous!r}")
        if not lease_seconds > 0:
            raise InvalidArgumentError(f"lease_seconds must be > 0, not {lease_seconds}")
        self.path: Path | None = None
        stages = None if results is None else f"{results}.stages"
        self._inline_bytes = inline_bytes
        self._max_finished = max_finished
        self._lease_seconds = lease_seconds
        self._database: Database
        if is_url(where):
            from agentic_ray.master.postgres import PostgresDatabase

            self._database = PostgresDatabase(str(where))
        else:
            self.path = journal_file(where)
            self._database = SqliteDatabase(self.path, synchronous)
            results = results or f"{self.path}.results"
            stages = stages or f"{self.path}.stages"
        self._stages = None if stages is None else open_results(stages)
        self._results: ResultStore | None = None if results is None else open_results(results)
        self._front = MemoryStore(max_finished=_SHOWN_FINISHED)
        self._waiting: deque[_Write] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._lost: JournalError | None = None
        self._on_lost: Callable[[JournalError], None] = _ignore
        self._ended_since_prune = 0
        try:
            with self._database.transaction() as transaction:
                _prepare(transaction)
            self._token = lease.acquire(self._database, lease_seconds)
        except BaseException:
            self._database.close()
            raise
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
        unfinished = self._read(f"SELECT {COLUMNS} FROM jobs WHERE finished = 0 ORDER BY sequence")
        for record in unfinished:
            self._front.put(record)
        return unfinished

    def next_sequence(self) -> int:
        return int(self._database.read("SELECT COALESCE(MAX(sequence), -1) + 1 FROM jobs")[0][0])

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

    def get(self, job_id: str) -> JobRecord:
        try:
            record = self._front.get(job_id)
        except UnknownJobError:
            found = self._read(f"SELECT {COLUMNS} FROM jobs WHERE id = :id", {"id": job_id})
            if not found:
                raise UnknownJobError(f"no job {job_id!r} in the journal") from None
            record = found[0]
        if record.result_reference is None or self._results is None:
            return record
        return replace(record, result=loads(self._results.get(record.result_reference)))

    def find(self, user: str, key: str) -> JobRecord | None:
        known = self._front.find(user, key)
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

    def close(self) -> None:
        """Write what waits, let the lease go and close the database."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._writer.join()
        try:
            if self._lost is None:
                with self._database.transaction() as transaction:
                    lease.release(transaction, self._token)
        finally:
            self._database.close()

    # --- the writer's thread -----------------------------------------------------------

    def _write_all(self) -> None:
        beat_seconds = self._lease_seconds / 4
        while True:
            with self._changed:
                if not self._waiting and not self._closing:
                    self._changed.wait(beat_seconds)
                if self._closing and not self._waiting:
                    return
                count = min(len(self._waiting), _LARGEST_BATCH)
                batch = [self._waiting.popleft() for _ in range(count)]
            try:
                again = self._write_batch(batch)
            except Exception as error:  # nobody else would tell those who wait
                lost = error if isinstance(error, JournalError) else JournalError(repr(error))
                self._lose(lost, batch)
                return
            if again:
                with self._changed:
                    self._waiting.extendleft(reversed(again))
                    if self._closing:
                        # What cannot be written now will be done again after the next start.
                        left, self._waiting = list(self._waiting), deque()
                    else:
                        left = []
                        self._changed.wait(_RETRY_SECONDS)
                for write in left:
                    write.done(JournalError("the journal is closed, and could not be written"))

    def _write_batch(self, batch: Sequence[_Write]) -> list[_Write]:
        """Write together, or one by one if that fails; those to be tried again."""
        try:
            self._commit(batch)
        except (JournalFencedError, JournalCorruptError):
            raise
        except JournalError as error:
            if len(batch) <= 1:
                return self._failed(batch, error)
            again: list[_Write] = []
            for write in batch:
                # Nothing of a job may overtake what of it is still to be written.
                if any(write.record.id == earlier.record.id for earlier in again):
                    again.append(write)
                else:
                    again += self._write_batch([write])
            return again
        for write in batch:
            write.done(None)
        self._ended_since_prune += sum(write.record.state.finished for write in batch)
        if self._ended_since_prune >= _PRUNE_EVERY:
            self._ended_since_prune = 0
            self._prune()
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
        with self._database.transaction() as transaction:
            lease.confirm(transaction, self._token)
            for write in batch:
                row = to_row(write.record, with_params=write.first)
                if not transaction.change(_INSERT if write.first else _UPDATE, row):
                    raise JournalFencedError(
                        f"job {write.record.id} has ended already, by another's hand; this "
                        "master stops"
                    )

    def _prune(self) -> None:
        """Forget the oldest finished jobs over the limit; at the next time if it fails."""
        found = self._read(
            f"SELECT {COLUMNS} FROM jobs WHERE finished = 1 ORDER BY finished_at DESC "
            f"LIMIT {10 * _PRUNE_EVERY} OFFSET {self._max_finished}"
        )
        try:
            with self._database.transaction() as transaction:
                lease.confirm(transaction, self._token)
                for record in found:
                    transaction.change("DELETE FROM jobs WHERE id = :id", {"id": record.id})
        except (JournalFencedError, JournalCorruptError):
            raise
        except JournalError:
            return
        for record in found:
            if record.result_reference is not None and self._results is not None:
                self._results.delete(record.result_reference)

    def _lose(self, error: JournalError, batch: Sequence[_Write]) -> None:
        with self._changed:
            self._lost = error
            left = [*batch, *self._waiting]
            self._waiting.clear()
            lost = self._on_lost
        for write in left:
            write.done(error)
        lost(error)

    def _read(self, statement: str, values: dict[str, str] | None = None) -> list[JobRecord]:
        return [self._decode(row) for row in self._database.read(statement, values)]

    def _decode(self, row: Row) -> JobRecord:
        try:
            return from_row(row)
        except (InvalidArgumentError, KeyError, TypeError, ValueError) as error:
            raise JournalCorruptError(
                f"journal {self.path or 'in PostgreSQL'}: a job's row cannot be read ({error}); "
                "restore a backup, or delete the row"
            ) from error


def is_url(where: str | Path) -> bool:
    """Whether this names a database server rather than a file."""
    return "://" in str(where)


def journal_file(where: str | Path) -> Path:
    """The file of a journal given by file or directory."""
    path = Path(where).expanduser()
    return path / "journal.sqlite3" if path.is_dir() else path


def _ignore(error: JournalError) -> None:
    """Nobody has asked yet to be told; `Journal.recover` does, and tells what was missed."""


def _prepare(transaction: Transaction) -> None:
    for statement in TABLES:
        transaction.execute(statement)
    found = transaction.execute("SELECT value FROM meta WHERE name = 'schema'")
    if not found:
        transaction.change(
            "INSERT INTO meta (name, value) VALUES ('schema', :value)",
            {"value": str(SCHEMA_VERSION)},
        )
    elif found[0][0] != str(SCHEMA_VERSION):
        raise JournalError(
            f"the journal has schema {found[0][0]}, this version of agentic_ray reads "
            f"{SCHEMA_VERSION}"
        )
