"""The Gram matrix of standardised columns, ``z.T @ z`` of ``z = (x - mean) / std``, in one pass.

About any shift s, with d = mean - s and n rows,

    sum (x_i - mean_i)(x_j - mean_j) = sum (x_i - s_i)(x_j - s_j) - n d_i d_j,

and its diagonal is n times the variances: so mean, deviation and product come out of one pass,
about zero or, where the first rows are far from it, about their mean. The difference cancels
digits where a mean is many deviations away from its shift. With k the largest |d_i| / std_i the
rounding error of the sums counts up to 1 + 2 k^2 times; where k is above `FAR`, which is known
after the pass, a second one goes about the mean itself.

References
----------
T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance: analysis and
recommendations", The American Statistician 37(3), 1983 (shifted data; the correction by what the
deviations from a rounded mean add up to).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import BLOCK_ELEMENTS, Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.statistics import MEAN, VAR, add_partials
from agentic_ray.graph import CostHint, Tag, tree_reduce

FAR = 2.0
"""Deviations from shift to mean up to which one pass will do: an error 1 + 2 * 4 times as large
as about the mean, less than a decimal digit."""
SAMPLE_ROWS = 4096
"""Rows at the beginning that the shift is taken from."""
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


def _moments(xp: Any, block: Any, shift: Any) -> Any:
    """The product with itself of ``block - shift``, and below it the sums of the columns.

    A ``shift`` of no elements stands for zeros: then nothing is subtracted.
    """
    length, columns = block.shape
    at_once = 2 * BLOCK_ELEMENTS // columns if xp is np else length
    ones = xp.ones(min(length, at_once), block.dtype)
    scratch = xp.empty((ones.shape[0], columns), block.dtype) if shift.size else None
    total = xp.zeros((columns + 1, columns), block.dtype)
    # One buffer and one total for all cache blocks: what is not allocated anew costs no page
    # faults, and threads wait less for each other.
    own = xp.empty_like(total)
    for start in range(0, length, at_once):
        part = block[start : start + at_once]
        if scratch is not None:
            part = xp.subtract(part, shift, out=scratch[: part.shape[0]])
        # The sums first: they fetch what the product reuses.
        total[columns] += xp.matmul(ones[: part.shape[0]], part, out=own[columns])
        total[:columns] += xp.matmul(part.T, part, out=own[:columns])
    return total


def _shift(xp: Any, block: Any) -> Any:
    sample = block[:SAMPLE_ROWS]
    nothing = sample[0, :0]
    mean = _mean_if_far(xp, _moments(xp, sample, nothing), nothing, sample.shape[0])
    return mean if xp.all(xp.isfinite(mean)) else nothing


def _mean_if_far(xp: Any, moments: Any, shift: Any, count: int) -> Any:
    """The mean if it is far from the shift that ``moments`` are about; else nothing."""
    with np.errstate(all="ignore"):
        off = moments[-1] / count
        squares = off * off
        variance = xp.diagonal(moments) / count - squares
        near = bool(xp.all(squares <= FAR**2 * variance))
    return off[:0] if near else shift + off if shift.size else off


def _moments_if(xp: Any, block: Any, mean: Any) -> Any:
    """About the mean, if there is one."""
    return _moments(xp, block, mean) if mean.size else mean


def _scaled(xp: Any, moments: Any, again: Any, count: int, correction: float) -> Any:
    if again.size:
        moments = again
    with np.errstate(all="ignore"):
        off = moments[-1] / count
        product = moments[:-1] - count * (off[:, None] * off)
        std = xp.sqrt(xp.diagonal(product) / max(count - correction, 0))
        return product / (std[:, None] * std)


def _whole(xp: Any, x: Any, correction: float) -> Any:
    shift = _shift(xp, x)
    moments = _moments(xp, x, shift)
    mean = _mean_if_far(xp, moments, shift, x.shape[0])
    return _scaled(xp, moments, _moments_if(xp, x, mean), x.shape[0], correction)


def _lower(node: Node, lowering: Any) -> list[Any]:
    (x,) = node.inputs
    (correction,) = node.params
    count = x.shape[0]
    blocks = lowering.blocks(x)
    small = {"read_bytes": node.nbytes, "written_bytes": node.nbytes}
    every = {"written_bytes": node.nbytes * len(blocks)}

    def added(partial: list[Any]) -> Any:
        tag: Tag = "gpu" if node.device == "gpu" else "any"
        combine = codelet("gram.combine", add_partials)
        keys = [ref.key for ref in partial]
        tasks, root = tree_reduce(keys, combine, tag=tag, cost=CostHint(items=0))
        lowering.tasks += tasks
        return type(partial[0])(root)

    (shift,) = lowering.call(node, _shift, [(blocks[0],)], label=".shift", **small)
    flops = 2.0 * x.size * x.shape[1]
    rows = [(block, shift) for block in blocks]
    moments = added(lowering.call(node, _moments, rows, label=".moments", flops=flops, **every))
    (mean,) = lowering.call(
        node, _mean_if_far, [(moments, shift)], params=(count,), label=".check", **small
    )
    rows = [(block, mean) for block in blocks]
    again = added(lowering.call(node, _moments_if, rows, label=".again", **every))
    return list(
        lowering.call(node, _scaled, [(moments, again)], params=(count, correction), **small)
    )


_GRAM = Op("standardised_gram", "tasks", _whole, _lower, weight=16)
