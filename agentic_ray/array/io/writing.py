"""Writes an array chunk by chunk: one task writes each chunk where it was computed.

The modules of the formats put a chunk into a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.node import NDArray, Node, Op, make
from agentic_ray.array.core.program import Call
from agentic_ray.array.io.reading import Region
from agentic_ray.errors import SourceError
from agentic_ray.graph import Codelet, CostHint


class Target(Protocol):
    """A store that has its full shape already and takes regions of it from any process."""

    @property
    def serial(self) -> bool:
        """Whether only one process may write at a time."""
        ...

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        """Write a region: a block of each array that is written."""
        ...


def written(target: Target, *arrays: Any) -> None:
    """Write every chunk of arrays of one shape and in the same chunks to ``target``.

    Raises
    ------
    SourceError
        Fewer elements arrived than the arrays have.
    OSError
        A chunk could not be written.
    """
    all_written([(target, arrays)])


def all_written(jobs: Sequence[tuple[Target, Sequence[Any]]]) -> None:
    """Write several targets at once, as `written` does: shared parts are computed once."""
    made: list[Node] = []
    for target, arrays in jobs:
        nodes = tuple([strict_operand(x) for x in arrays])
        counts = grids.numblocks(nodes[0].chunks)
        ones = tuple([(1,) * count for count in counts])
        made.append(make(WRITE, nodes, (target,), counts, np.dtype(np.int64), ones))
    for node, counted in zip(made, evaluate.values(made), strict=True):
        found, wanted = int(counted.sum()), node.inputs[0].size
        if found != wanted:
            raise SourceError(f"{node.params[0]} took {found} of {wanted} elements")


def _write_block(xp: Any, blocks: Sequence[Any], region: Region, after: Any, target: Target) -> Any:
    target.write(region, *[np.asarray(block) for block in blocks])
    return np.full((1,) * len(region), blocks[0].size)


def _write_whole(xp: Any, *arguments: Any) -> Any:
    *blocks, target = arguments
    region = tuple([slice(0, n) for n in blocks[0].shape])
    return _write_block(xp, blocks, region, None, target)


def _lower_write(node: Node, lowering: Any) -> list[Any]:
    (target,) = node.params
    # A chunk is never written twice at the same time: an old writer must not meet the renamed file.
    code = Codelet("array.write", Call(_write_block, (target,)), speculative=False)
    rows = list(zip(*[lowering.blocks(source) for source in node.inputs], strict=True))
    size = sum(source.nbytes for source in node.inputs) // max(len(rows), 1) + 1
    cost = CostHint(read_bytes=size, written_bytes=size)
    before: Any = None
    result: list[Any] = []
    regions = grids.block_slices(node.inputs[0].chunks)
    for i, (row, region) in enumerate(zip(rows, regions, strict=True)):
        made = lowering.emit(f"{node.name}/{i}", code, (list(row), region, before), cost)
        before = made if target.serial else None
        result.append(made)
    return result


WRITE = Op("write", "tasks", _write_whole, _lower_write, weight=8)


def in_regular_chunks(x: Array) -> tuple[Array, tuple[int, ...]]:
    """Return ``x`` in chunks of one size, except the last along each axis, and that size."""
    sizes = tuple([max(1, max(lengths)) for lengths in x.chunks])
    return x.rechunk(sizes) if x.ndim else x, sizes


def slabs(x: Array) -> list[Array]:
    """Return ``x`` in parts along its first axis that follow each other in C order."""
    if x.ndim == 0 or x.size == 0:
        return [x]
    ends = list(itertools.accumulate(x.chunks[0]))
    return [x[low:high] for low, high in itertools.pairwise([0, *ends])]
