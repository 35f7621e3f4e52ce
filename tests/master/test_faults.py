"""Masters on journals whose database loses answers, stands still, or is killed under them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import (
    InvalidArgumentError,
    JobTimeoutError,
    JournalError,
    JournalTimeoutError,
    UnknownJobError,
)
from agentic_ray.master import JobState, Journal, Master, Registry
from tests.support.waiting import until

from .faulty import FAULTS, FaultyDatabase
from .postgres_server import Server

Places = Callable[[], str]
LONG = "AGENTIC_RAY_LONG" in os.environ


class Noted:
    """A workload with effects that notes how often it ran with what."""

    def __init__(self) -> None:
        self.ran: Counter[Any] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self.registry = Registry()
        self.registry.register("once", self.once, effects=True)

    def once(self, params: Any) -> Any:
        with self._lock:
            self.ran[params] += 1
        assert self.gate.wait(60)
        return params


@contextmanager
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FaultyDatabase]]:
    """Every database that a journal opens meanwhile is a faulty one, without faults at first."""
    from agentic_ray.master import database, postgres

    made: list[FaultyDatabase] = []

    def wrapped(real: Any) -> Any:
        def make(*arguments: Any) -> FaultyDatabase:
            made.append(FaultyDatabase(real(*arguments), seed=len(made)))
            return made[-1]

        return make

    with monkeypatch.context() as patch:
        patch.setattr("agentic_ray.master.journal.SqliteDatabase", wrapped(database.SqliteDatabase))
        patch.setattr(
            "agentic_ray.master.postgres.PostgresDatabase", wrapped(postgres.PostgresDatabase)
        )
        yield made


def submit_many(
    master: Master, base: int, threads: int, each: int, keyed: bool
) -> tuple[dict[str, Any], list[Any]]:
    """Jobs that were accepted, by identifier, and what was refused for good."""
    accepted: dict[str, Any] = {}
    refused: list[Any] = []
    lock = threading.Lock()

    def submit(thread: int) -> None:
        for i in range(each):
            number = base + thread * each + i
            for attempt in range(100 if keyed else 1):
                key = f"key{number}" if keyed else None
                try:
                    job = master.submit("once", number, idempotency_key=key)
                except JournalError:
                    if attempt + 1 == (100 if keyed else 1):
                        with lock:
                            refused.append(number)
                    time.sleep(0.05 if keyed else 0)
                    continue
                with lock:
                    accepted[job.id] = number
                break

    workers = [threading.Thread(target=submit, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return accepted, refused


@pytest.mark.parametrize("keyed", [True, False])
def test_with_lost_answers_accepted_jobs_run_once_and_refused_ones_never(
    places: Places, monkeypatch: pytest.MonkeyPatch, keyed: bool
) -> None:
    noted = Noted()
    each = 8 if keyed else 40
    monkeypatch.setattr("agentic_ray.master.journal._RETRY_SECONDS", 0.01)
    with faulty(monkeypatch) as databases:
        where = places()
        with Master(journal=where, workloads=noted.registry) as master:
            (database,) = databases
            database.often = 0.3
            accepted: dict[str, Any] = {}
            refused: list[Any] = []
            rounds = 0
            # How many submits share a transaction depends on the machine's load.
            while not (
                sum(database.seen.values()) > (800 if LONG else 10)
                and len(database.seen) == len(FAULTS)
            ):
                more, bad = submit_many(master, 16 * each * rounds, 16, each, keyed)
                accepted |= more
                refused += bad
                rounds += 1
            database.often = 0.0
            results = {job_id: master.job(job_id).result(60) for job_id in accepted}
        assert results == accepted
    assert set(noted.ran) == set(accepted.values())
    assert set(noted.ran.values()) == {1}
    assert not set(refused) & set(noted.ran)
    assert not refused if keyed else len(accepted) + len(refused) == 16 * each * rounds
    with Master(journal=where, workloads=noted.registry) as master:
        assert {r.id for r in master.jobs()} <= set(accepted)
        assert {master.record(job_id).state for job_id in accepted} == {JobState.SUCCEEDED}
    assert set(noted.ran.values()) == {1}


def test_everything_comes_back_while_the_database_stands_still(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted()
    noted.gate.clear()
    with faulty(monkeypatch) as databases:
        where = places()
        journal = Journal(where, call_seconds=0.3, lease_seconds=1000)
        master = Master(store=journal, workloads=noted.registry, max_running=1)
        running = master.submit("once", "running")
        until(lambda: noted.ran["running"])
        waiting = master.submit("once", "waiting")
        databases[0].moving.clear()
        began = time.monotonic()
        with pytest.raises(JournalTimeoutError):
            master.submit("once", "refused", idempotency_key="key")
        with pytest.raises(JobTimeoutError):
            running.result(timeout=0.2)
        assert waiting.status() == JobState.QUEUED
        with pytest.raises(JournalTimeoutError):
            waiting.cancel()
        with pytest.raises(JournalTimeoutError):
            master.record("unknown")
        assert len(master.jobs()) == 2
        noted.gate.set()
        master.close()
        assert time.monotonic() - began < 30
        databases[0].moving.set()
    assert set(noted.ran) == {"running"}


def test_a_job_that_was_refused_by_a_frozen_journal_never_runs_when_it_thaws(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted()
    with faulty(monkeypatch) as databases:
        journal = Journal(places(), call_seconds=0.2)
        with Master(store=journal, workloads=noted.registry) as master:
            databases[0].writing.clear()
            for key in ("gone", "kept"):
                with pytest.raises(JournalTimeoutError):
                    master.submit("once", key, idempotency_key=key)
            # It is submitted again before the journal answers: it is the same job, and runs.
            again: list[Any] = []
            asking = threading.Thread(target=lambda: again.append(submit_patiently(master, "kept")))
            asking.start()
            until(lambda: master._submitters)
            databases[0].writing.set()
            asking.join(60)
            assert again[0].result(60) == "kept"
            until(lambda: any(r.state is JobState.CANCELLED for r in master.jobs()))
            assert set(noted.ran) == {"kept"}
            # Its key is free again.
            assert master.submit("once", "gone", idempotency_key="gone").result(60) == "gone"
            assert noted.ran == {"kept": 1, "gone": 1}


def submit_patiently(master: Master, key: str) -> Any:
    while True:
        try:
            return master.submit("once", key, idempotency_key=key)
        except JournalTimeoutError:
            continue


def test_a_connection_cut_while_old_jobs_are_pruned_stops_nothing(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted()
    monkeypatch.setattr("agentic_ray.master.journal._PRUNE_EVERY", 5)
    monkeypatch.setattr("agentic_ray.master.journal._RETRY_SECONDS", 0.01)
    with faulty(monkeypatch) as databases:
        journal = Journal(places(), max_finished=2)
        with Master(store=journal, workloads=noted.registry) as master:
            jobs = []
            for i in range(40):
                databases[0].often = 0.5 if i % 2 else 0.0
                try:
                    jobs.append(master.submit("once", i))
                    jobs[-1].result(60)
                except JournalError:
                    continue
            databases[0].often = 0.0
            for i in range(100, 112):
                master.submit("once", i).result(60)
    assert set(noted.ran.values()) == {1}
    assert len(jobs) >= 20


def test_two_journals_may_keep_their_results_in_one_place(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    noted = Noted()
    noted.gate.clear()
    first = Master(
        store=Journal(tmp_path / "one.sqlite3", results=shared), workloads=noted.registry
    )
    job = first.submit("once", 1)
    shelf = first._operations.stages.of(job.id)
    assert shelf is not None
    shelf.put("pass 1", b"kept")
    with Master(store=Journal(tmp_path / "two.sqlite3", results=shared), workloads=noted.registry):
        pass
    assert shelf.get("pass 1") == b"kept"
    noted.gate.set()
    assert first.close()
    assert list(Path(f"{shared}.stages").iterdir()) == []


# --- a real server -----------------------------------------------------------------------


def test_a_killed_and_restarted_server_loses_nothing_and_repeats_nothing(
    postgres: Server, new_database: Places
) -> None:
    noted = Noted()
    stop = threading.Event()

    def torment() -> None:
        for round_ in range(70 if LONG else 6):
            time.sleep(0.5)
            if round_ % 7 in (1, 4) if LONG else round_ == 3:
                postgres.restart()
            else:
                kill_connections(postgres)
        stop.set()

    journal = Journal(new_database(), call_seconds=3)
    with Master(store=journal, workloads=noted.registry) as master:
        thread = threading.Thread(target=torment)
        thread.start()
        accepted: dict[str, Any] = {}
        refused: list[Any] = []
        while not stop.is_set():
            base = 1000 * (len(accepted) + len(refused))
            some, bad = submit_some(master, base)
            accepted |= some
            refused += bad
        thread.join()
        for job_id, number in accepted.items():
            assert master.job(job_id).result(60) == number
    assert set(noted.ran) == set(accepted.values())
    assert set(noted.ran.values()) == {1}
    assert len(accepted) > 20


def submit_some(master: Master, base: int) -> tuple[dict[str, Any], list[Any]]:
    accepted: dict[str, Any] = {}
    refused: list[Any] = []

    def submit(number: int) -> None:
        try:
            accepted[master.submit("once", number).id] = number
        except JournalError:
            refused.append(number)
            time.sleep(0.05)

    threads = [threading.Thread(target=submit, args=(base + i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return accepted, refused


def kill_connections(server: Server) -> None:
    """The server ends the journals' connections, in the middle of whatever they do."""
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'agentic_ray journal'"
        )


def test_a_frozen_server_is_waited_for_no_longer_than_a_call_may_take(
    postgres: Server, new_database: Places
) -> None:
    noted = Noted()
    journal = Journal(new_database(), call_seconds=1, lease_seconds=1000)
    with Master(store=journal, workloads=noted.registry) as master:
        first = master.submit("once", "first")
        first.result(60)
        frozen = postgres.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(JournalError):
                master.submit("once", "refused")
            with pytest.raises(JournalError):
                master.record("unknown")
            assert master.record(first.id).result == "first"
            assert time.monotonic() - began < 30
        finally:
            postgres.thaw(frozen)
        until(lambda: _submitted(master, "later"))
        assert "refused" not in noted.ran
        with pytest.raises(UnknownJobError):
            master.record("unknown")


def _submitted(master: Master, name: str) -> bool:
    try:
        return master.submit("once", name).result(60) == name
    except JournalError:
        return False


def test_a_port_that_says_nothing_is_told_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(JournalTimeoutError, match="no answer"):
            Journal(f"postgresql://me@127.0.0.1:{port}/x", call_seconds=1)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://me@host/jobs", "mysql.*SQLite.*postgresql://"),
        ("postgresql+psycopg2://me@host/jobs", r"psycopg2.*postgresql://"),
        ("postgresql://me@host:port/jobs", "'port' is no port"),
        ("postgresql://me@host:99999/jobs", "'99999' is no port"),
        ("postgresql://me@[::1/jobs", "URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(url: str, told: str) -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    with pytest.raises(InvalidArgumentError, match=told):
        Journal(url)
