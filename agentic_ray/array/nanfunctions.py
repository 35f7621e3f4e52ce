"""Reductions that skip NaN, as in NumPy. NaT of dates is skipped by `nanmax` and `nanmin` alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from agentic_ray.array import masked, scans, statistics
from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import axes_of, elementwise, strict_operand
from agentic_ray.array.core.elements import ELEMENTWISE, cast
from agentic_ray.array.core.node import Node, Op
from agentic_ray.array.elementwise import fmax, fmin
from agentic_ray.array.outputs import NO_VALUE, delivered, looked_at, mask_of
from agentic_ray.array.reducing import asked, mean_dtypes, spread_dtypes
from agentic_ray.array.searching import argmax, argmin, delivered_position
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import Axis, any, degrees_lost


def _present(node: Node) -> Node | None:
    """Return where ``node`` is not NaN; None for dtypes without NaN. NaT is none for NumPy here."""
    if node.dtype.kind not in "fc":
        return None
    return elementwise(ELEMENTWISE["logical_not"], [elementwise(ELEMENTWISE["isnan"], [node])])


def _also(present: Node, where: Any, node: Node) -> Node:
    """Return where an element is present and NumPy's ``where`` holds."""
    mask = None if where is True else mask_of(where, node)
    if mask is None:
        return present
    return elementwise(ELEMENTWISE["logical_and"], [present, mask])


def _filled(a: Any, value: Any) -> Array:
    """Replace NaN in ``a`` by ``value``."""
    node = strict_operand(a)
    return Array(masked.kept(node, _present(node), value))


def _check_inexact(dtype: Any, out: Any) -> None:
    if dtype is not None and not np.issubdtype(dtype, np.inexact):
        raise TypeError("If a is inexact, then dtype must be inexact")
    if out is not None and not np.issubdtype(out.dtype, np.inexact):
        raise TypeError("If a is inexact, then out must be inexact")


def nansum(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Sum the elements over ``axis`` that are not NaN; parameters as in `sum`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.nansum([1.0, xp.nan, 2.0])
    Array(3., dtype=float64)
    """
    return statistics.sum(_filled(a, 0), axis, dtype, out, keepdims, initial, where)


def nanprod(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Multiply the elements over ``axis`` that are not NaN; parameters as in `sum`."""
    return statistics.prod(_filled(a, 1), axis, dtype, out, keepdims, initial, where)


def nancumsum(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    """Compute the running sum along ``axis`` in which NaN counts as zero: see `cumsum`."""
    return scans.cumsum(_filled(a, 0), axis, dtype, out)


def nancumprod(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    """Compute the running product along ``axis`` in which NaN counts as one: see `cumprod`."""
    return scans.cumprod(_filled(a, 1), axis, dtype, out)


@by_numpy_if_small
def nanmean(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    *,
    where: Any = True,
) -> Array:
    """Compute the mean of the elements over ``axis`` that are not NaN; NaN and a warning if there
    are none.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.nanmean([[1.0, xp.nan], [3.0, 4.0]], axis=1)
    Array([1. , 3.5], dtype=float64)
    """
    node = strict_operand(a)
    present = _present(node)
    if present is None:
        return statistics.mean(a, axis, dtype, out, keepdims, where=where)
    found = mean_dtypes(node.dtype, asked(dtype))
    if node.dtype.kind in "fc":
        _check_inexact(dtype, out)
    axes = axes_of(axis, node.ndim)
    result = Array(masked.mean(node, _also(present, where, node), axes, keepdims, *found))
    return delivered(result, out, "unsafe")


def _spread(
    a: Any,
    axis: Axis,
    dtype: Any,
    out: Any,
    lost: float,
    keepdims: bool,
    where: Any,
    mean: Any,
    root: bool,
) -> Array:
    node = strict_operand(a)
    present = _present(node)
    if present is None:
        function = statistics.std if root else statistics.var
        return function(a, axis, dtype, out, lost, keepdims, where=where, mean=mean)
    found, wide = spread_dtypes(node.dtype, asked(dtype))
    _check_inexact(dtype, out)
    axes = axes_of(axis, node.ndim)
    centre = None if mean is NO_VALUE else strict_operand(mean)
    mask = _also(present, where, node)
    made = masked.spread(node, mask, axes, keepdims, wide, centre, lost, root, nan_if_none=True)
    return delivered(Array(cast(made, found)), out)


@by_numpy_if_small
def nanvar(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: Any = True,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Array:
    """Compute the variance over ``axis`` of elements that are not NaN; parameters as in `var`."""
    lost = degrees_lost(ddof, correction)
    return _spread(a, axis, dtype, out, lost, keepdims, where, mean, False)


@by_numpy_if_small
def nanstd(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: Any = True,
    mean: Any = NO_VALUE,
    correction: Any = NO_VALUE,
) -> Array:
    """Compute the standard deviation over ``axis`` of elements that are not NaN: see `nanvar`."""
    lost = degrees_lost(ddof, correction)
    return _spread(a, axis, dtype, out, lost, keepdims, where, mean, True)


# --- extremes ----------------------------------------------------------------------------


def _warning_kernel(xp: Any, x: Any) -> Any:
    if xp.any(xp.isnan(x)):
        warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=2)
    return x


_WARNING = Op("warn_of_nan", "map", _warning_kernel)


def _extreme(
    ufunc: Any, a: Any, axis: Axis, out: Any, keepdims: bool, initial: Any, where: Any
) -> Array:
    result = ufunc.reduce(a, axis, keepdims=keepdims, initial=initial, where=where)
    if result.dtype.kind in "fcmM":
        result = Array(elementwise(_WARNING, [result._node]))
    return delivered(result, out, "unsafe")


def nanmax(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Return the largest element over ``axis`` that is not NaN; NaN and a warning if there is none.

    Parameters are those of `max`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.nanmax([[1.0, xp.nan], [3.0, 4.0]], axis=0)
    Array([3., 4.], dtype=float64)
    """
    return _extreme(fmax, a, axis, out, keepdims, initial, where)


def nanmin(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Return the smallest element over ``axis`` that is not NaN: see `nanmax`."""
    return _extreme(fmin, a, axis, out, keepdims, initial, where)


def _checked_kernel(xp: Any, at: Any, some: Any) -> Any:
    if not xp.all(some):
        raise ValueError("All-NaN slice encountered")
    return at


_CHECKED = Op("checked_position", "map", _checked_kernel)


def _position(
    function: Callable[..., Array], worst: float, a: Any, axis: int | None, out: Any, keepdims: bool
) -> Array:
    node = strict_operand(a)
    present = _present(node)
    if present is None:
        return function(a, axis, out, keepdims=keepdims)
    at = function(Array(masked.kept(node, present, worst)), axis, keepdims=keepdims)
    if not node.size:
        return delivered_position(at, out)
    some = any(Array(present), axis, keepdims=keepdims)
    result = Array(elementwise(_CHECKED, [at._node, some._node]))
    return delivered_position(looked_at(result), out)


@by_numpy_if_small
def nanargmax(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Array:
    """Return the position of the largest element along ``axis`` that is not NaN.

    Raises
    ------
    ValueError
        All elements along the axis are NaN somewhere. It is raised at the call if the data are
        computed in this process, as for up to 32 MB; else when they are computed.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.nanargmax([xp.nan, 4.0, 2.0])
    Array(1, dtype=int64)
    """
    return _position(argmax, -np.inf, a, axis, out, keepdims)


@by_numpy_if_small
def nanargmin(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Array:
    """Return the position of the smallest element along ``axis`` that is no NaN: see
    `nanargmax`."""
    return _position(argmin, np.inf, a, axis, out, keepdims)
