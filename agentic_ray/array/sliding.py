"""Windows that slide over an array: `sliding_window_view`."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.array_object import Array, viewed
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import blockwise_op, whole_axes
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import NDArray, Node, make
from agentic_ray.array.core.views import AxisIndex, concatenated, rechunk, sliced
from agentic_ray.array.creation import zeros
from agentic_ray.array.viewing import unmade


def sliding_window_view(
    x: Any,
    window_shape: Any,
    axis: Any = None,
    *,
    subok: bool = False,
    writeable: bool = False,
) -> Array:
    """Return each window of ``window_shape`` that lies in ``x``, as new axes behind the others.

    Parameters
    ----------
    x : array_like
    window_shape : int or tuple of int
        Length of the window along each axis of ``axis``.
    axis : int or tuple of int, optional
        Axes; None: all. An axis that is named twice is slid over twice.
    subok : bool
        Ignored; arrays here have no subclasses.
    writeable : bool
        Refused: windows overlap, so an assignment to one would change others.

    Returns
    -------
    Array
        A view that cannot be assigned to; the axes slid over are shorter by the length of the
        window less one. Chunks are cut so that they hold no more than others with the windows.

    Raises
    ------
    ValueError
        The window is longer than the axis or negative, has another number of lengths than there
        are axes, or ``writeable`` was asked for.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.lib.stride_tricks.sliding_window_view(xp.arange(5), 3).compute()
    array([[0, 1, 2],
           [1, 2, 3],
           [2, 3, 4]])
    """
    if writeable:
        raise ValueError("windows overlap and are read-only; assign to the array itself")
    given = tuple(window_shape) if np.iterable(window_shape) else (window_shape,)
    window = tuple([operator.index(n) for n in given])
    shape = np.shape(x)
    if any(n < 0 for n in window):
        raise ValueError("`window_shape` cannot contain negative values")
    if axis is None:
        axes = tuple(range(len(shape)))
        if len(window) != len(axes):
            raise ValueError(
                "Since axis is None, must provide window_shape for all dimensions of `x`; got "
                f"{len(window)} window_shape elements and `x.ndim` is {len(axes)}."
            )
    else:
        axes = normalize_axis_tuple(axis, len(shape), allow_duplicate=True)
        if len(window) != len(axes):
            raise ValueError(
                f"Must provide matching length window_shape and axis; got {len(window)} "
                f"window_shape elements and {len(axes)} axes elements."
            )
    left = list(shape)
    for at, length in zip(axes, window, strict=True):
        if left[at] < length:
            raise ValueError("window shape cannot be larger than input array shape")
        left[at] -= length - 1
    return viewed(x, Windows(window, axes))


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of lengths ``window`` over ``axes``, one after the other."""

    window: Shape
    axes: tuple[int, ...]

    def see(self, memory: NDArray) -> NDArray:
        return np.lib.stride_tricks.sliding_window_view(memory, self.window, self.axes)

    def read(self, whole: Node) -> Node:
        if 0 in (*self.window, whole.size):
            # There are no elements to cut.
            return zeros(self.see(unmade(whole.shape, whole.dtype)).shape, whole.dtype)._node
        for axis, length in zip(self.axes, self.window, strict=True):
            whole = _slid(whole, axis, length)
        return whole

    def write(self, whole: Node, part: Node) -> Node:
        raise ValueError("assignment destination is read-only: windows overlap")


def _slid(node: Node, axis: int, length: int) -> Node:
    """Make windows over one axis: each chunk of them from one slice. The slice is longer by the
    window less one, so it takes the first elements of the chunks that follow."""
    count = node.shape[axis] - length + 1
    lengths = _lengths(node, axis, length, count)
    parts: list[Node] = []
    for start, n in zip(grids.offsets(lengths), lengths, strict=False):
        index: list[AxisIndex] = [("s", 0, size, 1) for size in node.shape]
        index[axis] = ("s", start, n + length - 1, 1)
        taken = sliced(node, tuple(index))
        taken = rechunk(taken, whole_axes(taken, (axis,)))
        shape, chunks = list(taken.shape), list(taken.chunks)
        shape[axis], chunks[axis] = n, (n,)
        parts.append(
            make(
                SLIDE, (taken,), (axis, length), (*shape, length), node.dtype, (*chunks, (length,))
            )
        )  # fmt: skip
    return concatenated(parts, axis)


def _lengths(node: Node, axis: int, length: int, count: int) -> tuple[int, ...]:
    """Return the chunks of windows along the axis: they begin where those of ``node`` do, and are
    shorter where blocks would hold more than others do."""
    others = math.prod([max(own) for at, own in enumerate(node.chunks) if at != axis])
    size = node.size * length
    most = max(1, grids.rules().elements(node.dtype, size) // max(1, others * length))
    result: list[int] = []
    for start, own in zip(grids.offsets(node.chunks[axis]), node.chunks[axis], strict=False):
        n = min(own, count - start)
        if n > 0:
            result.extend(grids.regular(n, most))
    return tuple(result)


def _windows(xp: Any, x: Any, axis: int, length: int) -> Any:
    count = x.shape[axis] - length + 1
    if xp is np:
        # A copy: later results must not depend on how windows overlap in memory.
        return np.array(np.lib.stride_tricks.sliding_window_view(x, length, axis), order="C")
    at = xp.arange(count)[:, None] + xp.arange(length)
    return xp.moveaxis(xp.take(x, at, axis=axis), axis + 1, -1)


SLIDE = blockwise_op("sliding_window", _windows, 1.0)
