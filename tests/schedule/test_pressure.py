"""A node that runs out of memory runs less at once, and smaller bundles; one event at a time."""

from __future__ import annotations

import pytest
from test_dispatcher import ADD, Bench, bundle_of, only, pick

from agentic_ray.errors import OutOfHostMemoryError
from agentic_ray.graph import Bundle, Ref, Task
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.pressure import CALM_SECONDS, Pressure, halves


def chain(*keys: str, outputs: tuple[str, ...], inputs: tuple[str, ...] = ()) -> Bundle:
    """One bundle of tasks, each taking the value of the one before."""
    tasks: list[Task] = []
    for key in keys:
        before = (tasks[-1].key,) if tasks else inputs
        tasks.append(Task.of(ADD, *map(Ref, before), key=key))
    return Bundle(keys[-1], tuple(tasks), inputs, outputs)


def slots(bench: Bench) -> int:
    return bench.dispatcher.view.executors["n1", "cpu"].slots


def test_fewer_run_at_once_after_pressure_and_one_more_after_each_calm_while() -> None:
    bench = Bench()
    bundles = [bundle_of(f"b{i}") for i in range(12)]
    starts = pick(bench.submit(*bundles, outputs=[b.key for b in bundles]), ev.Start)
    bench.now += 1.0
    bench.fail(starts[0], "pressure")
    assert slots(bench) == 2
    for start in starts[1:3]:
        bench.fail(start, "pressure")
    assert slots(bench) == 2, "those that died with it are one event"
    for start in starts[3:]:
        bench.finish(start)
    bench.now += CALM_SECONDS + 1
    bench.send(ev.Tick)
    assert slots(bench) == 3
    bench.now += CALM_SECONDS + 1
    bench.send(ev.Tick)
    assert slots(bench) == 4


def test_pressure_costs_no_budget_of_failures() -> None:
    bench = Bench()
    a, b = pick(bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a", "b")), ev.Start)
    assert bench.fail(a, "pressure") == []
    again = only(bench.tick_until_due(), ev.Start)
    assert bench.finish(again) + bench.finish(b) == [ev.FinishGraph("g")]


def test_a_bundle_of_several_tasks_is_run_as_two() -> None:
    bench = Bench()
    whole = chain("a", "b", "c", "d", outputs=("b", "d"))
    start = only(bench.submit(whole, outputs=("b", "d")), ev.Start)
    split = only(bench.fail(start, "pressure"), ev.Split)
    assert [task.key for task in split.first.tasks] == ["a", "b"]
    assert [task.key for task in split.second.tasks] == ["c", "d"]
    first = only(bench.tick_until_due(), ev.Start)
    assert (first.bundle_id, first.bundle) == (split.first_id, split.first)
    second = only(bench.finish(first), ev.Start)
    assert (second.bundle_id, second.bundle) == (start.bundle_id, split.second)
    assert bench.finish(second) == [ev.FinishGraph("g")]
    assert bench.send(ev.GraphReleased, "g") == [ev.Release("g", ("b", "d"))]


def test_a_lost_value_of_a_half_is_made_again_by_that_half() -> None:
    bench = Bench()
    start = only(bench.submit(chain("a", "b", outputs=("b",))), ev.Start)
    bench.fail(start, "pressure")
    first = only(bench.tick_until_due(), ev.Start)
    second = only(bench.finish(first), ev.Start)
    again = only(bench.send(ev.ValueLost, "g", "a"), ev.Start)
    assert (again.bundle_id, again.bundle.key) == (first.bundle_id, "a")
    assert bench.fail(second, "input_lost") == []
    bench.finish(again)
    assert ev.FinishGraph("g") in bench.finish(only(bench.tick_until_due(), ev.Start))


def test_a_single_task_that_is_alone_on_its_node_is_too_large() -> None:
    bench = Bench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    assert bench.fail(start, "pressure") == []
    start = only(bench.tick_until_due(), ev.Start)
    cause = MemoryError("killed")
    failed = only(bench.fail(start, "pressure", cause), ev.FailGraph)
    assert isinstance(failed.error, OutOfHostMemoryError)
    assert isinstance(failed.error, MemoryError)
    assert failed.error.__cause__ is cause
    assert "add" in str(failed.error)


def test_the_limit_is_kept_when_a_node_offers_other_slots_and_forgotten_when_it_goes() -> None:
    pressure = Pressure(10.0)
    assert pressure.allowed("n", 8) == 8
    assert pressure.cut("n", 6, sent_seconds=0.0, now=1.0)
    assert not pressure.cut("n", 5, sent_seconds=0.5, now=1.1), "sent before the cut"
    assert pressure.cut("n", 3, sent_seconds=1.5, now=2.0)
    assert pressure.allowed("n", 16) == 1
    pressure.forget("n")
    assert pressure.allowed("n", 16) == 16


def test_halves_of_halves_end_with_single_tasks() -> None:
    whole = chain("a", "b", "c", inputs=("x",), outputs=("c",))
    parts = halves(whole)
    assert parts is not None
    first, second = parts
    assert (first.inputs, first.outputs) == (("x",), ("a",))
    assert (second.inputs, second.outputs) == (("a",), ("c",))
    assert halves(first) is None


@pytest.mark.parametrize("running", [1, 2, 3])
def test_at_least_one_bundle_may_always_run(running: int) -> None:
    pressure = Pressure()
    pressure.allowed("n", 4)
    pressure.cut("n", running, 0.0, 0.0)
    assert pressure.allowed("n") == 1
