"""Sorts positions stably by NumPy's quickest sort, and puts those of equal elements in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.core.node import NDArray

LEAST_ELEMENTS = 4096
"""Shorter vectors are left to NumPy's stable sort."""
SAMPLE = 1024
MOST_TIES_OF_SAMPLE = 16
"""A vector is left to NumPy's stable sort if so many neighbours in a sorted sample of it are equal:
most of its elements are then equal to others."""


def order(xp: Any, x: Any, kind: str) -> Any:
    """Return the positions that sort a vector of ``xp`` by a ``kind`` of NumPy's sorts."""
    return stable_order(x) if xp is np and kind == "stable" else xp.argsort(x, kind=kind)


def stable_order(x: NDArray) -> NDArray:
    """Return the positions that sort a vector, those of equal elements and of NaNs in order.

    They are those of ``argsort(kind="stable")``, which takes three times as long on processors
    for which NumPy's other sort has vector instructions.
    """
    if x.size < LEAST_ELEMENTS or x.dtype.kind not in "iuf":
        return np.argsort(x, kind="stable")
    sample = np.sort(x[:: x.size // SAMPLE])
    if np.count_nonzero(_tied(sample)) >= MOST_TIES_OF_SAMPLE:
        return np.argsort(x, kind="stable")
    order = np.argsort(x)
    tied = _tied(x[order])
    if tied.any():
        in_run = np.zeros(x.size, np.bool_)
        in_run[1:] |= tied
        in_run[:-1] |= tied
        places = np.flatnonzero(in_run)
        run = np.cumsum(np.concatenate([[False], ~tied]))[places]
        own = order[places]
        order[places] = own[np.lexsort((own, run))]
    return order


def _tied(ordered: NDArray) -> NDArray:
    """Whether each element but the first of a sorted vector is equal to the one before it."""
    tied: NDArray = ordered[1:] == ordered[:-1]
    if ordered.dtype.kind == "f":
        tied |= np.isnan(ordered[:-1])  # all behind the first NaN are NaNs
    return tied
