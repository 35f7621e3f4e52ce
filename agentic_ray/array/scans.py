"""Cumulative sums and products, along an axis of any number of chunks."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.views import concatenated, expanded, reshaped
from agentic_ray.array.creation import full
from agentic_ray.array.outputs import delivered
from agentic_ray.array.reducing import asked, loop_dtype


def _cumsum(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.cumsum(x, axis=axis, dtype=None if dtype.kind == "m" else dtype)


def _cumprod(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.cumprod(x, axis=axis, dtype=dtype)


def _last(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.take(x, xp.asarray([-1]), axis=axis)


def _shift_sum(xp: Any, x: Any, before: Any) -> Any:
    return x + before


def _shift_prod(xp: Any, x: Any, before: Any) -> Any:
    return x * before


def line_bytes(node: Node, axis: int, place: int) -> int:
    """Bytes of all blocks that have this place along ``axis``."""
    return node.nbytes // node.shape[axis] * node.chunks[axis][place]


def scan_lower(combine: Callable[..., Any]) -> Callable[[Node, Any], list[Any]]:
    """Scan each block, then the blocks' totals one after the other, then add them on."""

    def lower(node: Node, lowering: Any) -> list[Any]:
        (source,) = node.inputs
        axis, _ = node.params
        blocks = lowering.blocks(source)
        scanned = lowering.call(
            node, node.op.kernel, [(block,) for block in blocks], params=node.params, label=".scan"
        )
        counts = grids.numblocks(source.chunks)
        if counts[axis] == 1:
            return list(scanned)
        order = np.moveaxis(np.arange(len(blocks)).reshape(counts), axis, 0)
        order = order.reshape(counts[axis], -1)
        one = node.nbytes // node.shape[axis]
        small = one * counts[axis]
        result = list(scanned)
        totals = lowering.call(
            node, _last, [(ref,) for ref in scanned], params=node.params, label=".last",
            read_bytes=small, written_bytes=small,
        )  # fmt: skip
        before = [totals[i] for i in order[0]]
        for place in range(1, counts[axis]):
            row = order[place].tolist()
            size = line_bytes(node, axis, place)
            made = lowering.call(
                node, combine,
                [(scanned[i], head) for i, head in zip(row, before, strict=True)],
                label=f".{place}", read_bytes=size, written_bytes=size,
            )  # fmt: skip
            for i, ref in zip(row, made, strict=True):
                result[i] = ref
            if place + 1 < counts[axis]:
                before = lowering.call(
                    node, combine,
                    [(totals[i], head) for i, head in zip(row, before, strict=True)],
                    label=f".total{place}", read_bytes=one, written_bytes=one,
                )  # fmt: skip
        return result

    return lower


CUMSUM = Op("cumulative_sum", "tasks", _cumsum, scan_lower(_shift_sum))
CUMPROD = Op("cumulative_prod", "tasks", _cumprod, scan_lower(_shift_prod))


_UFUNCS = {"cumulative_sum": np.add, "cumulative_prod": np.multiply}


def _scanned(op: Op, node: Node, at: int, dtype: Any) -> Node:
    wanted = loop_dtype(_UFUNCS[op.name], node.dtype, asked(dtype))
    return make(op, (node,), (at, wanted), node.shape, wanted, node.chunks)


def _cumulative(
    op: Op, x: Any, axis: int | None, dtype: Any, out: Any, initial: float, include_initial: bool
) -> Array:
    node = strict_operand(x)
    if node.ndim == 0:
        node = expanded(node, (0,))
    if axis is None:
        if node.ndim != 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is "
                             "required.")  # fmt: skip
        axis = 0
    at = normalize_axis_index(operator.index(axis), node.ndim)
    made = _scanned(op, node, at, dtype)
    if include_initial:
        shape = (*node.shape[:at], 1, *node.shape[at + 1 :])
        made = concatenated([full(shape, initial, dtype=made.dtype)._node, made], at)
    return delivered(Array(made), out, "unsafe")


def cumulative_sum(
    x: Any,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    out: Any = None,
    include_initial: bool = False,
) -> Array:
    """Compute the running sum along ``axis``, which may be left out only for arrays of one axis.

    Parameters
    ----------
    x : array_like
    axis : int, optional
    dtype, out
        As in `sum`.
    include_initial : bool
        Whether to put a zero first.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.cumulative_sum([1, 2, 3], include_initial=True)
    Array([0, 1, 3, 6], dtype=int64)
    """
    return _cumulative(CUMSUM, x, axis, dtype, out, 0, include_initial)


def cumulative_prod(
    x: Any,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    out: Any = None,
    include_initial: bool = False,
) -> Array:
    """Compute the running product along ``axis``: see `cumulative_sum`."""
    return _cumulative(CUMPROD, x, axis, dtype, out, 1, include_initial)


def _of_all_or_along(op: Op, a: Any, axis: int | None, dtype: Any, out: Any) -> Array:
    node = strict_operand(a)
    if axis is None:
        node = reshaped(node, (node.size,))
        axis = 0
    elif node.ndim == 0:
        node = expanded(node, (0,))
    at = normalize_axis_index(operator.index(axis), node.ndim)
    return delivered(Array(_scanned(op, node, at, dtype)), out, "unsafe")


def cumsum(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    """Compute the running sum along ``axis``; if it is None, of all elements in C order.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.cumsum([[1, 2], [3, 4]])
    Array([ 1,  3,  6, 10], dtype=int64)
    """
    return _of_all_or_along(CUMSUM, a, axis, dtype, out)


def cumprod(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    """Compute the running product along ``axis``; if it is None, of all elements in C order."""
    return _of_all_or_along(CUMPROD, a, axis, dtype, out)
