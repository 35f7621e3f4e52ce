"""Sorting, partitioning and sorting by keys: signatures, values and errors of NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import agentic_ray.array as xp

RNG = np.random.default_rng(0)
X = RNG.integers(0, 9, (7, 6)).astype(float)
CUT = xp.asarray(X, chunks=(3, 2))
V = RNG.integers(0, 9, 40)
CUT_V = xp.asarray(V, chunks=7)


def equal(found: Any, wanted: Any) -> None:
    found = np.asarray(found)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("kind", [None, "quicksort", "mergesort", "heapsort", "stable", "q", "s"])
def test_numpys_arguments(axis: Any, kind: Any) -> None:
    equal(xp.sort(CUT, axis, kind), np.sort(X, axis, kind))
    equal(xp.sort(CUT, axis=axis, stable=False), np.sort(X, axis))
    equal(xp.argsort(CUT, axis, "stable"), np.argsort(X, axis, "stable"))
    equal(xp.argsort(CUT, axis=axis, stable=True), np.argsort(X, axis, stable=True))
    order = np.asarray(xp.argsort(CUT, axis, kind))
    wanted = np.sort(X, axis)
    source = X.reshape(-1) if axis is None else X
    np.testing.assert_array_equal(np.take_along_axis(source, order, 0 if axis is None else axis),
                                  wanted)  # fmt: skip


def test_unstable_orders_of_a_long_vector() -> None:
    order = np.asarray(xp.argsort(CUT_V, stable=False))
    np.testing.assert_array_equal(V[order], np.sort(V))
    np.testing.assert_array_equal(np.sort(order), np.arange(40))
    equal(xp.sort(CUT_V, stable=False, descending=True), np.sort(V)[::-1])


def test_lists_are_taken() -> None:
    equal(xp.sort([3, 1, 2]), np.sort([3, 1, 2]))
    equal(xp.argsort([[3, 1], [0, 2]], 0), np.argsort([[3, 1], [0, 2]], 0))
    equal(xp.sort(X.astype(np.float16)), np.sort(X.astype(np.float16)))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda n, x: n.sort(x, 2), np.exceptions.AxisError),
        (lambda n, x: n.sort(3.0), np.exceptions.AxisError),
        (lambda n, x: n.sort(x, kind="fastest"), ValueError),
        (lambda n, x: n.sort(x, kind="stable", stable=True), ValueError),
        (lambda n, x: n.sort(x, order="a"), ValueError),
        (lambda n, x: n.argsort(x, 5), np.exceptions.AxisError),
        (lambda n, x: n.argsort(x, order="a"), ValueError),
        (lambda n, x: n.partition(x, 99), ValueError),
        (lambda n, x: n.partition(x, -99), ValueError),
        (lambda n, x: n.partition(x, 1.5), TypeError),
        (lambda n, x: n.partition(x, 1, kind="quick"), ValueError),
        (lambda n, x: n.argpartition(x, 99), ValueError),
        (lambda n, x: n.lexsort(()), TypeError),
        (lambda n, x: n.lexsort((x, x), axis=4), np.exceptions.AxisError),
    ],
)
def test_numpys_errors(call: Any, error: type[Exception]) -> None:
    for names, x in ((np, X), (xp, CUT)):
        with pytest.raises(error):
            call(names, x)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays("float64", (3, 5), elements=st.sampled_from([0.0, -0.0, 1.0, np.nan, -np.inf])),
    st.sampled_from([0, 1]),
)
def test_equal_elements_keep_their_order(array: Any, axis: int) -> None:
    found = np.asarray(xp.sort(xp.asarray(array, chunks=(2, 3)), axis=axis))
    assert found.tobytes() == np.sort(array, axis=axis, kind="stable").tobytes()


@pytest.mark.parametrize("kth", [0, 3, -1, [1, 4], np.array([2])])
@pytest.mark.parametrize("array", [X, V, X[:1]], ids=["matrix", "vector", "one row"])
def test_partitions(array: Any, kth: Any) -> None:
    x = xp.asarray(array, chunks=(3,) * array.ndim)
    for axis in (-1, 0, None):
        lanes = array.reshape(-1) if axis is None else array
        at = 0 if axis is None else axis
        length = lanes.shape[at]
        places = [k % length for k in np.atleast_1d(kth) if -length <= k < length]
        if len(places) < np.size(kth):
            continue
        found = np.asarray(xp.partition(x, kth, axis))
        order = np.asarray(xp.argpartition(x, kth, axis))
        np.testing.assert_array_equal(np.sort(found, at), np.sort(lanes, at))
        np.testing.assert_array_equal(np.sort(order, at), np.sort(np.argsort(lanes, at), at))
        for parts in (found, np.take_along_axis(lanes, order, at)):
            for place in places:
                middle = np.take(parts, [place], at)
                np.testing.assert_array_equal(middle, np.take(np.sort(lanes, at), [place], at))
                before, after = np.split(parts, [place], at)
                assert (before <= middle).all()
                assert (after >= middle).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lexsort(data: Any) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    keys = []
    for _ in range(data.draw(st.integers(1, 4))):
        elements, dtype = data.draw(st.sampled_from([
            ([0.0, -0.0, 1.0, np.nan], "float64"), ([1, 2, -3], "int64"),
            ([0j, 1j, complex(np.nan, 0), complex(0, np.nan)], "complex128"), ([0, 1], "bool"),
        ]))  # fmt: skip
        keys.append(data.draw(hnp.arrays(dtype, sum(lengths), elements=st.sampled_from(elements))))
    cut = [xp.asarray(key, chunks=(tuple(lengths),)) for key in keys]
    equal(xp.lexsort(cut), np.lexsort(keys))
    equal(xp.lexsort([key.tolist() for key in keys]), np.lexsort(keys))


def test_lexsort_along_axes_and_of_an_array() -> None:
    for axis in (0, 1, -1):
        equal(xp.lexsort((CUT, CUT % 3), axis), np.lexsort((X, X % 3), axis))
    equal(xp.lexsort(CUT), np.lexsort(X))


def test_sort_complex() -> None:
    for dtype in ("int8", "uint16", "int32", "float32", "float64", "complex64"):
        equal(xp.sort_complex(CUT.astype(dtype)), np.sort_complex(X.astype(dtype)))
