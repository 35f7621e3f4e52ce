"""Kernels of bisecting k-means over a chunk: which leaf each row is in, and 2-means in leaves.

A leaf has a number, its slot; slot 0 is the whole. ``routing`` has the cuts on the way to leaves,
upper ones first: slot, slots of both halves, and their centres as an array of shape (2,
n_features), relative to ``shift``. ``pairs`` has slots, and with each what is done there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.passes import row_blocks


def centred(x: Any, shift: Any) -> Any:
    """Rows relative to ``shift``, as float64; sparse ones as they are."""
    if sp.issparse(x):
        return x
    x = np.asarray(x, dtype=np.float64)
    return x if shift is None else x - shift


def slots_of(x: Any, shift: Any, routing: Any) -> Any:
    """The slot of each row of a chunk after all cuts of ``routing``."""
    found = np.zeros(x.shape[0], np.intp)
    squares = [(centres * centres).sum(axis=1) for *_, centres in routing]
    for rows in row_blocks(x, 1 << 17):
        block, own = centred(x[rows], shift), found[rows]
        for (slot, left, right, centres), own_squares in zip(routing, squares, strict=True):
            at = np.flatnonzero(own == slot)
            if len(at):
                labels, _ = lloyd.nearest(block[at], centres, own_squares)
                own[at] = np.where(labels == 0, left, right)
    return found


def _of_each(x: Any, w: Any, shift: Any, routing: Any, pairs: Any) -> Iterator[tuple[Any, Any]]:
    """The rows of each leaf, centred, and their weights."""
    slots = slots_of(x, shift, routing)
    for slot, _ in pairs:
        at = np.flatnonzero(slots == slot)
        yield centred(x[at], shift), None if w is None else w[at]


def assign(x: Any, y: Any, w: Any, shift: Any, routing: Any, pairs: Any) -> Any:
    """For each leaf the sums of the rows that are nearest to each of two centres, of shape
    (n_leaves, 2, n_features), and their weights, of shape (n_leaves, 2)."""
    sums, weights = np.zeros((len(pairs), 2, x.shape[1])), np.zeros((len(pairs), 2))
    for at, (block, own) in enumerate(_of_each(x, w, shift, routing, pairs)):
        if block.shape[0]:
            sums[at], weights[at] = lloyd.assign(block, None, own, pairs[at][1], None)
    return sums, weights


def scores(x: Any, y: Any, w: Any, shift: Any, routing: Any, pairs: Any) -> Any:
    """For each leaf and each of its centres the inertia of the rows that are nearest to it, from
    differences, and how many they are; each of shape (n_leaves, 2)."""
    inertias, counts = np.zeros((len(pairs), 2)), np.zeros((len(pairs), 2))
    for at, (block, own) in enumerate(_of_each(x, w, shift, routing, pairs)):
        centres = pairs[at][1]
        labels = slots_of(block, None, ((0, 1, 2, centres),)) - 1 if len(centres) > 1 else None
        for side, centre in enumerate(centres):
            chosen = slice(None) if labels is None else np.flatnonzero(labels == side)
            part = None if own is None else own[chosen]
            found = lloyd.exact_inertia(block[chosen], None, part, centre[None], None)
            inertias[at, side], counts[at, side] = found[0], found[1][0]
    return inertias, counts


def farthest(x: Any, y: Any, w: Any, shift: Any, routing: Any, pairs: Any) -> Any:
    """For each leaf the row that is farthest from its centre, as `lloyd.farthest` gives it."""
    found = []
    for at, (block, own) in enumerate(_of_each(x, w, shift, routing, pairs)):
        none = (np.zeros(0), np.zeros((0, x.shape[1])), np.zeros(0), np.zeros(0, np.intp), 1)
        has_rows = block.shape[0] > 0
        found.append(lloyd.farthest(block, None, own, pairs[at][1], None, 1) if has_rows else none)
    return found


def merged_farthest(left: Any, right: Any) -> Any:
    """The farther row of each leaf; first come, first kept."""
    return [lloyd.merged_farthest(a, b) for a, b in zip(left, right, strict=True)]


def draw(
    x: Any, y: Any, w: Any, shift: Any, routing: Any, pairs: Any, count: int, number: int
) -> Any:
    """For each leaf ``count`` random rows, as `lloyd.draw_rows` gives them.

    With each slot come a seed and a centre, or None: rows are drawn by weight, and if there is a
    centre by their squared distance from it too.
    """
    found = []
    for at, (block, own) in enumerate(_of_each(x, w, shift, routing, pairs)):
        seed, centre = pairs[at][1]
        if centre is not None:
            apart = lloyd.distances_to(block, centre)
            own = apart if own is None else own * apart
        found.append(lloyd.draw_rows(block, None, own, count, (*seed, number)))
    return found


def merged_draws(left: Any, right: Any) -> Any:
    """The rows of both draws of each leaf that have the largest keys."""
    return [lloyd.merged_draw(a, b) for a, b in zip(left, right, strict=True)]


def costs(x: Any, y: Any, w: Any, shift: Any, routing: Any, pairs: Any) -> Any:
    """For each leaf the sums of squared distances to each of several sets of centres."""
    return [
        np.array([lloyd.cost(block, None, own, centres) for centres in pairs[at][1]])
        for at, (block, own) in enumerate(_of_each(x, w, shift, routing, pairs))
    ]


def both_costs(left: Any, right: Any) -> Any:
    """The sums of two lots of rows."""
    return [a + b for a, b in zip(left, right, strict=True)]


class Labels:
    """A step: the label of the leaf that each row is in."""

    def __init__(self, shift: Any, routing: Any, labels: dict[int, int]) -> None:
        self._shift, self._routing, self._labels = shift, routing, labels

    def __call__(self, block: Any) -> Any:
        block = block if sp.issparse(block) else np.asarray(block)
        slots = slots_of(block, self._shift, self._routing)
        names = np.zeros(max(self._labels) + 1, np.int32)
        names[list(self._labels)] = list(self._labels.values())
        return names[slots]
