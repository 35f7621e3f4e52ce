"""Leases and writes on real databases: lost answers, races, two masters, frozen stores."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from agentic_ray.errors import JournalError, JournalFencedError, JournalLockedError
from agentic_ray.master import lease
from agentic_ray.master.database import CommitUnknownError, Database, Transaction
from agentic_ray.master.journal import prepare
from agentic_ray.master.ledger import Ledger

from .faulty import FaultyDatabase, open_database

Places = Callable[[], str]


class _Loser(Exception):
    """Somebody else holds the lease."""


def never(seconds: float) -> None:
    raise _Loser


def take(database: Database) -> int:
    """The lease, whoever holds it."""
    return lease.acquire(database, 1e-9, pause=lambda seconds: None)


def insert(name: str) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.change("INSERT INTO meta (name, value) VALUES (:name, '')", {"name": name})

    return work


def names(database: Database) -> set[str]:
    rows = database.read("SELECT name FROM meta WHERE name LIKE 'w%'")
    return {row[0] for row in rows}


@contextmanager
def opened(*where: str) -> Any:
    databases = [open_database(each) for each in where]
    try:
        yield databases
    finally:
        for database in databases:
            database.close()


def test_of_masters_that_start_at_one_instant_one_has_the_lease(places: Places) -> None:
    for _ in range(200 if "AGENTIC_RAY_LONG" in os.environ else 25):
        where = places()
        outcomes: list[int | BaseException] = []
        barrier = threading.Barrier(3)

        def start(where: str, barrier: threading.Barrier, outcomes: list[Any]) -> None:
            barrier.wait()
            try:
                with opened(where) as (database,):
                    prepare(database)
                    outcomes.append(lease.acquire(database, 1000, pause=never))
            except BaseException as error:
                outcomes.append(error)

        threads = [
            threading.Thread(target=start, args=(where, barrier, outcomes)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(each).__name__ for each in outcomes) == ["_Loser", "_Loser", "int"]


def test_of_those_who_take_a_silent_lease_at_one_instant_one_gets_it(places: Places) -> None:
    where = places()
    with opened(where, where, where) as databases:
        prepare(databases[0])
        for _ in range(30):
            tokens: list[int] = []
            barrier = threading.Barrier(3)
            with databases[0].transaction() as transaction:
                transaction.execute("UPDATE lease SET holder = ''")

            def grab(database: Database, barrier: threading.Barrier, tokens: list[int]) -> None:
                barrier.wait()
                try:
                    tokens.append(lease.acquire(database, 1000, pause=never))
                except _Loser:
                    return

            threads = [
                threading.Thread(target=grab, args=(database, barrier, tokens))
                for database in databases
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(tokens) == 1


@pytest.mark.parametrize("seed", range(12))
def test_what_is_said_of_a_write_is_so_whatever_is_lost(places: Places, seed: int) -> None:
    """Two holders in turn, faults in a third of all transactions; the database has the say."""
    random_ = random.Random(seed)
    where = places()
    with opened(where, where, where) as (first, second, reader):
        prepare(reader)
        databases = [FaultyDatabase(each, 0.35, seed + i) for i, each in enumerate((first, second))]
        ledgers = [Ledger(databases[0], persistently(lambda: take(databases[0]))), None]
        current, written, refused = 0, set(), set()
        doubtful: dict[int, str] = {}
        for number in range(120):
            if random_.random() < 0.06:
                current = 1 - current
                token = persistently(partial(take, databases[current]))
                ledgers[current] = Ledger(databases[current], token)
                if (left := doubtful.pop(current, None)) is not None:
                    # A new life of this holder: nothing was told of it.
                    (written if left in names(reader) else refused).add(left)
            for index in random_.sample((0, 1), 2):
                ledger = ledgers[index]
                if ledger is None:
                    continue
                name = f"w{index}.{number}"
                try:
                    if ledger.in_doubt:
                        happened = ledger.settle()
                        (written if happened else refused).add(doubtful.pop(index))
                    ledger.write(insert(name))
                    written.add(name)
                    assert index == current, "a holder that lost the lease has written"
                except CommitUnknownError:
                    doubtful.setdefault(index, name)
                    if not ledger.in_doubt:
                        raise
                except JournalFencedError:
                    assert index != current
                    refused.add(name)
                    if (left := doubtful.pop(index, None)) is not None:
                        (written if left in names(reader) else refused).add(left)
                    ledgers[index] = None
                except JournalError:
                    if not ledger.in_doubt:
                        refused.add(name)
        for database in databases:
            database.often = 0.0
        for index, name in doubtful.items():
            ledger = ledgers[index]
            assert ledger is not None
            try:
                (written if ledger.settle() else refused).add(name)
            except JournalFencedError:
                (written if name in names(reader) else refused).add(name)
        assert names(reader) == written
        assert not written & refused
        assert len(written) > 20
        assert all(database.seen[fault] for database in databases[:1] for fault in database.seen)


def persistently(call: Callable[[], int]) -> int:
    while True:
        try:
            return call()
        except JournalLockedError:
            raise
        except JournalError:
            continue


def test_a_lease_whose_taking_was_not_answered_is_known_to_be_ours(places: Places) -> None:
    where = places()
    with opened(where) as (inner,):
        prepare(inner)

        class LosesTheFirst(FaultyDatabase):
            lost = 0

            @contextmanager
            def transaction(self) -> Any:
                with self.inner.transaction() as transaction:
                    yield transaction
                if not self.lost:
                    self.lost = 1
                    raise CommitUnknownError("lost")

        assert lease.acquire(LosesTheFirst(inner), 1000, pause=lambda seconds: None) == 1
        Ledger(inner, 1).write(insert("w"))
        assert names(inner) == {"w"}


def test_a_database_that_stood_still_has_no_silent_holder(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher's reads came late, so the holder's sign of life could not come either."""
    clock = [0.0]
    monkeypatch.setattr("agentic_ray.master.lease.time.monotonic", lambda: clock[0])
    where = places()
    with opened(where, where) as (holders, watchers):
        prepare(holders)
        token = lease.acquire(holders, 5)
        ledger = Ledger(holders, token)
        pauses = [0]

        def pause(seconds: float) -> None:
            pauses[0] += 1
            clock[0] += 60 if pauses[0] == 1 else seconds  # it stands still for a minute
            if pauses[0] == 4:
                ledger.write(lambda transaction: None)

        with pytest.raises(JournalLockedError, match="is alive"):
            lease.acquire(watchers, 5, pause)


def test_a_holder_that_cannot_be_seen_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under /proc with hidepid, where other users' processes do not show."""
    alive = lease.Holder.here()
    monkeypatch.setattr(lease, "_started", lambda pid: "")
    assert not alive.surely_dead()

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not alive.surely_dead()
    monkeypatch.undo()
    assert not alive.surely_dead()
    gone = lease.Holder(alive.host, alive.space, 2**22 + 5, alive.started)
    assert gone.surely_dead()
    assert lease.Holder(alive.host, alive.space, alive.pid, "another start").surely_dead()
