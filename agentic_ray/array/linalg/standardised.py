"""The Gram matrix of standardised columns, ``z.T @ z`` of ``z = (x - mean) / std``, in one pass.

About any shift s, with d = mean - s and n rows,

    sum (x_i - mean_i)(x_j - mean_j) = sum (x_i - s_i)(x_j - s_j) - n d_i d_j,

and its diagonal is n times the variances: so mean, deviation and product come out of one pass.
Each chunk has a shift of its own, zero or, where its first rows are far from it, their mean. The
difference cancels digits where a mean is many deviations away from its shift. With k the largest
|d_i| / std_i the rounding error of the sums counts up to 1 + 2 k^2 times; where k is above `FAR`,
which is known when the chunk has been gone through, that is done again about the chunk's own mean.
What two sets of rows have around their means is joined as variances are.

References
----------
T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance: analysis and
recommendations", The American Statistician 37(3), 1983 (shifted data; joining two sets).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.linalg.selfproduct import product_and_sums
from agentic_ray.array.statistics import MEAN, VAR, joined_products, scaled_products

FAR = 2.0
"""Deviations from shift to mean up to which one pass will do: an error 1 + 2 * 4 times as large
as about the mean, less than a decimal digit."""
SAMPLE_ROWS = 256
"""Rows at the beginning of a chunk that its shift is taken from."""
MOST_COLUMNS = 128
"""Up to so many columns a cache block has rows enough for the product to be worth a call."""


def standardised_gram(z: Node) -> Node | None:
    """``z.T @ z`` if ``z`` is a matrix in memory with standardised columns, else None."""
    if z.op.name != "divide" or z.value is not None:
        return None
    centred, std = z.inputs
    if centred.op.name != "subtract" or centred.value is not None:
        return None
    x, mean = centred.inputs
    if not (
        mean.op is MEAN
        and std.op is VAR
        and mean.inputs == std.inputs == (x,)
        and mean.params[0] == std.params[0] == (0,)
        and std.params[4]  # the root
        and (x.value is not None or x.op.kind in ("data", "stored"))
        and x.chunks == z.chunks
        and x.shape[1] <= MOST_COLUMNS
        and x.dtype in (np.float64, np.float32)
    ):
        return None
    shape = (x.shape[1], x.shape[1])
    return make(_GRAM, (x,), (std.params[2],), shape, x.dtype, grids.single(shape))


def _are_near(xp: Any, off: Any, variance: Any) -> bool:
    """Whether means are near the shift, or are no numbers: then no shift is of use."""
    squares = off * off
    return bool(xp.all((squares <= FAR**2 * variance) | ~xp.isfinite(squares)))


def _moments(xp: Any, block: Any) -> tuple[Any, Any, Any, int]:
    """The product with itself of ``block`` less its column means, the shift, how far the means
    are from it, and the number of rows."""
    count = block.shape[0]
    with np.errstate(all="ignore"):
        sample = block[:SAMPLE_ROWS]
        off, shift = xp.mean(sample, axis=0), None
        if not _are_near(xp, off, xp.var(sample, axis=0)):
            shift = xp.where(xp.isfinite(off), off, 0).astype(block.dtype, copy=False)
        for again in (False, True):
            products, sums = product_and_sums(xp, block, shift)
            off = sums / count
            products = products - count * (off[:, None] * off)
            if again or _are_near(xp, off, xp.diagonal(products) / count):
                break
            mean = off if shift is None else shift + off
            shift = xp.where(xp.isfinite(mean), mean, 0).astype(block.dtype, copy=False)
    return products, xp.zeros_like(off) if shift is None else shift, off, count


def _whole(xp: Any, x: Any, correction: float) -> Any:
    return scaled_products(xp, _moments(xp, x), correction)


def _lower(node: Node, lowering: Any) -> list[Any]:
    (x,) = node.inputs
    (correction,) = node.params
    rows = [(block,) for block in lowering.blocks(x)]
    made = lowering.call(
        node, _moments, rows, label=".moments", flops=2.0 * x.size * x.shape[1],
        written_bytes=node.nbytes * len(rows),
    )  # fmt: skip
    moments = lowering.tree(node, made, codelet("gram.combine", joined_products), ".joined")
    small = {"read_bytes": node.nbytes, "written_bytes": node.nbytes}
    return list(lowering.call(node, scaled_products, [(moments,)], params=(correction,), **small))


_GRAM = Op("standardised_gram", "tasks", _whole, _lower, weight=16)
