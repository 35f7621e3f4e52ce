"""Placement as in other systems, to compare with in the simulator; no policies for users."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.view import ClusterView, Executor


def _placed(bundle: Bundle, executor: Executor, reason: str) -> Placement:
    return Placement(bundle.key, executor.node_id, executor.device, None, None, reason)


class RayHybrid:
    """Ray's default policy: pack nodes in a fixed order up to half their slots, then spread.

    It knows nothing of speeds, and sends nothing ahead.

    Parameters
    ----------
    on_gpu : frozenset of str or None
        Codelets whose tasks ask for a GPU; the others ask for a CPU, since a Ray task names the
        kind of device once and for all. None, kinder than Ray: a task takes any device that is free
        first.
    """

    threshold = 0.5

    def __init__(self, on_gpu: frozenset[str] | None) -> None:
        self.name = "first_free" if on_gpu is None else "ray_hybrid"
        self._on_gpu = on_gpu

    def _kinds(self, bundle: Bundle, cluster: ClusterView) -> tuple[str, ...]:
        kinds = bundle.kinds()
        if self._on_gpu is None or len(kinds) == 1:
            return kinds
        wants_gpu = bundle.tasks[0].codelet.name in self._on_gpu and "gpu" in cluster.pools
        return ("gpu",) if wants_gpu else ("cpu",)

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        placements: list[Placement] = []
        added: dict[Executor, int] = {}
        free = [e for e in cluster.with_room(("cpu", "gpu")) if e.in_flight < e.slots]
        free.sort(key=lambda executor: executor.order)
        for bundle in ready:
            kinds = self._kinds(bundle, cluster)
            usable = [
                e for e in free if e.kind in kinds and e.in_flight + added.get(e, 0) < e.slots
            ]
            if not usable:
                continue
            used = {e: (e.in_flight + added.get(e, 0)) / e.slots for e in usable}
            packed = next((e for e in usable if used[e] < self.threshold), None)
            executor = packed or min(usable, key=lambda e: (used[e], e.order))
            added[executor] = added.get(executor, 0) + 1
            placements.append(_placed(bundle, executor, "packed" if packed else "spread"))
        return placements


class RoundRobin:
    """The next bundle to the next device that can run it, busy or not."""

    name = "round_robin"
    plans_ahead = True

    def __init__(self) -> None:
        self._next = 0
        self._given: dict[str, Executor] = {}

    def order(self, priority: int, rank_seconds: float, submitted_seconds: float) -> float:
        return float(-priority)

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        executors = cluster.of_kinds(("cpu", "gpu"))
        placements: list[Placement] = []
        for bundle in ready:
            executor = self._given.get(bundle.key)
            if executor is None or not executor.healthy:
                kinds = bundle.kinds()
                usable = [e for e in executors if e.kind in kinds]
                executor = self._given[bundle.key] = usable[self._next % len(usable)]
                self._next += 1
            placements.append(_placed(bundle, executor, "its turn"))
        return placements


def baseline(name: str, accelerated: frozenset[str]) -> Policy | None:
    """Return the policy of this name to compare with, for a workload of these GPU codelets."""
    if name == "round_robin":
        return RoundRobin()
    if name in ("ray_hybrid", "first_free"):
        return RayHybrid(accelerated if name == "ray_hybrid" else None)
    return None
