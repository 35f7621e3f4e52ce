"""Tables of the journal, their versions, and the steps from each version to the next.

Statements are written in the SQL that SQLite and PostgreSQL share.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from agentic_ray.errors import JournalError
from agentic_ray.master.database import Transaction

SCHEMA_VERSION: Final = 2
"""1: the first. 2: a journal has an identity; numbers in results may be NaN or infinite."""

_META: Final = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_TABLES: Final = (
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
_STEPS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("CREATE INDEX IF NOT EXISTS jobs_by_sequence ON jobs (sequence)",),
}
"""Statements that lead from this version to the next."""


def prepare(transaction: Transaction) -> int:
    """Make the tables that are missing, or bring those of an earlier version up to date.

    Returns
    -------
    int
        The version that was found; `SCHEMA_VERSION` where there was none.

    Raises
    ------
    JournalError
        The journal was written by a later version of this package.
    """
    transaction.lock_schema()
    transaction.execute(_META)
    found = version(transaction)
    if found is None:
        for statement in (*_TABLES, *(each for step in _STEPS.values() for each in step)):
            transaction.execute(statement)
        _set(transaction, "schema", str(SCHEMA_VERSION))
        _set(transaction, "journal", uuid.uuid4().hex)
        return SCHEMA_VERSION
    check(found)
    for step in range(found, SCHEMA_VERSION):
        for statement in _STEPS[step]:
            transaction.execute(statement)
    if found < SCHEMA_VERSION:
        transaction.change(
            "UPDATE meta SET value = :value WHERE name = 'schema'", {"value": str(SCHEMA_VERSION)}
        )
        _set(transaction, "journal", uuid.uuid4().hex)
    return found


def version(transaction: Transaction) -> int | None:
    """The version of the tables there; None if there are none."""
    found = transaction.execute("SELECT value FROM meta WHERE name = 'schema'")
    return int(found[0][0]) if found else None


def check(found: int) -> None:
    """Refuse a later version.

    Raises
    ------
    JournalError
        It is one.
    """
    if found > SCHEMA_VERSION:
        raise JournalError(
            f"the journal has schema {found}, this version of agentic_ray reads up to "
            f"{SCHEMA_VERSION}; install a later one"
        )


def _set(transaction: Transaction, name: str, value: str) -> None:
    transaction.change(
        "INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING",
        {"name": name, "value": value},
    )
