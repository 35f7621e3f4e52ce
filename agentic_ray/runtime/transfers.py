"""Times how long Ray takes to bring inputs from node to node, on calls that need them anyway."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentic_ray.runtime.outcomes import Report
from agentic_ray.schedule.events import Location, Transfer

LEAST_BYTES: Final = 4 << 20
"""Smaller transfers tell more of latency than of the network."""
_NO_WAIT_SECONDS: Final = 1e-3

Key = tuple[str, str]
"""Graph id and key of a value."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that Ray moves for one call, all of them from one node to another."""

    source: str
    destination: str
    size_bytes: int


class Copies:
    """Record of the nodes to which values were moved: Ray keeps moved values, so only the first way
    of a value to a node takes time."""

    def __init__(self) -> None:
        self._nodes: dict[Key, set[str]] = {}

    def missing_bytes(self, node_id: str, inputs: Iterable[tuple[Key, Location]]) -> int:
        """Return the bytes of those inputs of which ``node_id`` has no copy yet."""
        return sum(
            info.size_bytes
            for key, info in inputs
            if info.node_id is not None and node_id not in self._nodes.get(key, {info.node_id})
        )

    def send(self, node_id: str, inputs: Iterable[tuple[Key, Location]]) -> Moved | None:
        """Note that these inputs go to ``node_id``; return the move, if it can be timed."""
        sources: set[str] = set()
        total = 0
        for key, info in inputs:
            if info.node_id is None:
                continue
            there = self._nodes.setdefault(key, {info.node_id})
            if node_id not in there:
                there.add(node_id)
                sources.add(info.node_id)
                total += info.size_bytes
        if len(sources) != 1 or total < LEAST_BYTES:
            return None
        return Moved(sources.pop(), node_id, total)

    def forget(self, key: Key) -> None:
        """Forget a value that is gone."""
        self._nodes.pop(key, None)


def timed(
    moved: Moved | None, report: Report, round_trip_seconds: float, overhead_seconds: float
) -> tuple[Transfer, ...]:
    """Return the transfer that was part of a call, if the call waited for nothing else.

    Its seconds are the round trip less the work and less a call by itself: Ray brings the inputs
    before it enters the executor.

    Parameters
    ----------
    round_trip_seconds : float
        Seconds from sending the call to its answer.
    overhead_seconds : float
        Seconds of a call without inputs.
    """
    if moved is None or report.waited_seconds > _NO_WAIT_SECONDS or report.ray_attempt:
        return ()
    seconds = round_trip_seconds - report.seconds - report.waited_seconds - overhead_seconds
    if seconds <= 0 or report.node_id != moved.destination:
        return ()
    return (Transfer(moved.source, moved.destination, moved.size_bytes, seconds),)
