"""Cuts the chunks of a graph anew, for a cluster of another size. Pure."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agentic_ray.graph.task import CostHint, Task
from agentic_ray.schedule.cutting import bundle_seconds, chunk_elements, most_chunks, wave_spans


class Costs(NamedTuple):
    """Seconds of a task on a CPU of speed 1 and on a GPU; None where they are not known."""

    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True)
class Part:
    """A graph with what is known of its tasks.

    Parameters
    ----------
    tasks : tuple of Task
        In topological order.
    costs, sizes : mapping
        Seconds of each task, and bytes of each value, by their keys.
    alone : bool
        Whether each task is a bundle of its own.
    """

    graph_id: str
    tasks: tuple[Task, ...]
    outputs: tuple[str, ...]
    costs: dict[str, Costs] = field(repr=False)
    sizes: dict[str, int] = field(repr=False)
    priority: int = 0
    alone: bool = False


def recut(
    parts: Sequence[Part], slots: int, overhead_seconds: float
) -> tuple[list[Part], dict[str, str]]:
    """Cut the tasks whose number of items was chosen by the cluster as one of ``slots`` would.

    All tasks of one operation that wait for nothing are taken to be one row of items. The graphs
    that have a part of the row become one. A task that took the value of an old chunk takes those
    of the new chunks with items of it.

    Returns
    -------
    parts : list of Part
    joined : dict
        For each graph that became a part of another, the name of that one.
    """
    rows: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        for name in dict.fromkeys(task.codelet.name for task in part.tasks if _can_be_cut(task)):
            rows.setdefault(name, []).append(number)
    found = list(parts)
    joined: dict[str, str] = {}
    first_of = list(range(len(parts)))
    for name, numbers in rows.items():
        members = sorted({first_of[number] for number in numbers})
        whole = _joined([found[number] for number in members])
        first = members[0]
        for number in members[1:]:
            joined[parts[number].graph_id] = parts[first].graph_id
            first_of = [first if old == number else old for old in first_of]
        found[first] = _cut(whole, name, slots, overhead_seconds)
    for old, new in joined.items():
        while new in joined:
            new = joined[new]
        joined[old] = new
    return [part for number, part in enumerate(found) if first_of[number] == number], joined


def _can_be_cut(task: Task) -> bool:
    return bool(task.codelet.pieces and task.cost.items and not task.dependencies)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        tasks=tuple(itertools.chain.from_iterable(part.tasks for part in parts)),
        outputs=tuple(itertools.chain.from_iterable(part.outputs for part in parts)),
        costs={key: one for part in parts for key, one in part.costs.items()},
        sizes={key: one for part in parts for key, one in part.sizes.items()},
        alone=all(part.alone for part in parts),
    )


@dataclass(slots=True)
class _Row:
    """Chunks after each other: of each its task, and the number of the first item after it."""

    tasks: list[Task]
    ends: list[int]

    def overlaps(self, start: int, stop: int) -> Iterable[tuple[Task, float]]:
        """Yield the chunks with items from ``start`` to ``stop``, and the share of each that these
        are."""
        at = bisect.bisect_right(self.ends, start)
        while at < len(self.ends) and start < stop:
            first = self.ends[at - 1] if at else 0
            end = self.ends[at]
            yield self.tasks[at], (min(stop, end) - start) / (end - first)
            start = end
            at += 1


def _cut(part: Part, name: str, slots: int, overhead_seconds: float) -> Part:
    old = [task for task in part.tasks if task.codelet.name == name and _can_be_cut(task)]
    row = _Row(old, list(itertools.accumulate(task.cost.items for task in old)))
    items = row.ends[-1]
    known = [part.costs.get(task.key, Costs()) for task in old]
    seconds = [one.cpu if one.cpu is not None else one.gpu for one in known]
    if items == len(old) or None in seconds:
        return part  # single items, or nothing to go by
    mean = sum(one for one in seconds if one is not None) / items
    new: list[Task] = []
    costs = dict(part.costs)
    sizes = dict(part.sizes)
    taken: dict[str, list[str]] = {}
    for number, (start, stop) in enumerate(_spans(items, mean, slots, overhead_seconds)):
        pieces = list(row.overlaps(start, stop))
        made = _piece(f"{old[0].key}/cut{number}", stop - start, pieces)
        new.append(made)
        costs[made.key] = _share_of(pieces, part)
        share = [sizes[task.key] * part_of for task, part_of in pieces if task.key in sizes]
        if share:
            whole = [sizes[task.key] for task, _ in pieces if task.key in sizes]
            is_list = made.codelet.pieces == "list"
            sizes[made.key] = int(sum(share) if is_list else sum(whole) / len(whole))
        for task, _ in pieces:
            taken.setdefault(task.key, []).append(made.key)
    for task in old:
        costs.pop(task.key, None)
        sizes.pop(task.key, None)
    return replace(
        part,
        tasks=(*new, *(_over(task, taken) for task in part.tasks if task.key not in taken)),
        outputs=_renamed(part.outputs, taken),
        costs=costs,
        sizes=sizes,
        alone=False,
    )


def _spans(
    items: int, seconds: float, slots: int, overhead_seconds: float
) -> Iterable[tuple[int, int]]:
    """Yield the chunks of a row in waves, as a map-reduce of known costs cuts them."""
    start = 0
    while start < items:
        left = items - start
        total = seconds * left
        bundle = bundle_seconds(total, slots, overhead_seconds)
        spans = wave_spans(
            start, items, chunk_elements(seconds, left, bundle), most_chunks(total, slots)
        )
        yield from spans
        start = spans[-1][1]


def _piece(key: str, items: int, pieces: Sequence[tuple[Task, float]]) -> Task:
    def share(name: str) -> float:
        return sum(float(getattr(task.cost, name)) * part_of for task, part_of in pieces)

    first = pieces[0][0]
    cost = CostHint(share("flops"), int(share("read_bytes")), int(share("written_bytes")), items)
    return replace(first, key=key, cost=cost)


def _share_of(pieces: Sequence[tuple[Task, float]], part: Part) -> Costs:
    """Return the seconds of a new chunk: its shares of the old ones."""
    sums: list[float | None] = []
    for at in (0, 1):
        known = [(part.costs[task.key][at], part_of) for task, part_of in pieces]
        found = [seconds * part_of for seconds, part_of in known if seconds is not None]
        # (Chunks that ran on the other kind of device are taken to be like those that did on this.)
        shares = sum(part_of for seconds, part_of in known if seconds is not None)
        everything = sum(part_of for _, part_of in known)
        sums.append(sum(found) * everything / shares if shares else None)
    return Costs(*sums)


def _renamed(keys: Iterable[str], taken: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(new for key in keys for new in taken.get(key, (key,))))


def _over(task: Task, taken: dict[str, list[str]]) -> Task:
    if not any(key in taken for key in task.dependencies):
        return task
    return replace(task, dependencies=_renamed(task.dependencies, taken))
