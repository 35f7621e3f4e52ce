"""Every block lies in memory in C order, row after row without gaps.

NumPy adds the elements of a transposed view in another order than those of a copy, some of its
functions round otherwise where the stride is negative, and BLAS has other kernels for transposed
operands. Whether a task is given a view or a copy depends on the way its input came: from the
step before it in the same process, or through the object store. So what a task is given, and
what it makes, is brought in C order first: bits then depend on values, shapes and chunks alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def in_c_order(value: Any) -> Any:
    """``value``, with each array in it (of NumPy or CuPy, itself or in a tuple or list) in C order
    and aligned: the same array if it is so already, else a copy."""
    flags = getattr(value, "flags", None)
    if flags is not None:
        is_so = getattr(flags, "c_contiguous", True) and getattr(flags, "aligned", True)
        return value if is_so else _copied(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([in_c_order(part) for part in value])
    return value


TILE = 128
"""Rows and columns that are copied at a time where columns become rows: the lines of memory that
are read stay in the cache until all of their elements were taken."""
TILED_BYTES = 8 << 20
"""Smaller arrays fit in the cache."""
TILED_LENGTH = 1024
"""Few rows or columns take few lines at a time anyway."""


def _copied(value: Any) -> Any:
    """A copy of an array in C order."""
    if (
        type(value) is not np.ndarray
        or value.ndim != 2
        or value.nbytes < TILED_BYTES
        or min(value.shape) < TILED_LENGTH
        or abs(value.strides[0]) >= abs(value.strides[1])
    ):
        return value.copy(order="C")
    out = np.empty(value.shape, value.dtype)
    for i in range(0, value.shape[0], TILE):
        for j in range(0, value.shape[1], TILE):
            out[i : i + TILE, j : j + TILE] = value[i : i + TILE, j : j + TILE]
    return out
