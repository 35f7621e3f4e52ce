"""Kernels that run on the executors: map the leaves of a chunk and fold them in the canonical tree.

A leaf is the argument of one call of the map function: an element, a block of an array, or a part
of a file (whose elements are leaves of their own below it). A piece is a `Part`, or a tuple
``(data, start, stop, step)``: rows ``start..stop`` of a sequence, in blocks of ``step`` rows or, if
that is None, one by one.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agentic_ray.graph import (
    Codelet,
    CostHint,
    Kernel,
    Ref,
    Task,
    accepts_xp,
    capture,
    capture_codelet,
    content_key,
    fold,
    loaded,
    name_of,
)
from agentic_ray.mapreduce.folding import FoldLeaf, own, position_of
from agentic_ray.mapreduce.retries import NO_RETRIES, Retries
from agentic_ray.runtime import (
    BundleCancelled,
    ElementFailure,
    Inline,
    check_cancelled,
    element_watcher,
)
from agentic_ray.sources import Part
from agentic_ray.sources.frames import Rows


class Nothing:
    """Value of a part that has no elements: the identity of every reduction."""

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING = Nothing()


@dataclass(frozen=True)
class MapChunk:
    """Kernel that maps the leaves of a chunk and, with a ``reduce``, reduces them, else lists
    them."""

    function: Callable[..., Any]
    reduce: Callable[..., Any] | None
    retries: Retries = NO_RETRIES

    def __call__(self, chunk: int, first: int, pieces: Sequence[Any], *, xp: Any = None) -> Any:
        function, reduce = loaded(self.function), self.reduce
        watcher = element_watcher()
        size = 0  # elements of a leaf, for a fold
        if isinstance(function, FoldLeaf):
            size, function = function.size, function.opened(first, watcher)
            watcher = None
        elif accepts_xp(function):
            function = _on_device(function, xp)
        function = self.retries.around(function)
        if reduce is not None:
            reduce = loaded(reduce)
            if accepts_xp(reduce):
                reduce = functools.partial(reduce, xp=xp)
            reduce = self.retries.around(reduce)
        if watcher is not None and not (
            pieces and isinstance(pieces[0], Part) and pieces[0].unit != "block"
        ):
            function = _watched(function, first, watcher)
        values = self._values(function, chunk, first, pieces, reduce, size)
        try:
            if reduce is None:
                return list(values)
            if pieces and isinstance(pieces[0], Part):
                return fold(Optional(reduce), values)
            return fold(reduce, values)
        except ElementFailure:
            raise
        except BundleCancelled:
            raise
        except BaseException as error:  # from the user's reduce function
            raise ElementFailure(chunk, None) from error

    def _values(
        self,
        function: Callable[..., Any],
        chunk: int,
        first: int,
        pieces: Sequence[Any],
        reduce: Callable[..., Any] | None,
        size: int,
    ) -> Iterator[Any]:
        index = first - 1
        try:
            for piece in pieces:
                if isinstance(piece, Part):
                    index += 1
                    check_cancelled()
                    loaded = piece.load()
                    if piece.unit == "block":
                        yield function(loaded)
                    elif reduce is None:
                        for element in loaded:
                            yield function(element)
                    else:
                        mapped = [function(element) for element in loaded]
                        yield fold(reduce, mapped) if mapped else NOTHING
                    continue
                data, start, stop, step = piece
                if isinstance(data, Inline):
                    data = data.load()
                if step is None:
                    for element in own(data[start:stop]):
                        index += 1
                        yield function(element)
                else:
                    for low in range(start, stop, step):
                        index += 1
                        check_cancelled()
                        leaf = data[low : min(low + step, stop)]
                        # A fold goes through the rows of a table, a codelet takes the table.
                        through = size > 0 and isinstance(leaf, Rows)
                        yield function(leaf if through else _block(leaf))
        except (BundleCancelled, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit: on an executor it only ends the chunk
            raise ElementFailure(chunk, position_of(error, index, size)) from error


def _block(block: Any) -> Any:
    """Return the block that a codelet gets: a part of a table, or an array, in C order and always
    read-only."""
    if isinstance(block, Rows):
        return block.table
    if isinstance(block, np.ndarray):
        block = np.asarray(block, order="C")
        block.flags.writeable = False
    return block


def _on_device(function: Callable[..., Any], xp: Any) -> Callable[..., Any]:
    """Bind ``xp`` to ``function``. A leaf that is a host array is moved to the device first."""
    if xp is None or xp is np:
        return functools.partial(function, xp=xp)

    def moved(leaf: Any) -> Any:
        return function(xp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, xp=xp)

    return moved


def _watched(
    function: Callable[..., Any], first: int, watcher: Callable[[int | None, Any], None]
) -> Callable[..., Any]:
    """Wrap ``function``: ``watcher`` is told each call, with the leaf's number from ``first``
    on."""
    numbers = itertools.count(first)

    def call(leaf: Any) -> Any:
        watcher(next(numbers), leaf)
        value = function(leaf)
        watcher(None, None)
        return value

    return call


@dataclass(frozen=True)
class Optional:
    """Binary operator that passes over NOTHING."""

    operator: Callable[..., Any]

    def __call__(self, left: Any, right: Any, *, xp: Any = None) -> Any:
        if left is NOTHING or right is NOTHING:
            return right if left is NOTHING else left
        if accepts_xp(self.operator):
            return self.operator(left, right, xp=xp)
        return self.operator(left, right)


@dataclass(frozen=True)
class HalveChunk:
    """Halver: makes two chunks and their combination of one, as in its leaves' canonical tree."""

    map_fn: Any
    reduce_fn: Any
    retries: Retries
    has_effects: bool

    def __call__(self, task: Task) -> tuple[Task, ...] | None:
        chunk, first, pieces = task.args
        leaves = sum(map(_leaves_in, pieces))
        if leaves < 2:
            return None
        left = 1 << ((leaves - 1).bit_length() - 1)
        cuts = _cut(pieces, left)
        cost = task.cost
        items, size = cost.items * left // leaves, cost.read_bytes * left // leaves
        costs = (
            replace(cost, items=items, read_bytes=size),
            replace(cost, items=cost.items - items, read_bytes=cost.read_bytes - size),
        )
        halves = [
            replace(task, key=f"{task.key}/{i}", args=(chunk, at, cuts[i]), cost=costs[i])
            for i, at in enumerate((first, first + left))
        ]
        refs = [Ref(half.key) for half in halves]
        joined = Task.of(
            self._combine(isinstance(pieces[0], Part)),
            *refs,
            key=task.key,
            tag=task.tag,
            priority=task.priority,
        )
        return (*halves, joined)

    def _combine(self, optional: bool) -> Codelet:
        if self.reduce_fn is None:
            opaque = not isinstance(self.map_fn, Codelet)
            return Codelet("concatenate", operator.add, cost=CostHint(items=0), opaque=opaque)
        return combine_codelet(
            self.map_fn,
            self.reduce_fn,
            optional=optional,
            retries=self.retries,
            has_effects=self.has_effects,
        )


def _leaves_in(piece: Any) -> int:
    if isinstance(piece, Part):
        return 1
    _, start, stop, step = piece
    return len(range(start, stop, step or 1))


def _cut(pieces: Sequence[Any], leaves: int) -> tuple[list[Any], list[Any]]:
    """Split ``pieces`` after the first ``leaves`` leaves."""
    left: list[Any] = []
    for i, piece in enumerate(pieces):
        count = _leaves_in(piece)
        if count > leaves:
            if not leaves:
                return left, list(pieces[i:])
            data, start, stop, step = piece
            middle = start + leaves * (step or 1)
            right = [(data, middle, stop, step), *pieces[i + 1 :]]
            return [*left, (data, start, middle, step)], right
        left.append(piece)
        leaves -= count
    return left, []


def taken(function: Any) -> Any:
    """Capture a user's function, or the codelet of a `Kernel`, as it is now.

    None, and a function that was captured already, stays as it is.
    """
    if function is None or isinstance(function, Codelet):
        return function
    return capture_codelet(function.codelet) if isinstance(function, Kernel) else capture(function)


def implementations(function: Any) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
    """Return CPU and GPU version of a result of `taken`: a codelet's, or the function on the
    CPU."""
    if isinstance(function, Codelet):
        return function.cpu, function.gpu
    return function, None


def _has_effects(function: Any) -> bool:
    return isinstance(function, Codelet) and function.has_effects


def _retried(function: Any) -> tuple[type[BaseException], ...]:
    return function.retry_on if isinstance(function, Codelet) else ()


def _short_name(function: Any) -> str:
    full = function.name if isinstance(function, Codelet) else name_of(function)
    return full.rpartition(".")[2]


def chunk_codelet(
    map_fn: Any,
    reduce_fn: Any,
    *,
    retries: Retries = NO_RETRIES,
    has_effects: bool = False,
    auto: bool = False,
) -> Codelet:
    """Make the codelet that maps and folds one chunk. ``auto``: the chunks are cut by the cost of
    their elements."""
    map_fn, reduce_fn = taken(map_fn), taken(reduce_fn)
    cpu, gpu = implementations(map_fn)
    reduce_cpu, reduce_gpu = (None, None) if reduce_fn is None else implementations(reduce_fn)
    retries = retries.also((*_retried(map_fn), *_retried(reduce_fn)))
    # The cost model learns under the name: different functions must not share it.
    names = _short_name(map_fn) + ("" if reduce_fn is None else f"+{_short_name(reduce_fn)}")
    return Codelet(
        content_key(f"map[{names}]", cpu, reduce_cpu)[:-20],
        None if cpu is None else MapChunk(cpu, reduce_cpu, retries),
        None if gpu is None else MapChunk(gpu, reduce_gpu or reduce_cpu, retries),
        opaque=not isinstance(map_fn, Codelet),
        has_effects=has_effects or _has_effects(map_fn) or _has_effects(reduce_fn),
        halve=HalveChunk(map_fn, reduce_fn, retries, has_effects),
        pieces="" if not auto else "list" if reduce_fn is None else "one",
        host_inputs=True,  # a chunk is a small part of the array it is cut from
    )


def combine_codelet(
    map_fn: Any,
    reduce_fn: Any,
    *,
    optional: bool,
    retries: Retries = NO_RETRIES,
    has_effects: bool = False,
) -> Codelet:
    """Make the codelet that combines two chunks' values, in the lane of the map function."""
    map_fn, reduce_fn = taken(map_fn), taken(reduce_fn)
    cpu, gpu = implementations(reduce_fn)
    retries = retries.also(_retried(reduce_fn))
    cpu = None if cpu is None else retries.around(cpu)
    gpu = None if gpu is None else retries.around(gpu)
    if optional:
        cpu = None if cpu is None else Optional(cpu)
        gpu = None if gpu is None else Optional(gpu)
    return Codelet(
        content_key(f"reduce[{_short_name(reduce_fn)}]", cpu)[:-20],
        cpu,
        gpu,
        cost=CostHint(items=0),
        opaque=not isinstance(map_fn, Codelet),
        has_effects=has_effects or _has_effects(reduce_fn),
    )
