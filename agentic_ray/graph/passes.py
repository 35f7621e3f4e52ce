"""Passes over task graphs: cull tasks that are not needed, bundle tasks that should run together.

Pure functions from graph to graph or bundles; costs come in as a function.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle, Task, TaskGraph

DEFAULT_MAX_TASKS = 4096
MOST_OVER = 1.25
"""A bundle of several tasks may be longer than its target by this factor where that makes bundles
even. Tasks nearly as long as the target are bundles of their own, since two on a slow device would
keep all waiting."""


def cull(graph: TaskGraph, outputs: Iterable[str] | None = None) -> TaskGraph:
    """Keep only the tasks that ``outputs`` (default: the graph's own) depend on.

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
    target_seconds: Callable[[float], float],
    max_tasks: int = DEFAULT_MAX_TASKS,
) -> tuple[Bundle, ...]:
    """Group chains and siblings so that one call carries about ``target_seconds`` of work.

    If a full bundle has less or more work than that, up to half a task and a quarter of the target,
    the next bundle makes up for it: so work of n targets becomes n bundles that are as even as the
    tasks allow.

    Bundles are filled in the graph's depth-first topological order, and a reduction's combine step
    follows its inputs into their bundle. A task joins the open bundle only if that makes the bundle
    wait for nothing new and if both share a lane (opaque or not) and a device kind. A task that
    takes values of several bundles, as a stencil's at the borders, does not end a bundle that waits
    for none: such tasks are gathered beside it, those that wait for the same bundles in one. A
    value that lets more than one bundle's work begin is sent on at once. If all later tasks wait
    for one task, the work before it and the work after it are cut into bundles separately.

    Parameters
    ----------
    seconds : callable
        Predicted seconds of a task; infinite if the task must be alone.
    target_seconds : callable
        Maps the seconds of work that can go on side by side to the seconds at which a bundle is
        closed; 0 makes a bundle of every task.
    max_tasks : int
        Most tasks in a bundle.

    Returns
    -------
    tuple of Bundle
        In topological order.
    """
    if max_tasks < 1:
        raise InvalidArgumentError("max_tasks must be >= 1")
    predicted = {task.key: seconds(task) for task in graph}
    phase, targets = _phases(graph, predicted, target_seconds)
    users: dict[str, list[Task]] = {}
    for task in graph:
        for key in task.dependencies:
            users.setdefault(key, []).append(task)
    groups = _Groups()
    sent_on: dict[str, bool] = {}
    carried = 0.0
    last: _Group | None = None

    def is_sent_on(key: str, target: float, group: _Group) -> bool:
        """Whether the tasks that wait for a value of the open bundle, and for no other, are more
        work than fits one bundle. Asked when the first of these tasks comes."""
        if key not in sent_on:
            begin = 0.0
            for user in users[key]:
                if all(other in group.keys or other in group.waits_for
                       for other in user.dependencies):  # fmt: skip
                    begin += predicted[user.key]
            sent_on[key] = begin > target
        return sent_on[key]

    for task in graph:
        target = targets[phase[task.key]]
        own = predicted[task.key]
        joins = goes_on = fits = False
        left = 0.0
        if last is not None:
            outside = [key for key in task.dependencies if key not in last.keys]
            goes_on = last.phase == phase[task.key]
            left = target + carried - last.work
            fits = own / 2 <= left and last.work + own <= target * MOST_OVER
            joins = (
                goes_on
                and fits
                and len(last.tasks) < max_tasks
                and _alike(last.tasks[0], task)
                and (
                    all(key in last.waits_for for key in outside)
                    if task.dependencies
                    else not last.waits_for
                )
                and not any(
                    len(users[key]) > 1 and is_sent_on(key, target, last)
                    for key in task.dependencies
                    if key in last.keys
                )
            )
        if last is not None and joins:
            groups.add(last, task, own)
            continue
        beside = None
        if last is not None and goes_on and fits and not last.waits_for:
            beside = groups.beside(task, phase[task.key], own, target, max_tasks)
        if beside is not None:
            groups.add(beside, task, own)
            continue
        last = groups.open(task, phase[task.key], own)
        sent_on.clear()
        carried = max(min(left, target / 2), -target / 2) if goes_on and not fits else 0.0
    return _close(graph, groups.in_order())


class _Group:
    """Tasks that will be one bundle.

    Attributes
    ----------
    level : int
        Level higher than that of every group whose values it takes; so there are no circles.
    waits_for : set of str
        Values of other groups that its first task needs.
    awaited : set of int
        Numbers of the groups whose values it takes.
    """

    __slots__ = ("awaited", "keys", "level", "number", "phase", "tasks", "waits_for", "work")

    def __init__(self, number: int, phase: int, level: int) -> None:
        self.number = number
        self.phase = phase
        self.level = level
        self.tasks: list[Task] = []
        self.keys: set[str] = set()
        self.waits_for: set[str] = set()
        self.awaited: set[int] = set()
        self.work = 0.0


class _Groups:
    """All groups. While one is being filled, tasks that would make it wait for further groups are
    put in groups beside it, so that they do not end it."""

    def __init__(self) -> None:
        self._all: list[_Group] = []
        self._home: dict[str, _Group] = {}
        self._beside: dict[tuple[int, int], _Group] = {}

    def _awaited(self, task: Task) -> list[_Group]:
        return [self._home[key] for key in task.dependencies]

    def open(self, task: Task, phase: int, own: float) -> _Group:
        """Open a new group that begins with ``task``."""
        level = 1 + max((group.level for group in self._awaited(task)), default=-1)
        group = _Group(len(self._all), phase, level)
        group.waits_for = set(task.dependencies)
        self._all.append(group)
        self.add(group, task, own)
        return group

    def add(self, group: _Group, task: Task, own: float) -> None:
        group.awaited.update(g.number for g in self._awaited(task) if g is not group)
        group.tasks.append(task)
        group.keys.add(task.key)
        group.work += own
        self._home[task.key] = group

    def beside(
        self, task: Task, phase: int, own: float, target: float, max_tasks: int
    ) -> _Group | None:
        """Return the group beside the open one for a task that takes values of several groups: a
        group that waits for these anyway, or a new one. None if the task does not take several."""
        awaited = self._awaited(task)
        numbers = {group.number for group in awaited}
        if len(numbers) < 2 or own > target:
            return None
        level = 1 + max(group.level for group in awaited)
        found = self._beside.get((phase, level))
        if (
            found is None
            or found.work + own > target
            or len(found.tasks) >= max_tasks
            or not numbers <= found.awaited
            or not _alike(found.tasks[0], task)
        ):
            found = self._beside[phase, level] = _Group(len(self._all), phase, level)
            found.waits_for = set(task.dependencies)
            found.awaited = numbers
            self._all.append(found)
        return found

    def in_order(self) -> list[list[Task]]:
        """Return the groups, each after those whose values it takes, else as they were opened."""
        users: dict[int, list[int]] = {}
        left = [len(group.awaited) for group in self._all]
        for group in self._all:
            for number in group.awaited:
                users.setdefault(number, []).append(group.number)
        ready = [number for number, count in enumerate(left) if not count]
        result: list[list[Task]] = []
        while ready:
            number = heapq.heappop(ready)
            result.append(self._all[number].tasks)
            for user in users.get(number, ()):
                left[user] -= 1
                if not left[user]:
                    heapq.heappush(ready, user)
        return result


def _phases(
    graph: TaskGraph, seconds: dict[str, float], target_seconds: Callable[[float], float]
) -> tuple[dict[str, int], list[float]]:
    """Return the phase of every task, and for every phase the seconds of work for one bundle.

    All deeper tasks wait for a task that is alone at its level (longest path from a source); where
    more than one follow, a phase ends. Phases that fit one bundle together are one.
    """
    level: dict[str, int] = {}
    for task in graph:
        level[task.key] = 1 + max((level[key] for key in task.dependencies), default=-1)
    levels = 1 + max(level.values(), default=-1)
    width, work = [0] * levels, [0.0] * levels
    for key, at in level.items():
        width[at] += 1
        if seconds[key] < math.inf:
            work[at] += seconds[key]
    phase_of_level: list[int] = []
    works: list[float] = []
    last = 0
    for end in range(1, levels + 1):
        if end < levels and not (width[end - 1] == 1 and width[end] > 1):
            continue
        own = sum(work[last:end])
        if works and target_seconds(works[-1] + own) >= works[-1] + own:
            works[-1] += own
        else:
            works.append(own)
        phase_of_level += itertools.repeat(len(works) - 1, end - last)
        last = end
    targets = [target_seconds(own) for own in works]
    if not all(target >= 0 for target in targets):
        raise InvalidArgumentError("target_seconds must be >= 0")
    return {key: phase_of_level[at] for key, at in level.items()}, targets


def _alike(first: Task, task: Task) -> bool:
    return (
        first.codelet.opaque == task.codelet.opaque
        and not first.codelet.own_process  # a function's batch is a call by itself
        and first.priority == task.priority
        and first.tag == task.tag
        and first.resources.where == task.resources.where
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
