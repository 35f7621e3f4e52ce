"""Placement policies. Pure: they read a ClusterView and answer with Placements."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.predictive import Predictive
from agentic_ray.schedule.records import Lane

if TYPE_CHECKING:
    from agentic_ray.schedule.cost_model import CostModel
    from agentic_ray.schedule.view import ClusterView, Executor

AGEING_SECONDS = 60.0
"""Seconds of waiting that are worth one step of priority to the policy ``priority``."""


class LoadBalance:
    """Policy that sends each bundle to the executor with the fewest bundles a slot; near its inputs
    on a tie."""

    name = "load_balance"

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        placements: list[Placement] = []
        added: dict[Executor, int] = {}
        heaps: dict[Lane, list[tuple[float, int, Executor]]] = {}
        for bundle in ready:
            kinds, where = cluster.kinds_for(bundle), bundle.resources.where
            lane = (kinds, bundle.opaque, where)
            heap = heaps.get(lane)
            if heap is None:
                heap = heaps[lane] = [
                    (executor.load, executor.order, executor)
                    for executor in cluster.with_room(kinds)
                    if executor.suits(where)
                ]
                heapq.heapify(heap)
            executor = self._take(heap, bundle, cluster, added)
            if executor is not None:
                placements.append(self._placed(bundle, executor, cluster, model, added))
        return placements

    def _take(
        self,
        heap: list[tuple[float, int, Executor]],
        bundle: Bundle,
        cluster: ClusterView,
        added: dict[Executor, int],
    ) -> Executor | None:
        """Return the least loaded executor with room; among equals the one with most inputs."""
        local = cluster.local_bytes(bundle) if bundle.inputs else {}
        kept = cluster.device_bytes(bundle) if local else {}
        equals: list[tuple[float, int, Executor]] = []
        while heap and (not equals or (local and heap[0][0] <= equals[0][0])):
            load, order, executor = heapq.heappop(heap)
            extra = added.get(executor, 0)
            if executor.room(bundle.opaque) <= extra:
                continue  # full for the rest of this round
            current = (executor.in_flight + extra) / executor.slots
            if current > load:  # another lane's heap filled it meanwhile
                heapq.heappush(heap, (current, order, executor))
                continue
            equals.append((load, order, executor))
        if not equals:
            return None

        def near(item: tuple[float, int, Executor]) -> tuple[int, int, int]:
            node_id, device = item[2].node_id, item[2].device
            return local.get(node_id, 0), kept.get((node_id, device), 0), -item[1]

        best = max(equals, key=near)
        executor = best[2]
        added[executor] = added.get(executor, 0) + 1
        for load, order, other in equals:
            if other is executor:
                load = (executor.in_flight + added[executor]) / executor.slots
            heapq.heappush(heap, (load, order, other))
        return executor

    def _placed(
        self,
        bundle: Bundle,
        executor: Executor,
        cluster: ClusterView,
        model: CostModel,
        added: dict[Executor, int],
    ) -> Placement:
        before = executor.in_flight + added[executor] - 1
        reason = (
            f"least loaded {executor.kind} executor ({before} in flight on {executor.slots} slots)"
        )
        if bundle.tag == "gpu" and executor.kind == "cpu":
            reason += "; tagged gpu, but there is no usable GPU"
        predicted = model.predict_bundle(bundle, executor.kind)
        if predicted is None:
            return Placement(bundle.key, executor.node_id, executor.device, None, None, reason)
        start = cluster.now_seconds + executor.ready_in_seconds
        finish = start + predicted.seconds * cluster.slowness(executor)
        return Placement(bundle.key, executor.node_id, executor.device, start, finish, reason)


class Priority:
    """Policy of strict priority classes with ageing; in a class first come, first served. Bundles
    are placed as `LoadBalance` places them.

    Waiting ``AGEING_SECONDS`` counts as one step of priority, so nothing starves. A lower bundle
    overtakes a higher one only if it was submitted ``AGEING_SECONDS`` earlier for each step between
    them.
    """

    name = "priority"

    def __init__(self) -> None:
        self._by_load = LoadBalance()

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        return self._by_load.place(ready, cluster, model)

    def order(self, priority: int, rank_seconds: float, submitted_seconds: float) -> float:
        return submitted_seconds / AGEING_SECONDS - priority


_BUILT_IN: dict[str, type[Policy]] = {
    "load_balance": LoadBalance,
    "predictive": Predictive,
    "priority": Priority,
}


def get_policy(policy: str | Policy) -> Policy:
    """Return the policy of this name, or the policy object itself.

    Raises
    ------
    InvalidArgumentError
        The name is unknown, or the object has no ``place``.
    """
    if isinstance(policy, str):
        if policy not in _BUILT_IN:
            names = ", ".join(sorted(_BUILT_IN))
            raise InvalidArgumentError(f"unknown policy {policy!r}; there are: {names}")
        return _BUILT_IN[policy]()
    if not isinstance(policy, Policy):
        raise InvalidArgumentError(
            f"a policy needs a name and place(ready, cluster, model), {policy!r} has not"
        )
    return policy
