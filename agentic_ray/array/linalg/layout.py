"""Chooses how the product of two matrices is cut in blocks: the least predicted seconds decide.
Pure.

Each block of the result needs a row of blocks of the left and a column of blocks of the right
operand. So with few, large blocks of the result the operands are read less often. The inner axis,
cut and summed in a tree, gives work to the other slots.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from agentic_ray.array.core.chunks import Chunks, regular
from agentic_ray.schedule.calibration import Calibration

FOLDING_BLOCKS = 8
"""With at least so many blocks of the result there is work for all slots without cutting sums
apart: one task adds up all products of a block, from left to right."""
CUTTING_BLOCKS = 4
"""With at least so many blocks of the result, operands that are cut differently along the inner
axis are used as they are: a task cuts views, while one common cut would need a copy of one
operand."""
WORTH_SECONDS = 0.1
WORTH_SHARE = 0.7
"""Another layout than the operands' own is chosen only if theirs takes longer than
``WORTH_SECONDS``, and the other less than this share of it: predictions are not exact."""
MOST_CHUNKS_A_TASK = 16
"""Number of chunks that one task reads and writes."""

Lengths = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Cuts of both operands: ``left`` in (rows, inner), ``right`` in (inner, columns)."""

    left: tuple[Lengths, Lengths]
    right: tuple[Lengths, Lengths]

    @property
    def folds(self) -> bool:
        """Whether one task makes a block of the result."""
        return len(self.left[0]) * len(self.right[1]) >= FOLDING_BLOCKS


def own(left: Chunks, right: Chunks, left_bytes: int, right_bytes: int, blocks: int) -> Layout:
    """Return the operands' own cuts. If the result has few ``blocks``, both get the larger
    operand's cut along the inner axis."""
    inner = left[-1], right[-2]
    if blocks < CUTTING_BLOCKS or not sum(left[-1]):
        inner = (inner[0],) * 2 if left_bytes >= right_bytes else (inner[1],) * 2
    return Layout((left[-2], inner[0]), (inner[1], right[-1]))


@functools.lru_cache(maxsize=64)
def chosen(
    left: Chunks, right: Chunks, itemsize: int, chunk_elements: int, rates: Calibration
) -> Layout:
    """Choose the layout of the product of two matrices with these chunks.

    Parameters
    ----------
    itemsize : int
        Bytes of an element.
    chunk_elements : int
        Wanted elements of a chunk.
    rates : Calibration
        Rates of computing and moving. They must not be measured, so that bits are the same on every
        cluster.
    """
    m, k, n = sum(left[0]), sum(left[1]), sum(right[1])
    blocks = len(left[0]) * len(right[1])
    usual = own(left, right, m * k, k * n, blocks)
    limit = seconds(usual, left, right, itemsize, rates)
    if limit <= WORTH_SECONDS:
        return usual
    best, least = usual, limit * WORTH_SHARE
    for layout in _others(left, right, chunk_elements):
        if _task_elements(layout, k) <= MOST_CHUNKS_A_TASK * chunk_elements:
            found = seconds(layout, left, right, itemsize, rates)
            if found < least:
                best, least = layout, found
    return best


def _others(left: Chunks, right: Chunks, chunk_elements: int) -> Iterator[Layout]:
    m, k, n = sum(left[0]), sum(left[1]), sum(right[1])
    side = math.isqrt(chunk_elements)
    rows = dict.fromkeys([left[0], regular(m, side), (m,)])
    columns = dict.fromkeys([right[1], regular(n, side), (n,)])
    for row, column in itertools.product(rows, columns):
        fits = regular(k, max(1, chunk_elements // max(*row, *column)))
        for inner in dict.fromkeys([left[1], right[0], fits]):
            yield Layout((row, inner), (inner, column))


def _task_elements(layout: Layout, k: int) -> int:
    """Return the most elements that one task reads and makes."""
    row, column = max(layout.left[0]), max(layout.right[1])
    inner = k if layout.folds else max(layout.left[1])
    return row * inner + inner * column + 2 * row * column


def seconds(
    layout: Layout, left: Chunks, right: Chunks, itemsize: int, rates: Calibration
) -> float:
    """Predict the seconds of a product in this layout: its parts work side by side as far as the
    operands are cut (they are cut for the slots there are)."""
    (rows, inner), (_, columns) = layout.left, layout.right
    m, k, n = sum(rows), sum(inner), sum(columns)
    blocks = len(rows) * len(columns)
    pieces = 1 if layout.folds else len(inner)
    read = len(columns) * m * k + len(rows) * k * n
    written = m * n * (pieces + 3 * (pieces - 1))  # a sum in a tree reads two and writes one
    moved = m * k * (layout.left != left) + k * n * (layout.right != right)
    cuts = max(len(left[0]) * len(left[1]), len(right[0]) * len(right[1]))
    work = (
        2.0 * m * k * n / rates.cpu_flops_per_second
        + (read + written) * itemsize / rates.cpu_bytes_per_second
    )
    return work / min(blocks * pieces, cuts) + 2 * moved * itemsize / (
        rates.store_bytes_per_second * cuts
    )
