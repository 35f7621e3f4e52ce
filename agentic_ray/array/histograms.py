"""Histograms of one, two and more dimensions, and counts of small integers. All are computed at
the call: their edges, or lengths, depend on the data."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.binning import bin_edges, counts_in, flat_numbers
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import leaf, reduction, strict_operand, without_arrays
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Held, NDArray, Node, Op
from agentic_ray.array.core.views import rechunk, reshaped
from agentic_ray.array.reducing import add_partials, reduce_op, unchanged
from agentic_ray.array.small import by_numpy_if_small


def _weighted_partial(xp: Any, x: Any, weights: Any, axes: tuple[int, ...], held: Held) -> Any:
    counts, _ = xp.histogram(x, bins=xp.asarray(held.value), weights=weights)
    return counts


WEIGHTED = reduce_op(
    "weighted_histogram", _weighted_partial, add_partials, unchanged, 32, cache_blocks=0
)


def _counted(op: Op, nodes: list[Node], dtype: DType, params: tuple[Any, ...]) -> NDArray:
    """Count all elements: a value whose shape differs from the axis it stands for."""
    return np.asarray(evaluate.table(reduction(op, nodes, (0,), True, dtype, params)))


def _heavy(weights: Any, node: Node) -> Node:
    heavy = strict_operand(weights)
    if heavy.shape != node.shape:
        raise ValueError("weights should have the same shape as a.")
    return reshaped(heavy, (heavy.size,))


@by_numpy_if_small
def histogram(
    a: Any, bins: Any = 10, range: Any = None, density: bool | None = None, weights: Any = None
) -> tuple[Array, Array]:
    """Count the elements in each bin; return the counts and the edges of the bins.

    Computed at once.

    Parameters
    ----------
    a : array_like
        Data; flattened.
    bins : int, array_like or str
        Number of bins, their edges, or the way to find their number: ``"auto"``, ``"doane"``,
        ``"fd"``, ``"rice"``, ``"scott"``, ``"sqrt"``, ``"stone"`` or ``"sturges"``.
    range : (float, float), optional
        Range of the bins; default from the smallest to the largest element.
    density : bool, optional
        Whether to return the share of elements per unit instead of their number.
    weights : array_like, optional
        Weight of each element, in the shape of ``a``.

    Raises
    ------
    ValueError
        The bins do not increase, weights have another shape, or the data are not finite.
    TypeError
        ``bins`` is a name and there are weights.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.histogram([1, 2, 1], bins=[0, 1, 2, 3])
    (Array([0, 2, 1], dtype=int64), Array([0, 1, 2, 3], dtype=int64))
    """
    flat = flat_numbers(a)
    heavy = None if weights is None else _heavy(weights, strict_operand(a))
    edges = bin_edges(flat, bins, range, weights)
    if heavy is None:
        (counts,) = counts_in(flat, [edges])
    else:
        counts = _counted(WEIGHTED, [flat, heavy], heavy.dtype, (Held(edges),))
    if density:
        counts = counts / np.asarray(np.diff(edges), float) / counts.sum()
    return Array(leaf(counts), is_cell=True), Array(leaf(edges), is_cell=True)


def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Array:
    """Return the edges that `histogram` would have; see there for the parameters.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.histogram_bin_edges([0, 0, 0, 1, 2, 3, 3, 4, 5], bins="sqrt")
    Array([0.        , 1.66666667, 3.33333333, 5.        ], dtype=float64)
    """
    if weights is not None:
        _heavy(weights, strict_operand(a))
    return Array(leaf(bin_edges(flat_numbers(a), bins, range, weights)), is_cell=True)


# --- several dimensions ------------------------------------------------------------------


def _dd_partial(xp: Any, sample: Any, axes: tuple[int, ...], held: Held) -> Any:
    return xp.histogramdd(sample, bins=[xp.asarray(edges) for edges in held.value])[0]


def _dd_weighted_partial(
    xp: Any, sample: Any, weights: Any, axes: tuple[int, ...], held: Held
) -> Any:
    edges = [xp.asarray(edges) for edges in held.value]
    return xp.histogramdd(sample, bins=edges, weights=weights[:, 0])[0]


_DD = reduce_op("histogramdd", _dd_partial, add_partials, unchanged, 64, cache_blocks=0)
_DD_WEIGHTED = reduce_op(
    "weighted_histogramdd", _dd_weighted_partial, add_partials, unchanged, 64, cache_blocks=0
)


def _sample(sample: Any) -> Array:
    """Return the points as rows of an array."""
    if isinstance(sample, list | tuple):
        from agentic_ray.array.manipulation import stack  # manipulation uses the functions here

        columns = [Array(strict_operand(column)) for column in sample]
        if len({column.shape for column in columns}) == 1 and columns[0].ndim == 1:
            return stack(columns, axis=1)
    found = Array(strict_operand(sample))
    if found.ndim == 2 and hasattr(sample, "shape"):
        return found
    if found.ndim <= 1:
        return Array(reshaped(found._node, (found.size, 1)))
    if found.ndim == 2:
        return found.T
    raise ValueError("histogramdd takes points as rows of two axes")


@by_numpy_if_small
def histogramdd(
    sample: Any, bins: Any = 10, range: Any = None, density: bool | None = None,
    weights: Any = None,
) -> tuple[Array, list[Array]]:  # fmt: skip
    """Count the points in each bin of several dimensions; return the counts and each dimension's
    edges.

    Computed at once.

    Parameters
    ----------
    sample : array_like
        Points as rows of an array, or a sequence with an array for each dimension.
    bins : int, or a sequence of int or of array_like
        Number of bins or edges, for all dimensions or for each.
    range : sequence, optional
        A pair (or None) for each dimension.
    density, weights
        As in `histogram`.

    Raises
    ------
    ValueError
        Bins, ranges and dimensions do not agree.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> counts, edges = xp.histogramdd([[0, 1, 1], [0, 2, 2]], bins=2)
    >>> counts
    Array([[1., 0.],
           [0., 2.]], dtype=float64)
    """
    points = _sample(sample)
    rows, dimensions = points.shape
    bins = without_arrays(bins)
    if not hasattr(bins, "__len__") or (isinstance(bins, np.ndarray) and not bins.ndim):
        bins = [bins] * dimensions
    elif len(bins) != dimensions:
        raise ValueError("The dimension of bins must be equal to the dimension of the sample x.")
    ranges = [None] * dimensions if range is None else list(range)
    if len(ranges) != dimensions:
        raise ValueError("range argument must have one entry per dimension")
    edges = [
        _edges_along(points[:, axis]._node, bins[axis], ranges[axis], axis)
        for axis in np.arange(dimensions).tolist()
    ]
    node = points._node
    node = rechunk(node, (node.chunks[0], (dimensions,)))
    held = (Held(edges),)
    float64 = np.dtype(np.float64)
    if weights is None:
        counts = _counted(_DD, [node], float64, held)
    else:
        heavy = cast(strict_operand(weights), float64)
        if heavy.shape != (rows,):
            raise ValueError("The weights and list don't have the same length.")
        heavy = rechunk(reshaped(heavy, (rows, 1)), (node.chunks[0], (1,)))
        counts = _counted(_DD_WEIGHTED, [node, heavy], float64, held)
    if density:
        total = counts.sum()
        for axis, some in enumerate(edges):
            counts = counts / np.diff(some).reshape([-1 if a == axis else 1 for a in
                                                     np.arange(dimensions).tolist()])  # fmt: skip
        counts = counts / total
    return (
        Array(leaf(np.ascontiguousarray(counts)), is_cell=True),
        [Array(leaf(some), is_cell=True) for some in edges],
    )


def _edges_along(x: Node, bins: Any, range: Any, axis: int) -> NDArray:
    if np.ndim(bins) > 1:
        raise ValueError(f"`bins[{axis}]` must be a scalar or 1d array")
    if np.ndim(bins) == 1:
        edges = np.asarray(bins)
        if np.any(edges[:-1] > edges[1:]):
            raise ValueError(f"`bins[{axis}]` must be monotonically increasing, when an array")
        return edges
    if bins < 1:
        raise ValueError(f"`bins[{axis}]` must be positive, when an integer")
    try:
        count = operator.index(bins)
    except TypeError as error:
        raise TypeError(f"`bins[{axis}]` must be an integer, when a scalar") from error
    outer = bin_edges(x, 1, range, None)
    return np.linspace(outer[0], outer[-1], count + 1)


@by_numpy_if_small
def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, density: bool | None = None,
    weights: Any = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Count the points in each bin of the plane; return the counts and the edges along both axes.

    Parameters
    ----------
    x, y : array_like, one-dimensional
    bins : int, array_like, or a pair of them
        Number of bins or edges, for both axes or for each.
    range, density, weights
        As in `histogramdd`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> counts, x_edges, y_edges = xp.histogram2d([0, 1, 1], [0, 2, 2], bins=2)
    >>> counts
    Array([[1., 0.],
           [0., 2.]], dtype=float64)
    """
    first, second = Array(strict_operand(x)), Array(strict_operand(y))
    if len(first) != len(second):
        raise ValueError("x and y must have the same length.")
    bins = without_arrays(bins)
    if isinstance(bins, Sequence | np.ndarray) and len(bins) not in (1, 2):
        bins = [np.asarray(bins), np.asarray(bins)]
    counts, edges = histogramdd([first, second], bins, range, density, weights)
    return counts, edges[0], edges[1]


# --- counts of small integers ------------------------------------------------------------


def _bincount_partial(xp: Any, x: Any, axes: tuple[int, ...], least_length: int) -> tuple[Any, Any]:
    return _counts_of(xp, x, None, least_length)


def _weighted_bincount(
    xp: Any, x: Any, weights: Any, axes: tuple[int, ...], least_length: int
) -> tuple[Any, Any]:
    return _counts_of(xp, x, weights, least_length)


def _counts_of(xp: Any, x: Any, weights: Any, least_length: int) -> tuple[Any, Any]:
    """Count the numbers of a block; return the counts and the smallest number, where one is
    negative no counts."""
    least = xp.min(x) if x.shape[0] else xp.asarray(0)
    if least < 0:
        x, weights = x[:0], None if weights is None else weights[:0]
    return xp.bincount(x, weights=weights, minlength=least_length), least


def _add_counts(left: Any, right: Any, *, xp: Any) -> tuple[Any, Any]:
    """Add counts, of which those of larger numbers are more."""
    (few, one), (many, other) = sorted((left, right), key=lambda part: part[0].shape[0])
    rest = xp.zeros(many.shape[0] - few.shape[0], dtype=few.dtype)
    return many + xp.concatenate([few, rest]), xp.minimum(one, other)


BINCOUNT = reduce_op("bincount", _bincount_partial, _add_counts, unchanged, 8, cache_blocks=0)
WEIGHTED_BINCOUNT = reduce_op(
    "weighted_bincount", _weighted_bincount, _add_counts, unchanged, 8, cache_blocks=0
)


@by_numpy_if_small
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Array:
    """Count how often each number from 0 on occurs in ``x``. Computed at once.

    Parameters
    ----------
    x : array_like of int, one-dimensional
    weights : array_like, optional
        Weight of each element.
    minlength : int
        Least length of the result.

    Raises
    ------
    ValueError
        A number is negative, or ``x`` is no vector.
    TypeError
        ``x`` does not hold integers.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.bincount([0, 1, 1, 3])
    Array([1, 2, 0, 1], dtype=int64)
    """
    node = strict_operand(x)
    if node.ndim != 1:
        raise ValueError("object too deep for desired array" if node.ndim else "object of too "
                         "small depth for desired array")  # fmt: skip
    is_array = hasattr(x, "dtype")  # in lists NumPy cuts numbers off
    if not np.can_cast(node.dtype, np.int64, "safe") and (is_array or node.dtype.kind not in "f"):
        raise TypeError(
            f"Cannot cast array data from {node.dtype!r} to dtype('int64') according to the rule "
            "'safe'"
        )
    minlength = operator.index(minlength)
    if minlength < 0:
        raise ValueError("'minlength' must not be negative")
    op, operands = BINCOUNT, [cast(node, np.int64)]
    if weights is not None:
        heavy = cast(strict_operand(weights), np.float64)
        if heavy.shape != node.shape:
            raise ValueError("The weights and list don't have the same length.")
        op, operands = WEIGHTED_BINCOUNT, [*operands, heavy]
    dtype = np.dtype(np.int64) if weights is None else heavy.dtype
    counts, least = evaluate.table(reduction(op, operands, (0,), True, dtype, (minlength,)))
    if least < 0:
        raise ValueError("'list' argument must have no negative elements")
    return Array(leaf(np.asarray(counts)), is_cell=True)
