"""Evenly spaced numbers, on a line or on a logarithmic scale."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray, check_like
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import check_numbers, strict_operand
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.program import Location
from agentic_ray.array.creation import created
from agentic_ray.array.elementwise import floor, power
from agentic_ray.array.manipulation import concat, expand_dims, moveaxis, reshape

_NUMBERS = (bool, int, float, complex, np.generic)
_PYTHONS = (bool, int, float, complex)


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
    start_or_stop: Any = None,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    start: Any = None,
    dtype: Any = None,
    device: str | None = None,
    like: Any = None,
    chunks: Any = "auto",
) -> Array:
    """Return evenly spaced values in ``[start, stop)``.

    Parameters
    ----------
    start, stop, step : number or date
        A single argument is ``stop``, and the start is 0. Ranges of dates are made in this process.
    dtype, device, like, chunks
        As in `asarray`.

    Raises
    ------
    ZeroDivisionError
        ``step`` is zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.arange(1, 7, 2)
    Array([1, 3, 5], dtype=int64)
    """
    check_like(like)
    if start is None:
        start = start_or_stop
    elif start_or_stop is not None:
        raise TypeError("arange: start was given twice")
    start, stop, step = (
        value.compute()[()] if isinstance(value, Array) and not value.shape else value
        for value in (start, stop, step)
    )
    if start is None and stop is None:
        raise TypeError("arange() requires stop to be specified.")
    if stop is None:
        start, stop = None, start
    step = 1 if step is None else step
    first = 0 if start is None else start
    given = [value for value in (start, stop, step) if value is not None]
    if not all(
        isinstance(value, _NUMBERS) and not isinstance(value, np.datetime64 | np.timedelta64)
        for value in given
    ) or (dtype is not None and np.dtype(dtype).kind in "mM"):
        made = np.arange(first, stop, step, dtype=dtype)
        return asarray(made, copy=False, device=device, chunks=chunks)
    if step == 0:
        raise ZeroDivisionError("arange: step must not be zero")
    if dtype is None:
        dtype = np.result_type(np.int64, *[np.asarray(value).dtype for value in given])
    dtype = check_numbers(np.dtype(dtype))
    first, stop, step = (
        value.item() if isinstance(value, np.generic) else value for value in (first, stop, step)
    )
    length = _range_length(first, stop, step)
    if dtype.kind == "b":
        made = np.arange(first, stop, step, dtype=dtype)  # refuses values without a meaning
        return asarray(made, copy=False, device=device, chunks=chunks)
    return created(ARANGE, (first, step, dtype, 0), (length,), dtype, chunks, device)


def _range_length(first: Any, stop: Any, step: Any) -> int:
    """Count the values from ``first`` on before ``stop``."""
    if all(isinstance(value, int) for value in (first, stop, step)):
        return max(0, int(-((first - stop) // step)))
    span = (stop - first) / step
    if isinstance(span, complex):
        return max(0, min(math.ceil(span.real), math.ceil(span.imag)))
    if math.isnan(span):
        raise ValueError("arange: cannot compute length")
    return max(0, math.ceil(float(span)))


def positions(like: Node, axis: int) -> Node:
    """Return the index along ``axis`` for each element of ``like``, with length 1 on other axes."""
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
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: str | None = None,
    chunks: Any = "auto",
) -> Any:
    """Return ``num`` evenly spaced values from ``start`` to ``stop``.

    Parameters
    ----------
    start, stop : number or array_like
        First and last value; arrays are broadcast against each other.
    num : int
    endpoint : bool
        Whether the last value is ``stop``.
    retstep : bool
        Whether to return the distance of two values, too.
    dtype, device, chunks
        As in `asarray`.
    axis : int
        Axis of the values in the result, if the ends are arrays.

    Raises
    ------
    ValueError
        ``num`` is negative.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.linspace(2.0, 3.0, num=5)
    Array([2.  , 2.25, 2.5 , 2.75, 3.  ], dtype=float64)
    """
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    parts = num - 1 if endpoint else num
    ends = [
        value.compute()[()] if isinstance(value, Array) and not value.shape else value
        for value in (start, stop)
    ]
    natural = np.result_type(
        *[value if type(value) in _PYTHONS else strict_operand(value).dtype for value in ends]
    )
    if natural.kind not in "fc":
        natural = np.result_type(natural, np.float64)
    if not all(isinstance(value, _NUMBERS) for value in ends) or natural.char not in "dD":
        made, step = _linspace_between(
            _inexact(ends[0]), _inexact(ends[1]), num, parts, endpoint, natural
        )
        wanted = np.dtype(dtype or natural)
        made = made if wanted.kind not in "iu" else floor(made)
        made = made.astype(wanted) if axis == 0 else moveaxis(made.astype(wanted), 0, axis)
        return (made, step) if retstep else made
    first, last = (value.item() if isinstance(value, np.generic) else value for value in ends)
    dtype = check_numbers(np.dtype(natural if dtype is None else dtype))
    params = (first, last, num, bool(endpoint), dtype)
    made = created(LINSPACE, params, (num,), dtype, chunks, device)
    made = made if axis == 0 else moveaxis(made, 0, axis)
    if not retstep:
        return made
    with np.errstate(all="ignore"):
        delta = np.subtract(last, first, dtype=natural)
        return made, (np.divide(delta, parts) if parts > 0 else natural.type(np.nan))


def _inexact(value: Any) -> Array:
    return asarray(value) * 1.0


def _linspace_between(
    start: Array, stop: Array, num: int, parts: int, endpoint: bool, dtype: np.dtype[Any]
) -> tuple[Array, Any]:
    """Return NumPy's values from one array to another, along the first axis, and their distance."""
    delta = (stop - start).astype(dtype)
    at = reshape(arange(num), (-1,) + (1,) * delta.ndim).astype(dtype)
    step: Any = delta / parts if parts > 0 else dtype.type(np.nan)
    if parts > 0 and not bool((step == 0).any()):
        made = at * step
    elif parts > 0:
        made = at / parts * delta
    else:
        made = at * delta
    made = made + start
    if endpoint and num > 1:
        last = expand_dims(stop.astype(made.dtype), axis=0)
        last = last + made[-1:] * 0 if last.shape[1:] != made.shape[1:] else last
        made = concat([made[:-1], last], axis=0)
    return made, step


def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    dtype: Any = None,
    axis: int = 0,
    *,
    chunks: Any = "auto",
) -> Array:
    """Raise ``base`` to the powers of `linspace`: values from ``base**start`` to ``base**stop``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.logspace(0, 2, num=3)
    Array([  1.,  10., 100.], dtype=float64)
    """
    if np.ndim(base):
        ndim = np.broadcast(*[np.empty(np.shape(v)) for v in (start, stop, base)]).ndim
        start, stop, bases = (
            reshape(asarray(v), (1,) * (ndim - np.ndim(v)) + np.shape(v))
            for v in (start, stop, base)
        )
        base = expand_dims(bases, axis=axis)
    exponents = linspace(start, stop, num, endpoint, axis=axis, chunks=chunks)
    made = power(base, exponents)
    return made if dtype is None else made.astype(np.dtype(dtype))


def geomspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    dtype: Any = None,
    axis: int = 0,
    *,
    chunks: Any = "auto",
) -> Array:
    """Return ``num`` values from ``start`` to ``stop``, each the same multiple of the one before.

    The ends are computed at the call.

    Raises
    ------
    ValueError
        An end is zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.geomspace(1, 1000, num=4)
    Array([   1.,   10.,  100., 1000.], dtype=float64)
    """
    first, last = np.asarray(start), np.asarray(stop)
    if np.any(first == 0) or np.any(last == 0):
        raise ValueError("Geometric sequence cannot include zero")
    wide = np.result_type(first, last, float(num), np.zeros((), dtype))
    wanted = wide if dtype is None else np.dtype(dtype)
    first, last = np.broadcast_arrays(first.astype(wide), last.astype(wide))
    sign = np.sign(first)
    powers = logspace(
        np.log10(first / sign)[()], np.log10(last / sign)[()], num, endpoint, dtype=wide,
        chunks=chunks,
    )  # fmt: skip
    pieces = [powers]
    if num > 0:
        pieces = [asarray(first / sign)[None], powers[1:]]
        if num > 1 and endpoint:
            pieces = [pieces[0], powers[1:-1], asarray(last / sign)[None]]
    made = concat(pieces, axis=0) * sign
    made = made if axis == 0 else moveaxis(made, 0, axis)
    return made.astype(wanted)  # type: ignore[no-any-return]
