"""Predicts the memory that a plan will take before it runs, and whether there is so much.

Sizes in, sizes out; nothing here computes or asks a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentic_ray.array.core.node import Node, topological
from agentic_ray.graph import TaskGraph


@dataclass(frozen=True, slots=True)
class PlanMemory:
    """Bytes that a plan holds at its peak.

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


def room(store_bytes: Iterable[int | None], spill_bytes: int) -> int | None:
    """Bytes that the nodes can hold; None if that is not known.

    Parameters
    ----------
    store_bytes : iterable of int or None
        Capacity of each node's object store; None: not known.
    spill_bytes : int
        Disk a node can move values to when its store is full.
    """
    stores = list(store_bytes)
    known = [size for size in stores if size is not None]
    if not stores or len(known) < len(stores):
        return None
    return sum(known) + spill_bytes * len(known)


def refusal(need: PlanMemory, store_bytes: Iterable[int | None], spill_bytes: int) -> str | None:
    """Why a plan cannot be run, or None if it can. Parameters as for `room`; what is not known
    refuses nothing."""
    stores = list(store_bytes)
    there = room(stores, spill_bytes)
    if there is None or need.live_bytes <= there:
        return None
    return (
        f"this plan holds up to {need.live_bytes:,} bytes at a time, {need.result_bytes:,} of "
        f"them its results; the object stores of {len(stores)} node(s) have "
        f"{there - spill_bytes * len(stores):,} and the disk to spill to {spill_bytes:,} bytes a "
        "node. Reduce results first, write them to files, or use smaller types"
    )


def least(roots: Sequence[Node]) -> PlanMemory:
    """Return the bytes that any plan of these expressions holds at least, known before it is made.

    Results are there at the end, and so is all that an operation needs at one time. Operations
    that only move elements are left out: their chunks may be those of their operands.
    """
    results = sum(root.nbytes for root in roots if _writes(root))
    held = max(
        (node.inputs[0].nbytes for node in topological(roots) if node.op.holds_inputs
         and node.value is None),
        default=0,
    )  # fmt: skip
    return PlanMemory(results, max(results, held), 0)


def _writes(node: Node) -> bool:
    if node.value is not None:
        return False
    return node.op.kind in ("create", "map", "reduce") or node.op.holds_inputs
