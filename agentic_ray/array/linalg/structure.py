"""Parts of matrices: diagonals and traces; cross products and powers."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import broadcast_shapes, gufunc, gufunc_op, strict_operand
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import permuted
from agentic_ray.array.creation import eye
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.manipulation import broadcast_to
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
    return gufunc(_DIAGONAL, [node], (2,), (length,), node.dtype, (offset,))


def diagonal_axes(x: Array, first: int, second: int) -> Array:
    """The diagonal over two axes, which becomes the last one."""
    node = x._node
    rest = [axis for axis in range(node.ndim) if axis not in (first, second)]
    return Array(_diagonal(permuted(node, (*rest, first, second)), 0))


def trace(x: Array, /, *, offset: int = 0, dtype: Any = None) -> Array:
    """The sum of the diagonal of each matrix in a stack."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def cross(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Cross products of vectors of length 3 along ``axis``.

    Raises
    ------
    ValueError
        The length is not 3.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    shape = broadcast_shapes([a.shape, b.shape], "cross")
    at = normalize_axis_index(axis, min(a.ndim, b.ndim)) - min(a.ndim, b.ndim)
    if a.shape[at] != 3 or b.shape[at] != 3:
        raise ValueError(f"cross: vectors must have length 3, not {a.shape[at]}, {b.shape[at]}")
    left, right = broadcast_to(Array(a), shape), broadcast_to(Array(b), shape)
    from agentic_ray.array.manipulation import stack

    def part(array: Array, i: int) -> Array:
        key: list[Any] = [slice(None)] * len(shape)
        key[at] = i
        return array[tuple(key)]

    parts = [
        part(left, i) * part(right, j) - part(left, j) * part(right, i)
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return stack(parts, axis=at)


def matrix_power(x: Array, n: int, /) -> Array:
    """Each matrix multiplied ``n`` times with itself; the inverse's power for negative ``n``."""
    node = matrix_operand("matrix_power", x, square=True)
    n = operator.index(n)
    if n == 0:
        unit = eye(node.shape[-1], dtype=node.dtype)
        return broadcast_to(unit, node.shape)
    base = Array(node)
    if n < 0:
        from agentic_ray.array.linalg.decompositions import inv

        base, n = inv(base), -n
    result: Array | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    assert result is not None
    return result
