"""Brings the elements of many sorted runs to their destinations, in stages.

If each chunk of the result were merged from every run, it would take as many parts as there are
runs, and all chunks together the square of that. Here a task brings together the parts that a few
runs have for a group of destinations; the next tasks bring together the parts that a few of these
parcels have for some of the group; the last merge them. Each task takes about the square root of
the number of runs, or a higher root. Pieces of different runs stay apart until the end, so that
they are merged in the order of the runs.

Destinations are cut at elements of about the right ranks; `put_right` then makes the chunks exact.

References
----------
M. Axtmann, T. Bingmann, P. Sanders and C. Schulz, "Practical massively parallel sorting", SPAA
2015 (sample sort in stages).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import NDArray, Node
from agentic_ray.array.core.standard import on_host
from agentic_ray.array.merging import merged
from agentic_ray.array.ranks import NOTHING, counts_upto

MOST_RUNS = 64
"""Up to so many runs are merged at once; more are exchanged in stages."""
WIDTH = 32
"""Most values that a task of a stage takes: all are in its node's memory together."""


# --- kernels -----------------------------------------------------------------------------


def cuts_of(xp: Any, run: Any, number: int, bounds: Any, first: int, last: int) -> list[int]:
    """Return where the boundaries from ``first`` to ``last`` cut a run; the first and the last of
    all boundaries are the run's ends."""
    count = bounds[0].shape[0]
    inner = tuple([part[max(first - 1, 0) : last] for part in bounds])
    found = on_host(counts_upto(xp, run, number, inner)).tolist()
    head = [0] if first == 0 else []
    return [*head, *found] if last <= count else [*head, *found, run.shape[0]]


@dataclass(frozen=True, slots=True)
class Routes:
    """Origin and destinations of the pieces in a task's value; on the host wherever the pieces are.

    Parameters
    ----------
    numbers : array
        Numbers of the runs; each run's pieces follow each other.
    cuts : array
        For each run the beginning of its piece for each destination, and the end of the last.
    """

    numbers: NDArray
    cuts: NDArray


Parcel = tuple[Any, Any, Routes]
"""Pieces of runs on their way: their values, their loads (None: no loads), their routes."""

LONG_PIECES = 32
"""Shorter pieces, on average, are put together by an index array instead of one by one."""


def _ranges(starts: NDArray, lengths: NDArray) -> NDArray:
    """Return numbers from each start, as many as its length says, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _put_together(
    xp: Any, arrays: Sequence[Any], homes: NDArray, starts: NDArray, lengths: NDArray
) -> Any:
    """Join pieces of arrays, one after the other; ``homes`` are the arrays they come from."""
    if int(lengths.sum()) >= LONG_PIECES * len(lengths):
        places = zip(homes.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        return xp.concatenate([arrays[home][at : at + length] for home, at, length in places])
    parts = []
    where = np.empty(len(lengths), np.int64)
    taken = 0
    for home, array in enumerate(arrays):
        own = homes == home
        parts.append(array[xp.asarray(_ranges(starts[own], lengths[own]))])
        where[own] = taken + np.cumsum(lengths[own]) - lengths[own]
        taken += int(lengths[own].sum())
    return xp.concatenate(parts)[xp.asarray(_ranges(where, lengths))]


def _sent(
    xp: Any, runs: Sequence[Any], loads: Sequence[Any], numbers: Sequence[int], bounds: Any,
    first: int, last: int,
) -> Parcel:  # fmt: skip
    """Make the parcel of some runs for the destinations from ``first`` to before ``last``."""
    cuts = [cuts_of(xp, run, number, bounds, first, last)
            for number, run in zip(numbers, runs, strict=True)]  # fmt: skip
    parcels = [
        (run, loads[i] if loads else None, Routes(np.asarray([number]), np.asarray([row])))
        for i, (number, run, row) in enumerate(zip(numbers, runs, cuts, strict=True))
    ]
    return _sent_on(xp, parcels, 0, last - first)


def _sent_on(xp: Any, parcels: Sequence[Parcel], first: int, last: int) -> Parcel:
    """Make one parcel of several for some destinations; runs in the order of their numbers."""
    numbers = np.concatenate([routes.numbers for _, _, routes in parcels])
    cuts = np.concatenate([routes.cuts[:, first : last + 1] for _, _, routes in parcels])
    homes = np.repeat(np.arange(len(parcels)), [len(routes.numbers) for _, _, routes in parcels])
    order = np.argsort(numbers)
    cuts = cuts[order]
    lengths = cuts[:, -1] - cuts[:, 0]
    where = (homes[order], cuts[:, 0], lengths)
    values = _put_together(xp, [values for values, _, _ in parcels], *where)
    loads = [load for _, load, _ in parcels if load is not None]
    load = _put_together(xp, loads, *where) if loads else None
    starts = np.cumsum(lengths) - lengths
    return values, load, Routes(numbers[order], cuts - cuts[:, :1] + starts[:, None])


def _arrived(xp: Any, parcels: Sequence[Parcel], at: int) -> Any:
    """Merge all pieces that a destination gets; equal elements in the order of the runs."""
    values, load, routes = _sent_on(xp, parcels, at, at + 1)
    return merged(xp, values, load, len(routes.numbers))


def _length(xp: Any, part: Any) -> int:
    length: int = part.shape[0]
    return length


def _starts(xp: Any, lengths: Sequence[Any]) -> Any:
    return xp.asarray(grids.offsets([int(length) for length in lengths]))


def _between(xp: Any, part: Any, starts: Any, number: int, low: int, high: int) -> Any:
    """Return the elements of a part whose ranks lie from ``low`` to before ``high``."""
    at, end = int(starts[number]), int(starts[number + 1])
    return part[max(low, at) - at : max(min(high, end), at) - at]


def _cut_out(xp: Any, *args: Any) -> Any:
    return xp.array(_between(xp, *args))


def _joined(xp: Any, before: Sequence[Any], main: Any, after: Sequence[Any], *where: Any) -> Any:
    return xp.concatenate([*before, _between(xp, main, *where), *after])


# --- tasks -------------------------------------------------------------------------------


def destinations(lengths: Sequence[int], runs: int) -> list[int]:
    """Return the boundaries (ranks, with both ends) of the destinations: chunks of the result,
    small ones together with the next, so that none is below half of an average run."""
    edges = grids.offsets(lengths)
    least = max(1, edges[-1] // (2 * runs))
    found = [0]
    for edge in edges[1:-1]:
        if edge - found[-1] >= least and edges[-1] - edge >= least:
            found.append(edge)
    return [*found, edges[-1]]


def groups_of(count: int, size: int, level: int) -> list[list[int]]:
    """Divide the numbers below ``count`` into groups of about ``size``.

    The numbers are cut in ``size`` strata of neighbours and every group has one member of each: so
    if values grow or fall over the chunks, each group spans the whole range. The member is chosen
    pseudo-randomly: in data with a period a group would otherwise get all its values from one
    phase.
    """
    groups: list[list[int]] = [[] for _ in range(-(-count // size))]
    rng = np.random.default_rng([count, size, level])
    for start in range(0, count, len(groups)):
        stratum = range(start, min(start + len(groups), count))
        for group, number in zip(rng.permutation(len(groups)).tolist(), stratum, strict=False):
            groups[group].append(number)
    return [group for group in groups if group]


class Exchange:
    """The stages that bring every element to its destination."""

    def __init__(self, node: Node, lowering: Any, load_bytes: int, bounds: Any) -> None:
        self._node, self._lowering, self._bounds = node, lowering, bounds
        self._each = node.inputs[0].dtype.itemsize + load_bytes
        self._stages = 0

    def _call(self, kernel: Any, rows: list[Any], label: str, elements: int) -> list[Any]:
        moved = elements * self._each
        self._stages += 1
        return list(
            self._lowering.call(
                self._node, kernel, rows, label=f".{label}{self._stages}", read_bytes=moved,
                written_bytes=moved,
            )
        )  # fmt: skip

    def from_runs(
        self, runs: Sequence[Any], loads: Sequence[Any], edges: Sequence[int]
    ) -> list[Any]:
        """Return the destinations' values; ``edges`` are about where they begin and end."""
        width = width_of(len(runs))
        spans = even_spans(0, len(edges) - 1, width)
        groups = groups_of(len(runs), width, 0)
        rows = []
        for group in groups:
            own, own_loads = [runs[i] for i in group], [loads[i] for i in group if loads]
            rows += [(own, own_loads, group, self._bounds, a, b) for a, b in spans]
        made = self._call(_sent, rows, "sent", edges[-1])
        result: list[Any] = []
        for i, (a, b) in enumerate(spans):
            result += self._onwards(made[i :: len(spans)], edges[a : b + 1], 1)
        return result

    def _onwards(self, held: list[Any], edges: Sequence[int], level: int) -> list[Any]:
        count, elements = len(edges) - 1, edges[-1] - edges[0]
        if len(held) <= WIDTH:
            return self._call(_arrived, [(held, at) for at in range(count)], "merge", elements)
        width = width_of(len(held))
        spans = even_spans(0, count, width)
        rows: list[tuple[Any, ...]] = []
        for group in groups_of(len(held), width, level):
            own = [held[i] for i in group]
            rows += [(own, a, b) for a, b in spans]
        made = self._call(_sent_on, rows, "sent", elements)
        result: list[Any] = []
        for i, (a, b) in enumerate(spans):
            result += self._onwards(made[i :: len(spans)], edges[a : b + 1], level + 1)
        return result


def width_of(count: int) -> int:
    """Return how many of ``count`` values a task of the next stage takes. Each stage takes about as
    many, and none more than `WIDTH`."""
    stages = 1
    while WIDTH**stages < count:
        stages += 1
    width: int = round(count ** (1 / stages))
    return min(WIDTH, width + 1 if width**stages < count else width)


def even_spans(start: int, stop: int, pieces: int) -> list[tuple[int, int]]:
    """Cut a range into so many pieces of about one length, or as many as it has members."""
    count = min(pieces, stop - start)
    edges = [start + i * (stop - start) // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def put_right(
    node: Node, lowering: Any, parts: list[Any], edges: Sequence[int], off: int
) -> list[Any]:
    """Make chunks of exactly the lengths wanted from sorted parts whose ends may be ``off``.

    A chunk takes the part that it overlaps most as a whole; of other parts only the needed elements
    are cut out, so that not all of them travel.
    """
    one = [(part,) for part in parts]
    lengths = lowering.call(node, _length, one, label=".length", **NOTHING)
    starts = lowering.call(node, _starts, [(lengths,)], label=".starts", **NOTHING)[0]
    low_ends = np.asarray(edges[:-1]) - np.asarray([0, *[off] * (len(parts) - 1)])
    high_ends = np.asarray(edges[1:]) + np.asarray([*[off] * (len(parts) - 1), 0])
    plans = []
    cut: list[tuple[Any, ...]] = []
    wanted = grids.offsets(node.chunks[0])
    firsts = np.searchsorted(high_ends, wanted[:-1], side="right").tolist()
    lasts = np.searchsorted(low_ends, wanted[1:], side="left").tolist()
    for (low, high), first, last in zip(itertools.pairwise(wanted), firsts, lasts, strict=True):
        touched = range(first, last)
        main = max(touched, key=lambda i: min(high, edges[i + 1]) - max(low, edges[i]))
        others = [i for i in touched if i != main]
        plans.append((others, main, low, high))
        cut += [(parts[i], starts, i, low, high) for i in others]
    small = 2 * off * len(cut) * node.dtype.itemsize
    ends = iter(lowering.call(
        node, _cut_out, cut, label=".end", read_bytes=small, written_bytes=small
    ))  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for others, main, low, high in plans:
        made = [next(ends) for _ in others]
        ahead = sum(1 for i in others if i < main)
        rows.append((made[:ahead], parts[main], made[ahead:], starts, main, low, high))
    return list(lowering.call(node, _joined, rows, label=".chunk"))
