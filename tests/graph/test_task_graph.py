"""TaskGraph: validation with errors that name the keys, order, immutability; and cull."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from evaluator import evaluate, graphs
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import CycleError, DuplicateKeyError, GraphError, MissingKeyError
from agentic_ray.graph import Codelet, Ref, Task, TaskGraph, cull


def add(*numbers: int) -> int:
    return sum(numbers)


ADD = Codelet("add", add)


def task(key: str, *inputs: str, codelet: Codelet = ADD) -> Task:
    return Task.of(codelet, 1, *map(Ref, inputs), key=key)


@given(graphs())
def test_tasks_come_after_what_they_need(graph: TaskGraph) -> None:
    seen: set[str] = set()
    for one in graph:
        assert seen.issuperset(one.dependencies)
        seen.add(one.key)
    assert len(seen) == len(graph)


def test_the_tasks_of_a_chain_stay_together() -> None:
    graph = TaskGraph(
        [task("a1"), task("b1"), task("a2", "a1"), task("b2", "b1"), task("end", "a2", "b2")],
        ["end"],
    )
    keys = [one.key for one in graph]
    assert keys.index("b2") == keys.index("b1") + 1
    assert keys[-1] == "end"


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        ({"a": ["a"]}, ["a"]),
        ({"a": ["b"], "b": ["a"]}, ["a", "b"]),
        ({"x": [], "a": ["x", "b"], "b": ["c"], "c": ["a"]}, ["a", "b", "c"]),
    ],
)
def test_a_cycle_is_named_in_order(edges: dict[str, list[str]], circle: list[str]) -> None:
    with pytest.raises(CycleError) as caught:
        TaskGraph([task(key, *inputs) for key, inputs in edges.items()], [])
    assert list(caught.value.keys) == circle
    assert " -> ".join([*circle, circle[0]]) in str(caught.value)


def test_missing_keys_are_named() -> None:
    with pytest.raises(MissingKeyError) as caught:
        TaskGraph([task("a", "x", "y"), task("b", "x")], ["a", "z"])
    assert set(caught.value.keys) == {"x", "y", "z"}
    assert len(caught.value.keys) == 3
    assert all(f"'{key}'" in str(caught.value) for key in "xyz")
    assert isinstance(caught.value, LookupError)


def test_many_missing_keys_are_all_in_the_error_and_some_in_its_text() -> None:
    with pytest.raises(MissingKeyError, match="and 95 more") as caught:
        TaskGraph([], [f"k{i}" for i in range(100)])
    assert len(caught.value.keys) == 100


@pytest.mark.parametrize(
    "other",
    [
        Task.of(ADD, 2, key="a"),
        Task.of(ADD, x=1, key="a"),
        Task.of(Codelet("add", max), 1, key="a"),
        Task.of(ADD, 1, key="a", tag="cpu"),
    ],
)
def test_two_different_tasks_with_one_key_are_refused(other: Task) -> None:
    with pytest.raises(DuplicateKeyError) as caught:
        TaskGraph([task("a"), other], ["a"])
    assert caught.value.keys == ("a",)
    assert isinstance(caught.value, GraphError)
    assert isinstance(caught.value, ValueError)


def test_the_same_work_twice_is_one_task() -> None:
    data = np.zeros(3)
    twins = [Task.of(ADD, data), Task.of(ADD, data.copy()), task("a"), task("a")]
    assert len(TaskGraph(twins, ["a"])) == 2


def test_a_graph_cannot_be_changed() -> None:
    graph = TaskGraph([task("a")], ["a"])
    with pytest.raises(AttributeError, match="immutable"):
        graph.outputs = ()
    with pytest.raises(AttributeError):
        graph.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        hash(graph)


def test_looking_things_up() -> None:
    graph = TaskGraph([task("a"), task("b", "a")], ["b"])
    assert graph["a"].key == "a"
    assert "b" in graph
    assert "c" not in graph
    with pytest.raises(MissingKeyError, match="'c'"):
        graph["c"]


def test_an_empty_graph() -> None:
    graph = TaskGraph([], [])
    assert (len(graph), graph.outputs) == (0, ())


@given(graphs())
def test_a_graph_survives_pickling(graph: TaskGraph) -> None:
    again = pickle.loads(pickle.dumps(graph))
    assert again == graph
    assert evaluate(again) == evaluate(graph)


def test_a_very_deep_graph_needs_no_recursion() -> None:
    depth = 100_000
    chain = [Task.of(ADD, key="0")]
    chain += [Task.of(ADD, 1, Ref(str(i - 1)), key=str(i)) for i in range(1, depth)]
    graph = TaskGraph(reversed(chain), [str(depth - 1)])
    assert [one.key for one in graph] == [one.key for one in chain]
    assert evaluate(pickle.loads(pickle.dumps(graph))) == [depth - 1]
    assert len(cull(graph, ["500"])) == 501


@given(graphs(), st.data())
def test_cull_keeps_what_is_needed_and_nothing_else(graph: TaskGraph, data: Any) -> None:
    keys = [one.key for one in graph]
    wanted = data.draw(st.lists(st.sampled_from(keys), min_size=1, unique=True))
    culled = cull(graph, wanted)
    assert culled.outputs == tuple(wanted)
    assert evaluate(culled) == evaluate(TaskGraph(graph, wanted))
    used = {key for one in culled for key in one.dependencies}
    assert {one.key for one in culled} == used | set(wanted)


def test_cull_without_outputs_keeps_those_of_the_graph() -> None:
    graph = TaskGraph([task("a"), task("b"), task("c", "a")], ["c"])
    assert [one.key for one in cull(graph)] == ["a", "c"]
    with pytest.raises(MissingKeyError, match="'z'"):
        cull(graph, ["z"])
