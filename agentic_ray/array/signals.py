"""Sliding products and interpolation: convolve, correlate, interp.

The longer operand stays in its chunks; each chunk of the result reads the needed part of it and the
whole of the shorter operand.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import blockwise_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import NDArray, Node, Op, make
from agentic_ray.array.core.views import concatenated, rechunk, sliced
from agentic_ray.array.elementwise import conj
from agentic_ray.array.small import by_numpy_if_small

_MODES = ("valid", "same", "full")


def _correlate_kernel(xp: Any, a: Any, v: Any, start: int, count: int) -> Any:
    """Sum products without the conjugate, which is taken before, for ``count`` runs of ``a``.

    The first run ends at element ``start``. Runs that reach over an end of ``a`` are summed as far
    as they go, so that NaN and infinities meet no zeros that nobody wrote.
    """
    whole = start == v.shape[0] - 1 and start + count == a.shape[0]
    if whole:
        return xp.convolve(a, v[::-1], "valid")
    return xp.convolve(a, v[::-1], "full")[start : start + count]


_CORRELATE = blockwise_op("correlate", _correlate_kernel, 8)


def _slid(a: Node, v: Node, mode: str) -> Node:
    """Sum products of ``v`` and each run of its length in ``a``, which is no shorter."""
    width = v.size
    before, behind = {
        "valid": (0, 0),
        "same": (width // 2, width - 1 - width // 2),
        "full": (width - 1, width - 1),
    }[mode]
    dtype = np.convolve(np.ones(1, a.dtype), np.ones(1, v.dtype)).dtype
    table = rechunk(v, grids.single(v.shape))
    length = a.size + before + behind - width + 1
    parts: list[Node] = []
    for low, high in itertools.pairwise(_edges(a, length)):
        first = max(0, low - before)
        last = min(a.size, high + width - 1 - before)
        piece = sliced(a, (("s", first, last - first, 1),))
        piece = rechunk(piece, grids.single(piece.shape))
        params = (low + width - 1 - before - first, high - low)
        shape = (high - low,)
        parts.append(make(_CORRELATE, (piece, table), params, shape, dtype, grids.single(shape)))
    return concatenated(parts, 0)


def _edges(a: Node, length: int) -> list[int]:
    """Return the edges of the result's chunks: as many chunks as ``a`` has."""
    edges = [min(edge, length) for edge in grids.offsets(a.chunks[0])]
    return sorted({*edges[:-1], length} | {0})


def _line(value: Any, name: str) -> Node:
    node = strict_operand(value)
    if node.ndim == 0:
        node = strict_operand(np.atleast_1d(evaluate.value(node)))
    if node.ndim > 1:
        raise ValueError("object too deep for desired array")
    if not node.size:
        raise ValueError(f"{name} cannot be empty")
    return node


def _checked_mode(mode: Any) -> str:
    if isinstance(mode, int) and 0 <= mode < len(_MODES):
        return _MODES[mode]
    if mode not in _MODES:
        raise ValueError(f"mode must be one of 'valid', 'same', or 'full' (got {mode!r})")
    return str(mode)


@by_numpy_if_small
def convolve(a: Any, v: Any, mode: str = "full") -> Array:
    """Compute the discrete convolution of two one-dimensional arrays.

    Parameters
    ----------
    a, v : array_like
        The shorter one is read as a whole for each chunk of the other.
    mode : {"full", "same", "valid"}
        Places of the result: all where they overlap, as many as the longer one has, or all where
        they overlap fully.

    Raises
    ------
    ValueError
        An operand is empty or has several axes, or there is no such mode.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.convolve([1, 2, 3], [0, 1, 0.5])
    Array([0. , 1. , 2.5, 4. , 1.5], dtype=float64)
    """
    first, second = _line(a, "a"), _line(v, "v")
    mode = _checked_mode(mode)
    if second.size > first.size:
        first, second = second, first
    return Array(_slid(first, Array(second)[::-1]._node, mode))


@by_numpy_if_small
def correlate(a: Any, v: Any, mode: str = "valid") -> Array:
    """Compute the cross-correlation of two one-dimensional arrays.

    Its elements are sums of ``a[n + k] * conj(v[n])``.

    Parameters are those of `convolve`, except that ``mode`` is ``"valid"`` by default.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.correlate([1, 2, 3], [0, 1, 0.5], "same")
    Array([2. , 3.5, 3. ], dtype=float64)
    """
    first, second = _line(a, "a"), _line(v, "v")
    mode = _checked_mode(mode)
    if second.dtype.kind == "c":
        second = conj(Array(second))._node
    if second.size <= first.size:
        return Array(_slid(first, second, mode))
    return Array(Array(_slid(second, first, mode))[::-1]._node)


# --- interpolation -----------------------------------------------------------------------


def _interp_kernel(xp: Any, x: Any, places: Any, values: Any, left: Any, right: Any) -> Any:
    return xp.interp(x, places, values, left, right)


def _lower_interp(node: Node, lowering: Any) -> list[Any]:
    x, places, values = (lowering.blocks(source) for source in node.inputs)
    rows = [(block, places[0], values[0]) for block in x]
    return list(
        lowering.call(node, _interp_kernel, rows, params=node.params, flops=lowering.work(node))
    )


_INTERP = Op("interp", "tasks", _interp_kernel, _lower_interp, weight=32)


def interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None
) -> Array:
    """Return the values at ``x`` of the line through the points ``(xp, fp)``.

    Parameters
    ----------
    x : array_like
    xp, fp : array_like
        Points: one-dimensional, of one length, ``xp`` increasing. Each chunk of ``x`` reads all of
        them.
    left, right : number, optional
        Values outside; default the first and the last of ``fp``.
    period : number, optional
        Period of ``x``; ``xp`` need not increase then.

    Raises
    ------
    ValueError
        ``xp`` and ``fp`` differ in length, are empty or have several axes; ``period`` is zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.interp([0, 1.5, 4], [1, 2, 3], [3, 2, 0])
    Array([3. , 2.5, 0. ], dtype=float64)
    """
    at = strict_operand(x)
    places, values = strict_operand(xp), strict_operand(fp)
    dtype = np.dtype(np.complex128 if values.dtype.kind == "c" else np.float64)
    for node, wanted in ((at, np.float64), (places, np.float64), (values, dtype)):
        if not np.can_cast(node.dtype, wanted, "safe"):
            raise TypeError(
                f"Cannot cast array data from {node.dtype!r} to {np.dtype(wanted)!r} according to "
                "the rule 'safe'"
            )
    if places.ndim != 1 or values.ndim != 1:
        raise ValueError("Data points must be 1-D sequences" if period is not None else
                         "object too deep for desired array")  # fmt: skip
    if places.size != values.size:
        raise ValueError("fp and xp are not of the same length.")
    if not places.size:
        raise ValueError("array of sample points is empty")
    if period is not None:
        if period == 0:
            raise ValueError("period must be a non-zero value")
        at, places, values = _periodic(at, places, values, abs(period))
        left = right = None
    ends = [value.item() if isinstance(value, Array | np.ndarray | np.generic) else value
            for value in (left, right)]  # fmt: skip
    single = [rechunk(cast(node, wanted), grids.single(node.shape))
              for node, wanted in ((places, np.float64), (values, dtype))]  # fmt: skip
    inputs = (cast(at, np.float64), *single)
    return Array(make(_INTERP, inputs, tuple(ends), at.shape, dtype, at.chunks))


def _periodic(at: Node, places: Node, values: Node, period: float) -> tuple[Node, Node, Node]:
    """Fold the points into the first period, in order, and repeat one at each end."""
    here: NDArray = evaluate.value(places).astype(np.float64) % period
    order = np.argsort(here)
    here, there = here[order], evaluate.value(values)[order]
    here = np.concatenate([here[-1:] - period, here, here[:1] + period])
    there = np.concatenate([there[-1:], there, there[:1]])
    folded = (Array(cast(at, np.float64)) % period)._node
    return folded, build.leaf(here), build.leaf(there)
