"""Taking, searching and uniqueness over many chunks, none of which has to see all the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import indexing, searching, sets
from agentic_ray.array.core import evaluate


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "DIRECT_BLOCKS", 3)
    monkeypatch.setattr(searching, "TABLE_BYTES", 800)
    monkeypatch.setattr(sets, "TABLE_ELEMENTS", 100)


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
    widest = max(len(t.dependencies) for t in tasks if ".pick" in t.codelet.name)
    assert widest <= 1


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


def test_through_the_cluster(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    array = np.random.default_rng(3).integers(0, 5000, 20_000)
    found, counts = xp.unique_counts(xp.asarray(array, chunks=6_000))
    wanted = np.unique_counts(array)
    np.testing.assert_array_equal(np.asarray(found), wanted.values)
    np.testing.assert_array_equal(np.asarray(counts), wanted.counts)
