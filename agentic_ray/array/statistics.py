"""Reductions: sum, prod, mean, var, std, max, min, any, all and others, as in NumPy.

A reduction is three small kernels (partial, combine, final); how they run is core's business.
Reductions under a mask (``where=``) are in `masked`, cumulative ones in `scans`.
"""

from __future__ import annotations

import builtins
import math
import warnings
from typing import Any

import numpy as np

from agentic_ray.array import masked
from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import (
    axes_of,
    axes_of_ufunc,
    elementwise,
    reduction,
    strict_operand,
)
from agentic_ray.array.core.elements import ELEMENTWISE, cast
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.outputs import NO_VALUE, delivered, initial_of, mask_of
from agentic_ray.array.reducing import (
    add_partials,
    asked,
    loop_dtype,
    mean_dtypes,
    reduce_op,
    spread_dtypes,
    sum_in,
    summed,
    unchanged,
)

Axis = int | tuple[int, ...] | None


# --- sums and products -------------------------------------------------------------------


def _prod_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
    return xp.prod(x, axis=axes, dtype=dtype, keepdims=True)


def _multiply(left: Any, right: Any, *, xp: Any) -> Any:
    return left * right


PROD = reduce_op("prod", _prod_partial, _multiply, unchanged)


def _started(ufunc: np.ufunc, name: str, made: Node, initial: Any) -> Node:
    """A reduction's result with NumPy's ``initial`` taken in."""
    start = initial_of(ufunc, made.dtype, initial)
    return made if start is None else elementwise(ELEMENTWISE[name], [made, start])


def sum(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Sum over ``axis`` (default: all), pairwise within blocks and in a fixed tree over them.

    Parameters
    ----------
    a : array_like
    axis : int or tuple of int, optional
    dtype : dtype, optional
        What the sums are made in; default the dtype of ``a``, for small integers the default one.
    out : array, optional
        It is assigned the result and returned.
    keepdims : bool
        Keep the axes that are summed over, with length 1.
    initial : scalar, optional
        What the sum starts with.
    where : array_like of bool
        Which elements count.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.sum([[1, 2], [3, 4]], axis=0)
    Array([4, 6], dtype=int64)
    """
    node = strict_operand(a)
    wanted = loop_dtype(np.add, node.dtype, None if dtype is None else asked(dtype))
    if where is not True:
        node = masked.kept(node, mask_of(where, node), 0)
    made = summed(node, axes_of_ufunc(axis, node.ndim), keepdims, wanted)
    if initial is not NO_VALUE:
        made = _started(np.add, "add", made, initial)
    result = Array(made)
    return result if out is None else delivered(result, out, "unsafe")


def prod(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Product over ``axis`` (default: all); parameters as in `sum`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.prod([[1, 2], [3, 4]], axis=1, initial=10)
    Array([ 20, 120], dtype=int64)
    """
    node = strict_operand(a)
    wanted = loop_dtype(np.multiply, node.dtype, None if dtype is None else asked(dtype))
    if where is not True:
        node = masked.kept(node, mask_of(where, node), 1)
    made = reduction(PROD, [node], axes_of_ufunc(axis, node.ndim), keepdims, wanted, (wanted,))
    if initial is not NO_VALUE:
        made = _started(np.multiply, "multiply", made, initial)
    result = Array(made)
    return result if out is None else delivered(result, out, "unsafe")


# --- mean and variance -------------------------------------------------------------------


def _mean_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType, wide: DType) -> Any:
    return sum_in(xp, x, axes, wide)


def _mean_final(xp: Any, value: Any, count: int, dtype: DType, wide: DType) -> Any:
    if not count:
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=2)
    return standard.cast(xp, xp.true_divide(value, count), dtype)


MEAN = reduce_op("mean", _mean_partial, add_partials, _mean_final, compiled="sum")


def mean(
    a: Any,
    axis: Axis = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    *,
    where: Any = True,
) -> Array:
    """Arithmetic mean over ``axis`` (default: all); NaN and a warning for no elements.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As in `sum`. Integers have means in float64.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.mean([[1, 2], [3, 4]], axis=0)
    Array([2., 3.], dtype=float64)
    """
    node = strict_operand(a)
    params = mean_dtypes(node.dtype, None if dtype is None else asked(dtype))
    axes = axes_of(axis, node.ndim)
    mask = None if where is True else mask_of(where, node)
    if mask is None:
        result = Array(reduction(MEAN, [node], axes, keepdims, params[0], params))
    else:
        result = Array(masked.mean(node, mask, axes, keepdims, *params))
    return result if out is None else delivered(result, out, "unsafe")


def _var_partial(
    xp: Any, x: Any, axes: tuple[int, ...], correction: float, wide: DType, root: bool
) -> Any:
    count = math.prod([x.shape[axis] for axis in axes])
    x = standard.cast(xp, x, wide)
    total = xp.sum(x, axis=axes, keepdims=True)
    off = x - xp.true_divide(total, count)
    squares = xp.real(off * xp.conj(off)) if wide.kind == "c" else off * off
    rest = xp.sum(off, axis=axes, keepdims=True)
    spread = xp.sum(squares, axis=axes, keepdims=True)
    return xp.full(total.shape, count, dtype=spread.dtype), total, rest, spread


def _var_combine(left: Any, right: Any, *, xp: Any) -> Any:
    """Two parts as one: count, sum, and the sums of deviations and of their squares.

    Deviations are taken from the rounded mean of a part, so their sum is not zero. With it squares
    are moved exactly to the rounded mean of both parts, however large the means are beside the
    deviations: sum (x-c)^2 = sum (x-b)^2 + 2 (b-c) sum (x-b) + n (b-c)^2. (Updates that take the
    difference of two means for exact, as Chan, Golub and LeVeque's, lose half of the digits there.)
    """
    count, total = left[0] + right[0], left[1] + right[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = total / count
        (rest, spread), (more, wider) = [
            _moved(xp, part, part[1] / part[0] - centre) for part in (left, right)
        ]
    return count, total, rest + more, spread + wider


def _moved(xp: Any, part: Any, shift: Any) -> tuple[Any, Any]:
    """The sums of deviations, and of their squares, from a centre that lies lower by ``shift``."""
    count, _, rest, spread = part
    both = rest + rest + count * shift
    if standard.dtype_of(both).kind == "c":
        return rest + count * shift, spread + xp.real(xp.conj(shift) * both)
    return rest + count * shift, spread + shift * both


def _var_final(xp: Any, value: Any, count: int, correction: float, wide: DType, root: bool) -> Any:
    if correction >= count:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=2)
    result = xp.true_divide(value[3], builtins.max(count - correction, 0))
    return xp.sqrt(result) if root else result


def _mean_of_spread(
    xp: Any, value: Any, count: int, correction: float, wide: DType, root: bool
) -> Any:
    return _mean_final(xp, value[1], count, wide, wide)


SPREAD_MEAN = reduce_op(
    "mean_of_spread", _var_partial, _var_combine, _mean_of_spread, weight=4, compiled="spread"
)


def _also_mean(spread: Node, other: Node) -> Node | None:
    """The mean, from the sums that a variance makes on the way."""
    if other.op is not MEAN or {*other.params[2:]} != {spread.params[3]}:
        return None
    params = (*other.params[:2], *spread.params[2:])
    return make(
        SPREAD_MEAN, other.inputs, params, other.shape, other.dtype, other.chunks, other.device
    )


VAR = reduce_op(
    "var", _var_partial, _var_combine, _var_final, weight=4, compiled="spread", also=_also_mean
)


def degrees_lost(ddof: Any, correction: Any) -> float:
    """NumPy's ``ddof``, which the standard calls ``correction``.

    Raises
    ------
    ValueError
        Both were given.
    """
    if correction is NO_VALUE:
        return float(ddof)
    if ddof != 0:
        raise ValueError("ddof and correction can't be provided simultaneously.")
    return float(correction)


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
    found, wide = spread_dtypes(node.dtype, None if dtype is None else asked(dtype))
    axes = axes_of(axis, node.ndim)
    mask = None if where is True else mask_of(where, node)
    if found.kind in "iu":
        return _whole_spread(node, axes, found, out, lost, keepdims, mask, mean, root)
    if mask is None and mean is NO_VALUE:
        x = node if found != np.float16 else cast(node, wide)
        real = np.empty(0, wide).real.dtype
        made = reduction(VAR, [x], axes, keepdims, real, (lost, wide, root))
    else:
        centre = None if mean is NO_VALUE else strict_operand(mean)
        made = masked.spread(node, mask, axes, keepdims, wide, centre, lost, root)
    result = Array(cast(made, found))
    return result if out is None else delivered(result, out, "same_kind" if root else "unsafe")


def _whole_spread(
    node: Node,
    axes: tuple[int, ...],
    dtype: DType,
    out: Any,
    lost: float,
    keepdims: bool,
    mask: Node | None,
    mean: Any,
    root: bool,
) -> Array:
    """A variance in whole numbers, as NumPy has it: each step is rounded towards zero."""
    if mean is not NO_VALUE:
        centre = strict_operand(mean)
    elif mask is None:
        centre = reduction(MEAN, [node], axes, True, dtype, (dtype, dtype))
    else:
        centre = masked.mean(node, mask, axes, True, dtype, dtype)
    made = masked.spread(node, mask, axes, keepdims, dtype, centre, lost, False)
    if root and made.shape:
        raise TypeError(
            f"Cannot cast ufunc 'sqrt' output from dtype('float64') to {dtype!r} with casting rule "
            "'same_kind'"
        )
    if root:
        made = elementwise(ELEMENTWISE["sqrt"], [made])
    return delivered(Array(cast(made, dtype)), out, "same_kind" if root else "unsafe")


def var(
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
    """Variance over ``axis``: squared distances from the mean, divided by n - ``ddof``.

    Parameters
    ----------
    a, axis, dtype, out, keepdims, where
        As in `sum`.
    ddof, correction : float
        What is taken from the number of elements; NumPy's name and the standard's.
    mean : array_like, optional
        The mean, if it is known already: as `mean` with ``keepdims=True`` gives it.

    Raises
    ------
    ValueError
        Both ``ddof`` and ``correction`` are given.

    Notes
    -----
    The relative error is that of NumPy's, in whatever chunks: a few roundings, and the square of
    (rounding error of the mean / standard deviation).

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.var([[1, 2], [3, 5]], axis=1, ddof=1)
    Array([0.5, 2. ], dtype=float64)
    """
    lost = degrees_lost(ddof, correction)
    return _spread(a, axis, dtype, out, lost, keepdims, where, mean, False)


def std(
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
    """Standard deviation over ``axis``: the square root of `var`, with its parameters.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.std([1.0, 3.0, 5.0], ddof=1)
    Array(2., dtype=float64)
    """
    lost = degrees_lost(ddof, correction)
    return _spread(a, axis, dtype, out, lost, keepdims, where, mean, True)


# --- extremes and logic ------------------------------------------------------------------


def _max_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.max(x, axis=axes, keepdims=True)


def _min_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.min(x, axis=axes, keepdims=True)


def _maximum(left: Any, right: Any, *, xp: Any) -> Any:
    return xp.maximum(left, right)


def _minimum(left: Any, right: Any, *, xp: Any) -> Any:
    return xp.minimum(left, right)


MAX = reduce_op("max", _max_partial, _maximum, unchanged, exact=True)
MIN = reduce_op("min", _min_partial, _minimum, unchanged, exact=True)


def _extreme(
    op: Op, ufunc: np.ufunc, a: Any, axis: Axis, out: Any, keepdims: bool, initial: Any, where: Any
) -> Array:
    node = strict_operand(a)
    axes = axes_of_ufunc(axis, node.ndim)
    loop_dtype(ufunc, node.dtype)  # raises for records
    name = ufunc.__name__
    start = None if initial is NO_VALUE else initial_of(ufunc, node.dtype, initial)
    mask = None if where is True else mask_of(where, node)
    if mask is not None:
        if start is None:
            raise ValueError(
                f"reduction operation {name!r} does not have an identity, so to use a where mask "
                "one has to specify 'initial'"
            )
        node = masked.kept(node, mask, start.params[0].value[()])
    if builtins.any(node.shape[axis] == 0 for axis in axes):
        if start is None:
            raise ValueError(f"zero-size array to reduction operation {name} which has no identity")
        shape = reduction(ALL, [node], axes, keepdims, node.dtype).shape
        made = broadcast_to(start, shape)
    else:
        made = reduction(op, [node], axes, keepdims, node.dtype)
        if start is not None:
            made = elementwise(ELEMENTWISE[name], [made, start])
    result = Array(made)
    return result if out is None else delivered(result, out, "unsafe")


def max(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Largest element over ``axis`` (default: all); NaN if there is one.

    Parameters
    ----------
    a, axis, out, keepdims
        As in `sum`.
    initial : scalar, optional
        The result is no smaller; needed for no elements, and with ``where``.
    where : array_like of bool
        Which elements count.

    Raises
    ------
    ValueError
        There are no elements, and no ``initial``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.max([[1, 7], [3, 4]], axis=1)
    Array([7, 4], dtype=int64)
    """
    return _extreme(MAX, np.maximum, a, axis, out, keepdims, initial, where)


def min(
    a: Any,
    axis: Axis = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Array:
    """Smallest element over ``axis`` (default: all); NaN if there is one. See `max`."""
    return _extreme(MIN, np.minimum, a, axis, out, keepdims, initial, where)


amax, amin = max, min


def ptp(a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False) -> Array:
    """Peak to peak: the largest element over ``axis`` less the smallest.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.ptp([[4, 9], [2, 10]], axis=1)
    Array([5, 8], dtype=int64)
    """
    result = max(a, axis, keepdims=keepdims) - min(a, axis, keepdims=keepdims)
    return delivered(result, out)


def _all_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.all(x, axis=axes, keepdims=True)


def _any_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.any(x, axis=axes, keepdims=True)


def _and(left: Any, right: Any, *, xp: Any) -> Any:
    return left & right


def _or(left: Any, right: Any, *, xp: Any) -> Any:
    return left | right


ALL = reduce_op("all", _all_partial, _and, unchanged, exact=True)
ANY = reduce_op("any", _any_partial, _or, unchanged, exact=True)


def _truth(op: Op, ufunc: np.ufunc, a: Any, axis: Axis, out: Any, keepdims: bool,
           where: Any) -> Array:  # fmt: skip
    node = strict_operand(a)
    loop_dtype(ufunc, node.dtype)  # raises for records
    if where is not True:
        node = masked.kept(cast(node, np.bool_), mask_of(where, node), op is ALL)
    axes = axes_of_ufunc(axis, node.ndim)
    result = Array(reduction(op, [node], axes, keepdims, np.dtype(np.bool_)))
    return result if out is None else delivered(result, out, "unsafe")


def all(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, *, where: Any = True
) -> Array:
    """Whether every element over ``axis`` is true; parameters as in `sum`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.all([[True, False], [True, True]], axis=0)
    Array([ True, False], dtype=bool)
    """
    return _truth(ALL, np.logical_and, a, axis, out, keepdims, where)


def any(
    a: Any, axis: Axis = None, out: Any = None, keepdims: bool = False, *, where: Any = True
) -> Array:
    """Whether some element over ``axis`` is true; parameters as in `sum`."""
    return _truth(ANY, np.logical_or, a, axis, out, keepdims, where)


def _count_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.sum(x != 0, axis=axes, dtype=np.int64, keepdims=True)


COUNT = reduce_op("count_nonzero", _count_partial, add_partials, unchanged, exact=True)


def count_nonzero(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Count the elements over ``axis`` (default: all) that are not zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.count_nonzero([[0, 1, 7], [3, 0, 2]], axis=1)
    Array([2, 2], dtype=int64)
    """
    node = strict_operand(a)
    axes = axes_of_ufunc(axis, node.ndim)
    return Array(reduction(COUNT, [node], axes, keepdims, np.dtype(np.int64)))
