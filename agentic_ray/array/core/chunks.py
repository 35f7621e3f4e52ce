"""Chunk grids: tuples of chunk lengths per axis, how they are chosen, aligned and counted.

Knows shapes and byte sizes only; what is in a chunk is none of its business.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.core import sizing
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.graph.sizes import parse_bytes

Shape = tuple[int, ...]
Chunks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """Rules by which ``"auto"`` chunks are sized.

    Parameters
    ----------
    chunk_bytes : int or None
        Wanted size of a chunk; None: chosen from the array's size, the cluster's slots and
        memory, and what tasks cost (`sizing.auto_bytes`).
    chunk_elements : int or None
        If set, the wanted number of elements instead, whatever their size.
    whole_matrix_bytes : int
        A matrix of several chunks of at most this size is brought to one task where that saves
        operations: the spectrum of one by blocks takes many times as many.
    seconds_here : float
        What is predicted to take no longer than this, and no longer than on the executors, is
        computed in threads of the caller's process, if its data is there; 0: never.
    """

    chunk_bytes: int | None = None
    chunk_elements: int | None = None
    whole_matrix_bytes: int = 512 << 20
    seconds_here: float = 1.0

    def __post_init__(self) -> None:
        if any(wanted is not None and wanted < 1 for wanted in (self.chunk_bytes,
               self.chunk_elements)):  # fmt: skip
            raise InvalidArgumentError("a chunk has at least one byte and one element")
        if self.whole_matrix_bytes < 0:
            raise InvalidArgumentError("whole_matrix_bytes must not be negative")
        if not self.seconds_here >= 0:
            raise InvalidArgumentError("seconds_here must not be negative")

    @property
    def is_free(self) -> bool:
        """Whether no size of chunks is wanted in particular."""
        return self.chunk_bytes is None and self.chunk_elements is None

    def elements(self, dtype: np.dtype[Any], size: int = 0) -> int:
        """Wanted number of elements in a chunk of an array of ``size`` of ``dtype``."""
        if self.chunk_elements is not None:
            return self.chunk_elements
        each = max(dtype.itemsize, 1)
        wanted = self.chunk_bytes
        if wanted is None:
            wanted = sizing.auto_bytes(size * each, sizing.surroundings())
        return max(1, wanted // each)


_rules: contextvars.ContextVar[ChunkRules | None] = contextvars.ContextVar(
    "array_chunk_rules", default=None
)


def _from_environment() -> ChunkRules:
    """Defaults with ``AGENTIC_RAY_ARRAY_CHUNK_BYTES`` and its like applied."""
    found: dict[str, Any] = {
        entry.name: (float if entry.name == "seconds_here" else int)(text)
        for entry in fields(ChunkRules)
        if (text := os.environ.get(f"AGENTIC_RAY_ARRAY_{entry.name.upper()}", ""))
    }
    return ChunkRules(**found)


_DEFAULT_RULES = _from_environment()


def rules() -> ChunkRules:
    """The rules in force here."""
    return _rules.get() or _DEFAULT_RULES


@contextlib.contextmanager
def config(
    *,
    chunk_bytes: int | None = None,
    chunk_elements: int | None = None,
    whole_matrix_bytes: int | None = None,
    seconds_here: float | None = None,
) -> Iterator[ChunkRules]:
    """Size ``"auto"`` chunks differently inside the ``with`` block, gather other matrices, or
    compute more or less in the caller's process.

    Parameters
    ----------
    chunk_bytes, chunk_elements, whole_matrix_bytes : int, optional
        As in `ChunkRules`.
    seconds_here : float, optional
        As in `ChunkRules`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> with xp.config(chunk_elements=4):
    ...     xp.zeros((6,)).chunks
    ((4, 2),)
    """
    given: dict[str, Any] = {
        "chunk_bytes": chunk_bytes,
        "chunk_elements": chunk_elements,
        "whole_matrix_bytes": whole_matrix_bytes,
        "seconds_here": seconds_here,
    }
    chosen = replace(rules(), **{name: size for name, size in given.items() if size is not None})
    token = _rules.set(chosen)
    try:
        yield chosen
    finally:
        _rules.reset(token)


def single(shape: Shape) -> Chunks:
    """The grid with one chunk."""
    return tuple([(length,) for length in shape])


def numblocks(chunks: Chunks) -> Shape:
    return tuple([len(axis) for axis in chunks])


def block_count(chunks: Chunks) -> int:
    return math.prod([len(axis) for axis in chunks])


def shape_of(chunks: Chunks) -> Shape:
    return tuple([sum(axis) for axis in chunks])


def offsets(lengths: Sequence[int]) -> list[int]:
    """Start of each chunk, and the end of the last."""
    return [0, *itertools.accumulate(lengths)]


def regular(length: int, size: int) -> tuple[int, ...]:
    """``length`` cut in pieces of ``size``, the last possibly shorter.

    Raises
    ------
    InvalidArgumentError
        There would be more than `MOST_CHUNKS`.
    """
    if length == 0:
        return (0,)
    size = max(1, min(size, length))
    if length > size * MOST_CHUNKS:
        raise InvalidArgumentError(
            f"an axis of {length:,} in chunks of {size:,} has {-(-length // size):,} of them; the "
            f"most is {MOST_CHUNKS:,}: use larger chunks"
        )
    full, rest = divmod(length, size)
    return (size,) * full + ((rest,) if rest else ())


def auto(shape: Shape, dtype: np.dtype[Any], chunk_bytes: int | None = None) -> Chunks:
    """Chunks of about the wanted size, or of at most ``chunk_bytes``.

    The first axis is cut as long as one of its rows fits in a chunk, so that a chunk is
    contiguous in C order; else the longest axes are cut.
    """
    size = math.prod(shape)
    if chunk_bytes is None and rules().is_free and size * dtype.itemsize <= sizing.LEAST_BYTES:
        return single(shape)  # whatever the cluster is like
    limit = _limit(dtype, size, chunk_bytes)
    if size <= limit:
        return single(shape)
    row = math.prod(shape[1:])
    if row <= limit:
        return (regular(shape[0], limit // max(row, 1)), *single(shape[1:]))
    return _cubes(shape, limit)


def _limit(dtype: np.dtype[Any], size: int, chunk_bytes: int | None) -> int:
    """Elements of a chunk."""
    if chunk_bytes is not None:
        return max(1, chunk_bytes // max(dtype.itemsize, 1))
    return rules().elements(dtype, size)


def _cubes(shape: Shape, limit: int) -> Chunks:
    sizes = list(shape)
    while math.prod(sizes) > limit:
        longest = max(range(len(sizes)), key=lambda axis: (sizes[axis], -axis))
        others = math.prod(sizes) // sizes[longest]
        second = max((size for axis, size in enumerate(sizes) if axis != longest), default=1)
        wanted = max(1, limit // max(others, 1))
        # Never cut one axis far below the next longest: halve instead and look again.
        sizes[longest] = max(wanted, min(second, -(-sizes[longest] // 2)), 1)
        if sizes[longest] == 1 and others > limit:
            continue
    return tuple(regular(length, size) for length, size in zip(shape, sizes, strict=True))


def contiguous(shape: Shape, limit: int) -> Chunks:
    """Chunks of at most ``limit`` elements that follow each other in C order.

    Axes before some axis k are cut in ones, k in pieces, those after it not at all; so block
    after block the elements are consecutive.
    """
    tail = 1
    axis = len(shape)
    while axis > 0 and tail * shape[axis - 1] <= limit:
        axis -= 1
        tail *= shape[axis]
    if axis == 0:
        return single(shape)
    cut = regular(shape[axis - 1], max(1, limit // max(tail, 1)))
    ones = tuple(regular(length, 1) for length in shape[: axis - 1])
    return (*ones, cut, *single(shape[axis:]))


def is_run(part: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a part of these lengths of an array is one run of its elements in C order."""
    axis = len(shape)
    while axis and part[axis - 1] == shape[axis - 1]:
        axis -= 1
    return all(length == 1 for length in part[: max(axis - 1, 0)])


def for_reduction(shape: Shape, axes: Sequence[int], limit: int, width: int) -> Chunks:
    """Parts of at most ``limit`` elements in which a block is reduced over ``axes``.

    They follow each other in C order, unless a single position of the axes that are reduced has
    more than ``limit`` elements, as an image of a stack: then they are ``width`` elements wide and
    as long as fits, or nothing would be added up within a part.
    """
    behind = max(axes, default=-1) + 1
    if math.prod(shape[behind:]) <= limit or not axes:
        return contiguous(shape, limit)
    first = min(axes)
    ones = tuple([regular(length, 1) for length in shape[:first]])
    reduced = contiguous(shape[first:behind], max(1, limit // width))
    return (*ones, *reduced, *contiguous(shape[behind:], width))


def is_contiguous(chunks: Chunks) -> bool:
    """Whether the blocks in order are consecutive runs of the elements in C order."""
    state = 0  # 0: axes of ones; 1: past the axis that is cut
    for lengths in chunks:
        if state and len(lengths) > 1:
            return False
        if not state and any(length != 1 for length in lengths):
            state = 1
    return True


def normalize(chunks: Any, shape: Shape, dtype: np.dtype[Any]) -> Chunks:
    """A grid from what users write.

    Parameters
    ----------
    chunks
        ``"auto"``; a size in bytes such as ``"1 MB"``, which chunks do not exceed; an int for
        all axes; or per axis an int, ``-1``/None (one chunk), ``"auto"``, a size or a tuple of
        lengths; or a dict from axis to one of these. The axes that are ``"auto"`` or have a
        size are cut so that the whole chunk has the size.

    Raises
    ------
    InvalidArgumentError
        Lengths do not add up to the shape, or there is one per axis too many or too few.
    InvalidTypeError
        Something is none of the above.
    """
    if isinstance(chunks, str):
        return auto(shape, dtype, None if chunks == "auto" else parse_bytes(chunks))
    if isinstance(chunks, dict):
        given = by_axis(chunks, len(shape))
        chunks = tuple(given.get(axis, -1) for axis in range(len(shape)))
    if chunks is None:
        chunks = -1
    if isinstance(chunks, int | np.integer) and not isinstance(chunks, bool):
        chunks = (int(chunks),) * len(shape)
    if not isinstance(chunks, tuple | list):
        raise InvalidTypeError(f"chunks must be 'auto', an int or a tuple, not {chunks!r}")
    if len(chunks) != len(shape):
        raise InvalidArgumentError(f"{len(chunks)} chunk entries for an array of shape {shape}")
    sizes = [parse_bytes(e) for e in chunks if isinstance(e, str) and e != "auto"]
    wanted = [_axis_chunks(entry, length) for entry, length in zip(chunks, shape, strict=True)]
    if any(entry is None for entry in wanted):
        fixed = math.prod(max(entry) if entry else 1 for entry in wanted if entry is not None)
        free = tuple(n for n, entry in zip(shape, wanted, strict=True) if entry is None)
        whole = _limit(dtype, math.prod(shape), min(sizes, default=None))
        limit = max(1, whole // max(fixed, 1))
        found = iter(_cubes(free, limit))
        wanted = [next(found) if entry is None else entry for entry in wanted]
    return tuple(entry for entry in wanted if entry is not None)


def by_axis(chunks: dict[int, Any], ndim: int) -> dict[int, Any]:
    """A user's dict with axes counted from the first.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.
    """
    return {normalize_axis_index(axis, ndim): entry for axis, entry in chunks.items()}


def balanced(chunks: Chunks) -> Chunks:
    """As many chunks along each axis, of lengths that differ by one at most."""
    result: list[tuple[int, ...]] = []
    for lengths in chunks:
        each, rest = divmod(sum(lengths), len(lengths))
        result.append((each + 1,) * rest + (each,) * (len(lengths) - rest))
    return tuple(result)


def _axis_chunks(entry: Any, length: int) -> tuple[int, ...] | None:
    if entry is None:
        return (length,)
    if isinstance(entry, str):
        return None
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        if entry == -1:
            return (length,)
        if entry < 1:
            raise InvalidArgumentError(f"a chunk has at least one element, not {entry}")
        return regular(length, int(entry))
    if isinstance(entry, tuple | list):
        if not all(isinstance(part, int | np.integer) for part in entry):
            raise InvalidTypeError(f"lengths of chunks are ints, not {entry!r}")
        lengths = tuple(int(part) for part in entry)
        if sum(lengths) != length or any(part < 0 for part in lengths):
            raise InvalidArgumentError(f"chunks {lengths} do not add up to an axis of {length}")
        if length and 0 in lengths:
            lengths = tuple(part for part in lengths if part)
        return lengths or (0,)
    raise InvalidTypeError(f"chunks must be 'auto', an int or a tuple, not {entry!r}")


def unify(shape: Shape, grids: Sequence[tuple[Shape, Chunks, int]]) -> Chunks:
    """Return one grid for operands that broadcast to ``shape``: per axis that of the largest
    operand whose axis is cut. Where operands are cut along different axes that could be as many
    blocks as the product of theirs; then it is that of the largest operand, cut or not.

    Parameters
    ----------
    grids : sequence of (shape, chunks, bytes)
        Of each operand.
    """
    if not shape:
        return ()
    result = _unified(shape, grids, prefer_cut=True)
    most = max((block_count(own) for _, own, _ in grids), default=1)
    if block_count(result) > MOST_PIECES * max(most, 32):
        plain = _unified(shape, grids, prefer_cut=False)
        return min(result, plain, key=block_count)
    return result


def _unified(
    shape: Shape, grids: Sequence[tuple[Shape, Chunks, int]], *, prefer_cut: bool
) -> Chunks:
    result: list[tuple[int, ...]] = []
    for axis, length in enumerate(shape):
        best: tuple[int, ...] | None = None
        size = -1
        for own_shape, own, own_bytes in grids:
            at = axis - len(shape) + len(own_shape)
            if at < 0 or own_shape[at] != length:
                continue
            rank = own_bytes + (1 << 62 if prefer_cut and len(own[at]) > 1 else 0)
            if rank > size:
                best, size = own[at], rank
        result.append(best if best is not None else (length,))
    return tuple(result)


def strides(counts: Shape) -> list[int]:
    """C-order strides of a grid of blocks."""
    result = [1] * len(counts)
    for axis in range(len(counts) - 2, -1, -1):
        result[axis] = result[axis + 1] * counts[axis + 1]
    return result


def blocks_under(counts: Shape, wanted: Shape) -> list[int]:
    """For each block of a grid of ``wanted`` blocks, in C order, that of a grid of ``counts``
    blocks which broadcasts to it."""
    index = np.zeros(wanted, dtype=np.intp)
    skip = len(wanted) - len(counts)
    for axis, (step, count) in enumerate(zip(strides(counts), counts, strict=True)):
        if count > 1:
            shape = [1] * len(wanted)
            shape[skip + axis] = count
            index += (np.arange(count) * step).reshape(shape)
    found: list[int] = index.ravel().tolist()
    return found


def block_slices(chunks: Chunks) -> Iterator[tuple[slice, ...]]:
    """The region of each block, in C order."""
    per_axis = []
    for lengths in chunks:
        starts = offsets(lengths)
        per_axis.append([slice(a, b) for a, b in itertools.pairwise(starts)])
    return itertools.product(*per_axis)


def overlaps(source: Sequence[int], target: Sequence[int]) -> list[list[tuple[int, int, int]]]:
    """For each target chunk the source chunks it takes from: (index, start, stop) within them."""
    starts = offsets(source)
    result: list[list[tuple[int, int, int]]] = []
    at = 0
    low = 0
    for length in target:
        high = low + length
        pieces: list[tuple[int, int, int]] = []
        while at + 1 < len(source) and starts[at + 1] <= low:
            at += 1
        index = at
        while index < len(source) and starts[index] < high:
            a, b = max(low, starts[index]), min(high, starts[index + 1])
            if a < b:
                pieces.append((index, a - starts[index], b - starts[index]))
            index += 1
        if not pieces:
            pieces.append((min(at, len(source) - 1), 0, 0))
        result.append(pieces)
        low = high
    return result


MOST_CHUNKS = 1 << 24
"""Of one axis. Their lengths alone take 128 MB, and no plan has so many tasks."""
MOST_PIECES = 8
"""A rechunk that takes more pieces a block than this is made in two steps."""


MOST_JOINED = 32
"""More pieces a block than this are worth a third step, and a fourth."""


def stations(source: Chunks, target: Chunks) -> tuple[Chunks, ...]:
    """Grids between two, where going there on the way moves far fewer pieces; else none.

    Per axis their numbers of chunks are in geometric progression: rows to columns, n blocks each,
    then takes n·√n pieces twice in place of n². Their blocks are about as large as the others.
    """
    pieces = _pieces(source, target)
    if pieces <= MOST_PIECES * max(block_count(source), block_count(target), 32):
        return ()
    best: tuple[Chunks, ...] = ()
    for steps in (2, 3, 4):
        found = tuple([_between(source, target, i / steps) for i in range(1, steps)])
        if len({source, *found, target}) <= steps:
            break
        path = (source, *found, target)
        total = sum(_pieces(first, second) for first, second in itertools.pairwise(path))
        if 2 * total >= pieces:
            break
        best, pieces = found, total
        if total <= steps * MOST_JOINED * max(map(block_count, path)):
            break
    return best


def _between(source: Chunks, target: Chunks, part: float) -> Chunks:
    result: list[tuple[int, ...]] = []
    for own, new in zip(source, target, strict=True):
        fine = max(own, new, key=len)
        count = max(1, round(len(own) ** (1 - part) * len(new) ** part))
        size = -(-len(fine) // count)
        result.append(tuple([sum(fine[i : i + size]) for i in range(0, len(fine), size)]))
    return tuple(result)


def _pieces(source: Chunks, target: Chunks) -> int:
    return math.prod([_cuts(a, b) for a, b in zip(source, target, strict=True)])


def _cuts(own: Sequence[int], new: Sequence[int]) -> int:
    """Pieces of one axis when two ways to cut it are laid over each other."""
    return max(1, len({*offsets(own), *offsets(new)}) - 1)
