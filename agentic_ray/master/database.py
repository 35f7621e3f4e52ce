"""The journal's database: the protocol `Database`, and SQLite in WAL mode behind it.

PostgreSQL is in ``postgres``, the tables are in ``schema``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from agentic_ray.errors import JournalCorruptError, JournalError, JournalTimeoutError
from agentic_ray.master.private import check_file, private_file, warn_of_place

Row = tuple[Any, ...]

CALL_SECONDS: Final = 5.0
"""Longest time that one call of a database may take, unless told otherwise."""


_APPLICATION: Final = 0x61526A31
"""Written into the header of each file, by which a damaged one is still known to be a journal."""


class CommitUnknownError(JournalError):
    """The answer of a COMMIT was lost: the transaction took effect or did not."""


class Transaction(Protocol):
    """Statements that take effect together."""

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows it answers with."""
        ...

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        """Run a statement that changes rows and return how many it changed."""
        ...

    def lock_schema(self) -> None:
        """Nobody else makes or changes tables until this transaction ends."""
        ...


Read = Callable[[str, Mapping[str, Any]], list[Row]]
"""The rows of a statement, with its values."""


class Database(Protocol):
    """A store with a single writer and any number of readers.

    A call raises `JournalError` when it is sure to have had no effect; the database is
    connected anew by the next call if the connection is gone.
    """

    def transaction(self) -> contextlib.AbstractContextManager[Transaction]:
        """Commit on leaving, durable then; roll back on an exception. One at a time.

        Raises
        ------
        CommitUnknownError
            On leaving: it may have taken effect.
        JournalError
            It has had no effect.
        """
        ...

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows as of now; from any thread."""
        ...

    def compact(self) -> None:
        """Give unused space back; it may take long."""
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
    call_seconds : float
        Longest wait for another process that holds the file's lock.

    Raises
    ------
    JournalCorruptError
        The file is damaged; it has been set aside under another name.
    JournalError
        It cannot be opened or written.
    """

    def __init__(
        self,
        path: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._path = path
        self._call_seconds = call_seconds
        self._read_lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for aside in sorted(path.parent.glob(f"{path.name}.corrupt-*")):
                if not path.exists() and not aside.name.endswith(("-wal", "-shm")):
                    _warn_of(aside, path)
            warn_of_place(path.parent)
            for suffix in ("-wal", "-shm", "-journal"):
                check_file(Path(f"{path}{suffix}"))
            private_file(path)
            application = _application_of(path)
        except JournalError:
            raise
        except OSError as error:
            raise JournalError(f"journal {path}: {error.strerror or error}") from error
        if application != _APPLICATION:
            self._check_is_ours()
        with self._errors():
            self._writer = self._connect()
            try:
                if application != _APPLICATION:
                    self._writer.execute(f"PRAGMA application_id={_APPLICATION}")
                self._use_wal()
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
                self._commit()
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if is_damage(error) or _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
                raise
            # Its pages may be in the log already, and be found there after a power cut.
            raise CommitUnknownError(f"journal {self._path}: {_explain(error)}") from error

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        with self._read_lock, self._errors():
            return self._reader.execute(statement, values or {}).fetchall()

    def compact(self) -> None:
        """Give unused space back to the file system."""
        with self._errors():
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._read_lock, self._errors():
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path,
            timeout=self._call_seconds,
            isolation_level=None,
            check_same_thread=False,
        )

    def _check_is_ours(self) -> None:
        """Refuse a database that does not say whose it is, unless it has tables like ours or none.

        It may be another program's, so it is left as it is also where it is damaged.
        """
        try:
            with contextlib.closing(self._connect()) as connection:
                found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                names = {name for (name,) in found}
        except sqlite3.Error as error:
            if not is_damage(error):
                raise JournalError(f"journal {self._path}: {_explain(error)}") from error
            raise _not_a_journal(self._path, str(error)) from error
        if names and not {"meta", "jobs"} <= names:
            raise _not_a_journal(self._path, "it is a database of something else")

    def _use_wal(self) -> None:
        deadline = time.monotonic() + self._call_seconds
        while True:
            try:
                self._writer.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # SQLite does not wait here for another process that does the same.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

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
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise JournalTimeoutError(f"journal {self._path}: {_explain(error)}") from error
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


@contextlib.contextmanager
def sqlite_snapshot(path: Path) -> Iterator[Read]:
    """A file as it is at one moment, whoever writes to it meanwhile; it is left as it is.

    Raises
    ------
    JournalCorruptError
        It is damaged.
    JournalError
        It cannot be read.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=CALL_SECONDS,
            isolation_level=None,
        )
        with contextlib.closing(connection):
            connection.execute("BEGIN")
            found = connection.execute("PRAGMA integrity_check(5)").fetchall()
            if found != [("ok",)]:
                raise sqlite3.DatabaseError("; ".join(str(row[0]) for row in found))
            yield lambda statement, values: connection.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        kind = JournalCorruptError if is_damage(error) else JournalError
        raise kind(f"journal {path}: {_explain(error)}") from error


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        return self._connection.execute(statement, values or {}).fetchall()

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        return self._connection.execute(statement, values).rowcount

    def lock_schema(self) -> None:
        """BEGIN IMMEDIATE has done so."""


def _application_of(path: Path) -> int | None:
    """Which application a file says that it belongs to; None for an empty file.

    Raises
    ------
    JournalError
        It is no file of SQLite.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return None
    if not header.startswith(b"SQLite format 3\0"):
        raise _not_a_journal(path, "its first bytes are not those of SQLite")
    return int.from_bytes(header[68:72], "big")


def _not_a_journal(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{path} is not a journal ({why}); it is left as it is. Name another file, or move it away "
        "if it is a damaged journal"
    )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not what it should be."""
    if getattr(error, "sqlite_errorcode", None) is None:
        return type(error) is sqlite3.DatabaseError
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _explain(error: sqlite3.Error) -> str:
    advice = {
        sqlite3.SQLITE_FULL: "free space on its disk",
        sqlite3.SQLITE_IOERR: "the disk may be full or failing",
        sqlite3.SQLITE_READONLY: "it must be writable",
        sqlite3.SQLITE_CANTOPEN: "its directory must exist and be writable",
        sqlite3.SQLITE_BUSY: "another process holds its lock",
    }
    told = advice.get(_code(error))
    return f"{error}; {told}" if told else str(error)


def _warn_of(aside: Path, path: Path) -> None:
    import logging

    logging.getLogger("agentic_ray").warning(
        "beginning an empty journal %s; a damaged one was set aside as %s", path, aside
    )
