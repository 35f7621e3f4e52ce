"""The nouns of a task graph: resources, costs, codelets, tasks, graphs and bundles.

Pure data. ``keys`` hashes keys, ``passes`` rewrites graphs.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from agentic_ray.errors import (
    DuplicateKeyError,
    InvalidArgumentError,
    InvalidTypeError,
    MissingKeyError,
)
from agentic_ray.graph.captured import capture
from agentic_ray.graph.keys import content_key
from agentic_ray.graph.sorting import topological
from agentic_ray.pictures import Drawing

Tag = Literal["cpu", "gpu", "any"]
Pieces = Literal["", "list", "one"]
TAGS: tuple[Tag, ...] = ("cpu", "gpu", "any")
CARD = "card"
"""Device kind of tasks that run on a GPU in processes of their own."""
Where: TypeAlias = tuple[tuple[tuple[str, Any], ...], ...]
"""Requirements on a node: pairs of labels, and of custom resources; () if any node will do."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources that one task holds while it runs.

    Parameters
    ----------
    cpus : float
        CPU slots of a node (on a GPU: the slot that feeds it).
    memory_bytes : int
        Host memory at the peak, 0 when unknown.
    gpus : float
        GPUs, a fraction when the device can be shared.
    gpu_memory_bytes : int
        Device memory at the peak, 0 when unknown.
    custom : mapping of str to float
        Ray's custom resources of a node that the task occupies, such as ``{"licence": 1}``.
    labels : mapping of str to str
        Labels that the node must have, such as ``{"site": "edge"}``.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.Resources(cpus=2).union(ar.Resources(gpus=0.5))
    Resources(cpus=2, gpus=0.5)
    >>> ar.Resources(labels={"site": "edge"})
    Resources(labels={'site': 'edge'})
    """

    cpus: float = 1.0
    memory_bytes: int = 0
    gpus: float = 0.0
    gpu_memory_bytes: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    where: Where = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("cpus", "memory_bytes", "gpus", "gpu_memory_bytes"):
            value = getattr(self, name)
            if not value >= 0:  # also refuses NaN
                raise InvalidArgumentError(f"Resources.{name} must be >= 0, not {value!r}")
        if not (self.custom or self.labels):
            return
        for name, amount in self.custom.items():
            number = isinstance(amount, int | float) and 0 < amount < math.inf
            if not (isinstance(name, str) and name and number):
                raise InvalidArgumentError(f"Resources.custom cannot hold {name!r}: {amount!r}")
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise InvalidArgumentError(f"{name} is not a custom resource; see Resources")
        for key, label in self.labels.items():
            if not (isinstance(key, str) and key and isinstance(label, str)):
                raise InvalidArgumentError(f"Resources.labels cannot hold {key!r}: {label!r}")
        wanted = (tuple(sorted(self.labels.items())), tuple(sorted(self.custom.items())))
        object.__setattr__(self, "where", wanted)

    def __hash__(self) -> int:
        return hash((self.cpus, self.memory_bytes, self.gpus, self.gpu_memory_bytes, self.where))

    def __repr__(self) -> str:
        default = Resources()
        named = (entry.name for entry in fields(self) if entry.repr)
        changed = [name for name in named if getattr(self, name) != getattr(default, name)]
        return f"Resources({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    def union(self, other: Resources) -> Resources:
        """Return the least resources in which either of the two can run, one after the other.

        Raises
        ------
        InvalidArgumentError
            The two ask for other nodes.
        """
        if self.where != other.where:
            raise InvalidArgumentError(f"{self} and {other} are of other nodes")
        return Resources(
            max(self.cpus, other.cpus),
            max(self.memory_bytes, other.memory_bytes),
            max(self.gpus, other.gpus),
            max(self.gpu_memory_bytes, other.gpu_memory_bytes),
            self.custom,
            self.labels,
        )


@dataclass(frozen=True, slots=True)
class CostHint:
    """Expected work of a task: floating point operations, bytes moved, logical items.

    ``items`` counts the logical tasks inside (elements of a chunk); the decomposition rate and
    the cost model's size axis use it.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.CostHint(flops=1e9, items=10) + ar.CostHint(flops=1e9, items=5)
    CostHint(flops=2000000000.0, read_bytes=0, written_bytes=0, items=15)
    """

    flops: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    items: int = 1

    def __add__(self, other: CostHint) -> CostHint:
        return CostHint(
            self.flops + other.flops,
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
            self.items + other.items,
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Codelet:
    """A named operation with an implementation per device kind, as in StarPU.

    Parameters
    ----------
    name : str
        Stable name; the cost model learns under it.
    cpu, gpu : callable or None
        ``f(*args, **kwargs)``. An implementation with a keyword parameter ``xp`` gets the array
        namespace of its device (numpy or cupy). At least one is needed; without ``gpu`` the codelet
        runs on the CPU only.
    cost : CostHint or None
        Cost of a task that names none itself.
    version : str
        Part of every task key; change it when the meaning changes.
    opaque : bool
        Whether it is arbitrary Python that may hold the GIL, leak or crash: it runs in the process
        lane.
    has_effects : bool
        Whether it changes something outside, at most once: no second copy is started, and it is not
        run again where it may have begun. Its graph fails with InterruptedJobError instead. Its
        exceptions of ``retry_on`` are tried again all the same.
    speculative : bool
        False: a slow task gets no second copy beside it. It is run again after a failure.
    chunk_axis : int or None
        Axis of the first argument along which the work may be split and the results
        concatenated again.
    retry_on : tuple of exception types
        A task that raises one of these is tried again a few times, with back-off; every other
        exception is final. The types must be picklable.
    pieces : {"", "list", "one"}
        Whether the caller chose by the cluster how many items a task has: then the value of a task
        is the list of its items' values, or one value made of them all. ``""``: its tasks are the
        same on every cluster. Predictions for other clusters cut such tasks anew.
    halve : callable or None
        ``halve(task)``: returns tasks that make the same bits in smaller steps, the last under the
        task's own key; None if it cannot be made smaller. Called when a node ran out of memory.
    host_inputs : bool
        Whether the arguments stay in host memory on a GPU too: the implementation moves the part of
        them that it needs, which may be small.
    own_process : bool
        Whether the GPU implementation runs in processes of its own beside the executor of the GPU,
        with memory of the card that only these processes use. See `function`.

    References
    ----------
    C. Augonnet et al., "StarPU: a unified platform for task scheduling on heterogeneous
    multicore architectures", CCPE 23(2), 2011.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> import numpy as np
    >>> total = ar.Codelet("total", cpu=np.sum)
    >>> graph = ar.TaskGraph([ar.Task.of(total, [1, 2, 3], key="t")], ["t"])
    >>> int(ar.get_session().submit(graph).result()[0])
    6
    """

    name: str
    cpu: Callable[..., Any] | None
    gpu: Callable[..., Any] | None = None
    cost: CostHint | None = None
    version: str = ""
    opaque: bool = False
    has_effects: bool = False
    speculative: bool = True
    chunk_axis: int | None = None
    host_inputs: bool = False
    own_process: bool = False
    pieces: Pieces = ""
    retry_on: tuple[type[BaseException], ...] = ()
    halve: Callable[[Task], tuple[Task, ...] | None] | None = None
    _content: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArgumentError("a codelet needs a name")
        if self.cpu is None and self.gpu is None:
            raise InvalidArgumentError(f"codelet {self.name!r} needs a cpu or a gpu implementation")
        for kind in ("cpu", "gpu"):
            implementation = getattr(self, kind)
            if implementation is not None and not callable(implementation):
                raise InvalidArgumentError(
                    f"the {kind} implementation of codelet {self.name!r} is not callable"
                )
        for error in self.retry_on:
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise InvalidTypeError(f"retry_on must hold exception types, not {error!r}")

    def __content_key__(self) -> str:
        """Digest everything that its values depend on, once: very many tasks share a codelet."""
        if not self._content:
            what = (self.name, self.version, self.cpu, self.gpu, self.cost)
            how: tuple[Any, ...] = (
                self.opaque,
                self.has_effects,
                self.speculative,
                self.chunk_axis,
                self.host_inputs,
            )
            if self.own_process:
                how = (*how, True)
            object.__setattr__(self, "_content", content_key("codelet", what, how))
        return self._content

    def implementation(self, kind: str) -> Callable[..., Any] | None:
        """Return the implementation for device kind ``"cpu"``, ``"gpu"`` or ``"card"``, or
        None."""
        return self.cpu if kind == "cpu" else self.gpu


def capture_codelet(codelet: Codelet) -> Codelet:
    """Return ``codelet`` with its implementations as they are now, whatever they see later.

    Raises
    ------
    SerializationError
        An implementation cannot be pickled.
    """
    cpu, gpu = map(_taken, (codelet.cpu, codelet.gpu))
    if cpu is codelet.cpu and gpu is codelet.gpu:
        return codelet
    return replace(codelet, cpu=cpu, gpu=gpu)


def _taken(implementation: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Capture an implementation. (Functions of this package's own hold users' functions as they
    were captured then.)"""
    module = getattr(implementation, "__module__", None)
    if implementation is None or str(module).startswith("agentic_ray."):
        return implementation
    return capture(implementation)


@dataclass(frozen=True, slots=True)
class Ref:
    """Stand-in, in a task's arguments, for the value of the task with this key."""

    key: str


def find_refs(value: Any) -> Iterator[str]:
    """Yield the keys of the ``Ref``s in ``value``: in tuples (also named), lists and dict
    values."""
    if isinstance(value, Ref):
        yield value.key
    elif type(value) in (list, tuple) or is_named_tuple(value):
        for element in value:
            yield from find_refs(element)
    elif type(value) is dict:
        for element in value.values():
            yield from find_refs(element)


def replace_refs(value: Any, lookup: Callable[[str], Any]) -> Any:
    """Return ``value`` with every ``Ref`` replaced by ``lookup(key)``; containers are rebuilt."""
    if isinstance(value, Ref):
        return lookup(value.key)
    if type(value) is list:
        return [replace_refs(element, lookup) for element in value]
    if type(value) is tuple:
        return tuple(replace_refs(element, lookup) for element in value)
    if type(value) is dict:
        return {name: replace_refs(element, lookup) for name, element in value.items()}
    if is_named_tuple(value):
        return type(value)._make(replace_refs(element, lookup) for element in value)
    return value


def is_named_tuple(value: Any) -> bool:
    """Whether ``value`` is of a class that `typing.NamedTuple` makes."""
    return isinstance(value, tuple) and hasattr(type(value), "_make")


DEFAULT_RESOURCES = Resources()
DEFAULT_COST = CostHint()
"""Cost and resources of tasks that name none: one object each, so that such tasks are seen to be
alike."""


@dataclass(frozen=True, slots=True)
class Task:
    """A call of a codelet. Make it with `Task.of`, which finds dependencies and the key.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.graph import Ref
    >>> double = ar.Codelet("double", cpu=lambda x: 2 * x)
    >>> first = ar.Task.of(double, 1, key="first")
    >>> second = ar.Task.of(double, Ref("first"), key="second")
    >>> second.dependencies
    ('first',)
    """

    key: str
    codelet: Codelet
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    tag: Tag = "any"
    resources: Resources = DEFAULT_RESOURCES
    cost: CostHint = DEFAULT_COST
    priority: int = 0

    def __post_init__(self) -> None:
        if self.tag not in TAGS:
            raise InvalidArgumentError(f"tag must be one of {TAGS}, not {self.tag!r}")

    @classmethod
    def of(
        cls,
        codelet: Codelet,
        *args: Any,
        key: str | None = None,
        tag: Tag = "any",
        resources: Resources | None = None,
        cost: CostHint | None = None,
        priority: int = 0,
        **kwargs: Any,
    ) -> Task:
        """Make a task whose key is the content hash of codelet, version and arguments.

        References among ``args`` and ``kwargs`` become the dependencies. ``key`` overrides the
        hash for callers that know a cheaper name of the same content.
        """
        dependencies = tuple(dict.fromkeys(find_refs((args, kwargs))))
        return cls(
            key or content_key(codelet.name, codelet, args, kwargs),
            codelet,
            args,
            kwargs,
            dependencies,
            tag,
            resources or DEFAULT_RESOURCES,
            cost or codelet.cost or DEFAULT_COST,
            priority,
        )

    def kinds(self) -> tuple[str, ...]:
        """Return the device kinds this task may run on, best first, by tag and implementations.

        A task tagged ``"gpu"`` may still run on the CPU when its codelet can: a cluster
        without a GPU runs everything on the CPU and says so.
        """
        codelet = self.codelet
        if self.tag == "cpu":
            return ("cpu",) if codelet.cpu is not None else ()
        if codelet.gpu is None:
            return ("cpu",)
        kind = CARD if codelet.own_process else "gpu"
        return (kind, "cpu") if codelet.cpu is not None else (kind,)


class TaskGraph:
    """An immutable, validated set of tasks in topological order, with the keys wanted from it.

    Parameters
    ----------
    tasks : iterable of Task
        In any order. The same task may appear twice, as one object or as equal content; two
        different tasks with one key may not.
    outputs : iterable of str
        Keys whose values are the result, in the order the caller wants them.

    Raises
    ------
    DuplicateKeyError, MissingKeyError, CycleError
        The graph is not valid; each error names the keys at fault.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> double = ar.Codelet("double", cpu=lambda x: 2 * x)
    >>> graph = ar.TaskGraph([ar.Task.of(double, 21, key="answer")], outputs=["answer"])
    >>> graph
    TaskGraph(1 tasks, 1 outputs)
    >>> ar.get_session().submit(graph).result()
    [42]
    """

    __slots__ = ("_by_key", "outputs", "tasks")

    tasks: tuple[Task, ...]
    outputs: tuple[str, ...]
    _by_key: dict[str, Task]

    def __init__(self, tasks: Iterable[Task], outputs: Iterable[str]) -> None:
        by_key: dict[str, Task] = {}
        duplicates: list[str] = []
        for task in tasks:
            known = by_key.setdefault(task.key, task)
            if known is not task and not _same_content(known, task):
                duplicates.append(task.key)
        if duplicates:
            raise DuplicateKeyError(
                f"more than one task has the key {_named(duplicates)}", duplicates
            )
        wanted = tuple(outputs)
        missing = [key for key in wanted if key not in by_key]
        for task in by_key.values():
            missing += [key for key in task.dependencies if key not in by_key]
        if missing:
            missing = list(dict.fromkeys(missing))
            raise MissingKeyError(f"no task makes {_named(missing)}", missing)
        object.__setattr__(self, "tasks", topological(by_key))
        object.__setattr__(self, "outputs", wanted)
        object.__setattr__(self, "_by_key", by_key)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"TaskGraph is immutable, {name!r} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskGraph, (self.tasks, self.outputs)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __getitem__(self, key: str) -> Task:
        try:
            return self._by_key[key]
        except KeyError:
            raise MissingKeyError(f"no task makes {key!r}", (key,)) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskGraph):
            return NotImplemented
        return self.tasks == other.tasks and self.outputs == other.outputs

    __hash__ = None  # type: ignore[assignment]  # arguments of tasks need not be hashable

    def __repr__(self) -> str:
        return f"TaskGraph({len(self.tasks)} tasks, {len(self.outputs)} outputs)"

    def visualize(self, path: str | os.PathLike[str] | None = None, *, most: int = 24) -> Drawing:
        """Draw the graph; write it to ``path``, an ``.svg`` or ``.html`` file, if that is given.

        Parameters
        ----------
        most : int
            A graph of more tasks is drawn with one box for all tasks of one operation that are
            equally far from the inputs, and their number.

        Raises
        ------
        InvalidArgumentError
            The path has another ending, or the graph is too large even so.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> double = ar.Codelet("double", cpu=lambda x: 2 * x)
        >>> ar.TaskGraph([ar.Task.of(double, 21, key="answer")], ["answer"]).visualize()
        Drawing(title='1 task')
        """
        from agentic_ray.graph.drawing import drawing_of  # it draws what this module defines

        return drawing_of(self, most=most, path=path)

    def _repr_html_(self) -> str:
        try:
            return self.visualize().svg()
        except InvalidArgumentError as error:  # too large to be drawn
            return f"<p>{html.escape(repr(self))}; {html.escape(str(error))}</p>"


def _same_content(one: Task, other: Task) -> bool:
    """Whether two tasks with one key are the same; compared by hash, as arrays have no ``==``."""
    first, second = (
        content_key("", task.codelet, task.args, dict(task.kwargs), task.dependencies, task.tag)
        for task in (one, other)
    )
    return first == second


def _named(keys: list[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:5])
    return shown + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Tasks that run one after the other in one executor: the unit of placement and retry.

    Parameters
    ----------
    key : str
        Key of the last task; unique within a graph.
    tasks : tuple of Task
        In execution order.
    inputs : tuple of str
        Keys of values of other bundles that are needed here.
    outputs : tuple of str
        Keys of values that leave the process.
    """

    key: str
    tasks: tuple[Task, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def priority(self) -> int:
        return max(task.priority for task in self.tasks)

    @property
    def tag(self) -> Tag:
        """Strictest tag among the tasks; ``"any"`` if none is strict."""
        tags = {task.tag for task in self.tasks}
        return "gpu" if "gpu" in tags else "cpu" if "cpu" in tags else "any"

    @property
    def opaque(self) -> bool:
        return any(task.codelet.opaque for task in self.tasks)

    @property
    def output_bytes(self) -> list[int]:
        """Declared bytes of each output, 0 where the task declares none."""
        written = {task.key: task.cost.written_bytes for task in self.tasks}
        return [written[key] for key in self.outputs]

    @property
    def has_effects(self) -> bool:
        return any(task.codelet.has_effects for task in self.tasks)

    @property
    def speculative(self) -> bool:
        """Whether a second copy may run beside it."""
        return all(t.codelet.speculative and not t.codelet.has_effects for t in self.tasks)

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        """Exceptions of the user's after which one of the tasks asks to be tried again."""
        return tuple(dict.fromkeys(e for task in self.tasks for e in task.codelet.retry_on))

    @property
    def resources(self) -> Resources:
        """Least resources in which each of the tasks can run."""
        result = self.tasks[0].resources
        for task in self.tasks[1:]:
            if task.resources is not result:
                result = result.union(task.resources)
        return result

    @property
    def items(self) -> int:
        """Number of logical tasks inside, for the decomposition rate."""
        return sum(task.cost.items for task in self.tasks)

    def kinds(self) -> tuple[str, ...]:
        """Return the device kinds on which every task of the bundle can run, best first."""
        kinds = self.tasks[0].kinds()
        for task in self.tasks[1:]:
            others = task.kinds()
            kinds = tuple(kind for kind in kinds if kind in others)
        return kinds

    def on_cpu(self) -> Bundle:
        """Return the same work, to be run on a CPU only."""
        tasks = tuple(replace(task, tag="cpu") for task in self.tasks)
        return Bundle(self.key, tasks, self.inputs, self.outputs)
