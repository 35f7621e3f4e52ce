"""Measured rates of the network between nodes, in the form that placing asks for."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_ray.telemetry.bandwidth import BandwidthMeter

_ODD = 2.0
"""A link counts as odd if it is this many times quicker or slower than its source's others."""
_LEAST = 3
"""With fewer transfers, a source has no rate yet: the first may have waited for something else."""
_FIRST = 16
_EVERY = 8
"""Each of the first transfers of a source changes its estimate, then one in so many."""
_ANY = ""


class Links:
    """Bytes a second between nodes, from transfers that happened anyway.

    Rates are kept for every source (to anywhere), for all sources together, and for the odd links
    of a source, so that placing asks for one figure a source and few exceptions.
    """

    def __init__(self) -> None:
        self._meter = BandwidthMeter()
        self._rates: dict[str, float] = {}
        self._odd: dict[str, dict[str, float]] = {}
        self._counts: dict[str, int] = {}

    def record(self, source: str, destination: str, size_bytes: int, seconds: float) -> None:
        """Note a transfer; one too quick to be timed is dropped.

        Raises
        ------
        InvalidArgumentError
            A negative or not finite figure.
        """
        if not (size_bytes and seconds):
            return
        count = self._counts[source] = self._counts.get(source, 0) + 1
        for pair in ((source, destination), (source, _ANY), (_ANY, _ANY)):
            self._meter.record(*pair, size_bytes, seconds)
        if count < _LEAST or (count > _FIRST and count % _EVERY):
            return
        for name in (source, _ANY):
            self._rates[name] = self._meter.bytes_per_second(name, _ANY) or 0.0
        usual = self._rates[source]
        rate = self._meter.bytes_per_second(source, destination) or usual
        odd = self._odd.setdefault(source, {})
        if usual / _ODD < rate < usual * _ODD:
            odd.pop(destination, None)
        else:
            odd[destination] = rate
        if not odd:
            del self._odd[source]

    def bytes_per_second(self, source: str, destination: str = _ANY) -> float | None:
        """Return the rate expected from ``source``; None before any transfer was seen."""
        if not self._rates:
            return None
        odd = self._odd.get(source)
        if odd and destination in odd:
            return odd[destination]
        return self._rates.get(source) or self._rates[_ANY]

    @property
    def any_odd(self) -> bool:
        """Whether any source has links unlike its others."""
        return bool(self._odd)

    def odd(self, source: str) -> Iterable[str]:
        """Return the nodes to which ``source`` sends much quicker or slower than to others."""
        return self._odd.get(source, ())

    def forget(self, node_id: str) -> None:
        """Drop the rates of a node that left."""
        self._meter.forget(node_id)
        for known in (self._rates, self._odd, self._counts):
            known.pop(node_id, None)
        for odd in self._odd.values():
            odd.pop(node_id, None)
        self._odd = {source: odd for source, odd in self._odd.items() if odd}
