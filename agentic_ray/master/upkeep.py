"""Serves journals beside running jobs: `backup`, `verify`, `migrate` and `compact`.

A journal that a master is using can be backed up and verified. For the others no master may run
on it: they take its lease.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agentic_ray.errors import (
    InvalidArgumentError,
    JournalCorruptError,
    JournalError,
    ResultCorruptError,
)
from agentic_ray.master import lease, schema
from agentic_ray.master.database import (
    Database,
    Read,
    Row,
    SqliteDatabase,
    Transaction,
    sqlite_snapshot,
)
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.journal import is_url, journal_file, prepare, take
from agentic_ray.master.private import private_folder
from agentic_ray.master.records import COLUMNS, from_row
from agentic_ray.master.results import ResultStore, open_results

_ALL: Final = (
    *("id", "sequence", "owner", "idempotency_key", "finished", "finished_at"),
    *("params", "params_check", "record", "result", "record_check"),
)
_INSERT: Final = (
    f"INSERT INTO jobs ({', '.join(_ALL)}) VALUES ({', '.join(f':{name}' for name in _ALL)})"
)
_PAGE: Final = 200
_LEASE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Findings:
    """Counts of the rows and files met, and in ``damage`` a line for each that is not as it was
    written.

    ``schema`` is the version of the tables, ``strays`` are results and stages beside the journal
    that belong to none of its jobs.
    """

    schema: int = 0
    jobs: int = 0
    unfinished: int = 0
    results: int = 0
    stages: int = 0
    strays: int = 0
    damage: list[str] = field(default_factory=list)


class Place:
    """A journal: its database, and where what is too large for that is kept.

    Parameters
    ----------
    where, results : path or URL
        As for `Journal`.
    """

    def __init__(self, where: str | Path, results: str | Path | None = None) -> None:
        self.server = str(where) if is_url(where) else None
        self.file = Path() if self.server else journal_file(where)
        self.shared = results is not None
        beside = None if results is None else str(results)
        stages = None if beside is None else f"{beside}.stages"
        if self.server is None:
            beside = beside or f"{self.file}.results"
            stages = stages or f"{self.file}.stages"
        self.results: ResultStore | None = None if beside is None else open_results(beside)
        self.stages: ResultStore | None = None if stages is None else open_results(stages)

    @contextlib.contextmanager
    def opened(self, *, new: bool = False) -> Iterator[Database]:
        """Its database, to write to. A file must be there, or with ``new`` must not."""
        database: Database
        if self.server is not None:
            database = _postgres(self.server)
        else:
            if self.file.exists() == new:
                there = "exists already" if new else "does not exist"
                raise JournalError(f"journal {self.file} {there}")
            database = SqliteDatabase(self.file)
        with contextlib.closing(database):
            yield database

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Read]:
        """Its database as it is at one moment; nothing is changed, nor is a master hindered."""
        if self.server is not None:
            with contextlib.closing(_postgres(self.server)) as server, server.snapshot() as read:
                yield read
        elif not self.file.is_file():
            raise JournalError(f"journal {self.file} does not exist")
        else:
            with sqlite_snapshot(self.file) as read:
                yield read

    def __str__(self) -> str:
        return "journal in PostgreSQL" if self.server is not None else f"journal {self.file}"


def verify(where: str | Path, results: str | Path | None = None) -> Findings:
    """Read every job, result and stage of a journal, and compare checksums.

    A master may be using it meanwhile. Nothing is changed.

    Raises
    ------
    JournalCorruptError
        The database as a whole is damaged.
    JournalError
        It cannot be read, or was written by a later version.
    """
    place, found = Place(where, results), Findings()
    references: dict[str, str] = {}
    unfinished: set[str] = set()
    with place.snapshot() as read:
        found.schema = _version(place, read)
        for row in _jobs(read):
            record = _decoded(row, found)
            if record is None:
                continue
            if not record.state.finished:
                unfinished.add(record.id)
            if record.result_reference is not None:
                references[record.result_reference] = record.id
    for reference, job_id in references.items():
        if _blob(place.results, reference, found) is None and _is_there(place, job_id):
            found.damage.append(f"job {job_id}: its result {reference} is missing or damaged")
    for reference in [] if place.stages is None else place.stages.references():
        if _job_of(reference) in unfinished:
            found.stages += 1
        else:
            found.strays += not place.shared
    if place.results is not None and not place.shared:
        there = set(place.results.references())
        found.strays += len(there - set(references))
    return found


def backup(where: str | Path, to: str | Path, results: str | Path | None = None) -> Findings:
    """A consistent copy of a journal as it is at one moment, with its results and stages.

    A master may be using it meanwhile. The copy is a journal by itself, in SQLite whatever the
    original is in.

    Parameters
    ----------
    to : path
        A directory that is not there yet; it appears when the copy is complete.

    Raises
    ------
    InvalidArgumentError
        ``to`` exists.
    JournalCorruptError
        Something in the journal is damaged; nothing is made.
    JournalError
        The journal cannot be read, or the copy cannot be written.
    """
    target = Path(to).expanduser()
    if target.exists():
        raise InvalidArgumentError(f"{target} exists; a backup makes a directory of its own")
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        private_folder(scratch)
        source = Place(where, results)
        with source.snapshot() as read:
            found = _copy(source, read, Place(scratch / "journal.sqlite3"))
        scratch.rename(target)
    except OSError as error:
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"backup to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def migrate(
    where: str | Path,
    to: str | Path | None = None,
    results: str | Path | None = None,
    to_results: str | Path | None = None,
) -> Findings:
    """Bring a journal's tables up to this version; with ``to``, copy it to another database.

    So a journal moves from SQLite to PostgreSQL or back, and a backup is put back into a server.
    The original is left as it is.

    Parameters
    ----------
    to, to_results : path or URL
        A file that is not there, or a database without jobs; where its large results go.

    Raises
    ------
    JournalLockedError
        A master uses the journal.
    InvalidArgumentError
        The journal has large results, and no place is given for them.
    JournalCorruptError
        Something in the journal is damaged; nothing is copied.
    JournalError
        The other has jobs already, or one of the databases fails.
    """
    source = Place(where, results)
    with source.opened() as database, _leased(database), source.snapshot() as read:
        if to is None:
            found = Findings(schema=_version(source, read))
            found.jobs = int(read("SELECT COUNT(*) FROM jobs", {})[0][0])
            return found
        return _copy(source, read, Place(to, to_results))


def compact(where: str | Path, results: str | Path | None = None) -> Findings:
    """Delete results and stages that belong to no job, and give unused space back.

    Only what is beside a journal's file is looked through: a place named by ``results`` may have
    other journals' results in it.

    Raises
    ------
    JournalLockedError
        A master uses the journal.
    JournalCorruptError
        A job cannot be read; nothing is deleted.
    """
    place, found = Place(where, results), Findings()
    with place.opened() as database, _leased(database):
        references: set[str | None] = set()
        unfinished: set[str] = set()
        with place.snapshot() as read:
            found.schema = _version(place, read)
            for row in _jobs(read):
                record = _decoded(row, found)
                if record is None:
                    raise JournalCorruptError(f"{place}: {found.damage[0]}; nothing is deleted")
                references.add(record.result_reference)
                if not record.state.finished:
                    unfinished.add(record.id)
        if not place.shared and place.results is not None and place.stages is not None:
            for reference in set(place.results.references()) - references:
                place.results.delete(reference)
                found.strays += 1
            for reference in place.stages.references():
                if _job_of(reference) not in unfinished:
                    place.stages.delete(reference)
                    found.strays += 1
        database.compact()
    return found


# --- inside ------------------------------------------------------------------------------


def _postgres(url: str) -> Any:
    # imported where it is used: its driver is an extra
    from agentic_ray.master.postgres import PostgresDatabase

    return PostgresDatabase(url)


@contextlib.contextmanager
def _leased(database: Database) -> Iterator[None]:
    """With the tables up to date, and no master on the journal."""
    token = take(database, _LEASE_SECONDS)
    try:
        yield
    finally:
        with database.transaction() as transaction:
            lease.release(transaction, token)


def _version(place: Place, read: Read) -> int:
    try:
        found = read("SELECT value FROM meta WHERE name = 'schema'", {})
    except Exception as error:  # the driver's own, where the table is missing
        raise JournalError(f"{place} is no journal: {error}") from error
    if not found:
        raise JournalError(f"{place} is no journal: it has no schema")
    schema.check(int(found[0][0]))
    return int(found[0][0])


def _jobs(read: Read) -> Iterator[dict[str, Any]]:
    last = ""
    while True:
        rows = read(
            f"SELECT {', '.join(_ALL)} FROM jobs WHERE id > :last ORDER BY id LIMIT {_PAGE}",
            {"last": last},
        )
        for row in rows:
            yield dict(zip(_ALL, row, strict=True))
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def _decoded(row: Mapping[str, Any], found: Findings) -> JobRecord | None:
    """The record of a job, counted; None, and a line of damage, if it cannot be read."""
    found.jobs += 1
    columns: Row = tuple(row[name] for name in COLUMNS.split(", "))
    try:
        record = from_row(columns)
        if record.id != row["id"] or record.state.finished != bool(row["finished"]):
            raise InvalidArgumentError("its columns do not fit its record")
    except (InvalidArgumentError, KeyError, TypeError, ValueError) as error:
        found.damage.append(f"job {row['id']}: {error}")
        return None
    found.unfinished += not record.state.finished
    return record


def _blob(results: ResultStore | None, reference: str, found: Findings) -> bytes | None:
    """Return a blob that is stored apart; None if it is missing or damaged."""
    try:
        content = None if results is None else results.get(reference)
    except ResultCorruptError:
        return None
    found.results += content is not None
    return content


def _is_there(place: Place, job_id: str) -> bool:
    """Whether the journal has the job now; it may have been forgotten meanwhile."""
    with place.snapshot() as read:
        return bool(read("SELECT 1 FROM jobs WHERE id = :id", {"id": job_id}))


def _job_of(stage: str) -> str:
    return stage.partition("_")[0]


def _copy(source: Place, read: Read, target: Place) -> Findings:
    """Copy rows, results and stages; results first, as a master writes them.

    Raises
    ------
    JournalCorruptError
        Something is damaged.
    """
    found = Findings()
    with target.opened(new=target.server is None) as database:
        prepare(database)
        if database.read("SELECT 1 FROM jobs LIMIT 1"):
            raise JournalError(f"{target} has jobs already")
        found.schema = _version(source, read)
        _copy_secret(read, database)
        unfinished: set[str] = set()
        rows: list[dict[str, Any]] = []
        with _leased(database):
            for row in _jobs(read):
                record = _decoded(row, found)
                if record is None:
                    raise JournalCorruptError(f"{source}: {found.damage[0]}; nothing is copied")
                if not record.state.finished:
                    unfinished.add(record.id)
                if _copy_result(source, target, record, found):
                    rows.append(row)
                if len(rows) >= _PAGE:
                    _insert(database, rows)
                    rows = []
            _insert(database, rows)
        for reference in [] if source.stages is None else source.stages.references():
            if target.stages is None or _job_of(reference) not in unfinished:
                continue
            try:
                content = source.stages.get(reference)  # type: ignore[union-attr]
            except ResultCorruptError:
                continue  # its job has ended meanwhile, or does this stage again
            target.stages.put(reference.rpartition(".")[0], content)
            found.stages += 1
    return found


def _copy_secret(read: Read, database: Database) -> None:
    """Give the copy the key with which finished stages are signed."""
    for (value,) in read("SELECT value FROM meta WHERE name = 'secret'", {}):
        with database.transaction() as transaction:
            transaction.change(
                "INSERT INTO meta (name, value) VALUES ('secret', :value) ON CONFLICT (name) "
                "DO UPDATE SET value = excluded.value",
                {"value": value},
            )


def _copy_result(source: Place, target: Place, record: JobRecord, found: Findings) -> bool:
    """Copy what a job keeps apart; False if the job has been forgotten meanwhile."""
    reference = record.result_reference
    if reference is None:
        return True
    content = _blob(source.results, reference, found)
    if content is None:
        if not _is_there(source, record.id):
            found.jobs -= 1
            return False
        raise JournalCorruptError(
            f"{source}: the result {reference} of job {record.id} is missing or damaged; nothing "
            "is copied"
        )
    if target.results is None:
        raise InvalidArgumentError(f"{source} has large results: name a place for them")
    target.results.put(reference.rpartition(".")[0], content)
    return True


def _insert(database: Database, rows: list[dict[str, Any]]) -> None:
    def work(transaction: Transaction) -> None:
        for row in rows:
            transaction.change(_INSERT, row)

    with database.transaction() as transaction:
        work(transaction)
