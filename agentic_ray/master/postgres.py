"""The journal in PostgreSQL, through psycopg 3; needs the extra ``postgres``."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalError,
    JournalTimeoutError,
    JournalUnavailableError,
)
from agentic_ray.master.database import CALL_SECONDS, CommitUnknownError, Read, Row, Transaction

SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")

_SCHEMA_LOCK: Final = 0x6167656E746963
_NAMED: Final = re.compile(r"(?<!:):([a-z_]+)")
_WATCH_SECONDS: Final = 0.1


class PostgresDatabase:
    """A database of a server.

    Parameters
    ----------
    url : str
        ``postgresql://user@host/name``, as libpq reads it.
    call_seconds : float
        Longest time of one call. After that the connection is cut, whatever the server does.

    Raises
    ------
    InvalidArgumentError
        The URL cannot be used.
    JournalError
        The driver is missing, or the server cannot be reached.
    """

    def __init__(self, url: str, call_seconds: float = CALL_SECONDS) -> None:
        self._url = _checked(url)
        try:
            import psycopg
        except ImportError as error:
            raise JournalError(
                "a journal in PostgreSQL needs: pip install 'agentic-ray[postgres]'"
            ) from error
        self._psycopg = psycopg
        try:
            options = psycopg.conninfo.conninfo_to_dict(self._url)
        except psycopg.Error as error:
            raise InvalidArgumentError(f"the URL of the journal: {_first_line(error)}") from error
        for port in str(options.get("port") or "5432").split(","):  # one for each host
            if port and not (port.isdecimal() and 0 < int(port) < 1 << 16):
                raise InvalidArgumentError(f"the URL of the journal: {port!r} is no port")
        self._call_seconds = call_seconds
        self._writer = _Line(psycopg, self._url, call_seconds)
        self._reader = _Line(psycopg, self._url, call_seconds)
        self._read_lock = threading.Lock()
        with self._errors(self._writer):
            self._writer.connection()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        line = self._writer
        with self._errors(line), line.limited():
            # Whatever the server's default: an UPDATE must see what others have committed.
            connection = line.connection()
            line.run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                yield _PostgresTransaction(line, connection)
            except BaseException:
                line.roll_back()
                raise
            try:
                line.run(connection, "COMMIT")
            except self._psycopg.Error as error:
                line.cut()
                raise CommitUnknownError(f"journal in PostgreSQL: {_first_line(error)}") from error

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        line = self._reader
        if not self._read_lock.acquire(timeout=self._call_seconds):
            raise JournalTimeoutError("journal in PostgreSQL: the server does not answer")
        try:
            with self._errors(line), line.limited():
                for last in (not line.used, True):
                    try:
                        cursor = line.run(line.connection(), _driver(statement), values)
                        return list(cursor.fetchall())
                    except self._psycopg.OperationalError:
                        line.cut()
                        # A connection that was cut while it was idle tells so only when used.
                        if last or line.overdue:
                            raise
            raise AssertionError("the loop ends by a return or a raise")
        finally:
            self._read_lock.release()

    def compact(self) -> None:
        # No limit of time here: it takes as long as the table is large.
        try:
            with self._psycopg.connect(self._url, autocommit=True) as connection:
                connection.execute("VACUUM jobs")
        except self._psycopg.Error as error:
            raise JournalError(f"journal in PostgreSQL: {_first_line(error)}") from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Read]:
        """The database as it is at one moment, whoever writes to it meanwhile."""
        line = _Line(self._psycopg, self._url, self._call_seconds)
        try:
            with self._errors(line), line.limited():
                connection = line.connection()
                line.run(connection, "SET idle_in_transaction_session_timeout = 0")
                line.run(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                transaction = _PostgresTransaction(line, connection)
                yield transaction.execute
        finally:
            line.close()

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    @contextlib.contextmanager
    def _errors(self, line: _Line) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            text = f"journal in PostgreSQL: {_first_line(error)}"
            if line.overdue or isinstance(error, self._psycopg.errors.ConnectionTimeout):
                raise JournalTimeoutError(
                    f"journal in PostgreSQL: no answer within {self._call_seconds:g} seconds"
                ) from error
            if isinstance(error, self._psycopg.OperationalError):
                raise JournalUnavailableError(text) from error
            raise JournalError(text) from error


class _Line:
    """A connection: made on use, and cut when a call takes too long.

    The driver waits for its server without a limit. So a thread of its own shuts the socket
    down, which the driver takes for the server's death.
    """

    def __init__(self, psycopg: Any, url: str, call_seconds: float) -> None:
        self._psycopg = psycopg
        self._url = url
        self._call_seconds = call_seconds
        self._connection: Any = None
        self._until: float | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.overdue = False
        threading.Thread(target=self._watch, name="journal-limit", daemon=True).start()

    @property
    def used(self) -> bool:
        """The connection has been there before this call."""
        return self._connection is not None

    def connection(self) -> Any:
        """The connection, made anew if there is none."""
        if self._connection is not None and self._connection.closed:
            self.cut()
        if self._connection is None:
            seconds = max(2, math.ceil(self._call_seconds))  # libpq knows no shorter one
            made = self._psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=seconds,
                application_name="agentic_ray journal",
            )
            with self._lock:
                self._connection = made
            limit = f"{math.ceil(1000 * self._call_seconds)}ms"
            # The server's own limits free the lease's row where our host has vanished.
            for name in (
                *("statement_timeout", "lock_timeout"),
                "idle_in_transaction_session_timeout",
            ):
                made.execute(f"SET {name} = '{limit}'")
            made.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        return self._connection

    def run(self, connection: Any, statement: str, values: Mapping[str, Any] | None = None) -> Any:
        """The cursor of one statement, which has the whole time of a call."""
        self._until = time.monotonic() + self._call_seconds
        return connection.execute(statement, values)

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Cut the connection if one of the statements within takes longer than a call may."""
        self.overdue = False
        try:
            yield
        finally:
            self._until = None

    def roll_back(self) -> None:
        """End the transaction without effect; where that fails the server does it itself."""
        try:
            if self._connection is not None and not self._connection.closed:
                self.run(self._connection, "ROLLBACK")
        except self._psycopg.Error:
            self.cut()

    def cut(self) -> None:
        """Let go of the connection; the next call makes another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self._closed.set()
        self.cut()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            until = self._until
            if until is None or time.monotonic() < until:
                continue
            with self._lock:
                if self._connection is not None and not self._connection.closed:
                    self.overdue = True
                    self._until = None
                    _shut_down(self._connection.fileno())


class _PostgresTransaction:
    def __init__(self, line: _Line, connection: Any) -> None:
        self._line = line
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        cursor = self._line.run(self._connection, _driver(statement), values)
        return [] if cursor.description is None else list(cursor.fetchall())

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        return int(self._line.run(self._connection, _driver(statement), values).rowcount)

    def lock_schema(self) -> None:
        # CREATE TABLE IF NOT EXISTS fails where two do it at one instant.
        self.execute(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


def _driver(statement: str) -> str:
    """The statement with its parameters as the driver writes them."""
    return _NAMED.sub(r"%(\1)s", statement.replace("%", "%%"))


def _checked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise InvalidArgumentError(
            f"a journal cannot be at {scheme}://; give the path of a file (SQLite) or a "
            "postgresql:// URL"
        )
    return f"postgresql://{rest}"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _shut_down(descriptor: int) -> None:
    """End a connection under a thread that waits for it; the descriptor stays open."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            twin.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself
