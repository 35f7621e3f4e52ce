"""Diagonals and traces of matrices, and matrices made of a diagonal or of powers."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array, viewed
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import gufunc, gufunc_op, leaf, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import NDArray, Node
from agentic_ray.array.core.views import (
    concatenated,
    expanded,
    permuted,
    rechunk,
    reshaped,
    sliced,
)
from agentic_ray.array.creation import eye, ones, zeros
from agentic_ray.array.elementwise import where
from agentic_ray.array.scans import cumprod
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import sum as _sum
from agentic_ray.array.viewing import Broadcast


def _diagonal_kernel(xp: Any, x: Any, offset: int) -> Any:
    return xp.diagonal(x, offset=offset, axis1=-2, axis2=-1)


_DIAGONAL = gufunc_op("diagonal", _diagonal_kernel)


def matrix_operand(name: str, x: Any, *, square: bool = False) -> Node:
    """Return ``x`` as a stack of matrices.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``x`` has fewer than two axes, or the last two differ where they must not.
    """
    node = strict_operand(x)
    if node.ndim < 2:
        raise np.linalg.LinAlgError(f"{name}: {node.ndim}-dimensional array given, needs 2 axes")
    if square and node.shape[-1] != node.shape[-2]:
        raise np.linalg.LinAlgError(f"{name}: last 2 axes must be square, not {node.shape[-2:]}")
    return node


@dataclass(frozen=True, slots=True)
class Diagonal:
    """Step to a view of the diagonals over two axes, which NumPy makes read-only."""

    offset: int
    axis1: int
    axis2: int

    def see(self, memory: NDArray) -> NDArray:
        return memory.diagonal(self.offset, self.axis1, self.axis2)

    def read(self, whole: Node) -> Node:
        rest = [axis for axis in range(whole.ndim) if axis not in (self.axis1, self.axis2)]
        return _diagonal(permuted(whole, (*rest, self.axis1, self.axis2)), self.offset)

    def write(self, whole: Node, part: Node) -> Node:
        raise ValueError("assignment destination is read-only: a diagonal is (see fill_diagonal)")


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return the diagonal over two axes, which becomes the last axis; a read-only view.

    Parameters
    ----------
    a : array_like
    offset : int
        Number of columns to the right of the main diagonal.
    axis1, axis2 : int
        Axes of rows and of columns.

    Raises
    ------
    ValueError
        There are fewer than two axes, or the two are the same.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.diagonal([[1, 2], [3, 4]])
    Array([1, 4], dtype=int64)
    """
    array = a if isinstance(a, Array) else Array(strict_operand(a), is_cell=True)
    if array.ndim < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    first, second = (normalize_axis_index(axis, array.ndim) for axis in (axis1, axis2))
    if first == second:
        raise ValueError("axis1 and axis2 cannot be the same")
    return viewed(array, Diagonal(operator.index(offset), first, second))


def matrix_diagonal(x: Any, /, *, offset: int = 0) -> Array:
    """Return the diagonal of each matrix in a stack, a read-only view: ``linalg.diagonal``."""
    return diagonal(x, offset, -2, -1)


def _diagonal(node: Node, offset: int) -> Node:
    rows, columns = node.shape[-2:]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    if node.ndim == 2 and node.blocks > 1 and length:
        return _diagonal_in_blocks(node, max(-offset, 0), max(offset, 0), length)
    return gufunc(_DIAGONAL, [node], (2,), (length,), node.dtype, (offset,))


def _diagonal_in_blocks(node: Node, row: int, column: int, length: int) -> Node:
    """Return the diagonal from one element on, in a piece of each chunk it runs through."""
    ends = {0, length}
    for lengths, start in zip(node.chunks, (row, column), strict=True):
        ends.update(end - start for end in grids.offsets(lengths) if 0 < end - start < length)
    pieces = []
    for low, high in itertools.pairwise(sorted(ends)):
        square = sliced(node, (("s", row + low, high - low, 1), ("s", column + low, high - low, 1)))
        pieces.append(gufunc(_DIAGONAL, [square], (2,), (high - low,), node.dtype, (0,)))
    whole = concatenated(pieces, 0)
    return rechunk(whole, grids.auto(whole.shape, whole.dtype))


def diagonal_axes(x: Array, first: int, second: int) -> Array:
    """Return the diagonal over two axes, which becomes the last one."""
    node = x._node
    rest = [axis for axis in range(node.ndim) if axis not in (first, second)]
    return Array(_diagonal(permuted(node, (*rest, first, second)), 0))


def trace(
    a: Any,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Sum the diagonal over two axes; arguments as in `diagonal` and `sum`."""
    return _sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype, out=out)


def matrix_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """Sum the diagonal of each matrix in a stack: ``linalg.trace``."""
    return trace(x, offset, -2, -1, dtype)  # type: ignore[no-any-return]


def diag(v: Any, k: int = 0) -> Array:
    """Return the ``k``-th diagonal of a matrix, or a matrix with this diagonal, as in NumPy.

    Raises
    ------
    ValueError
        ``v`` is neither a vector nor a matrix.
    """
    node = strict_operand(v)
    if node.ndim == 2:
        return diagonal(v, k)
    if node.ndim != 1:
        raise ValueError("Input must be 1- or 2-d.")
    size = node.shape[0] + abs(k)
    padding = leaf(np.zeros(abs(k), node.dtype))
    # Above the main diagonal the values stand in the last columns, below it in the first.
    row = concatenated([padding, node] if k > 0 else [node, padding], 0) if k else node
    mask = eye(size, k=k, dtype=np.bool_)
    return where(mask, Array(row), zeros((), dtype=node.dtype))


def diagflat(v: Any, k: int = 0) -> Array:
    """Return a matrix whose ``k``-th diagonal has the elements of ``v``, flattened."""
    node = strict_operand(v)
    return diag(Array(reshaped(node, (node.size,))), k)


@by_numpy_if_small
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Array:
    """Return a matrix of powers of the elements of ``x``, each column one power.

    Parameters
    ----------
    x : array_like
        A vector.
    N : int, optional
        Number of columns; default: as many as rows.
    increasing : bool
        Whether the powers rise from left to right.

    Raises
    ------
    ValueError
        ``x`` is no vector.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.vander([1, 2, 3], 2)
    Array([[1, 1],
           [2, 1],
           [3, 1]], dtype=int64)
    """
    node = strict_operand(x)
    if node.ndim != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    count = node.size if N is None else operator.index(N)
    if count < 0:
        raise ValueError("negative dimensions are not allowed")
    dtype = np.promote_types(node.dtype, int)
    if count == 0:
        return zeros((node.size, 0), dtype)
    first = ones((node.size, 1), dtype)._node
    column = expanded(cast(node, dtype), (1,))
    more = Broadcast((node.size, count - 1)).read(column)
    powers = cumprod(Array(concatenated([first, more], 1)), axis=1, dtype=dtype)
    return powers if increasing else powers[:, ::-1].copy()
