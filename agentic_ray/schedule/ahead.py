"""Planning whole graphs: bundles that are not ready yet get their time on a device too. Pure.

The policy ``predictive`` plans so where bundles are few and long enough to be worth the thought.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.ranks import mean_seconds, upward_ranks

if TYPE_CHECKING:
    from agentic_ray.schedule.cost_model import CostModel
    from agentic_ray.schedule.view import ClusterView, Executor

MOST_BUNDLES = 512
"""Larger graphs are not planned as a whole."""
MOST_AT_ONCE = 256
LEAST_AT_ONCE = 64
"""Number of bundles in a plan: with fewer a plan is no better than none."""
_STEP_SECONDS = 2e-6
"""Seconds, about, that finding a bundle's time on one slot takes."""
_SHARE = 0.02
"""Planning may take this share of the time between two slots of the cluster coming free."""
_TRANSFER_WEIGHTS = (1.0, 0.0, 2.0)
"""Ranks are computed with each of these weights on transfers; the shortest plan's are kept."""

Arrival = tuple[str | None, float, float]
"""Node where a value is or will be, the time from when, and the seconds to move it elsewhere."""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The part of a graph that a plan looks at: ready bundles and later ones.

    Parameters
    ----------
    sequence : tuple of Bundle
        Ready bundles and later ones, most urgent first; a bundle comes after those that it needs.
    coming : mapping
        Arrivals of the values that are being made, by key.
    busy : mapping
        Times at which the bundles under way are expected to end, by executor.
    """

    sequence: tuple[Bundle, ...]
    coming: Mapping[str, Arrival]
    busy: Mapping[Executor, Sequence[float]]


def most_bundles(slots: int, typical_seconds: float) -> int:
    """Return how many bundles a plan may have, so that planning costs little beside running them; 0
    if a plan would not be worth its cost."""
    if not slots:
        return 0
    most = int(_SHARE * typical_seconds / (_STEP_SECONDS * slots * slots))
    return min(most, MOST_AT_ONCE) if most >= max(LEAST_AT_ONCE, 4 * slots) else 0


def best_ranks(bundles: Sequence[Bundle], view: ClusterView, model: CostModel) -> list[float]:
    """Return the upward ranks of a graph, by the variant with the shortest plan; HEFT's on a tie.

    Parameters
    ----------
    bundles : sequence of Bundle
        In topological order.
    """
    seconds = mean_seconds(view, model)
    best: tuple[float, list[float]] | None = None
    nodes = max(len(view.rows), 1)
    for times in _TRANSFER_WEIGHTS:
        weight = times * (nodes - 1) / nodes  # the next bundle may be on the same node

        def transfer(bundle: Bundle, weight: float = weight) -> float:
            return weight * model.output_transfer_seconds(bundle)

        ranks = upward_ranks(bundles, seconds, transfer)
        order = [i for _, i in sorted((-rank, i) for i, rank in enumerate(ranks))]
        plan = _Plan(view, model, {})
        if not all(plan.add(bundles[i]) for i in order):
            return best[1] if best is not None else ranks
        if best is None or plan.finish < best[0]:
            best = (plan.finish, ranks)
    if best is None:
        raise AssertionError("there is no rank to choose")
    return best[1]


def place_ahead(
    ready: Sequence[Bundle], upcoming: Upcoming, view: ClusterView, model: CostModel
) -> list[Placement] | None:
    """Place the ready bundles with which a plan of all upcoming bundles begins; None if there can
    be no plan, because a cost is not known.

    The plan is HEFT with insertion over the bundles that have not begun, made anew whenever
    something changes. A ready bundle that the plan puts behind one that is not ready yet is left
    for later.

    References
    ----------
    H. Topcuoglu, S. Hariri, M.-Y. Wu, IEEE TPDS 13(3), 2002.
    """
    plan = _Plan(view, model, upcoming.busy)
    plan.values.update(upcoming.coming)
    wanted = {bundle.key for bundle in ready}
    for bundle in upcoming.sequence:
        if not plan.add(bundle) and bundle.key in wanted:
            return None
    return [placement for placement in plan.firsts() if placement.bundle in wanted]


@dataclass(slots=True)
class _Slot:
    """A slot of a device. ``spans`` are the bundles planned there, as (start, end, bundle),
    earliest first."""

    executor: Executor
    slowness: float
    free_at: float
    idle: bool
    spans: list[tuple[float, float, str]]

    def start(self, ready: float, seconds: float) -> float:
        """Return the earliest start, not before ``ready``, of a bundle that takes ``seconds``."""
        begin = max(ready, self.free_at)
        for start, end, _ in self.spans:
            if begin + seconds <= start:
                break
            if end > begin:
                begin = end
        return begin


class _Plan:
    """A schedule under construction: bundles are added one by one, each where it ends first."""

    def __init__(
        self, view: ClusterView, model: CostModel, busy: Mapping[Executor, Sequence[float]]
    ) -> None:
        self._view = view
        self._model = model
        self._now = view.now_seconds
        self.values: dict[str, Arrival] = {}
        self.finish = self._now
        self._slots: dict[str, list[_Slot]] = {
            kind: [
                slot
                for executor in pool.executors
                if executor.healthy and not executor.silent
                for slot in self._slots_of(executor, busy.get(executor, ()))
            ]
            for kind, pool in view.pools.items()
        }

    def _slots_of(self, executor: Executor, ends: Sequence[float]) -> Iterable[_Slot]:
        slowness = self._view.slowness(executor)
        later = sorted(ends, reverse=True)[: executor.slots]
        for number in range(executor.slots):
            idle = number >= len(later)
            free_at = self._now if idle else max(self._now, later[number])
            yield _Slot(executor, slowness, free_at, idle, [])

    def add(self, bundle: Bundle) -> bool:
        """Plan a bundle; False if nothing is known of its cost or of its inputs."""
        arrivals = self._arrivals(bundle)
        if arrivals is None:
            return False
        far = arrivals.pop("", self._now)
        best: tuple[float, float, _Slot] | None = None
        for kind in self._view.kinds_for(bundle):
            seconds = self._model.seconds(bundle, kind)
            if seconds is None:
                return False
            for slot in self._slots.get(kind, ()):
                own = seconds * slot.slowness
                begin = slot.start(arrivals.get(slot.executor.node_id, far), own)
                if best is None or begin + own < best[0]:
                    best = (begin + own, begin, slot)
        if best is None:
            return False
        end, begin, slot = best
        insort(slot.spans, (begin, end, bundle.key))
        transfer = self._model.output_transfer_seconds(bundle)
        for key in bundle.outputs:
            self.values[key] = (slot.executor.node_id, end, transfer)
        self.finish = max(self.finish, end)
        return True

    def _arrivals(self, bundle: Bundle) -> dict[str, float] | None:
        """Return when all inputs can be at each node that holds some, and under "" at any other."""
        located: list[Arrival] = []
        for key in bundle.inputs:
            found = self.values.get(key)
            if found is None:
                info = self._view.values.get(key)
                if info is None:
                    return None
                sent = self._now if info.sent_seconds is None else info.sent_seconds
                transfer = self._model.transfer_seconds(info.size_bytes, info.node_id or "")
                found = (info.node_id, sent, transfer if info.node_id is not None else 0.0)
            located.append(found)
        arrivals = {"": max((at + seconds for _, at, seconds in located), default=self._now)}
        for node_id, _, _ in located:
            if node_id is not None and node_id not in arrivals:
                arrivals[node_id] = max(
                    at if other == node_id else at + seconds for other, at, seconds in located
                )
        return arrivals

    def firsts(self) -> list[Placement]:
        """Return the placements of the first bundle on each idle slot."""
        found: list[Placement] = []
        for slots in self._slots.values():
            for slot in slots:
                if slot.idle and slot.spans:
                    start, end, key = slot.spans[0]
                    node_id, device = slot.executor.node_id, slot.executor.device
                    found.append(Placement(key, node_id, device, start, end, _REASON))
        return found


_REASON = "predicted to finish first here, in a plan of all that is left of its graph"
