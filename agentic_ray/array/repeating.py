"""Functions that enlarge arrays: repeat, tile, resize, and pad in all of NumPy's modes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import cycled
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import (
    along,
    blockwise_op,
    leaf,
    strict_operand,
    without_arrays,
)
from agentic_ray.array.core.node import DType, Held, NDArray, Node, make
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import concatenated, expanded, reshaped
from agentic_ray.array.creation import shape_of, zeros
from agentic_ray.array.gathering import gather
from agentic_ray.array.manipulation import _window
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.viewing import Broadcast


def _repeat_kernel(xp: Any, x: Any, repeats: int, axis: int) -> Any:
    return xp.repeat(x, repeats, axis=axis)


REPEAT = blockwise_op("repeat", _repeat_kernel)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Array:
    """Repeat each element ``repeats`` times along ``axis``; flattened if that is None.

    Parameters
    ----------
    a : array_like
    repeats : int or array_like of int
        Number of times, for all elements or for each along the axis.
    axis : int, optional

    Raises
    ------
    ValueError
        A number is negative, or the numbers do not fit the elements.
    """
    node = strict_operand(a)
    if axis is None or (node.ndim == 0 and axis in (0, -1)):
        node, axis = reshaped(node, (node.size,)), 0
    at = normalize_axis_index(axis, node.ndim)
    length = node.shape[at]
    counts = evaluate.value(strict_operand(repeats))
    if not isinstance(repeats, Array | np.ndarray) and counts.dtype.kind == "f":
        counts = counts.astype(np.int64)  # as NumPy does with lists and Python numbers
    if counts.dtype.kind not in "iub":
        raise TypeError(
            f"Cannot cast array data from {counts.dtype!r} to dtype('int64') according to the "
            "rule 'safe'"
        )
    if counts.ndim > 1:
        raise ValueError("object too deep for desired array")
    if counts.ndim and counts.size not in (1, length):
        raise ValueError(
            f"operands could not be broadcast together with shape ({length},) {counts.shape}"
        )
    if counts.size and counts.min() < 0:
        raise ValueError("repeats may not contain negative values.")
    if counts.ndim and counts.size != 1:
        return Array(gather(node, (at,), (np.repeat(np.arange(length), counts),)))
    times = int(counts.reshape(-1)[0]) if counts.size else 0
    if times == 0:
        return Array(_window(node, at, 0, 0))
    return Array(_repeated(node, times, at))


def _repeated(node: Node, times: int, axis: int) -> Node:
    chunks = list(node.chunks)
    chunks[axis] = tuple([n * times for n in chunks[axis]])
    shape = grids.shape_of(tuple(chunks))
    return make(REPEAT, (node,), (times, axis), shape, node.dtype, tuple(chunks))


def tile(A: Any, reps: Any) -> Array:
    """Join ``A`` with itself ``reps`` times along each axis.

    Raises
    ------
    ValueError
        A number is negative.
    """
    node = strict_operand(A)
    given = without_arrays(reps)
    times = [operator.index(n) for n in given] if np.ndim(given) else [operator.index(given)]
    if any(n < 0 for n in times):
        raise ValueError("negative dimensions are not allowed")
    times = [1] * (node.ndim - len(times)) + times
    missing = len(times) - node.ndim
    if missing:
        node = expanded(node, tuple(range(missing)))
    for axis, n in enumerate(times):
        if n == 0:
            node = _window(node, axis, 0, 0)
        elif n > 1:
            node = concatenated([node] * n, axis)
    return Array(node)


@by_numpy_if_small
def resize(a: Any, new_shape: Any) -> Array:
    """Repeat the elements of ``a`` as often as needed, in another shape.

    Raises
    ------
    ValueError
        A length is negative.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.resize([1, 2], (2, 3))
    Array([[1, 2, 1],
           [2, 1, 2]], dtype=int64)
    """
    given = without_arrays(new_shape)
    if np.ndim(given) and any(n < 0 for n in given):
        raise ValueError("all elements of `new_shape` must be non-negative")
    shape = shape_of(given)
    node = strict_operand(a)
    count = int(np.prod(shape, dtype=np.int64))
    if not node.size or not count:
        return zeros(shape, node.dtype)
    return Array(reshaped(cycled(Array(node), count, node.dtype)._node, shape))


# --- margins -----------------------------------------------------------------------------


def _pad_kernel(xp: Any, x: Any, widths: Any, mode: str, options: Any) -> Any:
    return xp.pad(x, widths, mode=mode, **dict(options))


@host_only
def _pad_by_function(xp: Any, x: Any, widths: Any, function: Any, options: Held) -> Any:
    return np.pad(x, widths, mode=function, **options.value)


PAD = blockwise_op("pad", _pad_kernel)
_PAD_BY = replace(blockwise_op("pad_by_function", _pad_by_function), of_user=True)

_OPTIONS = {
    "constant": ("constant_values",),
    "edge": (),
    "empty": (),
    "linear_ramp": ("end_values",),
    "maximum": ("stat_length",),
    "mean": ("stat_length",),
    "median": ("stat_length",),
    "minimum": ("stat_length",),
    "reflect": ("reflect_type",),
    "symmetric": ("reflect_type",),
    "wrap": (),
}


def _widths(pad_width: Any, ndim: int) -> list[list[int]]:
    """Return the numbers of elements to put before and after each axis.

    Raises
    ------
    TypeError
        The widths are no integers.
    ValueError
        A width is negative, or the widths do not broadcast to a pair for each axis.
    """
    if isinstance(pad_width, dict):
        pairs: list[Any] = [(0, 0)] * ndim
        for axis, width in pad_width.items():
            pairs[axis] = (width, width) if np.ndim(width) == 0 else tuple(width)
        pad_width = pairs
    given = np.asarray(without_arrays(pad_width))
    if given.dtype.kind != "i":
        raise TypeError("`pad_width` must be of integral type.")
    found: list[list[int]] = np.broadcast_to(given, (ndim, 2)).tolist()
    if any(n < 0 for pair in found for n in pair):
        raise ValueError("index can't contain negative values")
    return found


@by_numpy_if_small
def pad(array: Any, pad_width: Any, mode: str | Callable[..., Any] = "constant", **kwargs: Any) -> (
    Array
):  # fmt: skip
    """Add a margin to ``array``, as in NumPy.

    Constant margins, and margins that repeat elements, are joined on without touching the rest;
    other modes need whole axes in one chunk.

    Parameters
    ----------
    array : array_like
    pad_width : int, sequence or dict
        Widths for all axes, or a pair for each, or by axis.
    mode : str or callable
        ``"constant"``, ``"edge"``, ``"linear_ramp"``, ``"maximum"``, ``"mean"``, ``"median"``,
        ``"minimum"``, ``"reflect"``, ``"symmetric"``, ``"wrap"``, ``"empty"``, or a function as
        in NumPy, which gets all of an axis.
    **kwargs
        ``constant_values``, ``end_values``, ``stat_length``, ``reflect_type``; or a function's own.

    Raises
    ------
    ValueError
        There is no such mode, or it has no such option.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.pad([1, 2, 3], (1, 2), "edge")
    Array([1, 1, 2, 3, 3, 3], dtype=int64)
    """
    node = strict_operand(array)
    widths = _widths(pad_width, node.ndim)
    axes = [axis for axis, pair in enumerate(widths) if any(pair)]
    lengths = [node.shape[axis] + sum(widths[axis]) for axis in axes]
    pairs = tuple(map(tuple, widths))
    options = {name: without_arrays(value) for name, value in kwargs.items()}
    if callable(mode):
        every = list(range(node.ndim))
        lengths = [n + sum(pair) for n, pair in zip(node.shape, widths, strict=True)]
        params = (pairs, mode, Held(options))
        return Array(along(_PAD_BY, [node], every, lengths, node.dtype, params))
    if mode not in _OPTIONS:
        raise ValueError(f"mode '{mode}' is not supported")
    unknown = set(options) - set(_OPTIONS[mode])
    if unknown:
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {unknown}")
    if mode in ("constant", "empty"):
        return Array(_with_constant(node, widths, options.get("constant_values", 0)))
    for axis in axes:
        if node.shape[axis] == 0:
            raise ValueError(
                f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'"
            )
    if mode in _FOLDED and options.get("reflect_type", "even") == "even":
        for axis in axes:
            node = _with_repeats(node, axis, widths[axis][0], widths[axis][1], _FOLDED[mode])
        return Array(node)
    if not axes:
        return Array(node)
    key = (pairs, mode, tuple([(name, _tuples(value)) for name, value in options.items()]))
    return Array(along(PAD, [node], axes, lengths, node.dtype, key))


def _tuples(value: Any) -> Any:
    """Turn lists and arrays into tuples, which can be parameters of a node."""
    return _tuples(value.tolist()) if isinstance(value, np.ndarray) else (
        tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value)  # fmt: skip


def _with_constant(node: Node, widths: list[list[int]], constant: Any) -> Node:
    values = np.broadcast_to(np.asarray(constant), (node.ndim, 2))
    for axis, (before, after) in enumerate(widths):
        parts = [node]
        for count, value, at in ((before, values[axis, 0], 0), (after, values[axis, 1], 1)):
            if count:
                shape = (*node.shape[:axis], count, *node.shape[axis + 1 :])
                margin = leaf(_assigned(value, node.dtype))
                parts.insert(len(parts) if at else 0, Broadcast(shape).read(margin))
        node = concatenated(parts, axis)
    return node


def _assigned(value: Any, dtype: DType) -> NDArray:
    """Convert ``value`` to an array without axes, as in an assignment."""
    made = np.empty((), dtype)
    made[...] = value
    return made


def _edge(at: NDArray, n: int) -> NDArray:
    return at.clip(0, n - 1)


def _reflect(at: NDArray, n: int) -> NDArray:
    if n == 1:
        return np.zeros_like(at)
    at = at % (2 * n - 2)
    return np.where(at < n, at, 2 * n - 2 - at)


def _symmetric(at: NDArray, n: int) -> NDArray:
    at = at % (2 * n)
    return np.where(at < n, at, 2 * n - 1 - at)


def _wrap(at: NDArray, n: int) -> NDArray:
    return at % n


_FOLDED = {"edge": _edge, "reflect": _reflect, "symmetric": _symmetric, "wrap": _wrap}
"""Functions by mode: from a place outside an axis of length ``n`` to the element taken there."""


def _with_repeats(
    node: Node, axis: int, before: int, after: int, folded: Callable[[NDArray, int], NDArray]
) -> Node:
    """Add margins along ``axis`` of elements that are there already."""
    n = node.shape[axis]
    parts = [node]
    if before:
        parts.insert(0, gather(node, (axis,), (folded(np.arange(-before, 0), n),)))
    if after:
        parts.append(gather(node, (axis,), (folded(np.arange(n, n + after), n),)))
    return concatenated(parts, axis)
