"""A database whose answers get lost, that goes down, and that stands still."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from agentic_ray.errors import JournalUnavailableError
from agentic_ray.master.database import (
    CommitUnknownError,
    Database,
    Row,
    SqliteDatabase,
    Transaction,
)

Fault = Literal["down", "cut", "lost, not done", "lost, done"]
FAULTS: tuple[Fault, ...] = ("down", "cut", "lost, not done", "lost, done")


class _Aborted(Exception):
    """Makes the real database roll back."""


class FaultyDatabase:
    """Passes everything on to a real database, but for faults at random.

    Parameters
    ----------
    inner : Database
    often : float
        Share of the transactions with a fault.
    seed : int
    """

    def __init__(self, inner: Database, often: float = 0.0, seed: int = 0) -> None:
        self.inner = inner
        self.often = often
        self.moving, self.writing = threading.Event(), threading.Event()
        self.moving.set()
        self.writing.set()
        self.seen: Counter[str] = Counter()
        self._random = random.Random(seed)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.moving.wait()
        self.writing.wait()
        fault: Fault | None = None
        if self._random.random() < self.often:
            fault = self._random.choice(FAULTS)
            self.seen[fault] += 1
        if fault == "down":
            raise JournalUnavailableError("connection refused")
        try:
            with self.inner.transaction() as transaction:
                yield transaction
                self.moving.wait()
                if fault in ("cut", "lost, not done"):
                    raise _Aborted
        except _Aborted:
            if fault == "cut":
                raise JournalUnavailableError("the connection was cut") from None
        if fault in ("lost, done", "lost, not done"):
            raise CommitUnknownError("the answer is lost")

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        self.moving.wait()
        if self._random.random() < self.often / 4:
            raise JournalUnavailableError("the connection was cut")
        return self.inner.read(statement, values)

    def compact(self) -> None:
        self.inner.compact()

    def close(self) -> None:
        self.inner.close()


def open_database(where: str) -> Database:
    """The real database of a place."""
    if "://" in where:
        from agentic_ray.master.postgres import PostgresDatabase

        return PostgresDatabase(where)
    return SqliteDatabase(Path(where))
