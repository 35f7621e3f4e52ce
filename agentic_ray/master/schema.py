"""Tables of the journal, their versions, and the steps from each version to the next.

Statements are written in the SQL that SQLite and PostgreSQL share.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from agentic_ray.errors import JournalError
from agentic_ray.master.database import Transaction

SCHEMA_VERSION: Final = 2
"""1: the first. 2: an index by sequence; numbers in results may be NaN or infinite."""

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


def create(transaction: Transaction) -> int:
    """Make the tables where there are none; the version of those there are then.

    Raises
    ------
    JournalError
        The journal was written by a later version of this package.
    """
    transaction.lock_schema()
    transaction.execute(_META)
    found = version(transaction)
    if found is not None:
        check(found)
        return found
    for statement in (*_TABLES, *(each for step in _STEPS.values() for each in step)):
        transaction.execute(statement)
    _set(transaction, "schema", str(SCHEMA_VERSION))
    return SCHEMA_VERSION


def upgrade(transaction: Transaction) -> int:
    """Bring the tables of an earlier version up to date; for the holder of the lease.

    Returns
    -------
    int
        The version that was found.
    """
    transaction.lock_schema()
    found = version(transaction)
    if found is None:
        raise JournalError("the journal has no tables")
    check(found)
    for step in range(found, SCHEMA_VERSION):
        for statement in _STEPS[step]:
            transaction.execute(statement)
    if found < SCHEMA_VERSION:
        transaction.change(
            "UPDATE meta SET value = :value WHERE name = 'schema'", {"value": str(SCHEMA_VERSION)}
        )
    return found


def secret(transaction: Transaction) -> bytes:
    """The key of the journal, with which what is kept beside it is signed; made where it has none.

    Nobody can read it who cannot read the journal.
    """
    _set(transaction, "secret", secrets.token_hex(32))
    found = transaction.execute("SELECT value FROM meta WHERE name = 'secret'")
    return bytes.fromhex(found[0][0])


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
