"""Reductions of the elements that a mask keeps: NumPy's ``where=``, and those that skip NaN."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from agentic_ray.array.core import standard
from agentic_ray.array.core.build import elementwise, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node, Op
from agentic_ray.array.core.views import broadcast
from agentic_ray.array.reducing import summed


def _keep_kernel(xp: Any, mask: Any, x: Any, fill: Any) -> Any:
    return xp.where(mask, x, xp.asarray(fill, dtype=x.dtype))


_KEEP = Op("kept", "map", _keep_kernel)


def kept(node: Node, mask: Node | None, fill: Any) -> Node:
    """Return ``node`` where ``mask`` holds, elsewhere ``fill``, in the dtype of ``node``."""
    if mask is None:
        return node
    if not isinstance(fill, np.generic):
        fill = np.asarray(fill).astype(node.dtype)[()]
    return elementwise(_KEEP, [mask, node], (fill,))


def _mean_kernel(xp: Any, total: Any, count: Any, dtype: DType) -> Any:
    if xp.any(count == 0):
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=2)
    return standard.cast(xp, xp.true_divide(total, count), dtype)


_MEAN = Op("masked_mean", "map", _mean_kernel, weight=2)


def counted(node: Node, mask: Node | None, axes: tuple[int, ...], keepdims: bool) -> Node:
    """Count the elements of ``node`` over ``axes`` that the mask keeps."""
    if mask is None:
        return strict_operand(np.int64(math.prod([node.shape[axis] for axis in axes])))
    whole = broadcast(mask, node.shape, node.chunks)
    return summed(whole, axes, keepdims, np.dtype(np.int64))


def mean(
    node: Node, mask: Node, axes: tuple[int, ...], keepdims: bool, dtype: DType, wide: DType
) -> Node:
    """Compute the mean over ``axes`` of the elements that ``mask`` keeps, summed in ``wide``."""
    total = summed(cast(kept(node, mask, 0), wide), axes, keepdims, wide)
    return elementwise(_MEAN, [total, counted(node, mask, axes, keepdims)], (dtype,))


def _square_kernel(xp: Any, x: Any, centre: Any, dtype: DType) -> Any:
    off = standard.cast(xp, x - centre, dtype)
    return xp.real(off * xp.conj(off)) if dtype.kind == "c" else off * off


_SQUARE = Op("squared_deviation", "map", _square_kernel, weight=2)


def _spread_kernel(
    xp: Any, total: Any, count: Any, lost: float, root: bool, nan_if_none: bool
) -> Any:
    if xp.any(count <= lost):
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=2)
    free = count - lost
    result = standard.cast(
        xp, xp.true_divide(total, xp.where(free > 0, free, xp.zeros_like(free))), total.dtype
    )
    if nan_if_none:
        result = xp.where(free > 0, result, xp.asarray(np.nan, dtype=result.dtype))
    return xp.sqrt(result) if root else result


_SPREAD = Op("masked_spread", "map", _spread_kernel, weight=2)


def spread(
    node: Node,
    mask: Node | None,
    axes: tuple[int, ...],
    keepdims: bool,
    wide: DType,
    centre: Node | None,
    lost: float,
    root: bool,
    *,
    nan_if_none: bool = False,
) -> Node:
    """Compute the variance over ``axes`` of the elements that ``mask`` keeps, or its root.

    Parameters
    ----------
    centre : Node or None
        The mean, with the axes kept; None: computed.
    lost : float
        Number subtracted from the number of elements.
    nan_if_none : bool
        Whether to give NaN where no degree of freedom is left; else the sum is divided by zero.
    """
    if centre is None:
        assert mask is not None
        centre = mean(node, mask, axes, True, wide, wide)
    squares = elementwise(_SQUARE, [node, centre], (wide,))
    real = np.empty(0, wide).real.dtype
    total = summed(kept(squares, mask, 0), axes, keepdims, real)
    count = counted(node, mask, axes, keepdims)
    return elementwise(_SPREAD, [total, count], (lost, root, nan_if_none))
