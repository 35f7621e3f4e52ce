"""Functions that rearrange elements: shapes, axes, joining, repeating, padding."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array, check_order, viewed
from agentic_ray.array.core import build
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import along, blockwise_op, leaf, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node, make
from agentic_ray.array.core.views import (
    broadcast,
    concatenated,
    expanded,
    reshaped,
    sliced,
)
from agentic_ray.array.creation import shape_of
from agentic_ray.array.gathering import gather
from agentic_ray.array.viewing import Broadcast, Permutation, Region, Reshape, is_view


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that ``shapes`` broadcast to.

    Raises
    ------
    ValueError
        They do not.
    """
    return build.broadcast_shapes([shape_of(shape) for shape in shapes])


def broadcast_to(x: Array, /, shape: Any) -> Array:
    """``x`` repeated along new axes and axes of length 1.

    Raises
    ------
    ValueError
        ``x`` does not broadcast to ``shape``.
    """
    node, wanted = strict_operand(x), shape_of(shape)
    if build.broadcast_shapes([node.shape, wanted], "broadcast_to") != wanted:
        raise ValueError(f"an array of shape {node.shape} cannot be broadcast to {wanted}")
    return viewed(x, Broadcast(wanted))


def broadcast_arrays(*arrays: Array) -> tuple[Array, ...]:
    """All operands repeated to their common shape."""
    nodes = [strict_operand(x) for x in arrays]
    if not nodes:
        return ()
    shape = build.broadcast_shapes([node.shape for node in nodes], "broadcast_arrays")
    chunks = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in nodes])
    return tuple([Array(broadcast(node, shape, chunks)) for node in nodes])


def reshape(x: Any, /, shape: Any, order: str = "C", *, copy: bool | None = None) -> Array:
    """The elements in another shape; a view of ``x`` where NumPy gives one.

    Parameters
    ----------
    x : array_like
    shape : int or sequence of int
        One length may be -1: it follows from the others.
    order : {"C", "F", "A"}
        In which order elements are read and placed: the last index changes fastest, or the first.
        ``"A"`` is ``"F"`` for a transposed array.
    copy : bool, optional
        True: never a view. False: never a copy.

    Raises
    ------
    ValueError
        The sizes do not agree, or ``copy=False`` and only a copy can have this shape.
    """
    array = x if isinstance(x, Array) else Array(strict_operand(x), is_cell=True)
    wanted = _lengths(array, shape)
    order = check_order(order, "CFA")
    layout = array._layout
    if order == "F" or (order == "A" and layout.flags.fnc):
        return transpose(reshape(transpose(array), wanted[::-1], copy=copy))
    if copy is not True and is_view(layout, wanted):
        return viewed(array, Reshape(wanted))
    if copy is False:
        raise ValueError("Unable to avoid creating a copy while reshaping.")
    return Array(Reshape(wanted).read(array._node), is_cell=True)


def _lengths(array: Array, shape: Any) -> Shape:
    wanted = [operator.index(length) for length in shape] if isinstance(
        shape, tuple | list) else [operator.index(shape)]  # fmt: skip
    refusal = f"cannot reshape array of size {array.size} and shape {array.shape} into {shape}"
    if wanted.count(-1) > 1:
        raise ValueError("can only specify one unknown dimension")
    if -1 in wanted:
        known = math.prod(length for length in wanted if length != -1)
        if known == 0 or array.size % known:
            raise ValueError(refusal)
        wanted[wanted.index(-1)] = array.size // known
    if any(length < 0 for length in wanted) or math.prod(wanted) != array.size:
        raise ValueError(refusal)
    return tuple(wanted)


def ravel(x: Any, order: str = "C") -> Array:
    """All elements in one axis; a view of ``x`` where NumPy gives one.

    Parameters
    ----------
    x : array_like
    order : {"C", "F", "A", "K"}
        As in `reshape`; ``"K"`` is the order that the elements have in NumPy's memory.
    """
    array = x if isinstance(x, Array) else Array(strict_operand(x), is_cell=True)
    if check_order(order) == "K":
        steps = [abs(step) for step in array._layout.strides]
        array = permute_dims(array, sorted(range(array.ndim), key=lambda a: -steps[a]))
        order = "C"
    return reshape(array, (-1,), order)


def expand_dims(x: Array, /, axis: Any = 0) -> Array:
    """New axes of length 1 at ``axis`` of the result.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis in the result.
    """
    node = strict_operand(x)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    found = normalize_axis_tuple(axes, node.ndim + len(axes))
    shape = list(node.shape)
    for at in sorted(found):
        shape.insert(at, 1)
    return viewed(x, Reshape(tuple(shape)))


def squeeze(x: Array, /, axis: Any = None) -> Array:
    """Without axes of length 1.

    Raises
    ------
    ValueError
        An axis that is named has another length.
    """
    node = strict_operand(x)
    if axis is None:
        axes = tuple([a for a, n in enumerate(node.shape) if n == 1])
    else:
        axes = normalize_axis_tuple(axis, node.ndim)
    for a in axes:
        if node.shape[a] != 1:
            raise ValueError(f"cannot squeeze axis {a} of length {node.shape[a]}, shape {x.shape}")
    return viewed(x, Reshape(tuple([n for a, n in enumerate(node.shape) if a not in axes])))


def permute_dims(x: Array, /, axes: Any) -> Array:
    """Axes in the order ``axes``.

    Raises
    ------
    ValueError
        ``axes`` is not a permutation of the axes.
    """
    node = strict_operand(x)
    order = tuple([operator.index(axis) for axis in axes])
    if len(order) != node.ndim:
        raise ValueError(f"axes {order} don't match an array of {node.ndim} axes")
    return viewed(x, Permutation(normalize_axis_tuple(order, node.ndim)))


def transpose(x: Array, /, axes: Any = None) -> Array:
    """NumPy's `permute_dims`; the axes are reversed if none are given."""
    ndim = strict_operand(x).ndim
    return permute_dims(x, tuple(range(ndim))[::-1] if axes is None else axes)


def matrix_transpose(x: Array, /) -> Array:
    """The transpose of each matrix in a stack."""
    node = strict_operand(x)
    if node.ndim < 2:
        raise ValueError(f"matrix_transpose needs at least 2 axes, not {node.ndim}")
    order = (*range(node.ndim - 2), node.ndim - 1, node.ndim - 2)
    return viewed(x, Permutation(order))


def swapaxes(x: Array, /, axis1: int, axis2: int) -> Array:
    """Two axes exchanged."""
    node = strict_operand(x)
    a, b = (normalize_axis_index(axis, node.ndim) for axis in (axis1, axis2))
    order = list(range(node.ndim))
    order[a], order[b] = order[b], order[a]
    return viewed(x, Permutation(tuple(order)))


def moveaxis(x: Array, source: Any, destination: Any, /) -> Array:
    """Axes moved to other positions, the others keeping their order.

    Raises
    ------
    ValueError
        ``source`` and ``destination`` differ in length.
    """
    node = strict_operand(x)
    origin = normalize_axis_tuple(source, node.ndim)
    target = normalize_axis_tuple(destination, node.ndim)
    if len(origin) != len(target):
        raise ValueError("moveaxis: source and destination must have the same number of axes")
    order = [axis for axis in range(node.ndim) if axis not in origin]
    for to, axis in sorted(zip(target, origin, strict=True)):
        order.insert(to, axis)
    return viewed(x, Permutation(tuple(order)))


def flip(x: Array, /, *, axis: Any = None) -> Array:
    """The order of elements reversed along ``axis`` (default: along all)."""
    node = strict_operand(x)
    axes = range(node.ndim) if axis is None else normalize_axis_tuple(axis, node.ndim)
    index = tuple(
        [
            ("s", max(n - 1, 0), n, -1) if a in axes else ("s", 0, n, 1)
            for a, n in enumerate(node.shape)
        ]
    )
    return viewed(x, Region(index))


def _window(node: Node, axis: int, start: int, count: int) -> Node:
    index = [("s", 0, n, 1) for n in node.shape]
    index[axis] = ("s", start, count, 1)
    return sliced(node, tuple(index))


def roll(x: Array, /, shift: Any, *, axis: Any = None) -> Array:
    """Elements moved along ``axis`` by ``shift``, those that leave coming in at the other end."""
    node = strict_operand(x)
    if axis is None:
        flat = Array(reshaped(node, (node.size,)))
        return reshape(roll(flat, operator.index(shift), axis=0), node.shape)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shifts = shift if isinstance(shift, tuple | list) else (shift,) * len(axes)
    if len(axes) == 1 and len(shifts) > 1:
        axes = tuple(axes) * len(shifts)
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    if len(axes) != len(shifts):
        raise ValueError("roll: shift and axis must have the same length")
    for by, at in zip(shifts, axes, strict=True):
        a = normalize_axis_index(at, node.ndim)
        length = node.shape[a]
        offset = operator.index(by) % length if length else 0
        if offset:
            head = _window(node, a, length - offset, offset)
            node = concatenated([head, _window(node, a, 0, length - offset)], a)
    return Array(node)


def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """Arrays one after the other along an existing axis; flattened if ``axis`` is None.

    Raises
    ------
    ValueError
        There is none, or their other axes differ.
    """
    nodes = [strict_operand(x) for x in arrays]
    if not nodes:
        raise ValueError("need at least one array to concatenate")
    if axis is None:
        nodes = [reshaped(node, (node.size,)) for node in nodes]
        axis = 0
    at = normalize_axis_index(axis, nodes[0].ndim)
    for node in nodes[1:]:
        if node.ndim != nodes[0].ndim or any(
            a != at and node.shape[a] != n for a, n in enumerate(nodes[0].shape)
        ):
            raise ValueError(
                f"all input array dimensions except for axis {at} must match exactly; shapes "
                + ", ".join(str(node.shape) for node in nodes)
            )
    dtype = np.result_type(*[node.dtype for node in nodes])
    return Array(concatenated([cast(node, dtype) for node in nodes], at))


def concatenate(arrays: Sequence[Array], axis: int | None = 0) -> Array:
    """NumPy's name for `concat`."""
    return concat(arrays, axis=axis)


def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Arrays of one shape along a new axis.

    Raises
    ------
    ValueError
        There is none, or their shapes differ.
    """
    nodes = [strict_operand(x) for x in arrays]
    if not nodes:
        raise ValueError("need at least one array to stack")
    if any(node.shape != nodes[0].shape for node in nodes):
        raise ValueError("all input arrays must have the same shape")
    at = normalize_axis_index(axis, nodes[0].ndim + 1)
    return concat([Array(expanded(node, (at,))) for node in nodes], axis=at)


def vstack(arrays: Sequence[Array], /) -> Array:
    """Arrays one after the other as rows."""
    return concat([atleast_2d(x) for x in arrays], axis=0)


def hstack(arrays: Sequence[Array], /) -> Array:
    """Arrays one after the other as columns."""
    whole = [atleast_1d(x) for x in arrays]
    return concat(whole, axis=0 if whole and whole[0].ndim == 1 else 1)


def atleast_1d(x: Array, /) -> Array:
    """``x`` with at least one axis."""
    return x if x.ndim else expand_dims(x)


def atleast_2d(x: Array, /) -> Array:
    """``x`` with at least two axes."""
    return x if x.ndim > 1 else expand_dims(atleast_1d(x))


def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """The arrays of which ``x`` is the stack along ``axis``."""
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    result: list[Array] = []
    for i in range(node.shape[at]):
        index = [("s", 0, n, 1) for n in node.shape]
        index[at] = ("i", i)  # type: ignore[assignment]
        result.append(viewed(x, Region(tuple(index))))
    return tuple(result)


def split(x: Array, /, sections: Any, axis: int = 0) -> list[Array]:
    """``x`` cut in equal sections, or at the given indices, as in NumPy."""
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    length = node.shape[at]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ValueError("array split does not result in an equal division")
        cuts = [i * (length // sections) for i in range(1, sections)]
    else:
        cuts = [operator.index(cut) for cut in sections]
    result: list[Array] = []
    for low, high in itertools.pairwise([0, *cuts, length]):
        start, stop, _ = slice(low, high).indices(length)
        index = [("s", 0, n, 1) for n in node.shape]
        index[at] = ("s", start, max(0, stop - start), 1)
        result.append(viewed(x, Region(tuple(index))))
    return result


def _repeat_kernel(xp: Any, x: Any, repeats: int, axis: int) -> Any:
    return xp.repeat(x, repeats, axis=axis)


REPEAT = blockwise_op("repeat", _repeat_kernel)


def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Each element ``repeats`` times along ``axis``; flattened if that is None.

    Raises
    ------
    ValueError
        A number is negative, or there is not one for each element.
    """
    node = strict_operand(x)
    if axis is None:
        node, axis = reshaped(node, (node.size,)), 0
    at = normalize_axis_index(axis, node.ndim)
    length = node.shape[at]
    counts = np.asarray(repeats)
    if counts.ndim > 1 or (counts.ndim and counts.size not in (1, length)):
        raise ValueError(f"operands could not be broadcast: {counts.shape} repeats for {length}")
    if counts.size and counts.min() < 0:
        raise ValueError("repeats may not contain negative values")
    if counts.dtype.kind not in "iu" and counts.size:
        raise TypeError(f"repeats must be integers, not {counts.dtype}")
    if counts.ndim and counts.size != 1:
        return Array(gather(node, (at,), (np.repeat(np.arange(length), counts),)))
    times = int(counts.reshape(-1)[0]) if counts.size else 0
    if times == 0:
        return Array(_window(node, at, 0, 0))
    return Array(_repeated(node, times, at))


def _repeated(node: Node, times: int, axis: int) -> Node:
    chunks = list(node.chunks)
    chunks[axis] = tuple([n * times for n in chunks[axis]])
    shape = grids.shape_of(tuple(chunks))
    return make(REPEAT, (node,), (times, axis), shape, node.dtype, tuple(chunks))


def tile(x: Array, repetitions: Any, /) -> Array:
    """``x`` put together with itself ``repetitions`` times along each axis.

    Raises
    ------
    ValueError
        A number is negative.
    """
    node = strict_operand(x)
    times = [operator.index(n) for n in repetitions] if isinstance(
        repetitions, tuple | list) else [operator.index(repetitions)]  # fmt: skip
    if any(n < 0 for n in times):
        raise ValueError("negative dimensions are not allowed")
    times = [1] * (node.ndim - len(times)) + times
    missing = len(times) - node.ndim
    if missing:
        node = expanded(node, tuple(range(missing)))
    for axis, n in enumerate(times):
        if n == 0:
            node = _window(node, axis, 0, 0)
        elif n > 1:
            node = concatenated([node] * n, axis)
    return Array(node)


def _pad_kernel(xp: Any, x: Any, widths: Any, mode: str, options: Any) -> Any:
    return xp.pad(x, widths, mode=mode, **dict(options))


PAD = blockwise_op("pad", _pad_kernel)


def pad(x: Array, /, pad_width: Any, mode: str = "constant", **options: Any) -> Array:
    """``x`` with a margin, as in NumPy.

    Constant margins are joined on without touching ``x``; other modes need whole axes.
    """
    node = strict_operand(x)
    widths = np.broadcast_to(np.asarray(pad_width), (node.ndim, 2)).tolist()
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError("index can't contain negative values")
    if mode != "constant":
        axes = [axis for axis, pair in enumerate(widths) if any(pair)]
        key = (tuple(map(tuple, widths)), mode, tuple(sorted(options.items())))
        lengths = [node.shape[axis] + sum(widths[axis]) for axis in axes]
        return Array(along(PAD, [node], axes, lengths, node.dtype, key)) if axes else x
    values = np.broadcast_to(np.asarray(options.pop("constant_values", 0)), (node.ndim, 2))
    if options:
        raise ValueError(f"unsupported keyword arguments for mode 'constant': {set(options)}")
    for axis, (before, after) in enumerate(widths):
        parts = [node]
        for count, value, at in ((before, values[axis, 0], 0), (after, values[axis, 1], 1)):
            if count:
                shape = (*node.shape[:axis], count, *node.shape[axis + 1 :])
                margin = leaf(np.full((), value).astype(node.dtype))
                parts.insert(len(parts) if at else 0, Broadcast(shape).read(margin))
        node = concatenated(parts, axis)
    return Array(node)
