"""Reducing and accumulating by any ufunc of two operands, over axes of any number of chunks.

If the order of operations does not matter, blocks are reduced each by itself and combined in a
tree; if it does (subtract, divide, ...), each block goes on where the one before it ended.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import reduction
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.views import expanded, permuted, reshaped
from agentic_ray.array.reducing import reduce_op, unchanged
from agentic_ray.array.scans import line_bytes, scan_lower

ASSOCIATIVE = frozenset(
    str.split(
        """
    add multiply maximum minimum fmax fmin logical_and logical_or logical_xor bitwise_and
    bitwise_or bitwise_xor gcd lcm hypot logaddexp logaddexp2
    """
    )
)
"""Ufuncs by which blocks can be reduced each by itself."""

_WHOLE_AXES = {
    "maximum": "max",
    "minimum": "min",
    "fmax": "nanmax",
    "fmin": "nanmin",
    "logical_and": "all",
    "logical_or": "any",
}
"""Functions that do the same in namespaces whose ufuncs have no ``reduce``."""


@functools.lru_cache(maxsize=256)
def is_reorderable(name: str) -> bool:
    """Whether NumPy may reduce by this ufunc over several axes at once."""
    for dtype in (np.float64, np.int64, np.bool_):
        try:
            getattr(np, name).reduce(np.ones((2, 2), dtype), axis=(0, 1))
        except ValueError:
            return False
        except TypeError:
            continue
        return True
    return False


def _sliced(xp: Any, x: Any, axis: int, start: int, stop: int | None) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _folded(xp: Any, name: str, x: Any, axes: Sequence[int]) -> Any:
    """Reduce ``x`` over ``axes``, which are kept, from the first element on."""
    if xp is np:
        return getattr(np, name).reduce(x, axis=tuple(axes), keepdims=True)
    if name in _WHOLE_AXES and hasattr(xp, _WHOLE_AXES[name]):
        return getattr(xp, _WHOLE_AXES[name])(x, axis=tuple(axes), keepdims=True)
    step = getattr(xp, name)
    for axis in axes:
        value = _sliced(xp, x, axis, 0, 1)
        for place in range(1, x.shape[axis]):
            value = step(value, _sliced(xp, x, axis, place, place + 1))
        x = value
    return x


def _accumulated(xp: Any, name: str, x: Any, axis: int) -> Any:
    if xp is np:
        return getattr(np, name).accumulate(x, axis=axis)
    step = getattr(xp, name)
    values = [_sliced(xp, x, axis, 0, 1)]
    for place in range(1, x.shape[axis]):
        values.append(step(values[-1], _sliced(xp, x, axis, place, place + 1)))
    return xp.concatenate(values, axis=axis)


# --- reducing ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Partial:
    name: str

    def __call__(self, xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
        return _folded(xp, self.name, standard.cast(xp, x, dtype), axes)


@dataclass(frozen=True, slots=True)
class _Combine:
    name: str

    def __call__(self, left: Any, right: Any, *, xp: Any) -> Any:
        return getattr(xp, self.name)(left, right)


@functools.lru_cache(maxsize=256)
def _reducing(name: str) -> Op:
    return reduce_op(f"{name}_reduce", _Partial(name), _Combine(name), unchanged, weight=4)


def reduced(name: str, node: Node, axes: tuple[int, ...], keepdims: bool, dtype: DType) -> Node:
    """Reduce ``node``, which has elements along ``axes``, over them in ``dtype``.

    Raises
    ------
    ValueError
        There are several axes, and their order would matter.
    """
    if name in ASSOCIATIVE or not axes:
        return reduction(_reducing(name), [node], axes, keepdims, dtype, (dtype,))
    if len(axes) > 1:
        if not is_reorderable(name):
            raise ValueError(
                f"reduction operation {name!r} is not reorderable, so at most one axis may be "
                "specified"
            )
        return _over_several(name, node, axes, keepdims, dtype)
    shape = tuple(
        [1 if a in axes else n for a, n in enumerate(node.shape) if keepdims or a not in axes]
    )
    chunks = tuple(
        [(1,) if a in axes else c for a, c in enumerate(node.chunks) if keepdims or a not in axes]
    )
    return make(_IN_ORDER, (node,), (name, axes[0], keepdims, dtype), shape, dtype, chunks)


def _over_several(
    name: str, node: Node, axes: tuple[int, ...], keepdims: bool, dtype: DType
) -> Node:
    """Return the elements over ``axes`` in C order, as one axis."""
    rest = tuple([a for a in range(node.ndim) if a not in axes])
    loop = tuple([node.shape[a] for a in rest])
    flat = reshaped(permuted(node, (*rest, *axes)), (*loop, node.size // max(1, math.prod(loop))))
    made = reduced(name, flat, (len(rest),), False, dtype)
    return expanded(made, axes) if keepdims else made


def _in_order_kernel(xp: Any, x: Any, name: str, axis: int, keepdims: bool, dtype: DType) -> Any:
    result = _folded(xp, name, standard.cast(xp, x, dtype), (axis,))
    return result if keepdims else xp.squeeze(result, axis=axis)


def _go_on(xp: Any, before: Any, x: Any, name: str, axis: int, keepdims: bool, dtype: DType) -> Any:
    """Continue a reduction whose value so far is ``before`` with one more block."""
    before = before if keepdims else xp.expand_dims(before, axis)
    x = xp.concatenate([before, standard.cast(xp, x, dtype)], axis=axis)
    return _in_order_kernel(xp, x, name, axis, keepdims, dtype)


def _lines(node: Node, axis: int) -> Any:
    """Return the numbers of the blocks of ``node``, one row for each place along ``axis``."""
    counts = grids.numblocks(node.chunks)
    order = np.moveaxis(np.arange(node.blocks).reshape(counts), axis, 0)
    return order.reshape(counts[axis], -1)


def _lower_in_order(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    blocks = lowering.blocks(source)
    axis = node.params[1]
    first, *rest = _lines(source, axis).tolist()
    found = lowering.call(
        node, _in_order_kernel, [(blocks[i],) for i in first], params=node.params, label=".0",
        read_bytes=line_bytes(source, axis, 0),
    )  # fmt: skip
    for place, line in enumerate(rest, 1):
        rows = [(before, blocks[i]) for before, i in zip(found, line, strict=True)]
        found = lowering.call(
            node, _go_on, rows, params=node.params, label=f".{place}",
            read_bytes=node.nbytes + line_bytes(source, axis, place),
        )  # fmt: skip
    return list(found)


_IN_ORDER = Op("reduce_in_order", "tasks", _in_order_kernel, _lower_in_order, weight=4)


# --- accumulating ------------------------------------------------------------------------


def accumulated(name: str, node: Node, axis: int, dtype: DType) -> Node:
    """Accumulate ``node`` along ``axis`` in ``dtype``."""
    if name in ASSOCIATIVE:
        return make(_scanning(name), (node,), (axis, dtype), node.shape, dtype, node.chunks)
    params = (name, axis, dtype)
    return make(_SCAN_IN_ORDER, (node,), params, node.shape, dtype, node.chunks)


@dataclass(frozen=True, slots=True)
class _Scan:
    name: str

    def __call__(self, xp: Any, x: Any, axis: int, dtype: DType) -> Any:
        return _accumulated(xp, self.name, standard.cast(xp, x, dtype), axis)


@dataclass(frozen=True, slots=True)
class _Behind:
    """Kernel that puts a scanned block behind the total of the blocks before it."""

    name: str

    def __call__(self, xp: Any, x: Any, before: Any) -> Any:
        return getattr(xp, self.name)(before, x)


@functools.lru_cache(maxsize=256)
def _scanning(name: str) -> Op:
    return Op(f"{name}_accumulate", "tasks", _Scan(name), scan_lower(_Behind(name)))


def _scan_kernel(xp: Any, x: Any, name: str, axis: int, dtype: DType) -> Any:
    return _accumulated(xp, name, standard.cast(xp, x, dtype), axis)


def _scan_on(xp: Any, before: Any, x: Any, name: str, axis: int, dtype: DType) -> Any:
    last = _sliced(xp, before, axis, before.shape[axis] - 1, None)
    x = xp.concatenate([last, standard.cast(xp, x, dtype)], axis=axis)
    return _sliced(xp, _accumulated(xp, name, x, axis), axis, 1, None)


def _lower_scan_in_order(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    blocks, axis = lowering.blocks(source), node.params[1]
    first, *rest = _lines(source, axis).tolist()
    result: list[Any] = [None] * len(blocks)
    found = lowering.call(
        node, _scan_kernel, [(blocks[i],) for i in first], params=node.params, label=".0",
        read_bytes=line_bytes(source, axis, 0), written_bytes=line_bytes(node, axis, 0),
    )  # fmt: skip
    for i, made in zip(first, found, strict=True):
        result[i] = made
    for place, line in enumerate(rest, 1):
        rows = [(before, blocks[i]) for before, i in zip(found, line, strict=True)]
        found = lowering.call(
            node, _scan_on, rows, params=node.params, label=f".{place}",
            read_bytes=line_bytes(node, axis, place - 1) + line_bytes(source, axis, place),
            written_bytes=line_bytes(node, axis, place),
        )  # fmt: skip
        for i, made in zip(line, found, strict=True):
            result[i] = made
    return result


_SCAN_IN_ORDER = Op("accumulate_in_order", "tasks", _scan_kernel, _lower_scan_in_order, weight=4)
