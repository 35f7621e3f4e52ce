"""Methods of `Array` that NumPy's arrays have: mostly the functions of the same names.

The package imports this module last, when all modules of functions are there.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from agentic_ray.array import (
    blocks,
    creation,
    elementwise,
    manipulation,
    mutation,
    overlap,
    repeating,
    scans,
    searching,
    selecting,
    sorting,
    statistics,
    taking,
)
from agentic_ray.array import casting as casting_
from agentic_ray.array.array_object import Array, check_order, viewed
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core.node import Op
from agentic_ray.array.flat import FlatView
from agentic_ray.array.linalg.structure import diagonal, trace
from agentic_ray.array.linalg.vectors import dot
from agentic_ray.array.viewing import Permutation, Reinterpreted
from agentic_ray.errors import InvalidTypeError

SAME: dict[str, Callable[..., Any]] = {
    "all": statistics.all,
    "any": statistics.any,
    "argmax": searching.argmax,
    "argmin": searching.argmin,
    "argpartition": sorting.argpartition,
    "argsort": sorting.argsort,
    "choose": selecting.choose,
    "clip": elementwise.clip,
    "cumprod": scans.cumprod,
    "cumsum": scans.cumsum,
    "cumulative_prod": scans.cumulative_prod,
    "cumulative_sum": scans.cumulative_sum,
    "diagonal": diagonal,
    "dot": dot,
    "max": statistics.max,
    "mean": statistics.mean,
    "min": statistics.min,
    "nonzero": searching.nonzero,
    "prod": statistics.prod,
    "put": mutation.put,
    "ravel": manipulation.ravel,
    "repeat": repeating.repeat,
    "round": elementwise.round,
    "searchsorted": searching.searchsorted,
    "squeeze": manipulation.squeeze,
    "std": statistics.std,
    "sum": statistics.sum,
    "swapaxes": manipulation.swapaxes,
    "take": taking.take,
    "trace": trace,
    "var": statistics.var,
}
"""Functions whose first argument is the array, taken as they are."""


# --- shapes ------------------------------------------------------------------------------


def reshape(self: Array, *shape: Any, order: str = "C", copy: bool | None = None) -> Array:
    """Arrange the elements in another shape: see `agentic_ray.array.reshape`."""
    wanted = shape[0] if len(shape) == 1 else shape
    return manipulation.reshape(self, wanted, order=order, copy=copy)


def transpose(self: Array, *axes: Any) -> Array:
    """Return a view with the axes in another order; reversed if none is given."""
    given = axes[0] if len(axes) == 1 and (axes[0] is None or np.ndim(axes[0])) else axes
    if not given:
        return viewed(self, Permutation(tuple(range(self.ndim))[::-1]))
    return manipulation.permute_dims(self, tuple(given))


def compress(self: Array, condition: Any, axis: int | None = None, out: Any = None) -> Any:
    """Select elements along ``axis`` where ``condition`` holds: see
    `agentic_ray.array.compress`."""
    return taking.compress(condition, self, axis, out)


def astype(
    self: Array,
    dtype: Any,
    order: str = "K",
    casting: str = "unsafe",
    subok: bool = True,
    copy: Any = True,
    *,
    device: str | None = None,
) -> Array:
    """Convert the elements to another dtype.

    Parameters
    ----------
    dtype : dtype
    order : {"K", "A", "C", "F"}
        As in `agentic_ray.array.asarray`.
    casting : {"no", "equiv", "safe", "same_kind", "unsafe", "same_value"}
        Conversions that are allowed.
    subok : bool
        Ignored; arrays here have no subclasses.
    copy : bool
        False: return this array itself if it has the dtype and the order already.
    device : str, optional

    Raises
    ------
    TypeError
        ``casting`` forbids the conversion.
    ValueError
        ``casting`` is ``"same_value"`` and a value changes.
    """
    return casting_.converted(self, dtype, order, casting, copy, device)


def flatten(self: Array, order: str = "C") -> Array:
    """Arrange all elements in one axis, as an array of its own."""
    return manipulation.ravel(self, order=order).copy()


def flat(self: Array) -> FlatView:
    """Return the elements in C order: for loops, and to read or assign by position."""
    return FlatView(self)


def set_flat(self: Array, value: Any) -> None:
    """Assign ``value``, repeated as often as needed, to the elements in C order."""
    FlatView(self)[:] = value


def resize(self: Array, *new_shape: Any, refcheck: bool = True) -> None:
    """Change shape and size in place; new elements are zero.

    Raises
    ------
    ValueError
        The array is a view: it shares its elements.
    """
    if self.base is not None:
        raise ValueError("cannot resize this array: it does not own its data")
    shape = creation.shape_of(new_shape[0] if len(new_shape) == 1 else new_shape)
    elements, size = manipulation.reshape(self, -1), int(np.prod(shape, dtype=np.int64))
    if size > self.size:
        more = creation.zeros(size - self.size, dtype=self.dtype)
        elements = manipulation.concat([elements, more])
    self._own = manipulation.reshape(elements[:size], shape)._node


# --- in place ----------------------------------------------------------------------------


def fill(self: Array, value: Any) -> None:
    """Set every element to ``value``.

    Raises
    ------
    ValueError, TypeError
        ``value`` has axes: NumPy's own error.
    """
    if np.ndim(value):
        np.empty(1, self.dtype).fill(build.without_arrays(value))  # raises NumPy's own error
    self[...] = value


def sort(self: Array, axis: int = -1, kind: str | None = None, **options: Any) -> None:
    """Sort this array in place along ``axis``; options as in `agentic_ray.array.sort`."""
    self[...] = sorting.sort(self, axis, kind, **options)


def partition(self: Array, kth: Any, axis: int = -1, **options: Any) -> None:
    """Partition this array in place; options as in `agentic_ray.array.partition`."""
    self[...] = sorting.partition(self, kth, axis, **options)


# --- numbers -----------------------------------------------------------------------------


def conjugate(self: Array) -> Any:
    """Return the complex conjugates."""
    return elementwise.conjugate(self)


# --- bytes and files ---------------------------------------------------------------------


def tobytes(self: Array, order: str = "C") -> bytes:
    """Return the values as bytes, in C order (or Fortran's)."""
    order = check_order(order)
    values = self._in_memory() if order == "A" else np.asarray(self)
    return values.tobytes(order=order)  # type: ignore[arg-type]


def tofile(self: Array, fid: Any, sep: str = "", format: str = "%s") -> None:
    """Write the values to a file: see `numpy.ndarray.tofile`."""
    np.asarray(self).tofile(fid, sep=sep, format=format)


def dump(self: Array, file: Any) -> None:
    """Pickle the array to a file, open or named."""
    if hasattr(file, "write"):
        pickle.dump(self, file)
        return
    with open(os.fspath(file), "wb") as opened:
        pickle.dump(self, opened)


def dumps(self: Array) -> bytes:
    """Return the array as a pickle."""
    return pickle.dumps(self)


def _byteswap_kernel(xp: Any, x: Any) -> Any:
    return x.byteswap()


_BYTESWAP = Op("byteswap", "map", _byteswap_kernel)


def byteswap(self: Array, inplace: bool = False) -> Array:
    """Reverse the order of the bytes of every element."""
    swapped = Array(build.elementwise(_BYTESWAP, [self._node]), is_cell=self._is_cell)
    if not inplace:
        return swapped
    self[...] = swapped
    return self


def view(self: Array, dtype: Any = None, type: Any = None) -> Array:
    """Return a view of the same bytes as another dtype; the last axis becomes longer or shorter
    where elements have another size.

    Raises
    ------
    TypeError
        A type of array was asked for.
    ValueError
        Elements have another size, and there is no last axis, or NumPy would not have it
        contiguous, or its bytes are no whole number of the new elements.
    """
    if type is not None:
        raise TypeError("view: arrays here have no subclasses; leave type out")
    wanted = build.check_numbers(self.dtype if dtype is None else np.dtype(dtype))
    if wanted.subdtype is not None:
        raise InvalidTypeError(f"view: elements of {wanted} are arrays; reshape a view of numbers")
    self._layout.view(wanted)  # raises NumPy's own error
    return self._view(Reinterpreted(wanted))


# --- NumPy attributes that are missing here ----------------------------------------------

_INSTEAD = {
    "ctypes": "numpy.asarray(x).ctypes: chunks have no address",
    "data": "memoryview(numpy.asarray(x)): chunks have no address",
    "getfield": "x.view(dtype), or a field of records: x['name']",
    "itemset": "x[i] = value",
    "newbyteorder": "x.byteswap(): elements are in the machine's order",
    "setfield": "x.view(dtype)[...] = value, or a field of records: x['name'] = value",
    "setflags": "x.copy(), which others do not assign to: arrays cannot be made read-only",
}


_OF_SCALARS = frozenset(
    name
    for kind in (np.float64, np.int64, np.bool_, np.complex128)
    for name in dir(kind)
    if not name.startswith("_") and not hasattr(np.ndarray, name)
)


def missing(self: Array, name: str) -> Any:
    """Return an attribute that only NumPy's scalars have, such as ``is_integer``, of a scalar; for
    other arrays raise an error that names a replacement.

    Raises
    ------
    AttributeError
        NumPy lacks it too, or this package leaves it out.
    """
    if name in _OF_SCALARS and self._is_scalar and hasattr(self.dtype.type, name):
        return getattr(evaluate.value(self._node)[()], name)
    instead = f"; use instead: {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise AttributeError(f"'Array' object has no attribute {name!r}{instead}", name=name, obj=self)


# --- users' functions --------------------------------------------------------------------


def map_blocks(self: Array, function: Callable[..., Any], *args: Any, **options: Any) -> Array:
    """Apply ``function`` to each chunk: see `agentic_ray.array.map_blocks`."""
    return blocks.map_blocks(function, self, *args, **options)


def map_overlap(
    self: Array,
    function: Callable[..., Any],
    depth: Any,
    boundary: Any = None,
    trim: bool = True,
    **options: Any,
) -> Array:
    """Apply ``function`` to each chunk with a margin: see `agentic_ray.array.map_overlap`."""
    return overlap.map_overlap(function, self, depth=depth, boundary=boundary, trim=trim, **options)


OWN = (
    astype, compress, conjugate, reshape, transpose, flatten, resize, fill, sort, partition,
    tobytes, tofile, dump, dumps, byteswap, view, map_blocks, map_overlap,
)  # fmt: skip

for name, function in SAME.items():
    setattr(Array, name, function)
for method in OWN:
    setattr(Array, method.__name__, method)
Array.conj = conjugate  # type: ignore[attr-defined]
Array.flat = property(flat, set_flat)  # type: ignore[attr-defined]
Array.__getattr__ = missing  # type: ignore[method-assign]
