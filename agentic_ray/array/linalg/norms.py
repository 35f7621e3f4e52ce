"""Norms of vectors and matrices, condition numbers, and ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import gufunc, gufunc_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.program import host_only
from agentic_ray.array.creation import zeros
from agentic_ray.array.elementwise import abs as _abs
from agentic_ray.array.elementwise import conj, divide, isnan, not_equal, pow, real, sqrt, where
from agentic_ray.array.linalg.decompositions import (
    default_rtol,
    eigvalsh,
    inexact,
    inv,
    is_cut,
    svdvals,
)
from agentic_ray.array.manipulation import expand_dims, moveaxis, ravel
from agentic_ray.array.statistics import any as _any
from agentic_ray.array.statistics import count_nonzero
from agentic_ray.array.statistics import max as _max
from agentic_ray.array.statistics import min as _min
from agentic_ray.array.statistics import sum as _sum

Axis = int | tuple[int, ...] | None


def _numbers(x: Any) -> Array:
    """Convert ``x`` to a floating point dtype."""
    node = strict_operand(x)
    return Array(cast(node, np.float64) if node.dtype.kind in "biu" else node)


def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Array:
    """Compute the norm of order ``ord`` of the vectors over ``axis`` (default: of all elements).

    Raises
    ------
    ValueError
        There is no such norm.
    """
    x = _numbers(x)
    axis = tuple(axis) if isinstance(axis, list) else axis
    if isinstance(ord, str):
        raise ValueError(f"Invalid norm order '{ord}' for vectors")
    result: Array
    if ord is None:
        ord = 2
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


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Compute the norm of each matrix in a stack.

    Raises
    ------
    ValueError
        There is no such norm.
    """
    x = Array(inexact("matrix_norm", x))
    if ord is None or ord in ("fro", "f"):
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        first, second = (-2, -1) if abs(ord) == 1 else (-1, -2)
        sums = _sum(_abs(x), axis=first, keepdims=True)
        if x.size == 0 and ord > 0:
            return _nothing(x, keepdims)
        result = (_max if ord > 0 else _min)(sums, axis=second, keepdims=True)
    elif ord in (2, -2, "nuc"):
        if x.size == 0 and ord in (2, "nuc"):
            return _nothing(x, keepdims)
        values = svdvals(x)
        if ord == "nuc":
            result = _sum(values, axis=-1, keepdims=True)
        else:
            result = (_max if ord == 2 else _min)(values, axis=-1, keepdims=True)
        result = expand_dims(result, axis=-1)
    else:
        raise ValueError(f"Invalid norm order {ord!r} for matrices.")
    return result if keepdims else result[..., 0, 0]


def _nothing(x: Array, keepdims: bool) -> Array:
    """Return the norm of matrices without elements."""
    shape = (*x.shape[:-2], 1, 1) if keepdims else x.shape[:-2]
    return zeros(shape, dtype=_abs(x).dtype)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """Compute the norm of vectors for one axis, of matrices for two.

    Parameters
    ----------
    x : array_like
    ord : number, "fro" or "nuc", optional
        Order of the norm; default: the square root of the sum of squares.
    axis : int or pair of int, optional
        Axes of the vectors or matrices; default: all of the array.
    keepdims : bool
        Whether to keep these axes with length 1.

    Raises
    ------
    ValueError
        There is no such norm, or no norm over so many axes.
    """
    array = _numbers(x)
    count = array.ndim
    if axis is None and (ord is None or (ord in ("f", "fro") and count == 2)
                         or (ord == 2 and count == 1)):  # fmt: skip
        made = vector_norm(ravel(array, "K"))
        return made.reshape((1,) * count) if keepdims else made
    axes = tuple(range(count)) if axis is None else (
        tuple(axis) if isinstance(axis, list | tuple) else (axis,))  # fmt: skip
    if axis is not None and len(axes) == 1 and not hasattr(axes[0], "__index__"):
        raise TypeError("'axis' must be None, an integer or a tuple of integers")
    found = normalize_axis_tuple(axes, count, allow_duplicate=True)
    if len(found) == 1:
        return vector_norm(array, axis=found[0], keepdims=keepdims, ord=ord)
    if len(found) != 2:
        raise ValueError("Improper number of dimensions to norm.")
    if found[0] == found[1]:
        raise ValueError("Duplicate axes given.")
    made = matrix_norm(moveaxis(array, found, (-2, -1)), ord=ord)
    for at in sorted(found) if keepdims else ():
        made = expand_dims(made, at)
    return made


@host_only
def _cond_kernel(xp: Any, x: Any, p: Any) -> Any:
    return np.asarray(np.linalg.cond(x, p))


_COND = gufunc_op("cond", _cond_kernel, 256)


def cond(x: Any, p: Any = None) -> Array:
    """Compute the condition number of each matrix: its norm times that of its inverse.

    Parameters
    ----------
    x : array_like
        Matrices, of shape (..., m, n).
    p : number, "fro" or "nuc", optional
        Norm; default: the largest singular value, by the smallest.

    Raises
    ------
    numpy.linalg.LinAlgError
        A matrix is empty; or not square, for other norms than the default.
    """
    if strict_operand(x).ndim >= 2 and not strict_operand(x).size:
        raise np.linalg.LinAlgError("cond is not defined on empty arrays")
    by_values = p is None or p in (2, -2)
    node = inexact("cond", x, square=not by_values)
    array = Array(node)
    if by_values:
        values = svdvals(array)
        ends = values[..., -1], values[..., 0]
        found = divide(*ends) if p == -2 else divide(*ends[::-1])
        broken = _any(isnan(array), axis=(-2, -1))
        return where(isnan(found) & ~broken, np.inf, found).astype(found.dtype)  # type: ignore[no-any-return]
    if not is_cut(node):
        dtype = np.empty(0, node.dtype).real.dtype
        return Array(gufunc(_COND, [node], (2,), (), dtype, (p,)))
    own = norm(array, p, (-2, -1))
    try:
        return own * norm(inv(array), p, (-2, -1)).persist()
    except np.linalg.LinAlgError:  # no inverse: the condition is infinite
        return own * 0 + np.inf


def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    """Count the singular values of each matrix that exceed a limit.

    Parameters
    ----------
    A : array_like
        Matrices, of shape (..., m, n); a vector's rank is 1 unless all its elements are zero.
    tol : float or array_like, optional
        Absolute limit.
    hermitian : bool
        Whether each matrix is Hermitian.
    rtol : float or array_like, optional
        Limit relative to the largest singular value; default: the larger of m and n times the
        machine's precision.

    Raises
    ------
    ValueError
        ``tol`` and ``rtol`` are both given.
    """
    if rtol is not None and tol is not None:
        raise ValueError("`tol` and `rtol` can't be both set.")
    if strict_operand(A).ndim < 2:
        return _any(Array(strict_operand(A)) != 0).astype(np.int64)  # type: ignore[no-any-return]
    node = inexact("matrix_rank", A, square=hermitian)
    values = _abs(eigvalsh(Array(node))) if hermitian else svdvals(Array(node))
    if not values.shape[-1]:
        return zeros(node.shape[:-2], dtype=np.int64)
    if tol is None:
        limit = default_rtol(node) if rtol is None else rtol
        limit = _by_matrix(limit) * _max(values, axis=-1, keepdims=True)
    else:
        limit = _by_matrix(tol)
    return count_nonzero(values > limit, axis=-1)


def _by_matrix(limit: Any) -> Any:
    """Give a limit for each matrix the axis of its singular values; leave a number as it is."""
    return expand_dims(limit, axis=-1) if np.ndim(limit) else limit
