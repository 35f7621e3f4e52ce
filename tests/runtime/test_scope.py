"""JobScope: what a job put on the cluster is counted and cancelled as one."""

from __future__ import annotations

import operator
import subprocess
import sys
import threading
import time

import pytest

import agentic_ray as ar
from agentic_ray.errors import JobCancelledError
from agentic_ray.runtime import JobScope, job_scope


def nap(x: int) -> int:
    time.sleep(0.05)
    return x


def test_a_scope_tells_of_all_runs_inside_it_and_of_no_others(ray_session: ar.Session) -> None:
    with job_scope("a") as scope:
        ar.map_reduce(nap, range(6), operator.add)
        ar.map_reduce(nap, range(4), operator.add)
    ar.map_reduce(nap, range(8), operator.add)
    assert sum(record.items for record in scope.placements()) == 10
    metrics = scope.metrics(1.0)
    assert metrics is not None
    assert (metrics.tasks, metrics.decomposition, metrics.recovery) == (10, 1.0, 1.0)
    assert {event.kind for event in scope.events()} == {"finished"}


def test_a_scope_without_runs_has_no_metrics() -> None:
    assert JobScope("empty").metrics(1.0) is None


def test_cancel_stops_what_runs_and_what_would_come(ray_session: ar.Session) -> None:
    outcomes: list[BaseException | None] = []
    scopes: list[JobScope] = []
    entered = threading.Event()

    def job() -> None:
        with job_scope("b") as scope:
            scopes.append(scope)
            entered.set()
            for _ in range(2):
                try:
                    ar.map_reduce(nap, range(10_000), operator.add)
                    outcomes.append(None)
                except JobCancelledError as error:
                    outcomes.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    entered.wait(10)
    time.sleep(0.5)
    scopes[0].cancel()
    thread.join(15)
    assert [type(outcome) for outcome in outcomes] == [JobCancelledError] * 2


def test_other_jobs_go_on_when_one_is_cancelled(ray_session: ar.Session) -> None:
    with job_scope("c") as scope:
        scope.cancel()
        with pytest.raises(JobCancelledError):
            ar.map_reduce(nap, [1, 2], operator.add)
    assert ar.map_reduce(nap, [1, 2], operator.add) == 3


@pytest.mark.slow
def test_a_session_outlives_the_thread_that_started_it() -> None:
    # The kernel would kill Ray's processes with the thread that started them.
    code = """
import operator, threading, time
import agentic_ray as ar
thread = threading.Thread(target=lambda: ar.init(num_cpus=1))
thread.start(); thread.join(); time.sleep(1)
print(ar.map_reduce(abs, [1, -2, 3], operator.add))
ar.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout.split() == ["6"], done.stderr
