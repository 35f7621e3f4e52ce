"""Quantiles: elements at given places of the sorted array, and interpolated values between them.

Over all elements of an array of several chunks, only the needed elements are selected, see
``samplesort``; along some axes of an array a lane is in one chunk and NumPy does the rest. The bits
are those of `numpy.quantile` either way.

References
----------
R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician
50(4), 1996.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import (
    axes_of,
    blockwise_op,
    gufunc,
    gufunc_op,
    strict_operand,
    without_arrays,
)
from agentic_ray.array.core.chunks import single
from agentic_ray.array.core.node import DType, Held, NDArray, Node, make
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import expanded, permuted, rechunk, reshaped
from agentic_ray.array.elementwise import isnan, logical_not
from agentic_ray.array.gathering import gather
from agentic_ray.array.indexing import checked_positions
from agentic_ray.array.outputs import delivered
from agentic_ray.array.samplesort import selected
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.sorting import sort
from agentic_ray.array.statistics import Axis, any, count_nonzero, mean
from agentic_ray.array.weighting import weights_like

MOST_SELECTED = 64
"""Most elements that are selected from sorted chunks; with more the windows around them would be
many, and everything is sorted."""

# --- the methods -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """Rule for the place of a quantile among ``n`` sorted elements.

    Parameters
    ----------
    index : callable
        ``index(n, q)``: returns places counted from 0, whole numbers if there is no ``gamma``.
    gamma : callable or None
        ``gamma(part, index)``: returns the fraction of the way from the element before to the one
        after, given the fraction of ``index``.
    """

    index: Callable[[int, NDArray], NDArray]
    gamma: Callable[[NDArray, NDArray], NDArray] | None


def _continuous(alpha: float, beta: float) -> Method:
    """Make methods 4 to 9 of Hyndman and Fan, which differ in two plotting positions."""

    def index(n: int, q: NDArray) -> NDArray:
        return n * q + (alpha + q * (1 - alpha - beta)) - 1

    return Method(index, lambda part, index: part)


def _rounded(function: Callable[[NDArray], NDArray]) -> Method:
    """Make the method of the element at the linear method's place, rounded by ``function``."""
    return Method(lambda n, q: function((n - 1) * q).astype(np.intp), None)


def _observed(shift: float, stays: Callable[[NDArray, NDArray], NDArray]) -> Method:
    """Make methods 1 and 3: an element before or after n q, the one before where ``stays``."""

    def index(n: int, q: NDArray) -> NDArray:
        at = np.asarray(n * q - 1 - shift)
        before = np.floor(at)
        found = np.where(stays(at - before, before), before, before + 1)
        return np.maximum(found.astype(np.intp), 0)

    return Method(index, None)


METHODS = {
    "inverted_cdf": _observed(0, lambda part, before: part == 0),
    "averaged_inverted_cdf": Method(
        lambda n, q: n * q - 1, lambda part, index: np.where(part == 0, 0.5, 1.0)
    ),
    "closest_observation": _observed(0.5, lambda part, before: (part == 0) & (before % 2 == 1)),
    "interpolated_inverted_cdf": _continuous(0, 1),
    "hazen": _continuous(0.5, 0.5),
    "weibull": _continuous(0, 0),
    # Equal to _continuous(1, 1), but rounded less often.
    "linear": Method(lambda n, q: (n - 1) * q, lambda part, index: part),
    "median_unbiased": _continuous(1 / 3.0, 1 / 3.0),
    "normal_unbiased": _continuous(3 / 8.0, 3 / 8.0),
    "lower": _rounded(np.floor),
    "higher": _rounded(np.ceil),
    "midpoint": Method(
        lambda n, q: 0.5 * (np.floor((n - 1) * q) + np.ceil((n - 1) * q)),
        lambda part, index: np.where(index % 1 == 0, 0.0, 0.5),
    ),
    "nearest": _rounded(np.around),
}
"""NumPy's methods. Formulas are written so that they round as NumPy's do, in the dtype of q."""


def _places(n: int, q: NDArray, method: str) -> tuple[NDArray, NDArray, NDArray | None]:
    """Return the positions of the elements before and after each quantile and the fraction of the
    way between; without a fraction the quantile is the element before."""
    rule = METHODS[method]
    index = np.asarray(rule.index(n, q))
    if rule.gamma is None or (method == "linear" and index.dtype.kind in "iu"):
        at = checked_positions(index, n, 0)
        return at, at, None
    inside = index < n - 1  # elsewhere the last element stands on both sides
    floor = np.floor(index)
    before = np.where(inside, np.where(index < 0, 0, floor), -1).astype(np.intp)
    after = np.where(inside, np.where(index < 0, 0, floor + 1), -1).astype(np.intp)
    gamma = np.asarray(rule.gamma(np.asarray(index - before), index), dtype=index.dtype)
    return checked_positions(before, n, 0), checked_positions(after, n, 0), gamma


# --- all elements of several chunks ------------------------------------------------------


def _between_kernel(xp: Any, chosen: Any, before: Held, after: Held, gamma: Held | None,
                    weak: bool) -> Any:  # fmt: skip
    """Compute quantiles from the elements chosen; NaN, which sorts last, makes all of them NaN."""
    result = left = chosen[xp.asarray(before.value)]
    if gamma is not None:
        right = chosen[xp.asarray(after.value)]
        t = float(gamma.value) if weak else xp.asarray(gamma.value)
        step = right - left
        # From the nearer side, as NumPy does: exact at both ends.
        result = xp.where(t >= 0.5, right - step * (1 - t), left + step * t)
    if chosen.dtype.kind in "fmM":
        result = xp.where(xp.isnan(chosen[-1]), chosen[-1], result)
    return result


_BETWEEN = blockwise_op("quantile_between", _between_kernel)


def _in_order(node: Node, skip_nan: bool) -> int:
    """Count the elements that a quantile is taken of: all, or those that are not NaN."""
    n = node.size
    if skip_nan and node.dtype.kind in "fmM":
        # NaN sorts last, so that the other elements keep their places.
        n = int(count_nonzero(logical_not(isnan(Array(node))))) or n
    return n


def _of_all(node: Node, q: NDArray, weak: bool, method: str, skip_nan: bool, dtype: DType) -> Node:
    """Compute quantiles of all elements, in the shape of ``q``."""
    n = _in_order(node, skip_nan)
    before, after, gamma = _places(n, q, method)
    chosen, at = _chosen(node, np.concatenate([before.ravel(), after.ravel(), [n - 1]]))
    sides = [Held(at[i * q.size : (i + 1) * q.size].reshape(q.shape)) for i in (0, 1)]
    part = None if gamma is None else Held(gamma)
    return make(_BETWEEN, (chosen,), (*sides, part, weak), q.shape, dtype, single(q.shape))


def _chosen(node: Node, positions: NDArray) -> tuple[Node, NDArray]:
    """Return the elements at these positions of the sorted array, each once in order, and for each
    position the number of its element among them."""
    wanted, at = np.unique(positions, return_inverse=True)
    if wanted.size <= MOST_SELECTED:
        chosen = selected(node, tuple((wanted + 1).tolist()))
    else:
        ordered = sort(Array(reshaped(node, (node.size,))))
        chosen = gather(ordered._node, (0,), (wanted,))
        chosen = rechunk(chosen, single(chosen.shape))
    return chosen, at


def _middle_kernel(xp: Any, chosen: Any, first: int, last: int, dtype: DType) -> Any:
    """Compute the mean of elements ``first`` to ``last``; NaN if the last chosen one is."""
    result = xp.mean(chosen[first : last + 1], axis=0)
    if chosen.dtype.kind in "fmM":
        result = xp.where(xp.isnan(chosen[-1]), chosen[-1], result)
    return xp.asarray(result).astype(dtype, copy=False)


_MIDDLE = blockwise_op("median", _middle_kernel)


def _middle_of_all(node: Node, skip_nan: bool, dtype: DType) -> Node:
    """Compute the median of all elements."""
    n = _in_order(node, skip_nan)
    chosen, at = _chosen(node, np.asarray([(n - 1) // 2, n // 2, n - 1]))
    return make(_MIDDLE, (chosen,), (int(at[0]), int(at[1]), dtype), (), dtype, ())


# --- along some axes ---------------------------------------------------------------------


def _lane_function(xp: Any, skip_nan: bool) -> Any:
    return xp.nanquantile if skip_nan else xp.quantile


def _lane_kernel(
    xp: Any, x: Any, q: Held, weak: bool, method: str, skip_nan: bool, dtype: DType
) -> Any:
    levels = q.value.item() if weak else xp.asarray(q.value)
    found = xp.asarray(_lane_function(xp, skip_nan)(x, levels, axis=-1, method=method))
    return (xp.moveaxis(found, 0, -1) if q.value.ndim else found).astype(dtype, copy=False)


@host_only  # CuPy has no nanquantile
def _nan_lane_kernel(xp: Any, *args: Any) -> Any:
    return _lane_kernel(xp, *args)


_LANES = gufunc_op("quantile", _lane_kernel, 32)
_NAN_LANES = gufunc_op("nanquantile", _nan_lane_kernel, 32)


@host_only  # CuPy's quantile takes no weights
def _weighted_kernel(
    xp: Any, x: Any, weights: Any, q: Held, method: str, skip_nan: bool, dtype: DType
) -> Any:
    function = _lane_function(np, skip_nan)
    found = np.asarray(function(x, q.value, axis=-1, weights=weights, method=method))
    return (np.moveaxis(found, 0, -1) if q.value.ndim else found).astype(dtype, copy=False)


_WEIGHTED = gufunc_op("weighted_quantile", _weighted_kernel, 32)


def _median_kernel(xp: Any, x: Any, skip_nan: bool, dtype: DType) -> Any:
    function = xp.nanmedian if skip_nan else xp.median
    return xp.asarray(function(x, axis=-1)).astype(dtype, copy=False)


_MEDIANS = gufunc_op("median", _median_kernel, 32)


# --- functions for users -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reduced:
    """Axes that a reduction keeps, and the other axes as one."""

    node: Node
    axes: tuple[int, ...]
    rest: tuple[int, ...]

    @property
    def loop(self) -> tuple[int, ...]:
        """Lengths of the axes that are kept."""
        return tuple([self.node.shape[axis] for axis in self.rest])

    @property
    def is_whole(self) -> bool:
        """Whether all elements of several chunks are reduced together."""
        return self.node.blocks > 1 and set(self.loop) <= {1}

    def lanes(self, node: Node | None = None) -> Node:
        """Return the array (or another of its shape) with the reduced axes as its last axis."""
        node = self.node if node is None else node
        lane = node.size // int(np.prod(self.loop, dtype=np.int64))
        return reshaped(permuted(node, (*self.rest, *self.axes)), (*self.loop, lane))


def _reduced(x: Any, axis: Axis) -> _Reduced:
    node = strict_operand(x)
    axes = axes_of(axis, node.ndim)
    return _Reduced(node, axes, tuple([a for a in range(node.ndim) if a not in axes]))


@functools.lru_cache(maxsize=256)
def _median_dtype(dtype: DType) -> DType:
    found: DType = np.asarray(np.median(np.ones(1, dtype))).dtype
    return found


@functools.lru_cache(maxsize=1024)
def _quantile_dtype(
    dtype: DType, q: Any, method: str, weights: DType | None, skip_nan: bool
) -> DType:
    """Return the dtype of NumPy's quantiles, for levels of a dtype or a Python number.

    Raises
    ------
    TypeError
        There are no quantiles of such elements.
    """
    levels = np.zeros(1, q) if isinstance(q, np.dtype) else q(0)
    options = {} if weights is None else {"weights": np.ones(1, weights)}
    found: Any = _lane_function(np, skip_nan)(
        np.ones(1, dtype), levels, axis=0, method=method, **options
    )
    return np.asarray(found).dtype


def _medians(a: Any, axis: Axis, out: Any, keepdims: bool, skip_nan: bool) -> Array:
    over = _reduced(a, axis)
    if not over.node.size:
        if over.node.dtype.kind in "fciub":
            return mean(a, axis, out=out, keepdims=keepdims)
        raise TypeError(f"there is no median of {over.node.dtype}")
    dtype = _median_dtype(over.node.dtype)
    if over.is_whole and over.node.dtype.kind != "c":
        result = reshaped(_middle_of_all(over.node, skip_nan, dtype), over.loop)
    else:
        result = gufunc(_MEDIANS, [over.lanes()], (1,), (), dtype, (skip_nan, dtype))
    return delivered(Array(expanded(result, over.axes) if keepdims else result), out, "unsafe")


def _weights_of(weights: Any, node: Node, axis: Axis, method: str) -> Node:
    if method != "inverted_cdf":
        raise ValueError(f"Only method 'inverted_cdf' supports weights. Got: {method}.")
    heavy = weights_like(weights, node, axis)
    if heavy.dtype.kind == "c":
        raise TypeError("weights must be real")
    if bool(any(Array(heavy) < 0)):
        raise ValueError("Weights must be non-negative.")
    return heavy


def _quantiles(
    a: Any,
    q: NDArray,
    weak: bool,
    axis: Axis,
    out: Any,
    method: str,
    keepdims: bool,
    weights: Any,
    skip_nan: bool,
) -> Array:
    """Compute quantiles. ``weak``: q is a Python number, whose type gives way to that of ``a``."""
    over = _reduced(a, axis)
    node, loop = over.node, over.loop
    if node.dtype.kind == "c":
        raise TypeError("a must be an array of real numbers")
    if method not in METHODS:
        raise ValueError(f"{method!r} is not a valid method. Use one of: {', '.join(METHODS)}")
    if q.size and not (q.min() >= 0 and q.max() <= 1):
        raise ValueError("Quantiles must be in the range [0, 1], percentiles in [0, 100]")
    if q.ndim > 2:
        raise ValueError("q must be a scalar or 1d")
    heavy = None if weights is None else _weights_of(weights, node, axis, method)
    level: Any = type(q.item()) if weak else q.dtype
    heavy_dtype = None if heavy is None else heavy.dtype
    dtype = _quantile_dtype(node.dtype, level, method, heavy_dtype, skip_nan)
    if not node.size:
        return delivered(_of_nothing(over, q, method, skip_nan, keepdims, dtype), out)
    flat = q.reshape(-1) if q.ndim else q
    if over.is_whole and heavy is None:
        result = reshaped(_of_all(node, flat, weak, method, skip_nan, dtype), (*flat.shape, *loop))
    else:
        if heavy is not None:
            params: tuple[Any, ...] = (Held(flat), method, skip_nan, dtype)
            lanes = [over.lanes(), over.lanes(heavy)]
            made = gufunc(_WEIGHTED, lanes, (1, 1), flat.shape, dtype, params)
        else:
            params = (Held(flat), weak, method, skip_nan, dtype)
            op = _NAN_LANES if skip_nan else _LANES
            made = gufunc(op, [over.lanes()], (1,), flat.shape, dtype, params)
        order = range(made.ndim)
        result = permuted(made, (*order[len(loop) :], *order[: len(loop)]))
    if keepdims:
        result = expanded(result, tuple([axis + flat.ndim for axis in over.axes]))
    if q.ndim > 1:
        result = reshaped(result, (*q.shape, *result.shape[1:]))
    return delivered(Array(result), out)


def _of_nothing(
    over: _Reduced, q: NDArray, method: str, skip_nan: bool, keepdims: bool, dtype: DType
) -> Array:
    """Return the quantiles of an array without elements: NumPy's.

    Raises
    ------
    IndexError
        NumPy's own: there is no quantile of no elements.
    """
    nothing = np.empty(over.node.shape, over.node.dtype)
    function = _lane_function(np, skip_nan)
    found = function(nothing, q, axis=over.axes, method=method, keepdims=keepdims)
    return Array(strict_operand(np.asarray(found).astype(dtype)))


def _levels(q: Any) -> NDArray:
    """Return the argument ``q`` as a NumPy array: its data are looked at."""
    return np.asarray(without_arrays(q))


def _is_weak(q: Any) -> bool:
    return type(q) in (int, float)


@by_numpy_if_small
def quantile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Array:
    """Return the values below which the fractions ``q`` of the elements lie.

    Parameters
    ----------
    a : array_like
        Real numbers.
    q : array_like
        Fractions between 0 and 1. Its axes come first in the result.
    axis : int or tuple of int, optional
        Default: all elements.
    out : array, optional
    overwrite_input : bool
        Ignored: nothing needs to be overwritten.
    method : str
        Name of one of NumPy's thirteen, see `METHODS`.
    keepdims : bool
    weights : array_like, optional
        Weights in the shape of ``a``, or of the axes reduced; only with ``method="inverted_cdf"``.
        The reduced axes are then put in one chunk.

    Raises
    ------
    ValueError
        A fraction lies outside of 0 to 1, there is no such method, or weights do not fit.
    TypeError
        ``a`` is complex.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.quantile([[10, 7, 4], [3, 2, 1]], 0.5, axis=0)
    Array([6.5, 4.5, 2.5], dtype=float64)
    """
    return _quantiles(a, _levels(q), _is_weak(q), axis, out, method, keepdims, weights, False)


@by_numpy_if_small
def percentile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Array:
    """Return the values below which ``q`` per cent of the elements lie: see `quantile`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.percentile([1, 2, 3, 4, 5], [25, 50])
    Array([2., 3.], dtype=float64)
    """
    return _quantiles(a, _levels(q) / 100, _is_weak(q), axis, out, method, keepdims, weights, False)


@by_numpy_if_small
def nanquantile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Array:
    """Compute `quantile` of the elements that are not NaN. Their number is computed at the call if
    all elements of several chunks are reduced."""
    return _quantiles(a, _levels(q), _is_weak(q), axis, out, method, keepdims, weights, True)


@by_numpy_if_small
def nanpercentile(
    a: Any,
    q: Any,
    axis: Axis = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Array:
    """Compute `percentile` of the elements that are not NaN; see `nanquantile`."""
    return _quantiles(a, _levels(q) / 100, _is_weak(q), axis, out, method, keepdims, weights, True)


@by_numpy_if_small
def median(
    a: Any, axis: Axis = None, out: Any = None, overwrite_input: bool = False,
    keepdims: bool = False,
) -> Array:  # fmt: skip
    """Compute the middle value over ``axis``, or the mean of the two in the middle.

    Parameters
    ----------
    a, axis, out, keepdims
        As in `sum`.
    overwrite_input : bool
        Ignored: nothing needs to be overwritten.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.median([[10, 7, 4], [3, 2, 1]], axis=1)
    Array([7., 2.], dtype=float64)
    """
    return _medians(a, axis, out, keepdims, False)


@by_numpy_if_small
def nanmedian(
    a: Any, axis: Axis = None, out: Any = None, overwrite_input: bool = False,
    keepdims: bool = False,
) -> Array:  # fmt: skip
    """Compute `median` of the elements that are not NaN; see `nanquantile`."""
    return _medians(a, axis, out, keepdims, True)
