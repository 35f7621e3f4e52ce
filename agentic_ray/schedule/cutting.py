"""Sizes in which work is cut for a cluster: bundles of tasks, chunks of elements. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentic_ray.graph.passes import bundle
from agentic_ray.graph.reduce import aligned_spans
from agentic_ray.graph.task import Bundle, Task, TaskGraph
from agentic_ray.schedule.cost_model import CostModel

BUNDLES_PER_SLOT: Final = 4
"""Number of bundles that a slot gets, where there is enough work, so that slots end together."""
SHORTEST_BUNDLE_OVERHEADS: Final = 20.0
"""Bundles shorter than this many call overheads are made only to use every slot. (The overhead
of one bundle is hidden behind the work of the one before it on the same executor, but where the
master has no CPU of its own it takes that work's.)"""
LONGEST_BUNDLE_OVERHEADS: Final = 200.0
"""Longer bundles save less than half a percent, and slots end together with shorter ones."""
WAVE_BUNDLES_PER_SLOT: Final = 8
"""Number of bundles under way a slot; more would only delay learning the costs."""
FACTORED_SECONDS: Final = 0.25
"""Work longer than this a slot is cut by factoring: each wave takes half of the rest, in equal
chunks, so that chunks get shorter towards the end and slots end together although nodes differ in
speed and elements in cost (Hummel, Schonberg & Flynn, CACM 35(8), 1992)."""


def bundle_seconds(total_seconds: float, slots: int, overhead_seconds: float) -> float:
    """Return the seconds of predicted work for one bundle, of ``total_seconds`` that can go on
    side by side.

    A slot gets several bundles, none longer than it need be, so that slots end together, but none
    so short that its call overhead shows; work too small for that is split evenly, down to one
    call's worth.

    Examples
    --------
    >>> bundle_seconds(8.0, slots=2, overhead_seconds=0.001)
    0.2
    >>> bundle_seconds(0.002, slots=2, overhead_seconds=0.001)
    0.001
    """
    least = overhead_seconds * SHORTEST_BUNDLE_OVERHEADS
    most = overhead_seconds * LONGEST_BUNDLE_OVERHEADS
    fair = total_seconds / slots
    wanted = max(min(max(least, min(fair / BUNDLES_PER_SLOT, most)), fair), overhead_seconds)
    each = fair / wanted
    if 1 < each < BUNDLES_PER_SLOT:
        wanted = fair / round(each)  # the same number for every slot
    return wanted


def chunk_elements(seconds: float, left: float, bundle: float) -> int:
    """Return the elements of a chunk that takes about ``bundle`` seconds, of ``left`` elements
    that take ``seconds`` each."""
    return int(min(max(bundle / max(seconds, 1e-9), 1), left))


def most_chunks(total_seconds: float, slots: int) -> int:
    """Return how many chunks of work that takes ``total_seconds`` go into the next wave."""
    if total_seconds > slots * FACTORED_SECONDS:
        return slots * BUNDLES_PER_SLOT // 2
    return slots * WAVE_BUNDLES_PER_SLOT


def wave_spans(start: int, count: int | None, size: int, limit: int) -> list[tuple[int, int]]:
    """Cut the elements from ``start`` on into chunks of at most ``size``: the next wave.

    Each is a subtree of the canonical tree over all elements, whose number is ``count`` (None:
    not known).

    Parameters
    ----------
    limit : int
        Most chunks of the wave.

    Examples
    --------
    >>> wave_spans(0, 10, 4, 8)
    [(0, 4), (4, 8), (8, 10)]
    """
    stop = start + limit * size
    spans = aligned_spans(start, stop if count is None else min(stop, count), size)[:limit]
    low, high = spans[-1]
    if high != count and (low % (high - low) or (high - low) & (high - low - 1)):
        spans.pop()  # the limit cut it short, so it is no subtree
    return spans


def usual_seconds(task: Task, model: CostModel) -> float:
    """Return the predicted seconds on the likelier device; -1 when unknown. Steps that only combine
    (no items of their own) count as nothing until they were seen."""
    for kind in reversed(task.kinds()):
        seconds = model.task_seconds(task, kind)
        if seconds is not None:
            return seconds
    return -1.0 if task.cost.items else 0.0


def bundled(
    graph: TaskGraph, model: CostModel, target_seconds: Callable[[float], float]
) -> tuple[Bundle, ...]:
    """Group the tasks of a graph as a session sends them.

    Parameters
    ----------
    target_seconds : callable
        As for `graph.passes.bundle`.
    """
    predicted = {task.key: usual_seconds(task, model) for task in graph}
    return bundle(
        graph,
        # Tasks of unknown seconds are not grouped: they may be long.
        seconds=lambda task: predicted[task.key] if predicted[task.key] >= 0 else float("inf"),
        target_seconds=target_seconds,
    )
