"""Triangles and diagonals of matrices: their elements, and the positions of these."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import check_like
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import check_numbers, elementwise, strict_operand
from agentic_ray.array.core.node import Op
from agentic_ray.array.core.program import Location
from agentic_ray.array.core.views import broadcast
from agentic_ray.array.creation import created, ones
from agentic_ray.array.ranges import arange, positions
from agentic_ray.array.searching import nonzero
from agentic_ray.array.small import by_numpy_if_small


def _tri_kernel(xp: Any, location: Location, k: int, dtype: Any) -> Any:
    (row, column), shape = location
    rows = xp.reshape(xp.arange(row, row + shape[0]), (-1, 1))
    columns = xp.reshape(xp.arange(column, column + shape[1]), (1, -1))
    return standard.cast(xp, columns <= rows + k, dtype)


TRI = Op("tri", "create", _tri_kernel)


def tri(
    N: int,
    M: int | None = None,
    k: int = 0,
    dtype: Any = float,
    *,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return ones on and below the ``k``-th diagonal (``N`` rows, ``M`` columns), zeros above."""
    check_like(like)
    shape = tuple([max(operator.index(n), 0) for n in (N, N if M is None else M)])
    dtype = check_numbers(np.dtype(dtype))
    return created(TRI, (operator.index(k), dtype), shape, dtype, chunks, None)


def _tril_kernel(xp: Any, x: Any, rows: Any, columns: Any, k: int) -> Any:
    return xp.where(columns <= rows + k, x, xp.zeros((), dtype=x.dtype))


def _triu_kernel(xp: Any, x: Any, rows: Any, columns: Any, k: int) -> Any:
    return xp.where(columns >= rows + k, x, xp.zeros((), dtype=x.dtype))


_TRIL = Op("tril", "map", _tril_kernel)
_TRIU = Op("triu", "map", _triu_kernel)


def _triangle(op: Op, m: Any, k: int) -> Array:
    node = strict_operand(m)
    if node.ndim == 1:  # as in NumPy, the rows of a matrix
        node = broadcast(node, (node.size, node.size), (node.chunks[0], node.chunks[0]))
    if node.ndim < 2:
        raise ValueError(f"{op.name} needs at least 2 axes, not {node.ndim}")
    rows, columns = positions(node, node.ndim - 2), positions(node, node.ndim - 1)
    return Array(elementwise(op, [node, rows, columns], (operator.index(k),)))


@by_numpy_if_small
def tril(m: Any, k: int = 0) -> Array:
    """Return the lower triangle of each matrix, up to the ``k``-th diagonal; zeros above."""
    return _triangle(_TRIL, m, k)


@by_numpy_if_small
def triu(m: Any, k: int = 0) -> Array:
    """Return the upper triangle of each matrix, from the ``k``-th diagonal; zeros below."""
    return _triangle(_TRIU, m, k)


# --- positions ---------------------------------------------------------------------------


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Array, ...]:
    """Return row and column of each element of the lower triangle of ``n`` rows and ``m`` columns.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.tril_indices(2)
    (Array([0, 1, 1], dtype=int64), Array([0, 0, 1], dtype=int64))
    """
    return nonzero(tri(n, m, k, bool))


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Array, ...]:
    """Return row and column of each element of the upper triangle: see `tril_indices`."""
    return nonzero(~tri(n, m, k - 1, bool))


def _matrix(arr: Any) -> Array:
    array = arr if isinstance(arr, Array) else Array(strict_operand(arr))
    if array.ndim != 2:
        raise ValueError("input array must be 2-d")
    return array


def tril_indices_from(arr: Any, k: int = 0) -> tuple[Array, ...]:
    """Return `tril_indices` of a matrix of the shape of ``arr``.

    Raises
    ------
    ValueError
        ``arr`` is no matrix.
    """
    rows, columns = _matrix(arr).shape
    return tril_indices(rows, k, columns)


def triu_indices_from(arr: Any, k: int = 0) -> tuple[Array, ...]:
    """Return `triu_indices` of a matrix of the shape of ``arr``.

    Raises
    ------
    ValueError
        ``arr`` is no matrix.
    """
    rows, columns = _matrix(arr).shape
    return triu_indices(rows, k, columns)


def mask_indices(n: int, mask_func: Callable[..., Any], k: Any = 0) -> tuple[Array, ...]:
    """Return row and column of each element of an ``n`` × ``n`` matrix that ``mask_func``, such as
    `triu`, leaves other than zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.mask_indices(2, xp.triu)
    (Array([0, 0, 1], dtype=int64), Array([0, 1, 1], dtype=int64))
    """
    return nonzero(mask_func(ones((n, n), int), k) != 0)


def diag_indices(n: int, ndim: int = 2) -> tuple[Array, ...]:
    """Return the index of the main diagonal of an array of ``ndim`` axes of length ``n``."""
    return (arange(n),) * ndim


def diag_indices_from(arr: Any) -> tuple[Array, ...]:
    """Return `diag_indices` of an array of the shape of ``arr``.

    Raises
    ------
    ValueError
        ``arr`` has fewer than two axes, or they differ in length.
    """
    shape = np.shape(arr)
    if not len(shape) >= 2:
        raise ValueError("input array must be at least 2-d")
    if len(set(shape)) > 1:
        raise ValueError("All dimensions of input must be of equal length")
    return diag_indices(shape[0], len(shape))
