"""Memory that functions come to hold on a card, as NVML saw it, by function and batch. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MARGIN: Final = 1.05
"""Memory planned for a call over the most that was seen at its size of batch."""
MOST_FUNCTIONS: Final = 1024
"""Most functions remembered: those observed last."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Most bytes that a process of a function was seen to hold, called with up to ``items``."""

    function: str
    items: int
    size_bytes: int


class DevicePeaks:
    """Peaks seen, by function and by powers of two of the number of items."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, int]] = {}

    def observe(self, function: str, items: int, size_bytes: int) -> None:
        """Note that a process held ``size_bytes`` when called with ``items``; figures that are none
        are ignored."""
        if items < 1 or size_bytes < 1:
            return
        peaks = self._seen.pop(function, {})
        self._seen[function] = peaks  # as the newest
        size = _class_of(items)
        peaks[size] = max(peaks.get(size, 0), size_bytes)
        if len(self._seen) > MOST_FUNCTIONS:
            del self._seen[next(iter(self._seen))]

    def need_bytes(self, function: str, items: int, declared_bytes: int = 0) -> int:
        """Return the memory to plan for a call: the declared until something was seen; 0: unknown.

        Beyond the largest batch seen, the need is taken to grow in proportion, up to what is
        declared.
        """
        peaks = self._seen.get(function)
        if not peaks:
            return declared_bytes
        size = _class_of(items)
        larger = [at for at in peaks if at >= size]
        if larger:
            return int(peaks[min(larger)] * MARGIN)
        largest = max(peaks)
        seen = int(peaks[largest] * MARGIN)
        grown = int(seen * (size / largest))
        return max(seen, min(grown, declared_bytes)) if declared_bytes else grown

    def knowledge(self) -> list[Peak]:
        """Return everything known, for a store."""
        return [
            Peak(function, items, size)
            for function, peaks in self._seen.items()
            for items, size in sorted(peaks.items())
        ]

    def learn(self, known: Iterable[Peak]) -> None:
        """Take in the knowledge of earlier sessions."""
        for one in known:
            self.observe(one.function, one.items, one.size_bytes)


def _class_of(items: int) -> int:
    return 1 << math.ceil(math.log2(items)) if items > 1 else 1
