"""Arrays of a constant, and unit matrices."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_device, check_order, is_fortran
from agentic_ray.array.conversion import asarray, check_like
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import check_numbers
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import Op, make
from agentic_ray.array.core.program import Location
from agentic_ray.array.core.views import broadcast
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.array.viewing import unmade


def shape_of(shape: Any) -> Shape:
    """Return a shape from an int or a sequence of ints.

    Raises
    ------
    ValueError
        A length is negative.
    """
    if isinstance(shape, Array | np.ndarray) and shape.ndim:
        shape = shape.tolist()
    if isinstance(shape, tuple | list | range):
        result = tuple([operator.index(length) for length in shape])
    else:
        result = (operator.index(shape),)
    if any(length < 0 for length in result):
        raise ValueError(f"negative dimensions are not allowed: {result}")
    return result


def created(
    op: Op, params: tuple[Any, ...], shape: Shape, dtype: Any, chunks: Any, device: str | None
) -> Array:
    """Return an array whose blocks are made from their own position."""
    dtype = check_numbers(np.dtype(dtype))
    grid = grids.normalize(chunks, shape, dtype)
    node = make(op, (), params, shape, dtype, grid, check_device(device) or "cpu")
    return Array(node, is_cell=True)


# --- constant ----------------------------------------------------------------------------


def _full_kernel(xp: Any, location: Location, value: Any, dtype: Any) -> Any:
    return xp.full(location[1], value, dtype=dtype)


FULL = Op("full", "create", _full_kernel, weight=0.5)


def _filled(
    shape: Any,
    value: Any,
    dtype: Any,
    order: Any = "C",
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return an array of one scalar."""
    check_like(like)
    lengths, dtype = shape_of(shape), check_numbers(np.dtype(dtype))
    made = created(FULL, (value, dtype), lengths, dtype, chunks, device)
    made._is_fortran = is_fortran(check_order(order, "CF"), unmade(lengths, dtype))
    return made


def full(
    shape: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "C",
    *,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return an array of ``fill_value``, which may be an array that broadcasts to ``shape``.

    Parameters
    ----------
    shape : int or tuple of int
    fill_value : scalar or array_like
    dtype : dtype, optional
        Dtype of the result; default: that of ``fill_value``.
    order : {"C", "F"}
        As in `asarray`.
    device, like, chunks
        As in `asarray`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.full((2, 2), 7)
    Array([[7, 7],
           [7, 7]], dtype=int64)
    """
    if isinstance(fill_value, Array):
        fill_value = fill_value.compute()
    value = np.asarray(fill_value)
    if dtype is None:
        check_numbers(value.dtype, fill_value)
    wanted = check_numbers(value.dtype if dtype is None else np.dtype(dtype))
    value = np.full(value.shape, fill_value, wanted)  # converted as NumPy does it here
    if not value.ndim:
        return _filled(shape, value[()], wanted, order, device, like, chunks)
    lengths = shape_of(shape)
    if np.broadcast_shapes(value.shape, lengths) != lengths:
        raise ValueError(
            f"could not broadcast input array from shape {value.shape} into shape {lengths}"
        )
    made = asarray(value, device=device, like=like, copy=False)
    grid = grids.normalize(chunks, lengths, wanted)
    is_f = is_fortran(check_order(order, "CF"), unmade(lengths, wanted))
    return Array(broadcast(made._node, lengths, grid), is_cell=True, is_fortran=is_f)


def zeros(
    shape: Any,
    dtype: Any = None,
    order: str = "C",
    *,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return an array of zeros; arguments as in `full`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.zeros(3, "int32")
    Array([0, 0, 0], dtype=int32)
    """
    return _filled(shape, False, dtype or np.float64, order, device, like, chunks)


def ones(
    shape: Any,
    dtype: Any = None,
    order: str = "C",
    *,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return an array of ones; arguments as in `full`."""
    return _filled(shape, True, dtype or np.float64, order, device, like, chunks)


def empty(
    shape: Any,
    dtype: Any = None,
    order: str = "C",
    *,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return an array of arbitrary values: here zeros, so that equal calls have equal bits."""
    return _filled(shape, False, dtype or np.float64, order, device, like, chunks)


def _filled_like(
    a: Any, value: Any, dtype: Any, order: Any, shape: Any, device: str | None, chunks: Any
) -> Array:
    """Return an array of one scalar, or of an array that broadcasts, by default shaped as ``a``."""
    array = a if isinstance(a, Array) else asarray(a)
    node = array._node
    dtype = node.dtype if dtype is None else np.dtype(dtype)
    if shape is None or shape_of(shape) == node.shape:
        shape, chunks = node.shape, node.chunks if chunks is None else chunks
    order = check_order(order)
    if order in "KA":
        order = "F" if array.ndim > 1 and array._layout.flags.fnc else "C"
    return full(
        shape, value, dtype, order, device=device or node.device,
        chunks="auto" if chunks is None else chunks,
    )  # fmt: skip


def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: str | None = None,
    chunks: Any = None,
) -> Array:
    """Return an array of ``fill_value``, shaped and chunked as ``a``.

    Parameters
    ----------
    a : array_like
    fill_value : scalar or array_like
    dtype, shape, device, chunks : optional
        Properties that replace those of ``a``.
    order : {"K", "A", "C", "F"}
        As in `asarray`.
    subok : bool
        Ignored; arrays here have no subclasses.
    """
    return _filled_like(a, fill_value, dtype, order, shape, device, chunks)


def zeros_like(
    a: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: str | None = None,
    chunks: Any = None,
) -> Array:
    """Return zeros, shaped and chunked as ``a``; arguments as in `full_like`."""
    return _filled_like(a, False, dtype, order, shape, device, chunks)


def ones_like(
    a: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: str | None = None,
    chunks: Any = None,
) -> Array:
    """Return ones, shaped and chunked as ``a``; arguments as in `full_like`."""
    return _filled_like(a, True, dtype, order, shape, device, chunks)


def empty_like(
    prototype: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: str | None = None,
    chunks: Any = None,
) -> Array:
    """Return an array of arbitrary values, shaped as ``prototype``: see `empty`, `full_like`."""
    return _filled_like(prototype, False, dtype, order, shape, device, chunks)


# --- matrices ----------------------------------------------------------------------------


def _eye_kernel(xp: Any, location: Location, k: int, dtype: Any) -> Any:
    (row, column), shape = location
    return xp.eye(*shape, k=k + row - column, dtype=dtype)


EYE = Op("eye", "create", _eye_kernel)


def eye(
    N: int,
    M: int | None = None,
    k: int = 0,
    dtype: Any = None,
    order: str = "C",
    *,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return ones on the ``k``-th diagonal of ``N`` rows and ``M`` columns, zeros elsewhere.

    Raises
    ------
    ValueError
        ``N`` or ``M`` is negative.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.eye(2, 3, 1)
    Array([[0., 1., 0.],
           [0., 0., 1.]], dtype=float64)
    """
    check_like(like)
    shape = tuple([operator.index(n) for n in (N, N if M is None else M)])
    if min(shape) < 0:
        raise ValueError("negative dimensions are not allowed")
    dtype = check_numbers(np.dtype(dtype or np.float64))
    made = created(EYE, (operator.index(k), dtype), shape, dtype, chunks, device)
    made._is_fortran = check_order(order, "CF") == "F"
    return made


def identity(n: int, dtype: Any = None, *, like: Any = None, chunks: Any = "auto") -> Array:
    """Return the unit matrix of ``n`` rows."""
    return eye(n, dtype=dtype, like=like, chunks=chunks)


FUNCTIONS["full_like"] = full_like
