"""Backups, checks, migrations and compaction of journals, on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentic_ray.cli.app import cli
from agentic_ray.errors import (
    InterruptedJobError,
    InvalidArgumentError,
    JournalCorruptError,
    JournalError,
    JournalLockedError,
)
from agentic_ray.master import JobState, Journal, Master, Registry, upkeep
from agentic_ray.master.schema import SCHEMA_VERSION

Places = Callable[[], str]


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register("echo", lambda params: params)
    made.register("large", lambda params: "x" * 100_000)
    made.register("nan", lambda params: [math.nan, math.inf, 1.5])
    return made


def filled(where: str, results: Path, registry: Registry) -> dict[str, Any]:
    """A journal with some ended jobs, large results among them; the results by identifier."""
    with Master(store=Journal(where, results=results), workloads=registry, cache_bytes=0) as master:
        jobs = [master.submit("echo", i) for i in range(8)]
        jobs += [master.submit("large", i) for i in range(3)]
        return {job.id: job.result(60) for job in jobs}


def test_a_backup_of_a_running_journal_is_whole(
    places: Places, registry: Registry, tmp_path: Path
) -> None:
    where, results = places(), tmp_path / "results"
    before = filled(where, results, registry)
    gate, started = threading.Event(), threading.Event()

    def waits(params: Any) -> Any:
        started.set()
        assert gate.wait(60)
        return params

    registry.register("waits", waits)
    stop = threading.Event()
    with Master(
        store=Journal(where, results=results, max_finished=20),
        workloads=registry,
        cache_bytes=0,
        max_running=2,
    ) as master:

        def load() -> None:
            while not stop.is_set():
                master.submit("large", 0).result(60)

        running = master.submit("waits", "resumed")
        started.wait(60)
        shelf = master._operations.stages.of(running.id)
        assert shelf is not None
        shelf.put("pass 1", b"kept")
        busy = threading.Thread(target=load)
        busy.start()
        try:
            found = [upkeep.backup(where, tmp_path / f"b{i}", results) for i in range(3)]
        finally:
            stop.set()
            busy.join()
            gate.set()
        running.result(60)
    assert all(each.unfinished >= 1 and each.stages == 1 for each in found)
    for i in range(3):
        checked = upkeep.verify(tmp_path / f"b{i}")
        assert checked.damage == []
        assert checked.strays == 0
        assert checked.jobs == found[i].jobs >= len(before)
    with Master(journal=tmp_path / "b2", workloads=registry) as restored:
        assert {job_id: restored.job(job_id).result(60) for job_id in before} == before
        assert restored.job(running.id).result(60) == "resumed"
    with pytest.raises(InvalidArgumentError, match="exists"):
        upkeep.backup(where, tmp_path / "b0", results)


def test_damage_is_found_and_not_copied(registry: Registry, tmp_path: Path) -> None:
    where = str(tmp_path / "journal.sqlite3")
    results = Path(f"{where}.results")
    filled(where, results, registry)
    assert upkeep.verify(where).damage == []
    file = next(results.iterdir())
    file.write_bytes(b'"other"')
    (found,) = upkeep.verify(where).damage
    assert "missing or damaged" in found
    with pytest.raises(JournalCorruptError, match="nothing is copied"):
        upkeep.backup(where, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))
    with sqlite3.connect(where) as connection:
        connection.execute("UPDATE jobs SET record_check = 0 WHERE result IS NOT NULL")
    connection.close()
    assert len(upkeep.verify(where).damage) == 9
    with pytest.raises(JournalCorruptError, match="nothing is deleted"):
        upkeep.compact(where)
    content = bytearray(Path(where).read_bytes())
    content[:16] = b"\xff" * 16
    Path(where).write_bytes(bytes(content))
    with pytest.raises(JournalCorruptError):
        upkeep.verify(where)
    assert Path(where).read_bytes() == bytes(content), "verify leaves it where it is"


def test_a_journal_moves_to_another_database_and_back(
    places: Places, registry: Registry, tmp_path: Path
) -> None:
    first, second = tmp_path / "one.sqlite3", places()
    before = filled(str(first), Path(f"{first}.results"), registry)
    if "://" in second:
        with pytest.raises(InvalidArgumentError, match="place"):
            upkeep.migrate(first, second)
    found = upkeep.migrate(first, second, to_results=tmp_path / "two")
    assert (found.jobs, found.results) == (11, 3)
    with pytest.raises(JournalError, match="already"):
        upkeep.migrate(first, second, to_results=tmp_path / "two")
    third = tmp_path / "three.sqlite3"
    upkeep.migrate(second, third, results=tmp_path / "two")
    with Master(journal=third, workloads=registry) as master:
        assert {job_id: master.job(job_id).result(60) for job_id in before} == before


def test_what_needs_the_journal_for_itself_is_refused_while_a_master_runs(
    places: Places, registry: Registry, tmp_path: Path
) -> None:
    where = places()
    with Master(store=Journal(where, lease_seconds=0.4), workloads=registry):
        with pytest.raises(JournalLockedError, match="another master"):
            upkeep.compact(where)
        with pytest.raises(JournalLockedError, match="another master"):
            upkeep.migrate(where)
    assert upkeep.compact(where).schema == SCHEMA_VERSION


def test_compacting_deletes_what_belongs_to_no_job(registry: Registry, tmp_path: Path) -> None:
    where = tmp_path / "journal.sqlite3"
    before = filled(str(where), Path(f"{where}.results"), registry)
    for name in ("results", "stages"):
        folder = Path(f"{where}.{name}")
        folder.mkdir(exist_ok=True)
        (folder / f"lost_x.{'0' * 64}").write_bytes(b"x")
    assert upkeep.verify(where).strays == 2
    assert upkeep.compact(where).strays == 2
    found = upkeep.verify(where)
    assert (found.strays, found.results, found.damage) == (0, 3, [])
    with Master(journal=where, workloads=registry) as master:
        assert {job_id: master.job(job_id).result(60) for job_id in before} == before


@pytest.mark.parametrize("by", ["master", "migrate"])
def test_a_journal_of_the_first_schema_is_taken_over(
    places: Places, registry: Registry, tmp_path: Path, by: str
) -> None:
    """``schema1.sql`` was written by the code that had the first schema."""
    where, results = places(), tmp_path / "results"
    text = (Path(__file__).parent / "schema1.sql").read_text()
    statements = [s for s in text.split(";\n") if s.startswith(("CREATE", "INSERT"))]
    if "://" in where:
        import psycopg

        with psycopg.connect(where, autocommit=True) as server:
            for statement in statements:
                server.execute(statement)
    else:
        with sqlite3.connect(where) as file:
            file.executescript(text)
        file.close()
    results.mkdir()
    large = '"' + "x" * 70_000 + '"'
    reference = "large.a56af2e9bfeba185d9f1ae0b88280e46325c593088cd0c3b1a308dc0df0e3677"
    (results / reference).write_text(large)
    found = upkeep.verify(where, results)
    assert (found.schema, found.jobs, found.unfinished, found.damage) == (1, 6, 3, [])
    if by == "migrate":
        assert upkeep.migrate(where).schema == SCHEMA_VERSION
    with Master(store=Journal(where, results=results), workloads=registry) as master:
        assert master.job("queued").result(60) == {"n": "queued"}
        assert master.job("running").result(60) == {"n": "running"}
        assert master.record("running").attempts == 2
        with pytest.raises(InterruptedJobError):
            master.job("effects").result(60)
        assert master.job("done").result(60) == [1, "NaN", {"x": None}]
        assert master.record("failed").state is JobState.FAILED
        assert master.job("large").result(60) == "x" * 70_000
        assert master._store.next_sequence() == 6
    assert upkeep.verify(where, results).schema == SCHEMA_VERSION


def test_numbers_that_are_not_finite_come_back_as_they_were(
    places: Places, registry: Registry, tmp_path: Path
) -> None:
    where = places()
    with Master(journal=where, workloads=registry) as master:
        job = master.submit("nan", None)
        first = job.result(60)
        cached = master.submit("nan", None)
        assert cached.record.cached
    with Master(journal=where, workloads=registry) as master:
        for found in (first, cached.result(60), master.job(job.id).result(60)):
            assert math.isnan(found[0])
            assert found[1:] == [math.inf, 1.5]


def test_the_commands(registry: Registry, tmp_path: Path) -> None:
    where = str(tmp_path / "journal.sqlite3")
    filled(where, Path(f"{where}.results"), registry)
    run = CliRunner().invoke
    done = run(cli, ["journal", "backup", where, str(tmp_path / "copy")])
    assert done.exit_code == 0, done.output
    assert "11 jobs" in done.output
    done = run(cli, ["journal", "verify", str(tmp_path / "copy")])
    assert (done.exit_code, done.output.split(":")[0]) == (0, "intact")
    for file in (tmp_path / "copy" / "journal.sqlite3.results").iterdir():
        file.unlink()
    done = run(cli, ["journal", "verify", str(tmp_path / "copy")])
    assert done.exit_code == 1
    assert "missing or damaged" in done.output
    done = run(cli, ["journal", "migrate", where])
    assert "up to date" in done.output
    done = run(cli, ["journal", "compact", where])
    assert "compacted" in done.output
