"""Times what Ray takes to bring inputs from node to node, from the calls that need them anyway."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentic_ray.runtime.execute import Report
from agentic_ray.schedule.events import Location, Transfer

LEAST_BYTES: Final = 4 << 20
"""Less than this says more of latency than of the network."""
_NO_WAIT_SECONDS: Final = 1e-3

Key = tuple[str, str]
"""Graph id and key of a value."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What Ray moves for one call, all of it from one node to another."""

    source: str
    destination: str
    size_bytes: int


class Copies:
    """Knows to which nodes values were moved: Ray keeps what it has moved, so only the first
    way of a value to a node takes time."""

    def __init__(self) -> None:
        self._nodes: dict[Key, set[str]] = {}

    def send(self, node_id: str, inputs: Iterable[tuple[Key, Location]]) -> Moved | None:
        """Note that these inputs go to ``node_id``; what is moved for that, if it can be timed."""
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
        """The value is gone."""
        self._nodes.pop(key, None)


def timed(
    moved: Moved | None, report: Report, round_trip_seconds: float, overhead_seconds: float
) -> tuple[Transfer, ...]:
    """The transfer that was part of a call, if nothing else was waited for.

    What is left of the round trip without what ran and what a call takes by itself: Ray brings
    the inputs before it enters the executor.

    Parameters
    ----------
    round_trip_seconds : float
        From sending the call to its answer.
    overhead_seconds : float
        Of a call without inputs.
    """
    if moved is None or report.waited_seconds > _NO_WAIT_SECONDS or report.ray_attempt:
        return ()
    seconds = round_trip_seconds - report.seconds - report.waited_seconds - overhead_seconds
    if seconds <= 0 or report.node_id != moved.destination:
        return ()
    return (Transfer(moved.source, moved.destination, moved.size_bytes, seconds),)
