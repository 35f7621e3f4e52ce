"""Sorting along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import along, blockwise_op, strict_operand


def _sort_kernel(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    result = xp.sort(x, axis=axis, kind="stable")
    return xp.flip(result, axis=axis) if descending else result


def _argsort_kernel(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    # Stable in descending order: sort the reversed array, then reverse and count from the end.
    order = xp.flip(xp.argsort(xp.flip(x, axis=axis), axis=axis, kind="stable"), axis=axis)
    return x.shape[axis] - 1 - order


SORT = blockwise_op("sort", _sort_kernel, weight=32)
ARGSORT = blockwise_op("argsort", _argsort_kernel, weight=64)


def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """``x`` sorted along ``axis``; always stable."""
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    return Array(along(SORT, [node], (at,), None, node.dtype, (at, bool(descending))))


def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Positions that would sort ``x`` along ``axis``; always stable."""
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    params = (at, bool(descending))
    return Array(along(ARGSORT, [node], (at,), None, np.dtype(np.int64), params))
