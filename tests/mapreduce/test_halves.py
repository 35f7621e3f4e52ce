"""A chunk cut in halves, again and again, has the bits of the whole. Needs no Ray."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.graph import Codelet, CostHint, Task
from agentic_ray.graph.task import Bundle, Ref, replace_refs
from agentic_ray.mapreduce.kernels import chunk_codelet
from agentic_ray.schedule.pressure import halves


def run(bundle: Bundle, values: dict[str, Any]) -> None:
    for task in bundle.tasks:
        args = replace_refs(task.args, values.__getitem__)
        values[task.key] = task.codelet.cpu(*args)  # type: ignore[misc]


def value_of(bundle: Bundle, values: dict[str, Any]) -> int:
    """Run a bundle in pieces as small as there are; gives how many these were."""
    parts = halves(bundle)
    if parts is None:
        run(bundle, values)
        return 1
    return sum(value_of(part, values) for part in parts)


def chunk(codelet: Codelet, pieces: list[Any], items: int) -> Bundle:
    task = Task.of(codelet, 3, 40, pieces, key="c", cost=CostHint(items=items, read_bytes=800))
    return Bundle("c", (task,), (), ("c",))


def scaled(x: float) -> float:
    return x * 0.1


@ar.codelet
def block_sum(block: Any) -> float:
    return float(np.sum(block * 0.1))


PIECES = [[0.1 * i for i in range(37)], np.arange(100.0)]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 37])
@pytest.mark.parametrize("reduce_fn", [operator.add, operator.sub, None])
def test_elements(count: int, reduce_fn: Any) -> None:
    pieces = [(PIECES[0], 0, min(count, 5), None), (PIECES[0], 5, max(count, 5), None)]
    whole = chunk(chunk_codelet(scaled, reduce_fn), pieces, max(count, 5))
    values: dict[str, Any] = {}
    run(whole, values)
    pieces_made = value_of(whole, found := {})
    assert found["c"] == values["c"]
    leaves = min(count, 5) + max(count, 5) - 5
    assert pieces_made == (1 if leaves == 1 else 2 * leaves - 1)


def test_blocks_of_an_array() -> None:
    whole = chunk(chunk_codelet(block_sum, operator.add), [(PIECES[1], 0, 100, 7)], 15)
    values: dict[str, Any] = {}
    run(whole, values)
    assert value_of(whole, found := {}) == 29
    assert found["c"].hex() == values["c"].hex()


def test_items_and_bytes_are_shared_out_and_places_kept() -> None:
    codelet = chunk_codelet(scaled, operator.add)
    parts = halves(chunk(codelet, [(PIECES[0], 0, 37, None)], 37))
    assert parts is not None
    first, second = parts
    assert (first.items, second.items) == (32, 5)
    left, right = first.tasks[0], second.tasks[0]
    assert (left.args[:2], right.args[:2]) == ((3, 40), (3, 72))
    assert left.cost.read_bytes + right.cost.read_bytes == 800
    assert second.inputs == first.outputs == (left.key,)
    assert second.tasks[1].args == (Ref(left.key), Ref(right.key))
    assert second.opaque, "what combines runs where the functions do"


def test_one_leaf_is_as_small_as_it_gets() -> None:
    assert halves(chunk(chunk_codelet(scaled, operator.add), [(PIECES[0], 3, 4, None)], 1)) is None
