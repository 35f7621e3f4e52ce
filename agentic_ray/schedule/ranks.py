"""Upward ranks: seconds of work that depend on a bundle. Pure functions of bundles and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agentic_ray.graph.task import Bundle

if TYPE_CHECKING:
    from agentic_ray.schedule.cost_model import CostModel
    from agentic_ray.schedule.view import ClusterView


def upward_ranks(
    bundles: Sequence[Bundle],
    seconds: Callable[[Bundle], float],
    transfer_seconds: Callable[[Bundle], float],
) -> list[float]:
    """Return the seconds from the start of each bundle to the end of its graph on the longest path.

    Parameters
    ----------
    bundles : sequence of Bundle
        In topological order.
    seconds, transfer_seconds : callable
        Mean seconds of a bundle over the devices, and of moving its output.

    References
    ----------
    H. Topcuoglu, S. Hariri, M.-Y. Wu, "Performance-effective and low-complexity task scheduling
    for heterogeneous computing", IEEE TPDS 13(3), 2002.
    """
    after: dict[str, float] = {}
    ranks = [0.0] * len(bundles)
    for i in range(len(bundles) - 1, -1, -1):
        bundle = bundles[i]
        below = 0.0
        if after:
            below = max((after.pop(key, 0.0) for key in bundle.outputs), default=0.0)
            if below:
                below += transfer_seconds(bundle)
        own = seconds(bundle)
        rank = ranks[i] = own + below if below else own
        for key in bundle.inputs:
            if rank > after.get(key, 0.0):
                after[key] = rank
    return ranks


def mean_seconds(view: ClusterView, model: CostModel) -> Callable[[Bundle], float]:
    """Return a function for the mean seconds of a bundle over the devices that can run it."""
    pools = {kind: (len(pool.executors), pool.slowness.mean()) for kind, pool in view.pools.items()}
    typical = model.typical_seconds
    alike: dict[tuple[int, int, str], float] = {}

    def seconds(bundle: Bundle) -> float:
        """Compute bundles of one task with the same codelet, cost and tag once; they live as long
        as this function is used, so identities do."""
        task = bundle.tasks[0]
        if len(bundle.tasks) > 1:
            return mean(bundle)
        traits = (id(task.codelet), id(task.cost), task.tag)
        found = alike.get(traits)
        if found is None:
            found = alike[traits] = mean(bundle)
        return found

    def mean(bundle: Bundle) -> float:
        weight = total = 0.0
        for kind in bundle.kinds():
            if kind in pools:
                count, slowness = pools[kind]
                one = model.seconds(bundle, kind)
                total += count * float(slowness) * (typical if one is None else one)
                weight += count
        return total / weight if weight else typical

    return seconds
