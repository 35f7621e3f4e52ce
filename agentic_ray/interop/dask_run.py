"""Runs the task graphs that were graphs of Dask's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from agentic_ray.errors import JobCancelledError
from agentic_ray.graph import Ref, Task, TaskGraph, cull, replace_refs
from agentic_ray.runtime import Run, Session, Stored, fetch, writable

_TRIED: Final = 2
"""Tasks of a function of unknown cost that are run first, where it has many."""
_MANY: Final = 16
_MOST_TRIED_WITH: Final = 32
"""Most tasks that have to be run first for one that is tried."""


def run_graph(
    session: Session, graph: TaskGraph, priority: int, runs: list[Run], *, handles: bool = False
) -> dict[str, Any]:
    """Run a graph; return the values of its outputs, or with ``handles`` where the session keeps
    them. Add the runs to ``runs``.

    Functions of unknown cost that have many tasks are tried first, because tasks of unknown cost
    cannot be bundled.
    """
    known: dict[str, Any] = {}
    tried = _tried(session, graph)
    if tried:
        part = cull(TaskGraph(graph.tasks, tried))
        trial = TaskGraph(part.tasks, [task.key for task in part])
        run = session.submit(trial, priority=priority, target_seconds=0.0)
        runs.append(run)
        known = dict(zip(trial.outputs, _waited(run, run.handles), strict=True))
    left = [task for task in graph if task.key not in known]
    rest = [key for key in graph.outputs if key not in known]
    made = {key: known[key] for key in graph.outputs if key in known}
    if not handles:
        made = {key: _here(value) for key, value in made.items()}
    if rest:
        tasks = [_with(task, known) for task in left] if known else left
        run = session.submit(TaskGraph(tasks, rest), priority=priority)
        runs.append(run)
        wait = run.handles if handles else run.result
        made.update(zip(rest, _waited(run, wait), strict=True))
    return made if handles else {key: writable(value) for key, value in made.items()}


def _here(value: Any) -> Any:
    return fetch(value) if isinstance(value, Stored) else value


def _waited(run: Run, wait: Callable[[], list[Any]]) -> list[Any]:
    """Return what ``wait`` returns; cancel the run if the caller is interrupted."""
    try:
        return wait()
    except BaseException as error:
        if not run.done and not isinstance(error, JobCancelledError):
            run.cancel()
        raise


def _tried(session: Session, graph: TaskGraph) -> list[str]:
    """Return the tasks to run first."""
    counts: dict[str, int] = {}
    for task in graph:
        counts[task.codelet.name] = counts.get(task.codelet.name, 0) + 1
    unknown = {
        name: _TRIED
        for name, count in counts.items()
        if count >= _MANY and session.model.predict_size(name, "cpu", 1.0) is None
    }
    chosen: list[str] = []
    before: dict[str, frozenset[str]] = {}
    for task in graph:
        above: set[str] | None = {task.key}
        for key in task.dependencies:
            if above is None or key not in before:
                above = None
                break
            above |= before[key]
        if above is None or len(above) > _MOST_TRIED_WITH:
            continue  # neither it nor what follows it can be tried cheaply
        before[task.key] = frozenset(above)
        if unknown.get(task.codelet.name, 0):
            unknown[task.codelet.name] -= 1
            chosen.append(task.key)
    return chosen


def _with(task: Task, known: Mapping[str, Any]) -> Task:
    """Put values that are there already in a task's arguments."""
    if known.keys().isdisjoint(task.dependencies):
        return task

    def found(key: str) -> Any:
        return known[key] if key in known else Ref(key)

    return Task.of(task.codelet, *replace_refs(task.args, found), key=task.key)
