"""Sorts and partitions along an axis, and returns the positions that do so."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core.build import along, blockwise_op, broadcast_shapes, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.core.ties import order as order_of
from agentic_ray.array.core.views import concatenated, reshaped, sliced, without_empty
from agentic_ray.array.creation import ones
from agentic_ray.array.elementwise import imag, isnan, logical_not, real
from agentic_ray.array.manipulation import broadcast_to
from agentic_ray.array.samplesort import sorted_by, sorted_chunks, sorting_positions
from agentic_ray.array.scans import cumulative_sum
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.taking import take_along_axis

INDEX: DType = np.dtype(np.int64)


def _sort_kernel(xp: Any, x: Any, axis: int, descending: bool, stable: bool) -> Any:
    # Equal elements are alike except zeros of both signs and NaNs: only these need a stable sort,
    # which takes several times as long.
    result = (
        xp.sort(x, axis=axis, kind="stable")
        if stable and _has_unlike_equals(xp, x)
        else xp.sort(x, axis=axis)
    )
    return xp.flip(result, axis=axis) if descending else result


def _has_unlike_equals(xp: Any, x: Any) -> bool:
    kind = dtype_of(x).kind
    if kind != "f":
        return kind == "c"
    return bool(xp.any(xp.isnan(x) | ((x == 0) & xp.signbit(x))))


def _argsort_kernel(xp: Any, x: Any, axis: int, descending: bool, kind: str) -> Any:
    if not descending:
        return _order(xp, x, axis, kind)
    # Stable in descending order: sort the reversed array, then reverse and count from the end.
    order = xp.flip(_order(xp, xp.flip(x, axis=axis), axis, kind), axis=axis)
    return x.shape[axis] - 1 - order


def _order(xp: Any, x: Any, axis: int, kind: str) -> Any:
    return order_of(xp, x, kind) if x.ndim == 1 else xp.argsort(x, axis=axis, kind=kind)


def _partition_kernel(xp: Any, x: Any, kth: tuple[int, ...], axis: int) -> Any:
    return xp.partition(x, kth if len(kth) > 1 else kth[0], axis=axis)


def _argpartition_kernel(xp: Any, x: Any, kth: tuple[int, ...], axis: int) -> Any:
    return xp.argpartition(x, kth if len(kth) > 1 else kth[0], axis=axis)


def _lexsort_kernel(xp: Any, *args: Any) -> Any:
    *keys, axis = args
    if xp is np:
        return np.lexsort(keys, axis=axis)
    order = xp.argsort(keys[0], axis=axis, kind="stable")
    for key in keys[1:]:
        by_key = xp.argsort(xp.take_along_axis(key, order, axis=axis), axis=axis, kind="stable")
        order = xp.take_along_axis(order, by_key, axis=axis)
    return order


SORT = blockwise_op("sort", _sort_kernel, weight=32)
ARGSORT = blockwise_op("argsort", _argsort_kernel, weight=64)
PARTITION = blockwise_op("partition", _partition_kernel, weight=8)
ARGPARTITION = blockwise_op("argpartition", _argpartition_kernel, weight=16)
LEXSORT = blockwise_op("lexsort", _lexsort_kernel, weight=128)


# --- sorting -----------------------------------------------------------------------------


def sort(
    x: Any, /, axis: int | None = -1, kind: str | None = None, order: Any = None, *,
    descending: bool = False, stable: bool | None = None,
) -> Array:  # fmt: skip
    """Sort ``x`` along ``axis``, NaN last.

    A vector of several chunks is sorted over them, see ``samplesort``; along an axis of another
    array each lane is brought into one chunk.

    Parameters
    ----------
    x : array_like
    axis : int or None
        None: all elements in one vector.
    kind : {"quicksort", "mergesort", "heapsort", "stable"}, optional
        NumPy's names. ``"quicksort"`` and ``"heapsort"`` are ``stable=False``.
    order : str or sequence of str, optional
        Fields of records to compare first; the others follow in the records' own order.
    descending : bool
        Whether the largest comes first.
    stable : bool, optional
        Whether equal elements that can be told apart (zeros of both signs, NaNs) keep their order,
        which is the default. False lets them come in any order, and is quicker where there are any.

    Returns
    -------
    Array
        Sorted array with the shape, dtype and (for a vector) chunks of ``x``.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.
    ValueError
        There is no such kind or field, ``kind`` and ``stable`` are both given, or ``order`` is
        given and the array has no fields.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.sort([[3, 1], [2, 4]], 0).compute()
    array([[2, 1],
           [3, 4]])
    """
    keeps = _keeps_order(kind, stable)
    if order is not None:
        positions = argsort(x, axis, kind, order, descending=descending, stable=stable)
        lanes = (
            Array(strict_operand(x)) if axis is not None else Array(strict_operand(x)).reshape(-1)
        )
        return take_along_axis(lanes, positions, -1 if axis is None else axis)
    node, at = _lanes(x, axis)
    if not is_long(node):
        params = (at, bool(descending), keeps)
        return Array(along(SORT, [node], (at,), None, node.dtype, params))
    made = sorted_chunks(without_empty(node))
    return Array(_reversed(made) if descending else made)


def argsort(
    x: Any, /, axis: int | None = -1, kind: str | None = None, order: Any = None, *,
    descending: bool = False, stable: bool | None = None,
) -> Array:  # fmt: skip
    """Return the positions that sort ``x`` along ``axis``. Parameters and errors as for `sort`.

    Equal elements stay in their order unless ``stable=False`` or an unstable ``kind`` is asked for,
    which is quicker.

    Returns
    -------
    Array of int64
        Positions, in the shape of ``x``.
    """
    how = "stable" if _keeps_order(kind, stable) else "quicksort"
    if order is not None:
        x, axis = _ranked_by_fields(Array(strict_operand(x)), axis, order)
    node, at = _lanes(_at_least_1d(x), axis)
    if not is_long(node):
        params = (at, bool(descending), how)
        return Array(along(ARGSORT, [node], (at,), None, INDEX, params))
    node = without_empty(node)
    if not descending:
        return Array(sorting_positions(node, stable=how == "stable"))
    # As in `_argsort_kernel`: the positions that sort the reversed array, from the other end.
    positions = sorting_positions(_reversed(node), stable=how == "stable")
    result: Array = node.size - 1 - Array(_reversed(positions))
    return result


def sort_complex(x: Any, /) -> Array:
    """Sort ``x`` by real, then imaginary part along its last axis, as complex numbers.

    Integers of 8 and 16 bits become complex64, as in NumPy, other real numbers complex128.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.sort_complex([3, 1 - 2j, 1 - 3j]).compute()
    array([1.-3.j, 1.-2.j, 3.+0.j])
    """
    result = sort(x)
    if result.dtype.kind == "c":
        return result
    wanted = np.complex64 if result.dtype.char in "bhBH" else np.complex128
    return Array(cast(result._node, wanted))


def _ranked_by_fields(x: Array, axis: int | None, order: Any) -> tuple[Array, int]:
    """Return numbers that compare along ``axis`` as the records of ``x`` do, and that axis.

    Raises
    ------
    ValueError
        The array has no fields, or lacks one of these.
    """
    names = x.dtype.names
    if names is None:
        raise ValueError("Cannot specify order when the array has no fields.")
    first = [order] if isinstance(order, str) else list(order)
    for name in first:
        if name not in names:
            raise ValueError(f"unknown field name: {name}")
    if axis is None:
        x, axis = x.reshape(-1), 0
    keys = [x[name] for name in (*first, *(other for other in names if other not in first))]
    positions = lexsort(keys[::-1], axis)
    return argsort(positions, axis), axis


def _keeps_order(kind: str | None, stable: bool | None) -> bool:
    if kind is None:
        return stable is None or bool(stable)
    np.sort(np.empty(0), kind=kind, stable=stable)  # type: ignore[call-overload]  # its errors
    return kind[:1].lower() in "sm"


def _lanes(x: Any, axis: int | None) -> tuple[Node, int]:
    node = strict_operand(x)
    if axis is None:
        return reshaped(node, (node.size,)), 0
    return node, normalize_axis_index(operator.index(axis), node.ndim)


def _at_least_1d(x: Any) -> Array:
    """Return an array with at least one axis: NumPy finds the position 0 in one without axes."""
    node = strict_operand(x)
    return Array(node if node.ndim else reshaped(node, (1,)))


def is_long(node: Node) -> bool:
    """Whether ``node`` is a vector of several chunks."""
    return node.ndim == 1 and node.blocks > 1 and node.size > 0


def _reversed(node: Node) -> Node:
    return sliced(node, (("s", node.size - 1, node.size, -1),))


# --- parts -------------------------------------------------------------------------------


def partition(
    x: Any, /, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None
) -> Array:
    """Put the elements that sorting would put at ``kth`` there, smaller ones before them.

    Parameters
    ----------
    x : array_like
    kth : int or sequence of int
    axis : int or None
        None: all elements in one vector.
    kind : {"introselect"}
    order : str or sequence of str, optional
        As for `sort`.

    Returns
    -------
    Array
        Partitioned array. Records, and a vector of several chunks, are sorted, which meets the
        promise.

    Raises
    ------
    ValueError
        A position is outside of the axis, or there is no such kind.
    TypeError
        Positions are not integers.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> int(xp.partition([7, 1, 9, 3], 1)[1])
    3
    """
    node, at, places = _to_partition(x, kth, axis, kind)
    if order is not None:
        return sort(x, axis, order=order)
    if is_long(node):
        return Array(sorted_chunks(without_empty(node)))
    return Array(along(PARTITION, [node], (at,), None, node.dtype, (places, at)))


def argpartition(
    x: Any, /, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None
) -> Array:
    """Return positions that partition ``x``; parameters and errors as for `partition`."""
    node, at, places = _to_partition(_at_least_1d(x), kth, axis, kind)
    if order is not None:
        return argsort(x, axis, order=order)
    if is_long(node):
        return Array(sorting_positions(without_empty(node)))
    return Array(along(ARGPARTITION, [node], (at,), None, INDEX, (places, at)))


def _to_partition(
    x: Any, kth: Any, axis: int | None, kind: str
) -> tuple[Node, int, tuple[int, ...]]:
    if kind != "introselect":
        raise ValueError(f"select kind must be 'introselect' (got {kind!r})")
    node, at = _lanes(x, axis)
    places = np.atleast_1d(np.asarray(kth))
    if places.dtype.kind not in "iu":
        raise TypeError("Partition index must be integer")
    if places.ndim > 1:
        raise ValueError(f"object too deep for desired array: kth of {places.ndim} axes")
    length = node.shape[at]
    for place in places.tolist():
        if node.size and not -length <= place < length:
            raise ValueError(f"kth(={place}) out of bounds ({length})")
    return node, at, tuple([place % length for place in places.tolist()]) if length else (0,)


# --- several keys ------------------------------------------------------------------------


@by_numpy_if_small
def lexsort(keys: Any, axis: int = -1) -> Array:
    """Return positions that sort by several keys, of which the last comes first.

    Parameters
    ----------
    keys : sequence of array_like, or array
        Keys of one shape, or broadcast to one; an array is the sequence of its rows.
    axis : int

    Returns
    -------
    Array of int64
        Positions. The order is stable: elements equal in all keys keep theirs.

    Raises
    ------
    TypeError
        There is no key.
    ValueError
        The keys differ in shape.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.lexsort(([9, 4, 0, 4], [1, 5, 1, 4])).compute()
    array([2, 0, 3, 1])
    """
    if not np.ndim(keys):
        raise TypeError("need sequence of keys with len > 0 in lexsort")
    given = [keys[i] for i in range(keys.shape[0])] if isinstance(keys, Array) else list(keys)
    if not given:
        raise TypeError("need sequence of keys with len > 0 in lexsort")
    arrays = [Array(strict_operand(key)) for key in given]
    if any(array.shape != arrays[0].shape for array in arrays):
        shape = broadcast_shapes([array.shape for array in arrays], "lexsort")
        arrays = [broadcast_to(array, shape) for array in arrays]
    if not arrays[0].ndim:
        if operator.index(axis) not in (0, -1):
            raise np.exceptions.AxisError(axis, 0)
        return asarray(np.zeros((), INDEX))
    nodes = [array._node for array in arrays]
    at = normalize_axis_index(operator.index(axis), nodes[0].ndim)
    if any(is_long(node) for node in nodes):
        return argsort(_joined_ranks([Array(without_empty(node)) for node in reversed(nodes)]))
    return Array(along(LEXSORT, nodes, (at,), None, INDEX, (at,)))


def _joined_ranks(keys: Sequence[Array]) -> Array:
    """Return one number for each place that orders vectors as their keys do, first key first."""
    result = ranked(keys[0])
    for key in keys[1:]:
        result = ranked(result * key.shape[0] + ranked(key))
    return result


def ranked(x: Array) -> Array:
    """Count for each element of a vector the different values that are less than it."""
    node = without_empty(x._node)
    order = sorting_positions(node) if is_long(node) else argsort(x)._node
    ordered = sorted_chunks(node) if is_long(node) else sort(x)._node
    return back_in_place(order, is_new(Array(ordered)))


def back_in_place(order: Node, new: Array) -> Array:
    """Number the different values and put the numbers at the places that sorted elements came from;
    ``new`` marks the first element of each value in sorted order."""
    numbers = cumulative_sum(new, axis=0) - 1
    numbers = numbers.rechunk(order.chunks)
    if order.blocks > 1:
        return Array(sorted_by(order, numbers._node))
    return Array(along(_BACK, [order, numbers._node], (0,), None, INDEX))


def _back_kernel(xp: Any, order: Any, numbers: Any) -> Any:
    result = xp.empty(numbers.shape, dtype=numbers.dtype)
    result[order] = numbers
    return result


_BACK = blockwise_op("back_in_place", _back_kernel)


def is_new(ordered: Array, *, nan: str = "in order") -> Array:
    """Whether each element of a sorted vector is another value than the one before it.

    Parameters
    ----------
    nan : {"in order", "equal", "different"}
        Whether NaNs are the same where sorting does not tell them apart, or all are, or none are.
    """
    if not ordered.shape[0]:
        return asarray(np.zeros(0, np.bool_))
    after, before = ordered[1:], ordered[:-1]
    if nan == "in order" and ordered.dtype.kind == "c":
        differs = _unequal(real(after), real(before)) | _unequal(imag(after), imag(before))
    elif nan == "different" or ordered.dtype.kind not in "fc":
        differs = after != before
    else:
        differs = _unequal(after, before)
    first = ones((1,), dtype=np.bool_)._node
    return Array(concatenated([first, differs._node], 0))


def _unequal(a: Array, b: Array) -> Array:
    both: Array = isnan(a) & isnan(b)
    result: Array = (a != b) & logical_not(both)
    return result
