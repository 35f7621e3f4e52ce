"""Arrays from nothing, from Python objects, from NumPy and from other libraries."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_device
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import (
    broadcast_shapes,
    check_numbers,
    elementwise,
    strict_operand,
    without_arrays,
)
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import NDArray, Node, Op, data, make
from agentic_ray.array.core.program import Location
from agentic_ray.array.core.views import broadcast, expanded, rechunk
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError


def shape_of(shape: Any) -> Shape:
    """A shape from an int or a sequence of ints.

    Raises
    ------
    ValueError
        A length is negative.
    """
    if isinstance(shape, tuple | list):
        result = tuple([operator.index(length) for length in shape])
    else:
        result = (operator.index(shape),)
    if any(length < 0 for length in result):
        raise ValueError(f"negative dimensions are not allowed: {result}")
    return result


def created(
    op: Op, params: tuple[Any, ...], shape: Shape, dtype: Any, chunks: Any, device: str | None
) -> Array:
    """An array whose blocks are made from their own position."""
    dtype = check_numbers(np.dtype(dtype))
    grid = grids.normalize(chunks, shape, dtype)
    node = make(op, (), params, shape, dtype, grid, check_device(device) or "cpu")
    return Array(node, is_cell=True)


# --- from existing values ----------------------------------------------------------------


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: str | None = None,
    copy: bool | None = None,
    chunks: Any = None,
) -> Array:
    """An array of what ``obj`` holds.

    Parameters
    ----------
    obj
        An array, a Python scalar, nested sequences of these, or anything with a buffer,
        ``__array__`` or DLPack.
    dtype, device
        As in the standard.
    copy : bool, optional
        False: share memory with a NumPy array, which must then not change. Default: copy
        what is writable.
    chunks
        Default ``"auto"`` for new arrays: sized from bytes. Or an int for all axes, or per
        axis an int, ``-1`` (one chunk), ``"auto"`` or a tuple of lengths.

    Raises
    ------
    ValueError
        ``copy=False`` and a copy is needed.
    """
    if isinstance(obj, Array):
        return _as_array(obj, dtype, device, copy, chunks)
    array = _as_numpy(obj, dtype, copy)
    node = data(
        array,
        grids.normalize("auto" if chunks is None else chunks, array.shape, array.dtype),
        check_device(device) or "cpu",
    )
    return Array(node, is_cell=True)


def _as_array(
    array: Array, dtype: Any, device: str | None, copy: bool | None, chunks: Any
) -> Array:
    node = array._node
    if dtype is not None and np.dtype(dtype) != node.dtype:
        if copy is False:
            raise ValueError(f"a cast from {node.dtype} to {np.dtype(dtype)} needs a copy")
        node = cast(node, dtype)
    if chunks is not None:
        node = rechunk(node, grids.normalize(chunks, node.shape, node.dtype))
    result = Array(node, is_cell=True) if copy or node is not array._node else array
    return result if device is None else result.to_device(device)


def _as_numpy(obj: Any, dtype: Any, copy: bool | None) -> NDArray:
    """``obj`` as a NumPy array that nobody else writes to, in native byte order."""
    if isinstance(obj, list | tuple):
        obj = without_arrays(obj)
    if not isinstance(obj, np.ndarray | np.generic) and hasattr(obj, "__dlpack__"):
        obj = np.from_dlpack(obj)
    array = np.asarray(obj, dtype=None if dtype is None else np.dtype(dtype))
    check_numbers(array.dtype, obj)
    fresh = array is not obj and not np.may_share_memory(array, _memory_of(obj))
    if copy is False and (fresh or not array.dtype.isnative):
        raise ValueError(f"a {type(obj).__name__} cannot become an array without a copy")
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    if fresh or copy is False or (copy is None and _is_constant(array)):
        return array
    return np.array(array)


def _memory_of(obj: Any) -> NDArray:
    if isinstance(obj, np.ndarray):
        return obj
    try:
        return np.frombuffer(obj, np.uint8)
    except (TypeError, ValueError, BufferError, AttributeError):
        # No plain buffer: whatever made the array (``__array__``) may still own its memory.
        return np.asarray(obj) if hasattr(obj, "__array__") else np.empty(0)


def _is_constant(array: NDArray) -> bool:
    """Whether nobody can write to this memory through NumPy."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)


def from_numpy(array: NDArray, /, *, chunks: Any = "auto", device: str | None = None) -> Array:
    """An array over ``array``'s memory, without a copy; it must not change afterwards."""
    if not isinstance(array, np.ndarray):
        raise InvalidTypeError(f"from_numpy expects a NumPy array, not {type(array).__name__}")
    return asarray(array, copy=False if array.dtype.isnative else None,
                   chunks=chunks, device=device)  # fmt: skip


def array(obj: Any, dtype: Any = None, *, copy: bool | None = True, chunks: Any = None) -> Array:
    """NumPy's name for `asarray` with a copy."""
    return asarray(obj, dtype=dtype, copy=copy, chunks=chunks)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Array:
    """An array from any object with ``__dlpack__``; brought to host memory if need be.

    Raises
    ------
    BufferError, ValueError
        The exporter refuses, or a needed copy was forbidden.
    """
    if isinstance(device, tuple):
        device = None  # a DLPack device: host memory is all there is here
    if isinstance(x, Array):
        result = asarray(x, copy=copy)
    else:
        result = asarray(np.from_dlpack(x, copy=copy), copy=copy)
    return result if device is None else result.to_device(check_device(device) or "cpu")


# --- constant ----------------------------------------------------------------------------


def _full_kernel(xp: Any, location: Location, value: Any, dtype: Any) -> Any:
    return xp.full(location[1], value, dtype=dtype)


FULL = Op("full", "create", _full_kernel, weight=0.5)


def full(
    shape: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: str | None = None,
    chunks: Any = "auto",
) -> Array:
    """An array of ``fill_value``."""
    if isinstance(fill_value, Array):
        fill_value = fill_value.item()
    value = np.asarray(fill_value, dtype=None if dtype is None else np.dtype(dtype))
    if value.ndim or value.dtype.kind not in "biufc":
        raise InvalidTypeError(f"fill_value must be a number, not {fill_value!r}")
    return _full(shape, value[()], value.dtype, device, chunks)


def _full(shape: Any, value: Any, dtype: Any, device: str | None, chunks: Any) -> Array:
    return created(FULL, (value, np.dtype(dtype)), shape_of(shape), dtype, chunks, device)


def zeros(
    shape: Any, *, dtype: Any = None, device: str | None = None, chunks: Any = "auto"
) -> Array:
    """An array of zeros."""
    return _full(shape, False, dtype or np.float64, device, chunks)


def ones(
    shape: Any, *, dtype: Any = None, device: str | None = None, chunks: Any = "auto"
) -> Array:
    """An array of ones."""
    return _full(shape, True, dtype or np.float64, device, chunks)


empty = zeros


def _like(x: Any, dtype: Any, device: str | None) -> tuple[Shape, Any, Any, Any]:
    node = strict_operand(x)
    return node.shape, np.dtype(dtype or node.dtype), device or node.device, node.chunks


def full_like(
    x: Array, /, fill_value: Any, *, dtype: Any = None, device: str | None = None
) -> Array:
    """An array of ``fill_value``, shaped and chunked as ``x``."""
    shape, dtype, device, chunks = _like(x, dtype, device)
    return full(shape, fill_value, dtype=dtype, device=device, chunks=chunks)


def zeros_like(x: Array, /, *, dtype: Any = None, device: str | None = None) -> Array:
    """Zeros, shaped and chunked as ``x``."""
    shape, dtype, device, chunks = _like(x, dtype, device)
    return _full(shape, False, dtype, device, chunks)


def ones_like(x: Array, /, *, dtype: Any = None, device: str | None = None) -> Array:
    """Ones, shaped and chunked as ``x``."""
    shape, dtype, device, chunks = _like(x, dtype, device)
    return _full(shape, True, dtype, device, chunks)


empty_like = zeros_like


# --- ranges ------------------------------------------------------------------------------


def _arange_kernel(
    xp: Any, location: Location, first: Any, step: Any, dtype: Any, axis: int
) -> Any:
    (starts, shape) = location
    length = shape[axis]
    if isinstance(first, int) and isinstance(step, int) and dtype.kind in "iu":
        low = first + starts[axis] * step
        values = xp.arange(low, low + length * step, step, dtype=dtype)
    else:
        # As NumPy fills: the step is the difference of the first two values.
        wide = np.result_type(dtype, np.float64) if dtype.kind != "c" else dtype
        start, second = wide.type(first), wide.type(first + step)
        at = xp.arange(starts[axis], starts[axis] + length)
        at = standard.cast(xp, at, np.result_type(np.int64, wide))
        values = standard.cast(xp, start.item() + at * (second - start).item(), dtype)
    return xp.reshape(values, shape)


ARANGE = Op("arange", "create", _arange_kernel)


def arange(
    start: Any,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: str | None = None,
    chunks: Any = "auto",
) -> Array:
    """Evenly spaced values in ``[start, stop)``.

    Raises
    ------
    ZeroDivisionError
        ``step`` is zero.
    """
    start, stop, step = (
        value.item() if isinstance(value, Array | np.generic) else value
        for value in (start, stop, step)
    )
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ZeroDivisionError("arange: step must not be zero")
    if dtype is None:
        dtype = np.arange(0, dtype=np.result_type(*map(type, (start, stop, step)))).dtype
    length = max(0, math.ceil((stop - start) / step))
    if all(isinstance(value, int) for value in (start, stop, step)):
        length = max(0, -((start - stop) // step))
    return created(ARANGE, (start, step, np.dtype(dtype), 0), (length,), dtype, chunks, device)


def positions(like: Node, axis: int) -> Node:
    """The index along ``axis`` for each element of ``like``, with length 1 on other axes."""
    shape = tuple([n if a == axis else 1 for a, n in enumerate(like.shape)])
    chunks = tuple([c if a == axis else (1,) for a, c in enumerate(like.chunks)])
    dtype = np.dtype(np.int64)
    return make(ARANGE, (), (0, 1, dtype, axis), shape, dtype, chunks)


def _linspace_kernel(
    xp: Any,
    location: Location,
    start: Any,
    stop: Any,
    num: int,
    endpoint: bool,
    dtype: Any,
) -> Any:
    (low,), (length,) = location
    if low == 0 and length == num:
        return xp.linspace(start, stop, num, endpoint=endpoint, dtype=dtype)
    # NumPy's own formula, at these positions.
    parts = num - 1 if endpoint else num
    wide = np.result_type(type(start), type(stop), float, dtype)
    delta = np.subtract(stop, start, dtype=wide).item()
    at = standard.cast(xp, xp.arange(low, low + length), wide)
    step = delta / parts if parts > 0 else np.nan
    values = at * step if step != 0 and parts > 0 else at / max(parts, 1) * delta
    values = values + start
    if endpoint and num > 1 and low + length == num:
        values[-1] = stop
    if dtype.kind in "iu":
        values = xp.floor(values)
    return standard.cast(xp, values, dtype)


LINSPACE = Op("linspace", "create", _linspace_kernel)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int = 50,
    *,
    dtype: Any = None,
    device: str | None = None,
    endpoint: bool = True,
    chunks: Any = "auto",
) -> Array:
    """``num`` evenly spaced values from ``start`` to ``stop``.

    Raises
    ------
    ValueError
        ``num`` is negative.
    """
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"linspace: number of samples, {num}, must be non-negative")
    start, stop = (
        value.item() if isinstance(value, Array | np.generic) else value for value in (start, stop)
    )
    if dtype is None:
        dtype = np.result_type(type(start), type(stop), np.float64)
    dtype = np.dtype(dtype)
    params = (start, stop, num, bool(endpoint), dtype)
    return created(LINSPACE, params, (num,), dtype, chunks, device)


def _eye_kernel(xp: Any, location: Location, k: int, dtype: Any) -> Any:
    (row, column), shape = location
    return xp.eye(*shape, k=k + row - column, dtype=dtype)


EYE = Op("eye", "create", _eye_kernel)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: str | None = None,
    chunks: Any = "auto",
) -> Array:
    """Ones on the ``k``-th diagonal, zeros elsewhere."""
    shape = shape_of((n_rows, n_rows if n_cols is None else n_cols))
    dtype = np.dtype(dtype or np.float64)
    return created(EYE, (operator.index(k), dtype), shape, dtype, chunks, device)


def identity(n: int, dtype: Any = None) -> Array:
    """The unit matrix."""
    return eye(n, dtype=dtype)


# --- from arrays -------------------------------------------------------------------------


def _tril_kernel(xp: Any, x: Any, rows: Any, columns: Any, k: int) -> Any:
    return xp.where(columns <= rows + k, x, xp.zeros((), dtype=x.dtype))


def _triu_kernel(xp: Any, x: Any, rows: Any, columns: Any, k: int) -> Any:
    return xp.where(columns >= rows + k, x, xp.zeros((), dtype=x.dtype))


_TRIL = Op("tril", "map", _tril_kernel)
_TRIU = Op("triu", "map", _triu_kernel)


def _triangle(op: Op, x: Any, k: int) -> Array:
    node = strict_operand(x)
    if node.ndim < 2:
        raise ValueError(f"{op.name} needs at least 2 axes, not {node.ndim}")
    rows, columns = positions(node, node.ndim - 2), positions(node, node.ndim - 1)
    return Array(elementwise(op, [node, rows, columns], (operator.index(k),)))


def tril(x: Array, /, *, k: int = 0) -> Array:
    """The lower triangle of each matrix, up to the ``k``-th diagonal."""
    return _triangle(_TRIL, x, k)


def triu(x: Array, /, *, k: int = 0) -> Array:
    """The upper triangle of each matrix, from the ``k``-th diagonal."""
    return _triangle(_TRIU, x, k)


def meshgrid(*arrays: Array, indexing: str = "xy") -> tuple[Array, ...]:
    """Coordinate arrays from one-dimensional ones.

    Raises
    ------
    InvalidArgumentError
        ``indexing`` is neither ``"xy"`` nor ``"ij"``.
    ValueError
        An operand has more than one axis, or dtypes differ.
    """
    if indexing not in ("xy", "ij"):
        raise InvalidArgumentError(f"indexing must be 'xy' or 'ij', not {indexing!r}")
    nodes = [strict_operand(x) for x in arrays]
    if any(node.ndim > 1 for node in nodes):
        raise ValueError("meshgrid takes one-dimensional arrays")
    count = len(nodes)
    order = list(range(count))
    if indexing == "xy" and count > 1:
        order[0], order[1] = 1, 0
    placed: list[Node] = []
    for node, axis in zip(nodes, order, strict=True):
        flat = node if node.ndim else expanded(node, (0,))
        others = tuple([a for a in range(count) if a != axis])
        placed.append(expanded(flat, others))
    shape = broadcast_shapes([node.shape for node in placed])
    chunks = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in placed])
    return tuple([Array(broadcast(node, shape, chunks)) for node in placed])


FUNCTIONS["full_like"] = full_like
