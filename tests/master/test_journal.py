"""The journal on real files: restarts, two masters, damage, full and read-only disks, clocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import (
    IdempotencyError,
    InterruptedJobError,
    InvalidArgumentError,
    JobTimeoutError,
    JournalCorruptError,
    JournalError,
    JournalFencedError,
    JournalLockedError,
    ResultCorruptError,
    SessionError,
    UnknownJobError,
)
from agentic_ray.master import JobRecord, JobState, Journal, Master, Registry
from agentic_ray.master.jobs import advance
from tests.support.waiting import until


class Work:
    """Workloads that wait for a gate, and what was started."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started: list[Any] = []
        self.registry = Registry()
        self.registry.register("gate", self.gate)
        self.registry.register("effects", self.gate, effects=True)
        self.registry.register("echo", lambda params: params)
        self.registry.register("large", lambda size: "x" * size)

    def gate(self, params: Any) -> Any:
        self.started.append(params)
        assert self.open.wait(30)
        return params


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.open.set()


def put(journal: Journal, record: JobRecord, *, first: bool) -> None:
    """Write one record and wait for it."""
    done = threading.Event()
    errors: list[JournalError | None] = []

    def told(error: JournalError | None) -> None:
        errors.append(error)
        done.set()

    journal.write(record, told, first=first)
    assert done.wait(10)
    if errors[0] is not None:
        raise errors[0]


def record(name: str, sequence: int = 0, **options: Any) -> JobRecord:
    return JobRecord(name, "echo", "1", {"n": name}, 0, sequence, 1000.0, **options)


def crashed(path: Path, *records: JobRecord) -> Path:
    """A journal as a master leaves it that dies with these records written."""
    journal = Journal(path)
    for each in records:
        put(journal, replace(each, state=JobState.QUEUED, started_at=None), first=True)
        if each.state is not JobState.QUEUED:
            put(journal, each, first=False)
    journal.close()
    return path


def test_a_finished_job_is_there_after_a_restart_and_is_not_run_again(
    tmp_path: Path, work: Work
) -> None:
    work.open.set()
    with Master(journal=tmp_path, workloads=work.registry) as master:
        job = master.submit("gate", {"x": [1, None, "é"]}, user="ada", priority=3)
        assert job.result(60) == {"x": [1, None, "é"]}
        before = job.record
    with Master(journal=tmp_path, workloads=work.registry) as master:
        after = master.record(job.id)
        assert replace(after, metrics=None) == replace(before, metrics=None)
        assert master.job(job.id).result() == {"x": [1, None, "é"]}
        assert not master.cancel(job.id)
    assert len(work.started) == 1


def test_jobs_that_waited_or_ran_go_on_in_the_next_master_in_order(
    tmp_path: Path, work: Work
) -> None:
    master = Master(journal=tmp_path, workloads=work.registry, max_running=1)
    jobs = [master.submit("gate", i, priority=p) for i, p in enumerate((0, 0, 5))]
    until(lambda: work.started == [0])
    waiter = threading.Thread(target=lambda: caught.append(_caught(jobs[1].result)))
    caught: list[BaseException] = []
    waiter.start()
    assert not master.close(drain=False)
    waiter.join(10)
    assert isinstance(caught[0], SessionError)
    assert "next master" in str(caught[0])
    work.open.set()
    with Master(journal=tmp_path, workloads=work.registry, max_running=1) as again:
        assert [again.job(job.id).result(60) for job in jobs] == [0, 1, 2]
        assert again.record(jobs[0].id).attempts == 2
        assert again.record(jobs[2].id).attempts == 1
    assert work.started == [0, 2, 0, 1]


def _caught(call: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        call()
    return caught.value


def test_a_running_job_with_effects_fails_rather_than_running_twice(
    tmp_path: Path, work: Work
) -> None:
    master = Master(journal=tmp_path, workloads=work.registry)
    job = master.submit("effects", 1)
    until(lambda: work.started)
    master.close(drain=False)
    work.open.set()
    with Master(journal=tmp_path, workloads=work.registry) as again:
        assert again.record(job.id).state is JobState.FAILED
        with pytest.raises(InterruptedJobError, match="not run again"):
            again.job(job.id).result(60)
    with Master(journal=tmp_path, workloads=work.registry) as third:
        error = third.record(job.id).error
        assert error is not None
        assert error.type == "InterruptedJobError"
    assert work.started == [1]


def test_a_cancel_is_kept(tmp_path: Path, work: Work) -> None:
    master = Master(journal=tmp_path, workloads=work.registry, max_running=1)
    running, waiting = master.submit("gate", 1), master.submit("gate", 2)
    until(lambda: work.started)
    assert running.cancel()
    assert waiting.cancel()
    master.close(drain=False)
    with Master(journal=tmp_path, workloads=work.registry) as again:
        assert again.record(running.id).state is JobState.CANCELLED
        assert again.record(waiting.id).state is JobState.CANCELLED
    assert work.started == [1]


def test_a_deadline_counts_the_queue_and_outlives_the_master(tmp_path: Path, work: Work) -> None:
    master = Master(journal=tmp_path, workloads=work.registry, max_running=1)
    master.submit("gate", "blocker")
    until(lambda: work.started)
    early = master.submit("gate", "early", deadline_seconds=0.05)
    with pytest.raises(JobTimeoutError, match="deadline"):
        early.result(60)
    late = master.submit("gate", "late", deadline_seconds=0.3)
    master.close(drain=False)
    time.sleep(0.3)
    work.open.set()
    with Master(journal=tmp_path, workloads=work.registry, max_running=1) as again:
        with pytest.raises(JobTimeoutError, match="deadline"):
            again.job(late.id).result(60)
        assert again.record(early.id).state is JobState.FAILED
    assert "late" not in work.started


@pytest.mark.parametrize("journalled", [True, False])
def test_an_idempotency_key_gives_the_same_job(
    tmp_path: Path, work: Work, journalled: bool
) -> None:
    journal = tmp_path if journalled else None
    with Master(journal=journal, workloads=work.registry, max_running=1) as master:
        job = master.submit("gate", {"a": 1, "b": 2}, idempotency_key="k")
        assert master.submit("gate", {"b": 2, "a": 1}, idempotency_key="k") is job
        assert master.submit("gate", {"a": 1, "b": 2}, idempotency_key="k", user="x") is not job
        for other in ({"a": 1}, {"a": 1, "b": 2.5}):
            with pytest.raises(IdempotencyError, match="another one"):
                master.submit("gate", other, idempotency_key="k")
        with pytest.raises(IdempotencyError):
            master.submit("gate", {"a": 1, "b": 2}, idempotency_key="k", priority=1)
        work.open.set()
        job.result(60)
        assert master.submit("gate", {"a": 1, "b": 2}, idempotency_key="k").id == job.id
        assert master.statistics().submitted == 2
    if journalled:
        with Master(journal=journal, workloads=work.registry) as again:
            assert again.submit("gate", {"a": 1, "b": 2}, idempotency_key="k").id == job.id


def test_many_threads_with_one_key_make_one_job(tmp_path: Path, work: Work) -> None:
    with Master(journal=tmp_path, workloads=work.registry) as master:
        found: list[str] = []

        def submit() -> None:
            found.append(master.submit("gate", 1, idempotency_key="k").id)

        threads = [threading.Thread(target=submit) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work.open.set()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert work.started == [1]


# --- results -----------------------------------------------------------------------------


def test_a_large_result_is_kept_apart_and_checked(tmp_path: Path, work: Work) -> None:
    with Master(journal=tmp_path, workloads=work.registry, cache_bytes=0) as master:
        job = master.submit("large", 100_000)
        assert job.result(60) == "x" * 100_000
        assert master.record(job.id).result == "x" * 100_000
    (file,) = (tmp_path / "journal.sqlite3.results").iterdir()
    with Master(journal=tmp_path, workloads=work.registry) as again:
        assert again.job(job.id).result(60) == "x" * 100_000
        file.write_bytes(file.read_bytes()[:-2] + b'y"')
        with pytest.raises(ResultCorruptError, match="checksum differs"):
            again.record(job.id)
        file.unlink()
        with pytest.raises(ResultCorruptError, match="cannot be read"):
            again.record(job.id)


def test_results_can_be_under_a_url(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    where = f"memory://results-{tmp_path.name}"
    registry = Registry()
    registry.register("large", lambda size: "x" * size)
    for _ in range(2):
        store = Journal(tmp_path, results=where, inline_bytes=10)
        with Master(store=store, workloads=registry, cache_bytes=0) as master:
            job = master.submit("large", 50, idempotency_key="k")
            assert job.result(60) == "x" * 50
            assert job.record.attempts == 1


# --- two masters -------------------------------------------------------------------------


def test_a_second_master_is_refused_while_the_first_lives(tmp_path: Path, work: Work) -> None:
    with Master(store=Journal(tmp_path, lease_seconds=0.4), workloads=work.registry) as master:
        with pytest.raises(JournalLockedError, match=f"process {os.getpid()} .* is alive"):
            Journal(tmp_path, lease_seconds=5)
        work.open.set()
        assert master.submit("gate", 1).result(60) == 1


def test_a_deposed_master_writes_no_more_and_stops(tmp_path: Path, work: Work) -> None:
    lost: list[JournalError] = []
    first = Master(
        # It counts only every 250 s: to whoever watches for a second it looks dead.
        store=Journal(tmp_path, lease_seconds=1000),
        workloads=work.registry,
        max_running=1,
        on_lost=lost.append,
    )
    running, waiting = first.submit("gate", "old"), first.submit("gate", "waiting")
    until(lambda: work.started == ["old"])
    second_work = Work()
    second_work.open.set()
    second = Master(store=Journal(tmp_path, lease_seconds=1), workloads=second_work.registry)
    assert second.job(running.id).result(60) == "old"
    assert second.job(waiting.id).result(60) == "waiting"
    with pytest.raises(JournalFencedError, match="taken this journal over"):
        first.submit("gate", "late")
    until(lambda: lost)
    with pytest.raises(JournalFencedError):
        waiting.result(60)
    with pytest.raises(JournalFencedError):
        first.submit("gate", "later")
    work.open.set()
    assert first.close()
    assert work.started == ["old"]
    assert {r.id for r in second.jobs()} == {running.id, waiting.id}
    assert second.close()


def test_a_submit_that_the_journal_turns_down_at_once_is_not_accepted(
    tmp_path: Path, work: Work
) -> None:
    journal = Journal(tmp_path)
    master = Master(store=journal, workloads=work.registry)
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        master.submit("echo", 1)
    assert master.jobs() == []


def test_a_finished_record_is_never_overwritten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    waiting = record("a")
    put(journal, waiting, first=True)
    running = advance(waiting, JobState.RUNNING, 1001.0)
    put(journal, advance(running, JobState.SUCCEEDED, 1002.0, result=1), first=False)
    with pytest.raises(JournalFencedError, match="has ended"):
        put(journal, advance(running, JobState.SUCCEEDED, 1003.0, result=2), first=False)
    assert journal.get("a").result == 1
    journal.close()


# --- damage ------------------------------------------------------------------------------


def grown(path: Path, count: int = 30) -> list[str]:
    journal = Journal(path)
    names = [f"job{i}" for i in range(count)]
    for i, name in enumerate(names):
        put(journal, record(name, i), first=True)
    # As a killed process leaves it: the log of writes is not folded into the file.
    copy = path.parent / "copy"
    copy.mkdir()
    for file in path.parent.glob("journal*"):
        if file.is_file():
            shutil.copy(file, copy)
    journal.close()
    return names


@pytest.mark.parametrize("cut", [0, 1, 100, 4096, 20_000, 100_000])
def test_a_torn_log_loses_nothing_but_what_was_torn(tmp_path: Path, cut: int) -> None:
    names = grown(tmp_path / "journal.sqlite3")
    log = tmp_path / "copy" / "journal.sqlite3-wal"
    content = log.read_bytes()
    # cut == 0: garbage after the end, as a write that had begun
    log.write_bytes(content + b"\x5a" * 5000 if cut == 0 else content[:-cut])
    journal = Journal(tmp_path / "copy", lease_seconds=0.2)
    found = [r.id for r in journal.recover(lambda error: None)]
    assert found == names[: len(found)]
    if cut == 0:
        assert found == names
    put(journal, record("new", 1000), first=True)
    journal.close()


@pytest.mark.parametrize("damage", ["schema", "pages"])
def test_a_damaged_file_is_set_aside_and_told(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = crashed(tmp_path / "journal.sqlite3", *(record(f"j{i}", i) for i in range(200)))
    content = bytearray(file.read_bytes())
    start = 100 if damage == "schema" else 4096
    content[start:] = os.urandom(len(content) - start)
    file.write_bytes(content)
    with pytest.raises(JournalCorruptError, match=r"set aside as .*corrupt-\d+"):
        Journal(file)
    (aside,) = (p for p in tmp_path.glob("*.corrupt-*") if p.suffix[-4:] not in ("-wal", "-shm"))
    assert aside.read_bytes() == bytes(content)
    Journal(file).close()
    assert "beginning an empty journal" in caplog.text


def other_database(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
        connection.commit()


def damaged_other_database(file: Path) -> None:
    other_database(file)
    content = bytearray(file.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    file.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.write_text("this is a text\n" * 1000),
        lambda file: file.write_bytes(b"x"),
        lambda file: file.write_bytes(b"\xff" * 8192),
        other_database,
        damaged_other_database,
    ],
)
def test_another_file_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    file = tmp_path / "file"
    make(file)
    content = file.read_bytes()
    for _ in range(2):
        with pytest.raises(JournalError, match="is not a journal"):
            Journal(file)
        assert file.read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_empty_path_is_no_journal() -> None:
    for path in ("", " "):
        with pytest.raises(InvalidArgumentError, match="needs a path"):
            Master(journal=path)


def test_a_journal_of_before_is_known_and_marked(tmp_path: Path) -> None:
    file = crashed(tmp_path / "journal.sqlite3", record("a"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id=0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert file.read_bytes()[68:72] == b"\0" * 4
    with contextlib.closing(Journal(file, lease_seconds=0.2)) as journal:
        assert [r.id for r in journal.recover(lambda error: None)] == ["a"]
    assert file.read_bytes()[68:72] == b"aRj1"


def test_a_row_that_was_changed_is_noticed(tmp_path: Path) -> None:
    file = crashed(tmp_path / "journal.sqlite3", record("a"))
    with sqlite3.connect(file) as connection:
        connection.execute('UPDATE jobs SET params = \'{"n":"b"}\'')
    connection.close()
    with pytest.raises(JournalCorruptError, match="checksum"):
        Master(journal=file)


def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    file = crashed(tmp_path / "journal.sqlite3")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    connection.close()
    with pytest.raises(JournalError, match="schema 99"):
        Journal(file)


# --- the disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_full_disk_submits_are_refused_and_nothing_accepted_is_lost(
    small_disk: Path, work: Work
) -> None:
    master = Master(journal=small_disk, workloads=work.registry, max_running=1, cache_bytes=0)
    accepted = [master.submit("gate", "first")]
    until(lambda: work.started)
    with pytest.raises(JournalError, match=r"full|disk I/O"):
        accepted.extend(master.submit("echo", "x" * 20_000) for _ in range(200))
    assert len(accepted) > 3
    work.open.set()  # that the first has ended cannot be written now
    time.sleep(0.1)
    master.close(drain=False)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with Master(journal=small_disk, workloads=work.registry) as again:
        for job in accepted:
            assert again.job(job.id).result(60) == again.record(job.id).params
        assert len(again.jobs()) == len(accepted)


def test_ends_are_written_once_the_disk_has_room_again(small_disk: Path, work: Work) -> None:
    filler = small_disk / "filler"
    with Master(journal=small_disk, workloads=work.registry, cache_bytes=0) as master:
        job = master.submit("gate", 1)
        until(lambda: work.started)
        filler.touch()
        with pytest.raises(OSError, match="No space"):
            fill(filler)
        with pytest.raises(JournalError):  # once the room that the log has already is used up
            consume(master.submit("echo", "x" * 4000) for _ in range(2000))
        work.open.set()
        filler.unlink()
        assert job.result(60) == 1


def fill(file: Path) -> None:
    with file.open("ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def consume(made: Iterator[Any]) -> None:
    for _ in made:
        pass


def test_a_read_only_place_is_told(small_disk: Path, tmp_path: Path) -> None:
    crashed(small_disk / "journal.sqlite3", record("a"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match=r"journal\.sqlite3"):
        Journal(small_disk)
    with pytest.raises(JournalError, match=r"new\.sqlite3"):
        Journal(small_disk / "new.sqlite3")
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file"):
        Journal(tmp_path / "file" / "journal.sqlite3")


# --- clocks and limits -------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_no_order_and_loses_nothing(
    tmp_path: Path, work: Work
) -> None:
    times = iter(range(10_000, 0, -10))
    options: Any = {"workloads": work.registry, "max_running": 1, "clock": lambda: next(times)}
    master = Master(journal=tmp_path, **options)
    jobs = [master.submit("gate", i) for i in range(5)]
    until(lambda: work.started)
    master.close(drain=False)
    work.open.set()
    with Master(journal=tmp_path, **options) as again:
        records = [again.wait(job.id, 10) for job in jobs]
    assert work.started == [0, 0, 1, 2, 3, 4]
    for each in records:
        assert each.started_at is not None
        assert each.finished_at is not None
        assert each.created_at <= each.started_at <= each.finished_at


def test_the_oldest_finished_jobs_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_ray.master.journal._PRUNE_EVERY", 5)
    journal = Journal(tmp_path, max_finished=3)
    for i in range(10):
        put(journal, record(f"j{i}", i), first=True)
        ended = advance(
            advance(record(f"j{i}", i), JobState.RUNNING, 1001.0 + i),
            JobState.SUCCEEDED,
            1001.0 + i,
        )
        put(journal, ended, first=False)
    journal.close()
    again = Journal(tmp_path)
    with pytest.raises(UnknownJobError):
        again.get("j0")
    assert again.get("j9").state is JobState.SUCCEEDED
    again.close()


def test_ten_thousand_jobs_are_taken_over_quickly(tmp_path: Path, work: Work) -> None:
    file = crashed(tmp_path / "journal.sqlite3")
    journal = Journal(file)
    done = threading.Semaphore(0)
    for i in range(10_000):
        journal.write(record(f"j{i}", i), lambda error: done.release(), first=True)
    for _ in range(10_000):
        assert done.acquire(timeout=60)
    journal.close()
    began = time.process_time()  # other processes' load is not the journal's
    registry = Registry()
    registry.register("echo", work.gate)
    master = Master(journal=file, workloads=registry)
    assert time.process_time() - began < 3
    assert len(master.jobs()) == 10_000
    work.open.set()
    master.close(drain=False)
