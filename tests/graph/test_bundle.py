"""The bundling pass: what must hold of any bundles, and that it does group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from evaluator import evaluate, evaluate_bundles, graphs
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Bundle, Codelet, Ref, Task, TaskGraph, bundle, tree_reduce

targets = st.sampled_from([0.0, 1.0, 2.5, 4.0, 100.0])
limits = st.sampled_from([1, 2, 3, 1000])


def one_second(_: Task) -> float:
    return 1.0


def bundled(graph: TaskGraph, target: float = 100.0, limit: int = 1000) -> tuple[Bundle, ...]:
    return bundle(graph, seconds=one_second, target_seconds=lambda _: target, max_tasks=limit)


def keys_of(bundles: Sequence[Bundle]) -> list[list[str]]:
    return [[task.key for task in one.tasks] for one in bundles]


@given(graphs(), targets, limits)
def test_every_task_is_in_exactly_one_bundle(graph: TaskGraph, target: float, limit: int) -> None:
    place = {task.key: i for i, task in enumerate(graph)}
    bundles = keys_of(bundled(graph, target, limit))
    assert sorted(itertools.chain.from_iterable(bundles), key=place.__getitem__) == list(place)
    for keys in bundles:
        assert keys == sorted(keys, key=place.__getitem__)


def test_a_stencil_has_few_more_bundles_than_targets() -> None:
    code = Codelet("f", lambda *values: sum(values))
    chunks = [Task.of(code, i, key=f"x{i}") for i in range(200)]
    steps = [
        Task.of(code, *[Ref(f"x{j}") for j in (i - 1, i, i + 1) if 0 <= j < 200], key=f"y{i}")
        for i in range(200)
    ]
    graph = TaskGraph([*chunks, *steps], [task.key for task in steps])
    bundles = bundled(graph, 40.0)
    assert len(bundles) <= 2 * 400 / 40
    made: set[str] = set()
    for one in bundles:
        assert made.issuperset(one.inputs)
        made.update(one.outputs)


@given(graphs(), targets, limits)
def test_inputs_and_outputs_are_exact(graph: TaskGraph, target: float, limit: int) -> None:
    bundles = bundled(graph, target, limit)
    needed = {key for one in bundles for key in one.inputs} | set(graph.outputs)
    for one in bundles:
        inside = {task.key for task in one.tasks}
        used = {key for task in one.tasks for key in task.dependencies}
        assert set(one.inputs) == used - inside
        assert len(set(one.inputs)) == len(one.inputs)
        assert set(one.outputs) == inside & needed
    assert len({one.key for one in bundles}) == len(bundles)


@given(graphs(), targets, limits)
def test_bundles_are_in_topological_order(graph: TaskGraph, target: float, limit: int) -> None:
    made: set[str] = set()
    for one in bundled(graph, target, limit):
        assert made.issuperset(one.inputs)
        made.update(one.outputs)


@given(graphs(), targets, limits)
def test_bundles_compute_the_same_from_their_inputs_only(
    graph: TaskGraph, target: float, limit: int
) -> None:
    assert evaluate_bundles(bundled(graph, target, limit), graph.outputs) == evaluate(graph)


@given(graphs(), targets, limits)
def test_the_target_and_the_limit_are_respected(
    graph: TaskGraph, target: float, limit: int
) -> None:
    for one in bundled(graph, target, limit):
        assert len(one.tasks) <= limit
        assert len(one.tasks) == 1 or len(one.tasks) < target + 1  # up to half a task either way


@given(graphs(), targets)
def test_lanes_and_device_kinds_are_never_mixed(graph: TaskGraph, target: float) -> None:
    for one in bundled(graph, target):
        lanes = {(task.codelet.opaque, task.kinds(), task.tag) for task in one.tasks}
        assert len(lanes) == 1
        assert one.kinds() == one.tasks[0].kinds()


@given(graphs(), targets)
def test_a_bundle_waits_for_no_more_than_its_first_task(graph: TaskGraph, target: float) -> None:
    bundles = bundled(graph, target)
    home = {task.key: one.key for one in bundles for task in one.tasks}
    for one in bundles:
        awaited = {home[key] for key in one.inputs}
        assert awaited <= {home[key] for key in one.tasks[0].dependencies}


# --- it does group -----------------------------------------------------------------------


def work(*_: Any) -> None: ...


PLAIN = Codelet("plain", work)
OPAQUE = Codelet("opaque", work, opaque=True)


def task(key: str, *inputs: str, codelet: Codelet = PLAIN, **options: Any) -> Task:
    return Task.of(codelet, *map(Ref, inputs), key=key, **options)


def test_a_chain_is_one_bundle_up_to_the_target() -> None:
    chain = [task("0"), *(task(str(i), str(i - 1)) for i in range(1, 6))]
    graph = TaskGraph(chain, ["5"])
    assert keys_of(bundled(graph)) == [["0", "1", "2", "3", "4", "5"]]
    assert keys_of(bundled(graph, 2.0)) == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert len(bundled(graph, 0.0)) == 6


@pytest.mark.parametrize(
    ("bundles", "lengths"),
    [(1, [16]), (2, [8, 8]), (3, [5, 6, 5]), (4, [4] * 4), (5, [3, 3, 4, 3, 3]), (16, [1] * 16)],
)
def test_siblings_are_shared_out_evenly(bundles: int, lengths: list[int]) -> None:
    graph = TaskGraph([task(f"{i:02}") for i in range(16)], [f"{i:02}" for i in range(16)])
    found = bundled(graph, 16 / bundles)
    assert [len(one.tasks) for one in found] == lengths


def test_uneven_siblings_are_shared_out_as_evenly_as_they_can_be() -> None:
    seconds = {"a": 64.0, "b": 64.0, "c": 64.0, "d": 8.0}
    graph = TaskGraph([task(key) for key in seconds], list(seconds))
    found = bundle(
        graph, seconds=lambda one: seconds[one.key], target_seconds=lambda work: work / 2
    )
    assert keys_of(found) == [["a"], ["b"], ["c", "d"]]


def test_tasks_nearly_as_long_as_the_target_stay_alone() -> None:
    graph = TaskGraph([task(f"{i}") for i in range(9)], [f"{i}" for i in range(9)])
    assert [len(one.tasks) for one in bundled(graph, 1.2)] == [1] * 9


def test_intermediate_values_do_not_leave_a_bundle() -> None:
    (only,) = bundled(TaskGraph([task("a"), task("b", "a"), task("c", "b")], ["c"]))
    assert (only.key, only.inputs, only.outputs) == ("c", (), ("c",))


def test_siblings_without_inputs_are_grouped() -> None:
    graph = TaskGraph([task(f"t{i}") for i in range(10)], [f"t{i}" for i in range(10)])
    assert [len(one.tasks) for one in bundled(graph, 4.0)] == [4, 4, 2]


def test_siblings_on_one_input_are_grouped() -> None:
    siblings = [task(f"t{i}", "far", codelet=PLAIN) for i in range(4)]
    graph = TaskGraph([task("far", codelet=OPAQUE), *siblings], [one.key for one in siblings])
    assert keys_of(bundled(graph)) == [["far"], ["t0", "t1", "t2", "t3"]]


def test_the_leaves_of_a_reduction_go_with_their_combine_step() -> None:
    leaves = [task(f"leaf{i}") for i in range(16)]
    combine, root = tree_reduce([leaf.key for leaf in leaves], PLAIN, fan_in=4)
    bundles = bundled(TaskGraph([*leaves, *combine], [root]), 5.0)
    whole = [one for one in bundles if len(one.tasks) == 5 and not one.inputs]
    assert len(whole) == 4, "four leaves and what combines them, four times"


def test_opaque_work_and_other_priorities_stay_apart() -> None:
    graph = TaskGraph(
        [task("a"), task("b", codelet=OPAQUE), task("c", codelet=OPAQUE, priority=1)],
        ["a", "b", "c"],
    )
    assert keys_of(bundled(graph)) == [["a"], ["b"], ["c"]]


def test_slow_tasks_are_alone_and_quick_ones_together() -> None:
    graph = TaskGraph([task(key) for key in "abcd"], list("abcd"))
    seconds = {"a": 0.1, "b": 9.0, "c": 0.1, "d": 0.1}
    bundles = bundle(graph, seconds=lambda one: seconds[one.key], target_seconds=lambda _: 1.0)
    assert keys_of(bundles) == [["a"], ["b"], ["c", "d"]]


@pytest.mark.parametrize(
    "options",
    [{"max_tasks": 0}, {"target_seconds": lambda _: -1.0}, {"target_seconds": lambda _: math.nan}],
)
def test_impossible_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        bundle(
            TaskGraph([task("a")], ["a"]),
            seconds=one_second,
            **{"target_seconds": lambda _: 1.0, **options},
        )


def test_work_on_either_side_of_what_all_wait_for_is_shared_out_by_itself() -> None:
    """A mean, then what is made of it: the short first phase must not be one bundle."""
    first = [task(f"a{i}") for i in range(4)]
    mean = task("mean", *(one.key for one in first))
    second = [task(f"b{i}", "mean") for i in range(8)]
    end = task("end", *(one.key for one in second))
    graph = TaskGraph([*first, mean, *second, end], ["end"])
    bundles = bundle(
        graph,
        seconds=lambda one: 0.0 if one.key in ("mean", "end") else 1.0,
        target_seconds=lambda work: work / 2,
    )
    work = [[key for key in keys if key not in ("mean", "end")] for keys in keys_of(bundles)]
    assert [len(keys) for keys in work if keys] == [2, 2, 4, 4]


def test_what_much_work_waits_for_is_sent_on_at_once() -> None:
    """Two short steps that all later ones need are not kept back by the first of these."""
    first = [task(f"a{i}") for i in range(4)]
    mean, spread = (task(name, *(one.key for one in first)) for name in ("mean", "spread"))
    second = [task(f"b{i}", "mean", "spread") for i in range(8)]
    graph = TaskGraph([*first, mean, spread, *second], [one.key for one in second])
    bundles = bundle(
        graph,
        seconds=lambda one: 0.0 if one.key in ("mean", "spread") else 1.0,
        target_seconds=lambda work: work / 4,
    )
    assert ["mean", "spread"] in keys_of(bundles)
    assert bundled(graph, target=100.0)[-1].tasks[0].key != "b0"  # all of it fits one call


def test_phases_that_fit_one_bundle_stay_together() -> None:
    first = [task(f"a{i}") for i in range(4)]
    mean = task("mean", *(one.key for one in first))
    second = [task(f"b{i}", "mean") for i in range(4)]
    graph = TaskGraph([*first, mean, *second, task("end", *(one.key for one in second))], ["end"])
    bundles = bundle(graph, seconds=one_second, target_seconds=lambda work: max(work / 2, 20.0))
    assert len({one.key for one in bundles}) < len(list(graph))
    assert any({"mean", "b0"} <= set(keys) for keys in keys_of(bundles))


def test_nothing_gives_no_bundles() -> None:
    assert bundled(TaskGraph([], [])) == ()
