"""The journal in PostgreSQL, through SQLAlchemy; needs the extra ``postgres``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from agentic_ray.errors import JournalError
from agentic_ray.master.database import Row, Transaction


class PostgresDatabase:
    """A database of a server.

    Parameters
    ----------
    url : str
        ``postgresql://user@host/name``; psycopg 3 is used unless it names another driver.

    Raises
    ------
    JournalError
        SQLAlchemy or the driver is missing, or the server cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise JournalError(
                "a journal in PostgreSQL needs: pip install 'agentic-ray[postgres]'"
            ) from error
        self._sql = sqlalchemy
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                url = "postgresql+psycopg://" + url.removeprefix(plain)
        with self._errors():
            self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
            with self._engine.connect():
                pass

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._errors(), self._engine.begin() as connection:
            yield _PostgresTransaction(self._sql, connection)

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        with self._errors(), self._engine.connect() as connection:
            found = connection.execute(self._sql.text(statement), dict(values or {}))
            return [tuple(row) for row in found]

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (self._sql.exc.SQLAlchemyError, ImportError) as error:
            raise JournalError(f"journal in PostgreSQL: {str(error).splitlines()[0]}") from error


class _PostgresTransaction:
    def __init__(self, sql: Any, connection: Any) -> None:
        self._sql = sql
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        done = self._connection.execute(self._sql.text(statement), dict(values or {}))
        return [tuple(row) for row in done] if done.returns_rows else []

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        return int(self._connection.execute(self._sql.text(statement), dict(values)).rowcount)
