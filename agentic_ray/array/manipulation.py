"""Functions that rearrange elements: shapes, axes, joining, repeating, padding."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import build
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import along, blockwise_op, leaf, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import Node, make
from agentic_ray.array.core.views import (
    broadcast,
    concatenated,
    expanded,
    permuted,
    reshaped,
    sliced,
    squeezed,
)
from agentic_ray.array.creation import shape_of
from agentic_ray.array.dtypes import cast


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
    return Array(_broadcast(node, wanted))


def _broadcast(node: Node, shape: Shape) -> Node:
    skip = len(shape) - node.ndim
    auto = grids.auto(shape, node.dtype)
    chunks = tuple(
        [
            node.chunks[axis - skip]
            if axis >= skip and node.shape[axis - skip] == length
            else auto[axis]
            for axis, length in enumerate(shape)
        ]
    )
    return broadcast(node, shape, chunks)


def broadcast_arrays(*arrays: Array) -> tuple[Array, ...]:
    """All operands repeated to their common shape."""
    nodes = [strict_operand(x) for x in arrays]
    if not nodes:
        return ()
    shape = build.broadcast_shapes([node.shape for node in nodes], "broadcast_arrays")
    chunks = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in nodes])
    return tuple([Array(broadcast(node, shape, chunks)) for node in nodes])


def reshape(x: Array, /, shape: Any, *, copy: bool | None = None) -> Array:
    """The elements in C order in another shape; one length may be -1.

    ``copy=False`` is always met: both are views of one expression until one is assigned to.

    Raises
    ------
    ValueError
        The sizes do not agree.
    """
    node = strict_operand(x)
    wanted = [operator.index(length) for length in shape] if isinstance(
        shape, tuple | list) else [operator.index(shape)]  # fmt: skip
    if wanted.count(-1) > 1:
        raise ValueError("can only specify one unknown dimension")
    if -1 in wanted:
        known = math.prod(length for length in wanted if length != -1)
        if known == 0 or node.size % known:
            raise ValueError(f"cannot reshape array of shape {node.shape} into {tuple(wanted)}")
        wanted[wanted.index(-1)] = node.size // known
    if any(length < 0 for length in wanted) or math.prod(wanted) != node.size:
        raise ValueError(f"cannot reshape array of shape {node.shape} into {tuple(wanted)}")
    return Array(_reshape(node, tuple(wanted)))


def _reshape(node: Node, shape: Shape) -> Node:
    """Reshape; axes of length 1 that come or go leave the chunks alone."""
    if node.size and [n for n in node.shape if n != 1] == [n for n in shape if n != 1]:
        ones = tuple([axis for axis, n in enumerate(node.shape) if n == 1])
        bare = squeezed(node, ones) if ones else node
        new = tuple([axis for axis, n in enumerate(shape) if n == 1])
        return expanded(bare, new) if new else bare
    return reshaped(node, shape)


def ravel(x: Array, /) -> Array:
    """All elements in one axis."""
    return reshape(x, (-1,))


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
    return Array(expanded(node, tuple(sorted(found))) if found else node)


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
    return Array(squeezed(node, tuple(sorted(axes))) if axes else node)


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
    return Array(permuted(node, normalize_axis_tuple(order, node.ndim)))


def transpose(x: Array, /, axes: Any = None) -> Array:
    """NumPy's `permute_dims`; the axes are reversed if none are given."""
    return permute_dims(x, tuple(range(x.ndim))[::-1] if axes is None else axes)


def matrix_transpose(x: Array, /) -> Array:
    """The transpose of each matrix in a stack."""
    node = strict_operand(x)
    if node.ndim < 2:
        raise ValueError(f"matrix_transpose needs at least 2 axes, not {node.ndim}")
    order = (*range(node.ndim - 2), node.ndim - 1, node.ndim - 2)
    return Array(permuted(node, order))


def swapaxes(x: Array, /, axis1: int, axis2: int) -> Array:
    """Two axes exchanged."""
    node = strict_operand(x)
    a, b = (normalize_axis_index(axis, node.ndim) for axis in (axis1, axis2))
    order = list(range(node.ndim))
    order[a], order[b] = order[b], order[a]
    return Array(permuted(node, tuple(order)))


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
    return Array(permuted(node, tuple(order)))


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
    return Array(sliced(node, index))


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
        result.append(Array(sliced(node, tuple(index))))
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
        result.append(Array(_window(node, at, start, max(0, stop - start))))
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
        from agentic_ray.array.indexing import gather

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
                parts.insert(len(parts) if at else 0, _broadcast(margin, shape))
        node = concatenated(parts, axis)
    return Array(node)
