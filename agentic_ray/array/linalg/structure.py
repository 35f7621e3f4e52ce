"""Diagonals and traces of matrices, and matrices made of a diagonal."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import gufunc, gufunc_op, leaf, strict_operand
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import concatenated, permuted, rechunk, sliced
from agentic_ray.array.creation import eye, zeros
from agentic_ray.array.elementwise import where
from agentic_ray.array.statistics import sum as _sum


def _diagonal_kernel(xp: Any, x: Any, offset: int) -> Any:
    return xp.diagonal(x, offset=offset, axis1=-2, axis2=-1)


_DIAGONAL = gufunc_op("diagonal", _diagonal_kernel)


def matrix_operand(name: str, x: Any, *, square: bool = False) -> Node:
    """``x`` as a stack of matrices.

    Raises
    ------
    numpy.linalg.LinAlgError
        It has fewer than two axes, or the last two differ where they must not.
    """
    node = strict_operand(x)
    if node.ndim < 2:
        raise np.linalg.LinAlgError(f"{name}: {node.ndim}-dimensional array given, needs 2 axes")
    if square and node.shape[-1] != node.shape[-2]:
        raise np.linalg.LinAlgError(f"{name}: last 2 axes must be square, not {node.shape[-2:]}")
    return node


def diagonal(x: Array, /, *, offset: int = 0) -> Array:
    """The diagonal of each matrix in a stack."""
    node = strict_operand(x)
    if node.ndim < 2:
        raise ValueError(f"diagonal needs at least 2 axes, not {node.ndim}")
    return Array(_diagonal(node, operator.index(offset)))


def _diagonal(node: Node, offset: int) -> Node:
    rows, columns = node.shape[-2:]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    if node.ndim == 2 and node.blocks > 1 and length:
        return _diagonal_in_blocks(node, max(-offset, 0), max(offset, 0), length)
    return gufunc(_DIAGONAL, [node], (2,), (length,), node.dtype, (offset,))


def _diagonal_in_blocks(node: Node, row: int, column: int, length: int) -> Node:
    """The diagonal from one element on, a piece of each chunk it runs through."""
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
    """The diagonal over two axes, which becomes the last one."""
    node = x._node
    rest = [axis for axis in range(node.ndim) if axis not in (first, second)]
    return Array(_diagonal(permuted(node, (*rest, first, second)), 0))


def trace(x: Array, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """The sum of the diagonal of each matrix in a stack."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def diag(x: Any, k: int = 0) -> Array:
    """The diagonal of a matrix, or a matrix with this diagonal, as in NumPy."""
    node = strict_operand(x)
    if node.ndim == 2:
        return diagonal(Array(node), offset=k)
    if node.ndim != 1:
        raise ValueError("diag takes a vector or a matrix")
    size = node.shape[0] + abs(k)
    padding = leaf(np.zeros(abs(k), node.dtype))
    # Above the main diagonal the values stand in the last columns, below it in the first.
    row = concatenated([padding, node] if k > 0 else [node, padding], 0) if k else node
    mask = eye(size, k=k, dtype=np.bool_)
    return where(mask, Array(row), zeros((), dtype=node.dtype))
