"""What a persisted array was computed from is kept, as long as that costs little."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, lineage
from agentic_ray.array.core.lineage import Kept, kept, origin_of
from agentic_ray.array.core.node import Node
from agentic_ray.errors import LostDataError

BLOCK: Any = object()  # stands for a value in an object store


def leaf(root: Node) -> Node:
    """``root`` as if it had been persisted; nothing of it can be read."""
    node = evaluate._leaf(root, kept(root, [BLOCK]))
    assert node.op is lineage.STORED
    return node


def big(seed: int = 0, size: int = 150_000) -> Any:
    return np.random.default_rng(seed).random(size)


def test_the_origin_has_the_value_of_the_array() -> None:
    data = big()
    x = xp.asarray(data)
    root = (xp.sin(x) * 2 + 1)._node
    assert np.array_equal(evaluate.value(origin_of(leaf(root))), np.sin(data) * 2 + 1)


def test_persisted_arrays_of_persisted_arrays_have_one_origin() -> None:
    data = big()
    x = xp.asarray(data)
    node, expected = x._node, data
    for step in range(5):
        node = leaf((xp.Array(node) * 0.5 + step)._node)
        expected = expected * 0.5 + step
    origin = origin_of(node)
    assert np.array_equal(evaluate.value(origin), expected)
    held: Kept = node.params[0]
    assert held.steps >= 5


def test_an_array_of_the_callers_is_not_kept_alive() -> None:
    x = xp.asarray(big())
    node = leaf((x + 1)._node)
    assert np.array_equal(evaluate.value(origin_of(node)), np.asarray(x) + 1)
    del x
    gc.collect()
    with pytest.raises(LostDataError, match="caller's memory"):
        origin_of(node)


def test_a_small_one_is() -> None:
    node = leaf((xp.asarray(np.arange(1000.0)) + 1)._node)
    gc.collect()
    assert np.array_equal(evaluate.value(origin_of(node)), np.arange(1000.0) + 1)


def test_random_numbers_come_again() -> None:
    root = xp.random.default_rng(7).random((300_000,))._node
    assert np.array_equal(evaluate.value(origin_of(leaf(root))), evaluate.value(root))


def test_a_long_past_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST_NODES", 30)
    node = xp.asarray(np.arange(1000.0))._node
    for _ in range(20):
        node = leaf((xp.Array(node) * 2 + 1)._node)
    with pytest.raises(LostDataError, match="not kept"):
        origin_of(node)


def test_many_values_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST_BYTES", 10_000)
    root = (xp.asarray(np.arange(2000.0)) + 1)._node
    with pytest.raises(LostDataError, match="not kept"):
        origin_of(leaf(root))


def test_blocks_of_unknown_origin() -> None:
    like = xp.asarray(np.arange(1000.0))._node
    with pytest.raises(LostDataError, match="not kept"):
        origin_of(evaluate.stored(like, [BLOCK]))
    with pytest.raises(LostDataError, match="not kept"):
        origin_of(leaf((xp.Array(evaluate.stored(like, [BLOCK])) + 1)._node))
