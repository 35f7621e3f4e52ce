"""The journal in a real PostgreSQL server, started here; skipped where that cannot be done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import JournalError, JournalFencedError, JournalLockedError
from agentic_ray.master import JobState, Journal, Master, Registry

pytest.importorskip("psycopg", reason="needs the extra postgres")


class Work:
    def __init__(self) -> None:
        self.open = threading.Event()
        self.started: list[Any] = []
        self.registry = Registry()
        self.registry.register("gate", self.gate)
        self.registry.register("effects", self.gate, effects=True)

    def gate(self, params: Any) -> Any:
        self.started.append(params)
        assert self.open.wait(30)
        return params


def test_jobs_outlive_the_master_and_a_second_one_is_fenced(
    new_database: Callable[[], str],
) -> None:
    server = new_database()
    work = Work()
    first = Master(store=Journal(server, lease_seconds=1000), workloads=work.registry)
    jobs = [first.submit("gate", [i, "é"], idempotency_key=f"k{i}") for i in range(3)]
    once = first.submit("effects", "once")
    while len(work.started) < 4:
        pass
    again = Work()
    again.open.set()
    with Master(store=Journal(server, lease_seconds=0.5), workloads=again.registry) as second:
        with pytest.raises(JournalLockedError):
            Journal(server, lease_seconds=5)
        assert [second.job(job.id).result(60) for job in jobs] == [[i, "é"] for i in range(3)]
        assert second.record(once.id).state is JobState.FAILED
        assert second.submit("gate", [0, "é"], idempotency_key="k0").id == jobs[0].id
        with pytest.raises(JournalFencedError):
            first.submit("gate", "late")
    work.open.set()
    first.close()
    with Master(journal=server, workloads=again.registry) as third:
        assert [third.record(job.id).result for job in jobs] == [[i, "é"] for i in range(3)]
        assert len(third.jobs()) == 4
    assert len(again.started) == 3


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="PostgreSQL"):
        Journal(f"postgresql://nobody@/none?host={tmp_path}")
