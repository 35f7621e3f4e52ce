"""The queues of ready bundles, one a lane, and whether a bundle there goes before planned ones."""

from __future__ import annotations

from typing import Final

from agentic_ray.schedule.ready import Fresh, ReadyQueue
from agentic_ray.schedule.records import Graph, Lane, Record

FIRST: Final = float("-inf")
"""Order that comes before every other."""


class Queues:
    """Ready bundles by lane.

    Attributes
    ----------
    lanes : dict
        The queue of each lane that ever had a bundle.
    asks_for_nodes : bool
        Whether some work ever asked for certain nodes.
    planned_until : float
        Order of the least urgent planned bundle, `FIRST` if none is planned.
    maybe_urgent : bool
        False where no ready bundle goes before a planned one; True where `is_urgent` has to look.
    """

    def __init__(self) -> None:
        self.lanes: dict[Lane, ReadyQueue] = {}
        self.asks_for_nodes = False
        self.planned_until = FIRST
        self.maybe_urgent = False

    def offer(self, record: Record) -> None:
        """Put a bundle among the ready ones if it is ready."""
        if record.missing or record.done or record.queued or record.running:
            return
        record.queued = True
        if record.order < self.planned_until:
            self.maybe_urgent = True
        self._queue(record.lane).push(record)

    def add(self, graph: Graph, ready: dict[Lane, list[int]]) -> None:
        """Add the bundles of a new graph that need no value, by lane."""
        self.maybe_urgent = True
        for lane, ids in ready.items():
            self._queue(lane).add(Fresh(graph, ids))

    def _queue(self, lane: Lane) -> ReadyQueue:
        queue = self.lanes.get(lane)
        if queue is None:
            queue = self.lanes[lane] = ReadyQueue()
            self.asks_for_nodes = self.asks_for_nodes or bool(lane[2])
        return queue

    def withdraw(self, graph: Graph) -> None:
        """Remove the bundles of a graph that is over."""
        for queue in self.lanes.values():
            queue.withdraw(graph)

    def is_urgent(self) -> bool:
        """Whether a ready bundle goes before a planned one."""
        if self.maybe_urgent:  # unknown since something was offered or planned
            until = self.planned_until
            self.maybe_urgent = any(
                queue.head is not None and queue.head[0] < until for queue in self.lanes.values()
            )
        return self.maybe_urgent
