"""Graphs submitted to a session: chains, diamonds, large values, cancellation, SessionErrors."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    ImpossibleResourcesError,
    JobCancelledError,
    JobTimeoutError,
    SerializationError,
)
from agentic_ray.graph.task import Ref
from agentic_ray.runtime import job_scope


def plus(left: Any, right: Any) -> Any:
    return left + right


def slow(value: Any, seconds: float) -> Any:
    time.sleep(seconds)
    return value


CODELETS = [ar.Codelet("plus", plus), ar.Codelet("plus_opaque", plus, opaque=True)]


@pytest.mark.parametrize("codelet", CODELETS, ids=["thread", "process"])
@pytest.mark.parametrize("size", [1, 100_000], ids=["small", "large"])
def test_a_chain_and_a_diamond(ray_session: ar.Session, codelet: ar.Codelet, size: int) -> None:
    one = np.ones(size)
    chain = [ar.Task.of(codelet, one, one, key="0")]
    chain += [ar.Task.of(codelet, Ref(str(i)), one, key=str(i + 1)) for i in range(5)]
    left = ar.Task.of(codelet, Ref("5"), one, key="left")
    right = ar.Task.of(codelet, Ref("5"), -one, key="right")
    end = ar.Task.of(codelet, Ref("left"), Ref("right"), key="end")
    graph = ar.TaskGraph([end, left, right, *chain], ["end", "5"])
    for target_seconds in (0.0, 100.0):  # every task a bundle; as few bundles as can be
        run = ray_session.submit(graph, target_seconds=target_seconds)
        found, fifth = run.result(timeout=60)
        np.testing.assert_array_equal(found, np.full(size, 14.0))
        np.testing.assert_array_equal(fifth, np.full(size, 7.0))


def test_an_output_twice_and_an_output_that_is_an_input(ray_session: ar.Session) -> None:
    a = ar.Task.of(CODELETS[0], 1, 2, key="a")
    b = ar.Task.of(CODELETS[0], Ref("a"), 4, key="b")
    assert ray_session.submit(ar.TaskGraph([a, b], ["b", "a", "b"])).result(30) == [7, 3, 7]


def test_a_graph_without_outputs_is_done_at_once(ray_session: ar.Session) -> None:
    assert ray_session.submit(ar.TaskGraph([], [])).result(60) == []


def test_a_timeout_leaves_the_run_going(ray_session: ar.Session) -> None:
    task = ar.Task.of(ar.Codelet("slow", slow, opaque=True), 5, 1.5, key="slow")
    run = ray_session.submit(ar.TaskGraph([task], ["slow"]))
    with pytest.raises(JobTimeoutError):
        run.result(timeout=0.1)
    assert run.result(timeout=30) == [5]


@pytest.mark.parametrize("opaque", [True, False])
def test_a_cancelled_scope_ends_what_runs_and_refuses_more(
    ray_session: ar.Session, opaque: bool
) -> None:
    codelet = ar.Codelet(f"slow{opaque}", slow, opaque=opaque)
    tasks = [ar.Task.of(codelet, i, 0.3, key=str(i)) for i in range(100)]
    graph = ar.TaskGraph(tasks, [task.key for task in tasks])
    with job_scope(f"job-{opaque}") as scope:
        run = ray_session.submit(graph)
        threading.Timer(0.4, scope.cancel).start()
        started = time.monotonic()
        with pytest.raises(JobCancelledError):
            run.result(timeout=30)
        assert time.monotonic() - started < 12
        with pytest.raises(JobCancelledError):
            ray_session.submit(graph)
    task = ar.Task.of(CODELETS[0], 1, 2, key="after")
    assert ray_session.submit(ar.TaskGraph([task], ["after"])).result(30) == [3]


def test_an_unpicklable_argument_fails_the_run_by_name(ray_session: ar.Session) -> None:
    task = ar.Task.of(CODELETS[1], threading.Lock(), 2, key="bad")
    with pytest.raises(SerializationError, match="bad"):
        ray_session.submit(ar.TaskGraph([task], ["bad"])).result(30)


def test_impossible_resources_are_refused_at_once(ray_session: ar.Session) -> None:
    task = ar.Task.of(CODELETS[1], 1, 2, key="wide", resources=ar.Resources(cpus=5000))
    with pytest.raises(ImpossibleResourcesError, match="5000"):
        ray_session.submit(ar.TaskGraph([task], ["wide"])).result(30)


def test_one_failing_graph_leaves_another_alone(ray_session: ar.Session) -> None:
    def fail(value: Any) -> Any:
        raise ArithmeticError(value)

    good = [ar.Task.of(ar.Codelet("s", slow, opaque=True), i, 0.1, key=str(i)) for i in range(6)]
    run = ray_session.submit(ar.TaskGraph(good, [task.key for task in good]))
    bad = ar.Task.of(ar.Codelet("fail", fail, opaque=True), 1, key="bad")
    with pytest.raises(ArithmeticError):
        ray_session.submit(ar.TaskGraph([bad], ["bad"])).result(30)
    assert run.result(30) == list(range(6))
