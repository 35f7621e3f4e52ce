"""Products of vectors, matrices and tensors: matmul in blocks, and what is built on it."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import sharing
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.core.views import expanded, permuted, rechunk, reshaped, squeezed
from agentic_ray.array.elementwise import multiply
from agentic_ray.array.linalg import layout as layouts
from agentic_ray.array.linalg.over_rows import over_rows
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.graph import CostHint
from agentic_ray.schedule.calibration import Calibration

_PRIOR = Calibration()
"""What the cost model knows before it has learnt anything: the same on every cluster."""

Span = tuple[tuple[int, int, int], tuple[int, int, int]]
"""A piece of the inner axis: (chunk, start, stop) in the left and in the right operand."""


def _matmul_kernel(xp: Any, a: Any, b: Any, *, out: Any = None) -> Any:
    """The product of two blocks, which lie in C order.

    One that is a single column, and the other as a row, may be the same memory: NumPy would take
    another routine of BLAS than for copies.
    """
    if xp is np and a.shape[-1] == 1 and np.may_share_memory(a, b):
        b = b.copy()
    return xp.matmul(a, b) if out is None else xp.matmul(a, b, out=out)


PANEL_WORK = 1 << 22
"""Least multiplications of a panel; each column counts as eight where there are fewer."""
PANEL_ROWS = 512
"""Least rows of a panel: BLAS packs the right operand anew for each."""
MOST_PANELS = 8


def panel_rows(rows: int, inner: int, columns: int) -> int:
    """Return how many rows of the left operand are multiplied at a time, for operands of one chunk.
    Only shapes decide, so that the bits do not depend on the number of threads."""
    least = -(-PANEL_WORK // max(inner * max(columns, 8), 1))
    fair = -(-rows // MOST_PANELS)
    return -(-max(least, fair, PANEL_ROWS) // 64) * 64


def _matmul_whole(xp: Any, a: Any, b: Any) -> Any:
    """Multiply two operands of one chunk each: by panels of rows, which idle threads take too."""
    if (
        xp is not np
        or a.ndim != 2
        or b.ndim != 2
        or a.dtype != b.dtype
        or a.dtype.char not in "fdFD"
    ):
        return _matmul_kernel(xp, a, b)
    rows, columns = a.shape[0], b.shape[1]
    height = panel_rows(rows, a.shape[1], columns)
    if rows < 2 * height:
        return _matmul_kernel(xp, a, b)
    out = np.empty((rows, columns), a.dtype)

    def multiply_panel(number: int) -> None:
        part = slice(number * height, (number + 1) * height)
        _matmul_kernel(np, a[part], b, out=out[part])

    sharing.each(multiply_panel, -(-rows // height))
    return out


_matmul_whole.shares_blocks = True  # type: ignore[attr-defined]


def _add(left: Any, right: Any, *, xp: Any) -> Any:
    return left + right


def _matmul_folded(xp: Any, left: Sequence[Any], right: Sequence[Any]) -> Any:
    """The sum of products of blocks, added from left to right."""
    return _added(xp, zip(left, right, strict=True))


def _matmul_cut(xp: Any, left: Sequence[Any], right: Sequence[Any], spans: Sequence[Span]) -> Any:
    """The sum of products of blocks that are cut differently along the inner axis."""
    return _added(
        xp, ((left[i][..., a:b], right[j][..., c:d, :]) for (i, a, b), (j, c, d) in spans)
    )


def _added(xp: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
    """Add up products one after the other, in the memory of two: memory that is not allocated anew
    costs neither page faults nor cache."""
    (a, b), *rest = pairs
    total = _matmul_kernel(xp, a, b)
    if rest:
        product = xp.empty_like(total)
        for a, b in rest:
            total += _matmul_kernel(xp, a, b, out=product)
    return total


def _inner_spans(first: Sequence[int], second: Sequence[int]) -> tuple[Span, ...]:
    """Pieces that two cuts of one axis have in common: where each lies in either of them."""
    ends = sorted({*grids.offsets(first), *grids.offsets(second)})
    pieces = [high - low for low, high in itertools.pairwise(ends)]
    return tuple(
        (one[0], other[0])
        for one, other in zip(
            grids.overlaps(first, pieces), grids.overlaps(second, pieces), strict=True
        )
    )


def _lower_matmul(node: Node, lowering: Any) -> list[Any]:
    a, b = node.inputs
    loop = node.ndim - 2
    grid = grids.numblocks(node.chunks)
    inner, inner_b = len(a.chunks[-1]), len(b.chunks[-2])
    rows_a = grids.blocks_under(grids.numblocks(a.chunks)[:-2], grid[:loop])
    rows_b = grids.blocks_under(grids.numblocks(b.chunks)[:-2], grid[:loop])
    left, right = lowering.readings(a), lowering.readings(b)
    columns_of_b = len(b.chunks[-1])
    pairs: list[tuple[list[Any], list[Any]]] = []
    for at, (i, j) in itertools.product(
        range(math.prod(grid[:loop])), itertools.product(range(grid[-2]), range(grid[-1]))
    ):
        base_a = rows_a[at] * len(a.chunks[-2]) * inner
        base_b = rows_b[at] * inner_b * columns_of_b
        pairs.append(
            (
                [left[base_a + i * inner + k] for k in range(inner)],
                [right[base_b + k * columns_of_b + j] for k in range(inner_b)],
            )
        )
    flops = 2.0 * node.size * a.shape[-1]
    if a.chunks[-1] != b.chunks[-2]:
        spans = _inner_spans(a.chunks[-1], b.chunks[-2])
        return list(lowering.call(node, _matmul_cut, pairs, params=(spans,), flops=flops))
    if inner == 1:
        rows = [(x[0], y[0]) for x, y in pairs]
        kernel = _matmul_whole if len(pairs) == 1 else _matmul_kernel
        return list(lowering.call(node, kernel, rows, flops=flops))
    if len(pairs) >= layouts.FOLDING_BLOCKS:
        return list(lowering.call(node, _matmul_folded, pairs, flops=flops))
    flat = [(x, y) for xs, ys in pairs for x, y in zip(xs, ys, strict=True)]
    partial = lowering.call(
        node, _matmul_kernel, flat, label=".product", flops=flops,
        written_bytes=node.nbytes * inner,
    )  # fmt: skip
    result: list[Any] = []
    combine = codelet("matmul.combine", _add)
    cost = CostHint(read_bytes=2 * node.nbytes // len(pairs), items=0)
    for start in range(0, len(partial), inner):
        parts = partial[start : start + inner]
        result.append(lowering.tree(node, parts, combine, f".sum{start // inner}", cost))
    return result


MATMUL = Op("matmul", "tasks", _matmul_whole, _lower_matmul, weight=32, reads_views=True)


def matmul(x1: Any, x2: Any, /) -> Array:
    """Product of matrices, or of stacks of them; vectors are a row or a column.

    Raises
    ------
    ValueError
        An operand has no axis, or the inner lengths differ.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    if not a.ndim or not b.ndim:
        raise ValueError("matmul: operands need at least one axis")
    row, column = a.ndim == 1, b.ndim == 1
    inner, other = a.shape[-1], b.shape[0] if column else b.shape[-2]
    if inner != other:
        raise ValueError(
            f"matmul: inner dimensions differ: shapes {np.shape(x1)} and {np.shape(x2)} "
            f"({inner} and {other})"
        )
    if row or column:
        found = over_rows(a, b)
        if found is not None:
            return Array(found)
        a = expanded(a, (0,)) if row else a
        b = expanded(b, (1,)) if column else b
    result = product(a, b)
    gone = tuple([result.ndim + at for at, is_gone in ((-2, row), (-1, column)) if is_gone])
    return Array(squeezed(result, gone) if gone else result)


@lru_cache(maxsize=256)
def _dtype_of(left: DType, right: DType) -> DType:
    """The dtype of a product of matrices."""
    found: DType = np.matmul(np.empty((0, 0), left), np.empty((0, 0), right)).dtype
    return found


def product(a: Node, b: Node) -> Node:
    """The product of two stacks of matrices."""
    found = over_rows(a, b)
    if found is not None:
        return found
    dtype = _dtype_of(a.dtype, b.dtype)
    loop: Shape = ()
    if a.ndim > 2 or b.ndim > 2:
        loop = broadcast_shapes([a.shape[:-2], b.shape[:-2]], "matmul")
    cut = grids.unify(loop, [(node.shape[:-2], node.chunks[:-2], node.nbytes) for node in (a, b)])
    if dtype.kind not in "fciub":
        raise TypeError(f"matmul: only numbers can be multiplied, not {dtype}")
    if a.ndim == b.ndim == 2 and a.size and b.size:
        limit = grids.rules().elements(dtype)
        layout = layouts.chosen(a.chunks, b.chunks, dtype.itemsize, limit, _PRIOR)
    else:
        blocks = grids.block_count(cut) * len(a.chunks[-2]) * len(b.chunks[-1])
        layout = layouts.own(a.chunks, b.chunks, a.nbytes, b.nbytes, blocks)
    aligned = []
    for node, core in ((a, layout.left), (b, layout.right)):
        skip = len(loop) - (node.ndim - 2)
        head = tuple(
            [
                cut[skip + axis] if n == loop[skip + axis] else (n,)
                for axis, n in enumerate(node.shape[:-2])
            ]
        )
        aligned.append(rechunk(node, (*head, *core)))
    shape = (*loop, a.shape[-2], b.shape[-1])
    chunks = (*cut, layout.left[0], layout.right[1])
    return make(MATMUL, tuple(aligned), (), shape, dtype, chunks)


FUNCTIONS["matmul"] = matmul


def dot(x1: Any, x2: Any, /) -> Array:
    """NumPy's product: of scalars, vectors, matrices, or over the last and next to last axis."""
    a, b = strict_operand(x1), strict_operand(x2)
    if not a.ndim or not b.ndim:
        return multiply(x1, x2)
    if b.ndim <= 2:
        return matmul(Array(a), Array(b))
    return tensordot(Array(a), Array(b), ((a.ndim - 1,), (b.ndim - 2,)))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Array:
    """Sum of products over axes of both operands.

    Parameters
    ----------
    a, b : array_like
    axes : int or pair of int or sequences
        How many last axes of ``a`` and first axes of ``b``, or which of either.

    Raises
    ------
    ValueError
        The axes do not match in number or length.
    """
    left, right = strict_operand(a), strict_operand(b)
    first, second = _contracted_axes(axes, left, right)
    kept_a = tuple([axis for axis in range(left.ndim) if axis not in first])
    kept_b = tuple([axis for axis in range(right.ndim) if axis not in second])
    inner = math.prod([left.shape[axis] for axis in first])
    rows = tuple([left.shape[axis] for axis in kept_a])
    columns = tuple([right.shape[axis] for axis in kept_b])
    one = reshaped(permuted(left, (*kept_a, *first)), (math.prod(rows), inner))
    other = reshaped(permuted(right, (*second, *kept_b)), (inner, math.prod(columns)))
    return Array(reshaped(product(one, other), (*rows, *columns)))


def _contracted_axes(axes: Any, a: Node, b: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if np.ndim(axes) or isinstance(axes, list | tuple):
        pair = list(axes)
        if len(pair) != 2:
            raise ValueError("axes must be a number or a pair")
        found = tuple(
            [
                normalize_axis_tuple(entry, node.ndim, allow_duplicate=True)
                for entry, node in zip(pair, (a, b), strict=True)
            ]
        )
        first, second = found[0], found[1]
    else:
        count = operator.index(axes)
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise IndexError(f"tuple index out of range: cannot contract {count} axes")
        first, second = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    if len({*first}) != len(first) or len({*second}) != len(second):
        raise ValueError("repeated axis in tensordot")
    if len(first) != len(second) or any(
        a.shape[i] != b.shape[j] for i, j in zip(first, second, strict=True)
    ):
        raise ValueError("shape-mismatch for sum")
    return first, second
