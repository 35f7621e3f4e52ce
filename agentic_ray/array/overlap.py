"""`map_overlap`, which applies a user's function to each chunk with a margin of its neighbours."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.blocks import (
    Layout,
    Told,
    axes_of,
    kept_and_new,
    result_chunks,
    result_dtype,
    split_arguments,
    whole_along,
)
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import align, broadcast_shapes
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.userfunctions import UserKernel, checked, user_kernel
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

_BOUNDARIES = ("none", "reflect", "periodic", "nearest")
_HINT = (
    " (the block with its margins); say with chunks=, drop_axis= or new_axis= how the function "
    "changes the shape"
)

Depth: TypeAlias = tuple[int, int]
"""Elements of the margin before a block and after it, along one axis."""
Segment: TypeAlias = tuple[int, int, int, int, int]
"""A run of a block with its margin along one axis: the chunk it comes from (-1: the constant),
start and stop there, step (1, -1 for backwards, 0 for one element repeated), and its length."""


def map_overlap(
    function: Callable[..., Any],
    *args: Any,
    depth: Any = None,
    boundary: Any = None,
    trim: bool = True,
    align_arrays: bool = True,
    allow_rechunk: bool = True,
    name: str | None = None,
    dtype: Any = None,
    chunks: Any = None,
    drop_axis: Any = None,
    new_axis: Any = None,
    meta: Any = None,
    **options: Any,
) -> Array:
    """Apply ``function`` to each chunk with a margin of its neighbours, which is cut off
    afterwards.

    A margin may be wider than the neighbouring chunk: it goes on in the next.

    Parameters
    ----------
    function : callable or codelet
        ``f(block, ...) -> block``, captured at this call (see `map_blocks`). The block has its
        margins, and so has the result, unless ``trim`` is False.
    *args : Array or anything
        As in `map_blocks`. An axis of length 1 that is broadcast has no margin.
    depth : int, tuple, dict or list
        Width of the margin: for all axes; for each axis an int or ``(before, after)``; or for
        the axes in the dict. A list has one of these for each array.
    boundary : None, str, number, tuple, dict or list
        Continuation of arrays at their edges: ``"none"`` or None (no margin there), ``"reflect"``
        (the edge is repeated), ``"nearest"``, ``"periodic"``, or a number that fills the margin; a
        tuple, dict or list as for ``depth``.
    trim : bool
        Whether to cut the margins off the function's results; else the result has them, block by
        block.
    align_arrays : bool
        False: arrays in other chunks are refused rather than cut anew.
    allow_rechunk : bool
        False: chunks shorter than the margin are refused.
    name, dtype, chunks, drop_axis, new_axis, meta, **options
        As in `map_blocks`; ``chunks`` are the lengths of the function's results, with margins.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        There is no array, depths or boundaries do not fit, or as in `map_blocks`.
    SerializationError, BlockResultError
        As in `map_blocks`.

    Examples
    --------
    >>> import numpy as np
    >>> import agentic_ray.array as xp
    >>> x = xp.asarray([1.0, 2.0, 4.0, 8.0], chunks=2)
    >>> def differences(b):
    ...     return b - np.concatenate([b[:1], b[:-1]])
    >>> xp.map_overlap(differences, x, depth=((1, 0),), boundary="nearest").compute()
    array([0., 1., 2., 4.])
    """
    nodes, places, fixed = split_arguments(args)
    kernel = user_kernel(
        "map_overlap", function, options, blocks=len(nodes), fixed=fixed, name=name
    )
    if not nodes:
        raise InvalidArgumentError("map_overlap needs at least one array")
    if depth is None:
        raise InvalidArgumentError("map_overlap needs depth=, the width of the margin")
    shape = broadcast_shapes([node.shape for node in nodes], "map_overlap")
    edges = _edges(nodes, depth, boundary, shape)
    dropped = axes_of("drop_axis", drop_axis, len(shape))
    own = [node.chunks for node in nodes]
    nodes = whole_along(nodes, dropped, len(shape))
    grid = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in nodes])
    nodes = [align(node, shape, grid) for node in nodes]
    if not align_arrays and any(a != node.chunks for a, node in zip(own, nodes, strict=True)):
        raise InvalidArgumentError("map_overlap: the arrays' chunks differ (align_arrays=False)")
    margins = _margins(nodes, edges, grid)
    if not allow_rechunk:
        _check_widths(nodes, edges)
    axes = kept_and_new(dropped, new_axis, len(shape))
    wide = tuple(
        [
            tuple([n + before + after for n, (before, after) in zip(lengths, pairs, strict=True)])
            for lengths, pairs in zip(grid, margins, strict=True)
        ]
    )
    returned = result_chunks(axes, wide, chunks)
    out = _trimmed(returned, axes, margins) if trim else returned
    sources = tuple([(i, n.shape, n.chunks) for i, n in zip(places, nodes, strict=True)])
    layout = Layout(axes, grid, out, sources)
    told = Told(kernel.takes("block_id"), kernel.takes("block_info"))
    plans = Plans(layout, told, edges, returned, margins if trim else None)
    wanted = result_dtype(
        kernel, nodes, dtype, meta, len(out), told.first(layout),
        margins=[[sum(edge.depth) for edge in own_edges] for own_edges in edges],
    )  # fmt: skip
    fills = tuple(
        [
            tuple([edge.fill for edge in own_edges])
            for own_edges in edges
        ]
    )  # fmt: skip
    call = OverlapCall(kernel, wanted, fills)
    op = Op(kernel.name, "tasks", _whole, _lower, of_user=True)
    return Array(make(op, tuple(nodes), (call, plans), grids.shape_of(out), wanted, out))


# --- notations of users ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edge:
    """Margin of one array along one axis: its width, the continuation at the edge, and the bytes of
    the constant."""

    depth: Depth
    boundary: str
    fill: bytes | None = None


def _edges(
    nodes: Sequence[Node], depth: Any, boundary: Any, shape: Shape
) -> tuple[tuple[Edge, ...], ...]:
    """Return the edges of each array, for each of its axes."""
    result: list[tuple[Edge, ...]] = []
    for number, node in enumerate(nodes):
        widths = _per_axis("depth", _for_array("depth", depth, number, len(nodes)), node.ndim, 0)
        ways = _per_axis(
            "boundary", _for_array("boundary", boundary, number, len(nodes)), node.ndim, None
        )
        full = shape[len(shape) - node.ndim :]
        row = []
        for axis, (width, way) in enumerate(zip(widths, ways, strict=True)):
            pair = _pair(width)
            if node.shape[axis] != full[axis]:
                pair = (0, 0)
            edge = _edge(pair, way, node.dtype)
            if any(pair) and not node.shape[axis] and edge.boundary in _BOUNDARIES[1:]:
                raise InvalidArgumentError(
                    f"axis {axis} is empty: there is nothing to make a margin from"
                )
            row.append(edge)
        result.append(tuple(row))
    return tuple(result)


def _for_array(what: str, given: Any, number: int, count: int) -> Any:
    if not isinstance(given, list):
        return given
    if len(given) != count:
        raise InvalidArgumentError(f"{what} is a list of {len(given)} for {count} arrays")
    return given[number]


def _per_axis(what: str, given: Any, ndim: int, default: Any) -> list[Any]:
    if isinstance(given, dict):
        result = [default] * ndim
        for axis, entry in given.items():
            (at,) = axes_of(what, axis, ndim)
            result[at] = entry
        return result
    if isinstance(given, tuple):
        if len(given) != ndim:
            raise InvalidArgumentError(f"{what} {given!r} does not fit an array of {ndim} axes")
        return list(given)
    return [given] * ndim


def _pair(width: Any) -> Depth:
    parts = width if isinstance(width, tuple) else (width, width)
    if len(parts) != 2 or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in parts
    ):
        raise InvalidTypeError(f"depth must be an int or (before, after), not {width!r}")
    if min(parts) < 0:
        raise InvalidArgumentError(f"depth must not be negative: {width!r}")
    return int(parts[0]), int(parts[1])


def _edge(pair: Depth, way: Any, dtype: DType) -> Edge:
    if way is None:
        way = "none"
    if isinstance(way, str):
        if way not in _BOUNDARIES:
            raise InvalidArgumentError(
                f"boundary must be a number or one of {', '.join(_BOUNDARIES)}, not {way!r}"
            )
        return Edge(pair, way)
    if not isinstance(way, bool | int | float | complex | np.generic):
        raise InvalidTypeError(f"boundary must be a number or a name, not {way!r}")
    value = np.asarray(way)
    with np.errstate(all="ignore"):
        fits = value.dtype.kind != "c" or dtype.kind == "c"
        fill = value.astype(dtype) if fits else value
    if not fits or not (np.can_cast(value.dtype, dtype, "same_kind") or fill == value):
        raise InvalidArgumentError(f"boundary {way!r} cannot be held by an array of {dtype}")
    return Edge(pair, "constant", fill.tobytes())


def _check_widths(nodes: Sequence[Node], edges: Sequence[Sequence[Edge]]) -> None:
    for node, own in zip(nodes, edges, strict=True):
        for axis, (lengths, edge) in enumerate(zip(node.chunks, own, strict=True)):
            if len(lengths) > 1 and min(lengths) < max(edge.depth):
                raise InvalidArgumentError(
                    f"axis {axis} has a chunk of {min(lengths)}, less than the margin of "
                    f"{max(edge.depth)} (allow_rechunk=False)"
                )


# --- which elements a block is made of -------------------------------------------------------


def _margins(
    nodes: Sequence[Node], edges: Sequence[Sequence[Edge]], grid: Chunks
) -> tuple[tuple[Depth, ...], ...]:
    """Return for each axis of the grid and each block along it the actual margins: those of the
    first array that is not broadcast along the axis."""
    result: list[tuple[Depth, ...]] = []
    for axis, lengths in enumerate(grid):
        edge = Edge((0, 0), "none")
        for node, own in zip(nodes, edges, strict=True):
            at = axis - len(grid) + node.ndim
            if at >= 0 and node.shape[at] == sum(lengths):
                edge = own[at]
                break
        pairs = []
        for low, high in itertools.pairwise(grids.offsets(lengths)):
            before, after = edge.depth
            if edge.boundary == "none":
                before, after = min(before, low), min(after, sum(lengths) - high)
            pairs.append((before, after))
        result.append(tuple(pairs))
    return tuple(result)


def _trimmed(
    returned: Chunks, axes: Sequence[int | None], margins: Sequence[Sequence[Depth]]
) -> Chunks:
    """Return the lengths of blocks without their margins."""
    result: list[tuple[int, ...]] = []
    for lengths, axis in zip(returned, axes, strict=True):
        pairs = [(0, 0)] * len(lengths) if axis is None else margins[axis]
        left = tuple([n - a - b for n, (a, b) in zip(lengths, pairs, strict=True)])
        if min(left) < 0:
            raise InvalidArgumentError(
                f"blocks of lengths {lengths} are shorter than the margins to be cut off; give "
                "trim=False"
            )
        result.append(left)
    return tuple(result)


def segments(lengths: Sequence[int], edge: Edge) -> list[list[Segment]]:
    """Return for each chunk of an axis the runs that make it up with its margins, in order."""
    starts = grids.offsets(lengths)
    total = starts[-1]
    before, after = edge.depth
    result: list[list[Segment]] = []
    for low, high in itertools.pairwise(starts):
        first, last = low - before, high + after
        if edge.boundary == "none":
            first, last = max(first, 0), min(last, total)
        result.append(
            [
                *_outside(range(first, min(last, 0)), starts, edge.boundary),
                *_inside(max(first, 0), min(last, total), starts),
                *_outside(range(max(first, total), last), starts, edge.boundary),
            ]
        )
    return result


def _inside(low: int, high: int, starts: Sequence[int]) -> Iterator[Segment]:
    if low >= high:
        yield 0, 0, 0, 1, 0
        return
    chunk = bisect.bisect_right(starts, low) - 1
    while low < high:
        stop = min(high, starts[chunk + 1])
        if stop > low:
            yield chunk, low - starts[chunk], stop - starts[chunk], 1, stop - low
        low = stop
        chunk += 1


def _outside(positions: range, starts: Sequence[int], boundary: str) -> Iterator[Segment]:
    """Yield the runs that stand for positions before the array or behind it."""
    if not positions:
        return
    total = starts[-1]
    if boundary == "constant":
        yield -1, 0, 0, 0, len(positions)
        return
    if boundary == "nearest":
        at = 0 if positions[0] < 0 else total - 1
        chunk = _chunk_of(at, starts)
        yield chunk, at - starts[chunk], at - starts[chunk] + 1, 0, len(positions)
        return
    where = [_within(position, total, boundary) for position in positions]
    at = 0
    while at < len(where):
        chunk = _chunk_of(where[at], starts)
        end, step = at + 1, 1
        if end < len(where) and where[end] - where[at] in (1, -1):
            step = where[end] - where[at]
            while (
                end < len(where)
                and where[end] - where[end - 1] == step
                and _chunk_of(where[end], starts) == chunk
            ):
                end += 1
        low = min(where[at], where[end - 1]) - starts[chunk]
        yield chunk, low, low + end - at, step, end - at
        at = end


def _within(position: int, total: int, boundary: str) -> int:
    if boundary == "periodic":
        return position % total
    inside = position % (2 * total)
    return inside if inside < total else 2 * total - 1 - inside


def _chunk_of(position: int, starts: Sequence[int]) -> int:
    return bisect.bisect_right(starts, position) - 1


@dataclass(frozen=True, slots=True)
class Plans:
    """Plan of each block: the parts it is joined from, and the margins cut off its result.

    Parameters
    ----------
    edges : tuple of tuple of Edge
        Edges of each array, for each of its axes.
    returned : Chunks
        Lengths of the function's results.
    margins : tuple or None
        For each axis of the arguments and each block the margins to be cut off; None: nothing.
    """

    layout: Layout
    told: Told
    edges: tuple[tuple[Edge, ...], ...]
    returned: Chunks
    margins: tuple[tuple[Depth, ...], ...] | None

    def rows(self, columns: Sequence[Sequence[Any]], dtype: DType) -> Iterator[tuple[Any, ...]]:
        """Yield the arguments of each call: for each array a list of blocks, and how they are
        joined; then shape, position and more of the block, and the margins to cut off."""
        layout = self.layout
        made = [
            [segments(lengths, edge) for lengths, edge in zip(chunks, edges, strict=True)]
            for (_, _, chunks), edges in zip(layout.sources, self.edges, strict=True)
        ]
        steps = [grids.strides(grids.numblocks(chunks)) for _, _, chunks in layout.sources]
        edges = layout.edges()
        for index, inside in layout.blocks():
            blocks: list[list[Any]] = []
            joins: list[tuple[tuple[Segment, ...], ...]] = []
            for number, (values, strides) in enumerate(zip(columns, steps, strict=True)):
                at = layout.within(number, inside)
                runs = [axis[i] for axis, i in zip(made[number], at, strict=True)]
                used = [sorted({run[0] for run in axis if run[0] >= 0}) for axis in runs]
                blocks.append(
                    [
                        values[sum(a * b for a, b in zip(one, strides, strict=True))]
                        for one in itertools.product(*used)
                    ]
                )
                joins.append(
                    tuple(
                        [
                            tuple(
                                [
                                    (-1 if run[0] < 0 else own.index(run[0]), *run[1:])
                                    for run in axis
                                ]
                            )
                            for axis, own in zip(runs, used, strict=True)
                        ]
                    )
                )
            shape = tuple([n[i] for n, i in zip(self.returned, index, strict=True)])
            more = self.told.of(layout, edges, (index, inside), dtype)
            yield (*blocks, (tuple(joins), shape, index, more, self._cut(shape, inside)))

    def _cut(self, shape: Shape, inside: Shape) -> tuple[tuple[int, int], ...] | None:
        """Return start and stop along each axis of the part of a block that remains."""
        if self.margins is None:
            return None
        cut: list[tuple[int, int]] = []
        for axis, length in zip(self.layout.axes, shape, strict=True):
            before, after = (0, 0) if axis is None else self.margins[axis][inside[axis]]
            cut.append((before, length - after))
        return tuple(cut)


# --- running it --------------------------------------------------------------------------------


def joined(
    xp: Any,
    blocks: Sequence[Any],
    runs: tuple[tuple[Segment, ...], ...],
    fills: Sequence[bytes | None],
) -> Any:
    """Join a block with its margins from the blocks that make it up."""
    first = blocks[0]
    if all(len(axis) == 1 and axis[0][3] == 1 for axis in runs):
        return first[tuple([slice(axis[0][1], axis[0][2]) for axis in runs])]
    counts = [len({run[0] for run in axis if run[0] >= 0}) for axis in runs]
    steps = grids.strides(tuple(counts))
    ends = [list(itertools.accumulate([run[4] for run in axis])) for axis in runs]
    result = xp.empty(tuple([axis[-1] for axis in ends]), dtype=first.dtype)
    for choice in itertools.product(*[range(len(axis)) for axis in runs]):
        picked = [axis[i] for axis, i in zip(runs, choice, strict=True)]
        region = tuple(
            [
                slice(end[i] - run[4], end[i])
                for end, i, run in zip(ends, choice, picked, strict=True)
            ]
        )
        outside = [axis for axis, run in enumerate(picked) if run[0] < 0]
        if outside:  # in a corner the last axis decides, as in NumPy's pad
            fill = fills[outside[-1]]
            assert fill is not None
            result[region] = xp.asarray(np.frombuffer(fill, dtype_of(first))[0], dtype=first.dtype)
            continue
        block = blocks[sum(run[0] * step for run, step in zip(picked, steps, strict=True))]
        part = block[tuple([slice(run[1], run[2]) for run in picked])]
        backwards = tuple([axis for axis, run in enumerate(picked) if run[3] < 0])
        # (Assignment repeats the one element where the step is 0.)
        result[region] = xp.flip(part, axis=backwards) if backwards else part
    return result


@dataclass(frozen=True, slots=True)
class OverlapCall:
    """A call of a user's kernel for one block, which is put together first."""

    kernel: UserKernel
    dtype: DType
    fills: tuple[tuple[bytes | None, ...], ...]

    @property
    def host_only(self) -> bool:
        return self.kernel.host_only

    @property
    def size_bytes(self) -> int:
        return self.kernel.size_bytes

    def __call__(self, xp: Any, *row: Any) -> Any:
        *blocks, (joins, shape, index, more, cut) = row
        wide = [
            joined(xp, own, runs, fills)
            for own, runs, fills in zip(blocks, joins, self.fills, strict=True)
        ]
        result = self.kernel(xp, *wide, **more)
        result = checked(xp, result, shape, self.dtype, self.kernel.name, index, _HINT)
        if cut is None:
            return result
        inner = result[tuple([slice(*pair) for pair in cut])]
        # A view would keep the margins in memory, and be copied with them when it is sent.
        return inner if math.prod(inner.shape) == math.prod(shape) else xp.array(inner)


def _whole(xp: Any, *values: Any) -> Any:
    """Call the kernel with arrays of one block each."""
    *blocks, call, plans = values
    (row,) = plans.rows([[block] for block in blocks], call.dtype)
    return call(xp, *row)


def _lower(node: Node, lowering: Any) -> list[Any]:
    call, plans = node.params
    columns = [lowering.blocks(source) for source in node.inputs]
    rows = list(plans.rows(columns, call.dtype))
    return list(lowering.call(node, call, rows, flops=lowering.work(node)))
