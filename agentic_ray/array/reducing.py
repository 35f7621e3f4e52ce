"""Builds reductions, and has the sum that other reductions are built on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from agentic_ray.array.core import standard
from agentic_ray.array.core.build import check_numbers, reduction
from agentic_ray.array.core.node import DType, Node, Op, Reduction
from agentic_ray.array.core.program import finish


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
    exact: bool = False,
) -> Op:
    """An operation of kind ``reduce``."""
    steps = Reduction(partial, combine, final, cache_blocks, compiled, also, exact)

    def kernel(xp: Any, x: Any, *rest: Any) -> Any:
        extra = len(rest) - _params(rest)
        operands, (axes, keepdims, *params) = rest[:extra], rest[extra:]
        count = math.prod([x.shape[axis] for axis in axes])
        value = partial(xp, x, *operands, axes, *params)
        return finish(xp, value, steps, axes, keepdims, count, *params)

    return Op(name, "reduce", kernel, weight=weight, reduction=steps)


def _params(rest: tuple[Any, ...]) -> int:
    """Count the parameters among ``rest``: from the axes, a tuple, onwards."""
    return len(rest) - next(i for i, value in enumerate(rest) if type(value) is tuple)


def unchanged(xp: Any, value: Any, count: int, *params: Any) -> Any:
    """The final step of a reduction whose combined partial value is its result."""
    return value


# --- dtypes ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2048)
def loop_dtype(ufunc: np.ufunc, dtype: DType, wanted: DType | None = None) -> DType:
    """The dtype in which NumPy reduces ``dtype`` by ``ufunc``.

    Raises
    ------
    TypeError
        NumPy does not.
    """
    found: DType = ufunc.reduce(np.zeros(1, dtype), dtype=wanted).dtype
    return found


def asked(dtype: Any) -> DType | None:
    """The argument ``dtype`` of a reduction.

    Raises
    ------
    InvalidTypeError
        Of objects or texts.
    """
    return None if dtype is None else check_numbers(np.dtype(dtype))


def sum_dtype(dtype: DType) -> DType:
    """The dtype sums are made in: the default integer for smaller ones."""
    return loop_dtype(np.add, dtype)


@functools.lru_cache(maxsize=2048)
def mean_dtypes(dtype: DType, wanted: DType | None) -> tuple[DType, DType]:
    """The dtype of a mean and that of its sums.

    Raises
    ------
    TypeError
        There is no mean of such elements.
    """
    if wanted is None and dtype.kind in "biu":
        wanted = np.dtype(np.float64)
    found = loop_dtype(np.add, dtype, wanted)
    return found, np.dtype(np.float32) if dtype == found == np.float16 else found


@functools.lru_cache(maxsize=2048)
def spread_dtypes(dtype: DType, wanted: DType | None) -> tuple[DType, DType]:
    """The dtype of a variance and that of the deviations in it.

    Raises
    ------
    TypeError
        There is no variance of such elements.
    """
    found = np.var(np.zeros(1, dtype), dtype=wanted).dtype
    wide = mean_dtypes(dtype, wanted)[1]
    return found, np.result_type(wide, np.float32) if wide.kind in "fc" else wide


# --- sums --------------------------------------------------------------------------------


def _sum_partial(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
    return sum_in(xp, x, axes, dtype)


def sum_in(xp: Any, x: Any, axes: tuple[int, ...], dtype: DType) -> Any:
    """The sum of ``x`` over ``axes``, which are kept, in ``dtype``.

    Small integers are added up in the next larger ones as long as these cannot overflow, which
    takes a third of the time of adding them in 64 bits, or in float64 (where such sums are exact).
    Truths are counted.
    """
    if xp is np and x.dtype == np.bool_ and len(axes) == x.ndim and dtype.kind in "iu":
        return np.full((1,) * x.ndim, np.count_nonzero(x), dtype)
    if xp is np and dtype in _WIDE and x.dtype in _SUMMED_IN:
        count = math.prod([x.shape[axis] for axis in axes])
        wider = _SUMMED_IN[x.dtype]
        if count <= 1 << 8 * (wider.itemsize - x.dtype.itemsize):
            return np.add.reduce(x, axis=axes, dtype=wider, keepdims=True).astype(dtype)
    # NumPy does not take the dtype of durations, which is that of the elements anyway.
    return xp.sum(x, axis=axes, dtype=None if dtype.kind == "m" else dtype, keepdims=True)


_SUMMED_IN = {
    np.dtype(small): np.dtype(wider)
    for small, wider in (("u1", "u2"), ("i1", "i2"), ("u2", "u4"), ("i2", "i4"))
}
_WIDE = (np.dtype("f8"), np.dtype("i8"), np.dtype("u8"))


def add_partials(left: Any, right: Any, *, xp: Any) -> Any:
    """The step that combines sums."""
    return left + right


def _narrowed(xp: Any, value: Any, count: int, wide: DType) -> Any:
    return standard.cast(xp, value, np.float16)


SUM = reduce_op("sum", _sum_partial, add_partials, unchanged, compiled="sum")
HALF_SUM = reduce_op("sum_of_halves", _sum_partial, add_partials, _narrowed)
"""Of float16, in float32: as NumPy adds them up."""


def summed(node: Node, axes: tuple[int, ...], keepdims: bool, dtype: DType) -> Node:
    """The sum of ``node`` over ``axes``, in ``dtype``."""
    if dtype == np.float16 == node.dtype:
        wide = np.dtype(np.float32)
        return reduction(HALF_SUM, [node], axes, keepdims, dtype, (wide,))
    return reduction(SUM, [node], axes, keepdims, dtype, (dtype,))
