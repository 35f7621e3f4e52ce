"""Plans that are kept: work whose steps were planned before is run again without planning it.

A loop computes an expression of the same operations, shapes and chunks again and again, over other
values. The second time, `Prepared` keeps the tasks with references in place of the arrays and
Python scalars of the caller; from the third time on these are only filled in. The tasks are those
that planning gives, so the bits are the same: before a plan is kept, it is filled with the values
of the day and compared with the plan that was made of them.

Only plans that run in the caller's process are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentic_ray.array.core.chunks import block_slices, rules
from agentic_ray.array.core.lineage import STORED, Kept, is_here
from agentic_ray.array.core.lower import Lowering
from agentic_ray.array.core.node import DATA, LITERAL, Held, NDArray, Node, exact, topological
from agentic_ray.array.core.order import in_c_order
from agentic_ray.array.core.program import Call, Program
from agentic_ray.array.core.rules import optimize
from agentic_ray.array.core.views import RECHUNK
from agentic_ray.array.core.windows import Cut, is_reading
from agentic_ray.graph import Ref, Task, replace_refs
from agentic_ray.recent import Recent

_logger = logging.getLogger("agentic_ray")

MOST_PLANS = 256
"""So many plans are kept, those that ran last."""
MOST_TASKS = 20_000
"""All plans that are kept have no more tasks than this together."""
MOST_TASKS_EACH = 2_000
"""A plan of more tasks is not kept."""
MOST_HELD_BYTES = 1 << 16
"""Nor is one with a larger array among the parameters of its operations, such as an index."""

LOOKS = 4
LOOKS_EVERY = 32
"""The first runs of a plan that is kept are timed, and then each of so many."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of some expressions, on which their plan depends, and their values, on which not.

    Parameters
    ----------
    key : tuple
        The operations with their parameters, dtypes, chunks and devices; equal for expressions
        that are planned alike.
    leaves : list of Node
        Arrays in the caller's memory, in the order in which they are met.
    numbers : list of bool, int, float or complex
        Python scalars, in the order in which they are met.
    """

    key: tuple[Any, ...]
    leaves: list[Node]
    numbers: list[Any]


def form_of(roots: Sequence[Node], settings: Hashable) -> Form | None:
    """Return the form of expressions; None if plans of such are not kept. ``settings``: all else
    that decides whether and how they are computed here."""
    places: dict[Node, int] = {}
    parts: list[Any] = []
    leaves: list[Node] = []
    numbers: list[Any] = []
    for node in topological(roots):
        op = node.op
        if op is LITERAL:
            part: Any = type(node.params[2])
            numbers.append(node.params[2])
        elif node.value is not None or op is DATA or op is STORED:
            # (A known array that is cut otherwise is read where it was made of, unless that is it.)
            if op is RECHUNK or isinstance(node.value, tuple):
                return None
            if op is STORED and not is_here(node.params[0].value):
                return None
            made = (op, exact(node.params)) if op.kind == "create" else op.kind
            part = (made, node.value is None, node.dtype, node.chunks, node.device)
            leaves.append(node)
        elif op.of_user or any(_is_large(param) for param in node.params):
            return None
        else:
            inputs = tuple([places[source] for source in node.inputs])
            part = (op, exact(node.params), node.dtype, node.chunks, node.device, inputs)
        places[node] = len(parts)
        parts.append(part)
    key = (settings, rules(), tuple(parts), tuple([places[root] for root in roots]))
    return Form(key, leaves, numbers)


def _is_large(param: Any) -> bool:
    return isinstance(param, Held) and _bytes_in(param.value) > MOST_HELD_BYTES


def _bytes_in(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes_in, value)) if type(value) in (list, tuple) else 0


def array_of(leaf: Node) -> NDArray:
    """Return the array of a leaf in one chunk, or whose chunks are parts of one array."""
    return leaf.params[0].value if leaf.value is None else leaf.value  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of a leaf that tasks are given: number ``block`` of the leaf, or where the leaf is
    one array, the region of it; None: all of it."""

    leaf: int
    region: tuple[slice, ...] | None = None
    block: int | None = None

    def of(self, leaves: Sequence[Node]) -> Any:
        node = leaves[self.leaf]
        if self.block is not None:
            return node.params[0].value[self.block]
        whole = array_of(node)
        return whole if self.region is None else whole[self.region]


class Prepared:
    """A plan with references in place of the caller's arrays and Python scalars.

    Attributes
    ----------
    tasks : list of Task
        In a valid order. Their dependencies are those on each other.
    outputs : list of str
        Keys of the tasks whose values are wanted.
    stays : bool
        Whether it touches so little data that it is run in this process in any case.
    here : bool
        Whether the last prediction was that it ends sooner in this process.
    threads : int
        Threads that were predicted to be quickest; 0: it was not looked at yet.
    runs : int
    """

    def __init__(
        self,
        tasks: list[Task],
        rows: list[list[Any]],
        parts: dict[str, _Part],
        numbers: int,
        stays: bool,
    ) -> None:
        self._numbers = _number_keys(numbers)
        given = {*parts, *self._numbers}
        self.tasks = [_without(task, given) for task in tasks]
        self.outputs = list(dict.fromkeys(b.key for row in rows for b in row if b.key not in given))
        self.stays = self.here = stays
        self.threads = 0
        self.runs = 0
        self._rows = rows
        self._parts = parts
        wanted = {block.key for row in rows for block in row}
        self._steps = _steps(tasks, wanted | given)

    @property
    def is_due(self) -> bool:
        """Whether it is time to see how long the tasks take, and to predict anew."""
        return self.runs < LOOKS or not self.runs % LOOKS_EVERY

    def given(self, form: Form) -> dict[str, Any]:
        """Return the caller's arrays and scalars by the keys that tasks know them by."""
        found = {key: part.of(form.leaves) for key, part in self._parts.items()}
        if self.stays:  # little data: no two tasks shall have to copy the same part
            found = {key: in_c_order(block) for key, block in found.items()}
        found.update(zip(self._numbers, form.numbers, strict=True))
        return found

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run the tasks in this thread, in the order in which they are listed; return the values
        that are wanted, by key. Others are dropped after their last use."""
        made = dict(given)
        for key, function, readers, kwargs, done in self._steps:
            made[key] = function(*[read(made) for read in readers], **kwargs, xp=np)
            for other in done:
                del made[other]
        return made

    def blocks(self, made: Mapping[str, Any], given: Mapping[str, Any]) -> list[list[Any]]:
        """Return the blocks of each expression."""
        return [[made[b.key] if b.key in made else given[b.key] for b in row] for row in self._rows]


_Reader = Callable[[Mapping[str, Any]], Any]
"""Returns an argument of a task, given the values that were made so far."""
_Step = tuple[str, Callable[..., Any], Sequence[_Reader], Mapping[str, Any], list[str]]


def _steps(tasks: Sequence[Task], kept: set[str]) -> list[_Step]:
    """Return each task's call, with the keys of the values that no later task reads."""
    found: list[_Step] = []
    later = set(kept)
    for task in reversed(tasks):
        function = task.codelet.cpu
        assert function is not None
        done = [key for key in task.dependencies if key not in later]
        later.update(done)
        readers = [_reader(argument, function) for argument in task.args]
        found.append((task.key, function, readers, task.kwargs, done))
    return found[::-1]


def _reader(argument: Any, function: Callable[..., Any]) -> _Reader:
    """Return what reads an argument of a function: all that depends on the plan alone is looked up
    here, once."""
    if type(argument) is Ref:
        key = argument.key
        return lambda made: in_c_order(made[key])
    if is_reading(argument) and len(argument) == 2 and type(argument[1]) is Ref:
        cut, key = argument[0], argument[1].key
        view = cut.view(0) if type(cut) is Cut else None
        if view is not None and _takes_views(function):
            return lambda made: view(in_c_order(made[key]))
        if view is not None and type(function) is Call:
            return lambda made: in_c_order(view(in_c_order(made[key])))
    if not _names_values(argument):
        value = in_c_order(argument)
        return lambda _: value
    return lambda made: in_c_order(replace_refs(argument, made.__getitem__))


def _takes_views(function: Callable[..., Any]) -> bool:
    """Whether a task's function takes a view where a task is given a cut and its block."""
    return type(function) is Program or (
        type(function) is Call and getattr(function.kernel, "takes_views", False)
    )


def _names_values(argument: Any) -> bool:
    """Whether values are to be put in place of references in an argument."""
    found: list[str] = []
    replace_refs(argument, found.append)
    return bool(found)


def _without(task: Task, given: set[str]) -> Task:
    return replace(task, dependencies=tuple([k for k in task.dependencies if k not in given]))


def _number_keys(count: int) -> list[str]:
    return [f"number/{at}" for at in range(count)]


# --- the table ---------------------------------------------------------------------------

_seen: Recent[int, None] = Recent(4096)
_plans: Recent[tuple[Any, ...], Prepared | None] = Recent(
    MOST_PLANS, MOST_TASKS, lambda plan: 1 if plan is None else len(plan.tasks)
)


def find(form: Form) -> Prepared | None:
    """Return the plan that is kept for expressions of this form, if there is one."""
    found: Prepared | None = _plans.get(form.key)
    return found


def keep(
    form: Form,
    roots: Sequence[Node],
    tasks: list[Task],
    blocks: list[list[Any]],
    *,
    stays: bool,
) -> None:
    """Keep a plan if such expressions were met before.

    Parameters
    ----------
    roots : sequence of Node
        What has the form.
    tasks : list of Task
        As planned, with the values of today.
    blocks : list of list
        The blocks of each expression, as planned.
    stays : bool
        Whether it touches so little data that it is run in this process in any case.
    """
    if len(tasks) > MOST_TASKS_EACH or form.key in _plans:
        return
    if _seen.add(hash(form.key), None):
        return
    _plans[form.key] = _prepared(form, roots, tasks, blocks, stays)


def forget() -> None:
    """Forget all plans."""
    _seen.clear()
    _plans.clear()


# --- making one --------------------------------------------------------------------------


def _prepared(
    form: Form,
    roots: Sequence[Node],
    tasks: Sequence[Task],
    blocks: list[list[Any]],
    stays: bool,
) -> Prepared | None:
    """Plan again with references in place of the values; None if that is not the same plan."""
    numbers = iter(_number_keys(len(form.numbers)))
    copies: dict[Node, Node] = {}
    stand_ins: dict[int, int] = {}  # by the id of an array or a list of blocks: the leaf's number
    alive: list[Any] = []
    leaves = {node: at for at, node in enumerate(form.leaves)}
    for node in topological(roots):
        if node.op is LITERAL:
            kind, text, _ = node.params
            reference = Ref(next(numbers))
            copy = Node(LITERAL, (), (kind, text, reference), (), node.dtype, (), node.device)
        elif node in leaves:
            copy, stand_in = _stand_in(node, leaves[node])
            stand_ins[id(stand_in)] = leaves[node]
            alive.append(stand_in)
        else:
            inputs = tuple([copies[source] for source in node.inputs])
            copy = Node(
                node.op, inputs, node.params, node.shape, node.dtype, node.chunks, node.device
            )
        copies[node] = copy
    parts: dict[str, _Part] = {}

    def place(node: Node, _: Sequence[Any]) -> list[Any]:
        leaf = stand_ins[id(array_of(node))]
        keys = [f"leaf/{leaf}/{len(parts) + at}" for at in range(node.blocks)]
        regions = [None] if node.blocks == 1 else block_slices(node.chunks)
        parts.update((k, _Part(leaf, region)) for k, region in zip(keys, regions, strict=True))
        return [Ref(key) for key in keys]

    for leaf, node in enumerate(form.leaves):
        if node.op is STORED:
            parts.update((f"stored/{leaf}/{i}", _Part(leaf, block=i)) for i in range(node.blocks))
    lowering = Lowering(place)
    try:
        rows = lowering.run(optimize([copies[root] for root in roots]))
    except Exception as error:  # an operation looks at values when it is planned
        _logger.debug("a plan is not kept: %s: %s", type(error).__name__, error)
        return None
    if not all(type(block) is Ref for row in rows for block in row):
        return None
    plan = Prepared(lowering.tasks, rows, parts, len(form.numbers), stays)
    same = _Same(plan.given(form))
    alike = len(tasks) == len(lowering.tasks) and all(
        same.tasks(kept, own) for kept, own in zip(lowering.tasks, tasks, strict=True)
    )
    return plan if alike and same(rows, blocks) else None


def _stand_in(node: Node, leaf: int) -> tuple[Node, Any]:
    """Return a copy of a leaf, and the array (or the blocks, of a persisted leaf) that stands in
    the copy for the caller's values: an array that was never filled, or references."""
    if node.op is STORED:
        blocks = [Ref(f"stored/{leaf}/{i}") for i in range(node.blocks)]
        held = Kept(blocks)
        copy = Node(STORED, (), (held,), node.shape, node.dtype, node.chunks, node.device)
        copy.small = node.small
        return copy, held
    array = np.empty(node.shape, node.dtype)
    params = (Held(array),) if node.op is DATA else node.params
    copy = Node(node.op, (), params, node.shape, node.dtype, node.chunks, node.device)
    if node.value is not None:
        copy.value = array
    return copy, array


class _Same:
    """Compares a plan with references, filled with ``given``, to a plan with values in it."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._keys: dict[str, str] = {}  # by the key of a task of the first plan

    def tasks(self, kept: Task, own: Task) -> bool:
        """Whether two tasks, those before which are the same, are the same."""
        self._keys[kept.key] = own.key
        return (
            kept.codelet == own.codelet
            and (kept.tag, kept.resources, kept.cost) == (own.tag, own.resources, own.cost)
            and kept.kwargs == own.kwargs
            and self(kept.args, own.args)
        )

    def __call__(self, kept: Any, own: Any) -> bool:
        if type(kept) is Ref:
            if kept.key in self._given:
                return _same_value(self._given[kept.key], own)
            return type(own) is Ref and self._keys.get(kept.key) == own.key
        if type(kept) in (list, tuple):
            return type(own) is type(kept) and len(own) == len(kept) and all(map(self, kept, own))
        return _same_value(kept, own)


def _same_value(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and (_address(one) == _address(other) or one.tobytes() == other.tobytes())
        )
    return repr(one) == repr(other) if isinstance(one, int | float | complex) else one == other


def _address(array: NDArray) -> tuple[int, tuple[int, ...]]:
    return array.__array_interface__["data"][0], array.strides
