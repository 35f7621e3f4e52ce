"""Solves triangular systems, block of rows after block of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import gufunc, gufunc_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.views import expanded, squeezed
from agentic_ray.array.linalg.columns import in_columns, right_sides
from agentic_ray.array.linalg.structure import matrix_operand


def _triangle(xp: Any, a: Any, lower: bool, unit: bool) -> Any:
    """Return only the triangle of ``a`` that counts."""
    if not unit:
        return xp.tril(a) if lower else xp.triu(a)
    return (xp.tril(a, -1) if lower else xp.triu(a, 1)) + xp.eye(a.shape[-1], dtype=a.dtype)


def _solved(xp: Any, a: Any, b: Any, lower: bool, unit: bool) -> Any:
    """Solve by substitution. A lower triangle is turned round: elimination with exchanges of rows
    leaves an upper triangle as it is, so that only the substitution remains."""
    a = _triangle(xp, a, lower, unit)
    if lower:
        turned = xp.linalg.solve(a[..., ::-1, ::-1], b[..., ::-1, :])
        return turned[..., ::-1, :]
    return xp.linalg.solve(a, b)


_TRIANGULAR = gufunc_op("solve_triangular", _solved, 32)


def _step(xp: Any, b: Any, column: Any, at: int, lower: bool, unit: bool) -> Any:
    """Solve for the rows from ``at`` on and subtract their part from the others."""
    width = column.shape[1]
    out = xp.array(b)
    part = _solved(xp, column[at : at + width], b[at : at + width], lower, unit)
    out[at : at + width] = part
    if lower:
        out[at + width :] -= column[at + width :] @ part
    else:
        out[:at] -= column[:at] @ part
    return out


def _lower_steps(node: Node, lowering: Any) -> list[Any]:
    a, b = node.inputs
    lower, unit = node.params
    columns = lowering.blocks(a)
    starts = grids.offsets(a.chunks[1])[:-1]
    values = list(lowering.blocks(b))
    order = list(range(len(columns)))
    for k in order if lower else reversed(order):
        rows = [(value, columns[k], starts[k]) for value in values]
        values = lowering.call(
            node, _step, rows, params=(lower, unit), label=f".{k}",
            read_bytes=a.nbytes // len(columns) * len(values) + b.nbytes,
            flops=float(node.size) * node.shape[0] / len(columns),
        )  # fmt: skip
    return values


_STEPS = Op("triangular_steps", "tasks", _solved, _lower_steps, weight=32)


def solve_triangular(
    a: Array, b: Array, /, *, lower: bool = False, unit_diagonal: bool = False
) -> Array:
    """Solve ``a @ x = b`` for a triangular ``a``.

    Parameters
    ----------
    a : Array
        Matrices, of shape (..., n, n); only the upper triangle, or with ``lower`` the lower one, is
        read.
    b : Array
        Right-hand sides, of shape (n,) or (..., n, k).
    lower : bool
    unit_diagonal : bool
        Whether the diagonal counts as ones and is not read.

    Returns
    -------
    Array
        Solution in the shape of ``b`` (broadcast). One matrix of several chunks is solved block by
        block; the other axes of ``b`` stay cut.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``a`` is not square; or, when computed, there is a zero on its diagonal.
    ValueError
        The numbers of rows differ.

    References
    ----------
    N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, ch. 8.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> a = xp.asarray([[2.0, 0.0], [1.0, 4.0]])
    >>> xp.linalg.solve_triangular(a, xp.asarray([2.0, 9.0]), lower=True).compute()
    array([1., 2.])
    """
    matrix, right = matrix_operand("solve_triangular", a, square=True), strict_operand(b)
    vector = right.ndim == 1
    right = expanded(right, (1,)) if vector else right
    if right.ndim < 2 or right.shape[-2] != matrix.shape[-1]:
        raise ValueError(
            f"solve_triangular: {matrix.shape[-1]} unknowns but right-hand sides of {b.shape}"
        )
    dtype = np.result_type(matrix.dtype, right.dtype, np.float32)
    if dtype.kind not in "fc":
        raise TypeError(f"solve_triangular: array type {dtype} is unsupported in linalg")
    matrix, right = cast(matrix, dtype), cast(right, dtype)
    params = (bool(lower), bool(unit_diagonal))
    if matrix.ndim == right.ndim == 2 and matrix.blocks + right.blocks > 2 and right.size:
        right = right_sides(right)
        inputs = (in_columns(matrix), right)
        made = make(_STEPS, inputs, params, right.shape, dtype, right.chunks)
    else:
        made = gufunc(_TRIANGULAR, [matrix, right], (2, 2), right.shape[-2:], dtype, params)
    return Array(squeezed(made, (made.ndim - 1,)) if vector else made)
