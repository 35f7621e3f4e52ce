"""Sorting a long vector chunk by chunk, into chunks of exactly the lengths wanted.

Chunks are sorted; regular samples of them say between which values each chunk boundary of the
result lies; the few elements in between say where exactly; then each chunk of the result is
merged from its part of every sorted run. Nothing larger than a chunk is in one place but the
samples. Where only the elements of some ranks are wanted nothing is merged. What users call is
in ``sorting`` and ``quantiles``.

References
----------
H. Shi and J. Schaeffer, "Parallel sorting by regular sampling", JPDC 14(4), 1992.
P. J. Varman et al., "Merging multiple lists on hierarchical-memory multiprocessors", JPDC 12(2),
1991 (boundaries at exact ranks).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.standard import dtype_of

SAMPLES = 4096
"""Samples of a run, at least. With s of them at most 2 n / s elements lie between the samples
around a boundary."""
SAMPLES_PER_RUN = 64
DIRECT_RUNS = 64
"""Up to so many runs a merge is given the runs themselves, which tasks of one node share without
a copy; with more, the parts are cut out first, so that no node needs all the data."""


def _ascending(xp: Any, x: Any) -> Any:
    """``x`` sorted; elements that are equal but can be told apart stay in their order.

    Those are zeros of both signs and NaNs: cheaper to put them right afterwards than to use a
    stable sort, which takes half as long again. (NumPy's vectorised sort may even give a zero
    the sign of another.)
    """
    kind = dtype_of(x).kind
    if kind != "f":
        return xp.sort(x, kind="stable") if kind == "c" else xp.sort(x)
    result = xp.sort(x)
    low, high = (int(xp.searchsorted(result, 0.0, side=side)) for side in ("left", "right"))
    if low < high:
        result[low:high] = x[x == 0]
    if x.size and xp.isnan(result[-1]):
        nans = x[xp.isnan(x)]
        result[x.size - nans.size :] = nans
    return result


def _order(xp: Any, x: Any, start: int) -> Any:
    return xp.argsort(x, kind="stable") + start


def _taken(xp: Any, x: Any, order: Any, start: int) -> Any:
    return x[order - start]


def _sample_positions(length: int, count: int) -> Any:
    """Evenly spread positions with the first and the last."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))


def _samples(xp: Any, run: Any, count: int) -> Any:
    return run[xp.asarray(_sample_positions(run.shape[0], count))]


def _brackets(
    xp: Any, samples: Sequence[Any], lengths: Sequence[int], ranks: Sequence[int], count: int
) -> Any:
    """For each rank two samples between which, both included, the element of that rank lies.

    NaN is the greatest value and equal to itself here, as in `numpy.searchsorted`.
    """
    candidates = xp.sort(xp.concatenate(list(samples)), kind="stable")
    below = xp.zeros(candidates.shape, dtype=np.int64)  # at most so many elements are less
    upto = xp.zeros(candidates.shape, dtype=np.int64)  # at least so many are not greater
    for own, length in zip(samples, lengths, strict=True):
        at = xp.asarray(_sample_positions(length, count))
        ends = xp.concatenate([at, xp.asarray([length])])
        below += ends[xp.searchsorted(own, candidates, side="left")]
        heads = xp.concatenate([xp.asarray([0]), at + 1])
        upto += heads[xp.searchsorted(own, candidates, side="right")]
    wanted = xp.asarray(ranks)
    low = candidates[xp.searchsorted(below, wanted, side="left") - 1]
    high = candidates[xp.searchsorted(upto, wanted, side="left")]
    return xp.stack([low, high])


def _windows(xp: Any, run: Any, brackets: Any) -> tuple[Any, ...]:
    """The elements strictly between each bracket, and how many are before and in it."""
    start = xp.searchsorted(run, brackets[0], side="right")
    stop = xp.maximum(xp.searchsorted(run, brackets[1], side="left"), start)
    inside = [run[int(a) : int(b)] for a, b in zip(start, stop, strict=True)]
    return xp.concatenate(inside), start, stop - start


def _boundaries(xp: Any, windows: Sequence[Any], brackets: Any, ranks: Sequence[int]) -> Any:
    """The element of each rank (counted from 1), exactly."""
    result = xp.empty(len(ranks), dtype=brackets.dtype)
    ends = [xp.concatenate([xp.asarray([0]), xp.cumsum(sizes)]) for _, _, sizes in windows]
    for j, rank in enumerate(ranks):
        parts = [
            values[int(end[j]) : int(end[j + 1])]
            for (values, _, _), end in zip(windows, ends, strict=True)
        ]
        inside = xp.sort(xp.concatenate(parts), kind="stable")
        left = rank - sum(int(start[j]) for _, start, _ in windows)
        if left <= 0:
            result[j] = brackets[0, j]
        elif left <= inside.shape[0]:
            result[j] = inside[left - 1]
        else:
            result[j] = brackets[1, j]
    return result


def _counts(xp: Any, run: Any, boundaries: Any) -> Any:
    """How many elements of a run are less than each boundary, and how many not greater."""
    return xp.stack([xp.searchsorted(run, boundaries, side=side) for side in ("left", "right")])


def _cuts(xp: Any, counts: Sequence[Any], lengths: Sequence[int], ranks: Sequence[int]) -> Any:
    """Where each run is cut so that exactly ``ranks`` elements lie before each boundary.

    Elements equal to a boundary are taken from the first runs first, which keeps the order of
    equal elements.
    """
    below = xp.stack([count[0] for count in counts])
    equal = xp.stack([count[1] for count in counts]) - below
    needed = xp.asarray(ranks) - xp.sum(below, axis=0)
    before = xp.cumsum(equal, axis=0) - equal
    cuts = below + xp.clip(needed - before, 0, equal)
    first = xp.zeros((len(lengths), 1), dtype=cuts.dtype)
    last = xp.asarray(lengths, dtype=cuts.dtype)[:, None]
    return xp.concatenate([first, cuts, last], axis=1)


def _part(xp: Any, run: Any, cuts: Any, i: int, j: int) -> Any:
    return xp.array(run[int(cuts[i, j]) : int(cuts[i, j + 1])])


def _merged(xp: Any, parts: Sequence[Any]) -> Any:
    """Sorted parts as one: NumPy's stable sort finds the runs and merges them."""
    result = xp.concatenate(list(parts))
    result.sort(kind="stable") if xp is np else result.sort()
    return result


def _merged_runs(xp: Any, runs: Sequence[Any], cuts: Any, j: int) -> Any:
    return _merged(xp, [run[int(cuts[i, j]) : int(cuts[i, j + 1])] for i, run in enumerate(runs)])


def _merged_orders(xp: Any, parts: Sequence[Any], orders: Sequence[Any]) -> Any:
    """The positions that go with sorted parts, in the order of the values."""
    by_value = xp.argsort(xp.concatenate(list(parts)), kind="stable")
    return xp.concatenate(list(orders))[by_value]


def _merged_order_runs(
    xp: Any, runs: Sequence[Any], orders: Sequence[Any], cuts: Any, j: int
) -> Any:
    spans = [slice(int(cuts[i, j]), int(cuts[i, j + 1])) for i in range(len(runs))]
    return _merged_orders(
        xp,
        [run[span] for run, span in zip(runs, spans, strict=True)],
        [order[span] for order, span in zip(orders, spans, strict=True)],
    )


def _sort_whole(xp: Any, x: Any, positions: bool) -> Any:
    return _order(xp, x, 0) if positions else _ascending(xp, x)


_SMALL = {"read_bytes": 0, "written_bytes": 0}


def _at_ranks(
    node: Node, lowering: Any, runs: Sequence[Any], lengths: Sequence[int], ranks: Sequence[int]
) -> Any:
    """The elements of some ranks (counted from 1) of sorted runs: one array."""
    count = max(SAMPLES, SAMPLES_PER_RUN * len(runs))
    taken = [(run, count) for run in runs]
    samples = lowering.call(node, _samples, taken, label=".sample", **_SMALL)
    around = [(samples, lengths, ranks, count)]
    brackets = lowering.call(node, _brackets, around, label=".brackets", **_SMALL)[0]
    inside = [(run, brackets) for run in runs]
    windows = lowering.call(node, _windows, inside, label=".window", **_SMALL)
    found = [(windows, brackets, ranks)]
    return lowering.call(node, _boundaries, found, label=".boundaries", **_SMALL)[0]


def _lower_sample_sort(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    (positions,) = node.params
    lengths = list(source.chunks[0])
    starts = grids.offsets(lengths)
    blocks = lowering.blocks(source)
    ranks = grids.offsets(node.chunks[0])[1:-1]
    orders: list[Any] = []
    if positions:
        located = list(zip(blocks, starts[:-1], strict=True))
        orders = lowering.call(node, _order, located, label=".order", flops=lowering.work(node))
        rows = [(x, o, at) for (x, at), o in zip(located, orders, strict=True)]
        runs = lowering.call(node, _taken, rows, label=".run")
    else:
        one = [(x,) for x in blocks]
        runs = lowering.call(node, _ascending, one, label=".run", flops=lowering.work(node))

    boundaries = _at_ranks(node, lowering, runs, lengths, ranks)
    compared = [(run, boundaries) for run in runs]
    counts = lowering.call(node, _counts, compared, label=".count", **_SMALL)
    cuts = lowering.call(node, _cuts, [(counts, lengths, ranks)], label=".cuts", **_SMALL)[0]
    wanted = range(len(node.chunks[0]))
    if len(runs) <= DIRECT_RUNS:
        if positions:
            table = [(list(runs), list(orders), cuts, j) for j in wanted]
            return list(lowering.call(node, _merged_order_runs, table, label=".merge"))
        return list(
            lowering.call(node, _merged_runs, [(list(runs), cuts, j) for j in wanted],
                          label=".merge")
        )  # fmt: skip

    def parts(of: Sequence[Any], label: str) -> list[list[Any]]:
        """For each chunk of the result its part of every run."""
        rows = [(run, cuts, i, j) for i, run in enumerate(of) for j in wanted]
        found = lowering.call(node, _part, rows, label=label)
        return [found[j :: len(wanted)] for j in wanted]

    values = parts(runs, ".part")
    if not positions:
        return list(lowering.call(node, _merged, [(v,) for v in values], label=".merge"))
    pairs = list(zip(values, parts(orders, ".order_part"), strict=True))
    return list(lowering.call(node, _merged_orders, pairs, label=".merge"))


_SAMPLE_SORT = Op("sample_sort", "tasks", _sort_whole, _lower_sample_sort, weight=32)


def sorted_chunks(node: Node, dtype: DType, *, positions: bool) -> Node:
    """A vector of several non-empty chunks sorted upwards; or the positions that sort it."""
    return make(_SAMPLE_SORT, (node,), (positions,), node.shape, dtype, node.chunks)


def _flat_run(xp: Any, x: Any) -> Any:
    return _ascending(xp, xp.reshape(x, -1))


def _select_whole(xp: Any, x: Any, ranks: Sequence[int]) -> Any:
    return _flat_run(xp, x)[xp.asarray(ranks) - 1]


def _lower_selection(node: Node, lowering: Any) -> list[Any]:
    (source,) = node.inputs
    (ranks,) = node.params
    sizes = [math.prod(block) for block in itertools.product(*source.chunks)]
    blocks = zip(lowering.blocks(source), sizes, strict=True)
    rows = [(block,) for block, size in blocks if size]
    runs = lowering.call(
        node, _flat_run, rows, label=".run", written_bytes=source.nbytes, flops=lowering.work(node)
    )
    return [_at_ranks(node, lowering, runs, [size for size in sizes if size], ranks)]


_SELECT = Op("select_ranks", "tasks", _select_whole, _lower_selection, weight=32)


def selected(node: Node, ranks: tuple[int, ...]) -> Node:
    """The elements of some ranks, counted from 1, among all those of ``node``, NaN last."""
    shape = (len(ranks),)
    return make(_SELECT, (node,), (ranks,), shape, node.dtype, grids.single(shape))
