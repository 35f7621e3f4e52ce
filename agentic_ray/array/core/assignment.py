"""Assigning to a region of an array: a node for the array as it is afterwards.

A loop that assigns to one element after the other makes a long chain of such nodes. Where nobody
looks at the array in between, all assignments to a chunk are made together, on one copy of it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import NDArray, Node, Op, data, make
from agentic_ray.array.core.views import (
    AxisIndex,
    as_key,
    broadcast,
    local_indices,
    rechunk,
    sliced,
)


def assigned(node: Node, index: tuple[AxisIndex, ...], value: Node) -> Node:
    """``node`` with ``value``, which broadcasts to the region, put where ``index`` says."""
    region = sliced(node, index)
    skip = region.ndim - value.ndim
    wanted = tuple(
        [
            region.chunks[skip + axis] if length == region.shape[skip + axis] else (length,)
            for axis, length in enumerate(value.shape)
        ]
    )
    if region.size == 0:
        return node
    if node.small and node.value is not None:
        node = data(node.value, node.chunks, node.device)  # how it was made matters no more
    return make(
        ASSIGN, (node, rechunk(value, wanted)), (index,), node.shape, node.dtype, node.chunks
    )


def _assign_kernel(xp: Any, x: Any, value: Any, index: tuple[AxisIndex, ...]) -> Any:
    return _assign_each(xp, x, [value], [index])


def _assign_each(
    xp: Any, x: Any, values: Sequence[Any], indices: Sequence[tuple[AxisIndex, ...]]
) -> Any:
    """A copy of ``x`` with each value put where its index says, one after the other."""
    out = xp.array(x)
    for value, index in zip(values, indices, strict=True):
        out[as_key(index)] = value
    return out


def folded(order: Sequence[Node], roots: Container[Node]) -> set[Node]:
    """Assignments of ``order``, listed in a valid order, of which only the next assignment to the
    same array makes use: the array need not be made as it is in between."""
    if not any(node.op is ASSIGN for node in order):
        return set()
    users = Counter(source for node in order if node.value is None for source in node.inputs)
    return {
        node.inputs[0]
        for node in order
        if node.op is ASSIGN
        and node.value is None
        and (before := node.inputs[0]).op is ASSIGN
        and before.value is None
        and before not in roots
        and users[before] == 1
    }


def assignments_under(node: Node, folded: Container[Node]) -> list[Node]:
    """``node``, an assignment, and those to the same array before it that are ``folded`` into
    it, the first one first."""
    chain = [node]
    while (before := chain[-1].inputs[0]) in folded:
        chain.append(before)
    return chain[::-1]


def _lower_assign(node: Node, lowering: Any) -> list[Any]:
    chain = assignments_under(node, lowering.folded)
    source = chain[0].inputs[0]
    blocks = list(lowering.blocks(source))
    changes: dict[int, tuple[list[Any], list[tuple[AxisIndex, ...]]]] = {}
    for step in chain:
        for block, piece, index in _pieces(step, lowering):
            values, indices = changes.setdefault(block, ([], []))
            values.append(piece)
            indices.append(index)
    size = max(source.nbytes // max(source.blocks, 1), 1)
    longest = max((len(values) for values, _ in changes.values()), default=0)
    for start in range(0, longest, ASSIGNMENTS):
        rows = {
            block: (blocks[block], values[start : start + ASSIGNMENTS],
                    indices[start : start + ASSIGNMENTS])
            for block, (values, indices) in changes.items() if len(values) > start
        }  # fmt: skip
        made = lowering.call(
            node, _assign_each, rows.values(), label=f".run{start}" if start else "",
            read_bytes=size * len(rows), written_bytes=size * len(rows),
        )  # fmt: skip
        for block, ref in zip(rows, made, strict=True):
            blocks[block] = ref
    return blocks


def _pieces(node: Node, lowering: Any) -> Iterator[tuple[int, Any, tuple[AxisIndex, ...]]]:
    """Yield the changes of one assignment: the number of a block, the piece of the value that is
    put in it, and the index within the block."""
    source, value = node.inputs
    pieces = lowering.blocks(value)
    steps = grids.strides(grids.numblocks(source.chunks))
    counts = grids.numblocks(value.chunks)
    value_steps = grids.strides(counts)
    per_axis = [
        local_indices(lengths, entry)
        for lengths, entry in zip(source.chunks, node.params[0], strict=True)
    ]
    kept = [axis for axis, entry in enumerate(node.params[0]) if entry[0] == "s"]
    kept = kept[len(kept) - value.ndim :] if value.ndim else []
    for places in itertools.product(*[range(len(axis)) for axis in per_axis]):
        parts = [axis[place] for axis, place in zip(per_axis, places, strict=True)]
        piece = sum(
            places[axis] * step
            for axis, step, n in zip(kept, value_steps, counts, strict=True)
            if n > 1
        )
        block = sum(part[0] * step for part, step in zip(parts, steps, strict=True))
        yield block, pieces[piece], tuple([part[1] for part in parts])


ASSIGN = Op("assign", "tasks", _assign_kernel, _lower_assign)
ASSIGNMENTS = 256
"""Assignments to a chunk that one task makes; a longer run of them takes several tasks."""


def pending(node: Node) -> list[Node]:
    """``node``, an assignment, and those to the same array right before it of which the array is
    not known, the first one first."""
    chain = [node]
    while (before := chain[-1].inputs[0]).op is ASSIGN and before.value is None:
        chain.append(before)
    return chain[::-1]


def operands_of(chain: Sequence[Node]) -> list[Node]:
    """Return the operands of a run of assignments to one array: the array before, and the
    values."""
    return [chain[0].inputs[0], *[step.inputs[1] for step in chain]]


def assigned_together(chain: Sequence[Node]) -> NDArray:
    """The array, in one piece, after a run of assignments of which all operands are known."""
    before, *values = [source.value for source in operands_of(chain)]
    found: NDArray = _assign_each(np, before, values, [step.params[0] for step in chain])
    return found


# --- reading after assignments -----------------------------------------------------------


def selected(node: Node, index: tuple[AxisIndex, ...]) -> Node:
    """``node`` indexed by integers and slices, one for each axis; what was assigned to it is read
    from its value, and the rest from what was there before. So a loop that reads what it wrote
    has no use for each state of the array."""
    source = node
    while source.op is ASSIGN and source.value is None:
        before, value = source.inputs
        region: tuple[AxisIndex, ...] = source.params[0]
        overlap = _overlap(index, region)
        if overlap == "none":
            source = before
        elif overlap == "all":
            inner = tuple(
                [_within(*pair) for pair in zip(index, region, strict=True) if pair[1][0] == "s"]
            )
            return sliced(broadcast(value, *_region_of(source)), inner)
        else:
            break
    return sliced(source, index)


def _region_of(node: Node) -> tuple[Shape, Chunks]:
    """Shape and chunks of what an assignment assigns to."""
    region = sliced(node.inputs[0], node.params[0])
    return region.shape, region.chunks


def _range(entry: AxisIndex) -> range:
    """The positions of one axis that an index selects, ascending."""
    if entry[0] == "i":
        return range(entry[1], entry[1] + 1)
    _, start, count, step = entry
    found = range(start, start + count * step, step)
    return found if step > 0 else found[::-1]


def _overlap(index: tuple[AxisIndex, ...], region: tuple[AxisIndex, ...]) -> str:
    """Say how much of the selection of ``index`` the ``region`` covers: ``"all"``, ``"some"`` or
    ``"none"``, where ``"some"`` may be none or all."""
    result = "all"
    for one, other in zip(index, region, strict=True):
        if one[0] == other[0] == "i":  # by far the most frequent: a loop over elements
            if one[1] != other[1]:
                return "none"
            continue
        wanted, there = _range(one), _range(other)
        if not wanted or not there or wanted[-1] < there[0] or there[-1] < wanted[0]:
            return "none"
        if (wanted[0] - there[0]) % math.gcd(wanted.step, there.step):
            return "none"
        inside = wanted[0] in there and wanted[-1] in there
        dense = len(wanted) == 1 or not wanted.step % there.step
        if not inside or not dense or other[0] == "i":
            result = "some"
    return result


def _within(one: AxisIndex, other: AxisIndex) -> AxisIndex:
    """Return the selection of ``one``, all of it selected by ``other``, as an index of the
    latter."""
    _, start, _, step = other
    if one[0] == "i":
        return ("i", (one[1] - start) // step)
    _, begin, count, stride = one
    return ("s", (begin - start) // step, count, stride // step)
