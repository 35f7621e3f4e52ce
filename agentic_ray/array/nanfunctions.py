"""Reductions that pass over NaN, as in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import axes_of, strict_operand
from agentic_ray.array.dtypes import astype
from agentic_ray.array.elementwise import isnan, logical_not, real, sqrt, where
from agentic_ray.array.searching import argmax, argmin
from agentic_ray.array.statistics import Axis, any, max, mean, min, prod, sum


def _filled(x: Any, value: Any) -> tuple[Array, Array | None]:
    """``x`` with ``value`` for NaN, and where the NaNs are (None for integers)."""
    node = strict_operand(x)
    if node.dtype.kind not in "fc":
        return Array(node), None
    missing = isnan(Array(node))
    return where(missing, node.dtype.type(value), Array(node)), missing


def _count(x: Array, missing: Array | None, axis: Axis, keepdims: bool) -> Any:
    if missing is None:
        node = strict_operand(x)
        return int(np.prod([node.shape[a] for a in axes_of(axis, node.ndim)], dtype=np.int64))
    return sum(logical_not(missing), axis=axis, keepdims=keepdims, dtype=np.int64)


def nansum(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Sum over ``axis`` of what is not NaN."""
    return sum(_filled(x, 0)[0], axis=axis, dtype=dtype, keepdims=keepdims)


def nanprod(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Product over ``axis`` of what is not NaN."""
    return prod(_filled(x, 1)[0], axis=axis, dtype=dtype, keepdims=keepdims)


def nanmean(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Mean over ``axis`` of what is not NaN."""
    filled, missing = _filled(x, 0)
    if missing is None:
        return mean(filled, axis=axis, keepdims=keepdims)
    total = sum(filled, axis=axis, keepdims=keepdims)
    result: Array = total / _count(filled, missing, axis, keepdims)
    return astype(result, filled.dtype)


def nanvar(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Variance over ``axis`` of what is not NaN."""
    filled, missing = _filled(x, 0)
    if missing is None:
        filled = filled.astype(np.float64)
    count = _count(filled, missing, axis, True)
    average = sum(filled, axis=axis, keepdims=True) / count
    off = (filled - average).astype(filled.dtype)
    if missing is not None:
        off = where(missing, off.dtype.type(0), off)
    squares = real(off * off.conj()) if off.dtype.kind == "c" else off * off
    total = sum(squares, axis=axis, keepdims=keepdims)
    free = _count(filled, missing, axis, keepdims) - correction
    if isinstance(free, Array):
        free = where(free > 0, free, np.nan)
    elif free <= 0:
        free = np.nan
    result: Array = total / free
    return astype(result, squares.dtype)


def nanstd(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Standard deviation over ``axis`` of what is not NaN."""
    return sqrt(nanvar(x, axis=axis, correction=correction, keepdims=keepdims))


def _extreme(x: Any, axis: Axis, keepdims: bool, largest: bool) -> Array:
    worst = -np.inf if largest else np.inf
    filled, missing = _filled(x, worst)
    result = (max if largest else min)(filled, axis=axis, keepdims=keepdims)
    if missing is None:
        return result
    some = any(logical_not(missing), axis=axis, keepdims=keepdims)
    return where(some, result, result.dtype.type(np.nan))


def nanmax(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Largest element over ``axis`` that is not NaN; NaN if there is none."""
    return _extreme(x, axis, keepdims, True)


def nanmin(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Smallest element over ``axis`` that is not NaN; NaN if there is none."""
    return _extreme(x, axis, keepdims, False)


def nanargmax(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Position of the largest element that is not NaN."""
    return argmax(_filled(x, -np.inf)[0], axis=axis, keepdims=keepdims)


def nanargmin(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Position of the smallest element that is not NaN."""
    return argmin(_filled(x, np.inf)[0], axis=axis, keepdims=keepdims)
