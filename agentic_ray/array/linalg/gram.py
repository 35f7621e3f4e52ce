"""The product of a tall matrix's transpose with itself, in one pass over its chunks.

As a reduction it takes the elementwise chain below it along, cache block by cache block, so that
``z.T @ z`` of a standardised matrix never writes ``z`` to memory.
"""

from __future__ import annotations

from typing import Any

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import Node, make
from agentic_ray.array.core.rewrite import rule
from agentic_ray.array.core.views import PERMUTE, rechunk
from agentic_ray.array.linalg.columns import dagger
from agentic_ray.array.linalg.selfproduct import self_product
from agentic_ray.array.linalg.standardised import standardised_gram
from agentic_ray.array.reducing import add_partials, reduce_op, unchanged

BLOCKED_COLUMNS = 128
"""Up to so many columns a cache block has rows enough for the product to be worth a call."""
GRAM_COLUMNS = 1024
"""With more columns a product is better cut in blocks than summed up whole."""


def _partial(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return self_product(xp, x)


def _partial_of_block(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return xp.matmul(dagger(xp, x), x)


_GRAM = reduce_op("gram", _partial, add_partials, unchanged, 16, cache_blocks=0)
_GRAM_BLOCKED = reduce_op("gram", _partial_of_block, add_partials, unchanged, 16, cache_blocks=2)


def gram(x: Node) -> Node:
    """The conjugate transpose of ``x`` times ``x``."""
    x = rechunk(x, (x.chunks[0], (x.shape[1],)))
    # A matrix that is in memory already is multiplied chunk by chunk: larger calls are quicker.
    fused = x.op.kind in ("map", "create") and x.shape[1] <= BLOCKED_COLUMNS
    shape = (x.shape[1], x.shape[1])
    op = _GRAM_BLOCKED if fused else _GRAM
    return make(op, (x,), ((0,), True), shape, x.dtype, grids.single(shape))


@rule("x.T @ x in one pass", "matmul")
def _transposed_times_itself(node: Node) -> Node | None:
    left, right = node.inputs
    if (
        left.op is PERMUTE
        and left.value is None
        and left.params[0] == (1, 0)
        and left.inputs[0] is right
        and right.dtype == node.dtype
        and right.dtype.kind in "fiu"
        and len(right.chunks[1]) == 1
        and len(right.chunks[0]) > 1
        and right.shape[1] <= GRAM_COLUMNS
    ):
        return standardised_gram(right) or gram(right)
    return None
