"""Sets: unique values with their counts, first positions and inverse; membership."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import (
    axes_of,
    blockwise_op,
    leaf,
    operand,
    reduction,
    strict_operand,
)
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.core.views import rechunk, reshaped
from agentic_ray.array.creation import ones, zeros
from agentic_ray.array.differences import diff
from agentic_ray.array.elementwise import logical_not
from agentic_ray.array.indexing import masked
from agentic_ray.array.manipulation import concat
from agentic_ray.array.ranges import ARANGE, positions
from agentic_ray.array.reducing import reduce_op
from agentic_ray.array.samplesort import sorted_chunks
from agentic_ray.array.searching import searchsorted


class UniqueAllResult(NamedTuple):
    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCountsResult(NamedTuple):
    values: Array
    counts: Array


class UniqueInverseResult(NamedTuple):
    values: Array
    inverse_indices: Array


TABLE_ELEMENTS = 1 << 22
"""If the chunks have no more different values than this together, their tables of values are
merged in a tree; else the array is sorted and nothing is ever in one place."""


def _unique(node: Node) -> tuple[Array, Array, Array]:
    """Unique values, first positions and counts; NaNs are all different, as in the standard."""
    flat = reshaped(node, (node.size,))
    if flat.blocks == 1:
        value = evaluate.value(flat)
        values, first, counts = np.unique(
            value, return_index=True, return_counts=True, equal_nan=False
        )
        return Array(leaf(values)), Array(leaf(first)), Array(leaf(counts))
    if node.size > TABLE_ELEMENTS and _different(flat) > TABLE_ELEMENTS:
        return _unique_sorted(flat)
    made = reduction(_UNIQUE, [flat, positions(flat, 0)], axes_of(None, 1), True, flat.dtype)
    values, first, counts = evaluate.table(made)
    return Array(leaf(values)), Array(leaf(first)), Array(leaf(counts))


def _different(flat: Node) -> int:
    """How many different values the chunks have, added up."""
    blocks = len(flat.chunks[0])
    op = blockwise_op("count_unique", _count_kernel, 32)
    made = make(op, (flat,), (), (blocks,), np.dtype(np.int64), ((1,) * blocks,))
    return int(evaluate.value(made).sum())


def _count_kernel(xp: Any, x: Any) -> Any:
    ordered = xp.sort(x)
    return xp.reshape(1 + xp.count_nonzero(ordered[1:] != ordered[:-1]), (1,))


def _unique_sorted(flat: Node) -> tuple[Array, Array, Array]:
    """From the sorted array: a value is new where it differs from the one before it."""
    lengths = (tuple([length for length in flat.chunks[0] if length]),)
    flat = rechunk(flat, lengths)
    index = np.dtype(np.int64)
    sorts = [sorted_chunks(flat, dtype, positions=at) for dtype, at in
             ((flat.dtype, False), (index, True))]  # fmt: skip
    values, order = evaluate.persist(sorts)
    x = Array(values)
    new = concat([ones((1,), dtype=np.bool_), x[1:] != x[:-1]])._node
    mask = evaluate.persist([rechunk(new, lengths)])[0]
    at = make(ARANGE, (), (0, 1, index, 0), flat.shape, index, flat.chunks)
    starts = Array(masked(at, mask))
    end = asarray(np.array([flat.size]))
    return Array(masked(values, mask)), Array(masked(order, mask)), diff(starts, append=end)


def _unique_partial(xp: Any, x: Any, at: Any, axes: tuple[int, ...]) -> Any:
    values, first, counts = xp.unique(x, return_index=True, return_counts=True, equal_nan=False)
    return values, at[first], counts


def _unique_combine(left: Any, right: Any, *, xp: Any) -> Any:
    """Merge two tables; of equal values the left one's position is kept."""
    values = xp.concatenate([left[0], right[0]])
    first = xp.concatenate([left[1], right[1]])
    merged, index, inverse = xp.unique(
        values, return_index=True, return_inverse=True, equal_nan=False
    )
    total = xp.zeros(merged.shape, dtype=left[2].dtype)
    # One table after the other: in each a value comes but once.
    size = left[0].shape[0]
    total[inverse[:size]] += left[2]
    total[inverse[size:]] += right[2]
    return merged, first[index], total


def _unique_final(xp: Any, value: Any, count: int) -> Any:
    return value


_UNIQUE = reduce_op("unique", _unique_partial, _unique_combine, _unique_final, 32, cache_blocks=0)


def _inverse(node: Node, values: Array) -> Array:
    """For each element the position of its value; NaNs, all different, in order."""
    if node.small:
        inverse = np.unique(evaluate.value(node), return_inverse=True, equal_nan=False)[1]
        return Array(leaf(np.asarray(inverse).reshape(node.shape)))
    return searchsorted(values, Array(node))


def unique_all(x: Array, /) -> UniqueAllResult:
    """Sorted unique values, where each comes first, each element's value, how often each comes."""
    node = strict_operand(x)
    values, first, counts = _unique(node)
    return UniqueAllResult(values, first, _inverse(node, values), counts)


def unique_counts(x: Array, /) -> UniqueCountsResult:
    """Sorted unique values and how often each comes."""
    values, _, counts = _unique(strict_operand(x))
    return UniqueCountsResult(values, counts)


def unique_inverse(x: Array, /) -> UniqueInverseResult:
    """Sorted unique values, and for each element the position of its value."""
    node = strict_operand(x)
    values, _, _ = _unique(node)
    return UniqueInverseResult(values, _inverse(node, values))


def unique_values(x: Array, /) -> Array:
    """Sorted unique values."""
    return _unique(strict_operand(x))[0]


# --- membership --------------------------------------------------------------------------


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Array:
    """Whether each element of ``x1`` is one of ``x2``; NaN is in nothing."""
    node, test = operand(x1), operand(x2)
    node, test = _array_of(node, test.dtype), _array_of(test, node.dtype)
    found = Array(_isin(node, reshaped(test, (test.size,))))
    return logical_not(found) if invert else found


def _array_of(node: Node, other: DType) -> Node:
    """A Python scalar as an array: a float beside an array of floats takes their type, all else
    keeps its value (2.5 is in no array of integers)."""
    if node.op.kind != "literal":
        return node
    value = node.params[2]
    dtype = np.result_type(other, value) if isinstance(value, float | complex) else None
    return leaf(np.asarray(value, dtype))


def _isin(node: Node, test: Node) -> Node:
    if test.size == 0:
        return zeros(node.shape, dtype=np.bool_, chunks=node.chunks)._node
    # Each pair of chunks sorts both: fewer, full chunks are less work.
    size = max(*test.chunks[0], grids.rules().elements(test.dtype))
    test = rechunk(test, (grids.regular(test.size, size),))
    return make(_ISIN, (node, test), (), node.shape, np.dtype(np.bool_), node.chunks)


def _isin_kernel(xp: Any, x: Any, test: Any) -> Any:
    return xp.isin(x, test)


def _either(left: Any, right: Any, *, xp: Any) -> Any:
    return left | right


def _lower_isin(node: Node, lowering: Any) -> list[Any]:
    """Each block is looked for in each chunk of the other operand, one at a time.

    (Searching a sorted table needs a random access for each element and level, which takes
    longer than sorting both.)
    """
    x, test = node.inputs
    blocks, pieces = lowering.blocks(x), lowering.blocks(test)
    start = len(lowering.tasks)
    found = lowering.call(
        node, _isin_kernel, [(block, piece) for block in blocks for piece in pieces],
        read_bytes=x.nbytes * len(pieces) + test.nbytes * len(blocks),
        written_bytes=node.nbytes * len(pieces),
    )  # fmt: skip
    pairs = lowering.tasks[start:]
    del lowering.tasks[start:]
    either = codelet("isin.either", _either)
    result: list[Any] = []
    # What is found for one block is combined before the next is looked for, to hold less.
    for i in range(0, len(found), len(pieces)):
        lowering.tasks += pairs[i : i + len(pieces)]
        found_here = found[i : i + len(pieces)]
        result.append(lowering.tree(node, found_here, either, f".either{i // len(pieces)}"))
    return result


_ISIN = Op("isin", "tasks", _isin_kernel, _lower_isin, weight=16)
