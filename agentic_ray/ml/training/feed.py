"""Training data as workers get them: chunks where they are, and batches of their rows.

The caller hands out references to chunks; a worker reads those that its next batches need, from the
object store without a copy or from a file. No row passes through the caller unless it was there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Ref, TaskGraph
from agentic_ray.ml.chunks import Step, loaded
from agentic_ray.ml.data import Rows, aligned, rows, together
from agentic_ray.ml.training.order import WINDOW, Order, Piece, Window
from agentic_ray.runtime import Stored, get_session, is_object_ref
from agentic_ray.runtime.values import get

Columns = Any
"""Values of some rows: an array, a dict of arrays (a table's columns), or a tuple or dict of these,
in the form of the data."""


@dataclass(frozen=True)
class Feed:
    """Chunks of training data, and how they are put together.

    Attributes
    ----------
    chunks : tuple
        For each chunk its value, an ObjectRef of it, or the part of a file; tuples of these.
    steps : tuple of callable
        Applied to each chunk.
    lengths : tuple of int
        Rows of each chunk.
    names : tuple of str or None
        Names of several data side by side, if they were given by name.
    several : bool
        Whether a chunk is a tuple of several data.
    """

    chunks: tuple[Any, ...]
    steps: tuple[Step, ...]
    lengths: tuple[int, ...]
    names: tuple[str, ...] | None
    several: bool


@dataclass(frozen=True)
class Held:
    """A feed, and the `Stored` values behind it, which live as long as the caller holds them."""

    feed: Feed
    kept: tuple[Any, ...]


def hold(data: Any) -> Held:
    """Make a feed of data; chunks that have to be computed are, where they stay.

    Parameters
    ----------
    data : what `agentic_ray.ml.rows` takes, or a tuple or dict of these, row by row
    """
    names = None
    several = isinstance(data, tuple | dict)
    if isinstance(data, dict):
        if not data or not all(isinstance(name, str) for name in data):
            raise InvalidArgumentError("data given by name need names that are strings")
        names = tuple(data)
    if isinstance(data, tuple) and not data:
        raise InvalidArgumentError("data is an empty tuple")
    if several:
        first, *others = data.values() if isinstance(data, dict) else data
        head = rows(first)
        beside = [aligned(other, head.lengths, "data") for other in others]
        whole = together([head, *beside])
    else:
        whole = rows(data)
    kept = _placed(whole)
    chunks = tuple([_sent(chunk) for chunk in kept])
    return Held(Feed(chunks, whole.steps, whole.lengths, names, several), tuple(kept))


def _placed(data: Rows) -> list[Any]:
    """Return each chunk as it is held; those that tasks make are made now."""
    tasks, blocks = data.source.arguments(local=False)
    if not tasks:
        return blocks
    keys = sorted({key for block in blocks for key in _keys(block)})
    made = dict(zip(keys, get_session().submit(TaskGraph(tasks, keys)).handles(), strict=True))
    return [_filled(block, made) for block in blocks]


def _keys(block: Any) -> Iterator[str]:
    if isinstance(block, Ref):
        yield block.key
    elif isinstance(block, tuple):
        for part in block:
            yield from _keys(part)


def _filled(block: Any, made: Mapping[str, Any]) -> Any:
    """Return a block with the values of tasks in the place of references to them."""
    if isinstance(block, Ref):
        return made[block.key]
    return _mapped(block, lambda part: _filled(part, made))


def _sent(block: Any) -> Any:
    """Return a block to be sent to a worker: Ray's own references stand for stored values."""
    return block.ref if isinstance(block, Stored) else _mapped(block, _sent)


def _arrived(block: Any) -> Any:
    """Return a block with the values of its references, in a worker."""
    return get(block) if is_object_ref(block) else _mapped(block, _arrived)


def _mapped(block: Any, function: Any) -> Any:
    if not isinstance(block, tuple):
        return block
    parts = [function(part) for part in block]
    # (a named tuple takes its fields one by one)
    return type(block)(*parts) if hasattr(block, "_fields") else tuple(parts)


class Reader:
    """Reads batches of a feed, in a worker. It keeps the chunks of the last window or two."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._chunks: OrderedDict[int, Columns] = OrderedDict()

    def batches(
        self, order: Order, epoch: int, batch: int, rank: int, workers: int, first_step: int
    ) -> Iterator[Columns]:
        """Yield a worker's part of each batch of an epoch; see `Order.batches`."""
        for pieces in order.batches(epoch, batch, rank, workers, first_step):
            yield self._shaped(_below([self._rows(piece) for piece in pieces]))

    def _shaped(self, values: Columns) -> Columns:
        names = self._feed.names
        return values if names is None else dict(zip(names, values, strict=True))

    def _rows(self, piece: Piece) -> Columns:
        chunks = [self._chunk(number) for number in piece.window.chunks]
        return _taken(chunks, _located(piece.window, self._feed.lengths), piece.rows)

    def _chunk(self, number: int) -> Columns:
        if number in self._chunks:
            self._chunks.move_to_end(number)
            return self._chunks[number]
        found = loaded(_arrived(self._feed.chunks[number]), self._feed.steps)
        self._chunks[number] = made = _columns(found)
        while len(self._chunks) > 2 * WINDOW:
            self._chunks.popitem(last=False)
        return made


def _columns(value: Any) -> Columns:
    """Return a chunk as arrays: of a table its columns, by name."""
    if isinstance(value, tuple):
        return tuple([_columns(part) for part in value])
    if hasattr(value, "iloc"):
        return {str(name): value[name].to_numpy() for name in value.columns}
    return value if sp.issparse(value) else np.asarray(value)


def _located(window: Window, lengths: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the position at which each chunk of a window begins, and the end of the last."""
    return np.cumsum([0, *(lengths[chunk] for chunk in window.chunks)])


def _taken(chunks: Sequence[Columns], edges: Any, positions: Any) -> Columns:
    """Return the rows at these positions of chunks that lie below each other."""
    head = chunks[0]
    if isinstance(head, tuple):
        parts = zip(*chunks, strict=True)
        return tuple([_taken(part, edges, positions) for part in parts])
    if isinstance(head, dict):
        return {name: _taken([chunk[name] for chunk in chunks], edges, positions) for name in head}
    owners = np.searchsorted(edges, positions, side="right") - 1
    made: np.ndarray[Any, Any] | None = None
    for number in np.unique(owners):
        where = np.flatnonzero(owners == number)
        found = chunks[number][positions[where] - edges[number]]
        found = found.toarray() if sp.issparse(found) else found
        if made is None:
            made = np.empty((len(positions), *found.shape[1:]), found.dtype)
        made[where] = found
    return head[:0] if made is None else made


def _below(parts: Sequence[Columns]) -> Columns:
    """Return parts of a batch, from different windows, as one."""
    head = parts[0]
    if len(parts) == 1:
        return head
    if isinstance(head, tuple):
        return tuple([_below(part) for part in zip(*parts, strict=True)])
    if isinstance(head, dict):
        return {name: _below([part[name] for part in parts]) for name in head}
    return np.concatenate(parts)
