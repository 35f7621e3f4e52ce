"""The ready bundles of one lane, most urgent first. A queue only; what is offered is `placing`'s.

A graph may make very many bundles ready at once, which are sorted once; what becomes ready later
one by one is kept in a heap. So taking the next one costs O(1) or O(log n) of what came singly.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain

from agentic_ray.schedule.records import Graph, Record, urgency


class ReadyQueue:
    """See the module. Some may be ready no more, being done, short of an input, or of a graph that
    is over; `take` drops those."""

    __slots__ = ("_batch", "_heap")

    def __init__(self) -> None:
        self._batch: list[Record] = []  # the most urgent last
        self._heap: list[tuple[float, int, Record]] = []

    def __len__(self) -> int:
        return len(self._batch) + len(self._heap)

    def __iter__(self) -> Iterator[Record]:
        return chain(self._batch, (record for _, _, record in self._heap))

    def push(self, record: Record) -> None:
        heapq.heappush(self._heap, (record.order, record.bundle_id, record))

    def extend(self, records: list[Record]) -> None:
        """Add what became ready at once."""
        if len(records) <= len(self):  # so that few among many are not paid for by all
            for record in records:
                self.push(record)
            return
        self._batch += [record for _, _, record in self._heap]
        self._batch += records
        self._batch.sort(key=urgency, reverse=True)
        self._heap.clear()

    def _next(self) -> tuple[Record, bool] | None:
        """The most urgent one, and whether it is of the heap."""
        batch, heap = self._batch, self._heap
        if not heap:
            return (batch[-1], False) if batch else None
        if batch and urgency(batch[-1]) < heap[0][:2]:
            return batch[-1], False
        return heap[0][2], True

    @property
    def head(self) -> Record | None:
        """The most urgent one, None if there is none."""
        found = self._next()
        return found[0] if found else None

    def take(self, keys: set[str]) -> Record | None:
        """Remove the most urgent bundle and add its key to ``keys``.

        None if there is none, or if its key is among them: the same work for another graph.
        """
        while found := self._next():
            record, of_heap = found
            stale = record.missing or record.done or record.graph.over
            key = record.bundle.key
            if not stale and key in keys:
                return None
            if of_heap:
                heapq.heappop(self._heap)
            else:
                self._batch.pop()
            if not stale:
                keys.add(key)
                return record
            record.queued = False
        return None

    def withdraw(self, graph: Graph) -> None:
        """Forget the bundles of a graph."""
        self._batch = [record for record in self._batch if record.graph is not graph]
        kept = [entry for entry in self._heap if entry[2].graph is not graph]
        if len(kept) < len(self._heap):
            heapq.heapify(kept)
            self._heap = kept

    def clear(self) -> None:
        self._batch.clear()
        self._heap.clear()
