"""Reading by index: slices, integers, integer arrays, masks, take.

Shapes are always known: where one depends on data (a mask, positions), the data are computed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core.build import gufunc_op
from agentic_ray.array.core.build import strict_operand as strict
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import NDArray, Node, Op, make
from agentic_ray.array.core.views import AxisIndex, permuted, rechunk, reshaped
from agentic_ray.array.gathering import gather
from agentic_ray.array.viewing import Field, Region


@dataclass(slots=True)
class Index:
    """A parsed index.

    ``basic`` has an entry for each axis of the array with new axes put in at ``new``;
    ``arrays`` maps axes to integer arrays; ``first`` is where their axes go in the result.
    """

    basic: list[AxisIndex]
    new: tuple[int, ...]
    arrays: dict[int, NDArray]
    first: int


def _parts(key: Any, ndim: int) -> list[Any]:
    """The entries of a key with masks turned into positions and the ellipsis spelled out."""
    entries = list(key) if isinstance(key, tuple) else [key]
    parts: list[Any] = []
    for entry in entries:
        if isinstance(entry, list):
            entry = np.asarray(entry, dtype=None if entry else np.intp)
        if isinstance(entry, Array) and entry.dtype.kind == "b":
            entry = evaluate.value(entry._node)
        if isinstance(entry, bool | np.bool_) or (
            isinstance(entry, np.ndarray) and entry.dtype.kind == "b"
        ):
            parts.append(np.asarray(entry))
        else:
            parts.append(entry)
    used = 0
    for entry in parts:
        if isinstance(entry, np.ndarray) and entry.dtype.kind == "b":
            used += entry.ndim
        elif entry is not None and entry is not Ellipsis:
            used += 1
    ellipses = [i for i, entry in enumerate(parts) if entry is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if used > ndim:
        raise IndexError(
            f"too many indices for array: array is {ndim}-dimensional, but {used} were indexed"
        )
    fill = [slice(None)] * (ndim - used)
    at = ellipses[0] if ellipses else len(parts)
    return [*parts[:at], *fill, *parts[at + 1 :]]


def parse(key: Any, shape: Shape) -> Index:
    """Understand ``key`` as NumPy does.

    Raises
    ------
    IndexError
        Too many entries, a position outside the axis, a mask of another shape, or an entry
        that is no index at all.
    """
    basic: list[AxisIndex] = []
    new: list[int] = []
    arrays: dict[int, Any] = {}
    numbers: list[int] = []
    separated = False
    axis = 0  # of the array
    last_array = -1
    for place, entry in enumerate(_parts(key, len(shape))):
        at = len(basic)
        if entry is None:
            new.append(at)
            basic.append(("s", 0, 1, 1))
        elif isinstance(entry, slice):
            start, stop, step = _slice_numbers(entry).indices(shape[axis])
            count = max(0, -((start - stop) // step) if step > 0 else -((stop - start) // -step))
            basic.append(("s", start if count else 0, count, step if count else 1))
            axis += 1
        elif isinstance(entry, np.ndarray) and entry.dtype.kind == "b":
            wanted = shape[axis : axis + entry.ndim]
            if entry.shape != wanted:
                raise IndexError(
                    f"boolean index did not match indexed array: mask {entry.shape}, axes {wanted}"
                )
            found = entry.nonzero() if entry.ndim else (np.zeros(int(entry), np.intp),)
            if not entry.ndim:  # like a new axis of length 0 or 1
                new.append(at)
            for positions in found:
                arrays[len(basic)] = positions
                basic.append(("s", 0, 1 if not entry.ndim else shape[axis], 1))
                axis += entry.ndim > 0
            separated |= last_array not in (-1, place - 1)
            last_array = place
        else:
            value = _positions(entry, shape[axis], axis)
            if isinstance(value, int):
                numbers.append(at)
                basic.append(("i", value))
            else:
                arrays[at] = value
                basic.append(("s", 0, shape[axis], 1))
            separated |= last_array not in (-1, place - 1)
            last_array = place
            axis += 1
    if arrays:
        # Next to arrays an integer is one of them, as in NumPy.
        for at in numbers:
            arrays[at] = np.asarray(basic[at][1])
            basic[at] = ("s", 0, _length_at(basic, new, shape, at), 1)
    first = 0
    if arrays and not separated:
        first = min(arrays)
    return Index(basic, tuple(new), dict(sorted(arrays.items())), first)


def _length_at(basic: Sequence[AxisIndex], new: Sequence[int], shape: Shape, at: int) -> int:
    return shape[at - sum(1 for axis in new if axis < at)]


def _slice_numbers(entry: slice) -> slice:
    def number(value: Any) -> Any:
        return None if value is None else operator.index(value)

    return slice(number(entry.start), number(entry.stop), number(entry.step))


def _positions(entry: Any, length: int, axis: int) -> int | NDArray:
    """An integer or integer array as positions in ``0..length``."""
    if isinstance(entry, Array):
        if entry.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer type, not {entry.dtype}")
        entry = int(entry) if not entry.shape else evaluate.value(entry._node)
    if isinstance(entry, np.ndarray) and entry.ndim:
        if entry.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer type, not {entry.dtype}")
        return checked_positions(entry, length, axis)
    try:
        value = operator.index(entry)
    except TypeError:
        raise IndexError(
            "only integers, slices, ellipsis, None and integer or boolean arrays are valid "
            f"indices, not {type(entry).__name__}"
        ) from None
    if not -length <= value < length:
        raise IndexError(f"index {value} is out of bounds for axis {axis} with size {length}")
    return value + length if value < 0 else value


def checked_positions(positions: NDArray, length: int, axis: int) -> NDArray:
    """Positions made non-negative.

    Raises
    ------
    IndexError
        One lies outside the axis.
    """
    positions = positions.astype(np.intp, copy=False)
    if positions.size and (positions.min() < -length or positions.max() >= length):
        wrong = positions[(positions < -length) | (positions >= length)][0]
        raise IndexError(f"index {wrong} is out of bounds for axis {axis} with size {length}")
    return np.where(positions < 0, positions + length, positions)


# --- reading -----------------------------------------------------------------------------


def getitem(array: Array, key: Any) -> Array:
    """``x[key]``: a view for integers and slices, else a new array.

    Raises
    ------
    IndexError
        As in NumPy.
    """
    node = array._node
    if node.dtype.names is not None and isinstance(key, str):
        return field(array, key)
    if isinstance(key, Array) and key.dtype.kind == "b" and key.ndim and not key._node.small:
        return Array(masked(node, key._node))
    index = parse(key, node.shape)
    region = Region(tuple(index.basic), index.new)
    if index.arrays:
        return Array(_taken(region.read(node), index), is_cell=True)
    if is_element(index, key):
        return Array(region.read(node))
    return array._view(region)


def is_element(index: Index, key: Any) -> bool:
    """Whether a basic index names one element, which NumPy gives out as a scalar, not a view."""
    if any(entry[0] != "i" for entry in index.basic):
        return False
    return not (key is Ellipsis or (isinstance(key, tuple) and any(e is Ellipsis for e in key)))


def field(array: Array, name: str) -> Array:
    """A view of a field of records.

    Raises
    ------
    ValueError
        There is no field of this name.
    """
    if name not in (array.dtype.names or ()):
        raise ValueError(f"no field of name {name}")
    return array._view(Field(name))


def _taken(node: Node, index: Index) -> Node:
    """The elements at integer arrays; ``node`` has the basic part of the index applied."""
    # Integers dropped no axes here: next to arrays they are arrays.
    spread = np.broadcast_arrays(*broadcastable(list(index.arrays.values())))
    return _placed(node, tuple(index.arrays), spread, index.first)


def broadcastable(arrays: list[NDArray]) -> list[NDArray]:
    try:
        np.broadcast_shapes(*[array.shape for array in arrays])
    except ValueError:
        shapes = " ".join(str(array.shape) for array in arrays)
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together: {shapes}"
        ) from None
    return arrays


def _placed(node: Node, axes: tuple[int, ...], arrays: Sequence[NDArray], first: int) -> Node:
    """Gather along ``axes`` with arrays of one shape; their axes go to position ``first``."""
    shape = arrays[0].shape
    rest = tuple([a for a in range(node.ndim) if a not in axes])
    taken = gather(permuted(node, (*axes, *rest)), tuple(range(len(axes))), arrays)
    if len(shape) != 1:
        taken = _unflattened(taken, shape)
    before = sum(1 for a in rest if a < first)
    ahead = tuple(range(len(shape), len(shape) + before))
    behind = tuple(range(len(shape) + before, taken.ndim))
    return permuted(taken, (*ahead, *range(len(shape)), *behind))


def _unflattened(node: Node, shape: Shape) -> Node:
    """The first axis in the shape of the index arrays."""
    return reshaped(node, (*shape, *node.shape[1:]))


def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """Elements of ``x`` at ``indices`` along ``axis``.

    Raises
    ------
    IndexError
        A position lies outside the axis.
    ValueError
        ``axis`` is missing for an array of more than one axis.
    """
    node = strict(x)
    if axis is None:
        if node.ndim != 1:
            raise ValueError("take: axis is needed for arrays that are not one-dimensional")
        axis = 0
    at = normalize_axis_index(axis, node.ndim)
    index = strict(indices) if not isinstance(indices, list | int) else build.leaf(
        np.asarray(indices))  # fmt: skip
    if index.dtype.kind not in "iu":
        raise IndexError(f"take: indices must be integers, not {index.dtype}")
    positions = checked_positions(evaluate.value(index), node.shape[at], at)
    taken = gather(node, (at,), (positions,))
    if positions.ndim != 1:
        shape = (*node.shape[:at], *positions.shape, *node.shape[at + 1 :])
        taken = reshaped(taken, shape)
    return Array(taken)


def _take_along_kernel(xp: Any, x: Any, indices: Any) -> Any:
    loop = np.broadcast_shapes(x.shape[:-1], indices.shape[:-1])
    x = xp.broadcast_to(x, (*loop, x.shape[-1]))
    indices = xp.broadcast_to(indices, (*loop, indices.shape[-1]))
    return xp.take_along_axis(x, indices, axis=-1)


_TAKE_ALONG = gufunc_op("take_along_axis", _take_along_kernel)


def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """For each position along ``axis`` the element that ``indices`` names there.

    Raises
    ------
    IndexError
        Indices are not integers, or (when computed) lie outside the axis.
    ValueError
        The numbers of axes differ.
    """
    node, index = strict(x), strict(indices)
    if index.dtype.kind not in "iu":
        raise IndexError(f"take_along_axis: indices must be integers, not {index.dtype}")
    if node.ndim != index.ndim:
        raise ValueError("take_along_axis: x and indices must have the same number of axes")
    at = normalize_axis_index(axis, node.ndim)
    order = (*[a for a in range(node.ndim) if a != at], at)
    made = build.gufunc(
        _TAKE_ALONG,
        [permuted(node, order), permuted(index, order)],
        (1, 1),
        (index.shape[at],),
        node.dtype,
    )
    back = tuple(np.argsort(order).tolist())
    return Array(permuted(made, back))


# --- masks -------------------------------------------------------------------------------


def _mask_kernel(xp: Any, x: Any, mask: Any) -> Any:
    return x[mask]


def _count_kernel(xp: Any, mask: Any) -> Any:
    return xp.reshape(xp.count_nonzero(mask), (1,))


def _lower_counts(node: Node, lowering: Any) -> list[Any]:
    rows = [(block,) for block in lowering.blocks(node.inputs[0])]
    return list(lowering.call(node, _count_kernel, rows))


_COUNTS = Op("count", "tasks", _count_kernel, _lower_counts)


def counts_per_chunk(mask: Node) -> list[int]:
    """How many elements of each chunk of a one-dimensional mask are true; computes them."""
    blocks = mask.blocks
    node = make(_COUNTS, (mask,), (), (blocks,), np.dtype(np.int64), ((1,) * blocks,))
    return [int(n) for n in evaluate.value(node)]


def masked(node: Node, mask: Node) -> Node:
    """The elements of ``node`` where ``mask`` holds, in C order; the mask is computed now.

    Raises
    ------
    IndexError
        The mask's shape is not that of the first axes.
    """
    if mask.shape != node.shape[: mask.ndim]:
        raise IndexError(
            f"boolean index did not match indexed array: mask {mask.shape}, array {node.shape}"
        )
    rest = node.shape[mask.ndim :]
    rows = math.prod(mask.shape)
    flat = reshaped(node, (rows, *rest))
    flat_mask = rechunk(reshaped(mask, (rows,)), (flat.chunks[0],))
    flat_mask = evaluate.persist([flat_mask])[0]
    counts = counts_per_chunk(flat_mask)
    lengths = tuple([n for n in counts if n]) or (0,)
    kept = tuple([i for i, n in enumerate(counts) if n]) or (0,)
    chunks = (lengths, *flat.chunks[1:])
    shape = (sum(lengths), *rest)
    return make(_MASK, (flat, flat_mask), (kept,), shape, node.dtype, chunks)


def _mask_whole(xp: Any, x: Any, mask: Any, kept: Any) -> Any:
    return x[mask]


def _lower_mask(node: Node, lowering: Any) -> list[Any]:
    source, mask = node.inputs
    (kept,) = node.params
    blocks, masks = lowering.blocks(source), lowering.blocks(mask)
    others = source.blocks // len(source.chunks[0])
    rows = [(blocks[i * others + j], masks[i]) for i in kept for j in range(others)]
    return list(lowering.call(node, _mask_kernel, rows))


_MASK = Op("mask", "tasks", _mask_whole, _lower_mask)
