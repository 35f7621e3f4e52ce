"""`fold`: states per leaf, combined in a fixed tree."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SerializationError
from agentic_ray.graph import fold as in_tree
from agentic_ray.mapreduce.folding import FoldLeaf, pickled_state, position_of
from agentic_ray.mapreduce.leaves import GroupLeaves, IteratorGroups, fold_leaves

pytestmark = pytest.mark.usefixtures("ray_session")


def append(state: list[Any], element: Any) -> list[Any]:
    state.append(element)
    return state


def joined(left: list[Any], right: list[Any]) -> list[Any]:
    return left + right


def count(words: Counter[str], line: str) -> Counter[str]:
    words.update(line.split())
    return words


@pytest.mark.parametrize("size", ["auto", 1, 7, 1000])
def test_elements_are_taken_once_and_in_order(size: int | str) -> None:
    assert ar.fold(list(range(100)), append, joined, [], leaf_size=size) == list(range(100))
    assert ar.fold(iter(range(100)), append, joined, [], leaf_size=size) == list(range(100))
    assert ar.fold(range(100), append, joined, [], leaf_size=size) == list(range(100))


@pytest.mark.parametrize("empty", [[], range(0), iter(()), np.empty(0)])
def test_nothing_gives_the_initial_state(empty: Any) -> None:
    initial: list[Any] = []
    found = ar.fold(empty, append, joined, initial)
    assert found == []
    assert found is not initial


def test_a_step_that_changes_its_state_harms_neither_initial_nor_other_leaves() -> None:
    initial: Counter[str] = Counter()
    lines = ["a b", "b c"] * 300
    assert ar.fold(lines, count, lambda a, b: a + b, initial, leaf_size=10) == Counter(
        " ".join(lines).split()
    )
    assert initial == Counter()


def test_files_are_folded_part_by_part(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("to be or\nnot to be\n" * 1000)
    source = ar.sources.text_lines(file, part_bytes=1000)
    assert ar.fold(source, count, lambda a, b: a + b, Counter())["to"] == 2000
    assert ar.fold(file, lambda n, line: n + 1, lambda a, b: a + b, 0) == 2000
    (tmp_path / "empty.txt").touch()
    assert ar.fold(tmp_path / "empty.txt", append, joined, []) == []


def test_the_elements_of_a_table_file_are_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("x\n" + "\n".join(map(str, range(5000))) + "\n")
    source = ar.sources.csv(file, part_bytes=2000)
    total = ar.fold(source, lambda s, table: s + sum(table["x"].to_pylist()), int.__add__, 0)
    assert total == sum(range(5000))


def test_the_failing_element_is_named() -> None:
    def step(state: int, element: int) -> int:
        if element == 37:
            raise ZeroDivisionError("37")
        return state + element

    with pytest.raises(ZeroDivisionError) as caught:
        ar.fold(list(range(100)), step, lambda a, b: a + b, 0, leaf_size=8)
    assert caught.value.element_index == 37  # type: ignore[attr-defined]


def test_a_leaf_that_is_tried_again_begins_anew(tmp_path: Path) -> None:
    mark = tmp_path / "failed"

    def step(state: list[int], element: int) -> list[int]:
        if element == 5 and not mark.exists():
            mark.touch()
            raise ConnectionError("once")
        return append(state, element)

    found = ar.fold(list(range(10)), step, joined, [], leaf_size=10, retry_on=ConnectionError)
    assert found == list(range(10))


def test_arguments_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="step"):
        ar.fold([1], 3, max, 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="leaf_size"):
        ar.fold([1], max, max, 0, leaf_size=0)
    with pytest.raises(InvalidTypeError, match="leaf_size"):
        ar.fold([1], max, max, 0, leaf_size=1.5)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="initial"):
        ar.fold([1], max, max, (x for x in ()))
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(InvalidArgumentError, match="part_bytes"):
        ar.fold(tmp_path / "a.txt", append, joined, [], leaf_size=3)
    with pytest.raises(InvalidTypeError, match="str"):
        ar.fold("abc", append, joined, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(), min_size=1, max_size=300), st.integers(1, 40))
def test_leaves_do_not_depend_on_how_they_are_cut(values: list[int], size: int) -> None:
    kernel = FoldLeaf(append, pickled_state([]), size, False)
    wanted = [values[at : at + size] for at in range(0, len(values), size)]
    for leaves in (GroupLeaves(values, size), IteratorGroups(values, size)):
        cut = leaves.cut(0, -(-len(values) // size))
        assert cut is not None
        ((packed, start, stop, step),) = cut.pieces
        data = packed.load()
        assert [kernel(data[at : at + step]) for at in range(start, stop, step)] == wanted
    assert in_tree(joined, map(kernel, wanted)) == values
    assert functools.reduce(joined, wanted) == values


def test_automatic_leaves_depend_on_the_length_alone() -> None:
    assert fold_leaves(range(10), None).count == 10
    found = fold_leaves(range(1_000_000), None).count
    assert found is not None
    assert 32 <= found <= 64


def test_positions_in_files_are_not_known() -> None:
    error = ValueError()
    assert position_of(error, 3, 10) == 3
    error._agentic_ray_position = 4  # type: ignore[attr-defined]
    assert position_of(error, 3, 10) == 34
    assert position_of(error, 3, 0) is None
