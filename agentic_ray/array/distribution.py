"""How values are distributed: histograms, counts per bin, averages and covariances."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import axes_of, leaf, reduction, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Held, Node, Op
from agentic_ray.array.core.views import expanded, reshaped
from agentic_ray.array.statistics import Axis, add_partials, max, mean, min, reduce_op, unchanged

# --- counts ------------------------------------------------------------------------------


def _histogram_partial(xp: Any, x: Any, axes: tuple[int, ...], held: Held) -> Any:
    counts, _ = xp.histogram(x, bins=xp.asarray(held.value))
    return counts


def _weighted_partial(xp: Any, x: Any, weights: Any, axes: tuple[int, ...], held: Held) -> Any:
    counts, _ = xp.histogram(x, bins=xp.asarray(held.value), weights=weights)
    return counts


HISTOGRAM = reduce_op("histogram", _histogram_partial, add_partials, unchanged, 32, cache_blocks=0)
WEIGHTED = reduce_op(
    "weighted_histogram", _weighted_partial, add_partials, unchanged, 32, cache_blocks=0
)


def _counted(op: Op, nodes: list[Node], dtype: Any, params: tuple[Any, ...]) -> Array:
    """The counts of all elements: a value of another length than the axis it stands for."""
    value = evaluate.table(reduction(op, nodes, (0,), True, np.dtype(dtype), params))
    return Array(leaf(np.asarray(value)))


def histogram(
    x: Array, /, bins: Any = 10, range: Any = None, density: bool = False, weights: Any = None
) -> tuple[Array, Array]:
    """How many elements lie in each bin, and the edges of the bins, as in NumPy.

    Computed at once: without ``range`` the edges depend on the data.

    Raises
    ------
    ValueError
        The bins do not increase, or weights have another shape.
    """
    node = strict_operand(x)
    flat = reshaped(node, (node.size,))
    if isinstance(bins, Array):
        bins = np.asarray(bins)
    if isinstance(bins, int | np.integer) and range is None and node.size:
        low, high = evaluate.values([min(Array(flat))._node, max(Array(flat))._node])
        range = (low.item(), high.item())
    edges = np.histogram_bin_edges(np.empty(0, node.dtype), bins, range)
    if np.any(edges[:-1] > edges[1:]):
        raise ValueError("`bins` must increase monotonically, when an array")
    held = Held(edges)
    if weights is None:
        counts = _counted(HISTOGRAM, [flat], np.int64, (held,))
    else:
        heavy = strict_operand(weights)
        if heavy.shape != node.shape:
            raise ValueError("weights should have the same shape as a.")
        heavy = reshaped(heavy, (node.size,))
        counts = _counted(WEIGHTED, [flat, heavy], heavy.dtype, (held,))
    if density:
        widths = Array(leaf(np.diff(edges)))
        counts = counts / widths / counts.sum()
    return counts, Array(leaf(edges))


def _bincount_partial(xp: Any, x: Any, axes: tuple[int, ...], length: int) -> Any:
    return xp.bincount(x, minlength=length)


def _weighted_bincount(xp: Any, x: Any, weights: Any, axes: tuple[int, ...], length: int) -> Any:
    return xp.bincount(x, weights=weights, minlength=length)


BINCOUNT = reduce_op("bincount", _bincount_partial, add_partials, unchanged, 8, cache_blocks=0)
WEIGHTED_BINCOUNT = reduce_op(
    "weighted_bincount", _weighted_bincount, add_partials, unchanged, 8, cache_blocks=0
)


def bincount(x: Array, /, weights: Any = None, minlength: int = 0) -> Array:
    """How often each number from 0 on comes in ``x``. Computed at once.

    Raises
    ------
    ValueError
        A number is negative, or ``x`` has not one axis.
    TypeError
        ``x`` does not hold integers.
    """
    node = strict_operand(x)
    if node.ndim != 1:
        raise ValueError("object too deep for desired array" if node.ndim else "object of too "
                         "small depth for desired array")  # fmt: skip
    if node.dtype.kind not in "iub":
        raise TypeError(f"Cannot cast array data from {node.dtype} to int64 according to 'safe'")
    if minlength < 0:
        raise ValueError("'minlength' must not be negative")
    length = minlength
    if node.size:
        low, high = evaluate.values([min(Array(node))._node, max(Array(node))._node])
        if int(low) < 0:
            raise ValueError("'list' argument must have no negative elements")
        length = int(np.maximum(length, int(high) + 1))
    node = cast(node, np.int64)
    if weights is None:
        return _counted(BINCOUNT, [node], np.int64, (length,))
    heavy = cast(strict_operand(weights), np.float64)
    if heavy.shape != node.shape:
        raise ValueError("The weights and list don't have the same length.")
    return _counted(WEIGHTED_BINCOUNT, [node, heavy], np.float64, (length,))


# --- averages and covariances ------------------------------------------------------------


def average(
    x: Array, /, axis: Axis = None, weights: Any = None, *, keepdims: bool = False
) -> Array:
    """Weighted mean over ``axis``.

    Raises
    ------
    ValueError
        Weights have another shape.
    """
    if weights is None:
        return mean(x, axis=axis, keepdims=keepdims)
    heavy = Array(strict_operand(weights))
    if heavy.shape != x.shape:
        axes = axes_of(axis, x.ndim)
        if len(axes) != 1 or heavy.shape != (x.shape[axes[0]],):
            raise ValueError("Shape of weights must be consistent with shape of a along axis.")
        heavy = heavy.reshape(tuple(n if a == axes[0] else 1 for a, n in enumerate(x.shape)))
    total = (x * heavy).sum(axis=axis, keepdims=keepdims)
    result: Array = total / (heavy + x * 0).sum(axis=axis, keepdims=keepdims)
    return result


def cov(x: Array, /, *, correction: int = 1) -> Array:
    """Covariances of the rows of ``x``.

    Raises
    ------
    ValueError
        ``x`` has more than two axes.
    """
    node = strict_operand(x)
    if node.ndim > 2:
        raise ValueError("m has more than 2 dimensions")
    rows = Array(node if node.ndim == 2 else expanded(node, (0,)))
    if rows.dtype.kind in "biu":
        rows = rows.astype(np.float64)
    off = rows - mean(rows, axis=1, keepdims=True)
    result: Array = (off @ off.T.conj()) / (rows.shape[1] - correction)
    return result if node.ndim == 2 else result.reshape(())
