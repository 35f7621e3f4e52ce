"""The order in which a training goes through its rows: a function of seed and epoch alone.

Whatever number of workers there is, step s of an epoch is of the same rows; the workers divide them
among each other. So a training goes on with the same batches after a restart, also with another
number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np

WINDOW: Final = 8
"""Chunks whose rows are mixed with each other: so many are in a worker's hands at once."""

Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Window:
    """Some chunks, and the rows of an epoch that are in them.

    Attributes
    ----------
    chunks : tuple of int
        Numbers of the chunks, in the order in which they are put below each other.
    first : int
        Position in the epoch of the first row.
    count : int
        Rows of them all.
    """

    chunks: tuple[int, ...]
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one window that are part of a batch: positions among the window's rows."""

    window: Window
    rows: Positions


@dataclass(frozen=True)
class Order:
    """Order of the rows in each epoch.

    Rows are mixed within windows of chunks, and the chunks are mixed before they become windows, so
    that no more than a window is read for a batch. Up to `WINDOW` chunks are mixed completely.

    Parameters
    ----------
    lengths : sequence of int
        Rows of each chunk.
    seed : int
    shuffle : bool
        False: the rows in their own order, in every epoch.
    """

    lengths: tuple[int, ...]
    seed: int = 0
    shuffle: bool = True

    @property
    def total(self) -> int:
        """Rows of an epoch."""
        return sum(self.lengths)

    def steps(self, batch: int, workers: int) -> int:
        """Return the number of batches of ``batch`` rows in an epoch. The last one may be smaller;
        it is left out if it has less than a row for each worker."""
        full, rest = divmod(self.total, batch)
        return full + (rest >= workers)

    def windows(self, epoch: int) -> list[Window]:
        """Return the windows of an epoch, in order."""
        chunks = np.arange(len(self.lengths))
        if self.shuffle:
            chunks = np.random.default_rng((self.seed, epoch)).permutation(chunks)
        kept = [int(chunk) for chunk in chunks if self.lengths[chunk]]
        groups = [tuple(kept[at : at + WINDOW]) for at in range(0, len(kept), WINDOW)]
        counts = [sum(self.lengths[chunk] for chunk in group) for group in groups]
        firsts = accumulate([0, *counts])
        return [Window(*found) for found in zip(groups, firsts, counts, strict=False)]

    def rows(self, epoch: int, window: Window) -> Positions:
        """Return the order of a window's rows, as positions among its chunks' rows."""
        if not self.shuffle:
            return np.arange(window.count)
        generator = np.random.default_rng((self.seed, epoch, window.first))
        return generator.permutation(window.count)

    def share(self, step: int, batch: int, rank: int, workers: int) -> tuple[int, int]:
        """Return the positions in the epoch, from and to, of a worker's part of a batch.

        Examples
        --------
        >>> order = Order((10,))
        >>> [order.share(1, 4, rank, 2) for rank in (0, 1)], order.share(2, 4, 1, 2)
        ([(4, 6), (6, 8)], (9, 10))
        """
        first = step * batch
        size = min(batch, self.total - first)
        return first + size * rank // workers, first + size * (rank + 1) // workers

    def batches(
        self, epoch: int, batch: int, rank: int, workers: int, first_step: int = 0
    ) -> Iterator[tuple[Piece, ...]]:
        """Yield a worker's part of each batch of an epoch, from step ``first_step`` on."""
        windows = self.windows(epoch)
        at = 0
        orders: dict[int, Positions] = {}
        for step in range(first_step, self.steps(batch, workers)):
            start, stop = self.share(step, batch, rank, workers)
            while windows[at].first + windows[at].count <= start:
                orders.pop(at, None)
                at += 1
            pieces = []
            for number in range(at, len(windows)):
                window = windows[number]
                if window.first >= stop:
                    break
                if number not in orders:
                    orders[number] = self.rows(epoch, window)
                inside = slice(max(0, start - window.first), stop - window.first)
                pieces.append(Piece(window, orders[number][inside]))
            yield tuple(pieces)


def gang(workers: int, room: Sequence[int]) -> tuple[int, int] | None:
    """Return how many workers on how many nodes make up ``workers``: the same number on each, on as
    few nodes as can be. None if no such nodes are there.

    Parameters
    ----------
    room : sequence of int
        Workers that each node has room for.

    Examples
    --------
    >>> gang(4, [8, 2]), gang(4, [2, 3]), gang(3, [2, 2])
    ((4, 1), (2, 2), None)
    """
    for nodes in range(1, len(room) + 1):
        each, rest = divmod(workers, nodes)
        if not rest and each and sum(count >= each for count in room) >= nodes:
            return each, nodes
    return None


def most_workers(room: Sequence[int]) -> int:
    """Return the largest number of workers that `gang` finds nodes for."""
    ordered = sorted(room, reverse=True)
    return max((count * number for number, count in enumerate(ordered, 1)), default=0)
