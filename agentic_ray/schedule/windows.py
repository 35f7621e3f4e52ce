"""Chooses the ready bundles that a policy is asked about at once."""

from __future__ import annotations

import math
from typing import Final

from agentic_ray.graph.task import CARD
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.ready import ReadyQueue
from agentic_ray.schedule.records import Record, urgency
from agentic_ray.schedule.view import ClusterView

MAX_WINDOW: Final = 1024
"""Most ready bundles offered to a policy at once."""
LEAST_WINDOW: Final = 64
"""Number of bundles offered to a policy that plans ahead, as long as so many are ready."""
PLANNED_PER_SLOT: Final = 32
"""Most bundles planned ahead, over all executors."""


def window_with_room(queues: Queues, view: ClusterView) -> dict[str, Record]:
    """Take the most urgent ready bundles that have room somewhere, by key, most urgent first."""
    window: dict[str, Record] = {}
    for (kinds, opaque, where), queue in queues.lanes.items():
        if CARD in kinds:
            continue  # `cards` places these
        room = view.room(kinds, opaque, where) if queue else 0
        queue.fill(window, min(room, MAX_WINDOW))
    ordered = sorted(window.values(), key=urgency)
    return {record.bundle.key: record for record in ordered}


def window_ahead(queues: Queues, view: ClusterView, planned: int) -> dict[str, Record]:
    """Take the most urgent ready bundles, by key, while an executor has nothing planned, or while
    ready bundles are more urgent than the ``planned`` ones."""
    chosen: list[ReadyQueue] = []
    pools = view.pools
    for (kinds, _, where), queue in queues.lanes.items():
        if not queue or CARD in kinds:
            continue
        head = queue.head
        urgent = head is not None and head[0] < queues.planned_until
        if where:
            suiting = view.suiting(kinds, where)
            if any(e in e.pool.hungry or (urgent and not e.silent) for e in suiting):
                chosen.append(queue)
            continue
        for kind in kinds:
            if kind in pools and (pools[kind].hungry or (urgent and pools[kind].usable)):
                chosen.append(queue)
                break
    if not chosen:
        return {}
    hungry = sum([len(pool.hungry) for pool in pools.values()])
    slots = sum([pool.slots for pool in pools.values()])
    size = min(
        MAX_WINDOW,
        max(LEAST_WINDOW, 2 * hungry, slots // 4),
        PLANNED_PER_SLOT * slots - planned,
    )
    window: dict[str, Record] = {}
    while len(window) < size and len(chosen) > 1:
        queue = min(chosen, key=_head)
        if queue.take(window) is None:
            chosen.remove(queue)
    if len(window) < size:
        chosen[0].fill(window, size - len(window))
    return window


def _head(queue: ReadyQueue) -> tuple[float, int]:
    return queue.head or (math.inf, 0)
