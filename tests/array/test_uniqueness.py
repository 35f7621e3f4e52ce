"""Unique values and sets over chunks are NumPy's, NaN and zeros of both signs included."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import agentic_ray.array as xp
from agentic_ray.array import searching, uniqueness

NAN = np.nan
ELEMENTS = {
    "float64": [0.0, -0.0, 1.0, 2.0, NAN, np.inf],
    "float32": [0.0, -0.0, 1.0, NAN, -np.inf],
    "complex128": [0j, complex(-0.0, 0.0), 1j, complex(NAN, 1), complex(NAN, 2), complex(1, NAN),
                   complex(0, NAN), complex(NAN, NAN), 1 + 0j],
    "int64": [3, -1, 2**60, 0],
    "uint8": [0, 255, 7],
    "bool": [False, True],
}  # fmt: skip


@st.composite
def pieces(draw: Any, ndim: int = 1, dtype: str | None = None) -> tuple[Any, Any]:
    """An array and how it is cut."""
    dtype = dtype or draw(st.sampled_from(sorted(ELEMENTS)))
    chunks = tuple(tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
                   for _ in range(ndim))  # fmt: skip
    shape = tuple(sum(lengths) for lengths in chunks)
    return draw(hnp.arrays(dtype, shape, elements=st.sampled_from(ELEMENTS[dtype]))), chunks


def equal(found: Any, wanted: Any) -> None:
    found = np.asarray(found)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)


def alike(found: Any, wanted: Any) -> None:
    """The same bits, but for what NaNs look like."""
    equal(found, wanted)
    found = np.asarray(found)
    for part in ("real", "imag") if wanted.dtype.kind == "c" else ("real",):
        one, other = getattr(found, part), getattr(wanted, part)
        if one.dtype.kind == "f":
            at = ~np.isnan(other)
            np.testing.assert_array_equal(np.signbit(one)[at], np.signbit(other)[at])


@pytest.fixture(params=["tables", "sorting"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sorting":
        monkeypatch.setattr(uniqueness, "TABLE_ELEMENTS", 0)
    return str(request.param)


_SETTINGS = settings(max_examples=60, deadline=None)


def _check_flags(array: Any, chunks: Any, equal_nan: bool) -> None:
    x = xp.asarray(array, chunks=chunks)
    wanted = np.unique(array, True, True, True, equal_nan=equal_nan)
    found = xp.unique(x, True, True, True, equal_nan=equal_nan)
    alike(found[0], wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        equal(one, other)
    for flags in itertools.product([False, True], repeat=3):
        some = xp.unique(x, *flags, equal_nan=equal_nan)
        some = some if isinstance(some, tuple) else (some,)
        kept = [part for part, on in zip(wanted, (True, *flags), strict=True) if on]
        for one, other in zip(some, kept, strict=True):
            equal(one, other)


@pytest.mark.parametrize("ndim", [1, 2])
def test_unique_is_numpys(way: str, ndim: int) -> None:
    @_SETTINGS
    @given(pieces(ndim), st.booleans())
    def check(case: Any, equal_nan: bool) -> None:
        _check_flags(*case, equal_nan)

    check()


def test_unique_all_agrees_with_itself(way: str) -> None:
    @_SETTINGS
    @given(pieces(2))
    def check(case: Any) -> None:
        array, chunks = case
        x = xp.asarray(array, chunks=chunks)
        values, indices, inverse, counts = (np.asarray(part) for part in xp.unique_all(x))
        np.testing.assert_array_equal(values[inverse], array)
        np.testing.assert_array_equal(array.reshape(-1)[indices], values)
        np.testing.assert_array_equal(np.bincount(inverse.ravel(), minlength=len(values)), counts)
        nan = np.flatnonzero(values != values)
        np.testing.assert_array_equal(counts[nan], 1)
        wanted = np.unique(array, True, True, True, equal_nan=False)
        for one, other in zip((values, indices, inverse, counts), wanted, strict=True):
            equal(one, other)
        equal(xp.unique_inverse(x).inverse_indices, wanted[2])
        equal(xp.unique_counts(x).counts, wanted[3])
        equal(xp.unique_values(x), wanted[0])

    check()


@_SETTINGS
@given(pieces(2), st.integers(-2, 1))
def test_unique_rows_and_columns(case: Any, axis: int) -> None:
    array, chunks = case
    wanted = np.unique(array, True, True, True, axis=axis)
    found = xp.unique(xp.asarray(array, chunks=chunks), True, True, True, axis=axis)
    for one, other in zip(found, wanted, strict=True):
        equal(one, other)


def test_unique_of_three_axes_and_of_nothing() -> None:
    array = np.random.default_rng(0).integers(0, 2, (6, 2, 2))
    for axis in (0, 1, 2):
        wanted = np.unique(array, True, True, True, axis=axis)
        found = xp.unique(xp.asarray(array, chunks=(2, 1, 2)), True, True, True, axis=axis)
        for one, other in zip(found, wanted, strict=True):
            equal(one, other)
    for empty in (np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0))):
        equal(xp.unique(empty), np.unique(empty))
        equal(xp.unique(empty, axis=0), np.unique(empty, axis=0))
    with pytest.raises(np.exceptions.AxisError):
        xp.unique(array, axis=3)
    for found, other in zip(xp.unique(5, True, True), np.unique(5, True, True), strict=True):
        equal(found, other)
    equal(xp.unique([3, 1, 3]), np.array([1, 3]))


@_SETTINGS
@given(pieces(), pieces(), st.booleans())
def test_sets_are_numpys(one: Any, other: Any, unique_first: bool) -> None:
    (a, chunks_a), (b, chunks_b) = one, other
    if unique_first:
        a, b = np.unique(a), np.unique(b)
        chunks_a = chunks_b = 3
    x, y = xp.asarray(a, chunks=chunks_a), xp.asarray(b, chunks=chunks_b)
    for name in ("union1d", "intersect1d", "setdiff1d", "setxor1d"):
        equal(getattr(xp, name)(x, y), getattr(np, name)(a, b))
        equal(getattr(xp, name)(a.tolist(), y.tolist() if hasattr(y, "tolist") else b.tolist()),
              getattr(np, name)(a.tolist(), b.tolist()))  # fmt: skip
        if name != "union1d":
            found = getattr(xp, name)(x, y, assume_unique=unique_first)
            equal(found, getattr(np, name)(a, b, assume_unique=unique_first))
    found = xp.intersect1d(x, y, return_indices=True)
    for part, wanted in zip(found, np.intersect1d(a, b, return_indices=True), strict=True):
        equal(part, wanted)


@_SETTINGS
@given(pieces(2), pieces(), st.booleans())
def test_isin_by_pairs_and_by_sorting(one: Any, other: Any, invert: bool) -> None:
    (a, chunks_a), (b, chunks_b) = one, other
    x, y = xp.asarray(a, chunks=chunks_a), xp.asarray(b, chunks=chunks_b)
    wanted = np.isin(a, b, invert=invert)
    for paired in (32, -1):
        with pytest.MonkeyPatch.context() as patch, xp.config(chunk_elements=2):
            patch.setattr(searching, "PAIRED", paired)
            equal(xp.isin(x, y, invert=invert), wanted)
            equal(xp.isin(x, y, assume_unique=True, invert=invert, kind="sort"), wanted)
    equal(xp.isin(a.tolist(), b.tolist()), np.isin(a.tolist(), b.tolist()))


def test_isin_refuses_what_numpy_refuses() -> None:
    with pytest.raises(ValueError, match="Invalid kind"):
        xp.isin([1], [1], kind="hash")
    with pytest.raises(ValueError, match="only supported for boolean or integer"):
        xp.isin([1.5], [1], kind="table")


@_SETTINGS
@given(pieces(dtype="float64"), pieces(2, dtype="float64"), st.sampled_from(["left", "right"]))
def test_searchsorted_by_pairs_and_by_sorting(one: Any, other: Any, side: Any) -> None:
    (table, chunks), (values, value_chunks) = one, other
    wanted = np.searchsorted(np.sort(table), values, side)
    order = np.argsort(table)
    for paired in (32, -1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "PAIRED", paired)
            x = xp.asarray(np.sort(table), chunks=chunks)
            y = xp.asarray(values, chunks=value_chunks)
            equal(xp.searchsorted(x, y, side), wanted)
            equal(xp.searchsorted(xp.asarray(table, chunks=chunks), y, side, order), wanted)
    equal(xp.searchsorted([1, 2, 3], 2.5), np.int64(2))
    with pytest.raises(ValueError, match=r"sorter\.size"):
        xp.searchsorted([1, 2], 1, sorter=[0])
    with pytest.raises(TypeError, match="only contain integers"):
        xp.searchsorted([1, 2], 1, sorter=[0.0, 1.0])


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("bins", [[0, 1, 2.5, 10], [10, 2.5, 1, 0], [1, 1], [3], []])
def test_digitize(bins: Any, right: bool) -> None:
    x = np.array([[0.2, 6.4, 3.0], [1.6, 10, -1], [2.5, 1, 0]])
    wanted = np.digitize(x, bins, right)
    equal(xp.digitize(xp.asarray(x, chunks=(2, 1)), bins, right), wanted)
    equal(xp.digitize(x.tolist(), xp.asarray(bins, chunks=3), right=right), wanted)


def test_digitize_refuses_what_numpy_refuses() -> None:
    with pytest.raises(ValueError, match="monotonically"):
        xp.digitize([1], [1, 3, 2])
    with pytest.raises(TypeError, match="complex"):
        xp.digitize([1j], [1, 3])


def test_values_alone_are_sorted_without_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those that come with positions, and NumPy's."""
    monkeypatch.setattr(uniqueness, "TABLE_ELEMENTS", 0)
    rng = np.random.default_rng(0)
    floats = rng.random(400).round(2)
    for data in (
        rng.integers(0, 50, 400),
        np.where(rng.random(400) < 0.1, np.nan, floats),
        floats + 1j * rng.random(400).round(1),
        rng.random(400) < 0.5,
    ):
        x = xp.asarray(data, chunks=37)
        nan = data.dtype.kind in "fc"
        counted, wanted = xp.unique_counts(x), np.unique_counts(data)
        assert np.array_equal(counted.values.compute(), wanted.values, equal_nan=nan)
        assert np.array_equal(counted.counts.compute(), wanted.counts)
        assert np.array_equal(xp.unique_values(x).compute(), wanted.values, equal_nan=nan)
        assert np.array_equal(xp.unique(x).compute(), np.unique(data), equal_nan=nan)
        with_positions = xp.unique(x, return_index=True)[0]
        assert np.array_equal(with_positions.compute(), np.unique(data), equal_nan=nan)
