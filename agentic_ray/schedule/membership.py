"""Nodes and devices that come and go."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

from agentic_ray.errors import ExecutorLostError
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.demand import Demand
from agentic_ray.schedule.events import GpuLost, NodeLost, NodeUp, Quarantine
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.leases import Leases
from agentic_ray.schedule.load import Offer
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.recovery import Recovery
from agentic_ray.schedule.restraint import Restraint
from agentic_ray.schedule.starting import Starter
from agentic_ray.schedule.view import Executor


class Membership:
    """Executors of nodes that join, are told anew, or are lost with all that was there."""

    def __init__(
        self,
        books: Books,
        plans: Plans,
        starter: Starter,
        graphs: Graphs,
        demand: Demand,
        leases: Leases,
        restraint: Restraint,
        recovery: Recovery,
    ) -> None:
        self._books = books
        self._view = books.view
        self._plans = plans
        self._starter = starter
        self._graphs = graphs
        self._demand = demand
        self._leases = leases
        self._restraint = restraint
        self._recovery = recovery
        self._executor_count = 0

    def node_up(self, event: NodeUp) -> None:
        """Take in a node, or its new devices and figures."""
        view, node_id = self._view, event.node.node_id
        self._leases.learn_links(event)
        view.awaited_gpus.pop(node_id, None)
        if event.awaited_gpus:
            view.awaited_gpus[node_id] = event.awaited_gpus
        fresh = {devices.device for devices in event.devices}
        for key in [k for k in view.executors if k[0] == node_id and k[1] not in fresh]:
            self._drop(view.executors[key], f"{key[1]} is gone from its node")
        for devices in event.devices:
            slots = devices.slots
            if devices.device == "cpu":
                slots = self._restraint.allowed(node_id, slots)
            offer = Offer(
                slots,
                devices.speed,
                devices.memory_bytes,
                devices.memory_total_bytes,
                event.node.labels,
                event.node.custom,
            )
            executor = view.executors.get((node_id, devices.device))
            if executor is None:
                executor = Executor(
                    node_id, devices.device, devices.kind, offer, self._executor_count
                )
                self._executor_count += 1
                executor.silent = self._restraint.scarcity.holds(node_id)
                view.add(executor)
            executor.offer = offer
            self._books.tell_speed(executor)
            self._books.touch(executor)
        self._plans.renew()

    def node_lost(self, event: NodeLost) -> None:
        """Forget a node; have the values made again that were there."""
        self._leases.forget_links(event.node_id)
        for key in [key for key in self._view.executors if key[0] == event.node_id]:
            self._drop(self._view.executors[key], event.reason)
        self._view.awaited_gpus.pop(event.node_id, None)
        self._restraint.forget(event.node_id)
        self._books.model.links.forget(event.node_id)
        for graph in self._books.graphs.values():
            lost = [k for k, info in graph.values.items() if info.node_id == event.node_id]
            if lost:
                self._demand.lose(graph, lost)

    def gpu_lost(self, event: GpuLost) -> None:
        """Forget a GPU; have the values made again of which the host has no copy."""
        place = (event.node_id, event.device)
        executor = self._view.executors.get(place)
        if executor is not None:
            self._drop(executor, event.reason)
            self._books.commands.append(Quarantine(event.node_id, event.device, event.reason))
        for graph in self._books.graphs.values():
            there = [k for k, info in graph.values.items() if (info.node_id, info.device) == place]
            lost = [key for key in there if (graph.graph_id, key) not in event.copied]
            for key in set(there).difference(lost):
                graph.values[key] = replace(graph.values[key], device=None)
            if lost:
                self._demand.lose(graph, lost)

    def _drop(self, executor: Executor, reason: str) -> None:
        """Forget an executor; bundles that ran there go elsewhere at once."""
        self._plans.take_back(executor)
        self._leases.lose(executor, reason)
        self._view.remove(executor)
        executor.healthy = False
        under_way = self._books.attempts_on(executor).items()
        for key, attempt in sorted(under_way, key=itemgetter(0)):
            attempt.record.losses += not attempt.cancelled
            attempt.record.begun = True
            self._graphs.cancel(key, attempt)
            self._starter.end(*key)
            self._recovery.retry(attempt.record, ExecutorLostError(reason))
