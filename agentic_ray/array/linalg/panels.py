"""Products ``a.T @ b`` of matrices with few columns, by OpenBLAS's kernels for small matrices.

BLAS packs both operands of a product before it multiplies, and for few columns the packing takes
longer than the multiplying. OpenBLAS's kernels for AVX-512 multiply small matrices where they lie.
So here a product is cut in panels, 16 columns of ``a`` with all columns of ``b``, of some hundred
rows, and NumPy multiplies a stack of them; of ``a.T @ a`` only the upper half is made. For 50
columns that takes a third less time than `syrk`, BLAS's own routine for it; with other kernels it
takes longer.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from agentic_ray.array.core.node import NDArray

_QUICK_KERNELS = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
_COLUMNS = range(12, 65)
_SMALL = 600_000
"""Multiplications of one small product; from 10^6 on OpenBLAS packs."""


def fit(a: Any, b: Any) -> bool:
    """Whether ``a.T @ b`` of these two NumPy arrays is quicker in panels."""
    return (
        a.ndim == b.ndim == 2
        and a.shape[1] in _COLUMNS
        and b.shape[1] in _COLUMNS
        and a.dtype == b.dtype
        and a.dtype in (np.float64, np.float32)
        and _small_products_are_quick()
    )


@functools.cache
def _small_products_are_quick() -> bool:
    """Whether NumPy's BLAS is an OpenBLAS that uses such kernels on this processor."""
    return any(
        library["internal_api"] == "openblas" and library.get("architecture") in _QUICK_KERNELS
        for library in threadpool_info()
    )


@functools.cache
def _cut(columns: int) -> list[tuple[int, int]]:
    """Return where panels of so many columns begin and end: at least two."""
    width = 16 if columns >= 32 else 8
    more = range(columns - width * (max(2, columns // width) - 1), columns + 1, width)
    return list(itertools.pairwise([0, *more]))


def product(a: NDArray, b: NDArray) -> NDArray:
    """Compute ``a.T @ b``; where ``b`` is ``a``, the product of the matrix with itself."""
    length, columns = a.shape
    panels = _cut(columns)
    rows = _SMALL // (panels[0][1] * b.shape[1])
    stacked = length // rows
    made: NDArray = np.zeros((columns, b.shape[1]), a.dtype)
    whole = stacked * rows
    stacks = [(0, whole, stacked)] if stacked else []
    stacks += [(whole, length, 1)] if whole < length else []
    for start, stop, count in stacks:
        left, right = (x[start:stop].reshape(count, -1, x.shape[1]) for x in (a, b))
        for begin, end in panels:
            # The last panel with itself gets one column more, or NumPy would use `syrk` for it.
            first = begin - (end == columns) if b is a else 0
            part = np.matmul(left[..., begin:end].swapaxes(1, 2), right[..., first:])
            made[begin:end, first:] += np.add.reduce(part, axis=0)
    return np.triu(made) + np.triu(made, 1).T if b is a else made
