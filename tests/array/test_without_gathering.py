"""Taking, searching and uniqueness over many chunks, none of which has to see all the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EVERYTHING, arrays, same

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import exchange, gathering, searching, uniqueness
from agentic_ray.array.core import evaluate


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "DIRECT_BLOCKS", 3)
    monkeypatch.setattr(exchange, "WIDTH", 3)
    monkeypatch.setattr(searching, "TABLE_BYTES", 800)
    monkeypatch.setattr(uniqueness, "TABLE_ELEMENTS", 100)


def test_take_picks_before_it_puts_together() -> None:
    rng = np.random.default_rng(0)
    array = rng.random((600, 5))
    at = rng.integers(-600, 600, 250)
    x = xp.asarray(array, chunks=(40, 3))
    np.testing.assert_array_equal(np.asarray(xp.take(x, xp.asarray(at), axis=0)), array[at])
    np.testing.assert_array_equal(np.asarray(x[xp.asarray(at)]), array[at])
    rows, columns = rng.integers(0, 600, 90), rng.integers(0, 5, 90)
    found = x[xp.asarray(rows), xp.asarray(columns)]
    np.testing.assert_array_equal(np.asarray(found), array[rows, columns])
    tasks, _ = evaluate.plan([xp.take(x, xp.asarray(at), axis=0)._node])
    assert any(".stage" in task.codelet.name for task in tasks)
    assert max(len(task.dependencies) for task in tasks) <= 3


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_looks_at_the_table_piece_by_piece(side: str) -> None:
    rng = np.random.default_rng(1)
    table = np.sort(rng.integers(0, 300, 1000)).astype(np.float64)
    table[-3:] = np.nan
    values = rng.integers(-5, 305, (40, 20)).astype(np.float64)
    values[3, 4] = np.nan
    found = xp.searchsorted(
        xp.asarray(table, chunks=60), xp.asarray(values, chunks=(17, 20)), side=side
    )
    np.testing.assert_array_equal(np.asarray(found), np.searchsorted(table, values, side=side))


@pytest.mark.parametrize("dtype", ["float64", "int16", "complex128"])
@pytest.mark.parametrize("distinct", [5, 10_000])
def test_unique_by_tables_and_by_sorting(dtype: str, distinct: int) -> None:
    rng = np.random.default_rng(2)
    array: Any = rng.integers(-distinct, distinct, 2000).astype(dtype)
    if dtype == "float64":
        array[[3, 700, 1500]] = np.nan
        array[[5, 900]] = [0.0, -0.0]
    x = xp.asarray(array.reshape(40, 50), chunks=(7, 50))
    values, first, inverse, counts = xp.unique_all(x)
    wanted = np.unique(array, return_index=True, return_counts=True, equal_nan=False)
    np.testing.assert_array_equal(np.asarray(values), wanted[0])
    np.testing.assert_array_equal(np.asarray(first), wanted[1])
    np.testing.assert_array_equal(np.asarray(counts), wanted[2])
    assert values.shape == first.shape == counts.shape == wanted[0].shape
    assert inverse.shape == x.shape
    np.testing.assert_array_equal(np.asarray(values)[np.asarray(inverse)], array.reshape(40, 50))


@settings(max_examples=100)
@given(arrays(EVERYTHING, small=True), arrays(EVERYTHING, small=True), st.booleans())
def test_isin_as_in_numpy(one: Any, other: Any, invert: bool) -> None:
    (x, a), (y, b) = (_with_nan(*pair) for pair in (one, other))
    with xp.config(chunk_elements=2):
        same(xp.isin(x, y, invert=invert), np.isin(a, b, invert=invert))
    for scalar in (2, 2.5, True, 300, -1, 1j, float("nan")):
        same(xp.isin(x, scalar, invert=invert), np.isin(a, scalar, invert=invert))
        same(xp.isin(scalar, y, invert=invert), np.isin(scalar, b, invert=invert))


def _with_nan(x: xp.Array, a: Any) -> tuple[xp.Array, Any]:
    """Threes become NaN."""
    if a.dtype.kind not in "fc":
        return x, a
    nan = a.dtype.type(np.nan)
    return xp.where(x == 3, xp.asarray(nan), x), np.where(a == 3, nan, a)


def test_a_float_is_looked_for_in_the_type_of_an_array_of_floats() -> None:
    x = xp.asarray(np.asarray([0.1, 0.2], np.float32))
    same(xp.isin(0.1, x), True)
    same(xp.isin(x, 0.1), [True, False])


def test_isin_sees_one_chunk_of_each_at_a_time() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 3000, (60, 40)), rng.integers(0, 3000, 900)
    x, y = xp.asarray(a, chunks=(17, 40)), xp.asarray(b, chunks=50)
    with xp.config(chunk_elements=50):
        found = xp.isin(x, y)
    assert found.chunks == x.chunks
    tasks, _ = evaluate.plan([found._node])
    pairs = [task for task in tasks if task.codelet.name == "array.isin"]
    assert len(pairs) == 4 * 18
    for task in pairs:
        assert sum(block.nbytes for block in task.args) <= 17 * 40 * 8 + 50 * 8
    # Others read what pairs found, a boolean for each element.
    assert max(len(task.dependencies) for task in tasks) <= 16
    np.testing.assert_array_equal(np.asarray(found), np.isin(a, b))


def test_through_the_cluster(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    array = np.random.default_rng(3).integers(0, 5000, 20_000)
    found, counts = xp.unique_counts(xp.asarray(array, chunks=6_000))
    wanted = np.unique_counts(array)
    with xp.config(chunk_elements=500):
        inside = xp.isin(xp.asarray(array, chunks=6_000), xp.asarray(array[::9]))
    np.testing.assert_array_equal(np.asarray(inside), np.isin(array, array[::9]))
    np.testing.assert_array_equal(np.asarray(found), wanted.values)
    np.testing.assert_array_equal(np.asarray(counts), wanted.counts)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_take_in_any_order_and_number(data: Any) -> None:
    rows = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    columns = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    array = np.arange(sum(rows) * sum(columns)).reshape(sum(rows), sum(columns))
    x = xp.asarray(array, chunks=(tuple(rows), tuple(columns)))
    at = data.draw(st.lists(st.integers(-sum(rows), sum(rows) - 1), max_size=60))
    across = data.draw(st.lists(st.integers(0, sum(columns) - 1), min_size=len(at),
                                max_size=len(at)))  # fmt: skip
    first, second = np.asarray(at, np.intp), np.asarray(across, np.intp)
    with pytest.MonkeyPatch.context() as patch, xp.config(chunk_elements=9):
        patch.setattr(gathering, "DIRECT_BLOCKS", 2)
        patch.setattr(exchange, "WIDTH", 2)
        np.testing.assert_array_equal(np.asarray(xp.take(x, first, axis=0)), array[first])
        np.testing.assert_array_equal(np.asarray(xp.take(x, second, axis=1)), array[:, second])
        np.testing.assert_array_equal(np.asarray(x[first, second]), array[first, second])
