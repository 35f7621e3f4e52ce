"""The journal's database: tables, and SQLite in WAL mode behind the `Database` protocol.

Statements are written in the SQL that SQLite and PostgreSQL share; ``postgres`` has the latter.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from agentic_ray.errors import JournalCorruptError, JournalError

Row = tuple[Any, ...]

SCHEMA_VERSION: Final = 1
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS lease (id INTEGER PRIMARY KEY, token BIGINT NOT NULL, "
    "beat BIGINT NOT NULL, holder TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, sequence BIGINT NOT NULL, "
    "owner TEXT NOT NULL, idempotency_key TEXT, finished INTEGER NOT NULL, "
    "finished_at DOUBLE PRECISION, params TEXT NOT NULL, params_check BIGINT NOT NULL, "
    "record TEXT NOT NULL, result TEXT, record_check BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS jobs_of_key ON jobs (owner, idempotency_key) "
    "WHERE idempotency_key IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (finished, finished_at)",
)


class Transaction(Protocol):
    """Statements that take effect together."""

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows it answers with."""
        ...

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        ...


class Database(Protocol):
    """One writer, any number of readers."""

    def transaction(self) -> contextlib.AbstractContextManager[Transaction]:
        """Commit on leaving, durable then; roll back on an exception. One at a time."""
        ...

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows as of now; from any thread."""
        ...

    def close(self) -> None: ...


class SqliteDatabase:
    """A local file.

    Parameters
    ----------
    path : Path
    synchronous : {"FULL", "NORMAL"}
        FULL survives a power cut; with NORMAL the last commits may be lost by one, though not
        by a crash of the process.

    Raises
    ------
    JournalCorruptError
        The file is damaged; it has been set aside under another name.
    JournalError
        It cannot be opened or written.
    """

    def __init__(self, path: Path, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._path = path
        self._read_lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for aside in sorted(path.parent.glob(f"{path.name}.corrupt-*")):
                if not path.exists() and not aside.name.endswith(("-wal", "-shm")):
                    _warn_of(aside, path)
        except OSError as error:
            raise JournalError(f"journal {path}: {error.strerror or error}") from error
        with self._errors():
            self._writer = self._connect()
            try:
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute(f"PRAGMA synchronous={synchronous}")
                self._check()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteTransaction(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        with self._read_lock, self._errors():
            return self._reader.execute(statement, values or {}).fetchall()

    def close(self) -> None:
        with self._read_lock, self._errors():
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=10.0, isolation_level=None, check_same_thread=False
        )

    def _check(self) -> None:
        found = self._writer.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(str(found and found[0]))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                raise self.set_aside(str(error)) from error
            raise JournalError(f"journal {self._path}: {_explain(error)}") from error

    def set_aside(self, reason: str) -> JournalCorruptError:
        """Rename the damaged file; the error to raise."""
        aside = f"{self._path}.corrupt-{time.time_ns()}"
        moved = []
        for suffix in ("", "-wal", "-shm"):
            part = Path(f"{self._path}{suffix}")
            if part.exists():
                part.rename(aside + suffix)
                moved.append(aside + suffix)
        return JournalCorruptError(
            f"journal {self._path} is damaged ({reason}) and was set aside as {aside}; restore a "
            "backup, or get out what can be read with `sqlite3 FILE .recover`; the next start "
            "begins an empty journal"
        )


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        return self._connection.execute(statement, values or {}).fetchall()

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        return self._connection.execute(statement, values).rowcount


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not what it should be."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return type(error) is sqlite3.DatabaseError
    return (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _explain(error: sqlite3.Error) -> str:
    advice = {
        sqlite3.SQLITE_FULL: "free space on its disk",
        sqlite3.SQLITE_IOERR: "the disk may be full or failing",
        sqlite3.SQLITE_READONLY: "it must be writable",
        sqlite3.SQLITE_CANTOPEN: "its directory must exist and be writable",
        sqlite3.SQLITE_BUSY: "another process holds its lock",
    }
    told = advice.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{error}; {told}" if told else str(error)


def _warn_of(aside: Path, path: Path) -> None:
    import logging

    logging.getLogger("agentic_ray").warning(
        "beginning an empty journal %s; a damaged one was set aside as %s", path, aside
    )
