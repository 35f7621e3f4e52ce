"""Reductions: one tree for n leaves, whatever the fan-in and the chunks. Bit for bit."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from evaluator import evaluate, evaluate_bundles
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import EmptyInputError, InvalidArgumentError
from agentic_ray.graph import (
    Codelet,
    Ref,
    Task,
    TaskGraph,
    aligned_spans,
    bundle,
    fold,
    span_shape,
    tree_reduce,
)

SIZES = st.integers(1, 200)
FAN_INS = st.sampled_from([2, 3, 4, 5, 8, 16, 100])
CHUNKS = st.sampled_from([1, 2, 3, 4, 7, 8, 64, 1000])


def record(left: Any, right: Any) -> Any:
    """Neither commutative nor associative: its result is the tree itself."""
    return (left, right)


def add(left: Any, right: Any) -> Any:
    return left + right


def tree_of(leaves: Sequence[Any]) -> Any:
    """The definition: split at the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << ((len(leaves) - 1).bit_length() - 1)
    return (tree_of(leaves[:middle]), tree_of(leaves[middle:]))


def folded_leaves(values: Sequence[Any], combine: Callable[..., Any]) -> Task:
    return Task.of(Codelet("chunk", functools.partial(fold, combine)), list(values))


def reduced(
    values: Sequence[Any], combine: Callable[..., Any], fan_in: int, chunk: int
) -> tuple[TaskGraph, int]:
    """The graph that reduces ``values`` by chunks, and how many tasks combine."""
    spans = aligned_spans(0, len(values), chunk)
    leaves = [folded_leaves(values[start:stop], combine) for start, stop in spans]
    tasks, root = tree_reduce(
        [leaf.key for leaf in leaves], Codelet("combine", combine), fan_in=fan_in, spans=spans
    )
    return TaskGraph([*leaves, *tasks], [root]), len(tasks)


@given(SIZES, FAN_INS, CHUNKS)
def test_the_tree_is_the_same_for_every_fan_in_and_chunk(n: int, fan_in: int, chunk: int) -> None:
    graph, _ = reduced(range(n), record, fan_in, chunk)
    assert evaluate(graph) == [tree_of(range(n))]


@given(SIZES)
def test_fold_is_that_tree(n: int) -> None:
    assert fold(record, range(n)) == tree_of(range(n))


@pytest.mark.parametrize("n", [4095, 4096, 4097, 8192, 12288, 12289, 20000])
def test_fold_is_that_tree_across_its_blocks(n: int) -> None:
    assert fold(record, iter(range(n))) == tree_of(range(n))


@given(st.lists(st.floats(), min_size=1, max_size=100), FAN_INS, CHUNKS, st.floats(0, 9))
def test_float_sums_are_equal_to_the_bit(
    values: list[float], fan_in: int, chunk: int, target: float
) -> None:
    graph, _ = reduced(values, add, fan_in, chunk)
    bundles = bundle(graph, seconds=lambda _: 1.0, target_seconds=lambda _: target)
    (by_bundles,) = evaluate_bundles(bundles, graph.outputs)
    assert struct.pack("<d", by_bundles) == struct.pack("<d", fold(add, values))


@given(st.text(min_size=1), FAN_INS, CHUNKS)
def test_the_order_is_kept(text: str, fan_in: int, chunk: int) -> None:
    graph, _ = reduced(text, add, fan_in, chunk)
    assert evaluate(graph) == [text]


def test_the_fan_in_decides_how_many_tasks_there_are() -> None:
    counts = [reduced(range(256), record, fan_in, 1)[1] for fan_in in (2, 4, 16, 256)]
    assert counts == [255, 85, 17, 1]


@given(SIZES, FAN_INS)
def test_no_task_takes_more_than_the_fan_in(n: int, fan_in: int) -> None:
    tasks, _ = tree_reduce([f"k{i}" for i in range(n)], Codelet("c", record), fan_in=fan_in)
    assert all(2 <= len(task.dependencies) <= fan_in for task in tasks)


def test_one_value_needs_no_task() -> None:
    assert tree_reduce(["only"], Codelet("c", add)) == ([], "only")
    assert fold(add, [7]) == 7


def test_equal_values_are_combined_once() -> None:
    graph, combines = reduced([1, 1, 1, 1], record, 2, 1)
    assert evaluate(graph) == [((1, 1), (1, 1))]
    assert (len(graph), combines) == (3, 2)


def test_an_empty_input_is_an_error_of_its_own() -> None:
    for call in (
        lambda: fold(add, []),
        lambda: tree_reduce([], Codelet("c", add)),
        lambda: span_shape([]),
    ):
        with pytest.raises(EmptyInputError, match="empty input") as caught:
            call()
        assert isinstance(caught.value, TypeError), "as functools.reduce raises"
        assert isinstance(caught.value, ValueError)


def test_the_combine_function_gets_the_namespace_it_asks_for() -> None:
    def combine(left: Any, right: Any, *, xp: Any) -> Any:
        return xp(left, right)

    tasks, _ = tree_reduce(["a", "b", "c"], Codelet("c", combine), fan_in=4)
    (task,) = tasks
    assert task.codelet.cpu is not None
    shape, references = task.args
    assert references == [Ref("a"), Ref("b"), Ref("c")]
    assert task.codelet.cpu(shape, [1, 2, 3], xp=record) == ((1, 2), 3)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100))
def test_aligned_spans_tile_and_are_aligned(start: int, length: int, size: int) -> None:
    stop = start + length
    spans = aligned_spans(start, stop, size)
    assert [leaf for span in spans for leaf in range(*span)] == list(range(start, stop))
    for low, high in spans:
        assert 0 < high - low <= size
        if high != stop:
            width = high - low
            assert width & (width - 1) == 0
            assert low % width == 0


@given(SIZES, CHUNKS)
def test_spans_of_one_size_are_few(n: int, chunk: int) -> None:
    power = 1 << (chunk.bit_length() - 1)
    assert len(aligned_spans(0, n, chunk)) == -(-n // power)


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 2), (3, 4)],
        [(0, 2), (1, 4)],
        [(1, 2), (2, 4)],
        [(0, 2), (2, 2), (2, 4)],
        [(0, 3), (3, 4)],
        [(0, 1), (1, 3), (3, 4)],
    ],
    ids=["gap", "overlap", "late start", "empty", "not a power", "not aligned"],
)
def test_spans_that_are_no_subtrees_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidArgumentError, match="do not tile"):
        span_shape(spans)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="fan_in"):
        tree_reduce(["a", "b"], Codelet("c", add), fan_in=1)
    with pytest.raises(InvalidArgumentError, match="2 keys but 1 spans"):
        tree_reduce(["a", "b"], Codelet("c", add), spans=[(0, 2)])
    with pytest.raises(InvalidArgumentError, match="at least one leaf"):
        aligned_spans(0, 4, 0)
