"""Every function against NumPy, over dtypes, shapes and chunkings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    COMPLEX,
    EVERYTHING,
    INTEGERS,
    NUMBERS,
    REALS,
    arrays,
    chunkings,
    same,
    shapes,
    values,
)

import agentic_ray.array as xp

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

UNARY: dict[str, tuple[tuple[str, ...], str]] = {
    "abs": (NUMBERS, "abs"),
    "acos": (REALS, "arccos"),
    "acosh": (REALS, "arccosh"),
    "asin": (REALS, "arcsin"),
    "asinh": (REALS, "arcsinh"),
    "atan": (REALS, "arctan"),
    "atanh": (REALS, "arctanh"),
    "bitwise_invert": (("bool", *INTEGERS), "invert"),
    "ceil": (REALS, "ceil"),
    "conj": (COMPLEX, "conj"),
    "cos": (REALS + COMPLEX, "cos"),
    "cosh": (REALS, "cosh"),
    "exp": (REALS, "exp"),
    "expm1": (REALS, "expm1"),
    "floor": (REALS, "floor"),
    "imag": (COMPLEX, "imag"),
    "isfinite": (NUMBERS, "isfinite"),
    "isinf": (NUMBERS, "isinf"),
    "isnan": (NUMBERS, "isnan"),
    "log": (REALS, "log"),
    "log10": (REALS, "log10"),
    "log1p": (REALS, "log1p"),
    "log2": (REALS, "log2"),
    "logical_not": (EVERYTHING, "logical_not"),
    "nan_to_num": (REALS, "nan_to_num"),
    "negative": (NUMBERS, "negative"),
    "positive": (NUMBERS, "positive"),
    "real": (COMPLEX, "real"),
    "reciprocal": (REALS, "reciprocal"),
    "round": (REALS, "round"),
    "sign": (NUMBERS, "sign"),
    "signbit": (REALS, "signbit"),
    "sin": (REALS, "sin"),
    "sinh": (REALS, "sinh"),
    "sqrt": (REALS, "sqrt"),
    "square": (NUMBERS, "square"),
    "tan": (REALS, "tan"),
    "tanh": (REALS, "tanh"),
    "trunc": (REALS, "trunc"),
}

BINARY: dict[str, tuple[tuple[str, ...], str]] = {
    "add": (EVERYTHING, "add"),
    "atan2": (REALS, "arctan2"),
    "bitwise_and": (("bool", *INTEGERS), "bitwise_and"),
    "bitwise_or": (("bool", *INTEGERS), "bitwise_or"),
    "bitwise_xor": (("bool", *INTEGERS), "bitwise_xor"),
    "copysign": (REALS, "copysign"),
    "divide": (REALS + COMPLEX, "divide"),
    "equal": (EVERYTHING, "equal"),
    "floor_divide": (REALS, "floor_divide"),
    "greater": (REALS + INTEGERS, "greater"),
    "greater_equal": (REALS + INTEGERS, "greater_equal"),
    "hypot": (REALS, "hypot"),
    "less": (REALS + INTEGERS, "less"),
    "less_equal": (REALS + INTEGERS, "less_equal"),
    "logaddexp": (REALS, "logaddexp"),
    "logical_and": (EVERYTHING, "logical_and"),
    "logical_or": (EVERYTHING, "logical_or"),
    "logical_xor": (EVERYTHING, "logical_xor"),
    "maximum": (REALS + INTEGERS, "maximum"),
    "minimum": (REALS + INTEGERS, "minimum"),
    "multiply": (EVERYTHING, "multiply"),
    "nextafter": (REALS, "nextafter"),
    "not_equal": (EVERYTHING, "not_equal"),
    "pow": (REALS, "power"),
    "remainder": (REALS, "remainder"),
    "subtract": (NUMBERS, "subtract"),
}


@pytest.mark.parametrize("name", sorted(UNARY))
@given(data=st.data())
def test_unary_functions(name: str, data: st.DataObject) -> None:
    dtypes, numpy_name = UNARY[name]
    ours, theirs = data.draw(arrays(dtypes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Vector and scalar loops of NumPy differ in the last place of some functions.
        same(getattr(xp, name)(ours), getattr(np, numpy_name)(theirs), rtol=1e-14)


@st.composite
def pairs(draw: Any, dtypes: tuple[str, ...]) -> Any:
    """Two arrays that broadcast, of dtypes of one kind."""
    shape = draw(shapes)
    keep = draw(st.integers(0, len(shape)))
    other = tuple(n if draw(st.booleans()) else 1 for n in shape[keep:])
    first = draw(st.sampled_from(dtypes))
    same_kind = [d for d in dtypes if np.dtype(d).kind == np.dtype(first).kind]
    second = draw(st.sampled_from(same_kind))
    result = []
    for dtype, own in ((first, shape), (second, other)):
        array = draw(values(dtype, own))
        result.append((xp.asarray(array, chunks=draw(chunkings(own))), array))
    return result if draw(st.booleans()) else result[::-1]


@pytest.mark.parametrize("name", sorted(BINARY))
@given(data=st.data())
def test_binary_functions(name: str, data: st.DataObject) -> None:
    dtypes, numpy_name = BINARY[name]
    (a, p), (b, q) = data.draw(pairs(dtypes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(getattr(xp, name)(a, b), getattr(np, numpy_name)(p, q), rtol=1e-14)


@given(arrays(REALS + INTEGERS), st.sampled_from([0, 1, 3, -2, 2.5, True, -0.0]))
def test_python_scalars_are_weak(pair: Any, scalar: Any) -> None:
    ours, theirs = pair
    if isinstance(scalar, int) and scalar < 0 and theirs.dtype.kind == "u":
        with pytest.raises(OverflowError):
            ours + scalar
        return
    same(ours + scalar, theirs + scalar)
    same(scalar - ours if not isinstance(scalar, bool) else ours, scalar - theirs
         if not isinstance(scalar, bool) else theirs)  # fmt: skip
    same(ours < scalar, theirs < scalar)


@given(arrays(REALS + INTEGERS, small=True), st.data())
def test_where_and_clip(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    low = data.draw(st.sampled_from([None, 0, 1]))
    high = data.draw(st.sampled_from([None, 2, 4]))
    expected = theirs if low is high is None else np.clip(theirs, low, high)
    same(xp.clip(ours, low, high), expected)
    same(xp.where(ours > 1, ours, 0), np.where(theirs > 1, theirs, theirs.dtype.type(0)))


# --- reductions --------------------------------------------------------------------------

REDUCTIONS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "sum": (NUMBERS, np.sum),
    "prod": (NUMBERS, np.prod),
    "mean": (REALS + COMPLEX, np.mean),
    "var": (REALS, np.var),
    "std": (REALS, np.std),
    "max": (REALS + INTEGERS, np.max),
    "min": (REALS + INTEGERS, np.min),
    "all": (EVERYTHING, np.all),
    "any": (EVERYTHING, np.any),
    "count_nonzero": (EVERYTHING, np.count_nonzero),
}


@st.composite
def axes(draw: Any, ndim: int) -> Any:
    return draw(
        st.none() | st.sets(st.integers(0, ndim - 1)).map(tuple) | st.integers(-ndim, ndim - 1)
        if ndim
        else st.none()
    )


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@given(data=st.data())
def test_reductions(name: str, data: st.DataObject) -> None:
    dtypes, function = REDUCTIONS[name]
    ours, theirs = data.draw(arrays(dtypes, small=name not in ("max", "min", "any", "all")))
    axis = data.draw(axes(theirs.ndim))
    keepdims = data.draw(st.booleans())
    if name in ("max", "min"):
        try:
            expected = function(theirs, axis=axis, keepdims=keepdims)
        except ValueError:
            with pytest.raises(ValueError, match="no identity"):
                getattr(xp, name)(ours, axis=axis, keepdims=keepdims)
            return
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = function(theirs, axis=axis, keepdims=keepdims)
    expected = np.asarray(expected, dtype=np.int64) if name == "count_nonzero" else expected
    same(getattr(xp, name)(ours, axis=axis, keepdims=keepdims), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(data=st.data())
def test_argument_of_extremes(name: str, data: st.DataObject) -> None:
    ours, theirs = data.draw(arrays(REALS + INTEGERS))
    axis = data.draw(st.none() | st.integers(-theirs.ndim, theirs.ndim - 1)
                     if theirs.ndim else st.none())  # fmt: skip
    keepdims = data.draw(st.booleans())
    try:
        expected = getattr(np, name)(theirs, axis=axis, keepdims=keepdims)
    except ValueError:
        with pytest.raises(ValueError, match="empty sequence"):
            getattr(xp, name)(ours, axis=axis, keepdims=keepdims)
        return
    same(getattr(xp, name)(ours, axis=axis, keepdims=keepdims), expected)


@given(arrays(NUMBERS, small=True), st.data())
def test_scans_and_differences(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    if not theirs.ndim:
        return
    axis = data.draw(st.integers(-theirs.ndim, theirs.ndim - 1))
    same(xp.cumulative_sum(ours, axis=axis), np.cumsum(theirs, axis=axis), rtol=1e-13)
    same(xp.cumulative_prod(ours, axis=axis), np.cumprod(theirs, axis=axis), rtol=1e-13)
    initial = np.cumulative_sum(theirs, axis=axis, include_initial=True)
    same(xp.cumulative_sum(ours, axis=axis, include_initial=True), initial, rtol=1e-13)
    n = data.draw(st.integers(0, 2))
    if theirs.shape[axis]:
        same(xp.diff(ours, axis=axis, n=n), np.diff(theirs, axis=axis, n=n))


# --- manipulation ------------------------------------------------------------------------


@given(arrays(("int32", "float64")), st.data())
def test_axes_are_rearranged(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    order = tuple(data.draw(st.permutations(range(theirs.ndim))))
    same(xp.permute_dims(ours, order), np.transpose(theirs, order))
    axis = data.draw(axes(theirs.ndim))
    same(xp.flip(ours, axis=axis), np.flip(theirs, axis=axis))
    where = data.draw(st.integers(-theirs.ndim - 1, theirs.ndim))
    same(xp.expand_dims(ours, axis=where), np.expand_dims(theirs, where))
    ones = tuple(a for a, n in enumerate(theirs.shape) if n == 1)
    same(xp.squeeze(ours, axis=ones), np.squeeze(theirs, axis=ones))
    wide = (2, *theirs.shape)
    same(xp.broadcast_to(ours, wide), np.broadcast_to(theirs, wide))
    if theirs.ndim:
        a, b = data.draw(st.tuples(*[st.integers(0, theirs.ndim - 1)] * 2))
        same(xp.moveaxis(ours, a, b), np.moveaxis(theirs, a, b))
        shift = data.draw(st.integers(-5, 5))
        same(xp.roll(ours, shift, axis=a), np.roll(theirs, shift, axis=a))
        same(xp.repeat(ours, 2, axis=a), np.repeat(theirs, 2, axis=a))
        for part, expected in zip(xp.unstack(ours, axis=a), np.unstack(theirs, axis=a),
                                  strict=True):  # fmt: skip
            same(part, expected)
    same(xp.roll(ours, 3), np.roll(theirs, 3))


@given(arrays(("int64",)), st.data())
def test_reshape_and_rechunk(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    lengths = [n for n in theirs.shape for n in ([2, n // 2] if n == 4 else [n])]
    shape = tuple(data.draw(st.permutations(lengths)))
    same(xp.reshape(ours, shape), theirs.reshape(shape))
    same(xp.reshape(ours, (-1,)), theirs.reshape(-1))
    again = data.draw(chunkings(theirs.shape))
    moved = ours.rechunk(again)
    assert moved.chunks == again
    same(moved + 1, theirs + 1)


@given(st.data())
def test_joining(data: st.DataObject) -> None:
    shape = data.draw(shapes.filter(lambda s: len(s) > 0))
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = []
    for _ in range(data.draw(st.integers(1, 3))):
        own = (*shape[:axis], data.draw(st.integers(0, 3)), *shape[axis + 1 :])
        parts.append(data.draw(arrays(("int32", "float64"), own)))
    same(
        xp.concat([ours for ours, _ in parts], axis=axis),
        np.concatenate([theirs for _, theirs in parts], axis=axis),
    )
    ours, theirs = data.draw(arrays(("float32",), shape))
    other = data.draw(arrays(("float64",), shape))
    same(xp.stack([ours, other[0]], axis=axis), np.stack([theirs, other[1]], axis=axis))
    times = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=len(shape) + 1))
    same(xp.tile(ours, tuple(times)), np.tile(theirs, times))
    width = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    same(xp.pad(ours, width, constant_values=3), np.pad(theirs, width, constant_values=3))


# --- indexing ----------------------------------------------------------------------------


@st.composite
def basic_keys(draw: Any, shape: tuple[int, ...]) -> Any:
    key: list[Any] = []
    for length in shape:
        if length and draw(st.booleans()):
            key.append(draw(st.integers(-length, length - 1)))
        else:
            key.append(draw(st.slices(length) if length else st.just(slice(None))))
    key = key[: draw(st.integers(0, len(key)))]
    if draw(st.booleans()):
        key.insert(draw(st.integers(0, len(key))), None)
    if draw(st.booleans()):
        key.append(Ellipsis)
    return tuple(key)


@given(arrays(), st.data())
def test_basic_indexing(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    key = data.draw(basic_keys(theirs.shape))
    same(ours[key], theirs[key])


@given(arrays(NUMBERS, small=True), st.data())
def test_assignment_by_basic_index(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    before, kept = xp.asarray(ours, copy=True), theirs.copy()
    key = data.draw(basic_keys(theirs.shape))
    region = theirs[key].shape
    value = data.draw(values(str(theirs.dtype), region[data.draw(st.integers(0, len(region))):],
                             small=True))  # fmt: skip
    ours[key] = xp.asarray(value, chunks=data.draw(chunkings(value.shape)))
    theirs[key] = value
    same(ours, theirs)
    same(before, kept)


@given(arrays(("float64",)), st.data())
def test_integer_array_indexing(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    if not theirs.size or not theirs.ndim:
        return
    shape = data.draw(st.sampled_from([(3,), (2, 2), (0,), (1, 3)]))
    key: list[Any] = []
    for length in theirs.shape:
        how = data.draw(st.sampled_from(["array", "slice", "int"]))
        if how == "array":
            key.append(data.draw(st.integers(0, 99).map(lambda s, n=length: np.random.default_rng(
                s).integers(-n, n, shape))))  # fmt: skip
        else:
            key.append(slice(None) if how == "slice" else length - 1)
    own = tuple(xp.asarray(k) if isinstance(k, np.ndarray) else k for k in key)
    same(ours[own], theirs[tuple(key)])
    axis = data.draw(st.integers(0, theirs.ndim - 1))
    index = np.random.default_rng(0).integers(0, theirs.shape[axis], 4)
    same(xp.take(ours, xp.asarray(index), axis=axis), np.take(theirs, index, axis=axis))
    along = np.random.default_rng(1).integers(0, theirs.shape[axis], theirs.shape)
    same(
        xp.take_along_axis(ours, xp.asarray(along), axis=axis),
        np.take_along_axis(theirs, along, axis=axis),
    )
    value = np.arange(theirs[tuple(key)].size, dtype=float).reshape(theirs[tuple(key)].shape)
    # Where a position is named twice, which value stays is not defined: write equal ones.
    ours[own] = xp.zeros(value.shape)
    theirs[tuple(key)] = 0
    same(ours, theirs)


@given(arrays(("int32", "float64"), small=True), st.data())
def test_masks(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    depth = data.draw(st.integers(1, theirs.ndim)) if theirs.ndim else 0
    mask = data.draw(values("bool", theirs.shape[:depth]))
    own = xp.asarray(mask, chunks=data.draw(chunkings(mask.shape)))
    same(ours[own], theirs[mask])
    ours[own] = 7
    theirs[mask] = 7
    same(ours, theirs)
    if theirs.ndim:
        for found, expected in zip(xp.nonzero(ours), np.nonzero(theirs), strict=True):
            same(found, expected)


# --- sets, sorting, searching ------------------------------------------------------------


@given(arrays(REALS + INTEGERS), st.data())
def test_sorting(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    if not theirs.ndim:
        return
    axis = data.draw(st.integers(-theirs.ndim, theirs.ndim - 1))
    same(xp.sort(ours, axis=axis), np.sort(theirs, axis=axis))
    same(xp.argsort(ours, axis=axis), np.argsort(theirs, axis=axis, kind="stable"))
    down = xp.sort(ours, axis=axis, descending=True)
    same(down, np.flip(np.sort(theirs, axis=axis), axis=axis))


@given(arrays(REALS + INTEGERS, small=True))
def test_sets(pair: Any) -> None:
    ours, theirs = pair
    found, first, inverse, counts = xp.unique_all(ours)
    a, b, c, d = np.unique(theirs, return_index=True, return_inverse=True, return_counts=True)
    same(found, a)
    same(first, b)
    same(inverse, c.reshape(theirs.shape))
    same(counts, d)
    same(xp.unique_values(ours), a)
    same(xp.isin(ours, xp.asarray(a[:2])), np.isin(theirs, a[:2]))


@given(arrays(REALS, st.tuples(st.integers(0, 9)), small=True), arrays(REALS, small=True),
       st.sampled_from(["left", "right"]))  # fmt: skip
def test_searchsorted(table: Any, wanted: Any, side: str) -> None:
    ours, theirs = xp.sort(table[0]), np.sort(table[1])
    found = xp.searchsorted(ours.rechunk(3), wanted[0], side=side)
    same(found, np.searchsorted(theirs, wanted[1], side=side))


# --- products ----------------------------------------------------------------------------


@given(st.data())
def test_products(data: st.DataObject) -> None:
    m, k, n = data.draw(st.tuples(*[st.integers(0, 5)] * 3))
    loop = data.draw(st.sampled_from([(), (2,), (3, 2)]))
    a, p = data.draw(arrays(("int64", "float64"), (*loop, m, k), small=True))
    b, q = data.draw(arrays(("float64", "complex128"), (*loop[1:], k, n), small=True))
    same(a @ b, p @ q, rtol=1e-12)
    same(xp.tensordot(a, b, axes=((-1,), (-2,))), np.tensordot(p, q, axes=((-1,), (-2,))))
    same(xp.linalg.matrix_transpose(a) @ a, np.swapaxes(p, -1, -2) @ p, rtol=1e-12)
    v, w = data.draw(arrays(("float64",), (k,), small=True))
    same(a @ v, p @ w, rtol=1e-12)
    same(xp.vecdot(a, v), np.vecdot(p, w), rtol=1e-12)
    same(xp.einsum("...ij,...jk->...ik", a, b), np.einsum("...ij,...jk->...ik", p, q))
    if k:
        same(xp.einsum("i,j->ij", v, v), np.einsum("i,j->ij", w, w))
        same(xp.einsum("ij,ij->", xp.ones((k, k)), v[:, None] * v), np.einsum(
            "ij,ij->", np.ones((k, k)), w[:, None] * w), rtol=1e-12)  # fmt: skip


# --- creation ----------------------------------------------------------------------------


@given(
    st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([1, 2, 3, -1, -4, 0.5, -0.7]),
    st.integers(1, 5),
)  # fmt: skip
def test_ranges(start: int, stop: int, step: float, chunk: int) -> None:
    same(xp.arange(start, stop, step, chunks=chunk), np.arange(start, stop, step), rtol=1e-14)
    num = abs(start)
    same(xp.linspace(start, stop, num, chunks=chunk), np.linspace(start, stop, num), rtol=1e-14)
    same(xp.linspace(start, stop, num, endpoint=False, chunks=chunk),
         np.linspace(start, stop, num, endpoint=False), rtol=1e-14)  # fmt: skip


@given(st.integers(0, 6), st.integers(0, 6), st.integers(-3, 3), st.integers(1, 4))
def test_matrices(rows: int, columns: int, k: int, chunk: int) -> None:
    same(xp.eye(rows, columns, k=k, chunks=chunk), np.eye(rows, columns, k=k))
    values = np.arange(rows * columns, dtype=float).reshape(rows, columns)
    ours = xp.asarray(values, chunks=chunk)
    same(xp.tril(ours, k=k), np.tril(values, k=k))
    same(xp.triu(ours, k=k), np.triu(values, k=k))
    same(xp.linalg.diagonal(ours, offset=k), np.diagonal(values, offset=k))
    for found, expected in zip(
        xp.meshgrid(ours[:, 0] if columns else ours[:, :0].sum(axis=1), xp.arange(3)),
        np.meshgrid(values[:, 0] if columns else values.sum(axis=1), np.arange(3)), strict=True,
    ):  # fmt: skip
        same(found, expected)
