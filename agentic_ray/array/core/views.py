"""Operations that only move elements: rechunk, slice, permute, reshape, concatenate.

Each is a node whose blocks are assembled from pieces of its operand's blocks; where a block is
one whole block of the operand no task is made at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import windows
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.program import takes_views
from agentic_ray.array.core.windows import FlatCut, Window

AxisIndex = tuple[Any, ...]
"""One axis of a basic index: ``("i", position)`` or ``("s", start, count, step)``."""


# --- rechunk -----------------------------------------------------------------------------


def rechunk(node: Node, chunks: Chunks) -> Node:
    """``node`` cut differently."""
    if node.chunks == chunks:
        return node
    if node.op.kind == "create":
        return make(node.op, (), node.params, node.shape, node.dtype, chunks, node.device)
    if node.op is RECHUNK and not node.params:
        return rechunk(node.inputs[0], chunks)
    if node.op.kind == "data":
        array = node.params[0]
        return make(node.op, (), (array,), node.shape, node.dtype, chunks, node.device)
    for between in grids.stations(node.chunks, chunks):
        node = make(RECHUNK, (node,), ("step",), node.shape, node.dtype, between)
    return make(RECHUNK, (node,), (), node.shape, node.dtype, chunks)


def without_empty(node: Node) -> Node:
    """A vector without chunks of no elements, if it has others."""
    lengths = tuple([length for length in node.chunks[0] if length])
    return rechunk(node, (lengths or (0,),))


def _same(xp: Any, x: Any, *step: str) -> Any:
    return x


def _lower_rechunk(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    per_axis = [
        grids.overlaps(own, new) for own, new in zip(source.chunks, node.chunks, strict=True)
    ]
    return assemble(node, lowering, source, per_axis)


def assemble(
    node: Node, lowering: Any, source: Node, per_axis: Sequence[list[list[tuple[int, int, int]]]]
) -> list[Any]:
    """Blocks of ``node`` from pieces of ``source``'s: per axis and chunk (index, start, stop)."""
    values = lowering.blocks(source)
    steps = grids.strides(grids.numblocks(source.chunks))
    result: list[Any] = []
    rows: list[tuple[Any, ...]] = []
    at: list[int] = []
    for block, pieces in enumerate(itertools.product(*per_axis)):
        if all(len(axis) == 1 for axis in pieces):
            index = sum(axis[0][0] * step for axis, step in zip(pieces, steps, strict=True))
            lows = [axis[0] for axis in pieces]
            if all(
                low == 0 and high == source.chunks[a][i] for a, (i, low, high) in enumerate(lows)
            ):
                result.append(values[index])
                continue
        blocks: list[Any] = []
        regions: list[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]] = []
        for combination in itertools.product(*[_placed(axis) for axis in pieces]):
            blocks.append(
                values[sum(part[0] * step for part, step in zip(combination, steps, strict=True))]
            )
            regions.append(
                (
                    tuple([part[3] for part in combination]),
                    tuple([(part[1], part[2]) for part in combination]),
                )
            )
        shape = tuple([sum(high - low for _, low, high in axis) for axis in pieces])
        result.append(None)
        at.append(block)
        rows.append((blocks, regions, shape))
    made = lowering.call(node, assembled, rows, label=".assemble")
    for block, ref in zip(at, made, strict=True):
        result[block] = ref
    return result


def _placed(
    axis: Sequence[tuple[int, int, int]],
) -> list[tuple[int, int, int, tuple[int, int]]]:
    """Pieces of one axis with where they go: (index, start, stop, (to_start, to_stop))."""
    result: list[tuple[int, int, int, tuple[int, int]]] = []
    to = 0
    for index, low, high in axis:
        result.append((index, low, high, (to, to + high - low)))
        to += high - low
    return result


def assembled(xp: Any, blocks: Sequence[Any], regions: Any, shape: Shape) -> Any:
    """Put a block together from regions of others."""
    if len(blocks) == 1:
        return blocks[0][tuple([slice(a, b) for a, b in regions[0][1]])]
    out = xp.empty(shape, dtype=blocks[0].dtype)
    for block, (to, origin) in zip(blocks, regions, strict=True):
        out[tuple([slice(a, b) for a, b in to])] = block[tuple([slice(a, b) for a, b in origin])]
    return out


RECHUNK = Op("rechunk", "tasks", _same, _lower_rechunk)


# --- basic indexing ----------------------------------------------------------------------


def slice_of(start: int, count: int, step: int) -> slice:
    """The slice of ``count`` elements from ``start``."""
    stop: int | None = start + count * step
    if step < 0 and stop is not None and stop < 0:
        stop = None
    return slice(start, stop, step) if count else slice(0, 0, 1)


def axis_plan(lengths: Sequence[int], index: AxisIndex) -> list[tuple[int, int, int]]:
    """List the chunks that an index of one axis touches: (chunk, start within it, count)."""
    starts = grids.offsets(lengths)
    if index[0] == "i":
        chunk = int(np.searchsorted(starts, index[1], side="right")) - 1
        return [(chunk, index[1] - starts[chunk], 1)]
    _, start, count, step = index
    if count == 0:
        return [(0, 0, 0)]
    result: list[tuple[int, int, int]] = []
    chunk = int(np.searchsorted(starts, start, side="right")) - 1
    at, left = start, count
    while left:
        while not starts[chunk] <= at < starts[chunk + 1]:
            chunk += 1 if step > 0 else -1
        room = (starts[chunk + 1] - 1 - at) // step if step > 0 else (at - starts[chunk]) // -step
        take = min(left, room + 1)
        result.append((chunk, at - starts[chunk], take))
        at += take * step
        left -= take
    return result


def sliced(node: Node, index: tuple[AxisIndex, ...]) -> Node:
    """``node`` indexed by integers and slices, one for each axis."""
    if all(
        entry[0] == "s" and entry[1] == 0 and entry[3] == 1 and entry[2] == length
        for entry, length in zip(index, node.shape, strict=True)
    ):
        return node
    shape: list[int] = []
    chunks: list[tuple[int, ...]] = []
    for entry, lengths in zip(index, node.chunks, strict=True):
        if entry[0] == "s":
            shape.append(entry[2])
            if len(lengths) == 1:
                chunks.append((entry[2],))
            else:
                chunks.append(tuple([count for _, _, count in axis_plan(lengths, entry)]))
    return make(SLICE, (node,), (index,), tuple(shape), node.dtype, tuple(chunks))


def as_key(index: Sequence[AxisIndex]) -> tuple[Any, ...]:
    """The index as NumPy takes it."""
    return tuple([entry[1] if entry[0] == "i" else slice_of(*entry[1:]) for entry in index])


def _slice_kernel(xp: Any, x: Any, index: tuple[AxisIndex, ...]) -> Any:
    return x[as_key(index)]


def local_indices(lengths: Sequence[int], entry: AxisIndex) -> list[tuple[int, AxisIndex, bool]]:
    """Per touched chunk: its number, the index within it, and whether that is all of it."""
    step = entry[3] if entry[0] == "s" else 1
    return [
        (
            chunk,
            ("i", start) if entry[0] == "i" else ("s", start, count, step),
            entry[0] == "s" and step == 1 and count == lengths[chunk],
        )
        for chunk, start, count in axis_plan(lengths, entry)
    ]


def _lower_slice(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    values = lowering.blocks(source)
    steps = grids.strides(grids.numblocks(source.chunks))
    per_axis = [
        local_indices(lengths, entry)
        for lengths, entry in zip(source.chunks, node.params[0], strict=True)
    ]
    result: list[Any] = []
    rows: list[tuple[Any, ...]] = []
    at: list[int] = []
    for parts in itertools.product(*per_axis):
        value = values[sum(part[0] * step for part, step in zip(parts, steps, strict=True))]
        if all(part[2] for part in parts):
            result.append(value)
            continue
        at.append(len(result))
        result.append(None)
        rows.append((value, tuple([part[1] for part in parts])))
    read = min(source.nbytes, 4 * node.nbytes)  # a view touches little more than it takes
    made = lowering.call(node, _slice_kernel, rows, read_bytes=read)
    for block, ref in zip(at, made, strict=True):
        result[block] = ref
    return result


SLICE = Op("slice", "tasks", _slice_kernel, _lower_slice)


# --- permute, expand, squeeze, broadcast -------------------------------------------------


def permuted(node: Node, axes: tuple[int, ...]) -> Node:
    """Axes in another order."""
    if axes == tuple(range(node.ndim)):
        return node
    return make(
        PERMUTE,
        (node,),
        (axes,),
        tuple([node.shape[axis] for axis in axes]),
        node.dtype,
        tuple([node.chunks[axis] for axis in axes]),
    )


def _permute_kernel(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.transpose(x, axes)


def _lower_permute(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    values = lowering.blocks(source)
    order = np.arange(len(values)).reshape(grids.numblocks(source.chunks))
    rows = [(values[i],) for i in order.transpose(node.params[0]).ravel().tolist()]
    return list(lowering.call(node, _permute_kernel, rows, params=node.params))


PERMUTE = Op("permute_dims", "tasks", _permute_kernel, _lower_permute)


def expanded(node: Node, axes: tuple[int, ...]) -> Node:
    """New axes of length 1 at positions ``axes`` (sorted) of the result."""
    shape, chunks = list(node.shape), list(node.chunks)
    for axis in axes:
        shape.insert(axis, 1)
        chunks.insert(axis, (1,))
    return make(EXPAND, (node,), (axes,), tuple(shape), node.dtype, tuple(chunks))


def _expand_kernel(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.expand_dims(x, axes)


def squeezed(node: Node, axes: tuple[int, ...]) -> Node:
    """Without ``axes``, which have length 1."""
    return make(
        SQUEEZE,
        (node,),
        (axes,),
        tuple([n for axis, n in enumerate(node.shape) if axis not in axes]),
        node.dtype,
        tuple([c for axis, c in enumerate(node.chunks) if axis not in axes]),
    )


def _squeeze_kernel(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.squeeze(x, axis=axes)


def _lower_each(node: Node, lowering: Any) -> list[Any]:
    rows = [(value,) for value in lowering.blocks(node.inputs[0])]
    return list(lowering.call(node, node.op.kernel, rows, params=node.params))


EXPAND = Op("expand_dims", "tasks", _expand_kernel, _lower_each)
SQUEEZE = Op("squeeze", "tasks", _squeeze_kernel, _lower_each)


def broadcast(node: Node, shape: Shape, chunks: Chunks) -> Node:
    """``node`` repeated along new axes and those of length 1."""
    if node.shape == shape:
        return rechunk(node, chunks)
    skip = len(shape) - node.ndim
    own = tuple(
        [
            chunks[skip + axis] if length == shape[skip + axis] else (length,)
            for axis, length in enumerate(node.shape)
        ]
    )
    return make(BROADCAST, (rechunk(node, own),), (shape,), shape, node.dtype, chunks)


def _broadcast_kernel(xp: Any, x: Any, shape: Shape) -> Any:
    return xp.broadcast_to(x, shape)


def _lower_broadcast(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    values = lowering.blocks(source)
    counts = grids.numblocks(source.chunks)
    skip = node.ndim - source.ndim
    index = np.zeros(grids.numblocks(node.chunks), dtype=np.intp)
    for axis, step in enumerate(grids.strides(counts)):
        if counts[axis] > 1:
            shape = [1] * node.ndim
            shape[skip + axis] = counts[axis]
            index += (np.arange(counts[axis]) * step).reshape(shape)
    shapes = itertools.product(*node.chunks)
    rows = [(values[i], shape) for i, shape in zip(index.ravel().tolist(), shapes, strict=True)]
    return list(lowering.call(node, _broadcast_kernel, rows))


BROADCAST = Op("broadcast_to", "tasks", _broadcast_kernel, _lower_broadcast)


# --- concatenate -------------------------------------------------------------------------


def concatenated(parts: Sequence[Node], axis: int) -> Node:
    """``parts``, equal in dtype and in all axes but one, one after the other."""
    if len(parts) == 1:
        return parts[0]
    big = max(parts, key=lambda node: node.nbytes)
    aligned: list[Node] = []
    joined: list[int] = []
    for node in parts:
        chunks = (*big.chunks[:axis], node.chunks[axis], *big.chunks[axis + 1 :])
        aligned.append(rechunk(node, chunks))
        if node.shape[axis]:
            joined += node.chunks[axis]
    lengths = tuple(joined) or (0,)
    total = sum(lengths)
    filled = tuple([node for node in aligned if node.shape[axis]]) or (aligned[0],)
    if len(filled) == 1:
        return filled[0]
    shape = (*big.shape[:axis], total, *big.shape[axis + 1 :])
    chunks = (*big.chunks[:axis], lengths, *big.chunks[axis + 1 :])
    if all(node.blocks == 1 for node in filled):
        size = sum(node.size for node in filled)
        if size <= grids.rules().elements(big.dtype):
            chunks = grids.single(shape)  # many small pieces become one chunk
    return make(CONCAT, filled, (axis,), shape, big.dtype, chunks)


@takes_views
def _concat_kernel(xp: Any, *values: Any) -> Any:
    return xp.concatenate(values[:-1], axis=values[-1])


def _lower_concat(node: Node, lowering: Any) -> list[Any]:
    (axis,) = node.params
    if node.blocks == 1:
        row = [block for source in node.inputs for block in lowering.readings(source)]
        return list(lowering.call(node, _concat_kernel, [tuple(row)], params=node.params))
    grid = np.empty(grids.numblocks(node.chunks), dtype=object)
    at = 0
    for source in node.inputs:
        counts = grids.numblocks(source.chunks)
        own = np.empty(source.blocks, dtype=object)
        own[:] = [_Box(value) for value in lowering.blocks(source)]
        region: list[Any] = [slice(None)] * node.ndim
        region[axis] = slice(at, at + counts[axis])
        grid[tuple(region)] = own.reshape(counts)
        at += counts[axis]
    return [box.value for box in grid.ravel()]


class _Box:
    """Keeps NumPy from looking into arrays that are put in an object array."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


CONCAT = Op("concat", "tasks", _concat_kernel, _lower_concat, reads_views=True)


# --- reshape -----------------------------------------------------------------------------


def reshaped(node: Node, shape: Shape) -> Node:
    """The elements in C order in another shape.

    Both sides are cut so that their blocks are consecutive runs of elements; each block of the
    result then needs one or a few neighbouring blocks of the operand.
    """
    if node.shape == shape:
        return node
    if node.blocks == 1:
        source, chunks = node, grids.single(shape)
        if node.size > grids.rules().elements(node.dtype):
            chunks = grids.contiguous(shape, grids.rules().elements(node.dtype))
    else:
        largest = max(1, *[int(np.prod(block)) for block in _extremes(node.chunks)])
        source = node
        if not grids.is_contiguous(node.chunks):
            source = rechunk(node, grids.contiguous(node.shape, largest))
        chunks = grids.contiguous(shape, largest)
    return make(RESHAPE, (source,), (shape,), shape, node.dtype, chunks)


def _extremes(chunks: Chunks) -> list[tuple[int, ...]]:
    return [tuple([max(axis) for axis in chunks])]


def _reshape_kernel(xp: Any, x: Any, shape: Shape) -> Any:
    return xp.reshape(x, shape)


def _flat_lengths(chunks: Chunks) -> list[int]:
    return [int(np.prod(block, dtype=np.int64)) for block in itertools.product(*chunks)]


def _joined(xp: Any, blocks: Sequence[Any], spans: Sequence[tuple[int, int]], shape: Shape) -> Any:
    parts = [
        xp.reshape(block, -1)[low:high] for block, (low, high) in zip(blocks, spans, strict=True)
    ]
    return xp.reshape(parts[0] if len(parts) == 1 else xp.concatenate(parts), shape)


def reads_flat(node: Node, most_pieces: int) -> bool:
    """Whether a reshape's blocks are runs of few blocks of its operand: tasks can read these."""
    if node.op is not RESHAPE or not node.size:
        return False
    (source,) = node.inputs
    pieces = grids.overlaps(_flat_lengths(source.chunks), _flat_lengths(node.chunks))
    return sum(map(len, pieces)) <= most_pieces * node.blocks


def flat_readings(node: Node, values: Sequence[Any]) -> list[Any]:
    """Return the arguments of tasks for each block of a reshape: a `FlatCut` and the blocks that it
    cuts, of the operand's blocks ``values``."""
    (source,) = node.inputs
    pieces = grids.overlaps(_flat_lengths(source.chunks), _flat_lengths(node.chunks))
    return [
        [
            FlatCut(tuple([(low, high) for _, low, high in axis]), shape),
            *[values[i] for i, _, _ in axis],
        ]
        for axis, shape in zip(pieces, itertools.product(*node.chunks), strict=True)
    ]


def _lower_reshape(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    values = lowering.blocks(source)
    pieces = grids.overlaps(_flat_lengths(source.chunks), _flat_lengths(node.chunks))
    rows = [
        ([values[i] for i, _, _ in axis], [(low, high) for _, low, high in axis], shape)
        for axis, shape in zip(pieces, itertools.product(*node.chunks), strict=True)
    ]
    return list(lowering.call(node, _joined, rows))


RESHAPE = Op("reshape", "tasks", _reshape_kernel, _lower_reshape)
MOVES = frozenset({RECHUNK, SLICE, PERMUTE, EXPAND, SQUEEZE, BROADCAST, CONCAT, RESHAPE})
"""Operations that compute nothing: values are the operands' own, elsewhere."""


# --- as readings -------------------------------------------------------------------------


def window_of(node: Node) -> Window | None:
    """Return the part of its operand that a move shows, if tasks can read through the move; None
    for other operations."""
    found = _WINDOWS.get(node.op)
    if found is None or not node.size or (node.op is RECHUNK and node.params):
        return None
    return found(node.inputs[0].shape, node)


_WINDOWS: dict[Op, Callable[[Shape, Node], Window]] = {
    RECHUNK: lambda shape, node: windows.broadcast(shape, shape),
    SLICE: lambda shape, node: windows.indexed(node.params[0]),
    PERMUTE: lambda shape, node: windows.permuted(shape, node.params[0]),
    EXPAND: lambda shape, node: windows.expanded(shape, node.params[0]),
    SQUEEZE: lambda shape, node: windows.squeezed(shape, node.params[0]),
}
