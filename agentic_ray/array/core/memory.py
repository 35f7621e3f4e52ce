"""How much memory a plan will take, predicted before it runs, and whether there is so much.

Figures in, figures out; nothing here computes or asks a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from agentic_ray.graph import TaskGraph


@dataclass(frozen=True, slots=True)
class PlanMemory:
    """What a plan holds at its peak, in bytes.

    Parameters
    ----------
    result_bytes : int
        Of all results together, which are there at the end.
    live_bytes : int
        Most that values take together, results and those that are still needed, if tasks run
        one after the other in the plan's order; more slots run ahead of it by a few tasks.
    task_bytes : int
        Most that a single task takes.
    """

    result_bytes: int
    live_bytes: int
    task_bytes: int


def predict(graph: TaskGraph) -> PlanMemory:
    """The memory of a plan whose values are given up after their last use."""
    size = {task.key: task.cost.written_bytes for task in graph}
    left = Counter(key for task in graph for key in task.dependencies)
    left.update(graph.outputs)
    live = peak = 0
    for task in graph:
        live += size[task.key]
        peak = max(peak, live)
        for key in task.dependencies:
            left[key] -= 1
            if not left[key]:
                live -= size[key]
    return PlanMemory(
        sum(size[key] for key in set(graph.outputs)),
        peak,
        max((task.resources.memory_bytes for task in graph), default=0),
    )


def refusal(need: PlanMemory, store_bytes: Iterable[int | None], spill_bytes: int) -> str | None:
    """Why a plan cannot be run, or None if it can.

    Parameters
    ----------
    store_bytes : iterable of int or None
        Capacity of each node's object store; None: not known, which refuses nothing.
    spill_bytes : int
        Disk a node can move values to when its store is full.
    """
    stores = list(store_bytes)
    known = [size for size in stores if size is not None]
    if not stores or len(known) < len(stores):
        return None
    room = sum(known) + spill_bytes * len(known)
    if need.live_bytes <= room:
        return None
    return (
        f"this plan holds up to {need.live_bytes:,} bytes at a time, {need.result_bytes:,} of "
        f"them its results; the object stores of {len(known)} node(s) have {sum(known):,} and "
        f"the disk to spill to {spill_bytes:,} bytes a node. Reduce results first, write them "
        "to files, or use smaller types"
    )
