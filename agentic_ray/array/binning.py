"""Edges of histograms' bins, computed from the data as in NumPy where needed.

References
----------
J. L. Hodges, D. Freedman and P. Diaconis, D. P. Doane, D. W. Scott, C. J. Stone, H. A. Sturges:
the estimators named after them, as `numpy.histogram_bin_edges` states them.
"""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import reduction, strict_operand, without_arrays
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Held, NDArray, Node
from agentic_ray.array.core.views import reshaped
from agentic_ray.array.quantiles import percentile
from agentic_ray.array.reducing import add_partials, reduce_op, unchanged
from agentic_ray.array.statistics import mean, std


def flat_numbers(a: Any) -> Node:
    """Return the elements of ``a`` in one axis; truth values as numbers, with NumPy's warning."""
    node = strict_operand(a)
    if node.dtype.kind == "b":
        warnings.warn(
            f"Converting input from {node.dtype} to {np.uint8} for compatibility.",
            RuntimeWarning,
            stacklevel=3,
        )
        node = cast(node, np.uint8)
    return reshaped(node, (node.size,))


def bin_edges(x: Node, bins: Any, range: Any, weights: Any) -> NDArray:
    """Return the edges that NumPy would have for these data. The data are computed where NumPy
    looks at them.

    Raises
    ------
    ValueError
        ``bins`` or ``range`` make no bins.
    TypeError
        ``bins`` is neither a number, nor a name, nor an array; or it is a name, and there are
        weights.
    """
    bins = without_arrays(bins)
    if range is not None:
        range = tuple([float(end) if isinstance(end, Array) else end for end in range])
    if not isinstance(bins, str):
        ends = _ends(x) if np.ndim(bins) == 0 and range is None else np.empty(0, x.dtype)
        return np.histogram_bin_edges(ends, bins, range)
    if bins not in ESTIMATORS:
        raise ValueError(f"{bins!r} is not a valid estimator for `bins`")
    if weights is not None:
        raise TypeError(
            "Automated estimation of the number of bins is not supported for weighted data"
        )
    ends = _ends(x) if range is None else np.empty(0, x.dtype)
    outer = np.histogram_bin_edges(ends, 1, range)
    data = Array(x)
    if range is not None:
        data = data[(data >= outer[0]) & (data <= outer[1])]
    count = _estimated(data, bins, outer)
    return np.histogram_bin_edges(ends, count, range)


def _extent_partial(xp: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    return xp.min(x, axis=axes, keepdims=True), xp.max(x, axis=axes, keepdims=True)


def _wider(left: Any, right: Any, *, xp: Any) -> tuple[Any, Any]:
    return xp.minimum(left[0], right[0]), xp.maximum(left[1], right[1])


EXTENT = reduce_op("extent", _extent_partial, _wider, unchanged, 2)


def extent(x: Node) -> tuple[Any, Any]:
    """Return the smallest and the largest element, found in one pass; computed now. ``x`` has one
    axis and at least one element."""
    low, high = evaluate.table(reduction(EXTENT, [x], (0,), True, x.dtype))
    return low.item(), high.item()


def _ends(x: Node) -> NDArray:
    """Return the smallest and the largest element, if there are any."""
    if not x.size:
        return np.empty(0, x.dtype)
    return np.asarray(extent(x), dtype=x.dtype)


def _estimated(x: Array, name: str, outer: NDArray) -> int:
    """Return the number of bins of the estimator's width."""
    if not x.size:
        return 1
    width = ESTIMATORS[name](x, (outer[0], outer[1]))
    if not width:
        return 1
    if x.dtype.kind in "iu" and width < 1:
        width = 1
    return math.ceil((float(outer[1]) - float(outer[0])) / width)


# --- estimators of a bin's width ---------------------------------------------------------


def _spread(x: Array) -> float:
    low, high = extent(x._node)
    return float(high) - float(low)


def _sqrt(x: Array, range: Any) -> float:
    return _spread(x) / math.sqrt(x.size)


def _sturges(x: Array, range: Any) -> float:
    return _spread(x) / (math.log2(x.size) + 1.0)


def _rice(x: Array, range: Any) -> float:
    return _spread(x) / (2.0 * float(np.cbrt(x.size)))


def _scott(x: Array, range: Any) -> float:
    return float((24.0 * math.pi**0.5 / x.size) ** (1.0 / 3.0) * float(std(x)))


def _stone(x: Array, range: Any) -> float:
    """Return the width with the smallest estimated error, by cross-validation."""
    spread, n = _spread(x), x.size
    if n <= 1 or spread == 0:
        return 0.0
    most = builtins.max(100, int(math.sqrt(n)))
    errors: list[float] = []
    for first in builtins.range(1, most + 1, _AT_ONCE):
        numbers = builtins.range(first, builtins.min(first + _AT_ONCE, most + 1))
        edges = [np.linspace(range[0], range[1], number + 1) for number in numbers]
        for number, counts in zip(numbers, counts_in(x._node, edges), strict=True):
            share = counts / n
            errors.append(float((2 - (n + 1) * share.dot(share)) / (spread / number)))
    best = 1 + int(np.argmin(errors))
    if best == most:
        warnings.warn(
            "The number of bins estimated may be suboptimal.", RuntimeWarning, stacklevel=2
        )
    return spread / best


def _doane(x: Array, range: Any) -> float:
    n = x.size
    if n <= 2:
        return 0.0
    sigma = float(std(x))
    if sigma <= 0:
        return 0.0
    skew = float(mean(((x - mean(x)) / sigma) ** 3))
    scale = math.sqrt(6.0 * (n - 2) / ((n + 1.0) * (n + 3)))
    return _spread(x) / (1.0 + math.log2(n) + math.log2(1.0 + abs(skew) / scale))


def _freedman_diaconis(x: Array, range: Any) -> float:
    high, low = percentile(x, [75, 25]).compute()
    return float(2.0 * (high - low) * x.size ** (-1.0 / 3.0))


def _auto(x: Array, range: Any) -> float:
    relaxed = builtins.max(_freedman_diaconis(x, range), _sqrt(x, range) / 2)
    return builtins.min(relaxed, _sturges(x, range))


ESTIMATORS: dict[str, Callable[[Array, Any], float]] = {
    "stone": _stone,
    "auto": _auto,
    "doane": _doane,
    "fd": _freedman_diaconis,
    "rice": _rice,
    "scott": _scott,
    "sqrt": _sqrt,
    "sturges": _sturges,
}


# --- counts in bins ----------------------------------------------------------------------

_AT_ONCE = 128
"""Number of histograms of the same data that are made in one pass."""


def _counts_partial(xp: Any, x: Any, axes: tuple[int, ...], held: Held) -> Any:
    made = [xp.histogram(x, bins=xp.asarray(edges))[0] for edges in held.value]
    return made[0] if len(made) == 1 else xp.concatenate(made)


COUNTS = reduce_op("histogram", _counts_partial, add_partials, unchanged, 32, cache_blocks=0)


def counts_in(x: Node, edges: Sequence[NDArray]) -> list[NDArray]:
    """Count the elements in each bin, for several sequences of edges; computed now."""
    node = reduction(COUNTS, [x], (0,), True, np.dtype(np.int64), (Held(list(edges)),))
    counts: Any = np.asarray(evaluate.table(node))
    return np.split(counts, np.cumsum([len(some) - 1 for some in edges])[:-1])
