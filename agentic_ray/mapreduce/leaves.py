"""Data of any kind as a row of leaves, cut into chunks on demand.

Knows nothing of tasks: it turns leaves ``start..stop`` into pieces that can be sent.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SerializationError
from agentic_ray.graph import content_key
from agentic_ray.runtime import blocks_of, is_dataset, is_object_ref, pack, stored
from agentic_ray.sources import Part, Source, open_source
from agentic_ray.sources._text import TextLines
from agentic_ray.sources.frames import Column, Rows, sequence_of

BLOCK_BYTES = 1 << 21
"""Size of a block given to a codelet: it and its temporaries stay in the caches."""
GPU_BLOCK_BYTES = 1 << 28
"""Size of a block for work tagged gpu: large enough to fill the device."""


Blocked = tuple[Any, np.ndarray[Any, Any] | Rows]
"""Array or table that is cut into blocks: as it is sent (an argument, or itself), and itself."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Pieces of one chunk: ``leaves`` is their number, ``read_bytes`` their size in all (0: not
    known), ``items`` the number of logical tasks."""

    pieces: tuple[Any, ...]
    leaves: int
    read_bytes: int
    items: int


class Leaves(Protocol):
    """A row of leaves. ``count`` is None when only iterating tells the number; ``again`` says
    whether the leaves can be cut a second time."""

    again: bool
    count: int | None
    optional: bool
    bytes_per_leaf: float

    def cut(self, start: int, stop: int) -> Cut | None:
        """Cut leaves ``start..stop``; fewer at the end of an iterator, None past it."""
        ...

    def __content_key__(self) -> str:
        """Name everything in the leaves; raise SerializationError where that cannot be told."""
        ...


class SequenceLeaves:
    """Elements of a sequence, a range or an array, or rows of a table, one leaf each."""

    again = True
    optional = False
    bytes_per_leaf = 0.0

    def __init__(self, data: Sequence[Any] | np.ndarray[Any, Any] | Rows | Column) -> None:
        self.data = data
        self.count: int | None = _length(data)

    def cut(self, start: int, stop: int) -> Cut:
        count = stop - start
        piece = (pack(self.data[start:stop]), 0, count, None)
        return Cut((piece,), count, 0, count)

    def __content_key__(self) -> str:
        return content_key("elements", self.data)


class IteratorLeaves:
    """Elements of an iterable that is read once, as far as it is needed."""

    again = False
    optional = False
    bytes_per_leaf = 0.0
    count: int | None = None

    def __init__(self, data: Iterable[Any]) -> None:
        self.iterator = iter(data)

    def cut(self, start: int, stop: int) -> Cut | None:
        items = list(itertools.islice(self.iterator, stop - start))
        if not items:
            return None
        return Cut(((pack(items), 0, len(items), None),), len(items), 0, len(items))

    def __content_key__(self) -> str:
        raise SerializationError("what an iterator gives cannot be told before it has")


class BlockLeaves:
    """Blocks of rows of arrays, or of a table, that follow each other; no block crosses from one
    array to the next."""

    optional = False

    def __init__(self, arrays: Sequence[Blocked], block_rows: int) -> None:
        self._sources = [source for source, _ in arrays]
        # arrays that others put in the object store are lost with it
        self.again = all(isinstance(source, np.ndarray) for source in self._sources)
        self._lengths = [len(array) for _, array in arrays]
        self._row_bytes = [array.nbytes / max(len(array), 1) for _, array in arrays]
        self._rows = block_rows
        blocks = [-(-length // block_rows) for length in self._lengths]
        self._ends = list(itertools.accumulate(blocks))
        self.count: int | None = self._ends[-1] if self._ends else 0
        self.bytes_per_leaf = max(self._row_bytes, default=0.0) * block_rows

    def cut(self, start: int, stop: int) -> Cut:
        pieces: list[Any] = []
        size = 0.0
        at = start
        index = bisect.bisect_right(self._ends, start)
        while at < stop:
            first = self._ends[index - 1] if index else 0
            last = min(stop, self._ends[index])
            low = (at - first) * self._rows
            high = min((last - first) * self._rows, self._lengths[index])
            size += (high - low) * self._row_bytes[index]
            source = self._sources[index]
            if isinstance(source, np.ndarray | Rows):
                pieces.append((pack(source[low:high]), 0, high - low, self._rows))
            else:
                pieces.append((source, low, high, self._rows))
            at = last
            index += 1
        return Cut(tuple(pieces), stop - start, int(size), stop - start)

    def __content_key__(self) -> str:
        if not all(isinstance(source, np.ndarray | Rows) for source in self._sources):
            raise SerializationError("what is in the object store is not read for its content")
        return content_key("blocks", self._sources, self._rows)


class PartLeaves:
    """Parts of files, one leaf each; a part of elements may turn out to be empty."""

    again = True

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.count: int | None = len(parts)
        self.optional = any(part.unit == "element" for part in parts)
        self.bytes_per_leaf = sum(part.bytes for part in parts) / max(len(parts), 1)

    def cut(self, start: int, stop: int) -> Cut:
        parts = tuple(self._parts[start:stop])
        items = sum(1 if part.items is None else part.items for part in parts)
        return Cut(parts, len(parts), sum(part.bytes for part in parts), items)

    def __content_key__(self) -> str:
        return content_key("parts", self._parts)


class DatasetLeaves:
    """Blocks of a Ray Dataset, a leaf each: tables that are used where they are."""

    again = False
    optional = False

    def __init__(self, dataset: Any) -> None:
        self._blocks = blocks_of(dataset)
        self.count: int | None = len(self._blocks)
        self.bytes_per_leaf = sum(block.bytes for block in self._blocks) / max(self.count, 1)

    def cut(self, start: int, stop: int) -> Cut:
        blocks = self._blocks[start:stop]
        pieces = tuple([([block.held], 0, 1, None) for block in blocks])
        return Cut(pieces, len(blocks), sum(block.bytes for block in blocks), len(blocks))

    def __content_key__(self) -> str:
        raise SerializationError("what is in the object store is not read for its content")


class GroupLeaves:
    """Elements of a sequence, ``size`` of them to a leaf; a fold goes through a leaf in order."""

    again = True
    optional = False
    bytes_per_leaf = 0.0

    def __init__(
        self, data: Sequence[Any] | np.ndarray[Any, Any] | Rows | Column, size: int
    ) -> None:
        self._data = data
        self.size = size
        self.count: int | None = -(-_length(data) // size)

    def cut(self, start: int, stop: int) -> Cut:
        part = self._data[start * self.size : stop * self.size]
        piece = (pack(part), 0, _length(part), self.size)
        return Cut((piece,), stop - start, 0, stop - start)

    def __content_key__(self) -> str:
        return content_key("groups", self._data, self.size)


class IteratorGroups:
    """Elements of an iterable that is read once, ``size`` of them to a leaf; an empty one is one
    leaf without elements."""

    again = False
    optional = False
    bytes_per_leaf = 0.0
    count: int | None = None

    def __init__(self, data: Iterable[Any], size: int) -> None:
        self._iterator = iter(data)
        self.size = size

    def cut(self, start: int, stop: int) -> Cut | None:
        items = list(itertools.islice(self._iterator, (stop - start) * self.size))
        if not items and start:
            return None
        leaves = max(-(-len(items) // self.size), 1)
        # (An empty range would be no leaf at all, hence the bound of 1.)
        return Cut(((pack(items), 0, max(len(items), 1), self.size),), leaves, 0, leaves)

    def __content_key__(self) -> str:
        raise SerializationError("what an iterator gives cannot be told before it has")


_GROUPS = 32
"""Leaves of a fold over a sequence or a text, about. Each has a state that is sent and combined,
which takes as long as hundreds of thousands of steps where the state is large, such as a counter.
"""
_ITERATOR_GROUP = 1024


def fold_leaves(data: Any, size: int | None) -> Leaves:
    """Make the leaves of a fold: parts of files, or runs of ``size`` elements of anything else.

    ``size`` None: a 32nd of a sequence or of a text, as a power of two, or 1,024 elements of an
    iterator. It depends on the data alone, so that the result has the same bits on every cluster.

    Raises
    ------
    InvalidTypeError
        The data cannot be gone through.
    InvalidArgumentError
        ``size`` was given with files, whose parts are the leaves.
    """
    if isinstance(data, os.PathLike):
        data = open_source(os.fspath(data))
    if isinstance(data, Source) or is_dataset(data):
        if size is not None:
            raise InvalidArgumentError(
                "leaf_size goes with elements; the leaves of files are the parts of their source, "
                "which part_bytes of the source sets, and those of a Ray Dataset its blocks"
            )
        if is_dataset(data):
            return DatasetLeaves(data)
        if isinstance(data, TextLines):
            data = data.in_parts(_GROUPS)
        # Each part is handed over whole; its elements are gone through there.
        return PartLeaves([replace(part, unit="block") for part in data.parts()])
    leaves = leaves_of(data, blocks=False, block_rows=None, gpu=False)
    if isinstance(leaves, IteratorLeaves):
        return IteratorGroups(leaves.iterator, size or _ITERATOR_GROUP)
    assert isinstance(leaves, SequenceLeaves), "files and arrays of blocks were dealt with"
    if size is None:
        size = 1 << max(_length(leaves.data) // _GROUPS, 1).bit_length() - 1
    return GroupLeaves(leaves.data, size)


def leaves_of(data: Any, *, blocks: bool, block_rows: int | None, gpu: bool) -> Leaves:
    """Make leaves of the user's data.

    Parameters
    ----------
    blocks : bool
        Whether the map function takes blocks of arrays (it is a codelet), not elements.
    block_rows : int or None
        Rows of a block; None: chosen from the row's size, and from nothing else, so that the
        result has the same bits everywhere.
    gpu : bool
        Whether the blocks are meant for a GPU.

    Raises
    ------
    InvalidTypeError
        The data cannot be mapped over.
    FileNotFoundError
        A path leads nowhere.
    """
    if isinstance(data, GroupLeaves | IteratorGroups | PartLeaves | DatasetLeaves):
        return data
    if isinstance(data, str):
        raise InvalidTypeError(
            f"cannot map over the str {_short(data)}: it could mean its characters or a file; "
            "pass list(text) for the characters, and for a file pathlib.Path(text) or a source "
            "such as agentic_ray.sources.text_lines(text)"
        )
    if isinstance(data, os.PathLike):  # first: a pathlib.Path has `parts` as well
        return PartLeaves(open_source(os.fspath(data)).parts())
    if isinstance(data, Source):
        return PartLeaves(data.parts())
    if is_dataset(data):
        return DatasetLeaves(data)
    if is_object_ref(data):
        data = [data]
    if isinstance(data, list | tuple) and data and all(is_object_ref(item) for item in data):
        held = [stored(ref) for ref in data]
        if not all(isinstance(value, np.ndarray) for _, value in held):
            raise InvalidTypeError("ObjectRefs to map over must hold NumPy arrays")
        if blocks:
            return _blocks(held, block_rows, gpu)
        if len(held) > 1:
            return SequenceLeaves(np.concatenate([value for _, value in held]))
        return SequenceLeaves(held[0][1])
    if hasattr(data, "__array_namespace__") and not isinstance(data, np.ndarray):
        data = _on_host(data)
    found = sequence_of(data)
    if isinstance(found, Column):
        data = found.array() if blocks else found
    elif found is not None:
        return _blocks([(found, found)], block_rows, gpu) if blocks else SequenceLeaves(found)
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            raise InvalidTypeError("cannot map over a 0-d array; use array.reshape(1)")
        return _blocks([(data, data)], block_rows, gpu) if blocks else SequenceLeaves(data)
    if isinstance(data, bytes | bytearray):
        raise InvalidTypeError("cannot map over bytes; use list(data) for its numbers")
    if blocks and isinstance(data, range | list | tuple) and _is_numeric(data):
        array = np.asarray(data)
        return _blocks([(array, array)], block_rows, gpu)
    if isinstance(data, Column) or (isinstance(data, Sequence) and _has_slices(data)):
        return SequenceLeaves(data)
    if isinstance(data, Iterable):
        try:
            return IteratorLeaves(data)
        except TypeError as error:  # such as an array of another library without dimensions
            raise InvalidTypeError(f"cannot map over {type(data).__name__}: {error}") from error
    raise InvalidTypeError(
        f"cannot map over {type(data).__name__}; give a sequence, a range, a NumPy array, a table, "
        "an iterator, a path or a source such as agentic_ray.sources.csv(path)"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _on_host(data: Any) -> np.ndarray[Any, Any]:
    """Convert an array of another library, or one of ours, to a NumPy array."""
    try:
        return np.asarray(data)
    except TypeError as error:  # such as CuPy's, which are not copied from the device silently
        raise InvalidTypeError(
            f"cannot map over {type(data).__module__}.{type(data).__name__}: {error}; make it a "
            "NumPy array first"
        ) from error


def _length(data: Any) -> int:
    if isinstance(data, range):  # len() refuses more than a machine word holds
        return max(0, -((data.start - data.stop) // data.step))
    return len(data)


def _has_slices(data: Sequence[Any]) -> bool:
    try:
        data[0:0]
    except Exception:  # a deque has none; another sequence may raise anything
        return False
    return True


def _blocks(arrays: Sequence[Blocked], block_rows: int | None, gpu: bool) -> BlockLeaves:
    if block_rows is None:
        row_bytes = max((array.nbytes / max(len(array), 1) for _, array in arrays), default=1)
        rows = int((GPU_BLOCK_BYTES if gpu else BLOCK_BYTES) / max(row_bytes, 1))
        block_rows = 1 << (max(rows, 1).bit_length() - 1)
    return BlockLeaves(arrays, block_rows)


def _is_numeric(data: Sequence[Any]) -> bool:
    return isinstance(data, range) or all(
        isinstance(item, int | float | complex | np.number) for item in data
    )
