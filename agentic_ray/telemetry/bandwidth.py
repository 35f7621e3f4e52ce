"""Network bandwidth between nodes, estimated from transfers that happened anyway. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from agentic_ray.errors import InvalidArgumentError


class BandwidthMeter:
    """Meter that keeps the last transfers of each pair of nodes and estimates bytes per second.

    The estimate is the weighted median of the observed rates: robust against a transfer that
    waited for something else. A transfer weighs by its bytes, since short ones measure latency,
    and loses a tenth of its weight with each later one, so that a changed network is noticed.

    Parameters
    ----------
    window : int
        Transfers kept per pair.
    decay : float
        Factor on the weight of a transfer for each later one, in (0, 1].
    max_pairs : int
        Pairs kept; the one unused for longest goes first.
    """

    def __init__(self, window: int = 32, decay: float = 0.9, max_pairs: int = 65_536) -> None:
        if window < 1 or max_pairs < 1 or not 0 < decay <= 1:
            raise InvalidArgumentError(
                "window and max_pairs must be >= 1 and decay in (0, 1], "
                f"not {window!r}, {max_pairs!r}, {decay!r}"
            )
        self._window = window
        self._decay = decay
        self._max_pairs = max_pairs
        self._transfers: OrderedDict[tuple[str, str], deque[tuple[float, int]]] = OrderedDict()

    def record(self, source: str, destination: str, size_bytes: int, seconds: float) -> None:
        """Note a transfer. A transfer of no bytes, or too quick to be timed, tells nothing and is
        dropped.

        Raises
        ------
        InvalidArgumentError
            A negative or not finite figure.
        """
        if not (0 <= size_bytes < math.inf and 0 <= seconds < math.inf):
            raise InvalidArgumentError(
                f"a transfer needs bytes and seconds >= 0, not {size_bytes!r} and {seconds!r}"
            )
        if size_bytes == 0 or seconds == 0:
            return
        pair = (source, destination)
        transfers = self._transfers.setdefault(pair, deque(maxlen=self._window))
        transfers.append((size_bytes / seconds, size_bytes))
        self._transfers.move_to_end(pair)
        if len(self._transfers) > self._max_pairs:
            self._transfers.popitem(last=False)

    def bytes_per_second(self, source: str, destination: str) -> float | None:
        """Return the estimate for this direction; None when no transfer was seen."""
        transfers = self._transfers.get((source, destination))
        if not transfers:
            return None
        weighted = sorted(
            (rate, size * self._decay**age) for age, (rate, size) in enumerate(reversed(transfers))
        )
        half = sum(weight for _, weight in weighted) / 2
        for rate, weight in weighted:
            half -= weight
            if half <= 0:
                return rate
        return weighted[-1][0]  # rounding left a rest

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the (source, destination) pairs with an estimate."""
        return tuple(self._transfers)

    def forget(self, node_id: str) -> None:
        """Drop all pairs of a node that left."""
        for pair in [pair for pair in self._transfers if node_id in pair]:
            del self._transfers[pair]
