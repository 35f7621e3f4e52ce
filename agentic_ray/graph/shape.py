"""`GraphShape`: a task graph in small, for people to look at. Pure.

Tasks of one codelet at one depth become one stage; the values between stages become a link.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentic_ray.graph.task import Task

MOST_TASKS = 100_000
"""Larger graphs are counted, not drawn."""
MOST_STAGES = 200
"""Further stages are put together with others of their depth."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Tasks of one codelet that are equally far from the graph's inputs."""

    name: str
    depth: int
    tasks: int
    items: int
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """The ``count`` values that go from tasks of stage ``source`` to tasks of stage ``target``."""

    source: int
    target: int
    count: int


@dataclass(frozen=True, slots=True)
class GraphShape:
    """The stages of one graph and the links between them.

    If there are no stages, ``left_out`` says why.
    """

    tasks: int
    items: int
    stages: tuple[Stage, ...] = ()
    links: tuple[Link, ...] = ()
    left_out: str = ""


def shape_of(tasks: Iterable[Task]) -> GraphShape:
    """Return the shape of a graph.

    Parameters
    ----------
    tasks : iterable of Task
        In topological order, as `TaskGraph` has them.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.graph import Ref
    >>> double = ar.Codelet("double", cpu=lambda x: 2 * x)
    >>> first = ar.Task.of(double, 1, key="first")
    >>> shape = shape_of([first, ar.Task.of(double, Ref("first"), key="second")])
    >>> [(stage.name, stage.depth, stage.tasks) for stage in shape.stages], shape.links
    ([('double', 0, 1), ('double', 1, 1)], (Link(source=0, target=1, count=1),))
    """
    listed = list(tasks)
    items = sum(task.cost.items for task in listed)
    if len(listed) > MOST_TASKS:
        why = f"{len(listed):,} tasks, where {MOST_TASKS:,} are drawn"
        return GraphShape(len(listed), items, left_out=why)
    depths: dict[str, int] = {}
    for task in listed:
        depths[task.key] = 1 + max((depths[key] for key in task.dependencies), default=-1)
    named = _names(listed, depths)
    numbers: dict[tuple[str, int], int] = {}
    counts: list[list[int]] = []
    stage_of: dict[str, int] = {}
    links: dict[tuple[int, int], int] = {}
    for task in listed:
        at = named[task.codelet.name, depths[task.key]], depths[task.key]
        number = numbers.setdefault(at, len(numbers))
        if number == len(counts):
            counts.append([0, 0, 0])
        counts[number][0] += 1
        counts[number][1] += task.cost.items
        counts[number][2] += task.cost.written_bytes
        stage_of[task.key] = number
        for key in task.dependencies:
            pair = stage_of[key], number
            links[pair] = links.get(pair, 0) + 1
    stages = [Stage(*at, *count) for at, count in zip(numbers, counts, strict=True)]
    if len(stages) > MOST_STAGES:
        why = f"{len(stages):,} stages, where {MOST_STAGES:,} are drawn"
        return GraphShape(len(listed), items, left_out=why)
    return GraphShape(
        len(listed),
        items,
        tuple(stages),
        tuple(Link(*pair, count) for pair, count in links.items()),
    )


def _names(tasks: list[Task], depths: dict[str, int]) -> dict[tuple[str, int], str]:
    """Return the name shown for each codelet at each depth: its own, or where there are very many
    codelets, how many there are at this depth."""
    at_depth: dict[int, set[str]] = {}
    for task in tasks:
        at_depth.setdefault(depths[task.key], set()).add(task.codelet.name)
    many = sum(map(len, at_depth.values())) > MOST_STAGES
    return {
        (name, depth): f"{len(names)} codelets" if many and len(names) > 1 else name
        for depth, names in at_depth.items()
        for name in names
    }
