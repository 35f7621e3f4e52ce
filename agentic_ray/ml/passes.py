"""A pass over rows: a function of each chunk gives small statistics, which a tree adds up.

Each fit is written as some passes and what it makes of their statistics in between. Statistics are
combined in an order that depends on the number of chunks alone, so placement and faults change no
bit. The parameters of an iteration travel with its tasks; the code is sent once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_array, column_or_1d
from threadpoolctl import ThreadpoolController

from agentic_ray.array.core import evaluate
from agentic_ray.blas import computing, one_thread
from agentic_ray.errors import LostDataError
from agentic_ray.graph import (
    Codelet,
    CostHint,
    Ref,
    Resources,
    Task,
    TaskGraph,
    find_refs,
    fold,
    tree_reduce,
)
from agentic_ray.ml.checkpoints import Log
from agentic_ray.ml.chunks import Chosen, Together, Unreadable, loaded
from agentic_ray.ml.data import Rows, first
from agentic_ray.ml.progress import Progress

Statistics: TypeAlias = Any
"""What a pass gives of a chunk: arrays and numbers, alone or in tuples."""

_MOST_KEPT = 8 * evaluate.LOCAL_BYTES
"""Bytes of chunks after their steps that a fit in this process keeps between its passes."""
_FLOPS = 32.0
"""An element of a chunk counts as so many operations until passes were timed."""
_names = itertools.count()


@dataclass(frozen=True)
class Check:
    """Conditions that chunks must meet before a kernel sees them; scikit-learn's `check_array` sees
    to it.

    Parameters
    ----------
    dtype : tuple of str, or None
        The first is converted to, unless a chunk has one of the others; None: as they are.
    accept_sparse, allow_nan : bool
    finite : bool
        False once a pass has looked at the values.
    y : {"numeric", "labels", "any"}
    """

    dtype: tuple[str, ...] | None = ("float64", "float32")
    accept_sparse: bool = False
    allow_nan: bool = False
    finite: bool = True
    y: str = "any"
    name: str | None = None
    as_table: bool = False

    def of_x(self, block: Any) -> Any:
        """A chunk of features."""
        if self.as_table or (block is not None and self._passes(block)):
            return block
        finite: Any = "allow-nan" if self.allow_nan else True
        return check_array(
            block,
            dtype=None if self.dtype is None else [np.dtype(t) for t in self.dtype],
            accept_sparse="csr" if self.accept_sparse else False,
            ensure_all_finite=finite if self.finite else False,
            order="C",
            ensure_min_samples=0,
            estimator=self.name,
            input_name="X",
        )

    def _passes(self, block: Any) -> bool:
        """Whether nothing needs be done: an array of the right type that was seen before."""
        if self.finite or self.dtype is None:
            return False
        return (
            type(block) is np.ndarray
            and block.dtype.name in self.dtype
            and block.flags.c_contiguous
        ) or (sp.issparse(block) and block.format == "csr" and block.dtype.name in self.dtype)

    def of_y(self, block: Any) -> Any:
        """A chunk of targets."""
        if block is None or self.y == "any":
            return block
        block = np.asarray(block)
        if block.ndim == 2 and block.shape[1] == 1 and self.y == "labels":
            block = column_or_1d(block)
        if self.y == "numeric":
            return check_array(
                block,
                dtype="numeric" if block.dtype.kind in "fiub" else np.float64,
                ensure_2d=False,
                ensure_min_samples=0,
                ensure_all_finite=self.finite,
                estimator=self.name,
                input_name="y",
            ).astype(np.float64, copy=False)
        if block.dtype.kind == "f" and self.finite and not np.isfinite(block).all():
            raise ValueError("Input y contains NaN.")
        return block


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the OpenMP libraries, which scikit-learn's compiled loops use."""
    return ThreadpoolController()


def single() -> Any:
    """A context in which scikit-learn's compiled loops run in the thread that calls them: chunks
    go on side by side already, and several threads add up in an order that is another each time."""
    return _libraries().limit(limits=1, user_api="openmp")


class ChunkCall:
    """A kernel over the chunks of X, y and weights: reads and checks them, then calls it."""

    __slots__ = ("kernel",)

    def __init__(self, kernel: Callable[..., Statistics]) -> None:
        self.kernel = kernel

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kernel,)

    def __call__(self, given: list[Any], steps: Any, check: Check, params: Any) -> Statistics:
        with one_thread, single():
            x, y, w = (
                None if chunk is None else loaded(chunk, own)
                for chunk, own in zip(given, steps, strict=True)
            )
            return self.kernel(check.of_x(x), check.of_y(y), w, *params)


class ChunkMap(ChunkCall):
    """A function of one chunk of rows; a chunk that cannot be read is given as `Unreadable` to
    functions that say they may be given it."""

    __slots__ = ()

    def __call__(self, given: list[Any], steps: Any, check: Check, params: Any) -> Statistics:
        try:
            chunk = loaded(given[0], steps[0])
        except Exception as error:
            if not getattr(self.kernel, "may_fail", False):
                raise
            chunk = Unreadable(str(error))
        with one_thread, single():
            return self.kernel(chunk, *params)


def add(left: Statistics, right: Statistics) -> Statistics:
    """Sums, part by part."""
    if isinstance(left, tuple):
        return tuple([add(a, b) for a, b in zip(left, right, strict=True)])
    return left + right


@functools.lru_cache(maxsize=512)
def _codelet(kernel: Callable[..., Any], kind: type[ChunkCall]) -> Codelet:
    name = f"ml.{getattr(kernel, '__name__', type(kernel).__name__)}"
    return Codelet(name, kind(kernel))


@functools.lru_cache(maxsize=512)
def combining(combine: Callable[..., Any]) -> Codelet:
    return Codelet(f"ml.{combine.__name__}", combine)


def _graph(
    columns: Sequence[Rows | None], code: Codelet, check: Check, params: tuple[Any, ...]
) -> tuple[list[Task], list[str]]:
    """Tasks over each chunk, and their keys."""
    from agentic_ray.runtime import put

    tasks: list[Task] = []
    chunks: list[list[Any]] = []
    head = next(column for column in columns if column is not None)
    for column in columns:
        made: list[Task] = []
        blocks: list[Any] = [None] * len(head.lengths)
        if column is not None:
            made, blocks = column.source.arguments(False)
        tasks += made
        chunks.append(blocks)
    steps = tuple([() if column is None else column.steps for column in columns])
    sent = tuple([put(part) for part in params])
    kept_steps = put(steps)
    nbytes = sum(column.source.nbytes for column in columns if column is not None)
    each = nbytes // max(len(head.lengths), 1) + 1
    cost = CostHint(_FLOPS * each / 8, read_bytes=each, written_bytes=1)
    resources = Resources(memory_bytes=3 * each)
    number = next(_names)
    keys = []
    for i, given in enumerate(zip(*chunks, strict=True)):
        dependencies = tuple(dict.fromkeys(find_refs(given)))  # also in rows taken of a chunk
        key = f"{code.name}@{number}/{i}"
        args = (list(given), kept_steps, check, sent)
        tasks.append(Task(key, code, args, {}, dependencies, "any", resources, cost))
        keys.append(key)
    return list({task.key: task for task in tasks}.values()), keys


def submitted(make: Callable[[], tuple[list[Task], list[str]]]) -> list[Any]:
    """Values of a graph; made anew if the cluster's only node dies with what it held."""
    from agentic_ray.runtime import get_session

    for left in reversed(range(evaluate.MOST_DEATHS)):
        try:
            session = get_session()
            tasks, outputs = make()
            return session.submit(TaskGraph(tasks, outputs)).result()
        except LostDataError:
            if not left:
                raise
    raise AssertionError("the last round raises")


def each_chunk(
    columns: Sequence[Rows], function: Callable[..., Any], *params: Any, kind: type = ChunkMap
) -> list[Any]:
    """``function`` of each chunk, in order, brought here."""
    check = Check(dtype=None, as_table=True)
    code = _codelet(function, kind)
    if all(column.is_here for column in columns):
        return [code.cpu(*args) for args in _local(columns, check, params)]  # type: ignore[misc]
    return submitted(lambda: _graph(columns, code, check, params))


def kept_chunks(data: Rows) -> list[Any]:
    """Handles on the chunks of rows after their steps: `Stored`, or the chunk if it is small or in
    this process. They stay where they were made."""
    if data.is_here:
        return each_chunk([data], first)
    from agentic_ray.runtime import get_session

    code = _codelet(first, ChunkMap)
    check = Check(dtype=None, as_table=True)
    for left in reversed(range(evaluate.MOST_DEATHS)):
        try:
            tasks, outputs = _graph([data], code, check, ())
            return get_session().submit(TaskGraph(tasks, outputs)).handles()
        except LostDataError:
            if not left:
                raise
    raise AssertionError("the last round raises")


def _local(
    columns: Sequence[Rows | None], check: Check, params: tuple[Any, ...]
) -> Iterator[tuple[Any, ...]]:
    """The arguments of each chunk's call."""
    head = next(column for column in columns if column is not None)
    blocks = [
        [None] * len(head.lengths) if column is None else column.source.arguments(True)[1]
        for column in columns
    ]
    steps = tuple([() if column is None else column.steps for column in columns])
    for given in zip(*blocks, strict=True):
        yield list(given), steps, check, params


def _all_loaded(chunks: Sequence[Any], steps: Any) -> list[Any] | None:
    """Each chunk after its steps; None if together they are large."""
    found, size = [], 0
    for chunk in chunks:
        made = loaded(chunk, steps)
        size += size_of(made)
        if size > _MOST_KEPT:
            return None
        found.append(made)
    return found


def size_of(block: Any) -> int:
    """About the bytes of a chunk, here or in the object store."""
    if hasattr(block, "size_bytes"):
        return int(block.size_bytes)
    if sp.issparse(block):
        return int(block.data.nbytes * 2)
    if hasattr(block, "memory_usage"):
        return int(block.memory_usage(deep=True).sum())
    return int(getattr(block, "nbytes", 0))


class Passes:
    """The passes of one fit over X, and with it y and weights.

    Parameters
    ----------
    x, y, weight : Rows or None
        Cut alike.
    check : Check
    log : Log or None
        Where statistics are kept as they are made; those that are there are not made again.
    progress : Progress

    Attributes
    ----------
    n, p : int
        Rows and columns.
    """

    def __init__(
        self,
        x: Rows,
        y: Rows | None,
        weight: Rows | None,
        check: Check,
        log: Log | None,
        progress: Progress,
    ) -> None:
        self.x, self.y, self.weight = x, y, weight
        self.check = check
        self.progress = progress
        self.n = len(x)
        self.p = int(x.shape[1]) if x.ndim > 1 else 1
        self._log = log
        self._known: dict[int, tuple[Rows, list[Any], Any]] = {}

    @property
    def columns(self) -> list[Rows | None]:
        return [self.x, self.y, self.weight]

    @property
    def is_here(self) -> bool:
        """Whether all of it is computed in this process."""
        return all(column is None or column.is_here for column in self.columns)

    @property
    def is_sparse(self) -> bool:
        return bool(sp.issparse(self.x.sample))

    def run(
        self,
        kernel: Callable[..., Statistics],
        *params: Any,
        combine: Callable[[Statistics, Statistics], Statistics] = add,
        numbered: Sequence[Any] | None = None,
    ) -> Statistics:
        """``kernel(x, y, weight, *params)`` of each chunk, combined in the canonical tree.

        Parameters
        ----------
        kernel : callable
            A function of a module.
        *params
            Small: they are sent with each task, or put in the object store once if they are not.
        combine : callable
            Associative.
        numbered : sequence, optional
            One more parameter for each chunk.
        """
        return self._logged(kernel, params, lambda: self._run(kernel, params, combine, numbered))

    def _logged(self, kernel: Any, params: Any, compute: Callable[[], Any]) -> Any:
        if self._log is None:
            return compute()
        return self._log.kept(getattr(kernel, "__name__", "pass"), params, compute)

    def _run(
        self,
        kernel: Callable[..., Statistics],
        params: tuple[Any, ...],
        combine: Callable[[Statistics, Statistics], Statistics],
        numbered: Sequence[Any] | None,
    ) -> Statistics:
        code = _codelet(kernel, ChunkCall)
        if self.is_here:
            found = self._here(code, params, combine, numbered)
        else:

            def make() -> tuple[list[Task], list[str]]:
                tasks, keys = _graph(self.columns, code, self.check, params)
                if numbered is not None:
                    tasks = _with_numbers(tasks, keys, numbered)
                if len(keys) == 1:
                    return tasks, keys
                cost = CostHint(flops=1e4, items=0)
                more, root = tree_reduce(keys, combining(combine), prefix=keys[0], cost=cost)
                return tasks + more, [root]

            (found,) = submitted(make)
        if self.check.finite:  # all chunks were looked at
            self.check = replace(self.check, finite=False)
        return found

    def _taken(self, at: int, column: Rows | None) -> tuple[list[Any], Any]:
        """The chunks of a column of data in this process, and the steps they still need: what the
        steps make of them is kept for the passes to come, if it is not large."""
        if column is None:
            return [None] * len(self.x.lengths), ()
        known = self._known.get(at)
        if known is None or known[0] is not column:
            chunks, steps = column.source.arguments(True)[1], column.steps
            if steps or isinstance(column.source, Chosen | Together):
                with one_thread, single():
                    found = _all_loaded(chunks, steps)
                chunks, steps = (chunks, steps) if found is None else (found, ())
            known = self._known[at] = (column, chunks, steps)
        return known[1], known[2]

    def _here(
        self, code: Codelet, params: tuple[Any, ...], combine: Any, numbered: Sequence[Any] | None
    ) -> Statistics:
        with computing:
            return fold(combine, self._values_here(code, params, numbered))

    def _values_here(
        self, code: Codelet, params: tuple[Any, ...], numbered: Sequence[Any] | None
    ) -> Iterator[Any]:
        """Yield the value of a kernel for each chunk, computed in this process."""
        function: Any = code.cpu
        taken = [self._taken(at, column) for at, column in enumerate(self.columns)]
        steps = tuple([own for _, own in taken])
        for i, given in enumerate(zip(*[own for own, _ in taken], strict=True)):
            own = params if numbered is None else (*params, numbered[i])
            yield function(list(given), steps, self.check, own)

    def keep(
        self,
        kernel: Callable[..., tuple[Any, Statistics]],
        *params: Any,
        numbered: Sequence[Any],
        combine: Callable[[Statistics, Statistics], Statistics] = add,
    ) -> tuple[list[Any], Statistics]:
        """``kernel(x, y, weight, *params, own)`` gives of each chunk something that stays where it
        was made, and statistics, which are combined. No checkpoint keeps them.

        Parameters
        ----------
        numbered : sequence
            ``own`` of each chunk: what such a pass left there before, for example.

        Returns
        -------
        kept : list
            Of each chunk a handle, for ``numbered`` of a pass to come: `Stored`, or the thing
            itself if it is small or in this process.
        statistics

        Raises
        ------
        LostDataError
            What is in ``numbered`` was lost.
        """
        code = _codelet(kernel, ChunkCall)
        if self.is_here:
            kept = []
            with computing:
                sums = []
                for one, own in self._values_here(code, params, numbered):
                    kept.append(one)
                    sums.append(own)
                found = fold(combine, sums)
        else:
            kept, found = _submitted_keeping(self, code, params, combine, numbered)
        self.check = replace(self.check, finite=False)
        return kept, found

    def chain(self, kernel: Callable[..., Any], state: Any, *params: Any) -> Any:
        """``state = kernel(x, y, weight, state, *params)`` over the chunks, one after the other.

        For what cannot be added up; only one task runs at a time.
        """
        return self._logged(kernel, (state, params), lambda: self._chain(kernel, state, params))

    def _chain(self, kernel: Callable[..., Any], state: Any, params: tuple[Any, ...]) -> Any:
        code = _codelet(kernel, ChunkCall)
        if self.is_here:
            function: Any = code.cpu
            for given, steps, check, _ in _local(self.columns, self.check, ()):
                state = function(given, steps, check, (state, *params))
        else:
            (state,) = submitted(lambda: _chained(self, code, state, params))
        self.check = replace(self.check, finite=False)
        return state

    def each(self, kernel: Callable[..., Any], *params: Any, numbered: Sequence[Any]) -> list[Any]:
        """``kernel(x, y, weight, *params)`` of each chunk, not combined, brought here.

        What it gives may be any object; a checkpoint does not keep it.
        """
        code = _codelet(kernel, ChunkCall)
        if self.is_here:
            calls = _local(self.columns, self.check, params)
            function: Any = code.cpu
            return [
                function(given, steps, check, (*own, number))
                for (given, steps, check, own), number in zip(calls, numbered, strict=True)
            ]

        def make() -> tuple[list[Task], list[str]]:
            tasks, keys = _graph(self.columns, code, self.check, params)
            return _with_numbers(tasks, keys, numbered), keys

        return submitted(make)


def first_part(pair: Any) -> Any:
    """The first of two."""
    return pair[0]


def second_part(pair: Any) -> Any:
    """The second of two."""
    return pair[1]


def _submitted_keeping(
    run: Passes, code: Codelet, params: tuple[Any, ...], combine: Any, numbered: Sequence[Any]
) -> tuple[list[Any], Statistics]:
    """Call a kernel that returns a pair for each chunk; return handles on the first members, which
    stay where they were made, and the second members combined."""
    from agentic_ray.runtime import Stored, fetch, get_session

    tasks, keys = _graph(run.columns, code, run.check, params)
    tasks = _with_numbers(tasks, keys, numbered)
    cost = CostHint(flops=1e4, items=0)
    parts: dict[Any, list[str]] = {first_part: [], second_part: []}
    for key in keys:
        for part, names in parts.items():
            names.append(f"{key}/{part.__name__}")
            tasks.append(Task.of(combining(part), Ref(key), key=names[-1], cost=cost))
    root = parts[second_part][0]
    if len(keys) > 1:
        more, root = tree_reduce(parts[second_part], combining(combine), prefix=root, cost=cost)
        tasks += more
    handles = get_session().submit(TaskGraph(tasks, [*parts[first_part], root])).handles()
    found = handles.pop()
    return handles, fetch(found) if isinstance(found, Stored) else found


def _chained(
    run: Passes, code: Codelet, state: Any, params: tuple[Any, ...]
) -> tuple[list[Task], list[str]]:
    """Each task is given what the one before it made."""
    tasks, keys = _graph(run.columns, code, run.check, params)
    before: dict[str, Any] = dict(zip(keys, [state, *map(Ref, keys[:-1])], strict=True))
    linked = []
    for task in tasks:
        if task.key in before:
            held = before[task.key]
            more = (held.key,) if type(held) is Ref else ()
            args = (*task.args[:-1], (held, *task.args[-1]))
            task = replace(task, args=args, dependencies=(*task.dependencies, *more))
        linked.append(task)
    return linked, keys[-1:]


def _with_numbers(tasks: list[Task], keys: list[str], numbered: Sequence[Any]) -> list[Task]:
    own = dict(zip(keys, numbered, strict=True))
    return [
        replace(task, args=(*task.args[:-1], (*task.args[-1], own[task.key])))
        if task.key in own
        else task
        for task in tasks
    ]


def row_blocks(x: Any, elements: int = 1 << 16) -> Iterator[slice]:
    """Slices of rows that a core's cache holds."""
    n, p = x.shape[0], (x.shape[1] if x.ndim > 1 else 1)
    each = max(64, elements // max(p, 1))
    for start in range(0, n, each):
        yield slice(start, min(start + each, n))


@contextmanager
def quiet() -> Iterator[None]:
    """NumPy's warnings off: values that overflow are looked for afterwards."""
    with np.errstate(all="ignore"):
        yield
