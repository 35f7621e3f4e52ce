"""Runs graphs of Dask as task graphs of this package: the scheduler `get`, and `enabled`.

Dask's functions run in worker processes of the session. A function is a codelet, named by its
part of the key, so that the session learns what it costs, bundles its calls and shows them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask
from dask._task_spec import Alias, DataNode, GraphNode, TaskRef, convert_legacy_graph
from dask._task_spec import Task as DaskTask
from dask.utils import key_split

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    JobCancelledError,
    MissingKeyError,
)
from agentic_ray.graph import (
    Codelet,
    Ref,
    Task,
    TaskGraph,
    capture,
    content_key,
    cull,
    loaded,
    replace_refs,
)
from agentic_ray.interop.calls.parcels import is_literal
from agentic_ray.runtime import Inline, Run, Session, Stored, fetch, get_session, pack, writable

_ON_DISK: Final = ("partd-", "zpartd-")
"""Keys of the files through which Dask shuffles by default: they are on one machine, and processes
that write to them at one time would destroy each other's data."""
_TRIED: Final = 2
"""Tasks of a function of unknown cost that are run first, where it has many."""
_MANY: Final = 16
_MOST_TRIED_WITH: Final = 32
"""Most tasks that have to be run first for one that is tried."""


def get(dsk: Any, keys: Any, *, priority: int = 0, **options: Any) -> Any:
    """Compute keys of a graph of Dask's; what Dask calls a scheduler.

    It can be given as ``x.compute(scheduler=ar.interop.dask.get)`` or
    ``dask.config.set(scheduler=ar.interop.dask.get)``.

    Parameters
    ----------
    dsk : mapping
        A graph, in the form of `dask._task_spec` or of tuples.
    keys : key or nested lists of keys
    priority : int
        Graphs of higher priority go first.

    Returns
    -------
    object or nested tuples of objects
        Values of the keys, nested as they are.

    Raises
    ------
    InvalidArgumentError
        Dask would shuffle by files on one machine; see `enabled`.
    InvalidTypeError
        An option of another scheduler was given, such as ``num_workers``.
    MissingKeyError
        A key is not in the graph.
    SerializationError
        A function, an argument or a result cannot be pickled.
    The exception that a function raised

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.interop.dask.get({"a": 1, "b": (sum, ["a", 2])}, ["b", ["a"]])
    (3, (1,))
    """
    return _compute(None, dsk, keys, priority=priority, **options)


@contextlib.contextmanager
def enabled() -> Iterator[list[Run]]:
    """Context in which Dask's collections are computed by this package.

    Data frames and bags are shuffled by tasks there, not by files on one machine.

    It gives a list, to which the runs of the block are added: ``ar.explain(runs[-1])``.

    Examples
    --------
    >>> import agentic_ray as ar, dask
    >>> with ar.interop.dask.enabled() as runs:
    ...     dask.delayed(pow)(2, 5).compute()
    32
    >>> "pow" in ar.explain(runs[-1])
    True
    """
    runs: list[Run] = []
    scheduler = functools.partial(_compute, runs)
    with dask.config.set({"scheduler": scheduler, "dataframe.shuffle.method": "tasks"}):
        yield runs


def _compute(
    runs: list[Run] | None, dsk: Any, keys: Any, *, priority: int = 0, **options: Any
) -> Any:
    if options:
        raise InvalidTypeError(
            f"the scheduler of agentic_ray has no option {', '.join(sorted(options))}"
        )
    plan = _Plan.of(dsk)
    wanted = list(dict.fromkeys(_flat(keys)))
    found = {key: plan.result(key) for key in wanted}
    names = list(dict.fromkeys(v.key for v in found.values() if isinstance(v, Ref)))
    made: dict[str, Any] = {}
    if names:
        graph = cull(TaskGraph(plan.tasks, names))
        made = _run(get_session(), graph, priority, [] if runs is None else runs)
    values = {
        key: made[value.key] if isinstance(value, Ref) else value for key, value in found.items()
    }
    return _nested(keys, values)


def _flat(keys: Any) -> Iterator[Any]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys


def _nested(keys: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(keys, list):
        return tuple(_nested(each, values) for each in keys)
    return values[keys]


# --- from Dask's graph to ours -----------------------------------------------------------


class _Plan:
    """Our tasks for the nodes of a graph of Dask's. Data and other names of it make no tasks."""

    def __init__(self, nodes: Mapping[Any, GraphNode]) -> None:
        self._nodes = nodes
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()
        self._data: dict[Any, Any] = {}
        self._codelets: dict[tuple[str, int], Codelet] = {}
        self.tasks: list[Task] = []

    @classmethod
    def of(cls, dsk: Any) -> _Plan:
        """Convert a graph."""
        graph = dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk
        plan = cls(convert_legacy_graph(dict(graph)))
        for key, node in plan._nodes.items():
            if not isinstance(node, Alias | DataNode):
                plan.tasks.append(plan._task(key, node))
        return plan

    def value(self, key: Any) -> Any:
        """Return what stands for the value of ``key`` in our tasks: a `Ref`, or data, packed."""
        key, node = self._followed(key)
        if not isinstance(node, DataNode):
            return Ref(self._name(key))
        if key not in self._data:
            value = node.value
            self._data[key] = value if is_literal(value) else pack(value)
        return self._data[key]

    def result(self, key: Any) -> Any:
        """Return the `Ref` of the task that makes the value of ``key``, or data as it is."""
        key, node = self._followed(key)
        return node.value if isinstance(node, DataNode) else Ref(self._name(key))

    def _followed(self, key: Any) -> tuple[Any, GraphNode]:
        """Return the key that ``key`` is another name of, and its node."""
        seen = [key]
        while isinstance(node := self._node(key), Alias) and node.target != key:
            key = node.target
            if key in seen:
                raise MissingKeyError(f"{key!r} is another name of itself", (str(key),))
            seen.append(key)
        return key, node

    def _node(self, key: Any) -> GraphNode:
        try:
            return self._nodes[key]
        except KeyError:
            raise MissingKeyError(f"the graph has no key {key!r}", (str(key),)) from None

    def _name(self, key: Any) -> str:
        """Return the name of the task that makes ``key``; other keys may look the same."""
        name = self._names.get(key)
        if name is None:
            name = str(key)
            while name in self._taken:
                name += "'"
            self._names[key] = name
            self._taken.add(name)
        return name

    def _task(self, key: Any, node: GraphNode) -> Task:
        if type(key) is tuple and len(key) == 1 and str(key[0]).startswith(_ON_DISK):
            raise InvalidArgumentError(
                "Dask would shuffle by files on one machine, which is unsafe here: use `with "
                "ar.interop.dask.enabled():`, or dask.config.set({'dataframe.shuffle.method': "
                "'tasks'}), when the collection is made and computed"
            )
        name = self._name(key)
        if type(node) is DaskTask and all(map(_is_plain, (*node.args, *node.kwargs.values()))):
            args = tuple(self._argument(each) for each in node.args)
            kwargs = {option: self._argument(each) for option, each in node.kwargs.items()}
            codelet = self._codelet(key, node.func, _Call)
            return Task.of(codelet, args, kwargs, key=name)
        needed = sorted(node.dependencies, key=str)
        values = [self.value(each) for each in needed]
        if type(node) is DaskTask:
            codelet = self._codelet(key, node.func, _CallNested)
            return Task.of(codelet, pack((needed, node.args, node.kwargs)), values, key=name)
        codelet = self._codelet(key, _evaluate, _Call)
        return Task.of(codelet, (pack((node, needed)), values), {}, key=name)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, TaskRef):
            return self.value(argument.key)
        return self.value(argument.target) if isinstance(argument, Alias) else argument

    def _codelet(self, key: Any, function: Callable[..., Any], kind: type[Any]) -> Codelet:
        prefix = key_split(key)
        place = (f"{prefix} {kind.__name__}", id(function))  # the graph keeps the function alive
        found = self._codelets.get(place)
        if found is None:
            kernel = kind(capture(function))
            name = content_key(f"dask[{prefix}]", kernel.function)[:-20]
            found = self._codelets[place] = Codelet(name, kernel, opaque=True)
        return found


def _is_plain(argument: Any) -> bool:
    return isinstance(argument, TaskRef | Alias) or is_literal(argument)


def _taken(value: Any) -> Any:
    """Return an argument as the function is to get it."""
    return value.load() if isinstance(value, Inline) else value


@dataclass(frozen=True)
class _Call:
    """Kernel that calls ``function`` with arguments that are values or literals."""

    function: Callable[..., Any]

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        function = loaded(self.function)
        given = {name: _taken(value) for name, value in kwargs.items()}
        return function(*map(_taken, args), **given)


@dataclass(frozen=True)
class _CallNested:
    """Kernel that calls ``function`` with arguments that hold nodes of Dask's graph."""

    function: Callable[..., Any]

    def __call__(self, parcel: Any, values: Sequence[Any]) -> Any:
        needed, args, kwargs = _taken(parcel)
        node = DaskTask(None, loaded(self.function), *args, **kwargs)
        return node(dict(zip(needed, map(_taken, values), strict=True)))


def _evaluate(parcel: Any, values: Sequence[Any]) -> Any:
    """Make the value of a node that is no plain call, such as a list of values."""
    node, needed = parcel
    return node(dict(zip(needed, map(_taken, values), strict=True)))


# --- running ------------------------------------------------------------------------------


def _run(session: Session, graph: TaskGraph, priority: int, runs: list[Run]) -> dict[str, Any]:
    """Run a graph; return the values of its outputs. Functions of unknown cost that have many tasks
    are tried first, because tasks of unknown cost cannot be bundled."""
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
    made = {key: _here(known[key]) for key in graph.outputs if key in known}
    if rest:
        tasks = [_with(task, known) for task in left] if known else left
        run = session.submit(TaskGraph(tasks, rest), priority=priority)
        runs.append(run)
        made.update(zip(rest, _waited(run, run.result), strict=True))
    return {key: writable(value) for key, value in made.items()}


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
