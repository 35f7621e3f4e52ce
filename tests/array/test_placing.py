"""Work in threads of the caller's process: which it is, and that it is done as elsewhere."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, placing, threads
from agentic_ray.graph import Codelet, CostHint, Ref, Task
from agentic_ray.runtime.lent import LentSession
from agentic_ray.runtime.planning import PlanningSession, planning
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.described import Described, Machine
from agentic_ray.schedule.prospects import OnExecutors


def _task(key: str, function: Any, *args: Any, **rest: Any) -> Task:
    return Task.of(Codelet(function.__name__, function), *args, key=key, **rest)


def test_tasks_run_beside_each_other_and_values_are_dropped() -> None:
    both = threading.Barrier(2, timeout=30)

    def meets(x: int, *, xp: Any) -> int:
        both.wait()
        return x

    def total(*values: int, xp: Any) -> int:
        return sum(values)

    tasks = [_task("a", meets, 1), _task("b", meets, 2), _task("c", total, Ref("a"), Ref("b"))]
    ran = threads.run(tasks, ["c"], 2)
    assert ran.values == {"c": 3}
    assert ran.seconds.keys() == {"a", "b", "c"}


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_error_is_raised_and_the_rest_is_not_begun(count: int) -> None:
    begun = []

    def fails(x: int, *, xp: Any) -> int:
        begun.append(x)
        raise ZeroDivisionError(f"task {x}")

    def goes_on(x: int, *, xp: Any) -> int:
        begun.append(x)
        return x

    tasks = [_task("a", fails, 0), *[_task(f"{i}", goes_on, Ref("a")) for i in range(50)]]
    with pytest.raises(ZeroDivisionError, match="task 0"):
        threads.run(tasks, ["3"], count)
    assert begun == [0]


def test_the_callers_settings_of_numpy_hold_in_all_threads() -> None:
    values = np.zeros((8, 200_000))
    x = xp.asarray(values, chunks=(1, 200_000))
    for _ in range(3):
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            evaluate.run_here(*_planned(1 / x))
    with np.errstate(divide="ignore"):
        evaluate.run_here(*_planned(1 / x))


def _planned(array: xp.Array) -> tuple[list[Task], list[str]]:
    tasks, (blocks,) = evaluate.plan([array._node])
    return tasks, [block.key for block in blocks]


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    x = xp.asarray(rng.normal(size=(4000, 60)).astype(np.float32), chunks=(300, 60))
    expression = ((x - x.mean(axis=0)) / x.std(axis=0)).T @ xp.exp(x[:, 1])
    tasks, (blocks,) = evaluate.plan([expression._node])
    found = {
        count: threads.run(tasks, [blocks[0].key], count).values[blocks[0].key].tobytes()
        for count in (1, 2, 5)
    }
    assert len(set(found.values())) == 1


class _Session:
    """Says what a session's executors would take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def prospect(self, tasks: Any, moved_bytes: int, in_caller: Any) -> OnExecutors | None:
        each = [self.seconds] * len(tasks)
        return None if self.seconds < 0 else OnExecutors(self.seconds, each, 2, Calibration())


def test_the_sooner_end_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = xp.asarray(np.ones((9_000_000,)), chunks=1_000_000)
    plan = _planned(x * 2 + 1)
    monkeypatch.setattr(placing, "learnt", placing.Learnt())  # not what other tests have seen here

    def chosen(seconds: float, **rules: Any) -> placing.Prospect:
        monkeypatch.setattr(placing, "_session", lambda: _Session(seconds))
        with xp.config(**rules):
            return placing.prospect(*plan, put_bytes=0)

    assert chosen(5.0).here
    assert not chosen(1e-6).here
    assert not chosen(5.0, seconds_here=0).here
    assert not chosen(5.0, seconds_here=1e-9).here
    assert not chosen(-1).here
    assert "on the executors" in str(chosen(5.0))


def test_what_was_seen_here_is_expected_again() -> None:
    learnt = placing.Learnt()
    tasks = [_task("a", abs, 1, cost=CostHint(read_bytes=1000))]
    learnt.observe(tasks, threads.Ran({}, {"a": 0.25}))
    assert learnt.seconds(tasks) == [pytest.approx(0.25, rel=0.01)]


def test_one_slow_time_here_is_not_believed_against_the_executors() -> None:
    learnt = placing.Learnt()
    tasks = [_task("a", abs, 1, cost=CostHint(read_bytes=1000))]
    for times in range(1, placing.WELL_KNOWN + 1):
        learnt.observe(tasks, threads.Ran({}, {"a": 9.0}))
        expected = 0.25 if times < placing.WELL_KNOWN else 9.0
        assert learnt.seconds(tasks, [0.25]) == [pytest.approx(expected, rel=0.01)]


def test_a_size_far_from_those_seen_is_predicted_in_proportion_to_its_work() -> None:
    learnt = placing.Learnt()
    for flops, seconds in ((1e6, 1e-4), (4e6, 1e-2)):  # the second on a machine that was busy
        task = _task("a", abs, 1, cost=CostHint(flops))
        learnt.observe([task], threads.Ran({}, {"a": seconds}))
    (expected,) = learnt.seconds([_task("a", abs, 1, cost=CostHint(4e9))])
    assert expected < 1e-2 * 1000**1.3


def test_the_least_time_is_the_longest_chain_or_the_share_of_the_work() -> None:
    chain = [_task("a", abs, 1), _task("b", abs, Ref("a")), _task("c", abs, 1)]
    assert placing.seconds_in(1, chain, [1.0, 2.0, 3.0]) == 6.0
    assert placing.seconds_in(2, chain, [1.0, 2.0, 3.0]) == 3.0
    assert placing.seconds_in(3, chain, [1.0, 2.0, 1.0]) == 3.0
    large = xp.asarray(np.ones(4_000_000), chunks=4_000_000)
    tasks, _ = _planned(xp.exp(large))
    assert placing.seconds_in(4, tasks, [4.0]) == 1.0  # its cache blocks are shared out


def test_functions_of_the_users_do_not_run_in_threads_of_this_process() -> None:
    x = xp.asarray(np.ones((9_000_000,)), chunks=1_000_000)
    made = xp.map_blocks(lambda block: block + 1, x, dtype="float64")
    assert not evaluate.prospect([made._node]).here
    assert evaluate.prospect([(x + 1)._node]).here


def test_a_function_of_the_users_is_called_in_the_callers_thread() -> None:
    def thread(block: np.ndarray) -> np.ndarray:
        return np.full(block.shape, threading.get_ident(), np.int64)

    one = xp.map_blocks(thread, xp.asarray(np.ones(100_000)), dtype="int64")
    more = xp.sin(xp.asarray(np.ones((4, 400_000)), chunks=(1, 400_000)))
    for _ in range(5):
        found, _ = evaluate.values([(one + 0)._node, more._node])
        assert set(found.tolist()) == {threading.get_ident()}


def test_what_is_in_the_object_store_is_for_executors(ray_session: ar.Session) -> None:
    values = np.random.default_rng(1).random((6_000_000,))
    x = (xp.asarray(values, chunks=1_000_000) * 2).persist()
    assert "by the session (its data is in the object store)" in (x + 1).sum().explain()
    with xp.config(seconds_here=0):
        there = np.asarray((xp.asarray(values, chunks=1_000_000) * 2 + 1).sum())
    assert np.asarray((x + 1).sum()).tobytes() == there.tobytes()


def test_each_kind_of_session_is_asked_in_the_same_way() -> None:
    asked = [list(inspect.signature(kind.prospect).parameters)
             for kind in (ar.Session, LentSession, PlanningSession)]  # fmt: skip
    assert asked[0] == asked[1] == asked[2]


def test_a_plan_that_is_not_small_is_predicted_for_a_session_that_runs_nothing() -> None:
    x = xp.asarray(np.ones((9_000_000,)), chunks=1_000_000)
    with planning(PlanningSession(Described("here", (Machine(1, 2),)))):
        found = placing.prospect(*_planned(x * 2 + 1), put_bytes=0)
    assert found.there_seconds is not None
