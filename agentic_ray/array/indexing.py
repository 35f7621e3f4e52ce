"""Reading by index: slices, integers, integer arrays, masks.

Shapes are always known: if a shape depends on data (a mask, positions), the data are computed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand as strict
from agentic_ray.array.core.build import without_arrays
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray, Node, Op, make
from agentic_ray.array.core.views import AxisIndex, permuted, rechunk, reshaped
from agentic_ray.array.gathering import gather
from agentic_ray.array.viewing import Field, Fields, Region


@dataclass(slots=True)
class Index:
    """A parsed index.

    ``basic`` has an entry for each axis of the array with new axes put in at ``new``; ``arrays``
    maps axes to integer arrays, whose axes go to position ``first`` in the result.
    """

    basic: list[AxisIndex]
    new: tuple[int, ...]
    arrays: dict[int, NDArray]
    first: int


def _parts(key: Any, ndim: int) -> list[Any]:
    """Return the entries of a key with masks as NumPy's arrays and the ellipsis spelled out, unless
    it stands for no axes."""
    entries = list(key) if isinstance(key, tuple) else [key]
    parts: list[Any] = []
    for entry in entries:
        if _is_sequence(entry):
            entry = np.asarray(without_arrays(entry))
            if not entry.size and entry.dtype.kind == "f":  # an empty list has no dtype of its own
                entry = entry.astype(np.intp)
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
    fill: list[Any] = [slice(None)] * (ndim - used)
    at = ellipses[0] if ellipses else len(parts)
    if ellipses and not fill:
        fill = [Ellipsis]  # it stands for no axes, and yet separates arrays on either side of it
    return [*parts[:at], *fill, *parts[at + 1 :]]


def _is_sequence(entry: Any) -> bool:
    """Whether NumPy makes an array of an entry: a list, a tuple in a tuple, a range, a column of a
    table."""
    if isinstance(entry, list | tuple | range):
        return True
    known = entry is None or isinstance(entry, int | slice | Array | np.ndarray | np.generic)
    return not known and hasattr(entry, "__array__")


def parse(key: Any, shape: Shape) -> Index:
    """Parse ``key`` as NumPy does.

    Raises
    ------
    IndexError
        There are too many entries, a position lies outside the axis, a mask has another shape, or
        an entry is no index at all.
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
        if entry is Ellipsis:
            continue
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
    _check_bounds(arrays, basic, new, shape)
    if arrays:
        # Next to arrays an integer counts as one of them, as in NumPy.
        for at in numbers:
            arrays[at] = np.asarray(basic[at][1])
            basic[at] = ("s", 0, _length_at(basic, new, shape, at), 1)
    first = 0
    if arrays and not separated:
        first = min(arrays)
    return Index(basic, tuple(new), dict(sorted(arrays.items())), first)


def _check_bounds(
    arrays: dict[int, Any], basic: Sequence[AxisIndex], new: Sequence[int], shape: Shape
) -> None:
    """Make the positions in ``arrays`` non-negative.

    Raises
    ------
    IndexError
        A position lies outside its axis, and elements are selected at all: NumPy does not look at
        positions that are broadcast to nothing.
    """
    try:
        selects = math.prod(np.broadcast_shapes(*[found.shape for found in arrays.values()])) > 0
    except ValueError:
        selects = True  # refused later, as NumPy does: after the bounds are checked
    for at, found in arrays.items():
        if at not in new:
            axis = at - sum(1 for other in new if other < at)
            arrays[at] = checked_positions(found, shape[axis], axis, check=selects)


def _length_at(basic: Sequence[AxisIndex], new: Sequence[int], shape: Shape, at: int) -> int:
    return shape[at - sum(1 for axis in new if axis < at)]


def _slice_numbers(entry: slice) -> slice:
    def number(value: Any) -> Any:
        return None if value is None else operator.index(value)

    return slice(number(entry.start), number(entry.stop), number(entry.step))


def _positions(entry: Any, length: int, axis: int) -> int | NDArray:
    """Return an integer or integer array as positions in ``0..length``."""
    if isinstance(entry, Array):
        if entry.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer type, not {entry.dtype}")
        entry = int(entry) if not entry.shape else evaluate.value(entry._node)
    if isinstance(entry, np.ndarray) and entry.ndim:
        if entry.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer type, not {entry.dtype}")
        return entry.astype(np.intp)
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


def checked_positions(positions: NDArray, length: int, axis: int, *, check: bool = True) -> NDArray:
    """Return positions made non-negative.

    Raises
    ------
    IndexError
        A position lies outside the axis, and ``check`` is set.
    """
    positions = positions.astype(np.intp, copy=False)
    if not check:
        return np.zeros_like(positions)
    if positions.size and (positions.min() < -length or positions.max() >= length):
        wrong = positions[(positions < -length) | (positions >= length)][0]
        raise IndexError(f"index {wrong} is out of bounds for axis {axis} with size {length}")
    return np.where(positions < 0, positions + length, positions)


# --- reading -----------------------------------------------------------------------------


def getitem(array: Array, key: Any) -> Array:
    """Read ``x[key]``: a view for integers and slices, else a new array.

    Raises
    ------
    IndexError
        The index is refused as in NumPy.
    """
    node = array._node
    if node.dtype.names is not None:
        key = field_name(array, key)
        if are_names(key):
            return field(array, key)
    if isinstance(key, Array) and key.dtype.kind == "b" and key.ndim and not key._node.small:
        return Array(masked(node, key._node))
    index = parse(key, node.shape)
    region = Region(tuple(index.basic), index.new)
    if index.arrays:
        return Array(_taken(region.read(node), index), is_cell=True)
    if is_element(index, key) and node.dtype.names is None:
        return Array(region.read(node))
    return array._view(region)


def is_element(index: Index, key: Any) -> bool:
    """Whether a basic index names one element, which NumPy returns as a scalar, not a view (unless
    it is a record)."""
    if any(entry[0] != "i" for entry in index.basic):
        return False
    return not (key is Ellipsis or (isinstance(key, tuple) and any(e is Ellipsis for e in key)))


def are_names(key: Any) -> bool:
    """Whether an index of records names a field, or is a list of field names."""
    if isinstance(key, list):
        return bool(key) and all(isinstance(name, str) for name in key)
    return isinstance(key, str)


def field_name(array: Array, key: Any) -> Any:
    """Return the name of the field that ``key`` numbers, if ``array`` is one record and ``key`` an
    integer; else ``key``.

    Raises
    ------
    IndexError
        The record has no such field.
    """
    if not array._is_record or not isinstance(key, int | np.integer):
        return key
    names = array.dtype.names or ()
    if not -len(names) <= key < len(names):
        raise IndexError(f"invalid index ({key})")
    return names[key]


def field(array: Array, key: str | list[str]) -> Array:
    """Return a view of a field of records, or of several."""
    return array._view(named(array.dtype, key))


def named(dtype: DType, key: str | list[str]) -> Field | Fields:
    """Return the step to a field of records, or to several.

    Raises
    ------
    ValueError
        There is no field of this name.
    KeyError
        A name of several belongs to no field.
    """
    names = dtype.names or ()
    if isinstance(key, str):
        if key not in names:
            raise ValueError(f"no field of name {key}")
        return Field(key)
    for name in key:
        if name not in names:
            raise KeyError(name)
    return Fields(tuple(key))


def _taken(node: Node, index: Index) -> Node:
    """Return the elements at integer arrays; ``node`` has the basic part of the index applied."""
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
    """Give the first axis the shape of the index arrays."""
    return reshaped(node, (*shape, *node.shape[1:]))


def positions_in(indices: Any, length: int, mode: str, axis: int) -> NDArray:
    """Compute integers and return them as positions in ``0..length``.

    Raises
    ------
    IndexError
        A position lies outside, and ``mode`` is ``"raise"``.
    TypeError
        Positions are no integers.
    ValueError
        There is no such mode.
    """
    found = evaluate.value(strict(indices))
    if not isinstance(indices, Array | np.ndarray) and found.dtype.kind == "f":
        found = found.astype(np.int64)  # as NumPy does with lists and Python numbers
    if found.dtype.kind not in "iub":
        raise TypeError(
            f"Cannot cast array data from {found.dtype!r} to dtype('int64') according to the rule "
            "'safe'"
        )
    found = found.astype(np.int64)
    if mode == "raise":
        return checked_positions(found, length, axis)
    if mode not in ("wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    if not length and found.size:
        raise IndexError("cannot do a non-empty take from an empty axes.")
    return found % length if mode == "wrap" else found.clip(0, length - 1)


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
    """Count the true elements in each chunk of a one-dimensional mask; computes them."""
    blocks = mask.blocks
    node = make(_COUNTS, (mask,), (), (blocks,), np.dtype(np.int64), ((1,) * blocks,))
    return [int(n) for n in evaluate.value(node)]


def masked(node: Node, mask: Node) -> Node:
    """Return the elements of ``node`` where ``mask`` holds, in C order; the mask is computed now.

    Raises
    ------
    IndexError
        The mask's shape differs from that of the first axes.
    """
    if mask.shape != node.shape[: mask.ndim]:
        raise IndexError(
            f"boolean index did not match indexed array: mask {mask.shape}, array {node.shape}"
        )
    rest = node.shape[mask.ndim :]
    rows = math.prod(mask.shape)
    flat = reshaped(node, (rows, *rest))
    flat_mask = rechunk(reshaped(mask, (rows,)), (flat.chunks[0],))
    flat_mask = evaluate.persist([flat_mask], for_one_step=True)[0]
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
