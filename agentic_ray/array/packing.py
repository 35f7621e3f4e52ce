"""Bits packed in bytes, and positions in the flattened array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array, check_order
from agentic_ray.array.conversion import sequence_of
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import blockwise_op, elementwise, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import concatenated, rechunk, reshaped
from agentic_ray.array.creation import shape_of, zeros
from agentic_ray.array.manipulation import _window
from agentic_ray.array.outputs import looked_at


def _packbits_kernel(xp: Any, x: Any, axis: int, bitorder: str) -> Any:
    return xp.packbits(x, axis=axis, bitorder=bitorder)


def _unpackbits_kernel(xp: Any, x: Any, axis: int, bitorder: str) -> Any:
    return xp.unpackbits(x, axis=axis, bitorder=bitorder)


_PACK = blockwise_op("packbits", host_only(_packbits_kernel))
_UNPACK = blockwise_op("unpackbits", host_only(_unpackbits_kernel))


def _along(node: Node, axis: int | None) -> tuple[Node, int]:
    """Return the array whose bits are meant, and the axis they go along."""
    if axis is None or not node.ndim:
        return reshaped(node, (node.size,)), 0
    return node, normalize_axis_index(axis, node.ndim)


def _check_order(bitorder: str) -> None:
    if bitorder not in ("big", "little"):
        raise ValueError("'order' must be either 'little' or 'big'")


def packbits(a: Any, /, axis: int | None = None, bitorder: str = "big") -> Array:
    """Pack into bits whether elements are non-zero, eight of them a byte; zeros are put at the end.

    Parameters
    ----------
    a : array_like of int or bool
    axis : int, optional
        Axis; default: the flattened array's.
    bitorder : {"big", "little"}
        Whether the first element is the highest bit of its byte, or the lowest.

    Raises
    ------
    TypeError
        Elements are neither integers nor booleans.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.packbits([1, 0, 0, 0, 0, 0, 1, 1])
    Array([131], dtype=uint8)
    """
    node = strict_operand(a)
    if node.dtype.kind not in "biu":
        raise TypeError("Expected an input array of integer or boolean data type")
    _check_order(bitorder)
    node, at = _along(cast(node, np.bool_), axis)
    largest = max(node.chunks[at])
    lengths = grids.regular(node.shape[at], -(-largest // 8) * 8)
    node = rechunk(node, (*node.chunks[:at], lengths, *node.chunks[at + 1 :]))
    packed = tuple([-(-n // 8) for n in lengths])
    chunks = (*node.chunks[:at], packed, *node.chunks[at + 1 :])
    dtype = np.dtype(np.uint8)
    return Array(make(_PACK, (node,), (at, bitorder), grids.shape_of(chunks), dtype, chunks))


def unpackbits(
    a: Any, /, axis: int | None = None, count: int | None = None, bitorder: str = "big"
) -> Array:
    """Unpack the bits of each byte as elements that are 0 or 1: the inverse of `packbits`.

    Parameters
    ----------
    a : array_like of uint8
    axis, bitorder
        As in `packbits`.
    count : int, optional
        Number of elements along the axis, zeros after the last bit; negative: number of elements to
        leave out at the end.

    Raises
    ------
    TypeError
        ``a`` does not hold bytes.
    """
    node = strict_operand(a)
    if node.dtype != np.uint8:
        raise TypeError("Expected an input array of unsigned byte data type")
    _check_order(bitorder)
    node, at = _along(node, axis)
    chunks = (*node.chunks[:at], tuple([8 * n for n in node.chunks[at]]), *node.chunks[at + 1 :])
    made = make(_UNPACK, (node,), (at, bitorder), grids.shape_of(chunks), node.dtype, chunks)
    if count is None:
        return Array(made)
    there = made.shape[at]
    wanted = count if count >= 0 else there + count
    if wanted < 0:
        raise ValueError(f"-count larger than number of elements: {count} of {there}")
    if wanted <= there:
        return Array(_window(made, at, 0, wanted))
    shape = (*made.shape[:at], wanted - there, *made.shape[at + 1 :])
    return Array(concatenated([made, zeros(shape, np.uint8)._node], at))


# --- positions in the flattened array ----------------------------------------------------


def _ravel_kernel(xp: Any, *rest: Any) -> Any:
    *index, dims, mode, order = rest
    return xp.ravel_multi_index(tuple(index), dims, mode=mode, order=order)


def _unravel_kernel(xp: Any, x: Any, shape: Any, order: str, axis: int) -> Any:
    return xp.unravel_index(x, shape, order)[axis]


_RAVEL = Op("ravel_multi_index", "map", _ravel_kernel, weight=4)
_UNRAVEL = Op("unravel_index", "map", _unravel_kernel, weight=8)


def _integers(node: Node, name: str) -> Node:
    if node.dtype.kind not in "iu":
        raise TypeError(f"{name}: only int indices permitted, not {node.dtype}")
    return cast(node, np.int64)


def ravel_multi_index(
    multi_index: Any, dims: Any, mode: str | Sequence[str] = "raise", order: str = "C"
) -> Any:
    """Return positions in the flattened array of shape ``dims``, from indices for each of its axes.

    Parameters
    ----------
    multi_index : tuple of array_like of int
    dims : tuple of int
    mode : {"raise", "wrap", "clip"} or a sequence of them
        Treatment of positions outside, for all axes or for each.
    order : {"C", "F"}

    Raises
    ------
    ValueError
        A position lies outside and ``mode`` is ``"raise"`` (when it is computed, if that is not
        done in this process).

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.ravel_multi_index(([3, 6], [4, 5]), (7, 6))
    Array([22, 41], dtype=int64)
    """
    entries = [strict_operand(entry) for entry in sequence_of(multi_index)]
    shape = shape_of(dims)
    modes = mode if isinstance(mode, str) else tuple(mode)
    order = check_order(order, "CF")
    # NumPy checks everything but the positions themselves.
    check: Any = np.ravel_multi_index
    check(tuple([np.zeros(0, node.dtype) for node in entries]), shape, modes, order)
    found = Array(elementwise(_RAVEL, [_integers(node, "ravel_multi_index") for node in entries],
                              (shape, modes, order)))  # fmt: skip
    return looked_at(found)


def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Array, ...]:
    """Return indices for each axis of an array of ``shape``, from positions in the flattened array.

    Raises
    ------
    ValueError
        A position lies outside (when it is computed, if that is not done in this process).
    TypeError
        Positions are no integers.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.unravel_index([22, 41], (7, 6))
    (Array([3, 6], dtype=int64), Array([4, 5], dtype=int64))
    """
    lengths, order = shape_of(shape), check_order(order, "CF")
    node = _integers(strict_operand(indices), "unravel_index")
    return tuple(
        [
            looked_at(Array(elementwise(_UNRAVEL, [node], (lengths, order, axis))))
            for axis in range(len(lengths))
        ]
    )
