"""Bundles that a policy placed on executors which have no room for them yet."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Final

from agentic_ray.schedule.books import Books
from agentic_ray.schedule.placement import Placement, new_tuple
from agentic_ray.schedule.queues import FIRST, Queues
from agentic_ray.schedule.records import Graph, Record, urgency
from agentic_ray.schedule.starting import Starter
from agentic_ray.schedule.view import Executor

REPLAN_CREDIT: Final = 1
"""Planned bundles that may be placed anew for each event; this bounds the cost a task."""
REPLAN_CREDIT_PER_SECOND: Final = 400.0
"""Further planned bundles that an event may have placed anew, for each second that usually passes
between two ends of bundles on the cluster."""


class Plans:
    """Planned bundles: kept for their executors, started when these have room, or taken back.

    Attributes
    ----------
    count : int
        Number of planned bundles.
    planning : dict
        Executors with planned bundles.
    """

    def __init__(self, books: Books, queues: Queues, starter: Starter) -> None:
        self.count = 0
        self.planning: dict[Executor, None] = {}
        self._books = books
        self._view = books.view
        self._queues = queues
        self._starter = starter
        self._credit = 0.0
        self._events = 0

    def keep_up(self) -> bool:
        """Start planned bundles that have room now; return False if ready bundles are to be offered
        to the policy, because an executor has nothing to do or a ready bundle is more urgent."""
        books, queues = self._books, self._queues
        self._events += 1
        if not (queues.maybe_urgent and queues.is_urgent()):
            while books.touched:
                self.start()
            if books.dirty:
                books.bring_up_to_date()
            if not self._is_hungry():
                return True  # all executors have enough to do, as most of the time
        books.bring_up_to_date()
        self._replan()
        return False

    def add(
        self,
        placements: Sequence[Placement],
        records: Sequence[Record],
        places: Sequence[Executor],
    ) -> None:
        """Keep bundles for executors until these have room."""
        books, queues = self._books, self._queues
        until = queues.planned_until
        for placement, record, executor in zip(placements, records, places, strict=True):
            begin, end = placement[3], placement[4]
            if begin is None or end is None:
                seconds = books.usual_seconds(executor)
            else:
                seconds = end - begin
            record.plan = tuple(placement)
            record.plan_seconds = seconds
            planned = executor.plan.bundles
            if planned and urgency(planned[-1]) > urgency(record):
                insort(planned, record, key=urgency)
            else:
                planned.append(record)
            executor.plan.seconds += seconds
            if record.order > until:
                until = record.order
        for executor in dict.fromkeys(places):
            self.planning[executor] = None
            if executor.counted[0] or executor in books.dirty:
                books.touched[executor] = None  # it has room: a planned bundle may be started
            executor.pool.plan(executor)
        self.count += len(placements)
        if until > queues.planned_until:
            queues.planned_until = until
            queues.maybe_urgent = True

    def start(self) -> bool:
        """Start planned bundles where things changed and there is room; return whether any
        moved."""
        books, offer = self._books, self._queues.offer
        start_if_admitted = self._starter.start_if_admitted
        moved = False
        touched, books.touched = books.touched, {}
        for executor in touched:
            planned = executor.plan.bundles
            room = executor.room()
            while planned and room:
                record = planned[0]
                stale = record.graph.over or record.missing or record.done
                if record.plan is not None and not stale:
                    placement = new_tuple(Placement, record.plan)
                    started = start_if_admitted(record, placement, executor, room, set())
                    if not started and executor.kind in record.lane[0]:
                        break  # it waits here, and less urgent bundles wait behind it
                del planned[0]
                executor.plan.seconds -= record.plan_seconds
                self.count -= 1
                record.plan = None
                record.queued = False
                if not stale and not record.running:
                    offer(record)  # it runs on a CPU instead
                room = executor.room()
                moved = True
            if not planned and executor in self.planning:
                executor.plan.seconds = 0.0  # no drift from rounding
                del self.planning[executor]
            if executor.healthy:
                executor.pool.update(executor, room)
                books.dirty.pop(executor, None)
        return moved

    def take_back(self, executor: Executor) -> None:
        """Make the bundles planned for an executor ready again."""
        for record in executor.plan.bundles:
            record.queued = False
            record.plan = None
            if not record.graph.over:
                self._queues.offer(record)
        self.count -= len(executor.plan.bundles)
        self.planning.pop(executor, None)
        executor.plan.bundles.clear()
        executor.plan.seconds = 0.0
        self._books.touch(executor)

    def withdraw(self, graph: Graph) -> None:
        """Take back the plans of executors that were to run bundles of a graph that is over."""
        for executor in list(self.planning):
            if any(record.graph is graph for record in executor.plan.bundles):
                self.take_back(executor)

    def renew(self) -> None:
        """Note that all plans may be better off elsewhere: devices have come."""
        self._credit = self.count

    def _replan(self) -> None:
        """Take back all plans, to be made anew, if that promises a gain.

        A new plan gains when an executor has nothing to do and nothing else is ready: it moves work
        from slow or busy executors to idle or new ones. It also gains when bundles more urgent than
        the planned became ready. Every event pays for a few bundles, so that the cost a task is
        bounded.
        """
        if not self.count:
            return
        queues = self._queues
        self._credit = min(self._credit + self._events * self._credit_per_event(), self.count)
        self._events = 0
        if self._credit < self.count:
            return
        if not queues.is_urgent() and (any(queues.lanes.values()) or not self._is_hungry()):
            return
        self._credit -= self.count
        for executor in list(self.planning):
            self.take_back(executor)
        queues.planned_until = FIRST

    def _credit_per_event(self) -> float:
        slots = sum([pool.slots for pool in self._view.pools.values()])
        typical = self._books.model.typical_seconds
        return REPLAN_CREDIT + REPLAN_CREDIT_PER_SECOND * typical / max(slots, 1)

    def _is_hungry(self) -> bool:
        """Whether an executor has room and nothing planned."""
        for pool in self._view.pools.values():  # at every event, where `any` takes twice as long
            if pool.hungry:
                break
        else:
            return False
        return True
