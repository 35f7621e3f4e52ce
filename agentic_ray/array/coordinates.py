"""Grids of coordinates and positions, and arrays written as an index: meshgrid, mgrid, r_, ix_."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, viewed
from agentic_ray.array.conversion import array, asarray, check_like
from agentic_ray.array.core.build import broadcast_shapes, check_numbers
from agentic_ray.array.core.node import Op
from agentic_ray.array.core.program import Location
from agentic_ray.array.creation import created, shape_of
from agentic_ray.array.manipulation import concat, reshape, stack, transpose
from agentic_ray.array.ranges import arange, linspace
from agentic_ray.array.searching import nonzero
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.viewing import Broadcast


@by_numpy_if_small
def meshgrid(
    *xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy"
) -> tuple[Array, ...]:
    """Make coordinate arrays from vectors.

    Parameters
    ----------
    *xi : array_like
        Vectors; arrays with more axes are flattened.
    copy : bool
        False: return views of the vectors where possible.
    sparse : bool
        Whether to leave all axes but a vector's own at length 1.
    indexing : {"xy", "ij"}
        Whether the first vector goes along the second axis or the first.

    Raises
    ------
    ValueError
        ``indexing`` is neither of the two.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    count = len(xi)
    order = list(range(count))
    if indexing == "xy" and count > 1:
        order[0], order[1] = 1, 0
    placed = [
        reshape(asarray(x), (1,) * axis + (-1,) + (1,) * (count - axis - 1))
        for x, axis in zip(xi, order, strict=True)
    ]
    if not sparse:
        shape = broadcast_shapes([x.shape for x in placed])
        placed = [viewed(x, Broadcast(shape)) for x in placed]
    return tuple([x.copy() if copy else x for x in placed])


def fromfunction(
    function: Callable[..., Any],
    shape: Any,
    *,
    dtype: Any = float,
    like: Any = None,
    **kwargs: Any,
) -> Any:
    """Call ``function`` with the arrays of positions along each axis; return its result.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.fromfunction(lambda i, j: 10 * i + j, (2, 2), dtype=int)
    Array([[ 0,  1],
           [10, 11]], dtype=int64)
    """
    check_like(like)
    return function(*indices(shape, dtype), **kwargs)


def indices(
    dimensions: Any, dtype: Any = int, sparse: bool = False, *, chunks: Any = "auto"
) -> Any:
    """Return the positions along each axis of an array of shape ``dimensions``.

    Parameters
    ----------
    dimensions : sequence of int
    dtype : dtype
    sparse : bool
        Whether to return a tuple of arrays with length 1 on all axes but their own.

    Returns
    -------
    Array of shape (number of axes, *dimensions), or tuple of Array
    """
    shape, dtype = shape_of(dimensions), check_numbers(np.dtype(dtype))
    if sparse:
        open_shapes = [(1,) * a + (n,) + (1,) * (len(shape) - a - 1) for a, n in enumerate(shape)]
        return tuple(
            [
                created(_INDEX, (axis, dtype), own, dtype, chunks, None)
                for axis, own in enumerate(open_shapes)
            ]
        )
    return created(_ALL_INDICES, (dtype,), (len(shape), *shape), dtype, chunks, None)


def _along(xp: Any, starts: Sequence[int], shape: Sequence[int], axis: int, dtype: Any) -> Any:
    found = xp.arange(starts[axis], starts[axis] + shape[axis], dtype=dtype)
    return xp.reshape(found, tuple([-1 if a == axis else 1 for a in range(len(shape))]))


def _index_kernel(xp: Any, location: Location, axis: int, dtype: Any) -> Any:
    starts, shape = location
    return _along(xp, starts, shape, axis, dtype)


_INDEX = Op("index", "create", _index_kernel)


def _all_indices_kernel(xp: Any, location: Location, dtype: Any) -> Any:
    (first, *starts), (count, *shape) = location
    out = xp.empty((count, *shape), dtype=dtype)
    for row in range(count):
        own = _along(xp, starts, shape, first + row, dtype)
        out[row, ...] = xp.broadcast_to(own, tuple(shape))
    return out


_ALL_INDICES = Op("indices", "create", _all_indices_kernel)


def ix_(*args: Any) -> tuple[Array, ...]:
    """Return an index that selects the rows, columns, … of each sequence, in all combinations.

    Booleans select where they hold; they are computed at the call.

    Raises
    ------
    ValueError
        A sequence has no axis, or several.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.arange(10).reshape(2, 5)
    >>> x[xp.ix_([0, 1], [2, 4])]
    Array([[2, 4],
           [7, 9]], dtype=int64)
    """
    made = []
    for axis, entry in enumerate(args):
        vector = asarray(entry)
        if not vector.size and not isinstance(entry, Array | np.ndarray):
            vector = vector.astype(np.intp)
        if vector.ndim != 1:
            raise ValueError("Cross index must be 1 dimensional")
        if vector.dtype.kind == "b":
            (vector,) = nonzero(vector)
        made.append(reshape(vector, (1,) * axis + (-1,) + (1,) * (len(args) - axis - 1)))
    return tuple(made)


# --- arrays written as an index ----------------------------------------------------------


def _stretch(entry: slice) -> Array:
    """Return the values of a slice: a step of ``5j`` means five values, with both ends."""
    start = 0 if entry.start is None else entry.start
    step = 1 if entry.step is None else entry.step
    start, stop, step = (
        value.item() if isinstance(value, Array) else value for value in (start, entry.stop, step)
    )
    if isinstance(step, complex):
        return linspace(start, stop, int(abs(step)))  # type: ignore[no-any-return]
    return arange(start, stop, step)


class Grid:
    """``mgrid`` and ``ogrid``: coordinate arrays, written as slices.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.mgrid[0:2, 0:2]
    Array([[[0, 0],
            [1, 1]],
    <BLANKLINE>
           [[0, 1],
            [0, 1]]], dtype=int64)
    """

    def __init__(self, *, sparse: bool) -> None:
        self.sparse = sparse

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, tuple):
            return _stretch_of_one(key)
        # Computed as in NumPy: positions times the step.
        dtype: Any = np.result_type(
            np.int64,
            *[
                float if isinstance(part, complex) else type(part)
                for entry in key
                for part in (entry.start, entry.stop, entry.step)
                if part is not None
            ],
        )
        vectors = []
        for entry in key:
            start = 0 if entry.start is None else entry.start
            step = 1 if entry.step is None else entry.step
            if isinstance(step, complex):
                length = int(abs(step))
                step = (entry.stop - start) / float(length - 1) if length != 1 else (
                    entry.stop - start)  # fmt: skip
                dtype = np.result_type(dtype, float)
            else:
                length = max(0, math.ceil((entry.stop - start) / (step * 1.0)))
            vectors.append((length, start, step))
        made = [(arange(n, dtype=dtype) * step + start).astype(dtype) for n, start, step in vectors]
        if self.sparse:
            return meshgrid(*made, sparse=True, indexing="ij")
        grids = meshgrid(*made, copy=False, indexing="ij")
        return stack(grids) if grids else array([], dtype=dtype)


def _stretch_of_one(key: slice) -> Array:
    start = 0 if key.start is None else key.start
    step = 1 if key.step is None else key.step
    if isinstance(step, complex):
        length = int(abs(step))
        distance = (key.stop - start) / float(length - 1) if length > 1 else step.real
        return arange(0, length, 1, dtype=float) * distance + start
    return arange(start, key.stop, step)


mgrid = Grid(sparse=False)
ogrid = Grid(sparse=True)


class Joined:
    """``r_`` and ``c_``: arrays, numbers and ranges written as an index and joined.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.r_[xp.asarray([1, 2, 3]), 0, 0, 4:6]
    Array([1, 2, 3, 0, 0, 4, 5], dtype=int64)
    """

    def __init__(self, axis: int, ndmin: int, first: int) -> None:
        self.axis, self.ndmin, self.first = axis, ndmin, first

    def __getitem__(self, key: Any) -> Array:
        entries = list(key) if isinstance(key, tuple) else [key]
        axis, ndmin, first = self.axis, self.ndmin, self.first
        if entries and isinstance(entries[0], str):
            axis, ndmin, first = self._directive(entries.pop(0))
        parts: list[Array] = []
        kinds: list[Any] = []
        for entry in entries:
            if isinstance(entry, str):
                raise ValueError("special directives must be the first entry.")
            if isinstance(entry, slice):
                part = _stretch(entry)
                part = part if ndmin < 2 else _raised(part, ndmin, first)
            elif np.ndim(entry) == 0:
                part = array(entry, ndmin=max(ndmin, 1))
            else:
                own = asarray(entry)
                part = own if own.ndim >= ndmin else _raised(own, ndmin, first)
            parts.append(part)
            kinds.append(entry if np.isscalar(entry) else part.dtype)
        if not parts:
            raise ValueError("need at least one array to concatenate")
        dtype = np.result_type(*kinds)
        return concat([part.astype(dtype) for part in parts], axis=axis)

    def _directive(self, text: str) -> tuple[int, int, int]:
        """Return axis, least number of axes, and the place of a vector's own axis among them."""
        if text in ("r", "c"):
            raise ValueError(f"{text!r} makes a matrix, which is left out: use '0,2' or '1,2'")
        try:
            numbers = [int(part) for part in text.split(",")]
            axis, ndmin, first = (*numbers, *(self.axis, self.ndmin, self.first)[len(numbers) :])
        except ValueError:
            raise ValueError(f"unknown special directive {text!r}") from None
        return axis, ndmin, first

    def __len__(self) -> int:
        return 0


def _raised(part: Array, ndmin: int, first: int) -> Array:
    """Add new axes to ``part``; its own ones start at position ``first`` among them."""
    missing = ndmin - part.ndim
    raised = array(part, copy=None, ndmin=ndmin)
    if first == -1 or missing <= 0:
        return raised
    start = first if first >= 0 else first + missing + 1
    order = list(range(ndmin))
    own, new = order[missing:], order[:missing]
    return transpose(raised, (*new[:start], *own, *new[start:]))


r_ = Joined(0, 1, -1)
c_ = Joined(-1, 2, 0)
