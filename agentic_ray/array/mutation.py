"""NumPy's functions that write to an array: put, place, putmask, copyto, fill_diagonal and others.

Each assigns to the array it is given: an `Array` gets a new expression, a NumPy array is written
to in memory by NumPy itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import (
    Update,
    converted,
    cycled,
    fitted,
    replaced,
    scattered,
    with_positions,
)
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import leaf, strict_operand, without_arrays
from agentic_ray.array.core.elements import cast as converted_to
from agentic_ray.array.core.views import reshaped
from agentic_ray.array.indexing import parse, positions_in
from agentic_ray.array.viewing import Region, Reshape

Function = TypeVar("Function", bound=Callable[..., None])


def _writes(function: Function) -> Function:
    """Decorator: pass an argument that is a NumPy array to NumPy's function of this name."""
    own: Callable[..., None] = getattr(np, function.__name__)
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def choose(*args: Any, **kwargs: Any) -> None:
        target = args[0] if args else kwargs.get(first)
        if isinstance(target, np.ndarray):
            plain = {name: without_arrays(value) for name, value in kwargs.items()}
            own(*map(without_arrays, args), **plain)
        elif not isinstance(target, Array):
            raise TypeError(
                f"{function.__name__}: argument 1 must be an array, not {type(target).__name__}"
            )
        elif target._is_scalar:
            raise TypeError(f"{function.__name__}: a result without axes is not written to")
        else:
            function(*args, **kwargs)

    return cast(Function, choose)


@_writes
def put(a: Array, ind: Any, v: Any, mode: str = "raise") -> None:
    """Set the elements of ``a`` at flat positions ``ind`` to ``v``, repeated as often as needed.

    Parameters
    ----------
    a : Array
        Array that is assigned to; a view passes that on.
    ind : array_like of int
    v : array_like
    mode : {"raise", "wrap", "clip"}
        Treatment of positions outside.

    Raises
    ------
    IndexError
        A position lies outside, and ``mode`` is ``"raise"``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.arange(5)
    >>> xp.put(x, [0, 2], [-44, -55])
    >>> x
    Array([-44,   1, -55,   3,   4], dtype=int64)
    """
    if not np.size(v):
        return  # nothing to repeat: NumPy assigns nothing, wherever the positions lie
    places = positions_in(ind, a.size, mode, 0).reshape(-1)
    flat = a._view(Reshape((a.size,)))
    if places.size:
        values = cycled(v, places.size, a.dtype)._node
        flat._node = scattered(flat._node, 1, [places], values)


@_writes
def place(arr: Array, mask: Any, vals: Any) -> None:
    """Set the elements of ``arr`` where ``mask`` holds to ``vals``, one after the other and
    repeated as often as needed.

    Raises
    ------
    ValueError
        ``vals`` is empty though ``mask`` holds somewhere, or the sizes of ``mask`` and ``arr``
        differ.
    TypeError
        ``vals`` is an array that cannot be converted to the dtype of ``arr`` safely.
    """
    _check_safe(vals, arr)
    node = strict_operand(mask)
    if node.size != arr.size:
        raise ValueError("place: mask and data must be the same size")
    held = reshaped(converted_to(node, np.bool_), (arr.size,))
    places = np.flatnonzero(evaluate.value(held))
    if places.size:
        flat = arr._view(Reshape((arr.size,)))
        values = cycled(vals, places.size, arr.dtype)._node
        flat._node = scattered(flat._node, 1, [places], values)


@_writes
def putmask(a: Array, mask: Any, values: Any) -> None:
    """Set ``a.flat[n] = values[n]`` for each ``n`` where ``mask.flat[n]`` holds; ``values`` is
    repeated as often as needed.

    Raises
    ------
    ValueError
        The sizes of ``mask`` and ``a`` differ.
    TypeError
        ``values`` is an array that cannot be converted to the dtype of ``a`` safely.
    """
    _check_safe(values, a)
    node = strict_operand(mask)
    if node.size != a.size:
        raise ValueError("putmask: mask and data must be the same size")
    new = converted(values, a.dtype, as_array=True)
    if not new.size or not a.size:
        return
    held = reshaped(converted_to(node, np.bool_), a.shape)
    fits = new.shape == a.shape or new.size == 1
    whole = reshaped(new, a.shape if new.size == a.size and fits else (new.size,))
    if new.size == 1:
        whole = reshaped(new, ())
    elif not fits:
        whole = reshaped(cycled(values, a.size, a.dtype)._node, a.shape)
    a._node = replaced(a._node, held, whole)


def _check_safe(values: Any, target: Array) -> None:
    """Refuse an array of values that NumPy does not convert to the dtype of ``target``; lists and
    numbers are assigned one by one.

    Raises
    ------
    TypeError
        The conversion is not safe.
    """
    is_array = isinstance(values, np.ndarray) or (
        isinstance(values, Array) and not values._is_scalar
    )
    if is_array and not np.can_cast(values.dtype, target.dtype, "safe"):
        raise TypeError(
            f"Cannot cast array data from {values.dtype!r} to {target.dtype!r} according to the "
            "rule 'safe'"
        )


@_writes
def copyto(dst: Array, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """Set ``dst`` to ``src``, which is broadcast to it, where ``where`` holds.

    Raises
    ------
    TypeError
        ``casting`` forbids the conversion.
    ValueError
        ``src`` or ``where`` does not broadcast to ``dst``.
    """
    if isinstance(src, bool | int | float | complex):
        given = np.result_type(src, dst.dtype)  # a Python scalar gives way, within its kind
    else:
        given = strict_operand(src).dtype
    if not np.can_cast(given, dst.dtype, casting):
        raise TypeError(
            f"Cannot cast array data from {given!r} to {dst.dtype!r} according to the rule "
            f"{casting!r}"
        )
    new = fitted(converted(src, dst.dtype), dst.shape)
    if where is True:
        dst[...] = Array(new)
        return
    mask = fitted(converted_to(strict_operand(where), np.bool_), dst.shape)
    dst._node = replaced(dst._node, mask, new)


@_writes
def fill_diagonal(a: Array, val: Any, wrap: bool = False) -> None:
    """Set the main diagonal of ``a`` to ``val``, repeated as often as needed.

    Parameters
    ----------
    a : Array
        Array with at least two axes, all of one length if more than two.
    val : array_like
    wrap : bool
        Whether to start again after each square of a tall matrix.

    Raises
    ------
    ValueError
        ``a`` has fewer than two axes, or more and they differ in length.
    """
    if a.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if a.ndim == 2:
        step = a.shape[1] + 1
        end = a.size if wrap else a.shape[1] * a.shape[1]
    else:
        if len(set(a.shape)) > 1:
            raise ValueError("All dimensions of input must be of equal length")
        step = 1 + sum(np.cumprod(a.shape[:-1]).tolist())
        end = a.size
    places = np.unravel_index(np.arange(0, min(end, a.size), step), a.shape)
    if places[0].size and np.size(val):
        values = cycled(val, places[0].size, a.dtype)._node
        a._node = scattered(a._node, a.ndim, list(places), values)


@_writes
def put_along_axis(arr: Array, indices: Any, values: Any, axis: int | None) -> None:
    """Set, for each position of ``indices`` along ``axis``, the element it names to ``values``.

    Raises
    ------
    IndexError
        An index is no integer, or lies outside the axis.
    ValueError
        The numbers of axes differ, or shapes do not broadcast.
    """
    if axis is None:
        if np.ndim(indices) != 1:
            raise ValueError("when axis=None, `indices` must have a single dimension.")
        arr._view(Reshape((arr.size,)))[indices] = values
        return
    found = evaluate.value(strict_operand(indices))
    at = normalize_axis_index(axis, arr.ndim)
    if found.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if found.ndim != arr.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    shape = np.broadcast_shapes(found.shape, (*arr.shape[:at], 1, *arr.shape[at + 1 :]))
    key = [np.arange(n).reshape([-1 if a == i else 1 for i in range(arr.ndim)])
           for a, n in enumerate(shape)]  # fmt: skip
    key[at] = found
    arr[tuple(key)] = values


def ufunc_at(ufunc: np.ufunc, a: Array, indices: Any, *b: Any) -> None:
    """Apply ``ufunc`` in place to the elements at ``indices``, each as often as it is named.

    The order of the values for one element is that of the indices, as in NumPy.

    Raises
    ------
    IndexError
        The index is refused as in reading.
    ValueError
        The values do not broadcast to the elements.
    TypeError
        The ufunc does not take elements and values of these dtypes.
    """
    node = a._node
    values = [Array(strict_operand(value)) for value in b]
    with np.errstate(all="ignore"):  # raises NumPy's own error if there is no such loop
        ufunc.at(np.ones(1, node.dtype), [0], *[np.ones(1, value.dtype) for value in values])
    index = parse(indices, node.shape)
    region = Region(tuple(index.basic), index.new)
    ndim = len(region.shape)
    if index.arrays:
        spread = np.broadcast_shapes(*[places.shape for places in index.arrays.values()])
        ndim += len(spread) - len(index.arrays)
    if values and values[0].ndim > ndim:
        raise ValueError("array is not broadcastable to correct shape")
    if index.arrays:
        update = Update(ufunc.__name__, unary=not b)
        value = values[0]._node if values else leaf(np.zeros((), node.dtype))
        a._node = region.write(node, with_positions(region.read(node), index, value, update))
    else:  # no element is named twice
        a[indices] = ufunc(a[indices], *values)
