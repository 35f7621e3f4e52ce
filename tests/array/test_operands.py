"""Operators with operands that are neither numbers nor arrays of NumPy's own: nothing is silent.

NumPy reads sequences of any class, compares with any object element by element, leaves operators
to classes that ask for it, and keeps masks. Each line is held against NumPy's value or exception.
"""

from __future__ import annotations

import datetime as dt
import pickle
from array import array
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import agentic_ray.array as xp
from agentic_ray.errors import InvalidTypeError

OPERATORS = (
    "x + o", "o + x", "x - o", "o - x", "x * o", "o * x", "x / o", "o / x", "x // o", "x % o",
    "x ** o", "x == o", "x != o", "x < o", "x >= o", "o > x", "divmod(x, o)",
)  # fmt: skip
COMPARISONS = ("x == o", "x != o", "o == x", "x < o", "x >= o", "o > x")
SEQUENCES = {
    "range": range(4),
    "deque": deque([1.0, 2.0, 3.0, 4.0]),
    "array.array": array("i", [3, 1, 2, 4]),
    "memoryview": memoryview(np.arange(1.0, 5.0)),
    "of another length": range(3),
}
OBJECTS = {
    "Decimal": Decimal(2),
    "Fraction": Fraction(1, 2),
    "dict": {1: 2},
    "set": set(),
    "timedelta": dt.timedelta(1),
    "iterator": iter([1]),
    "a class": float,
    "ANY": mock.ANY,
}


def outcome(line: str, x: Any, o: Any) -> Any:
    """The value of ``line``, or the exception that it raises."""
    try:
        with np.errstate(all="ignore"):
            return eval(line, {"x": x, "o": o})
    except Exception as error:
        return error


def check(line: str, values: np.ndarray[Any, Any], o: Any) -> None:
    wanted = outcome(line, values, o)
    for chunks in (-1, 3):
        ours = outcome(line, xp.asarray(values, chunks=chunks), o)
        if isinstance(wanted, Exception):
            assert isinstance(ours, TypeError | type(wanted)), line
            continue
        if isinstance(ours, Exception):
            raise AssertionError(f"{line}: {wanted!r}") from ours
        for mine, theirs in zip(
            ours if isinstance(ours, tuple) else (ours,),
            wanted if isinstance(wanted, tuple) else (wanted,),
            strict=True,
        ):
            assert np.asarray(mine).dtype == theirs.dtype, line
            np.testing.assert_array_equal(np.asarray(mine), theirs, err_msg=line)


@pytest.mark.parametrize("line", OPERATORS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_any_class_are_arrays(name: str, line: str) -> None:
    if (name, line) == ("memoryview", "o == x"):
        pytest.skip("memoryview compares itself with what has a buffer")
    check(line, np.arange(4.0), SEQUENCES[name])


@pytest.mark.parametrize("line", COMPARISONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_comparisons_with_objects_are_element_by_element(name: str, line: str) -> None:
    values = np.arange(4.0)
    wanted = outcome(line, values, OBJECTS[name])
    if isinstance(wanted, np.ndarray | Exception):
        check(line, values, OBJECTS[name])
    else:
        assert outcome(line, xp.asarray(values), OBJECTS[name]) is wanted


def test_a_missing_value_equals_nothing_known() -> None:
    assert (xp.arange(2.0) == pd.NA).tolist() == [pd.NA, pd.NA]
    assert (xp.arange(2.0) != pd.NA).tolist() == [pd.NA, pd.NA]


DATES = np.array(["2024-03-01", "NaT", "2023-12-31", "2024-01-01"], "M8[D]")
HOURS = np.array([5, -3, 0, 12], "m8[h]")


@pytest.mark.parametrize("line", COMPARISONS)
def test_dates_compare_with_pythons_and_pandas(line: str) -> None:
    check(line, DATES, dt.date(2024, 1, 1))
    check(line, DATES, dt.datetime(2024, 1, 1))
    check(line, DATES, pd.Timestamp("2024-01-01"))
    check(line, HOURS, dt.timedelta(hours=5))
    check(line, HOURS, pd.Timedelta("5h"))


@pytest.mark.parametrize("line", ["x - o", "o - x", "x + o", "x / o", "x // o", "o * x"])
def test_pandas_scalars_compute_as_with_numpys_arrays(line: str) -> None:
    check(line, HOURS, pd.Timedelta("5h"))
    check(line, DATES, pd.Timestamp("2024-01-01"))


@pytest.mark.parametrize("line", ["x + o", "o + x", "x * o", "x == o", "x < o", "o - x"])
def test_sparse_arrays_of_scipys(line: str) -> None:
    o = scipy.sparse.csr_array(np.array([[1.0, 0.0, 2.0, 0.0]]))
    x = np.arange(4.0)
    wanted, ours = outcome(line, x, o), outcome(line, xp.asarray(x, chunks=3), o)
    if line == "o == x":
        return
    assert scipy.sparse.issparse(ours) == scipy.sparse.issparse(wanted)
    if scipy.sparse.issparse(wanted):
        ours, wanted = ours.toarray(), wanted.toarray()
    np.testing.assert_array_equal(np.asarray(ours), wanted)


# --- classes of arrays -------------------------------------------------------------------

MASKED = np.ma.array(np.arange(4.0), mask=[False, True, False, False])


@pytest.mark.parametrize("line", ["x + o", "o + x", "x * o", "x == o", "np.add(o, x)"])
def test_masks_are_kept(line: str) -> None:
    env = {"np": np, "o": MASKED}
    wanted = eval(line, {**env, "x": np.arange(4.0)})
    ours = eval(line, {**env, "x": xp.arange(4.0)})
    assert isinstance(ours, np.ma.MaskedArray)
    assert ours.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ["sum", "mean", "sort", "exp", "cumsum", "median", "isfinite"])
def test_functions_refuse_values_that_are_hidden(name: str) -> None:
    with pytest.raises(InvalidTypeError, match="masked array"):
        getattr(xp, name)(MASKED)
    x = xp.arange(4.0)
    with pytest.raises(InvalidTypeError, match="masked array"):
        x += MASKED
    np.testing.assert_array_equal(xp.add(x, np.ma.ones(4)), [1, 2, 3, 4])  # hides none


class Metres(np.ndarray[Any, Any]):
    """An array with a unit, which a result without it would lose."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(value) for value in inputs]
        return getattr(ufunc, method)(*plain, **kwargs).view(Metres)


def test_subclasses_with_ufuncs_of_their_own_get_their_turn() -> None:
    o, x = np.arange(4.0).view(Metres), xp.ones(4, chunks=3)
    for found in (x * o, o * x, np.multiply(x, o), o + x, x / o):
        assert isinstance(found, Metres)


def test_products_with_numpys_matrices_are_products() -> None:
    o, values = np.matrix([[1, 2], [3, 4]]), np.arange(4.0).reshape(2, 2)
    x = xp.asarray(values, chunks=1)
    np.testing.assert_array_equal(x * o, np.asarray(values * o))
    np.testing.assert_array_equal(o * x, np.asarray(o * values))
    np.testing.assert_array_equal(x + o, np.asarray(values + o))


# --- what only NumPy's operators and buffers do ------------------------------------------


def test_squares_of_booleans_are_int8() -> None:
    for exponent in (0, 1, 2, 3):
        check(f"x ** {exponent}", np.array([True, False, True, True]), None)


def test_order_in_memory_outlives_pickles_and_bytes() -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    x = xp.asarray(values)
    assert pickle.loads(pickle.dumps(x)).flags.f_contiguous
    for order in ("C", "F", "A", None):
        assert x.tobytes(order) == values.tobytes(order)  # type: ignore[arg-type]
        assert x.T.tobytes(order) == values.T.tobytes(order)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [object, "U3", "S2", str, bytes, "U6", "T", [("a", object)]])
def test_functions_of_blocks_make_no_texts_and_objects(dtype: Any) -> None:
    x = xp.ones(3)
    calls = {
        "map_blocks": lambda: xp.map_blocks(np.copy, x, dtype=dtype),
        "map_overlap": lambda: xp.map_overlap(np.copy, x, depth=1, dtype=dtype),
        "apply_gufunc": lambda: xp.apply_gufunc(np.copy, "()->()", x, output_dtypes=[dtype]),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidTypeError, match=name):
            call()
    assert xp.full(2, dt.date(2024, 1, 1), dtype="M8[D]")[0] == np.datetime64("2024-01-01")


@pytest.mark.parametrize("text", ["ii->i", "iij->ji", "iii->i"])
def test_diagonals_of_einsum_are_read_only_not_copies(text: str) -> None:
    shape = tuple([3 if name == "i" else 2 for name in text.partition("->")[0]])
    values = np.arange(np.prod(shape)).reshape(shape)
    for chunks in (-1, 2):
        found = xp.einsum(text, xp.asarray(values, chunks=chunks))
        np.testing.assert_array_equal(found, np.einsum(text, values))
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
