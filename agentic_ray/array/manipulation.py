"""Functions that rearrange the elements of an array: shape, order of axes, order along axes."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array, check_order, viewed
from agentic_ray.array.conversion import asarray, sequence_of
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core.build import axes_of_ufunc, strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import concatenated, expanded, reshaped, sliced
from agentic_ray.array.creation import shape_of
from agentic_ray.array.describing import ndim, shape
from agentic_ray.array.outputs import delivered
from agentic_ray.array.viewing import Broadcast, Permutation, Region, Reshape, is_view


def _array(x: Any) -> Array:
    return x if isinstance(x, Array) else Array(strict_operand(x), is_cell=True)


# --- broadcasting ------------------------------------------------------------------------


def broadcast_shapes(*args: Any) -> Shape:
    """Return the shape that ``args`` broadcast to.

    Raises
    ------
    ValueError
        The shapes do not broadcast to each other.
    """
    return build.broadcast_shapes([shape_of(shape) for shape in args])


def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Array:
    """Repeat ``array`` along new axes and axes of length 1, as a read-only view.

    Raises
    ------
    ValueError
        The array does not broadcast to ``shape``.
    """
    node, wanted = strict_operand(array), shape_of(shape)
    if build.broadcast_shapes([node.shape, wanted], "broadcast_to") != wanted:
        raise ValueError(f"an array of shape {node.shape} cannot be broadcast to {wanted}")
    return viewed(array, Broadcast(wanted))


def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Array, ...]:
    """Repeat all operands to their common shape, as views; those of this shape stay as they are."""
    arrays = [_array(x) for x in args]
    if not arrays:
        return ()
    shape = build.broadcast_shapes([x.shape for x in arrays], "broadcast_arrays")
    return tuple([x if x.shape == shape else viewed(x, Broadcast(shape)) for x in arrays])


# --- shape -------------------------------------------------------------------------------


def reshape(a: Any, /, shape: Any, order: str = "C", *, copy: bool | None = None) -> Array:
    """Arrange the elements in another shape; a view of ``a`` where NumPy gives one.

    Parameters
    ----------
    a : array_like
    shape : int or sequence of int
        One length may be -1: it follows from the others.
    order : {"C", "F", "A"}
        Order in which elements are read and placed: the last index changes fastest, or the first.
        ``"A"`` is ``"F"`` for a transposed array.
    copy : bool, optional
        True: never a view. False: never a copy.

    Raises
    ------
    ValueError
        The sizes do not agree, or ``copy=False`` and only a copy can have this shape.
    """
    array = _array(a)
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


def ravel(a: Any, order: str = "C") -> Array:
    """Arrange all elements in one axis; a view of ``a`` where NumPy gives one.

    Parameters
    ----------
    a : array_like
    order : {"C", "F", "A", "K"}
        As in `reshape`; ``"K"`` is the order of the elements in NumPy's memory.
    """
    array = _array(a)
    if check_order(order) == "K":
        steps = [abs(step) for step in array._layout.strides]
        array = permute_dims(array, sorted(range(array.ndim), key=lambda at: -steps[at]))
        order = "C"
    return reshape(array, (-1,), order)


def expand_dims(a: Any, axis: Any = 0) -> Array:
    """Add new axes of length 1 at ``axis`` of the result, as a view.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis in the result.
    """
    array = _array(a)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    found = normalize_axis_tuple(axes, array.ndim + len(axes))
    wanted = list(array.shape)
    for at in sorted(found):
        wanted.insert(at, 1)
    return viewed(array, Reshape(tuple(wanted)))


def squeeze(a: Any, axis: Any = None) -> Array:
    """Remove the axes of length 1, or those that are named; a view.

    Raises
    ------
    ValueError
        An axis that is named has another length.
    """
    array = _array(a)
    if axis is None:
        axes = tuple([at for at, n in enumerate(array.shape) if n == 1])
    else:
        axes = axes_of_ufunc(axis, array.ndim)
    for at in axes:
        if array.shape[at] != 1:
            raise ValueError(
                "cannot select an axis to squeeze out which has size not equal to one: axis "
                f"{at} of shape {array.shape}"
            )
    return viewed(array, Reshape(tuple([n for at, n in enumerate(array.shape) if at not in axes])))


def _with_axes(arys: Sequence[Any], least: int) -> Any:
    """Give each operand at least so many axes; return one by itself, several as a tuple."""
    found = []
    for x in map(_array, arys):
        if x.ndim >= least:
            found.append(x)
            continue
        missing = least - x.ndim
        behind = 1 if least == 3 and x.ndim else 0
        found.append(viewed(x, Reshape((1,) * (missing - behind) + x.shape + (1,) * behind)))
    return found[0] if len(found) == 1 else tuple(found)


def atleast_1d(*arys: Any) -> Any:
    """Give each operand at least one axis; one operand gives an array, several a tuple."""
    return _with_axes(arys, 1)


def atleast_2d(*arys: Any) -> Any:
    """Give each operand at least two axes, new ones in front."""
    return _with_axes(arys, 2)


def atleast_3d(*arys: Any) -> Any:
    """Give operands at least three axes: vectors go along the second, matrices get a third."""
    return _with_axes(arys, 3)


# --- order of axes -----------------------------------------------------------------------


def transpose(a: Any, axes: Any = None) -> Array:
    """Return a view with the axes in another order; reversed if none is given.

    Raises
    ------
    ValueError
        ``axes`` is not a permutation of the axes.
    """
    array = _array(a)
    if axes is None:
        return viewed(array, Permutation(tuple(range(array.ndim))[::-1]))
    return permute_dims(array, axes)


def permute_dims(a: Any, axes: Any = None) -> Array:
    """Transpose as `transpose` does, under the standard's name.

    Raises
    ------
    ValueError
        ``axes`` is not a permutation of the axes.
    """
    if axes is None:
        return transpose(a)
    array = _array(a)
    order = tuple([operator.index(axis) for axis in axes])
    if len(order) != array.ndim:
        raise ValueError(f"axes {order} don't match an array of {array.ndim} axes")
    return viewed(array, Permutation(normalize_axis_tuple(order, array.ndim)))


def matrix_transpose(x: Any, /) -> Array:
    """Transpose each matrix in a stack, as a view."""
    array = _array(x)
    if array.ndim < 2:
        raise ValueError(f"matrix_transpose needs at least 2 axes, not {array.ndim}")
    return swapaxes(array, -1, -2)


def swapaxes(a: Any, axis1: int, axis2: int) -> Array:
    """Exchange two axes, as a view."""
    array = _array(a)
    one, other = (normalize_axis_index(axis, array.ndim) for axis in (axis1, axis2))
    order = list(range(array.ndim))
    order[one], order[other] = order[other], order[one]
    return viewed(array, Permutation(tuple(order)))


def moveaxis(a: Any, source: Any, destination: Any) -> Array:
    """Move axes to other positions, the others keeping their order; a view.

    Raises
    ------
    ValueError
        ``source`` and ``destination`` differ in length.
    """
    array = _array(a)
    origin = normalize_axis_tuple(source, array.ndim, "source")
    target = normalize_axis_tuple(destination, array.ndim, "destination")
    if len(origin) != len(target):
        raise ValueError(
            "`source` and `destination` arguments must have the same number of elements"
        )
    order = [axis for axis in range(array.ndim) if axis not in origin]
    for to, axis in sorted(zip(target, origin, strict=True)):
        order.insert(to, axis)
    return viewed(array, Permutation(tuple(order)))


def rollaxis(a: Any, axis: int, start: int = 0) -> Array:
    """Move ``axis`` before the axis ``start``, as a view; see `moveaxis`."""
    array = _array(a)
    at = normalize_axis_index(axis, array.ndim)
    to = start + array.ndim if start < 0 else start
    if not 0 <= to <= array.ndim:
        raise np.exceptions.AxisError(start, array.ndim + 1, "start")
    return moveaxis(array, at, to - 1 if at < to else to)


# --- order along axes --------------------------------------------------------------------


def flip(m: Any, axis: Any = None) -> Array:
    """Reverse the order of elements along ``axis`` (default: along all), as a view."""
    array = _array(m)
    axes = range(array.ndim) if axis is None else normalize_axis_tuple(axis, array.ndim)
    index = tuple(
        [
            ("s", max(n - 1, 0), n, -1) if a in axes else ("s", 0, n, 1)
            for a, n in enumerate(array.shape)
        ]
    )
    return viewed(array, Region(index))


def flipud(m: Any) -> Array:
    """Reverse the first axis.

    Raises
    ------
    ValueError
        There is no axis.
    """
    if ndim(m) < 1:
        raise ValueError("Input must be >= 1-d.")
    return flip(m, 0)


def fliplr(m: Any) -> Array:
    """Reverse the second axis.

    Raises
    ------
    ValueError
        There are fewer than two axes.
    """
    if ndim(m) < 2:
        raise ValueError("Input must be >= 2-d.")
    return flip(m, 1)


def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Array:
    """Rotate ``k`` times by 90 degrees, from the first of ``axes`` towards the second; a view.

    Raises
    ------
    ValueError
        ``axes`` are not two different axes.
    """
    array = _array(m)
    pair = tuple(axes)
    if len(pair) != 2:
        raise ValueError("len(axes) must be 2.")
    for axis in pair:
        if not -array.ndim <= axis < array.ndim:
            raise ValueError(f"Axes={pair} out of range for array of ndim={array.ndim}.")
    first, second = (axis % array.ndim for axis in pair)
    if first == second:
        raise ValueError("Axes must be different.")
    turns = k % 4
    if turns == 0:
        return array[...]
    if turns == 2:
        return flip(flip(array, first), second)
    if turns == 1:
        return swapaxes(flip(array, second), first, second)
    return flip(swapaxes(array, first, second), second)


def _window(node: Node, axis: int, start: int, count: int) -> Node:
    index = [("s", 0, n, 1) for n in node.shape]
    index[axis] = ("s", start, count, 1)
    return sliced(node, tuple(index))


def roll(a: Any, shift: Any, axis: Any = None) -> Array:
    """Move elements along ``axis`` by ``shift``; elements that leave come in at the other end.

    Raises
    ------
    ValueError
        ``shift`` and ``axis`` do not broadcast against each other.
    """
    node = strict_operand(a)
    if axis is None:
        flat = Array(reshaped(node, (node.size,)))
        return Array(reshaped(roll(flat, shift, axis=0)._node, node.shape))
    axes = normalize_axis_tuple(axis, node.ndim, allow_duplicate=True)
    shifts = np.asarray(shift) if type(shift) is int else evaluate.value(strict_operand(shift))
    pairs = np.broadcast(shifts, axes)
    if pairs.ndim > 1:
        raise ValueError("'shift' and 'axis' should be scalars or 1D sequences")
    total = dict.fromkeys(axes, 0)
    for by, at in pairs:
        total[int(at)] += int(by)
    for at, by in total.items():
        length = node.shape[at]
        offset = by % length if length else 0
        if offset:
            head = _window(node, at, length - offset, offset)
            node = concatenated([head, _window(node, at, 0, length - offset)], at)
    return Array(node)


# --- joining and taking apart ------------------------------------------------------------


def concatenate(
    arrays: Any,
    /,
    axis: int | None = 0,
    out: Any = None,
    *,
    dtype: Any = None,
    casting: str = "same_kind",
) -> Array:
    """Join arrays one after the other along an existing axis.

    Parameters
    ----------
    arrays : sequence of array_like
    axis : int or None
        None: all are flattened first.
    out : array, optional
        Array that receives the result; not together with ``dtype``.
    dtype : dtype, optional
        Dtype of the result.
    casting : str
        Conversions to the dtype that are allowed.

    Raises
    ------
    ValueError
        There is no array, or the other axes differ.
    TypeError
        A conversion is not allowed, or ``out`` and ``dtype`` are both given.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.concatenate(([1, 2], [3]))
    Array([1, 2, 3], dtype=int64)
    """
    if out is not None and dtype is not None:
        raise TypeError("concatenate() only takes `out` or `dtype` as an argument, but both were "
                        "provided.")  # fmt: skip
    parts = sequence_of(arrays)
    nodes = [strict_operand(x) for x in parts]
    if not nodes:
        raise ValueError("need at least one array to concatenate")
    if axis is None:
        nodes = [reshaped(node, (node.size,)) for node in nodes]
        axis = 0
    elif any(not node.ndim for node in nodes):
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    at = normalize_axis_index(axis, nodes[0].ndim)
    for place, node in enumerate(nodes):
        _check_joins(nodes[0].shape, node.shape, place, at)
    natural = np.result_type(
        *[
            type(part)(0) if type(part) in (int, float, complex) else node.dtype
            for part, node in zip(parts, nodes, strict=True)
        ]
    )  # Python's numbers give way
    wanted = natural if dtype is None else np.dtype(dtype)
    if dtype is not None or casting != "same_kind":
        for node in nodes:
            if not np.can_cast(node.dtype, wanted, casting):  # type: ignore[arg-type]
                raise TypeError(
                    f"Cannot cast array data from {node.dtype!r} to {wanted!r} according to the "
                    f"rule {casting!r}"
                )
    result = Array(concatenated([cast(node, wanted) for node in nodes], at))
    return delivered(result, out, casting)


def _check_joins(first: Shape, other: Shape, place: int, axis: int) -> None:
    """Raise ValueError unless array number ``place`` can be joined to the first along ``axis``."""
    if len(other) != len(first):
        raise ValueError(
            "all the input arrays must have the same number of dimensions, but the array at index "
            f"0 has shape {first} and the array at index {place} has shape {other}; x[None, :] and "
            "x[:, None] make a row and a column of a vector"
        )
    for a, (n, m) in enumerate(zip(first, other, strict=True)):
        if a != axis and n != m:
            raise ValueError(
                "all the input array dimensions except for the concatenation axis must match "
                f"exactly, but along dimension {a} the array at index 0 has size {n} and the array "
                f"at index {place} has size {m} (shapes {first} and {other})"
            )


def concat(
    arrays: Any,
    /,
    axis: int | None = 0,
    out: Any = None,
    *,
    dtype: Any = None,
    casting: str = "same_kind",
) -> Array:
    """Join as `concatenate` does, under the standard's name."""
    return concatenate(arrays, axis, out, dtype=dtype, casting=casting)


def stack(
    arrays: Any,
    axis: int = 0,
    out: Any = None,
    *,
    dtype: Any = None,
    casting: str = "same_kind",
) -> Array:
    """Join arrays of one shape along a new axis; other arguments as in `concatenate`.

    Raises
    ------
    ValueError
        There is no array, or the shapes differ.
    """
    nodes = [strict_operand(x) for x in sequence_of(arrays)]
    if not nodes:
        raise ValueError("need at least one array to stack")
    if any(node.shape != nodes[0].shape for node in nodes):
        raise ValueError("all input arrays must have the same shape")
    at = normalize_axis_index(axis, nodes[0].ndim + 1)
    parts = [Array(expanded(node, (at,))) for node in nodes]
    return concatenate(parts, at, out, dtype=dtype, casting=casting)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Array, ...]:
    """Return views of the arrays of which ``x`` is the stack along ``axis``."""
    array = _array(x)
    if not array.ndim:
        raise ValueError("Input array must be at least 1-d.")
    at = normalize_axis_index(axis, array.ndim)
    result: list[Array] = []
    for i in range(array.shape[at]):
        index: list[Any] = [("s", 0, n, 1) for n in array.shape]
        index[at] = ("i", i)
        result.append(viewed(array, Region(tuple(index))))
    return tuple(result)


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """Cut ``ary`` into views: equal sections, or pieces between the given indices.

    Raises
    ------
    ValueError
        The sections would not be equal; see `array_split`.
    """
    if ndim(indices_or_sections) == 0:
        length = shape(ary)[normalize_axis_index(axis, ndim(ary))]
        if length % int(indices_or_sections):
            raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """Cut ``ary`` into views: sections, the first of which may be longer by one, or pieces between
    the given indices.

    Raises
    ------
    ValueError
        The number of sections is below one.
    """
    array = _array(ary)
    at = normalize_axis_index(axis, array.ndim)
    length = array.shape[at]
    if ndim(indices_or_sections) == 0:
        sections = int(indices_or_sections)
        if sections <= 0:
            raise ValueError("number sections must be larger than 0.") from None
        each, extra = divmod(length, sections)
        counts = [each + 1] * extra + [each] * (sections - extra)
        cuts = list(itertools.accumulate(counts))[:-1]
    else:
        cuts = [operator.index(cut) for cut in asarray(indices_or_sections).tolist()]
    result: list[Array] = []
    for low, high in itertools.pairwise([0, *cuts, length]):
        start, stop, _ = slice(low, high).indices(length)
        index: list[Any] = [("s", 0, n, 1) for n in array.shape]
        index[at] = ("s", start, max(0, stop - start), 1)
        result.append(viewed(array, Region(tuple(index))))
    return result
