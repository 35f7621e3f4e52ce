"""Sorting along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import along, blockwise_op, strict_operand
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import rechunk, sliced
from agentic_ray.array.samplesort import sorted_chunks


def _sort_kernel(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    result = xp.sort(x, axis=axis, kind="stable")
    return xp.flip(result, axis=axis) if descending else result


def _argsort_kernel(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    # Stable in descending order: sort the reversed array, then reverse and count from the end.
    order = xp.flip(xp.argsort(xp.flip(x, axis=axis), axis=axis, kind="stable"), axis=axis)
    return x.shape[axis] - 1 - order


SORT = blockwise_op("sort", _sort_kernel, weight=32)
ARGSORT = blockwise_op("argsort", _argsort_kernel, weight=64)


def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """``x`` sorted along ``axis``, NaN last; always stable.

    A vector of several chunks is sorted over them, see ``samplesort``.
    """
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    if not _is_long(node):
        return Array(along(SORT, [node], (at,), None, node.dtype, (at, bool(descending))))
    made = sorted_chunks(_without_empty(node), node.dtype, positions=False)
    return Array(_reversed(made) if descending else made)


def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Positions that would sort ``x`` along ``axis``; always stable."""
    node = strict_operand(x)
    at = normalize_axis_index(axis, node.ndim)
    dtype = np.dtype(np.int64)
    if not _is_long(node):
        return Array(along(ARGSORT, [node], (at,), None, dtype, (at, bool(descending))))
    node = _without_empty(node)
    if not descending:
        return Array(sorted_chunks(node, dtype, positions=True))
    # As in `_argsort_kernel`: the positions that sort the reversed array, from the other end.
    order = sorted_chunks(_reversed(node), dtype, positions=True)
    return node.size - 1 - Array(_reversed(order))


def _is_long(node: Node) -> bool:
    return node.ndim == 1 and node.blocks > 1 and node.size > 0


def _without_empty(node: Node) -> Node:
    return rechunk(node, (tuple([length for length in node.chunks[0] if length]),))


def _reversed(node: Node) -> Node:
    return sliced(node, (("s", node.size - 1, node.size, -1),))
