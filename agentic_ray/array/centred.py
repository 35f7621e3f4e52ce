"""The sum of what column means were subtracted from, in one pass instead of two.

With any partition of the rows of x in blocks, of n_b rows and mean s_b, over the whole of mean m,

    sum_b n_b s_b = n m,   so   sum (f - m) = sum_b sum over b of (f - s_b):

what is added up may be about the mean of its own cache block instead of the mean of all, which is
only known after a pass of its own. Either has, beside the error of the sum, that of the means: at
most as many rounding errors of each as additions went in it, fewer here than in the mean of all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agentic_ray.array.core.node import DType, Node, make
from agentic_ray.array.core.rewrite import rule
from agentic_ray.array.reducing import SUM, add_partials, reduce_op, unchanged
from agentic_ray.array.statistics import MEAN


def _partial(
    xp: Any, x: Any, of: Any, axes: tuple[int, ...], mean_axes: tuple[int, ...], dtype: DType
) -> Any:
    """The sum of ``x`` less the mean of ``of`` over ``mean_axes``."""
    count = math.prod([of.shape[axis] for axis in mean_axes])
    with np.errstate(invalid="ignore"):
        mean = xp.true_divide(xp.sum(of, axis=mean_axes, keepdims=True), count)
        return xp.sum(x - mean, axis=axes, dtype=dtype, keepdims=True)


_CENTRED_SUM = reduce_op(
    "centred_sum", _partial, add_partials, unchanged, weight=4, compiled="centred"
)


@rule("a sum about the means of cache blocks", "sum")
def _sum_about_means(node: Node) -> Node | None:
    if node.op is not SUM:
        return None
    (difference,) = node.inputs
    if difference.op.name != "subtract" or difference.value is not None:
        return None
    x, mean = difference.inputs
    if mean.op is not MEAN or mean.value is not None:
        return None
    (of,) = mean.inputs
    axes, keepdims, dtype = node.params
    if not (
        mean.params[0] == (0,)
        and len(axes) == difference.ndim == of.ndim >= 2
        and difference.blocks > 1
        and x.chunks == of.chunks == difference.chunks
        and x.dtype == of.dtype == mean.dtype == dtype
        and dtype in (np.float64, np.float32)
    ):
        return None
    params = (axes, keepdims, (0,), dtype)
    return make(_CENTRED_SUM, (x, of), params, node.shape, dtype, node.chunks, node.device)
