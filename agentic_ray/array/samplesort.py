"""Sorting a long vector chunk by chunk, into chunks of exactly the lengths wanted.

Chunks are sorted into runs, and the elements are found between which each chunk of the result lies
(`ranks`). With few runs each chunk of the result is merged from its part of every run. With many
runs the number of parts would be the square of the number of chunks, and they are exchanged in
stages (`exchange`): the number of tasks, and of their inputs, grows as c log c. The functions for
users are in ``sorting`` and ``quantiles``.

References
----------
P. J. Varman et al., "Merging multiple lists on hierarchical-memory multiprocessors", JPDC 12(2),
1991 (boundaries at exact ranks).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array import exchange
from agentic_ray.array import ranks as ranking
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.ties import order
from agentic_ray.array.exchange import cuts_of
from agentic_ray.array.merging import ascending, merged
from agentic_ray.array.ranks import NOTHING

# --- runs --------------------------------------------------------------------------------


def _taken(xp: Any, x: Any, order: Any) -> Any:
    return x[order]


def _moved(xp: Any, order: Any, start: int) -> Any:
    return order + start


# --- merging few runs --------------------------------------------------------------------


def _merged_runs(
    xp: Any, runs: Sequence[Any], loads: Sequence[Any], bounds: Any, chunk: int
) -> Any:
    """Merge a chunk of the result from its part of every run."""
    spans = [slice(*cuts_of(xp, run, i, bounds, chunk, chunk + 1)) for i, run in enumerate(runs)]
    values = xp.concatenate([run[span] for run, span in zip(runs, spans, strict=True)])
    load = None
    if loads:
        load = xp.concatenate([load[span] for load, span in zip(loads, spans, strict=True)])
    return merged(xp, values, load, len(runs))


# --- sorting -----------------------------------------------------------------------------


def _sort_whole(xp: Any, x: Any, *loads: Any) -> Any:
    kind = loads[-1]
    if len(loads) > 1:
        return loads[0][order(xp, x, kind)]
    return ascending(xp, x) if kind == "values" else order(xp, x, kind)


def _runs(node: Node, lowering: Any) -> tuple[list[Any], list[Any]]:
    """Return sorted runs, and the loads of their elements: none where only values are wanted."""
    source, *carried = node.inputs
    (kind,) = node.params
    blocks = lowering.blocks(source)
    if kind == "values":
        one = [(x,) for x in blocks]
        return lowering.call(
            node, ascending, one, label=".run", flops=lowering.work(node)
        ), []  # fmt: skip
    rows = [(x, kind) for x in blocks]
    orders = lowering.call(
        node, order, rows, label=".order", flops=lowering.work(node),
        written_bytes=source.size * 8,
    )  # fmt: skip
    rows = list(zip(blocks, orders, strict=True))
    runs = lowering.call(node, _taken, rows, label=".run", written_bytes=source.nbytes)
    if carried:
        rows = list(zip(lowering.blocks(carried[0]), orders, strict=True))
        return runs, lowering.call(node, _taken, rows, label=".load")
    starts = grids.offsets(source.chunks[0])
    rows = list(zip(orders, starts[:-1], strict=True))
    return runs, lowering.call(node, _moved, rows, label=".load")


def _lower_sample_sort(node: Node, lowering: Any) -> list[Any]:
    lengths = list(node.chunks[0])
    runs, loads = _runs(node, lowering)
    if len(runs) == 1:
        return loads or runs
    found = ranking.summary(node, lowering, runs, node.inputs[0].chunks[0])
    if len(runs) <= exchange.MOST_RUNS:
        wanted = grids.offsets(lengths)[1:-1]
        parts = ranking.exact(node, lowering, runs, found, wanted)
        bounds = lowering.call(node, _all_bounds, [(parts,)], label=".bounds", **NOTHING)[0]
        rows = [(runs, loads, bounds, chunk) for chunk in range(len(lengths))]
        return list(lowering.call(node, _merged_runs, rows, label=".merge"))
    edges = exchange.destinations(lengths, len(runs))
    bounds, off = ranking.near(node, lowering, found, edges[1:-1])
    stages = exchange.Exchange(node, lowering, node.dtype.itemsize if loads else 0, bounds)
    return exchange.put_right(node, lowering, stages.from_runs(runs, loads, edges), edges, off)


def _all_bounds(xp: Any, parts: Sequence[Any]) -> Any:
    return tuple([xp.concatenate([part[i] for part in parts]) for i in range(3)])


_SAMPLE_SORT = Op(
    "sample_sort", "tasks", _sort_whole, _lower_sample_sort, weight=32, holds_inputs=True
)


def sorted_chunks(node: Node) -> Node:
    """Sort a vector of several non-empty chunks upwards."""
    return make(_SAMPLE_SORT, (node,), ("values",), node.shape, node.dtype, node.chunks)


def sorting_positions(node: Node, *, stable: bool = True) -> Node:
    """Return the positions that sort a vector of several non-empty chunks."""
    kind = "stable" if stable else "quicksort"
    return make(_SAMPLE_SORT, (node,), (kind,), node.shape, np.dtype(np.int64), node.chunks)


def sorted_by(keys: Node, node: Node) -> Node:
    """Return the elements of ``node`` in the order that sorts ``keys``; both are vectors of the
    same non-empty chunks."""
    return make(_SAMPLE_SORT, (keys, node), ("stable",), node.shape, node.dtype, node.chunks)


# --- selecting ---------------------------------------------------------------------------


def _flat_run(xp: Any, x: Any) -> Any:
    return ascending(xp, xp.reshape(x, -1))


def _select_whole(xp: Any, x: Any, wanted: Sequence[int]) -> Any:
    return _flat_run(xp, x)[xp.asarray(wanted) - 1]


def _lower_selection(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    (wanted,) = node.params
    sizes = [math.prod(block) for block in itertools.product(*source.chunks)]
    blocks = zip(lowering.blocks(source), sizes, strict=True)
    rows = [(block,) for block, size in blocks if size]
    runs = lowering.call(
        node, _flat_run, rows, label=".run", written_bytes=source.nbytes, flops=lowering.work(node)
    )
    return [ranking.values(node, lowering, runs, [size for size in sizes if size], wanted)]


_SELECT = Op("select_ranks", "tasks", _select_whole, _lower_selection, weight=32,
             holds_inputs=True)  # fmt: skip


def selected(node: Node, wanted: tuple[int, ...]) -> Node:
    """Return the elements of some ranks, counted from 1, among all those of ``node``, NaN last."""
    shape = (len(wanted),)
    return make(_SELECT, (node,), (wanted,), shape, node.dtype, grids.single(shape))
