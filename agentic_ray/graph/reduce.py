"""Reductions in one canonical tree that depends on the number of leaves and on nothing else.

The tree ``T(n)`` splits ``n`` leaves at the largest power of two below ``n`` (the shape of
RFC 6962's Merkle trees). Its subtrees over aligned power-of-two spans are the same whatever
the chunking, so neither chunk size nor fan-in nor schedule nor faults can change a bit of the
result, and the operator need only be associative, never commutative.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentic_ray.errors import EmptyInputError, InvalidArgumentError
from agentic_ray.graph.captured import Captured
from agentic_ray.graph.keys import content_key
from agentic_ray.graph.task import Codelet, CostHint, Ref, Resources, Tag, Task

DEFAULT_FAN_IN = 16
_FOLD_BLOCK = 4096  # leaves folded at a time, so that mapped values do not pile up

Shape = Any  # an index into the values, or a pair of Shapes


def fold(combine: Callable[[Any, Any], Any], values: Iterable[Any]) -> Any:
    """Reduce ``values`` by the binary ``combine`` in the canonical tree, in bounded memory.

    Raises
    ------
    EmptyInputError
        There is no value.
    """
    stack: list[tuple[int, Any]] = []  # (height, subtree), heights strictly falling
    block: list[Any] = []
    for value in values:
        block.append(value)
        if len(block) == _FOLD_BLOCK:
            _push(combine, stack, _fold_list(combine, block))
            block = []
    if block:
        stack.append((0, _fold_list(combine, block)))
    if not stack:
        raise EmptyInputError("cannot reduce an empty input without an initial value")
    result = stack.pop()[1]
    while stack:
        result = combine(stack.pop()[1], result)
    return result


def _push(combine: Callable[[Any, Any], Any], stack: list[tuple[int, Any]], value: Any) -> None:
    height = 0
    while stack and stack[-1][0] == height:
        value = combine(stack.pop()[1], value)
        height += 1
    stack.append((height, value))


def _fold_list(combine: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    """Fold level by level; an odd last value is carried up, which is where T(n) puts it."""
    while len(values) > 1:
        tail = values[-1:] if len(values) % 2 else []
        # (not map: a StopIteration raised by the operator would end it as if all were done)
        pairs = zip(values[0:-1:2], values[1::2], strict=True)
        values = [combine(left, right) for left, right in pairs] + tail
    return values[0]


def aligned_spans(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut leaves ``start..stop`` into aligned spans of at most ``size`` leaves each.

    ``size`` is rounded down to a power of two. Every span but the last is a power of two long
    and starts at a multiple of its length, hence a subtree of ``T(n)`` for every ``n >= stop``;
    the last may be shorter when it ends at ``stop``.
    """
    if size < 1:
        raise InvalidArgumentError(f"a span has at least one leaf, not {size}")
    size = 1 << (size.bit_length() - 1)
    spans: list[tuple[int, int]] = []
    while start < stop:
        length = size if start == 0 else min(size, start & -start)
        spans.append((start, min(start + length, stop)))
        start += length
    return spans


def span_shape(spans: Sequence[tuple[int, int]]) -> Shape:
    """Return the canonical tree over consecutive ``spans``, as nested pairs of their indices.

    The spans are all leaves, from 0, or those of one aligned subtree.
    """
    index = {span: i for i, span in enumerate(spans)}

    def build(low: int, high: int) -> Shape:
        found = index.get((low, high))
        if found is not None:
            return found
        if high - low < 2:
            raise InvalidArgumentError(f"spans do not tile the leaves at {low}")
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        return (build(low, middle), build(middle, high))

    if not spans:
        raise EmptyInputError("cannot reduce an empty input without an initial value")
    expected = spans[0][0]
    for start, stop in spans:
        if start != expected or stop <= start:
            raise InvalidArgumentError(f"spans do not tile the leaves at {expected}")
        expected = stop
    return build(spans[0][0], spans[-1][1])


class Fold:
    """Combines the values of one tree task in the nested shape it is given."""

    __slots__ = ("combine",)

    def __init__(self, combine: Callable[..., Any]) -> None:
        self.combine = combine

    def __content_key__(self) -> str:
        return content_key("fold", self.combine)

    def __reduce__(self) -> tuple[Any, ...]:
        return Fold, (self.combine,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fold) and self.combine == other.combine

    def __hash__(self) -> int:
        return hash((Fold, self.combine))

    def __call__(self, shape: Shape, values: Sequence[Any], *, xp: Any = None) -> Any:
        combine = (
            functools.partial(self.combine, xp=xp) if accepts_xp(self.combine) else self.combine
        )

        def build(node: Shape) -> Any:
            if isinstance(node, tuple):
                return combine(build(node[0]), build(node[1]))
            return values[node]

        return build(shape)


def accepts_xp(function: Callable[..., Any]) -> bool:
    """Whether ``function`` takes the device's array namespace as keyword ``xp``."""
    if isinstance(function, Captured):
        return "xp" in function.keywords
    try:
        hash(function)
    except TypeError:  # a callable object that compares by content
        return _takes_xp(function)
    return _takes_xp_remembered(function)


def _takes_xp(function: Callable[..., Any]) -> bool:
    try:
        parameter = inspect.signature(function).parameters.get("xp")
    except (TypeError, ValueError):  # many builtins have no signature
        return False
    return parameter is not None and parameter.kind is not parameter.POSITIONAL_ONLY


_takes_xp_remembered = functools.lru_cache(maxsize=256)(_takes_xp)


def tree_reduce(
    keys: Sequence[str],
    combine: Codelet,
    *,
    fan_in: int = DEFAULT_FAN_IN,
    spans: Sequence[tuple[int, int]] | None = None,
    tag: Tag = "any",
    priority: int = 0,
    resources: Resources | None = None,
    cost: CostHint | None = None,
    prefix: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> tuple[list[Task], str]:
    """Make the tasks that reduce the values of ``keys``, in order; return them and the result's
    key.

    Parameters
    ----------
    keys : sequence of str
        Values to reduce, in order; one key needs no task at all.
    combine : Codelet
        ``combine(left, right) -> value``, associative; it need not be commutative.
    fan_in : int
        Most values one task takes, at least 2 (rounded down to a power of two). It decides how many
        tasks there are, never the order of combination.
    spans : sequence of (start, stop), optional
        Leaves that each key stands for when they differ, from `aligned_spans`; all of them or
        those of one aligned subtree.
    prefix : str, optional
        Beginning of the tasks' keys, if it tells them from all others; by default the keys are
        hashes of the tasks' content.
    values : mapping, optional
        Values of keys that no task makes: they are arguments of the tasks.

    Returns
    -------
    tasks, root : list of Task, str

    Raises
    ------
    EmptyInputError
        No keys.
    InvalidArgumentError
        ``fan_in`` below 2, or spans that do not tile the leaves.
    """
    if fan_in < 2:
        raise InvalidArgumentError(f"fan_in must be at least 2, not {fan_in}")
    if not keys:
        raise EmptyInputError("cannot reduce an empty input without an initial value")
    if spans is None:
        spans = [(i, i + 1) for i in range(len(keys))]
    elif len(spans) != len(keys):
        raise InvalidArgumentError(f"{len(keys)} keys but {len(spans)} spans")
    codelet = Codelet(
        f"{combine.name}.tree",
        None if combine.cpu is None else Fold(combine.cpu),
        None if combine.gpu is None else Fold(combine.gpu),
        version=combine.version,
        opaque=combine.opaque,
        has_effects=combine.has_effects,
        retry_on=combine.retry_on,
    )
    levels = fan_in.bit_length() - 1
    given = {} if values is None else values
    tasks: dict[str, Task] = {}  # equal subtrees of equal values are one task

    def reduce_node(node: Shape) -> str:
        """Return the key of the subtree's value, emitting one task per ``levels`` levels of it."""
        if not isinstance(node, tuple):
            return keys[node]
        inputs: list[str] = []

        def shape_of(inner: Shape, depth: int) -> Shape:
            if isinstance(inner, tuple) and depth < levels:
                return (shape_of(inner[0], depth + 1), shape_of(inner[1], depth + 1))
            inputs.append(reduce_node(inner))
            return len(inputs) - 1

        shape = shape_of(node, 0)
        task = Task.of(
            codelet,
            shape,
            [given[key] if key in given else Ref(key) for key in inputs],
            key=content_key(codelet.name, codelet, shape, inputs)
            if prefix is None
            else f"{prefix}/{len(tasks)}",
            tag=tag,
            priority=priority,
            resources=resources,
            cost=cost or CostHint(items=0),
        )
        tasks.setdefault(task.key, task)
        return task.key

    root = reduce_node(span_shape(spans))
    return list(tasks.values()), root
