"""Assigning by index, and the operations that write elements at positions, chunk by chunk.

Nodes are immutable: an assignment makes the expression of the array's new values. Nothing of the
array is gathered for it; positions and masks are brought to the caller, as in reading.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import elementwise, without_arrays
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Held, NDArray, Node, Op, make
from agentic_ray.array.core.views import broadcast, expanded, permuted, rechunk, reshaped
from agentic_ray.array.gathering import gather
from agentic_ray.array.indexing import (
    Index,
    are_names,
    broadcastable,
    counts_per_chunk,
    field_name,
    is_element,
    named,
    parse,
)
from agentic_ray.array.viewing import Region, element_of


def setitem(array: Array, key: Any, value: Any) -> None:
    """Assign ``x[key] = value``, as in NumPy.

    Raises
    ------
    IndexError
        The index is refused as in reading.
    ValueError
        The value does not broadcast to the region, or a NaN is assigned to integers.
    TypeError
        The value is not a number.
    """
    node = array._node
    if node.dtype.names is not None:
        key = field_name(array, key)
    if node.dtype.names is not None and are_names(key):
        step = named(node.dtype, key)
        dtype, inner = element_of(node.dtype[key])
        array._node = step.write(node, fitted(converted(value, dtype), node.shape + inner))
        return
    if node.dtype.names is not None and _names_records(value):
        value = np.array(without_arrays(value), node.dtype)  # a tuple is one record
    mask = key[0] if isinstance(key, tuple) and len(key) == 1 else key
    if getattr(mask, "dtype", None) == np.bool_ and mask.ndim == node.ndim and np.ndim(value) > 1:
        raise TypeError(
            "NumPy boolean array indexing assignment requires a 0 or 1-dimensional input, input "
            f"has {np.ndim(value)} dimensions"
        )
    if isinstance(key, Array) and key.dtype.kind == "b" and key.ndim:
        array._node = _with_masked(node, key._node, converted(value, node.dtype, as_array=True))
        return
    index = parse(key, node.shape)
    if is_element(index, key) and np.ndim(value):
        np.empty(1, node.dtype)[0] = without_arrays(value)  # raises NumPy's own error
    new = converted(value, node.dtype, as_array=bool(index.arrays))
    region = Region(tuple(index.basic), index.new)
    if index.arrays:
        part = region.read(node)
        array._node = region.write(node, with_positions(part, index, new))
    elif not _is_own_part(array, region, value):
        shape = region.shape
        if isinstance(value, list | tuple) and new.ndim > len(shape):
            raise ValueError(
                f"setting an array element with a sequence: {new.ndim} levels of lists for a "
                f"region of shape {shape}"
            )
        array._node = region.write(node, fitted(new, shape))


def _names_records(value: Any) -> bool:
    """Whether a value is a record, or a list of records or of such lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, tuple)


def _is_own_part(array: Array, region: Region, value: Any) -> bool:
    """Whether ``value`` is the view that is being assigned to: the end of ``x[i] += 1``."""
    return (
        isinstance(value, Array)
        and value._base is array
        and value._step == region
        and value._seen is array._node
    )


# --- values ------------------------------------------------------------------------------


def converted(value: Any, dtype: DType, *, as_array: bool = False) -> Node:
    """Return ``value`` as a node of ``dtype``, converted as NumPy does in an assignment.

    Parameters
    ----------
    value : array_like
    dtype : dtype
    as_array : bool
        Whether a date or a duration for numbers counts as an array of one element, whose integer is
        taken. NumPy does so for index arrays, masks and flat positions; elsewhere it is an error.

    Raises
    ------
    ValueError
        The value is NaN for an integer, or a text that is no number.
    OverflowError
        A Python integer does not fit.
    TypeError
        The value is a complex number for a real array, or no number at all.
    """
    if isinstance(value, Array):
        node = value._node
        if value._is_scalar and node.dtype.kind in "fc" and dtype.kind in "biu":
            return converted(evaluate.value(node)[()], dtype)  # NaN is refused, as a scalar's is
        return node if node.dtype == dtype else cast(node, dtype)
    if isinstance(value, np.ndarray):
        return build.leaf(np.array(value).astype(dtype) if value.dtype != dtype else value.copy())
    if isinstance(value, list | tuple):
        value = without_arrays(value)
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        return converted(np.asarray(value), dtype)
    if dtype.names is not None and isinstance(value, list | tuple):
        return build.leaf(np.array(value, dtype))  # a tuple is one record
    if as_array and isinstance(value, np.datetime64 | np.timedelta64):
        return build.leaf(np.asarray(value).astype(dtype))
    held = np.empty(np.shape(value), dtype)
    held[...] = value
    return build.leaf(held)


def fitted(new: Node, region: Shape) -> Node:
    """Drop leading axes of length 1 of ``new`` that the region lacks.

    Raises
    ------
    ValueError
        ``new`` does not broadcast to the region.
    """
    shape = new.shape
    extra = new.ndim - len(region)
    if extra > 0 and all(n == 1 for n in shape[:extra]):
        shape = shape[extra:]
    tail = region[len(region) - len(shape) :]
    if len(shape) > len(region) or any(n not in (1, m) for n, m in zip(shape, tail, strict=True)):
        raise ValueError(
            f"could not broadcast input array from shape {new.shape} into shape {region}"
        )
    return reshaped(new, shape)


# --- at positions ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """Effect of a value on an element: it replaces the element, or a ufunc combines the two, one
    value after the other. A ufunc of one operand needs no value."""

    ufunc: str = ""
    unary: bool = False

    def apply(self, xp: Any, out: Any, key: Any, value: Any) -> None:
        if not self.ufunc:
            out[key] = value
        else:
            getattr(xp, self.ufunc).at(out, key, *(() if self.unary else (value,)))


REPLACE = Update()


def with_positions(node: Node, index: Index, new: Node, update: Update = REPLACE) -> Node:
    """Apply ``new``, broadcast, to the elements of ``node`` that the index arrays name.

    Several values for one element come in the order of the index.
    """
    spread = np.broadcast_arrays(*broadcastable(list(index.arrays.values())))
    axes = tuple(index.arrays)
    rest = tuple([a for a in range(node.ndim) if a not in axes])
    count = spread[0].ndim
    before = sum(1 for a in rest if a < index.first)
    kept = [node.shape[a] for a in rest]
    region = (*kept[:before], *spread[0].shape, *kept[before:])
    values = broadcast_to(fitted(new, region), region)
    # The axes of the index arrays first, as in the permuted array below.
    order = (
        *range(before, before + count),
        *range(before),
        *range(before + count, values.ndim),
    )
    values = reshaped(permuted(values, order), (spread[0].size, *kept))
    moved = (*axes, *rest)
    flat = [positions.reshape(-1) for positions in spread]
    made = scattered(permuted(node, moved), len(axes), flat, values, update)
    return rechunk(permuted(made, tuple(np.argsort(moved).tolist())), node.chunks)


def broadcast_to(node: Node, shape: Shape) -> Node:
    """Repeat ``node`` to ``shape``, in chunks of an automatic size along the repeated axes."""
    if node.shape == shape:
        return node
    return broadcast(node, shape, grids.auto(shape, node.dtype))


def scattered(
    node: Node,
    width: int,
    positions: Sequence[NDArray],
    values: Node,
    update: Update = REPLACE,
) -> Node:
    """Put ``values`` at ``positions`` along the first ``width`` axes of ``node``.

    Positions are one-dimensional and not negative; ``values`` has an axis of their length and then
    the other axes of ``node``. Several values for one element come in their order.
    """
    counts = [len(node.chunks[a]) for a in range(width)]
    starts = [grids.offsets(node.chunks[a]) for a in range(width)]
    homes = [
        np.searchsorted(s, p, side="right") - 1 for s, p in zip(starts, positions, strict=True)
    ]
    if not positions[0].size or not node.size:
        return node
    flat = np.ravel_multi_index(homes, counts)
    order = np.argsort(flat, kind="stable")
    blocks, firsts = np.unique(flat[order], return_index=True)
    lengths = np.diff([*firsts, flat.size])
    if (np.diff(order) != 1).any():
        values = gather(values, (0,), (order,))
    values = rechunk(values, (tuple(lengths.tolist()), *node.chunks[width:]))
    local = [
        (p - np.asarray(s)[h])[order] for p, s, h in zip(positions, starts, homes, strict=True)
    ]
    parts = tuple(
        (tuple(int(i) for i in np.unravel_index(block, counts)), first, first + length)
        for block, first, length in zip(blocks.tolist(), firsts.tolist(), lengths.tolist(),
                                        strict=True)
    )  # fmt: skip
    params = (width, parts, Held(tuple(local)), update)
    return make(_SCATTER, (node, values), params, node.shape, node.dtype, node.chunks)


def _scatter_kernel(xp: Any, x: Any, values: Any, local: Sequence[Any], update: Update) -> Any:
    out = xp.array(x)
    update.apply(xp, out, tuple([xp.asarray(at) for at in local]), values)
    return out


def _scatter_whole(
    xp: Any, x: Any, values: Any, width: int, parts: Any, held: Held, update: Update
) -> Any:
    return _scatter_kernel(xp, x, values, held.value, update)


def _lower_scatter(node: Node, lowering: Any) -> list[Any]:
    source, values = node.inputs
    width, parts, held, update = node.params
    blocks, pieces = list(lowering.blocks(source)), lowering.blocks(values)
    counts = grids.numblocks(source.chunks)
    steps = grids.strides(counts)
    others = math.prod(counts[width:])
    rows: list[tuple[Any, ...]] = []
    at: list[int] = []
    for number, (home, low, high) in enumerate(parts):
        local = [positions[low:high] for positions in held.value]
        base = sum(i * step for i, step in zip(home, steps, strict=False))
        for other in range(others):
            at.append(base + other)
            rows.append((blocks[base + other], pieces[number * others + other], local, update))
    touched = sum(math.prod(_block_shape(source, i)) for i in at) * node.dtype.itemsize
    made = lowering.call(
        node, _scatter_kernel, rows, read_bytes=touched + values.nbytes, written_bytes=touched
    )
    for index, ref in zip(at, made, strict=True):
        blocks[index] = ref
    return blocks


def _block_shape(node: Node, number: int) -> Shape:
    place = np.unravel_index(number, grids.numblocks(node.chunks)) if node.ndim else ()
    return tuple(lengths[int(i)] for lengths, i in zip(node.chunks, place, strict=True))


_SCATTER = Op("scatter", "tasks", _scatter_whole, _lower_scatter)


# --- where a mask holds ------------------------------------------------------------------


def _where_kernel(xp: Any, mask: Any, value: Any, x: Any) -> Any:
    return xp.where(mask, value, x)


_PUT_MASK = Op("put_mask", "map", _where_kernel)


def replaced(node: Node, mask: Node, new: Node) -> Node:
    """Put ``new`` into ``node`` where ``mask`` holds; both broadcast to ``node``."""
    if not node.size:
        return node
    return rechunk(elementwise(_PUT_MASK, [mask, new, node]), node.chunks)


def _with_masked(node: Node, mask: Node, new: Node) -> Node:
    if mask.shape != node.shape[: mask.ndim]:
        raise IndexError(
            f"boolean index did not match indexed array: mask {mask.shape}, array {node.shape}"
        )
    rest = node.shape[mask.ndim :]
    if new.ndim <= len(rest) or (new.ndim == len(rest) + 1 and new.shape[0] == 1):
        new = fitted(new, rest)
        if mask.ndim < node.ndim:
            mask = expanded(mask, tuple(range(mask.ndim, node.ndim)))
        return replaced(node, mask, new)
    return _with_one_each(node, mask, new)


def _with_one_each(node: Node, mask: Node, new: Node) -> Node:
    """Give the elements (or rows) of ``node`` that the mask selects one value each."""
    rows = math.prod(mask.shape)
    rest = node.shape[mask.ndim :]
    flat = reshaped(node, (rows, *rest))
    flat_mask = evaluate.persist(
        [rechunk(reshaped(mask, (rows,)), (flat.chunks[0],))], for_one_step=True
    )[0]
    counts = counts_per_chunk(flat_mask)
    total = sum(counts)
    if new.shape[0] not in (1, total):
        raise ValueError(
            f"NumPy boolean array indexing assignment cannot assign {new.shape[0]} input values "
            f"to the {total} output values where the mask is true"
        )
    if not total:
        return node
    values = broadcast_to(fitted(new, (total, *rest)), (total, *rest))
    kept = tuple([i for i, n in enumerate(counts) if n])
    lengths = tuple([counts[i] for i in kept])
    values = rechunk(values, (lengths, *flat.chunks[1:]))
    made = make(_PUT_EACH, (flat, flat_mask, values), (kept,), flat.shape, node.dtype, flat.chunks)
    return rechunk(reshaped(made, node.shape), node.chunks)


def _put_each_kernel(xp: Any, x: Any, mask: Any, values: Any) -> Any:
    out = xp.array(x)
    out[mask] = values
    return out


def _put_each_whole(xp: Any, x: Any, mask: Any, values: Any, kept: Any) -> Any:
    return _put_each_kernel(xp, x, mask, values)


def _lower_put_each(node: Node, lowering: Any) -> list[Any]:
    source, mask, values = node.inputs
    (kept,) = node.params
    blocks, masks, pieces = (
        list(lowering.blocks(source)), lowering.blocks(mask), lowering.blocks(values)
    )  # fmt: skip
    others = source.blocks // len(source.chunks[0])
    rows = [
        (blocks[i * others + j], masks[i], pieces[number * others + j])
        for (number, i), j in itertools.product(enumerate(kept), range(others))
    ]
    made = iter(lowering.call(node, _put_each_kernel, rows))
    for i in kept:
        for j in range(others):
            blocks[i * others + j] = next(made)
    return blocks


_PUT_EACH = Op("put_each", "tasks", _put_each_whole, _lower_put_each)


# --- values that are repeated ------------------------------------------------------------


def cycled(value: Any, count: int, dtype: DType) -> Array:
    """Flatten ``value`` and repeat it until there are ``count`` elements, as an array of ``dtype``.

    Raises
    ------
    ValueError
        ``value`` is empty.
    """
    node = converted(value, dtype, as_array=True)
    if not node.size and count:
        raise ValueError("cannot assign no values to the elements of an array")
    flat = reshaped(node, (node.size,))
    if node.size == 1:
        return Array(broadcast_to(flat, (count,)))
    if node.size < count:
        flat = gather(flat, (0,), (np.arange(count) % node.size,))
    return Array(flat)[:count]
