"""Expression nodes: immutable, hash-consed, with shape, dtype and chunks known when made.

One node type; what a node does is its `Op`. Nothing here computes.
"""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from agentic_ray.array.core.chunks import Chunks, Shape, block_count
from agentic_ray.array.core.order import in_c_order
from agentic_ray.graph import content_key

NDArray: TypeAlias = np.ndarray[Any, Any]
DType: TypeAlias = np.dtype[Any]
Kind = Literal[
    "literal",  # a Python scalar, weakly typed
    "data",  # an array in the caller's memory
    "stored",  # chunks in the object store
    "create",  # chunks made from their own position
    "map",  # elementwise with broadcasting
    "reduce",  # partial, combine, final
    "tasks",  # lowers itself
    "pick",  # one of the values of a node with several
]

BLOCK_ELEMENTS = 65536
"""Elements of a cache block: programs take chunks block by block, so that what they make on the
way stays in a core's cache. Part of every result's bits."""
SMALL_ELEMENTS = BLOCK_ELEMENTS
"""Arrays up to this size are computed at once, in one piece, by their expression. No more than a
cache block: programs take larger ones in parts, which adds numbers up in another order."""


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """An operation: its kernel over an array namespace and how it becomes tasks.

    Parameters
    ----------
    name : str
    kind : Kind
    kernel : callable
        ``kernel(xp, *values, *params)`` on whole arrays (and, for a map, on blocks). For
        ``create``: ``kernel(xp, (starts, shape), *params)``.
    lower : callable or None
        ``lower(node, lowering)`` gives the node's blocks in C order; for kind ``tasks``.
    weight : float
        Cost of an element, relative to an addition.
    reduction : Reduction or None
        For kind ``reduce``.
    of_user : bool
        The kernel calls a function of the user's, which may take any time: what it takes is
        learnt under its own name, and several blocks are not computed in the caller's process.
    takes_along : callable or None
        ``takes_along(node, operand)``: for kind ``tasks``, whether the tasks of ``node`` make the
        blocks of ``operand``, an elementwise chain, themselves (by `Lowering.made_inside`).
    holds_inputs : bool
        All of its first operand has to be there at one time before the first block can be made.
    reads_views : bool
        For kind ``tasks``: its tasks take blocks by `Lowering.readings`, so moves below it need no
        tasks of their own.
    """

    name: str
    kind: Kind
    kernel: Callable[..., Any]
    lower: Callable[[Node, Any], list[Any]] | None = None
    weight: float = 1.0
    reduction: Reduction | None = None
    of_user: bool = False
    takes_along: Callable[[Node, Node], bool] | None = None
    holds_inputs: bool = False
    reads_views: bool = False

    def __repr__(self) -> str:
        return f"<Op {self.name}>"


@dataclass(frozen=True, slots=True)
class Reduction:
    """The three steps of a reduction; a partial value is an array or a tuple of arrays.

    Parameters
    ----------
    partial : callable
        ``partial(xp, *blocks, axes, *params)``, reduced axes kept with length 1.
    combine : callable
        ``combine(left, right, *, xp)``, associative.
    final : callable
        ``final(xp, value, count, *params)``: the result; ``count`` elements went in each.
    cache_blocks : int
        How many cache blocks are reduced at a time, where partial values are small; 0: the
        whole chunk at once.
    exact : bool
        The result is the same however the elements are cut up before they are combined.
    compiled : str
        What ``partial`` is, where kernels for it can be compiled: ``"sum"``, the plain sum of
        one operand; ``"spread"``, count, sum and the sums of deviations from the mean and of
        their squares; in the dtype that is among its parameters. ``combine`` is elementwise then.
    also : callable or None
        ``also(node, other)``: another reduction of what ``node`` reduces, made from the same
        partial values with the same bits; None if it cannot be.
    """

    partial: Callable[..., Any]
    combine: Callable[..., Any]
    final: Callable[..., Any]
    cache_blocks: int = 1
    compiled: Literal["", "sum", "spread"] = ""
    also: Callable[[Node, Node], Node | None] | None = None
    exact: bool = False


class Held:
    """An unhashable parameter, compared by identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __content_key__(self) -> str:
        return content_key("held", self.value)


class Node:
    """An array-valued expression. Make it with `make`, which shares equal ones unless small."""

    __slots__ = (
        "__weakref__",
        "chunks",
        "device",
        "dtype",
        "inputs",
        "key",
        "op",
        "params",
        "shape",
        "size",
        "small",
        "value",
    )

    def __init__(
        self,
        op: Op,
        inputs: tuple[Node, ...],
        params: tuple[Any, ...],
        shape: Shape,
        dtype: DType,
        chunks: Chunks,
        device: str,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.params = params
        self.shape = shape
        self.dtype = dtype
        self.chunks = chunks
        self.device = device
        self.size: int = math.prod(shape)
        self.key: int = next(_counter)
        self.value: Any = None
        small = self.size <= SMALL_ELEMENTS
        if small:
            for lengths in chunks:
                if len(lengths) != 1:
                    small = False
                    break
            else:
                for node in inputs:
                    if not node.small:
                        small = False
                        break
        self.small: bool = small

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def blocks(self) -> int:
        return block_count(self.chunks)

    @property
    def name(self) -> str:
        """Name within this process, unique for what the node computes."""
        return f"{self.op.name}#{self.key}"

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype}{list(self.shape)} in {self.blocks}>"


_counter = itertools.count()
_known: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def make(
    op: Op,
    inputs: tuple[Node, ...],
    params: tuple[Any, ...],
    shape: Shape,
    dtype: DType,
    chunks: Chunks,
    device: str | None = None,
) -> Node:
    """The node for this expression: if it is large the one that exists already, else a new one."""
    if device is None:
        device = "cpu"
        for node in inputs:
            if node.device != "cpu":
                device = node.device
                break
    node = Node(op, inputs, params, shape, dtype, chunks, device)
    if node.small:
        return node  # computing it takes no longer than looking for an equal one
    return _known.setdefault((op, inputs, exact(params), shape, dtype, chunks, device), node)


def exact(params: tuple[Any, ...]) -> tuple[Any, ...]:
    """``params`` so that only the same are equal: to Python 1, 1.0 and True are equal too, and so
    are 0.0 and -0.0. For keys of tables."""
    return params if _is_exact(params) else tuple([_exact(value) for value in params])


def _is_exact(params: tuple[Any, ...]) -> bool:
    """Whether there are only integers, texts and None in ``params``, as in those of slices."""
    for value in params:
        kind = type(value)
        if kind is int or kind is str or value is None:
            continue
        if kind is not tuple or not _is_exact(value):
            return False
    return True


def _exact(value: Any) -> Any:
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple:
        return exact(value)
    if kind is float or kind is complex or kind is bool or isinstance(value, np.generic):
        return kind, repr(value)
    return value


def literal(value: bool | int | float | complex) -> Node:
    """A Python scalar as an operand: its type gives way to the other operand's."""
    return _literal(value, repr(value))  # 0.0 and -0.0 are equal: only the text tells them apart


@functools.lru_cache(maxsize=1024, typed=True)
def _literal(value: Any, text: str) -> Node:
    kind = type(value)
    return Node(LITERAL, (), (kind.__name__, text, value), (), np.dtype(kind), (), "cpu")


def strong(node: Node) -> Node:
    """The node, or for a Python scalar a leaf over it as an array of its own dtype.

    The value of a literal is never kept in the literal: all expressions share it, and its type
    would not give way any more.
    """
    return data(np.asarray(node.params[2]), ()) if node.op is LITERAL else node


def _literal_kernel(xp: Any, kind: str, text: str, value: Any) -> Any:
    return value


def _data_kernel(xp: Any, held: Held) -> Any:
    return held.value


LITERAL = Op("literal", "literal", _literal_kernel)
DATA = Op("data", "data", _data_kernel)


def data(array: NDArray, chunks: Chunks, device: str = "cpu") -> Node:
    """A leaf over an array in memory, which nobody may change from now on."""
    node = Node(DATA, (), (Held(array),), array.shape, array.dtype, chunks, device)
    if node.small:
        node.value = in_c_order(array)
    return node


def topological(roots: Sequence[Node], *, through_values: bool = False) -> Iterator[Node]:
    """Every node under ``roots`` after its inputs, each once; values already there are leaves
    unless ``through_values``."""
    done: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        known = node.value is not None and not through_values
        if ready or known or not node.inputs:
            done.add(node)
            yield node
            continue
        stack.append((node, True))
        stack.extend((source, False) for source in reversed(node.inputs) if source not in done)
