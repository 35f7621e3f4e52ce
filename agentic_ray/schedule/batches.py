"""Number of items in the next batch of a function, from what the last ones took. Pure."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Final

LEAST_GAIN: Final = 1.05
"""A larger batch must be this much quicker an item to be worth its memory."""
SAMPLES: Final = 2
"""Batches of a size that are measured before it is judged."""
_KEPT: Final = 9


class BatchSizer:
    """Sizes of batches, from what the last ones took.

    Parameters
    ----------
    first : int
        Size to begin with.
    most : int
        Largest size.
    grows : bool
        Whether it climbs; otherwise the size stays ``first`` until memory is short.
    until_seconds : float, optional
        A batch that takes as long as this is large enough.
    """

    def __init__(
        self, first: int, most: int, *, grows: bool, until_seconds: float | None = None
    ) -> None:
        self.size = max(1, min(first, most))
        self._most = max(1, most)
        self._grows = grows
        self._until = until_seconds
        self._rates: dict[int, list[float]] = {}

    def observe(self, items: int, seconds: float) -> None:
        """Take in that a batch took ``seconds``."""
        if items < 1 or seconds <= 0:
            return
        rates = self._rates.setdefault(items, [])
        rates.append(items / seconds)
        del rates[:-_KEPT]
        if not self._grows or items != self.size or len(rates) < SAMPLES:
            return
        if self._until is not None:
            if items / median(rates) < self._until:
                self.size = min(2 * self.size, self._most)
            else:
                self._grows = False
            return
        before = self._rates.get(items // 2)
        if before and median(rates) < LEAST_GAIN * median(before):
            self.size = max(1, items // 2)
            self._grows = False
        elif items < self._most:
            self.size = min(2 * items, self._most)

    def short(self, items: int) -> None:
        """Take in that a batch of ``items`` ran out of memory and was split."""
        self._most = max(1, min(self._most, items // 2))
        self.size = min(self.size, self._most)


def best_known(seconds: Callable[[int], float | None], most: int) -> int | None:
    """Return the smallest size whose throughput is within `LEAST_GAIN` of the best; None if nothing
    is known.

    Parameters
    ----------
    seconds : callable
        Predicts the seconds of a batch of so many items; None: not known.
    """
    rates: dict[int, float] = {}
    size = 1
    while size <= most:
        predicted = seconds(size)
        if predicted:
            rates[size] = size / predicted
        size *= 2
    if not rates:
        return None
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate * LEAST_GAIN >= best)
