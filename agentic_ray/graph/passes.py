"""Passes over task graphs: cull what is not needed, bundle what should run together.

Pure functions from graph to graph or bundles; costs come in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle, Task, TaskGraph

DEFAULT_MAX_TASKS = 4096


def cull(graph: TaskGraph, outputs: Iterable[str] | None = None) -> TaskGraph:
    """Only the tasks that ``outputs`` (default: the graph's own) depend on.

    Raises
    ------
    MissingKeyError
        An output is not in the graph.
    """
    wanted = graph.outputs if outputs is None else tuple(outputs)
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        key = pending.pop()
        if key not in needed:
            needed.add(key)
            pending.extend(graph[key].dependencies)
    return TaskGraph((task for task in graph if task.key in needed), wanted)


def bundle(
    graph: TaskGraph,
    *,
    seconds: Callable[[Task], float],
    target_seconds: float,
    max_tasks: int = DEFAULT_MAX_TASKS,
) -> tuple[Bundle, ...]:
    """Group chains and siblings so that one call carries about ``target_seconds`` of work.

    Bundles are contiguous runs of the graph's depth-first topological order, hence acyclic
    among themselves, and a reduction's combine step follows its inputs into their bundle. A
    task joins the open bundle only if that makes the bundle wait for nothing new, and if both
    share a lane (opaque or not) and a device kind.

    Parameters
    ----------
    seconds : callable
        Predicted seconds of a task.
    target_seconds : float
        Work at which a bundle is closed; 0 makes a bundle of every task.
    max_tasks : int
        Most tasks in a bundle.

    Returns
    -------
    tuple of Bundle
        In topological order.
    """
    if max_tasks < 1 or not target_seconds >= 0:
        raise InvalidArgumentError("max_tasks must be >= 1 and target_seconds >= 0")
    groups: list[list[Task]] = []
    inside: set[str] = set()
    waits_for: set[str] = set()
    work = 0.0
    for task in graph:
        predicted = seconds(task)
        outside = [key for key in task.dependencies if key not in inside]
        joins = (
            bool(groups)
            and len(groups[-1]) < max_tasks
            and work + predicted <= target_seconds
            and _alike(groups[-1][0], task)
            and (all(key in waits_for for key in outside) if task.dependencies else not waits_for)
        )
        if not joins:
            groups.append([])
            inside = set()
            waits_for = set(task.dependencies)
            work = 0.0
        groups[-1].append(task)
        inside.add(task.key)
        work += predicted
    return _close(graph, groups)


def _alike(first: Task, task: Task) -> bool:
    return (
        first.codelet.opaque == task.codelet.opaque
        and first.priority == task.priority
        and first.tag == task.tag
        and first.kinds() == task.kinds()
    )


def _close(graph: TaskGraph, groups: list[list[Task]]) -> tuple[Bundle, ...]:
    home = {task.key: i for i, group in enumerate(groups) for task in group}
    exported = set(graph.outputs)
    for i, group in enumerate(groups):
        for task in group:
            exported.update(key for key in task.dependencies if home[key] != i)
    return tuple(
        Bundle(
            group[-1].key,
            tuple(group),
            tuple(
                dict.fromkeys(key for task in group for key in task.dependencies if home[key] != i)
            ),
            tuple(task.key for task in group if task.key in exported),
        )
        for i, group in enumerate(groups)
    )
