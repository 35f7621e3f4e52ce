"""Adding and removing elements: append, insert, delete, trim_zeros."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to, converted, fitted
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.node import NDArray, Node
from agentic_ray.array.core.views import concatenated, permuted, reshaped
from agentic_ray.array.gathering import gather
from agentic_ray.array.manipulation import _window, concatenate, ravel
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import any as _any


@by_numpy_if_small
def append(arr: Any, values: Any, axis: int | None = None) -> Array:
    """Put ``values`` after ``arr``, both flattened if no axis is given.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.append([1, 2], [[3, 4]])
    Array([1, 2, 3, 4], dtype=int64)
    """
    if axis is None:
        return concatenate((ravel(arr), ravel(values)), 0)
    return concatenate((arr, values), axis)


def _target(arr: Any, axis: int | None) -> tuple[Node, int]:
    """Return the array whose elements change, and the axis along which they do."""
    node = strict_operand(arr)
    if axis is None:
        return (node if node.ndim == 1 else reshaped(node, (node.size,))), 0
    return node, normalize_axis_index(operator.index(axis), node.ndim)


def _places(obj: Any) -> tuple[Any, bool]:
    """Return positions as NumPy has them, computed, and whether they are one number."""
    if isinstance(obj, slice):
        return obj, False
    found = evaluate.value(strict_operand(obj))
    if not found.size and not isinstance(obj, np.ndarray | Array):
        found = found.astype(np.intp)
    return found, found.ndim == 0


@by_numpy_if_small
def delete(arr: Any, obj: Any, axis: int | None = None) -> Array:
    """Remove the elements at ``obj`` along ``axis`` from ``arr``; flattened if that is None.

    Parameters
    ----------
    arr : array_like
    obj : int, slice, or array_like of int or bool
        Positions; computed at the call.
    axis : int, optional

    Raises
    ------
    IndexError
        A position lies outside, or is no integer.
    ValueError
        The number of booleans differs from the length of the axis.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.delete(xp.arange(5), [1, 3])
    Array([0, 2, 4], dtype=int64)
    """
    node, at = _target(arr, axis)
    length = node.shape[at]
    places, _ = _places(obj)
    if isinstance(places, np.ndarray) and places.dtype.kind == "b":
        if places.shape != (length,):
            raise ValueError(
                "boolean array argument obj to delete must be one dimensional and match the axis "
                f"length of {length}"
            )
    elif isinstance(places, np.ndarray) and places.size == 1 and places.dtype.kind in "iu":
        place = int(places.reshape(-1)[0])
        if not -length <= place < length:
            raise IndexError(f"index {place} is out of bounds for axis {at} with size {length}")
        place %= length
        parts = [_window(node, at, 0, place), _window(node, at, place + 1, length - place - 1)]
        return Array(concatenated(parts, at))
    keep = np.ones(length, bool)
    keep[places] = False
    return Array(gather(node, (at,), (np.flatnonzero(keep),)))


@by_numpy_if_small
def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Array:
    """Put ``values`` in before the positions ``obj`` along ``axis``; flattened if that is None.

    Parameters
    ----------
    arr : array_like
    obj : int, slice, or array_like of int or bool
        Positions in ``arr``; computed at the call.
    values : array_like
        New elements, converted to the dtype of ``arr`` and broadcast, as in an assignment.
    axis : int, optional

    Raises
    ------
    IndexError
        A position lies outside.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.insert([1, 2, 3], 1, [8, 9])
    Array([1, 8, 9, 2, 3], dtype=int64)
    """
    node, at = _target(arr, axis)
    length = node.shape[at]
    places, is_one = _places(obj)
    if isinstance(places, slice):
        places = np.arange(*places.indices(length), dtype=np.intp)
    if places.dtype.kind == "b":
        places = np.flatnonzero(places)
    elif places.ndim > 1:
        raise ValueError("index array argument obj to insert must be one dimensional or scalar")
    new = converted(values, node.dtype)
    if places.size == 1:
        place = operator.index(places.item())
        if not -length <= place <= length:
            raise IndexError(f"index {obj} is out of bounds for axis {at} with size {length}")
        if new.ndim < node.ndim:
            new = reshaped(new, (1,) * (node.ndim - new.ndim) + new.shape)
        if is_one:
            moved = list(range(1, new.ndim))
            moved.insert(at, 0)
            new = permuted(new, tuple(moved))
        place = place + length if place < 0 else place
        region = (*node.shape[:at], new.shape[at], *node.shape[at + 1 :])
        new = broadcast_to(fitted(new, region), region)
        rest = _window(node, at, place, length - place)
        return Array(concatenated([_window(node, at, 0, place), new, rest], at))
    places = _checked(places, length, at)
    order = places.argsort(kind="stable")
    places[order] += np.arange(len(places))
    total = length + len(places)
    sources = np.empty(total, np.intp)
    is_old = np.ones(total, bool)
    is_old[places] = False
    sources[is_old] = np.arange(length)
    sources[places] = length + np.arange(len(places))
    region = (*node.shape[:at], len(places), *node.shape[at + 1 :])
    new = broadcast_to(fitted(new, region), region)
    return Array(gather(concatenated([node, new], at), (at,), (sources,)))


def _checked(places: NDArray, length: int, axis: int) -> NDArray:
    if places.size and places.dtype.kind not in "iu":
        raise IndexError("arrays used as indices must be of integer (or boolean) type")
    places = places.astype(np.intp)
    places[places < 0] += length
    wrong = places[(places < 0) | (places > length)]
    if wrong.size:
        raise IndexError(f"index {wrong[0]} is out of bounds for axis {axis} with size {length}")
    return places


def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """Remove the zeros at the ends of ``filt``, along all axes or some. The zeros are found at the
    call.

    Parameters
    ----------
    filt : array_like
        Data; a list or tuple gives a list or tuple.
    trim : str
        ``"f"``: at the front; ``"b"``: at the back; or both.
    axis : int or sequence of int, optional

    Raises
    ------
    ValueError
        ``trim`` has other letters.
    """
    wanted = trim.lower()
    if wanted not in ("fb", "bf", "f", "b"):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}")
    array = filt if isinstance(filt, Array) else Array(strict_operand(filt), is_cell=True)
    every = tuple(range(array.ndim))
    axes = every if axis is None else normalize_axis_tuple(axis, array.ndim)
    key = [slice(None)] * array.ndim
    for at in axes:
        there = _any(array != 0, axis=tuple([a for a in every if a != at]))
        places = np.flatnonzero(np.asarray(there))
        first, end = (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)
        if not places.size and wanted == "f":
            first = end = array.shape[at]
        key[at] = slice(first if "f" in wanted else None, end if "b" in wanted else None)
    if array.ndim == 1 and isinstance(filt, list | tuple):
        return filt[key[0]]
    return array[tuple(key)]
