"""`HeldBytes`: how many bytes of values were held, over time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from heapq import merge

Levels = Sequence[tuple[float, int]]
"""Seconds, and the bytes held from then on."""


def summed(curves: Iterable[Levels]) -> list[tuple[float, int]]:
    """Add curves up.

    Examples
    --------
    >>> summed([[(0.0, 5), (2.0, 0)], [(1.0, 3)]])
    [(0.0, 5), (1.0, 8), (2.0, 3)]
    """
    changes = merge(*(_changes(curve) for curve in curves))
    found: list[tuple[float, int]] = []
    level = 0
    for seconds, change in changes:
        level += change
        if found and found[-1][0] == seconds:
            found.pop()
        found.append((seconds, level))
    return found


def _changes(curve: Levels) -> list[tuple[float, int]]:
    before = [0, *(size for _, size in curve)]
    return [(at, size - last) for (at, size), last in zip(curve, before, strict=False)]


class HeldBytes:
    """Record of values that come and go.

    Attributes
    ----------
    levels : list of tuple
        Seconds, and the bytes held from then on.

    Examples
    --------
    >>> from agentic_ray.pictures import HeldBytes
    >>> held = HeldBytes()
    >>> held.keep(1.0, "a", 100)
    >>> held.keep(2.0, "b", 50)
    >>> held.drop(3.0, ["a"])
    >>> held.levels
    [(1.0, 100), (2.0, 150), (3.0, 50)]
    """

    def __init__(self) -> None:
        self.levels: list[tuple[float, int]] = []
        self._sizes: dict[Hashable, int] = {}
        self._bytes = 0

    def keep(self, seconds: float, key: Hashable, size_bytes: int) -> None:
        """A value is there now; if it was there already, it was lost and made again."""
        self._bytes += size_bytes - self._sizes.get(key, 0)
        self._sizes[key] = size_bytes
        self._note(seconds)

    def drop(self, seconds: float, keys: Iterable[Hashable]) -> None:
        """Values are gone; those that are not known, such as small ones, are ignored."""
        gone = [size for key in keys if (size := self._sizes.pop(key, None)) is not None]
        if gone:
            self._bytes -= sum(gone)
            self._note(seconds)

    def _note(self, seconds: float) -> None:
        if self.levels and self.levels[-1][0] == seconds:
            self.levels.pop()
        self.levels.append((seconds, self._bytes))
