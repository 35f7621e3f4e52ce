"""Nodes that get less work than they offer, or none: silent, short of memory, or held by others."""

from __future__ import annotations

from dataclasses import replace

from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import MemoryUse, Telemetry
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.pressure import Pressure
from agentic_ray.schedule.scarcity import Scarcity
from agentic_ray.telemetry.health import is_silent


class Restraint:
    """Applies silence, `Pressure` and `Scarcity` to the executors of nodes.

    Parameters
    ----------
    report_seconds : float
        Time between two reports of a node.
    """

    def __init__(self, books: Books, plans: Plans, report_seconds: float) -> None:
        self.scarcity = Scarcity()
        self._pressure = Pressure()
        self._books = books
        self._view = books.view
        self._plans = plans
        self._report_seconds = report_seconds

    def observe(self, event: Telemetry) -> None:
        """Keep the newest figures; a node that went silent gets no new work until it reports.

        Bundles that the node is running are left to it: it may only be slow to answer, and if it is
        dead Ray will say so. Bundles planned for it go elsewhere.
        """
        self._view.state = event.cluster
        silent = {
            node.node_id
            for node in event.cluster.nodes
            if is_silent(node.heartbeat_age_seconds, self._report_seconds)
        }
        self.scarcity.observe(event.cluster, event.time)
        silent |= self.scarcity.node_ids
        for executor in self._view.executors.values():
            if executor.silent != (executor.node_id in silent):
                executor.silent = not executor.silent
                self._plans.take_back(executor)

    def wake_rested(self) -> None:
        """Use nodes again that have rested long enough."""
        for node_id in self.scarcity.elapse(self._view.now_seconds):
            for executor in self._view.rows.get(node_id, ()):
                executor.silent = False
                self._plans.take_back(executor)

    def cut(self, node_id: str, at_once: int, sent_seconds: float) -> None:
        """Run fewer bundles at once on a node whose memory ran out under ``at_once`` of them."""
        if self._pressure.cut(node_id, at_once, sent_seconds, self._view.now_seconds):
            self._limit_slots(node_id)

    def rest(self, node_id: str, use: MemoryUse) -> None:
        """Give nothing new to a node whose memory others hold, and its planned bundles to others'
        nodes."""
        self.scarcity.killed(node_id, use, self._view.now_seconds)
        for executor in self._view.rows.get(node_id, ()):
            if not executor.silent:
                executor.silent = True
                self._plans.take_back(executor)

    def allowed(self, node_id: str, offered: int) -> int:
        """Return how many of the slots that a node's CPU offers are used."""
        return self._pressure.allowed(node_id, offered)

    def ease(self) -> None:
        """Let nodes run more again that have been calm for a while."""
        for node_id in self._pressure.ease(self._view.now_seconds):
            self._limit_slots(node_id)

    def forget(self, node_id: str) -> None:
        """Forget a node that is gone."""
        self._pressure.forget(node_id)
        self.scarcity.forget(node_id)

    def _limit_slots(self, node_id: str) -> None:
        """Give a node's CPU as many slots as its `Pressure` allows."""
        executor = self._view.executors.get((node_id, "cpu"))
        if executor is not None:
            executor.offer = replace(executor.offer, slots=self._pressure.allowed(node_id))
            self._books.touch(executor)
