"""Gathers elements at positions that are known when the plan is made, chunk by chunk.

A chunk of the result that takes from few chunks is put together from these. If it takes from many,
as with positions in random order, every task would be given every chunk. There the elements go in
stages instead: a task of a stage picks from a few values the elements that a group of chunks of the
result needs of them. So the number of tasks, and of their inputs, grows as c log c.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import Held, NDArray, Node, Op, make
from agentic_ray.array.exchange import even_spans, groups_of, width_of

DIRECT_BLOCKS = 64
"""Most values from which a chunk of the result is made in one task."""


def gather(node: Node, axes: tuple[int, ...], arrays: Sequence[NDArray]) -> Node:
    """Return the elements at positions ``arrays`` (flattened) along ``axes``, which must be
    consecutive; in the result the first of them stands for all."""
    count = arrays[0].size
    flat = tuple([np.ascontiguousarray(array.reshape(-1)) for array in arrays])
    at = axes[0]
    rest = node.shape[:at], node.shape[at + len(axes) :]
    shape = (*rest[0], count, *rest[1])
    per_row = math.prod([max(c) for a, c in enumerate(node.chunks) if a not in axes])
    limit = max(1, grids.rules().elements(node.dtype) // max(per_row, 1))
    chunks = (*node.chunks[:at], grids.regular(count, limit), *node.chunks[at + len(axes) :])
    return make(_GATHER, (node,), (at, len(axes), Held(flat)), shape, node.dtype, chunks)


# --- kernels -----------------------------------------------------------------------------


def _gather_kernel(xp: Any, x: Any, at: int, width: int, held: Held) -> Any:
    return x[(slice(None),) * at + tuple([xp.asarray(array) for array in held.value])]


def _picked(xp: Any, block: Any, positions: Any, at: int) -> Any:
    if len(positions) == 1:
        return xp.take(block, xp.asarray(positions[0]), axis=at)
    return block[(slice(None),) * at + tuple([xp.asarray(p) for p in positions])]


def _gathered(xp: Any, blocks: Sequence[Any], parts: Any, at: int, count: int) -> Any:
    """Put rows of several blocks in their places."""
    if len(blocks) == 1:
        return _picked(xp, blocks[0], parts[0][1], at)
    out: Any = None
    for block, (places, positions) in zip(blocks, parts, strict=True):
        values = _picked(xp, block, positions, at)
        if out is None:
            shape = (*values.shape[:at], count, *values.shape[at + 1 :])
            out = xp.empty(shape, dtype=values.dtype)
        out[(*(slice(None),) * at, xp.asarray(places))] = values
    return out


def _picked_of_several(xp: Any, blocks: Sequence[Any], parts: Sequence[Any], at: int) -> Any:
    """Put rows of several blocks one after the other."""
    made = [_picked(xp, block, part, at) for block, part in zip(blocks, parts, strict=True)]
    return made[0] if len(made) == 1 else xp.concatenate(made, axis=at)


# --- plans -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Elements of one value that a chunk of the result needs.

    Parameters
    ----------
    value : int
        Number of the value.
    places : array
        Places of the elements in the chunk, in rising order.
    positions : tuple of arrays
        Positions of the elements in the value: an array for each axis that is gathered along.
    """

    value: int
    places: NDArray
    positions: tuple[NDArray, ...]


Row = tuple[list[int], list[tuple[NDArray, ...]]]
"""A value of a stage: the values that elements are picked from, and their positions in each."""


def _wanted(node: Node, source: Node) -> list[list[_Wanted]]:
    """Return the elements that each chunk of the result, along the gathered axis, needs by
    block."""
    at, width, held = node.params
    starts = [np.asarray(grids.offsets(source.chunks[at + i])) for i in range(width)]
    counts = [len(source.chunks[at + i]) for i in range(width)]
    plans: list[list[_Wanted]] = []
    for low, high in itertools.pairwise(grids.offsets(node.chunks[at])):
        positions = [array[low:high] for array in held.value]
        if low == high:
            plans.append([_Wanted(0, np.arange(0), tuple(positions))])
            continue
        homes = [np.searchsorted(s, p, side="right") - 1 for s, p in
                 zip(starts, positions, strict=True)]  # fmt: skip
        local = [p - s[h] for p, s, h in zip(positions, starts, homes, strict=True)]
        flat = np.ravel_multi_index(homes, counts)
        order = np.argsort(flat, kind="stable")
        blocks, first = np.unique(flat[order], return_index=True)
        parts = [
            _Wanted(int(block), places, tuple([p[places] for p in local]))
            for block, places in zip(blocks, np.split(order, first[1:]), strict=True)
        ]
        plans.append(parts)
    return plans


def _stage(
    plans: Sequence[list[_Wanted]], width: int, level: int, most: int
) -> tuple[list[Row], list[list[_Wanted]]]:
    """Pick values from about ``width`` others for groups of chunks; return these values and the
    elements that each chunk then needs of them. With more than ``most`` elements none is in a value
    twice."""
    rows: list[Row] = []
    result: list[list[_Wanted]] = []
    for first, last in even_spans(0, len(plans), width ** (level + 1)):
        known = sorted({part.value for chunk in range(first, last) for part in plans[chunk]})
        groups = groups_of(len(known), width, level)
        home = {known[i]: number for number, group in enumerate(groups) for i in group}
        asked: list[dict[int, list[tuple[int, _Wanted]]]] = [{} for _ in groups]
        for chunk in range(first, last):
            for part in plans[chunk]:
                asked[home[part.value]].setdefault(part.value, []).append((chunk, part))
        made: list[list[_Wanted]] = [[] for _ in range(first, last)]
        for group in asked:
            row, wanted = _row(group, len(rows), most)
            rows.append(row)
            for chunk, part in wanted:
                made[chunk - first].append(part)
        result += made
    return rows, result


def _row(
    group: dict[int, list[tuple[int, _Wanted]]], number: int, most: int
) -> tuple[Row, list[tuple[int, _Wanted]]]:
    """Make the value with this number from the elements that chunks need of some others; return it
    and the elements that they need of it."""
    once = sum(part.places.size for parts in group.values() for _, part in parts) > most
    start = 0
    picked: list[tuple[NDArray, ...]] = []
    found: dict[int, list[tuple[NDArray, NDArray]]] = {}
    for parts in group.values():
        together = [np.concatenate(axis) for axis in
                    zip(*[part.positions for _, part in parts], strict=True)]  # fmt: skip
        at = np.arange(together[0].size)
        if once:
            unique, at = np.unique(np.stack(together), axis=1, return_inverse=True)
            together = list(unique)
        picked.append(tuple(together))
        ends = np.cumsum([part.places.size for _, part in parts])[:-1]
        for (chunk, part), own in zip(parts, np.split(at + start, ends), strict=True):
            found.setdefault(chunk, []).append((part.places, own))
        start += together[0].size
    wanted: list[tuple[int, _Wanted]] = []
    for chunk, pairs in found.items():
        places, own = (np.concatenate(side) for side in zip(*pairs, strict=True))
        order = np.argsort(places)
        wanted.append((chunk, _Wanted(number, places[order], (own[order],))))
    return (list(group), picked), wanted


def _lower_gather(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    at, width, _ = node.params
    values = lowering.blocks(source)
    grid = grids.numblocks(node.chunks)
    ahead, behind = grid[:at], grid[at + 1 :]
    lanes = {place: i for i, place in enumerate(np.ndindex(*ahead, *behind))}
    order = np.arange(len(values)).reshape(grids.numblocks(source.chunks))
    order = np.moveaxis(order, range(at, at + width), range(width)).reshape(-1, len(lanes))
    plans = _wanted(node, source)
    # The values to pick from, per lane of blocks: blocks that differ only along the gathered axes.
    held = [[values[i] for i in order[:, lane].tolist()] for lane in range(len(lanes))]
    level = 0
    step = width_of(len(held[0]))
    while max(len(parts) for parts in plans) > DIRECT_BLOCKS:
        stage, plans = _stage(plans, step, level, 8 * max(node.chunks[at]))
        picks = [
            ([lane[i] for i in numbers], positions, at)
            for lane in held
            for numbers, positions in stage
        ]
        made = lowering.call(node, _picked_of_several, picks, label=f".stage{level}")
        each = len(stage)
        held = [made[i : i + each] for i in range(0, len(made), each)]
        level += 1
    rows = []
    for place in np.ndindex(*grid):
        parts = plans[place[at]]
        lane = held[lanes[(*place[:at], *place[at + 1 :])]]
        own = [(part.places, part.positions) for part in parts]
        rows.append(([lane[part.value] for part in parts], own, at, node.chunks[at][place[at]]))
    return list(lowering.call(node, _gathered, rows))


_GATHER = Op("gather", "tasks", _gather_kernel, _lower_gather)
