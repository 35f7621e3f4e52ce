"""Makes task graphs of this package out of graphs of Dask's.

A function of Dask's is a codelet, named by its part of the key, so that the session learns what it
costs, bundles its calls and shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dask._task_spec import Alias, DataNode, GraphNode, TaskRef, convert_legacy_graph
from dask._task_spec import Task as DaskTask
from dask.utils import key_split

from agentic_ray.errors import InvalidArgumentError, MissingKeyError
from agentic_ray.graph import Codelet, Ref, Task, capture, content_key, loaded
from agentic_ray.interop.calls.parcels import is_literal
from agentic_ray.interop.dask_writes import check_writes
from agentic_ray.runtime import Inline, Stored, fetch, pack, writable

_ON_DISK: Final = ("partd-", "zpartd-")
"""Keys of the files through which Dask shuffles by default: they are on one machine, and processes
that write to them at one time would destroy each other's data."""


class KeptChunk(DaskTask):  # type: ignore[misc]  # Dask has no types
    """Node of Dask's for a chunk that the session keeps.

    Our tasks are given the chunk where it is; other schedulers run this node in the process that
    has the session, and get a copy of the chunk.
    """

    __slots__ = ()

    def __init__(self, key: Any, chunk: Any) -> None:
        super().__init__(key, _here, chunk)

    @property
    def chunk(self) -> Any:
        """The array, or where the session keeps it."""
        return self.args[0]

    @property
    def block_fusion(self) -> bool:  # inside of another task it would run in another process
        return True


def _here(chunk: Any) -> Any:
    return writable(fetch(chunk)) if isinstance(chunk, Stored) else chunk


class Plan:
    """Our tasks for the nodes of a graph of Dask's. Data and other names of it make no tasks."""

    def __init__(self, nodes: Mapping[Any, GraphNode]) -> None:
        self._nodes = nodes
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()
        self._data: dict[Any, Any] = {}
        self._codelets: dict[tuple[str, int], Codelet] = {}
        self.tasks: list[Task] = []

    @classmethod
    def of(cls, dsk: Any) -> Plan:
        """Convert a graph."""
        graph = dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk
        plan = cls(convert_legacy_graph(dict(graph)))
        for key, node in plan._nodes.items():
            if not isinstance(node, Alias | DataNode | KeptChunk):
                plan.tasks.append(plan._task(key, node))
        return plan

    def value(self, key: Any) -> Any:
        """Return what stands for the value of ``key`` in our tasks: a `Ref`, or data, packed."""
        key, node = self._followed(key)
        if isinstance(node, KeptChunk):
            return node.chunk
        if not isinstance(node, DataNode):
            return Ref(self._name(key))
        if key not in self._data:
            value = node.value
            self._data[key] = value if is_literal(value) else pack(value)
        return self._data[key]

    def result(self, key: Any) -> Any:
        """Return the `Ref` of the task that makes the value of ``key``, or data as it is."""
        key, node = self._followed(key)
        if isinstance(node, KeptChunk):
            return node()
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
        if type(node) is DaskTask:
            check_writes(node, self._nodes)
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
