"""The ready bundles of one lane, most urgent first. A queue only; `placing` decides which are
offered.

A graph may make very many bundles ready at once. They are sorted once and stand in the queue as one
entry, under the most urgent bundle that is left of them. So taking the next bundle costs O(log n)
of the number of graphs and of bundles that came singly.
"""

from __future__ import annotations

import heapq

from agentic_ray.schedule.records import Graph, Record

_Entry = tuple[float, int, "Record | Fresh"]
"""Entries are sorted by order, then by the id of the bundle, which no two entries share."""


class Fresh:
    """Bundles of one graph that need no value and have no record yet.

    Parameters
    ----------
    ids : list of int
        In ascending order.
    """

    __slots__ = ("graph", "ids")

    def __init__(self, graph: Graph, ids: list[int]) -> None:
        traits, first = graph.traits, graph.first_id
        self.graph = graph
        if len({traits[i - first].order for i in ids}) > 1:
            ids = sorted(ids, key=lambda i: traits[i - first].order)
        self.ids = ids
        ids.reverse()  # the most urgent bundle last

    def entry(self) -> _Entry:
        """Return the queue entry of these bundles, under the most urgent one."""
        bundle_id = self.ids[-1]
        return self.graph.traits[bundle_id - self.graph.first_id].order, bundle_id, self

    def rest(self) -> _Entry | None:
        """Drop the most urgent bundle; return the entry of the rest, None if none is left."""
        self.ids.pop()
        self.graph.untaken -= 1
        return self.entry() if self.ids else None

    def move(self, window: dict[str, Record], most: int) -> int:
        """Move up to ``most`` bundles into ``window``, under their keys. Stop before a bundle that
        is no longer ready or whose key is there already. Return how many moved."""
        ids, graph = self.ids, self.graph
        moved = 0
        for bundle_id in reversed(ids[-most:]):
            record = graph.record(bundle_id)
            key = record.bundle.key
            if record.missing or record.done or graph.over or key in window:
                break
            window[key] = record
            moved += 1
        del ids[len(ids) - moved :]
        graph.untaken -= moved
        return moved


class ReadyQueue:
    """The queue (see the module). Some entries may no longer be ready: done, short of an input, or
    of a graph that is over. `take` drops those."""

    __slots__ = ("_heap", "_length")

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, record: Record) -> None:
        self._length += 1
        heapq.heappush(self._heap, (record.order, record.bundle_id, record))

    def add(self, fresh: Fresh) -> None:
        """Add bundles that became ready at once."""
        self._length += len(fresh.ids)
        fresh.graph.untaken += len(fresh.ids)
        heapq.heappush(self._heap, fresh.entry())

    @property
    def graphs(self) -> set[Graph]:
        """Graphs that have bundles in the queue."""
        return {what.graph for _, _, what in self._heap}

    @property
    def head(self) -> tuple[float, int] | None:
        """Order and id of the most urgent bundle; None if there is none."""
        return self._heap[0][:2] if self._heap else None

    def take(self, window: dict[str, Record]) -> Record | None:
        """Move the most urgent bundle into ``window``, under its key.

        Return None if there is none, or if its key is there already: the same work for another
        graph.
        """
        heap = self._heap
        while heap:
            _, bundle_id, what = heap[0]
            record = what.graph.record(bundle_id) if isinstance(what, Fresh) else what
            stale = record.missing or record.done or record.graph.over
            key = record.bundle.key
            if not stale and key in window:
                return None
            self._length -= 1
            rest = what.rest() if isinstance(what, Fresh) else None
            if rest is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, rest)
            if not stale:
                window[key] = record
                return record
            record.queued = False
        return None

    def fill(self, window: dict[str, Record], most: int) -> None:
        """Call `take` ``most`` times, or until it returns None."""
        heap = self._heap
        if most and len(heap) == 1 and isinstance(fresh := heap[0][2], Fresh):
            moved = fresh.move(window, most)
            self._length -= moved
            most -= moved
            if fresh.ids:
                heap[0] = fresh.entry()
            else:
                heap.clear()
        while most and self.take(window) is not None:
            most -= 1

    def withdraw(self, graph: Graph) -> None:
        """Forget the bundles of a graph."""
        kept = [entry for entry in self._heap if entry[2].graph is not graph]
        if len(kept) < len(self._heap):
            heapq.heapify(kept)
            self._heap = kept
            self._length = sum(
                len(what.ids) if isinstance(what, Fresh) else 1 for _, _, what in kept
            )
