"""Moves as readings: which elements of an array's blocks a block of a moved array consists of.

A slice, a transpose, new or lost axes and another cut into chunks are a `Window` on the array
below them. Windows on windows are one window. A task that is given a window's blocks reads the
elements where they lie: there is no task for a move, and no copy of an array for a shifted slice,
which takes the edges of neighbouring blocks (halos).

Pure geometry, but for `opened` and `Pieces`, which cut blocks.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.order import in_c_order

DROPPED = -1


@dataclass(frozen=True, slots=True)
class Window:
    """A view of an array.

    Parameters
    ----------
    axes : tuple of (start, step, to)
        For each axis of the array: the first position that is seen, the step to the next one, and
        the axis of the view along which they lie; `DROPPED` if only the first position is seen.
    shape : tuple of int
        Of the view. Along an axis that none of the array's lies on all elements are the same.
    """

    axes: tuple[tuple[int, int, int], ...]
    shape: Shape

    def on(self, below: Window) -> Window:
        """This view of the array that ``below`` shows, as a view of the array below."""
        return Window(
            tuple([_seen_through(axis, self.axes) for axis in below.axes]),
            self.shape,
        )


def _seen_through(
    axis: tuple[int, int, int], outer: Sequence[tuple[int, int, int]]
) -> tuple[int, int, int]:
    start, step, to = axis
    if to == DROPPED:
        return axis
    first, stride, place = outer[to]
    return start + first * step, step * stride, place


def broadcast(own: Shape, shape: Shape) -> Window:
    """The view of an array of shape ``own`` that is broadcast to ``shape``."""
    skip = len(shape) - len(own)
    return Window(
        tuple(
            [
                (0, 1, skip + axis) if length == shape[skip + axis] else (0, 1, DROPPED)
                for axis, length in enumerate(own)
            ]
        ),
        shape,
    )


def permuted(shape: Shape, order: Sequence[int]) -> Window:
    """The view with axis ``order[i]`` in place ``i``."""
    places = {axis: place for place, axis in enumerate(order)}
    return Window(
        tuple([(0, 1, places[axis]) for axis in range(len(shape))]),
        tuple([shape[axis] for axis in order]),
    )


def expanded(shape: Shape, axes: Sequence[int]) -> Window:
    """The view with new axes of length 1 at these places."""
    kept = [place for place in range(len(shape) + len(axes)) if place not in axes]
    wide = list(shape)
    for axis in axes:
        wide.insert(axis, 1)
    return Window(tuple([(0, 1, place) for place in kept]), tuple(wide))


def squeezed(shape: Shape, axes: Sequence[int]) -> Window:
    """The view without these axes, of length 1."""
    places = itertools.count()
    return Window(
        tuple([(0, 1, DROPPED if axis in axes else next(places)) for axis in range(len(shape))]),
        tuple([length for axis, length in enumerate(shape) if axis not in axes]),
    )


def indexed(index: Sequence[tuple[Any, ...]]) -> Window:
    """The view by a basic index, as `views.AxisIndex` has it for each axis."""
    places = itertools.count()
    axes: list[tuple[int, int, int]] = []
    shape: list[int] = []
    for entry in index:
        if entry[0] == "i":
            axes.append((entry[1], 1, DROPPED))
        else:
            _, start, count, step = entry
            axes.append((start, step, next(places)))
            shape.append(count)
    return Window(tuple(axes), tuple(shape))


# --- which pieces a block consists of ----------------------------------------------------

Piece = tuple[int, int, int]
"""Along one axis: a chunk, the first position in it, how many elements."""


def _axis_pieces(
    lengths: Sequence[int], start: int, step: int, cut: Sequence[int]
) -> list[list[Piece]]:
    """For each chunk of a view's axis, cut so, the pieces of chunks of these lengths."""
    starts = grids.offsets(lengths)
    last = len(lengths) - 1
    at = start
    chunk = min(max(int(np.searchsorted(starts, at, side="right")) - 1, 0), last)
    result: list[list[Piece]] = []
    for count in cut:
        pieces: list[Piece] = []
        left = count
        while left:
            while chunk < last and at >= starts[chunk + 1]:
                chunk += 1
            while chunk > 0 and at < starts[chunk]:
                chunk -= 1
            low, high = starts[chunk], starts[chunk + 1]
            room = (high - 1 - at) // step + 1 if step > 0 else (at - low) // -step + 1
            take = min(left, room)
            pieces.append((chunk, at - low, take))
            at += take * step
            left -= take
        result.append(pieces)
    return result


class Reading:
    """Way to read the blocks of a window that is cut in ``cut``. Make it with `reading`.

    Parameters
    ----------
    window : Window
    chunks : Chunks
        Of the array below.
    cut : Chunks
        Of the view.
    """

    def __init__(self, window: Window, chunks: Chunks, cut: Chunks) -> None:
        self._window = window
        self._chunks = chunks
        self._cut = cut
        self._pieces: list[list[list[Piece]]] = []
        for (start, step, to), lengths in zip(window.axes, chunks, strict=True):
            wanted = (1,) if to == DROPPED else cut[to]
            self._pieces.append(_axis_pieces(lengths, start, step, wanted))

    def is_cheap(self, most_pieces: int, most_bytes: int, itemsize: int) -> bool:
        """Whether blocks consist of few pieces, of blocks that have few elements together."""
        pieces, taken = self._sizes
        return pieces <= most_pieces and taken * itemsize <= most_bytes

    @functools.cached_property
    def _sizes(self) -> tuple[int, int]:
        """Number of pieces, and elements of the blocks below from which they are cut."""
        pieces = taken = 1
        for lengths, axis in zip(self._chunks, self._pieces, strict=True):
            pieces *= sum(map(len, axis))
            taken *= sum(lengths[chunk] for found in axis for chunk, _, _ in found)
        return pieces, taken

    def arguments(self, values: Sequence[Any]) -> list[Any]:
        """Return the arguments of tasks for each block of the view: a block below if it is that,
        else a list of a `Cut` and the blocks that it cuts. ``values`` are the blocks below."""
        return [
            values[places[0]] if cut is None else [cut, *[values[place] for place in places]]
            for cut, places in self._recipes
        ]

    @functools.cached_property
    def _recipes(self) -> list[tuple[Cut | None, list[int]]]:
        """For each block of the view the numbers of the blocks below that it is cut from, and how;
        None for a block that is the one below."""
        steps = grids.strides(grids.numblocks(self._chunks))
        kept = [to for _, _, to in self._window.axes if to != DROPPED]
        order = tuple([kept.index(to) if to in kept else -1 for to in range(len(self._cut))])
        plain = order == tuple(range(len(self._chunks)))
        strides = tuple([step for _, step, _ in self._window.axes])
        in_view = tuple([to != DROPPED for _, _, to in self._window.axes])
        shares: dict[Any, Cut] = {}
        result: list[tuple[Cut | None, list[int]]] = []
        for at in itertools.product(*[range(len(lengths)) for lengths in self._cut]):
            per_axis = [
                axis[0 if to == DROPPED else at[to]]
                for axis, (_, _, to) in zip(self._pieces, self._window.axes, strict=True)
            ]
            places: list[int] = []
            indices: list[tuple[int, ...]] = []
            for pieces in itertools.product(*per_axis):
                places.append(sum(p[0] * step for p, step in zip(pieces, steps, strict=True)))
                indices.append(tuple([n for piece in pieces for n in piece[1:]]))
            if plain and len(places) == 1 and self._is_all(per_axis):
                result.append((None, places))
                continue
            counts = tuple([tuple([piece[2] for piece in axis]) for axis in per_axis])
            key = (tuple(indices), counts)
            cut = shares.get(key)
            if cut is None:
                cut = shares[key] = Cut(tuple(indices), strides, counts, in_view, order)
            result.append((cut, places))
        return result

    def _is_all(self, per_axis: Sequence[list[Piece]]) -> bool:
        return all(
            step == 1 and low == 0 and count == lengths[chunk]
            for lengths, ((chunk, low, count),), (_, step, _) in zip(
                self._chunks, per_axis, self._window.axes, strict=True
            )
        )


def reading(window: Window, chunks: Chunks, cut: Chunks) -> Reading:
    """Return the way to read the blocks of a window. Steps of a loop read alike: that of few
    blocks is made once."""
    few = math.prod(map(len, cut)) <= FEW_BLOCKS and math.prod(map(len, chunks)) <= FEW_BLOCKS
    return _remembered(window, chunks, cut) if few else Reading(window, chunks, cut)


@functools.lru_cache(maxsize=1024)
def _remembered(window: Window, chunks: Chunks, cut: Chunks) -> Reading:
    return Reading(window, chunks, cut)


FEW_BLOCKS = 16
"""Ways to read no more blocks are remembered."""


# --- cutting blocks ----------------------------------------------------------------------


def _reshaped(block: Any, shape: Shape) -> Any:
    """A block in another shape. NumPy and CuPy have a method; a library that keeps to the standard
    alone has a function."""
    if hasattr(block, "reshape"):
        return block.reshape(shape)
    return block.__array_namespace__().reshape(block, shape)


def _permuted(block: Any, axes: tuple[int, ...]) -> Any:
    """A block with its axes in another order."""
    if hasattr(block, "transpose"):
        return block.transpose(axes)
    return block.__array_namespace__().permute_dims(block, axes)


@dataclass(frozen=True, slots=True)
class Cut:
    """Recipe that makes a block of a view of pieces of other blocks.

    Parameters
    ----------
    pieces : tuple of tuple of int
        Of each block, in the order in which they are given: first position and count for each of
        its axes.
    steps : tuple of int
        For each axis.
    counts : tuple of tuple of int
        For each axis how many elements come from each piece along it.
    kept : tuple of bool
        Which axes are in the view.
    order : tuple of int
        For each axis of the view which of the kept ones it is; -1: a new one of length 1.
    """

    pieces: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    kept: tuple[bool, ...]
    order: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        """Shape of the block."""
        lengths = [sum(axis) for axis, kept in zip(self.counts, self.kept, strict=True) if kept]
        return tuple([lengths[place] if place >= 0 else 1 for place in self.order])

    def part(self, number: int, block: Any) -> Any:
        """The view of the piece of this number, with the axes of the view."""
        seen = block[self._index(number)]
        places = [place for place in self.order if place >= 0]
        if places != sorted(places):
            seen = _permuted(seen, tuple(places))
        if len(places) < len(self.order):
            seen = seen[tuple([slice(None) if place >= 0 else None for place in self.order])]
        return seen

    def view(self, number: int) -> Callable[[Any], Any] | None:
        """Return a function that does what `part` does, with little left to find out; None where
        axes change places."""
        places = [place for place in self.order if place >= 0]
        if places != sorted(places):
            return None
        index = self._index(number)
        if len(places) == len(self.order):
            return operator.itemgetter(index)
        # (An index of integers and slices gives the kept axes in their order.)
        new = tuple([slice(None) if place >= 0 else None for place in self.order])
        return lambda block: block[index][new]

    def _index(self, number: int) -> tuple[Any, ...]:
        index: list[Any] = []
        found = self.pieces[number]
        for axis, (step, kept) in enumerate(zip(self.steps, self.kept, strict=True)):
            low, count = found[2 * axis], found[2 * axis + 1]
            if not kept:
                index.append(low)
                continue
            stop: int | None = low + count * step
            index.append(slice(low, None if step < 0 and low + count * step < 0 else stop, step))
        return tuple(index)

    def regions(self) -> Iterator[tuple[slice, ...]]:
        """Where each piece lies in the block."""
        per_axis = []
        for axis, kept in zip(self.counts, self.kept, strict=True):
            ends = list(itertools.accumulate(axis))
            spans = [slice(end - count, end) for end, count in zip(ends, axis, strict=True)]
            per_axis.append(spans if kept else [slice(0, 1)])
        places = [axis for axis, kept in enumerate(self.kept) if kept]
        for chosen in itertools.product(*per_axis):
            own = [chosen[axis] for axis in places]
            yield tuple([own[place] if place >= 0 else slice(0, 1) for place in self.order])


@dataclass(frozen=True, slots=True)
class FlatCut:
    """Recipe that makes a block of a reshaped array of runs of other blocks' elements, in C order.

    Parameters
    ----------
    spans : tuple of (start, stop)
        The run of each block, in the order in which they are given.
    shape : tuple of int
        Of the block.
    """

    spans: tuple[tuple[int, int], ...]
    shape: Shape


def is_reading(argument: Any) -> bool:
    """Whether a task's argument is a `Cut` or a `FlatCut` with its blocks."""
    return type(argument) is list and bool(argument) and type(argument[0]) in (Cut, FlatCut)


def opened(argument: Any) -> Any:
    """A task's argument as an array, which may be a view in any order, or as `Pieces` or
    `FlatPieces`."""
    if not is_reading(argument):
        return argument
    cut, *blocks = argument
    if type(cut) is FlatCut:
        if len(blocks) > 1:
            return FlatPieces(cut, blocks)
        ((low, high),) = cut.spans
        return _reshaped(_reshaped(blocks[0], (-1,))[low:high], cut.shape)
    if len(blocks) > 1:
        return Pieces(cut, blocks)
    part = cut.part(0, blocks[0])
    places = [place for place in cut.order if place >= 0]
    # Cache blocks of a transpose would each go through all of its rows.
    return part if places == sorted(places) else in_c_order(part)


def in_one(block: Any, xp: Any) -> Any:
    """Return the result of `opened` as an array in C order."""
    return block.whole(xp) if type(block) in (Pieces, FlatPieces) else in_c_order(block)


def whole(argument: Any, xp: Any) -> Any:
    """A task's argument, or each element of a list, as an array in C order if it is a reading."""
    if is_reading(argument):
        return in_one(opened(argument), xp)
    if type(argument) is list:
        return [whole(element, xp) if type(element) is list else element for element in argument]
    return argument


def viewed(argument: Any, xp: Any) -> Any:
    """A task's argument as an array, which is a view where it lies in one block."""
    found = opened(argument)
    return found.whole(xp) if type(found) in (Pieces, FlatPieces) else found


def _for_each_axis(region: Any, ndim: int) -> tuple[slice, ...]:
    """Return one slice for each axis; axes that ``region`` does not name are taken whole."""
    given = region if type(region) is tuple else (region,)
    return (*given, *[slice(None)] * (ndim - len(given)))


def _spans(region: Sequence[slice], shape: Shape) -> list[tuple[int, int]]:
    """Return the first position and the end of each slice along its axis."""
    return [entry.indices(n)[:2] for entry, n in zip(region, shape, strict=True)]


class Pieces:
    """A block that lies in pieces of several others, of which parts are taken."""

    __slots__ = ("_parts", "_regions", "dtype", "ndim", "shape", "size")

    def __init__(self, cut: Cut, blocks: Sequence[Any]) -> None:
        self._parts = [cut.part(number, block) for number, block in enumerate(blocks)]
        self._regions = list(cut.regions())
        self.shape = cut.shape
        self.size = math.prod(self.shape)
        self.ndim = len(self.shape)
        self.dtype = blocks[0].dtype

    def __getitem__(self, region: Any) -> Any:
        """A part of the block as an array; ``region`` is one slice, or one for each axis."""
        wanted = _spans(_for_each_axis(region, self.ndim), self.shape)
        found: list[tuple[tuple[slice, ...], Any]] = []
        for part, own in zip(self._parts, self._regions, strict=True):
            spans = [
                (max(low, axis.start), min(high, axis.stop))
                for (low, high), axis in zip(wanted, own, strict=True)
            ]
            if all(low < high for low, high in spans):
                within = [slice(a - axis.start, b - axis.start)
                         for (a, b), axis in zip(spans, own, strict=True)]  # fmt: skip
                to = [slice(a - low, b - low)
                      for (a, b), (low, _) in zip(spans, wanted, strict=True)]  # fmt: skip
                found.append((tuple(to), part[tuple(within)]))
        if len(found) == 1:
            return found[0][1]
        out = np.empty([high - low for low, high in wanted], self.dtype)
        for place, piece in found:
            out[place] = piece
        return out

    def whole(self, xp: Any) -> Any:
        """All of the block as one array."""
        out = xp.empty(self.shape, dtype=self.dtype)
        for region, part in zip(self._regions, self._parts, strict=True):
            out[region] = part
        return out


class FlatPieces:
    """A block whose elements, in C order, are runs of several others, of which parts are taken."""

    __slots__ = ("_ends", "_runs", "_whole", "dtype", "ndim", "shape", "size")

    def __init__(self, cut: FlatCut, blocks: Sequence[Any]) -> None:
        self._runs = [
            _reshaped(block, (-1,))[low:high]
            for block, (low, high) in zip(blocks, cut.spans, strict=True)
        ]
        self._ends = list(itertools.accumulate(high - low for low, high in cut.spans))
        self._whole: Any = None
        self.shape = cut.shape
        self.size = math.prod(self.shape)
        self.ndim = len(self.shape)
        self.dtype = blocks[0].dtype

    def __getitem__(self, region: Any) -> Any:
        """A part of the block as an array; ``region`` is one slice, or one for each axis."""
        given = _for_each_axis(region, self.ndim)
        wanted = _spans(given, self.shape)
        shape = [high - low for low, high in wanted]
        if not grids.is_run(shape, self.shape):
            if self._whole is None:
                self._whole = self.whole(np)
            return self._whole[given]
        first = 0
        for (low, _), length in zip(wanted, self.shape, strict=True):
            first = first * length + low
        return _reshaped(self._run(first, first + math.prod(shape)), tuple(shape))

    def _run(self, first: int, last: int) -> Any:
        parts: list[Any] = []
        begin = 0
        for run, end in zip(self._runs, self._ends, strict=True):
            low, high = max(first, begin), min(last, end)
            if low < high:
                parts.append(run[low - begin : high - begin])
            begin = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def whole(self, xp: Any) -> Any:
        """All of the block as one array."""
        joined = self._runs[0] if len(self._runs) == 1 else xp.concatenate(self._runs)
        return _reshaped(joined, self.shape)
