"""The rest of a graph, for a policy that plans graphs as a whole."""

from __future__ import annotations

import math

from agentic_ray.schedule import ahead
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import Location
from agentic_ray.schedule.records import Record
from agentic_ray.schedule.view import LONG_SECONDS, Executor


def most_ahead(books: Books) -> int:
    """Return how many bundles a plan of a whole graph may have; 0: no plan is made."""
    typical = books.model.typical_seconds
    if typical <= LONG_SECONDS:
        return 0
    return ahead.most_bundles(sum(pool.slots for pool in books.view.pools.values()), typical)


def upcoming(
    books: Books, window: dict[str, Record], values: dict[str, Location]
) -> ahead.Upcoming | None:
    """Return the rest of the graph of ``window``, if it can be planned as a whole. The values that
    the rest takes as inputs are added to ``values``."""
    offered = set(window.values())
    graph = next(iter(window.values())).graph
    most = most_ahead(books) if graph.sequence else 0
    if not most or any(record.graph is not graph for record in offered):
        return None
    left = [
        record
        for record in graph.sequence
        if not (record.done or record.running) and (record.missing or record in offered)
    ][:most]
    picky = any(r.resources.cpus > 1 or r.resources.memory_bytes or r.resources.where for r in left)
    if picky or not any(record.missing for record in left):
        return None
    for record in left:
        for key in record.bundle.inputs:
            if key in graph.values:
                values[key] = graph.values[key]
    now = books.view.now_seconds
    coming: dict[str, ahead.Arrival] = {}
    busy: dict[Executor, list[float]] = {}
    for attempt in books.attempts.values():
        if attempt.process == "function":
            continue  # it runs beside the bundles that are planned
        expected = attempt.ends_at(now)
        busy.setdefault(attempt.executor, []).append(expected)
        if attempt.record.graph is graph and expected < math.inf:
            bundle = attempt.record.bundle
            transfer = books.model.output_transfer_seconds(bundle)
            for key in bundle.outputs:
                if key not in coming or expected < coming[key][1]:  # of two copies the first
                    coming[key] = (attempt.executor.node_id, expected, transfer)
    return ahead.Upcoming(tuple(record.bundle for record in left), coming, busy)
