"""Searches: positions of extremes, of non-zeros, of values in sorted arrays."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate, standard
from agentic_ray.array.core.build import elementwise, leaf, operand, reduction, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.program import Location
from agentic_ray.array.core.views import (
    concatenated,
    expanded,
    rechunk,
    reshaped,
    sliced,
    without_empty,
)
from agentic_ray.array.elementwise import logical_not, where
from agentic_ray.array.gathering import gather
from agentic_ray.array.indexing import checked_positions, masked
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.array.outputs import delivered, single_out
from agentic_ray.array.ranges import ARANGE, positions
from agentic_ray.array.reducing import reduce_op
from agentic_ray.array.samplesort import sorted_by, sorting_positions
from agentic_ray.array.scans import cumulative_sum
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import any as any_
from agentic_ray.array.statistics import count_nonzero

__all__ = [
    "argmax",
    "argmin",
    "argwhere",
    "count_nonzero",
    "digitize",
    "flatnonzero",
    "nonzero",
    "searchsorted",
    "where",
]  # fmt: skip


def _origin_kernel(xp: Any, location: Location, axis: int) -> Any:
    starts, shape = location
    return xp.full((1,) * len(shape), starts[axis], dtype=np.int64)


_ORIGIN = Op("origin", "create", _origin_kernel)
"""The position of a block's first element along an axis, which stands for those of all of them."""


def _arg_partial(xp: Any, x: Any, origin: Any, axes: tuple[int, ...], largest: bool) -> Any:
    (axis,) = axes
    local = (xp.argmax if largest else xp.argmin)(x, axis=axis, keepdims=True)
    value = xp.take_along_axis(x, local, axis=axis)
    return value, local + origin, xp.full(value.shape, largest)


def _arg_combine(left: Any, right: Any, *, xp: Any) -> Any:
    """Return the better of two; the left at a tie, and the first NaN before all else."""
    a, at_a, largest = left
    b, at_b, _ = right
    better = xp.where(largest, b > a, b < a)
    take_right = ((b != b) | better) & ~(a != a)
    return (
        xp.where(take_right, b, a),
        xp.where(take_right, at_b, at_a),
        largest,
    )


def _arg_final(xp: Any, value: Any, count: int, largest: bool) -> Any:
    return value[1]


ARG = reduce_op("argextreme", _arg_partial, _arg_combine, _arg_final, exact=True)


def _arg(name: str, a: Any, axis: int | None, out: Any, keepdims: bool, largest: bool) -> Array:
    node = strict_operand(a)
    ndim = node.ndim
    if axis is None:
        node, at = reshaped(node, (node.size,)), 0
    else:
        node = expanded(node, (0,)) if node.ndim == 0 else node
        at = normalize_axis_index(operator.index(axis), node.ndim)
    if node.shape[at] == 0:
        raise ValueError(f"attempt to get {name} of an empty sequence")
    places = positions(node, at)
    origin = make(_ORIGIN, (), (at,), places.shape, places.dtype, places.chunks)
    made = reduction(
        ARG, [node, origin], (at,), keepdims and axis is not None and ndim > 0,
        np.dtype(np.int64), (largest,),
    )  # fmt: skip
    if keepdims and axis is None:
        made = expanded(made, tuple(range(ndim)))
    return delivered_position(Array(made), out)


def delivered_position(result: Array, out: Any) -> Array:
    """Deliver positions as `delivered` does: ``out`` has to hold integers."""
    target = single_out(out)
    if target is not None and not np.can_cast(target.dtype, np.int64, "safe"):
        raise TypeError(
            f"Cannot cast array data from {target.dtype!r} to dtype('int64') according to the "
            "rule 'safe'"
        )
    return delivered(result, target, "unsafe")


def argmax(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Array:
    """Return the position of the largest element along ``axis``, the first at a tie; of NaN if any.

    Parameters
    ----------
    a : array_like
    axis : int, optional
        Default: the position among all elements in C order.
    out : array, optional
    keepdims : bool

    Raises
    ------
    ValueError
        There are no elements.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.argmax([[10, 11, 12], [13, 14, 15]], axis=0)
    Array([1, 1, 1], dtype=int64)
    """
    return _arg("argmax", a, axis, out, keepdims, True)


def argmin(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Array:
    """Return the position of the smallest element along ``axis``: see `argmax`."""
    return _arg("argmin", a, axis, out, keepdims, False)


# --- non-zeros ---------------------------------------------------------------------------


def _nonzero_kernel(xp: Any, x: Any) -> Any:
    return x != 0


_NONZERO = Op("is_nonzero", "map", _nonzero_kernel)


def _flat_positions(x: Any) -> tuple[Node, Node]:
    node = strict_operand(x)
    mask = reshaped(elementwise(_NONZERO, [node]), (node.size,))
    dtype = np.dtype(np.int64)
    at = make(ARANGE, (), (0, 1, dtype, 0), mask.shape, dtype, mask.chunks)
    return node, masked(at, mask)


def nonzero(a: Any) -> tuple[Array, ...]:
    """Return the positions of the elements that are not zero, one array for each axis.

    Raises
    ------
    ValueError
        ``a`` has no axis.
    """
    node = strict_operand(a)
    if node.ndim == 0:
        raise ValueError("nonzero needs at least one axis; use x != 0 for a 0-d array")
    if node.small:
        found = np.nonzero(evaluate.value(node))
        return tuple([Array(leaf(np.ascontiguousarray(at))) for at in found])
    _, flat = _flat_positions(a)
    result: list[Array] = []
    rest = Array(evaluate.persist([flat], for_one_step=True)[0])
    for length in reversed(node.shape):
        result.append(rest % length)
        rest = rest // length
    return tuple(reversed(result))


def flatnonzero(a: Any) -> Array:
    """Return the positions of the non-zero elements in C order."""
    return nonzero(Array(reshaped(strict_operand(a), (strict_operand(a).size,))))[0]


def argwhere(a: Any) -> Array:
    """Return the positions of the non-zero elements as rows, as in NumPy."""
    from agentic_ray.array.manipulation import stack

    node = strict_operand(a)
    if not node.ndim:
        return argwhere(Array(reshaped(node, (1,))))[:, :0]
    return stack(list(nonzero(a)), axis=1)


# --- searchsorted ------------------------------------------------------------------------

TABLE_BYTES = 256 << 20
"""Bytes of a sorted table that one task looks at."""


def _search_kernel(xp: Any, values: Any, table: Any, side: str) -> Any:
    flat = xp.searchsorted(table, xp.reshape(values, -1), side=side)
    return standard.cast(xp, xp.reshape(flat, values.shape), np.int64)


def _lower_search(node: Node, lowering: Any) -> list[Any]:
    """Return, per block of values, positions within each piece of the sorted table, added up."""
    values, table = node.inputs
    pieces = lowering.blocks(table)
    size = max(1, TABLE_BYTES // max(1, table.nbytes // len(pieces)))
    groups = [list(pieces[i : i + size]) for i in range(0, len(pieces), size)]
    blocks = lowering.blocks(values)
    read = values.nbytes + table.nbytes * len(blocks) // len(groups)
    found: list[Any] = []
    for i, group in enumerate(groups):
        before = [[ref] for ref in found] or [[] for _ in blocks]
        rows = [(block, group, head) for block, head in zip(blocks, before, strict=True)]
        found = lowering.call(
            node, _search_pieces, rows, params=node.params, label=f".{i}", read_bytes=read
        )
    return found


def _search_pieces(
    xp: Any, values: Any, pieces: Sequence[Any], before: Sequence[Any], side: str
) -> Any:
    """Add up the positions in the pieces of a sorted table, which gives those in the whole."""
    result = _search_kernel(xp, values, pieces[0], side)
    for piece in pieces[1:]:
        result = result + _search_kernel(xp, values, piece, side)
    return result + before[0] if before else result


_SEARCH = Op("searchsorted", "tasks", _search_kernel, _lower_search, weight=16)


PAIRED = 32
"""Values are looked for in a table chunk by chunk, each in each. If there are more such pairs than
this for every chunk, it is less work to sort both together."""


def are_many(blocks: int, pieces: int) -> bool:
    """Whether to sort so many chunks together rather than to look at them pair by pair."""
    return blocks * pieces > PAIRED * (blocks + pieces)


def counted_before(values: Node, table: Node, side: str) -> Node:
    """Count for each of ``values`` the elements of ``table`` that are less, or not greater for
    ``"right"``; both vectors, in any order.

    They are sorted together. Each value's count is the number of table elements so far, and goes
    back to where the value was.
    """
    dtype = np.result_type(values.dtype, table.dtype)
    # Among equal elements the first in the order of the operands comes first.
    first, second = (table, values) if side == "right" else (values, table)
    both = without_empty(concatenated([cast(first, dtype), cast(second, dtype)], 0))
    order = sorting_positions(both)
    of_first = Array(order) < first.size
    is_table = of_first if side == "right" else logical_not(of_first)
    counts = sorted_by(order, cumulative_sum(is_table, axis=0)._node)
    start = table.size if side == "right" else 0
    return sliced(counts, (("s", start, values.size, 1),))


def searchsorted(x1: Any, x2: Any, /, side: str = "left", sorter: Any = None) -> Array:
    """Return the places at which ``x2`` would be put in ``x1``, sorted (or sorted by ``sorter``).

    Parameters
    ----------
    x1 : array, one-dimensional
    x2 : array or number
    side : {"left", "right"}
        Place before or after elements equal to the value.
    sorter : array of integers, optional
        Positions that sort ``x1``, as from `argsort`.

    Returns
    -------
    Array of int64
        Places, in the shape of ``x2``.

    Raises
    ------
    ValueError
        ``side`` is neither ``"left"`` nor ``"right"``, or ``x1`` is not one-dimensional.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.searchsorted([1, 2, 3], [2.5, 0]).compute()
    array([2, 0])
    """
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', not {side!r}")
    table = asarray(x1)._node
    if table.ndim != 1:
        raise ValueError("searchsorted: x1 must be one-dimensional")
    if sorter is not None:
        table = _sorted_with(table, asarray(sorter)._node)
    values = asarray(x2)._node if isinstance(x2, list | tuple) else operand(x2)
    if values.op.kind == "literal":
        values = leaf(np.asarray(values.params[2]))
    if values.blocks == 1 and table.blocks > 1 and table.size <= grids.rules().elements(
        table.dtype):  # fmt: skip
        table = rechunk(table, grids.single(table.shape))
    if values.size and are_many(values.blocks, table.blocks):
        flat = reshaped(values, (values.size,))
        return Array(reshaped(counted_before(flat, table, side), values.shape))
    dtype = np.dtype(np.int64)
    return Array(make(_SEARCH, (values, table), (side,), values.shape, dtype, values.chunks))


def _sorted_with(table: Node, sorter: Node) -> Node:
    if sorter.dtype.kind not in "iu":
        raise TypeError("sorter must only contain integers")
    if sorter.shape != table.shape:
        raise ValueError("sorter.size must equal keys.size")
    positions = checked_positions(evaluate.value(sorter), table.size, 0)
    return gather(table, (0,), (positions,))


@by_numpy_if_small
def digitize(x: Any, bins: Any, right: bool = False) -> Array:
    """Return the number of the bin that each element is in, as in NumPy.

    Parameters
    ----------
    x : array or number
    bins : array, one-dimensional
        Edges, which rise or fall.
    right : bool
        Whether the bins' right edges belong to them instead of their left ones.

    Raises
    ------
    TypeError
        ``x`` is complex.
    ValueError
        The edges neither rise nor fall.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.digitize([0.2, 6.4], [0.0, 1.0, 2.5, 10.0]).compute()
    array([1, 3])
    """
    values = asarray(x)
    edges = asarray(bins)
    if values.dtype.kind == "c":
        raise TypeError("x may not be complex")
    if edges.ndim != 1:
        raise ValueError("object of too small depth for desired array" if not edges.ndim
                         else "object too deep for desired array")  # fmt: skip
    rises, falls = _direction(edges)
    if not rises and not falls:
        raise ValueError("bins must be monotonically increasing or decreasing")
    side = "left" if right else "right"
    if rises:
        return searchsorted(edges, values, side=side)
    # The edges from the other end rise; a place among them counts from there too.
    result: Array = edges.shape[0] - searchsorted(edges[::-1], values, side=side)
    return result


def _direction(edges: Array) -> tuple[bool, bool]:
    """Return whether edges never fall, and whether they never rise; computed now."""
    if edges.shape[0] < 2:
        return True, False
    falls = any_(edges[1:] < edges[:-1])  # NaN neither rises nor falls, as in NumPy
    rises = any_(edges[1:] > edges[:-1])
    found = evaluate.values([falls._node, rises._node])
    return not found[0], not found[1]


FUNCTIONS["nonzero"] = nonzero
