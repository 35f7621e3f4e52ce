"""Norms of vectors and matrices, and ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import axes_of
from agentic_ray.array.core.views import reshaped
from agentic_ray.array.creation import zeros
from agentic_ray.array.elementwise import abs as _abs
from agentic_ray.array.elementwise import conj, not_equal, pow, real, sqrt
from agentic_ray.array.linalg.decompositions import _inexact, default_rtol, svdvals
from agentic_ray.array.manipulation import expand_dims
from agentic_ray.array.statistics import Axis, count_nonzero
from agentic_ray.array.statistics import max as _max
from agentic_ray.array.statistics import min as _min
from agentic_ray.array.statistics import sum as _sum


def vector_norm(x: Array, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Array:
    """Norm of order ``ord`` of the vectors over ``axis`` (default: of all elements)."""
    if x.dtype.kind in "biu":
        x = x.astype(np.float64)
    result: Array
    if ord == math.inf:
        result = _max(_abs(x), axis=axis, keepdims=keepdims)
    elif ord == -math.inf:
        result = _min(_abs(x), axis=axis, keepdims=keepdims)
    elif ord == 0:
        result = _sum(not_equal(x, 0).astype(_abs(x).dtype), axis=axis, keepdims=keepdims)
    elif ord == 1:
        result = _sum(_abs(x), axis=axis, keepdims=keepdims)
    elif ord == 2:
        squares = real(x * conj(x)) if x.dtype.kind == "c" else x * x
        result = sqrt(_sum(squares, axis=axis, keepdims=keepdims))
    else:
        result = pow(_sum(pow(_abs(x), ord), axis=axis, keepdims=keepdims), 1 / ord)
    return result


def matrix_norm(x: Array, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Norm of each matrix in a stack.

    Raises
    ------
    ValueError
        There is no such norm.
    """
    node = _inexact("matrix_norm", x)
    x = Array(node)
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        first, second = (-2, -1) if abs(ord) == 1 else (-1, -2)
        sums = _sum(_abs(x), axis=first, keepdims=True)
        if node.size == 0 and ord > 0:
            return _nothing(x, keepdims)
        result = (_max if ord > 0 else _min)(sums, axis=second, keepdims=True)
    elif ord in (2, -2, "nuc"):
        if node.size == 0 and ord in (2, "nuc"):
            return _nothing(x, keepdims)
        values = svdvals(x)
        if ord == "nuc":
            result = _sum(values, axis=-1, keepdims=True)
        else:
            result = (_max if ord == 2 else _min)(values, axis=-1, keepdims=True)
        result = expand_dims(result, axis=-1)
    else:
        raise ValueError(f"invalid norm order {ord!r} for matrices")
    return result if keepdims else Array(reshaped(result._node, x.shape[:-2]))


def _nothing(x: Array, keepdims: bool) -> Array:
    """The norm of matrices without elements."""
    shape = (*x.shape[:-2], 1, 1) if keepdims else x.shape[:-2]
    return zeros(shape, dtype=_abs(x).dtype)


def matrix_rank(x: Array, /, *, rtol: Any = None) -> Array:
    """How many singular values of each matrix exceed ``rtol`` times its largest."""
    node = _inexact("matrix_rank", x)
    values = svdvals(Array(node))
    if not values.shape[-1]:
        return zeros(node.shape[:-2], dtype=np.int64)
    limit = default_rtol(node) if rtol is None else rtol
    if isinstance(limit, Array) and limit.ndim:
        limit = expand_dims(limit, axis=-1)
    largest = _max(values, axis=-1, keepdims=True)
    return count_nonzero(values > largest * limit, axis=-1)


def norm(x: Array, /, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """NumPy's norm: of vectors for one axis, of matrices for two."""
    axes = axes_of(axis, x.ndim)
    if ord is None:
        return vector_norm(x, axis=axis, keepdims=keepdims)
    if len(axes) == 1:
        return vector_norm(x, axis=axes[0], keepdims=keepdims, ord=ord)
    if axes != (x.ndim - 2, x.ndim - 1):
        raise ValueError("norm: only the last two axes can hold matrices; use moveaxis")
    return matrix_norm(x, keepdims=keepdims, ord=ord)
