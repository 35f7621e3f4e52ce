"""Reductions and scans: sum, mean, var, max, any, cumulative sums, and their NaN versions.

A reduction is three small kernels (partial, combine, final); how they run is core's business.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import standard
from agentic_ray.array.core.build import axes_of, reduction, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node, Op, Reduction, make
from agentic_ray.array.core.program import finish
from agentic_ray.array.core.views import concatenated, reshaped
from agentic_ray.array.creation import full

Axis = int | tuple[int, ...] | None


def reduce_op(
    name: str,
    partial: Callable[..., Any],
    combine: Callable[..., Any],
    final: Callable[..., Any],
    weight: float = 1.0,
    *,
    cache_blocks: int = 1,
    compiled: Literal["", "sum", "spread"] = "",
    also: Callable[[Node, Node], Node | None] | None = None,
) -> Op:
    """An operation of kind ``reduce``."""
    steps = Reduction(partial, combine, final, cache_blocks, compiled, also)

    def kernel(xp: Any, x: Any, *rest: Any) -> Any:
        extra = len(rest) - _params(rest)
        operands, (axes, keepdims, *params) = rest[:extra], rest[extra:]
        count = math.prod([x.shape[axis] for axis in axes])
        value = partial(xp, x, *operands, axes, *params)
        return finish(xp, value, steps, axes, keepdims, count, *params)

    return Op(name, "reduce", kernel, weight=weight, reduction=steps)


def _params(rest: tuple[Any, ...]) -> int:
    """How many of ``rest`` are parameters: from the axes, a tuple, onwards."""
    return len(rest) - next(i for i, value in enumerate(rest) if type(value) is tuple)


def unchanged(xp: Any, value: Any, count: int, *params: Any) -> Any:
    """The final step of a reduction whose combined partial value is its result."""
    return value


# --- sums and products -------------------------------------------------------------------


def _sum_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
    return xp.sum(x, axis=axes, dtype=dtype, keepdims=True)


def add_partials(left: Any, right: Any, *, xp: Any) -> Any:
    """The step that combines sums."""
    return left + right


def _prod_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
    return xp.prod(x, axis=axes, dtype=dtype, keepdims=True)


def _multiply(left: Any, right: Any, *, xp: Any) -> Any:
    return left * right


SUM = reduce_op("sum", _sum_partial, add_partials, unchanged, compiled="sum")
PROD = reduce_op("prod", _prod_partial, _multiply, unchanged)


def _summing(op: Op, numpy_name: str, x: Any, axis: Axis, dtype: Any, keepdims: bool) -> Array:
    node = strict_operand(x)
    wanted = np.dtype(dtype) if dtype is not None else sum_dtype(node.dtype)
    return Array(reduction(op, [node], axes_of(axis, node.ndim), keepdims, wanted, (wanted,)))


def sum_dtype(dtype: DType) -> DType:
    """The dtype sums are made in: the default integer for smaller ones."""
    if dtype.kind == "b":
        return np.dtype(np.int64)
    if dtype.kind in "iu":
        return np.dtype(np.int64 if dtype.kind == "i" else np.uint64)
    if dtype.kind not in "fc":
        raise TypeError(f"only numbers can be summed, not {dtype}")
    return dtype


def sum(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Sum over ``axis`` (default: all), pairwise within blocks and in a fixed tree over them."""
    return _summing(SUM, "sum", x, axis, dtype, keepdims)


def prod(x: Array, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """Product over ``axis`` (default: all)."""
    return _summing(PROD, "prod", x, axis, dtype, keepdims)


# --- mean and variance -------------------------------------------------------------------


def _mean_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType, wide: DType) -> Any:
    return xp.sum(x, axis=axes, dtype=wide, keepdims=True)


def _mean_final(xp: Any, value: Any, count: int, dtype: DType, wide: DType) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return standard.cast(xp, xp.true_divide(value, count), dtype)


MEAN = reduce_op("mean", _mean_partial, add_partials, _mean_final, compiled="sum")


def _inexact(dtype: DType) -> tuple[DType, DType]:
    """The dtype of a mean and that of its sums."""
    if dtype.kind in "biu":
        return np.dtype(np.float64), np.dtype(np.float64)
    if dtype.kind not in "fc":
        raise TypeError(f"only numbers have a mean, not {dtype}")
    return dtype, np.dtype(np.float32) if dtype == np.float16 else dtype


def mean(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Arithmetic mean over ``axis`` (default: all); NaN for no elements."""
    node = strict_operand(x)
    dtype, wide = _inexact(node.dtype)
    params = (dtype, wide)
    return Array(reduction(MEAN, [node], axes_of(axis, node.ndim), keepdims, dtype, params))


def _var_partial(
    xp: Any, x: Any, axes: tuple[int, ...], correction: float, wide: DType, root: bool
) -> Any:
    count = math.prod([x.shape[axis] for axis in axes])
    x = standard.cast(xp, x, wide)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = xp.sum(x, axis=axes, keepdims=True)
        off = x - xp.true_divide(total, count)
        squares = xp.real(off * xp.conj(off)) if wide.kind == "c" else off * off
        spread = xp.sum(squares, axis=axes, keepdims=True)
    return xp.full(total.shape, count, dtype=spread.dtype), total, spread


def _var_combine(left: Any, right: Any, *, xp: Any) -> Any:
    """Chan, Golub and LeVeque's update (Stanford CS-79-773, 1979)."""
    n_left, total_left, m2_left = left
    n_right, total_right, m2_right = right
    count = n_left + n_right
    with np.errstate(invalid="ignore", divide="ignore"):
        delta = total_right / n_right - total_left / n_left
        squared = xp.real(delta * xp.conj(delta))
        spread = m2_left + m2_right + squared * n_left * (n_right / count)
    return count, total_left + total_right, spread


def _var_final(xp: Any, value: Any, count: int, correction: float, wide: DType, root: bool) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        result = xp.true_divide(value[2], builtins.max(count - correction, 0))
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


def _spread(x: Any, axis: Axis, correction: float, keepdims: bool, root: bool) -> Array:
    node = strict_operand(x)
    dtype, _ = _inexact(node.dtype)
    real = np.empty(0, dtype).real.dtype
    params = (float(correction), dtype, root)
    return Array(reduction(VAR, [node], axes_of(axis, node.ndim), keepdims, real, params))


def var(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Variance over ``axis``: squared distances from the mean, divided by n - ``correction``."""
    return _spread(x, axis, correction, keepdims, False)


def std(
    x: Array, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Standard deviation over ``axis``: the square root of `var`."""
    return _spread(x, axis, correction, keepdims, True)


# --- extremes and logic ------------------------------------------------------------------


def _max_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.max(x, axis=axes, keepdims=True)


def _min_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.min(x, axis=axes, keepdims=True)


def _maximum(left: Any, right: Any, *, xp: Any) -> Any:
    return xp.maximum(left, right)


def _minimum(left: Any, right: Any, *, xp: Any) -> Any:
    return xp.minimum(left, right)


MAX = reduce_op("max", _max_partial, _maximum, unchanged)
MIN = reduce_op("min", _min_partial, _minimum, unchanged)


def _extreme(op: Op, x: Any, axis: Axis, keepdims: bool) -> Array:
    node = strict_operand(x)
    axes = axes_of(axis, node.ndim)
    if builtins.any(node.shape[a] == 0 for a in axes):
        raise ValueError(f"zero-size array to reduction operation {op.name} which has no identity")
    return Array(reduction(op, [node], axes, keepdims, node.dtype))


def max(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Largest element over ``axis`` (default: all); NaN if there is one."""
    return _extreme(MAX, x, axis, keepdims)


def min(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Smallest element over ``axis`` (default: all); NaN if there is one."""
    return _extreme(MIN, x, axis, keepdims)


def _all_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.all(x, axis=axes, keepdims=True)


def _any_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.any(x, axis=axes, keepdims=True)


def _and(left: Any, right: Any, *, xp: Any) -> Any:
    return left & right


def _or(left: Any, right: Any, *, xp: Any) -> Any:
    return left | right


ALL = reduce_op("all", _all_partial, _and, unchanged)
ANY = reduce_op("any", _any_partial, _or, unchanged)


def _truth(op: Op, x: Any, axis: Axis, keepdims: bool) -> Array:
    node = strict_operand(x)
    return Array(reduction(op, [node], axes_of(axis, node.ndim), keepdims, np.dtype(np.bool_)))


def all(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether every element over ``axis`` is true."""
    return _truth(ALL, x, axis, keepdims)


def any(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether some element over ``axis`` is true."""
    return _truth(ANY, x, axis, keepdims)


def _count_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.sum(x != 0, axis=axes, dtype=np.int64, keepdims=True)


COUNT = reduce_op("count_nonzero", _count_partial, add_partials, unchanged)


def count_nonzero(x: Array, /, *, axis: Axis = None, keepdims: bool = False) -> Array:
    """How many elements over ``axis`` are not zero."""
    node = strict_operand(x)
    axes = axes_of(axis, node.ndim)
    return Array(reduction(COUNT, [node], axes, keepdims, np.dtype(np.int64)))


# --- scans -------------------------------------------------------------------------------


def _cumsum(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.cumsum(x, axis=axis, dtype=dtype)


def _cumprod(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.cumprod(x, axis=axis, dtype=dtype)


def _last(xp: Any, x: Any, axis: int, dtype: DType) -> Any:
    return xp.take(x, xp.asarray([-1]), axis=axis)


def _shift_sum(xp: Any, x: Any, before: Any) -> Any:
    return x + before


def _shift_prod(xp: Any, x: Any, before: Any) -> Any:
    return x * before


def _scan_lower(combine: Callable[..., Any]) -> Callable[[Node, Any], list[Any]]:
    """Scan each block, then the blocks' totals one after the other, then add them on."""

    def lower(node: Node, lowering: Any) -> list[Any]:
        (source,) = node.inputs
        axis, _ = node.params
        blocks = lowering.blocks(source)
        scanned = lowering.call(
            node, node.op.kernel, [(block,) for block in blocks], params=node.params, label=".scan"
        )
        counts = grids.numblocks(source.chunks)
        if counts[axis] == 1:
            return list(scanned)
        order = np.moveaxis(np.arange(len(blocks)).reshape(counts), axis, 0)
        order = order.reshape(counts[axis], -1)
        small = node.nbytes // grids.offsets(node.chunks[axis])[-1] * counts[axis]
        result = list(scanned)
        totals = lowering.call(
            node, _last, [(ref,) for ref in scanned], params=node.params, label=".last",
            read_bytes=small, written_bytes=small,
        )  # fmt: skip
        before = [totals[i] for i in order[0]]
        for place in range(1, counts[axis]):
            row = order[place].tolist()
            made = lowering.call(
                node, combine,
                [(scanned[i], head) for i, head in zip(row, before, strict=True)],
                label=f".{place}",
            )  # fmt: skip
            for i, ref in zip(row, made, strict=True):
                result[i] = ref
            if place + 1 < counts[axis]:
                before = lowering.call(
                    node, combine,
                    [(totals[i], head) for i, head in zip(row, before, strict=True)],
                    label=f".total{place}", read_bytes=small, written_bytes=small,
                )  # fmt: skip
        return result

    return lower


CUMSUM = Op("cumulative_sum", "tasks", _cumsum, _scan_lower(_shift_sum))
CUMPROD = Op("cumulative_prod", "tasks", _cumprod, _scan_lower(_shift_prod))


def _cumulative(
    op: Op, x: Any, axis: int | None, dtype: Any, initial: float, include_initial: bool
) -> Array:
    node = strict_operand(x)
    if axis is None:
        if node.ndim != 1:
            raise ValueError(f"{op.name}: axis is needed for arrays of {node.ndim} axes")
        axis = 0
    at = normalize_axis_index(operator.index(axis), node.ndim)
    wanted = np.dtype(dtype) if dtype is not None else sum_dtype(node.dtype)
    made = make(op, (node,), (at, wanted), node.shape, wanted, node.chunks)
    if include_initial:
        shape = (*node.shape[:at], 1, *node.shape[at + 1 :])
        made = concatenated([full(shape, initial, dtype=wanted)._node, made], at)
    return Array(made)


def cumulative_sum(
    x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Array:
    """Running sum along ``axis``."""
    return _cumulative(CUMSUM, x, axis, dtype, 0, include_initial)


def cumulative_prod(
    x: Array, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Array:
    """Running product along ``axis``."""
    return _cumulative(CUMPROD, x, axis, dtype, 1, include_initial)


def cumsum(x: Array, /, axis: int | None = None, dtype: Any = None) -> Array:
    """NumPy's `cumulative_sum`: of all elements in order if ``axis`` is None."""
    node = strict_operand(x)
    flat = Array(reshaped(node, (node.size,)) if axis is None else node)
    return cumulative_sum(flat, axis=0 if axis is None else axis, dtype=dtype)


def cumprod(x: Array, /, axis: int | None = None, dtype: Any = None) -> Array:
    """NumPy's `cumulative_prod`: of all elements in order if ``axis`` is None."""
    node = strict_operand(x)
    flat = Array(reshaped(node, (node.size,)) if axis is None else node)
    return cumulative_prod(flat, axis=0 if axis is None else axis, dtype=dtype)


def diff(
    x: Array,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Any = None,
    append: Any = None,
) -> Array:
    """``n``-th differences of neighbours along ``axis``.

    Raises
    ------
    ValueError
        ``n`` is negative, or ``x`` has no axis.
    """
    node = strict_operand(x)
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    if node.ndim == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    at = normalize_axis_index(axis, node.ndim)
    parts = [strict_operand(part) for part in (prepend, x, append) if part is not None]
    dtype = np.result_type(*[part.dtype for part in parts])
    result = Array(concatenated([cast(part, dtype) for part in parts], at))
    head = (slice(None),) * at
    for _ in range(n):
        after, before = result[(*head, slice(1, None))], result[(*head, slice(None, -1))]
        result = after != before if dtype.kind == "b" else after - before
    return result
