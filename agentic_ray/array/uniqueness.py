"""Unique values and rows, with their counts, first positions and inverse.

Where the chunks have few different values their tables are merged in a tree; else the array is
sorted, and nothing is ever in one place. Sets made of several arrays are in ``sets``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import blockwise_op, leaf, reduction, strict_operand
from agentic_ray.array.core.node import NDArray, Node, Op, make
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import permuted, rechunk, reshaped, without_empty
from agentic_ray.array.differences import diff
from agentic_ray.array.indexing import masked
from agentic_ray.array.ranges import ARANGE, positions
from agentic_ray.array.reducing import reduce_op
from agentic_ray.array.samplesort import sorted_chunks, sorting_positions
from agentic_ray.array.sorting import INDEX, back_in_place, is_new


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

Found = tuple[Array, Array, Array, Array | None]
"""Values, first positions, counts, and for each element the number of its value (if wanted)."""


# --- of all elements ---------------------------------------------------------------------


def _unique(node: Node, equal_nan: bool, inverse: bool, *, first: bool = True) -> Found:
    """Find the unique values of all elements in C order. NaNs that are not equal are in the order
    of their positions. Without ``first``, first positions may be left out."""
    flat = reshaped(node, (node.size,))
    if flat.blocks == 1:
        return _of_one_block(evaluate.value(flat), None, equal_nan)
    if node.size > TABLE_ELEMENTS and _different(flat) > TABLE_ELEMENTS:
        if not first and not inverse:
            return _values_by_sorting(flat, equal_nan)
        return _by_sorting(flat, equal_nan, inverse)
    if not first and not inverse and flat.dtype.kind in "iu":
        values, counts = evaluate.table(reduction(_COUNTED, [flat], (0,), True, flat.dtype))
        return Array(leaf(values)), Array(leaf(values[:0])), Array(leaf(counts)), None
    params = (equal_nan,)
    made = reduction(_UNIQUE, [flat, positions(flat, 0)], (0,), True, flat.dtype, params)
    values, places, counts = evaluate.table(made)
    numbers = _numbers(flat, values, places, equal_nan) if inverse else None
    return Array(leaf(values)), Array(leaf(places)), Array(leaf(counts)), numbers


def _of_one_block(array: NDArray, axis: int | None, equal_nan: bool) -> Found:
    values, first, numbers, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, axis=axis,
        equal_nan=equal_nan,
    )  # fmt: skip
    found = [Array(leaf(np.ascontiguousarray(part))) for part in (values, first, counts)]
    return found[0], found[1], found[2], Array(leaf(np.asarray(numbers).reshape(-1)))


def _different(flat: Node) -> int:
    """Add up the numbers of different values that the chunks have."""
    blocks = len(flat.chunks[0])
    op = blockwise_op("count_unique", _count_kernel, 8 if flat.dtype.kind in "iu" else 32)
    made = make(op, (flat,), (), (blocks,), INDEX, ((1,) * blocks,))
    return int(evaluate.value(made).sum())


def _count_kernel(xp: Any, x: Any) -> Any:
    counted = _counted(xp, x)
    if counted is not None:
        return xp.reshape(xp.asarray(counted[0].size), (1,))
    ordered = xp.sort(x)
    return xp.reshape(1 + xp.count_nonzero(ordered[1:] != ordered[:-1]), (1,))


def _counted(xp: Any, x: Any) -> tuple[Any, Any] | None:
    """The different integers of ``x``, sorted, and how often each comes, counted in a table of all
    integers between the least and the largest; None where that table is larger than ``x``.

    Counting takes less time than sorting, many times less where NumPy's sort has no vector
    instructions.
    """
    if xp is not np or x.dtype.kind not in "iu" or not x.size:
        return None
    low, high = int(x.min()), int(x.max())
    if high - low >= x.size:
        return None
    # Differences of signed integers wrap around; taken for unsigned ones they are right.
    shifted = np.subtract(x, x.dtype.type(low), dtype=x.dtype) if low else x
    counts = np.bincount(shifted.view(f"u{x.dtype.itemsize}").astype(np.intp, copy=False))
    found = np.flatnonzero(counts)
    values = found.astype(x.dtype) + x.dtype.type(low)
    return values, counts[found]


def _counts_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    counted = _counted(xp, x)
    return xp.unique(x, return_counts=True) if counted is None else counted


def _counts_combine(left: Any, right: Any, *, xp: Any) -> Any:
    merged, inverse = xp.unique(xp.concatenate([left[0], right[0]]), return_inverse=True)
    return merged, _added(xp, left[1], right[1], inverse, merged)


def _counts_final(xp: Any, value: Any, count: int, *params: Any) -> Any:
    return tuple(value)


_COUNTED = reduce_op(
    "unique_counts", _counts_partial, _counts_combine, _counts_final, 8, cache_blocks=0
)
"""Of integers: their values and how often each comes."""


def _by_sorting(flat: Node, equal_nan: bool, inverse: bool) -> Found:
    """From the sorted array: a value is new where it differs from the one before it."""
    flat = without_empty(flat)
    values, order = evaluate.persist(
        [sorted_chunks(flat), sorting_positions(flat)], for_one_step=True
    )
    mask, counts = _first_of_each(values, equal_nan)
    numbers = back_in_place(order, Array(mask)) if inverse else None
    return Array(masked(values, mask)), Array(masked(order, mask)), counts, numbers


def _values_by_sorting(flat: Node, equal_nan: bool) -> Found:
    """As `_by_sorting`, without positions: they would have to be sorted too."""
    (values,) = evaluate.persist([sorted_chunks(without_empty(flat))], for_one_step=True)
    mask, counts = _first_of_each(values, equal_nan)
    return Array(masked(values, mask)), Array(leaf(np.zeros(0, INDEX))), counts, None


def _first_of_each(values: Node, equal_nan: bool) -> tuple[Node, Array]:
    """Return the mask of the first element of each value in a sorted vector, and how often each
    value comes."""
    new = is_new(Array(values), nan="equal" if equal_nan else "different")
    mask = evaluate.persist([rechunk(new._node, values.chunks)], for_one_step=True)[0]
    at = make(ARANGE, (), (0, 1, INDEX, 0), values.shape, INDEX, values.chunks)
    counts = diff(Array(masked(at, mask)), append=asarray(np.array([values.size])))
    return mask, counts


def _unique_partial(xp: Any, x: Any, at: Any, axes: tuple[int, ...], equal_nan: bool) -> Any:
    values, first, counts = xp.unique(x, return_index=True, return_counts=True, equal_nan=equal_nan)
    return values, at[first], counts, equal_nan


def _unique_combine(left: Any, right: Any, *, xp: Any) -> Any:
    """Merge two tables; of equal values the left one's position is kept."""
    equal_nan = bool(left[3])
    values = xp.concatenate([left[0], right[0]])
    first = xp.concatenate([left[1], right[1]])
    merged, index, inverse = xp.unique(
        values, return_index=True, return_inverse=True, equal_nan=equal_nan
    )
    return merged, first[index], _added(xp, left[2], right[2], inverse, merged), equal_nan


def _added(xp: Any, left: Any, right: Any, inverse: Any, merged: Any) -> Any:
    """Counts of merged tables. One table after the other: in each a value comes but once."""
    inverse = xp.reshape(inverse, -1)
    total = xp.zeros((merged.shape[0],), dtype=left.dtype)
    size = left.shape[0]
    total[inverse[:size]] += left
    total[inverse[size:]] += right
    return total


def _unique_final(xp: Any, value: Any, count: int, *params: Any) -> Any:
    return value[:3]


_UNIQUE = reduce_op("unique", _unique_partial, _unique_combine, _unique_final, 32, cache_blocks=0)


def _numbers(flat: Node, values: NDArray, first: NDArray, equal_nan: bool) -> Array:
    """For each element the number of its value, found in a table of them."""
    tables = [leaf(table, grids.single(table.shape)) for table in (values, first)]
    params = (equal_nan,)
    return Array(make(_NUMBERS, (flat, *tables), params, flat.shape, INDEX, flat.chunks))


def _numbers_whole(xp: Any, x: Any, values: Any, first: Any, equal_nan: bool) -> Any:
    return _numbers_kernel(xp, x, 0, values, first, equal_nan)


def _numbers_kernel(xp: Any, x: Any, start: int, values: Any, first: Any, equal_nan: bool) -> Any:
    found = xp.searchsorted(values, x).astype(np.int64)
    if values.dtype.kind not in "fc":
        return found
    nan = xp.isnan(x)
    if not bool(xp.any(nan)):
        return found
    if equal_nan:
        found[nan] = values.shape[0] - 1
        return found
    # A NaN that is a value of its own is known by its position.
    numbers = values.shape[0] - int(xp.count_nonzero(xp.isnan(values)))
    by_position = xp.argsort(first[numbers:])
    at = xp.nonzero(nan)[0] + start
    found[nan] = numbers + by_position[xp.searchsorted(first[numbers:][by_position], at)]
    return found


def _lower_numbers(node: Node, lowering: Any) -> list[Any]:
    flat, *tables = node.inputs
    starts = grids.offsets(flat.chunks[0])
    values, first = (lowering.blocks(table)[0] for table in tables)
    rows = [(block, start, values, first)
            for block, start in zip(lowering.blocks(flat), starts[:-1], strict=True)]  # fmt: skip
    return list(lowering.call(node, _numbers_kernel, rows, params=node.params))


_NUMBERS = Op("unique_inverse", "tasks", _numbers_whole, _lower_numbers, weight=32)


# --- of rows -----------------------------------------------------------------------------


def _unique_rows(node: Node, axis: int, equal_nan: bool, inverse: bool) -> Found:
    """Find the unique parts of an array along an axis; a part with NaN is a value of its own, as in
    NumPy."""
    if node.blocks == 1 or not node.size:
        return _of_one_block(evaluate.value(node), axis, equal_nan)
    order = (axis, *[a for a in range(node.ndim) if a != axis])
    rest = tuple([node.shape[a] for a in order[1:]])
    rows = reshaped(permuted(node, order), (node.shape[axis], math.prod(rest)))
    if len(rows.chunks[1]) > 1:
        rows = rechunk(rows, grids.normalize(("auto", -1), rows.shape, rows.dtype))
    made = reduction(_UNIQUE_ROWS, [rows, positions(rows, 0)], (0,), True, rows.dtype)
    values, first, counts = evaluate.table(made)
    numbers = None
    if inverse:
        tables = [leaf(table, grids.single(table.shape)) for table in (values, first)]
        numbers = Array(make(_ROW_NUMBERS, (rows, *tables), (), (rows.shape[0],), INDEX,
                             (rows.chunks[0],)))  # fmt: skip
    shaped = np.moveaxis(values.reshape(-1, *rest), 0, axis)
    found = [Array(leaf(np.ascontiguousarray(part))) for part in (shaped, first, counts)]
    return found[0], found[1], found[2], numbers


def _rows_partial(xp: Any, x: Any, at: Any, axes: tuple[int, ...]) -> Any:
    values, first, counts = xp.unique(x, return_index=True, return_counts=True, axis=0)
    return values, xp.reshape(at, -1)[first], counts


def _rows_combine(left: Any, right: Any, *, xp: Any) -> Any:
    values = xp.concatenate([left[0], right[0]])
    first = xp.concatenate([left[1], right[1]])
    merged, index, inverse = xp.unique(values, return_index=True, return_inverse=True, axis=0)
    return merged, first[index], _added(xp, left[2], right[2], inverse, merged)


_UNIQUE_ROWS = reduce_op(
    "unique_rows", _rows_partial, _rows_combine, _unique_final, 64,
    cache_blocks=0,
)  # fmt: skip


@host_only
def _row_numbers_whole(xp: Any, rows: Any, values: Any, first: Any) -> Any:
    return _row_numbers(xp, rows, 0, values, first)


@host_only
def _row_numbers(xp: Any, rows: Any, start: int, values: Any, first: Any) -> Any:
    nan = np.isnan(rows).any(axis=1) if rows.dtype.kind in "fc" else np.zeros(len(rows), bool)
    result = np.empty(len(rows), np.int64)
    # A row with NaN is known by its position, others by looking for them in the table.
    by_position = np.argsort(first)
    at = np.flatnonzero(nan) + start
    result[nan] = by_position[np.searchsorted(first[by_position], at)]
    plain = np.arange(len(values))
    if rows.dtype.kind in "fc":
        plain = np.flatnonzero(~np.isnan(values).any(axis=1))
    both = np.concatenate([values[plain], rows[~nan]])
    if both.size:
        numbers = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        result[~nan] = plain[numbers[len(plain) :]]
    return result


def _lower_row_numbers(node: Node, lowering: Any) -> list[Any]:
    rows, *tables = node.inputs
    starts = grids.offsets(rows.chunks[0])
    values, first = (lowering.blocks(table)[0] for table in tables)
    table = [(block, start, values, first)
             for block, start in zip(lowering.blocks(rows), starts[:-1], strict=True)]  # fmt: skip
    return list(lowering.call(node, _row_numbers, table))


_ROW_NUMBERS = Op("unique_row_inverse", "tasks", _row_numbers_whole, _lower_row_numbers, weight=64)


# --- what users call ---------------------------------------------------------------------


def unique(
    x: Any,
    /,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,
) -> Any:
    """The sorted unique elements of ``x``, or its unique parts along ``axis``, as in NumPy.

    How many there are is computed at the call. Unique parts are brought to the caller.

    Parameters
    ----------
    x : array_like
    return_index : bool
        Also where each comes first.
    return_inverse : bool
        Also the number of each element's value, in the shape of ``x`` (along ``axis``: a vector).
    return_counts : bool
        Also how often each comes.
    axis : int or None
        None: of all elements.
    equal_nan : bool
        Whether all NaNs are one value; without, each is a value of its own, in the order of their
        positions. Parts with NaN are never equal.
    sorted : bool
        False allows any order; they are sorted all the same.

    Returns
    -------
    Array, or tuple of Array
        Values, and what else is asked for in the order of the parameters.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> values, counts = xp.unique([3, 1, 3], return_counts=True)
    >>> values.compute(), counts.compute()
    (array([1, 3]), array([1, 2]))
    """
    node = strict_operand(x)
    at = None if axis is None else normalize_axis_index(operator.index(axis), node.ndim)
    if at is None or node.ndim == 1:
        values, first, counts, inverse = _unique(
            node, bool(equal_nan), bool(return_inverse), first=bool(return_index)
        )
        shape: Sequence[int] = node.shape
    else:
        values, first, counts, inverse = _unique_rows(
            node, at, bool(equal_nan), bool(return_inverse)
        )
        shape = (node.shape[at],)
    result: list[Any] = [values]
    if return_index:
        result.append(first)
    if return_inverse:
        assert inverse is not None
        result.append(_shaped(inverse, tuple(shape)))
    if return_counts:
        result.append(counts)
    return tuple(result) if len(result) > 1 else values


def _shaped(inverse: Array, shape: tuple[int, ...]) -> Array:
    node = inverse._node
    if not shape:
        return Array(reshaped(node, ()))
    return Array(reshaped(node, shape)) if len(shape) > 1 else Array(node)


def unique_all(x: Any, /) -> UniqueAllResult:
    """Sorted unique values, where each comes first, each element's value, how often each comes.

    Each NaN is a value of its own, in the order of their positions.
    """
    node = strict_operand(x)
    values, first, counts, inverse = _unique(node, False, True)
    assert inverse is not None
    return UniqueAllResult(values, first, _shaped(inverse, node.shape), counts)


def unique_counts(x: Any, /) -> UniqueCountsResult:
    """Sorted unique values and how often each comes; each NaN is a value of its own."""
    values, _, counts, _ = _unique(strict_operand(x), False, False, first=False)
    return UniqueCountsResult(values, counts)


def unique_inverse(x: Any, /) -> UniqueInverseResult:
    """Sorted unique values, and for each element the number of its value; each NaN is a value of
    its own, in the order of their positions."""
    node = strict_operand(x)
    values, _, _, inverse = _unique(node, False, True)
    assert inverse is not None
    return UniqueInverseResult(values, _shaped(inverse, node.shape))


def unique_values(x: Any, /) -> Array:
    """Sorted unique values; each NaN is a value of its own."""
    return _unique(strict_operand(x), False, False, first=False)[0]
