"""Differences of neighbours and functions built on them: diff, gradient, unwrap, trapezoid."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import concatenated, reshaped
from agentic_ray.array.elementwise import abs, logical_and, remainder, where
from agentic_ray.array.outputs import NO_VALUE
from agentic_ray.array.scans import cumsum
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import sum


def _along(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))


@by_numpy_if_small
def diff(
    a: Any, n: int = 1, axis: int = -1, prepend: Any = NO_VALUE, append: Any = NO_VALUE
) -> Array:
    """Compute ``n``-th differences of neighbours along ``axis``.

    Parameters
    ----------
    a : array_like
    n : int
    axis : int
    prepend, append : array_like, optional
        Values put before or behind ``a`` first; a scalar counts as one element.

    Raises
    ------
    ValueError
        ``n`` is negative, or ``a`` has no axis.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.diff([1, 2, 4, 7, 0])
    Array([ 1,  2,  3, -7], dtype=int64)
    """
    node = strict_operand(a)
    if n == 0:
        return a if isinstance(a, Array) else Array(node, is_cell=True)
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n!r}")
    if node.ndim == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    at = normalize_axis_index(axis, node.ndim)
    parts = [node]
    if prepend is not NO_VALUE and prepend is not None:
        parts.insert(0, _edge(prepend, node, at))
    if append is not NO_VALUE and append is not None:
        parts.append(_edge(append, node, at))
    dtype = np.result_type(*[part.dtype for part in parts])
    result = Array(concatenated([cast(part, dtype) for part in parts], at))
    for _ in range(n):
        after, before = result[_along(at, 1, None)], result[_along(at, None, -1)]
        result = after != before if dtype.kind == "b" else after - before
    return result


def _edge(value: Any, node: Node, axis: int) -> Node:
    edge = strict_operand(value)
    if edge.ndim == 0:
        return broadcast_to(edge, (*node.shape[:axis], 1, *node.shape[axis + 1 :]))
    if edge.ndim <= axis:
        raise np.exceptions.AxisError(axis, edge.ndim)
    if edge.ndim != node.ndim or any(
        n != m for a, (n, m) in enumerate(zip(edge.shape, node.shape, strict=True)) if a != axis
    ):
        raise ValueError(
            "all the input array dimensions except for the concatenation axis must match exactly: "
            f"{edge.shape} and {node.shape}"
        )
    return edge


@by_numpy_if_small
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Array:
    """Compute the differences of neighbours of all elements, between ``to_begin`` and ``to_end``.

    Raises
    ------
    TypeError
        Values put at an end do not fit the dtype of ``ary``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.ediff1d([1, 2, 4, 7, 0], to_begin=-99)
    Array([-99,   1,   2,   3,  -7], dtype=int64)
    """
    node = strict_operand(ary)
    flat = Array(reshaped(node, (node.size,)))
    inner = (flat[1:] - flat[:-1])._node
    parts = [inner]
    for name, value in (("to_begin", to_begin), ("to_end", to_end)):
        if value is None:
            continue
        edge = strict_operand(value)
        if not np.can_cast(edge.dtype, node.dtype, "same_kind"):
            raise TypeError(
                f"dtype of `{name}` must be compatible with input `ary` under the `same_kind` rule."
            )
        edge = cast(reshaped(edge, (edge.size,)), inner.dtype)
        parts = [edge, *parts] if name == "to_begin" else [*parts, edge]
    return Array(concatenated(parts, 0))


# --- gradient ----------------------------------------------------------------------------


def _spacings(f: Node, axes: tuple[int, ...], varargs: tuple[Any, ...]) -> list[Any]:
    """Return for each axis a number, or the distances between neighbours as NumPy's array."""
    if not varargs:
        return [1.0] * len(axes)
    given = [evaluate.value(strict_operand(value)) for value in varargs]
    if len(given) == 1 and given[0].ndim == 0:
        return [given[0][()]] * len(axes)
    if len(given) != len(axes):
        raise TypeError("invalid number of arguments")
    found: list[Any] = []
    for axis, places in zip(axes, given, strict=True):
        if places.ndim == 0:
            found.append(places[()])
            continue
        if places.ndim != 1:
            raise ValueError("distances must be either scalars or 1d")
        if len(places) != f.shape[axis]:
            raise ValueError(
                "when 1d, distances must match the length of the corresponding dimension"
            )
        if places.dtype.kind in "iu":
            places = places.astype(np.float64)
        steps = np.diff(places)
        found.append(steps[0] if steps.size and (steps == steps[0]).all() else steps)
    return found


def _edge_weights(step: Any, *, last: bool) -> list[Any]:
    """Return the factors of the three elements next to an edge, the first of them first."""
    if np.ndim(step) == 0:
        return [0.5 / step, -2.0 / step, 1.5 / step] if last else (
            [-1.5 / step, 2.0 / step, -0.5 / step])  # fmt: skip
    if last:
        one, two = step[-2], step[-1]
        return [two / (one * (one + two)), -(two + one) / (one * two),
                (2.0 * two + one) / (two * (one + two))]  # fmt: skip
    one, two = step[0], step[1]
    return [-(2.0 * one + two) / (one * (one + two)), (one + two) / (one * two),
            -one / (two * (one + two))]  # fmt: skip


def _gradient(f: Array, axis: int, step: Any, order: int) -> Array:
    low, mid, high = (f[_along(axis, *ends)] for ends in ((None, -2), (1, -1), (2, None)))
    if np.ndim(step) == 0:
        inner = (high - low) / (2.0 * step)
    else:
        one, two = step[:-1], step[1:]
        shape = tuple(-1 if a == axis else 1 for a in range(f.ndim))
        weights = [-two / (one * (one + two)), (two - one) / (one * two), one / (two * (one + two))]
        a, b, c = (weight.reshape(shape) for weight in weights)
        inner = low * a + mid * b + high * c
    ends = []
    for last in (False, True):
        if order == 1:
            near = step if np.ndim(step) == 0 else step[-1 if last else 0]
            first, second = (-2, -1) if last else (0, 1)
            ends.append((_one(f, axis, second) - _one(f, axis, first)) / near)
            continue
        places = (-3, -2, -1) if last else (0, 1, 2)
        terms = [_one(f, axis, place) * weight for place, weight in
                 zip(places, _edge_weights(step, last=last), strict=True)]  # fmt: skip
        ends.append(terms[0] + terms[1] + terms[2])
    dtype = f.dtype if f.dtype.kind in "fcm" else np.dtype(np.float64)
    parts = [ends[0], inner, ends[1]]
    return Array(concatenated([cast(part._node, dtype) for part in parts], axis))


def _one(f: Array, axis: int, place: int) -> Array:
    """Return the elements at one place along ``axis``, which is kept."""
    return f[_along(axis, place, place + 1 if place != -1 else None)]


@by_numpy_if_small
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Compute slopes along each axis: central differences inside, one-sided ones at the edges.

    Parameters
    ----------
    f : array_like
    *varargs
        Distances of neighbours: one number for all axes, or for each axis a number or the
        places of its elements.
    axis : int or tuple of int, optional
        Default: all.
    edge_order : {1, 2}
        Order of the differences at the edges.

    Returns
    -------
    Array or tuple of Array
        Slopes, an array for each axis.

    Raises
    ------
    ValueError
        An axis has too few elements, or distances do not fit it.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.gradient([1.0, 2.0, 4.0, 7.0])
    Array([1. , 1.5, 2.5, 3. ], dtype=float64)
    """
    node = strict_operand(f)
    axes = tuple(range(node.ndim)) if axis is None else normalize_axis_tuple(axis, node.ndim)
    steps = _spacings(node, axes, varargs)
    if edge_order > 2:
        raise ValueError("'edge_order' greater than 2 not supported")
    x = Array(node)
    if node.dtype.kind == "M":
        unit, count = np.datetime_data(node.dtype)
        x = x.view(np.dtype(f"m8[{count}{unit}]"))  # distances in time, whose slopes are defined
    elif node.dtype.kind in "iu":
        x = Array(cast(node, np.float64))
    results = []
    for at, step in zip(axes, steps, strict=True):
        if node.shape[at] < edge_order + 1:
            raise ValueError(
                "Shape of array too small to calculate a numerical gradient, at least "
                "(edge_order + 1) elements are required."
            )
        results.append(_gradient(x, at, step, edge_order))
    return results[0] if len(results) == 1 else tuple(results)


# --- sums over neighbours ----------------------------------------------------------------


@by_numpy_if_small
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Array:
    """Integrate ``y`` along ``axis`` by the trapezoidal rule.

    Parameters
    ----------
    y : array_like
    x : array_like, optional
        Places of the values; default: ``dx`` apart.
    dx : number
    axis : int

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.trapezoid([1, 2, 3], x=[4, 6, 8])
    Array(8., dtype=float64)
    """
    node = strict_operand(y)
    at = normalize_axis_index(axis, node.ndim)
    values = Array(node)
    step: Any = dx
    if x is not None:
        places = Array(strict_operand(x))
        if places.ndim == 1:
            step = diff(places)
            step = step.reshape(tuple(-1 if a == at else 1 for a in range(node.ndim)))
        else:
            step = diff(places, axis=axis)
    elif isinstance(dx, list | tuple):
        step = Array(strict_operand(dx))
    after, before = values[_along(at, 1, None)], values[_along(at, None, -1)]
    return sum(step * (after + before) / 2.0, axis)


@by_numpy_if_small
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * math.pi) -> Array:
    """Add whole periods to ``p`` so that neighbours along ``axis`` differ by at most half a period.

    Parameters
    ----------
    p : array_like
    discont : number, optional
        Smaller jumps are left alone; default half a period.
    axis : int
    period : number

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.unwrap([0, 1, 2, -1, 0], period=4)
    Array([0, 1, 2, 3, 4], dtype=int64)
    """
    node = strict_operand(p)
    x = Array(node)
    steps = diff(x, axis=axis)
    at = normalize_axis_index(operator.index(axis), node.ndim)
    if discont is None:
        discont = period / 2
    dtype = np.result_type(steps.dtype, period)
    if dtype.kind in "iu":
        high, rest = divmod(period, 2)
        ambiguous = rest == 0
    else:
        high, ambiguous = period / 2, True
    low = -high
    folded = remainder(steps - low, period) + low
    if ambiguous:
        folded = where(logical_and(folded == low, steps > 0), high, folded)
    correction = where(abs(steps) < discont, 0, folded - steps)
    first = cast(x[_along(at, None, 1)]._node, dtype)
    rest_of = (x[_along(at, 1, None)] + cumsum(correction, at))._node
    return Array(concatenated([first, cast(rest_of, dtype)], at))
