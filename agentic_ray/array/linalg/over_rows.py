"""Products that sum over the rows of both operands, ``a.T @ b``, in one pass over their chunks.

If the rows are many and the result is small (normal equations, gradients, covariances, Gram
matrices, ``v @ a``), each task multiplies a chunk of ``a`` with the chunk of ``b`` that has the
same rows, and the products are added in a tree. A task also computes the elementwise chains below
both operands, some rows at a time, so that the multiplied values are never written to memory.
Shapes and chunks alone decide which products are made so.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import sharing
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import BLOCK_ELEMENTS, Node, Op, make
from agentic_ray.array.core.program import Program, codelet
from agentic_ray.array.core.views import PERMUTE, rechunk
from agentic_ray.array.elementwise import conj
from agentic_ray.array.linalg import panels
from agentic_ray.array.reducing import add_partials
from agentic_ray.graph import CostHint

AT_ONCE_ELEMENTS = 2 * BLOCK_ELEMENTS
"""Elements of the wider operand that are made and multiplied at a time: they stay in a core's
cache, and the product is large enough for a call."""
LEAST_ROWS = 512
"""Least rows that are multiplied at a time: a wide result is read and written for each time."""
LEAST_ROWS_OF_VECTOR = 64
"""Least rows that are multiplied at a time where the result is a vector."""
WORTH = 4
"""The operands must have at least so many times the elements of all chunks' products; otherwise a
product is better cut in blocks. (For a square result, chunks then have twice as many rows as
columns.)"""

Rows = Callable[[int, int], Any]
"""``rows(start, stop)``: returns these rows of an operand, in C order."""


# --- which products ----------------------------------------------------------------------


def over_rows(left: Node, right: Node) -> Node | None:
    """Compute ``left @ right`` as a sum over rows; return None where another way is better.

    ``left`` is a vector or the transpose of a matrix, ``right`` a vector or a matrix; their lengths
    fit.
    """
    source = _transposed(left)
    if source is None or right.ndim > 2 or not source.size or not right.size:
        return None
    dtype = np.result_type(source.dtype, right.dtype)
    rows, m, n = right.shape[0], _width(source.shape), _width(right.shape)
    lengths = (source if source.nbytes >= right.nbytes else right).chunks[0]
    if (
        dtype.kind not in "fciu"
        or dtype == np.float16
        or WORTH * len(lengths) * m * n > rows * (m + n)
    ):
        return None
    a, b = [rechunk(node, (lengths, *node.chunks[1:])) for node in (source, right)]
    shape, chunks = (*a.shape[1:], *b.shape[1:]), (*a.chunks[1:], *b.chunks[1:])
    return make(_OVER_ROWS, (a, b), (), shape, dtype, chunks)


def gram(x: Node) -> Node:
    """Multiply the conjugate transpose of ``x``, a matrix cut along its rows, by ``x``."""
    left = conj(Array(x))._node if x.dtype.kind == "c" else x
    shape = (x.shape[1], x.shape[1])
    return make(_OVER_ROWS, (left, x), (), shape, x.dtype, grids.single(shape))


def _transposed(node: Node) -> Node | None:
    """Return the matrix whose transpose ``node`` is; None if it is no transpose. (The result does
    not depend on whether the value is known, since bits must not.)"""
    if node.ndim == 1:
        return node
    if node.op is PERMUTE and node.params[0] == (1, 0):
        return node.inputs[0]
    return None


def _width(shape: Shape) -> int:
    return math.prod(shape[1:])


# --- one chunk ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProductOverRows:
    """Kernel that a task calls with one block of each input of ``left`` and then of ``right``;
    without ``right`` the values of ``left`` are both operands."""

    left: Program
    right: Program | None
    inputs_of_left: int
    shares_blocks: ClassVar[bool] = True

    def __call__(self, xp: Any, *blocks: Any) -> Any:
        shape, left = self.left.rows(blocks[: self.inputs_of_left], xp)
        if self.right is None:
            return summed(xp, shape, left, shape, None)
        shape_of_right, right = self.right.rows(blocks[self.inputs_of_left :], xp)
        return summed(xp, shape, left, shape_of_right, right)


def _whole(xp: Any, a: Any, b: Any) -> Any:
    def rows_of(x: Any) -> Rows:
        return lambda start, stop: x[start:stop]

    return summed(xp, a.shape, rows_of(a), b.shape, None if a is b else rows_of(b))


def summed(xp: Any, shape: Shape, left: Rows, shape_of_right: Shape, right: Rows | None) -> Any:
    """Multiply two operands of so many rows and add up, some rows at a time, from the first on.
    Without ``right``, multiply ``left`` by itself."""
    length, m, n = shape[0], _width(shape), _width(shape_of_right)
    step = max(AT_ONCE_ELEMENTS // max(m, n, 1), LEAST_ROWS if m > 1 < n else LEAST_ROWS_OF_VECTOR)
    starts = range(0, length, step if xp is np else length)

    def product(number: int) -> Any:
        start = starts[number]
        stop = min(start + starts.step, length)
        a = left(start, stop)
        return _product(xp, a, a if right is None else right(start, stop))

    return functools.reduce(operator.add, sharing.in_order(product, len(starts)))


def _product(xp: Any, a: Any, b: Any) -> Any:
    """Compute ``a.T @ b``.

    A product of a matrix with itself needs half of the work, and has other bits: NumPy leaves it to
    another routine of BLAS (`syrk`) where both operands are the same memory. Here that routine is
    used wherever both operands are the same values.
    """
    if xp is np:
        if a is not b and a.shape == b.shape and a.ndim == 2 and _same_bits(a, b):
            b = a
        if panels.fit(a, b):
            return panels.product(a, b)
    return xp.matmul(a if a.ndim == 1 else a.T, b)


def _same_bits(a: Any, b: Any) -> bool:
    """Whether two matrices are the same bytes. (Different ones mostly differ in the first row.)"""
    if a.dtype != b.dtype:
        return False
    one, other = a.view(np.uint8), b.view(np.uint8)
    return bool((one[0] == other[0]).all()) and bool((one == other).all())


# --- all chunks --------------------------------------------------------------------------


def _lower(node: Node, lowering: Any) -> list[Any]:
    a, b = node.inputs
    left, right = lowering.made_inside(a), lowering.made_inside(b)
    across, down = [math.prod(grids.numblocks(x.chunks)[1:]) for x in (a, b)]
    chunks = len(a.chunks[0])
    with_itself = a is b and across == 1
    own = right.columns if not with_itself else []
    rows = [
        (
            *[column[k * across + i] for column in left.columns],
            *[column[k * down + j] for column in own],
        )
        for i in range(across)
        for j in range(down)
        for k in range(chunks)
    ]
    titles = [part.title for part in (left, right)[: 1 if with_itself else 2] if part.title]
    parts = lowering.call(
        node,
        ProductOverRows(left.program, None if with_itself else right.program, len(left.columns)),
        rows,
        label=".".join([".self" if with_itself else ".both", *titles]),
        read_bytes=left.read_bytes * down + right.read_bytes * across,
        written_bytes=node.nbytes * chunks,
        flops=2.0 * node.size * a.shape[0] + left.flops * down + right.flops * across,
    )
    if chunks == 1:
        return list(parts)
    add = codelet("over_rows.sum", add_partials)
    small = CostHint(read_bytes=2 * node.nbytes // (across * down), items=0)
    return [
        lowering.tree(node, parts[at : at + chunks], add, f".sum{at // chunks}", small)
        for at in range(0, len(parts), chunks)
    ]


def _takes_along(node: Node, operand: Node) -> bool:
    """Whether each block of an operand is needed by one task alone."""
    others = [x for x in node.inputs if x is not operand]
    return all(math.prod(grids.numblocks(x.chunks)[1:]) == 1 for x in others or node.inputs)


_OVER_ROWS = Op("over_rows", "tasks", _whole, _lower, weight=32, takes_along=_takes_along)
