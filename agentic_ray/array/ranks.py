"""Finds elements of given ranks in sorted runs, without bringing the runs together.

Runs are sampled at even distances; samples are merged in a tree that is thinned out on the way, so
that no task sees more than a few summaries. An element is named by its value, its run and its place
in the run. So no two elements are equal, and a boundary cuts every run at one place, also where
very many values are equal. A task moves only the data that it looks at.

References
----------
H. Shi and J. Schaeffer, "Parallel sorting by regular sampling", JPDC 14(4), 1992.
G. S. Manku, S. Rajagopalan and B. G. Lindsay, "Approximate medians and other quantiles in one
pass and with limited memory", SIGMOD 1998 (summaries that are merged and thinned out).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.core.node import Node

SAMPLES = 4096
"""Least number of samples of a run of average length."""
SAMPLES_PER_RUN = 8
"""Number of samples of a run of average length for each run there is, where there are many runs."""
FAN_IN = 32
"""Number of summaries that one task merges."""
WINDOW_BYTES = 256 << 20
"""Most bytes of elements, about, between the brackets of ranks that are looked for together."""
NOTHING = {"read_bytes": 0, "written_bytes": 0}

Elements = tuple[Any, Any, Any]
"""Elements of the runs: their values, the numbers of their runs, their places in these."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Top of a tree of summaries, and the facts known of it before anything runs.

    Parameters
    ----------
    parts : list
        Summaries as task arguments, at most `FAN_IN`, in the order of their runs. Each is a tuple
        of arrays: values, runs, places, and the number of elements that each entry stands for
        (those after the entry before it, itself among them).
    slack : int
        Bound on an error: up to any entry, the elements not after it exceed those that the entries
        stand for by at most so many.
    gap : int
        Most elements that an entry stands for.
    """

    parts: list[Any]
    slack: int
    gap: int


# --- kernels -----------------------------------------------------------------------------


def _sampled(xp: Any, run: Any, number: int, gap: int) -> Any:
    """Take every ``gap``-th element of a run, and the last."""
    length = run.shape[0]
    places = np.append(np.arange(gap - 1, length - 1, gap), length - 1)
    weights = np.diff(places, prepend=-1)
    at = xp.asarray(places)
    return run[at], xp.full(at.shape, number, dtype=np.int64), at, xp.asarray(weights)


def _together(xp: Any, parts: Sequence[Any]) -> Any:
    """Merge the entries of several summaries in order; return them with the elements they stand for
    up to each."""
    values, runs, places, weights = (xp.concatenate([part[i] for part in parts]) for i in range(4))
    # Parts follow each other in the order of their runs: so a stable order of the values is an
    # order of values, runs and places.
    order = xp.argsort(values, kind="stable")
    return values[order], runs[order], places[order], xp.cumsum(weights[order])


def _thinned(xp: Any, parts: Sequence[Any], total: int, kept: int) -> Any:
    """Merge several summaries into one with about ``kept`` entries."""
    values, runs, places, upto = _together(xp, parts)
    cell = upto * kept // total
    before = xp.concatenate([xp.asarray([0]), cell[:-1]])
    chosen = xp.nonzero(cell > before)[0]  # the last entry among them, which is in cell ``kept``
    ends = upto[chosen]
    weights = xp.concatenate([ends[:1], ends[1:] - ends[:-1]])
    return values[chosen], runs[chosen], places[chosen], weights


def _near(xp: Any, parts: Sequence[Any], ranks: Sequence[int], slack: int) -> Any:
    """Return elements whose ranks are about those wanted."""
    values, runs, places, upto = _together(xp, parts)
    wanted = xp.asarray([rank - slack // 2 for rank in ranks], dtype=np.int64)
    at = xp.searchsorted(upto, wanted, side="left")
    return values[at], runs[at], places[at]


def _brackets(xp: Any, parts: Sequence[Any], ranks: Sequence[int], slack: int) -> Any:
    """Return for each rank an element before the one wanted, in run -1 if there is none, and an
    element that is not before it."""
    values, runs, places, upto = _together(xp, parts)
    wanted = xp.asarray(list(ranks), dtype=np.int64)
    low = xp.searchsorted(upto + slack, wanted, side="left") - 1
    high = xp.searchsorted(upto, wanted, side="left")
    outside = low < 0
    low = xp.where(outside, 0, low)
    return (
        (values[low], xp.where(outside, -1, runs[low]), places[low]),
        (values[high], runs[high], places[high]),
    )


def counts_upto(xp: Any, run: Any, number: int, elements: Elements) -> Any:
    """Count the elements of run ``number`` that are not after each of ``elements``."""
    values, runs, places = elements
    below = xp.searchsorted(run, values, side="left")
    upto = xp.searchsorted(run, values, side="right")
    counts = xp.where(runs > number, upto, below)
    counts = xp.where(runs == number, places + 1, counts)
    return xp.where(runs < 0, 0, counts)


def _windows(xp: Any, run: Any, number: int, brackets: Any) -> Any:
    """Return the elements of a run in each bracket, and the counts before it and in it."""
    start = counts_upto(xp, run, number, brackets[0])
    stop = counts_upto(xp, run, number, brackets[1])
    inside = [run[int(a) : int(b)] for a, b in zip(start, stop, strict=True)]
    return xp.concatenate(inside), start, stop - start


def _elements(xp: Any, windows: Sequence[Any], ranks: Sequence[int]) -> Any:
    """Return the element of each rank, exactly."""
    heads = [xp.concatenate([xp.asarray([0]), xp.cumsum(sizes)]) for _, _, sizes in windows]
    chosen: list[Any] = []
    runs: list[int] = []
    places: list[int] = []
    for j, rank in enumerate(ranks):
        parts = [values[int(head[j]) : int(head[j + 1])]
                 for (values, _, _), head in zip(windows, heads, strict=True)]  # fmt: skip
        starts = [int(start[j]) for _, start, _ in windows]
        inside = xp.concatenate(parts)
        at = int(xp.argsort(inside, kind="stable")[rank - 1 - sum(starts)])
        ends = list(itertools.accumulate(part.shape[0] for part in parts))
        run = next(i for i, end in enumerate(ends) if at < end)
        chosen.append(inside[at : at + 1])
        runs.append(run)
        places.append(starts[run] + at - (ends[run] - parts[run].shape[0]))
    return (
        xp.concatenate(chosen),
        xp.asarray(runs, dtype=np.int64),
        xp.asarray(places, dtype=np.int64),
    )


def _values_of(xp: Any, parts: Sequence[Elements]) -> Any:
    return xp.concatenate([part[0] for part in parts])


# --- tasks -------------------------------------------------------------------------------


def summary(node: Node, lowering: Any, runs: Sequence[Any], lengths: Sequence[int]) -> Summary:
    """Make a summary of sorted runs, none of them empty."""
    wanted = max(SAMPLES, SAMPLES_PER_RUN * len(runs))  # of an average run
    total = sum(lengths)
    gap = max(1, total // (wanted * len(runs)))
    rows = [(run, i, gap) for i, run in enumerate(runs)]
    parts = lowering.call(node, _sampled, rows, label=".sample", **NOTHING)
    slacks = [min(gap, length) - 1 for length in lengths]
    totals = list(lengths)
    level = 0
    while len(parts) > FAN_IN:
        spans = [slice(i, i + FAN_IN) for i in range(0, len(parts), FAN_IN)]
        totals = [sum(totals[span]) for span in spans]
        made = [(parts[span], held, wanted) for span, held in zip(spans, totals, strict=True)]
        parts = lowering.call(node, _thinned, made, label=f".summary{level}", **NOTHING)
        if max(totals) > wanted:  # else every entry stays
            gap += max(totals) // wanted + 1
        slacks = [sum(slacks[span]) + gap - 1 for span in spans]
        level += 1
    return Summary(parts, sum(slacks), gap)


def near(node: Node, lowering: Any, found: Summary, ranks: Sequence[int]) -> tuple[Any, int]:
    """Return elements of about the given ranks (counted from 1), and how far they may be off."""
    rows = [(found.parts, list(ranks), found.slack)]
    made = lowering.call(node, _near, rows, label=".near", **NOTHING)[0]
    return made, found.slack - found.slack // 2 + found.gap - 1


def exact(
    node: Node, lowering: Any, runs: Sequence[Any], found: Summary, ranks: Sequence[int]
) -> list[Any]:
    """Return elements of exactly the given ranks (counted from 1): one task argument for each few
    ranks, in order."""
    between = (found.slack + 2 * found.gap) * max(node.inputs[0].dtype.itemsize, 1)
    size = max(1, WINDOW_BYTES // max(between, 1))
    made: list[Any] = []
    for number, start in enumerate(range(0, len(ranks), size)):
        own = list(ranks[start : start + size])
        around = lowering.call(
            node, _brackets, [(found.parts, own, found.slack)], label=f".brackets{number}",
            **NOTHING,
        )[0]  # fmt: skip
        rows = [(run, i, around) for i, run in enumerate(runs)]
        inside = between * len(own)
        windows = lowering.call(
            node, _windows, rows, label=f".window{number}", read_bytes=inside, written_bytes=inside
        )
        made += lowering.call(
            node, _elements, [(windows, own)], label=f".elements{number}", read_bytes=inside,
            written_bytes=0,
        )  # fmt: skip
    return made


def values(
    node: Node, lowering: Any, runs: Sequence[Any], lengths: Sequence[int], ranks: Sequence[int]
) -> Any:
    """Return the values of the elements of some ranks (counted from 1): one array."""
    found = exact(node, lowering, runs, summary(node, lowering, runs, lengths), ranks)
    return lowering.call(node, _values_of, [(found,)], label=".chosen", **NOTHING)[0]
