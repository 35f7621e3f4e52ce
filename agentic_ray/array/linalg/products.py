"""Products of vectors, matrices and tensors: matmul in blocks, and what is built on it."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.core.views import expanded, permuted, rechunk, reshaped, squeezed
from agentic_ray.array.elementwise import conj, multiply
from agentic_ray.array.linalg import layout as layouts
from agentic_ray.array.linalg.over_rows import over_rows
from agentic_ray.array.linalg.structure import diagonal_axes
from agentic_ray.array.manipulation import broadcast_to, stack
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.array.statistics import sum as _sum
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
    """One product after the other, in the memory of two: what is not allocated anew costs
    neither page faults nor cache."""
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
    left, right = lowering.blocks(a), lowering.blocks(b)
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
        return list(lowering.call(node, _matmul_kernel, rows, flops=flops))
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


MATMUL = Op("matmul", "tasks", _matmul_kernel, _lower_matmul, weight=32)


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
            f"matmul: inner dimensions differ: shapes {x1.shape} and {x2.shape} "
            f"({inner} and {other})"
        )
    if row or column:
        found = over_rows(a, b)
        if found is not None:
            return Array(found)
        a = expanded(a, (0,)) if row else a
        b = expanded(b, (1,)) if column else b
    result = _product(a, b)
    gone = tuple([result.ndim + at for at, is_gone in ((-2, row), (-1, column)) if is_gone])
    return Array(squeezed(result, gone) if gone else result)


def _product(a: Node, b: Node) -> Node:
    """The product of two stacks of matrices."""
    found = over_rows(a, b)
    if found is not None:
        return found
    dtype = np.matmul(np.empty((0, 0), a.dtype), np.empty((0, 0), b.dtype)).dtype
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
        return matmul(x1, x2)
    return tensordot(x1, x2, axes=((a.ndim - 1,), (b.ndim - 2,)))


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Products of vectors along ``axis``, the first one conjugated.

    Raises
    ------
    ValueError
        The lengths along ``axis`` differ.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    at_a, at_b = normalize_axis_index(axis, a.ndim), normalize_axis_index(axis, b.ndim)
    if a.shape[at_a] != b.shape[at_b]:
        raise ValueError(f"vecdot: lengths {a.shape[at_a]} and {b.shape[at_b]} differ")
    left = conj(Array(a)) if a.dtype.kind == "c" else Array(a)
    product = multiply(left, Array(b))
    return _sum(product, axis=axis, dtype=product.dtype)


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

    def part(array: Array, i: int) -> Array:
        key: list[Any] = [slice(None)] * len(shape)
        key[at] = i
        return array[tuple(key)]

    parts = [
        part(left, i) * part(right, j) - part(left, j) * part(right, i)
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return stack(parts, axis=at)


def outer(x1: Array, x2: Array, /) -> Array:
    """All products of an element of one vector with one of the other."""
    a, b = strict_operand(x1), strict_operand(x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer: operands must be one-dimensional, not {a.ndim} and {b.ndim}")
    return multiply(Array(expanded(a, (1,))), Array(expanded(b, (0,))))


def tensordot(x1: Array, x2: Array, /, *, axes: Any = 2) -> Array:
    """Sum of products over axes of both operands.

    Raises
    ------
    ValueError
        The axes do not match in number or length.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    if isinstance(axes, Sequence):
        first, second = (
            normalize_axis_tuple(entry, node.ndim) for entry, node in zip(axes, (a, b), strict=True)
        )
    else:
        count = operator.index(axes)
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise ValueError(f"tensordot: cannot contract {count} axes")
        first, second = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    if len(first) != len(second) or any(
        a.shape[i] != b.shape[j] for i, j in zip(first, second, strict=True)
    ):
        raise ValueError(f"tensordot: shape mismatch for sum over axes {first} and {second}")
    kept_a = tuple([axis for axis in range(a.ndim) if axis not in first])
    kept_b = tuple([axis for axis in range(b.ndim) if axis not in second])
    inner = math.prod([a.shape[axis] for axis in first])
    rows = tuple([a.shape[axis] for axis in kept_a])
    columns = tuple([b.shape[axis] for axis in kept_b])
    left = reshaped(permuted(a, (*kept_a, *first)), (math.prod(rows), inner))
    right = reshaped(permuted(b, (*second, *kept_b)), (inner, math.prod(columns)))
    return Array(reshaped(_product(left, right), (*rows, *columns)))


def einsum(subscripts: str, /, *operands: Any) -> Array:
    """Einstein's summation, as in NumPy; contracted two operands at a time.

    Raises
    ------
    ValueError
        The subscripts do not fit the operands.
    """
    nodes = [strict_operand(x) for x in operands]
    text = subscripts.replace(" ", "")
    path = _einsum_path(text, tuple([(node.shape, node.dtype) for node in nodes]))
    inputs, result = _spelled_out(text, [node.ndim for node in nodes])
    dtype = np.result_type(*[node.dtype for node in nodes])
    terms = [(Array(cast(node, dtype)), term) for node, term in zip(nodes, inputs, strict=True)]
    for step in path:
        chosen = [terms[i] for i in sorted(step, reverse=True)]
        terms = [term for i, term in enumerate(terms) if i not in step]
        keep = set(result).union(*[term for _, term in terms])
        while len(chosen) > 1:
            first, second = chosen.pop(), chosen.pop()
            needed = keep.union(*[term for _, term in chosen])
            chosen.append(_contracted(first, second, needed))
        terms.append(_reduced(chosen[0], keep))
    value, term = terms[0]
    value, term = _reduced((value, term), set(result))
    return Array(permuted(value._node, tuple([term.index(name) for name in result])))


@functools.lru_cache(maxsize=256)
def _einsum_path(
    text: str, operands: tuple[tuple[Shape, DType], ...]
) -> tuple[tuple[int, ...], ...]:
    """Which operands are contracted one after the other; NumPy checks the subscripts here."""
    shapes = [np.broadcast_to(np.empty((), dtype), shape) for shape, dtype in operands]
    path = np.einsum_path(text, *shapes, optimize="greedy")
    np.einsum(text, *[np.empty((1,) * len(shape), dtype) for shape, dtype in operands])
    return tuple(path[0][1:])


def _spelled_out(text: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Subscripts of each operand and of the result, without ellipsis."""
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    letters = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in text]
    widths = [
        ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, ndim in zip(terms, ndims, strict=True)
    ]
    common = letters[: max(widths, default=0)]
    spelled = [
        term.replace("...", "".join(common[len(common) - width :]))
        for term, width in zip(terms, widths, strict=True)
    ]
    if arrow:
        return spelled, right.replace("...", "".join(common))
    joined = "".join(spelled)
    once = sorted(c for c in set(joined) if joined.count(c) == 1 and c not in common)
    return spelled, "".join(common) + "".join(once)


def _reduced(entry: tuple[Array, str], keep: set[str]) -> tuple[Array, str]:
    """Diagonals taken for repeated names, and names summed over that nobody needs."""
    value, term = entry
    for name in set(term):
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            value = diagonal_axes(value, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + name
    gone = tuple([axis for axis, name in enumerate(term) if name not in keep])
    if gone:
        value = _sum(value, axis=gone, dtype=value.dtype)
        term = "".join(name for name in term if name in keep)
    return value, term


def _contracted(
    first: tuple[Array, str], second: tuple[Array, str], keep: set[str]
) -> tuple[Array, str]:
    """Two operands as one stack of matrix products."""
    (a, left), (b, right) = _reduced(first, keep | set(second[1])), _reduced(
        second, keep | set(first[1]))  # fmt: skip
    shared = [name for name in left if name in right]
    batch = [name for name in shared if name in keep]
    inner = [name for name in shared if name not in keep]
    rows = [name for name in left if name not in right]
    columns = [name for name in right if name not in left]
    sizes = dict(zip(right, b.shape, strict=True))
    for name, size in zip(left, a.shape, strict=True):
        sizes[name] = max(size, sizes.get(name, 1)) if size and sizes.get(name, 1) else 0

    def arranged(value: Array, term: str, groups: Sequence[list[str]]) -> Node:
        order = [term.index(name) for group in groups for name in group]
        node = permuted(value._node, tuple(order))
        flat = tuple([math.prod(sizes[name] for name in group) for group in groups[1:]])
        return reshaped(node, (*[sizes[name] for name in groups[0]], *flat))

    product = _product(
        arranged(a, left, [batch, rows, inner]), arranged(b, right, [batch, inner, columns])
    )
    names = [*batch, *rows, *columns]
    return Array(reshaped(product, tuple([sizes[name] for name in names]))), "".join(names)
