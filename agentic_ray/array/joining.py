"""Joining arrays in NumPy's many ways, and taking them apart: vstack, block, hsplit and others."""

from __future__ import annotations

from typing import Any

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import array, asarray, sequence_of
from agentic_ray.array.describing import ndim
from agentic_ray.array.manipulation import (
    array_split,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    concatenate,
    split,
)
from agentic_ray.array.small import by_numpy_if_small

__all__ = [
    "array_split",
    "block",
    "column_stack",
    "dsplit",
    "dstack",
    "hsplit",
    "hstack",
    "row_stack",
    "split",
    "vsplit",
    "vstack",
]


def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    """Join arrays one after the other as rows; arguments as in `concatenate`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.vstack(([1, 2], [3, 4]))
    Array([[1, 2],
           [3, 4]], dtype=int64)
    """
    rows = [atleast_2d(x) for x in sequence_of(tup)]
    return concatenate(rows, 0, dtype=dtype, casting=casting)


def row_stack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    """Join as `vstack`, under an older name."""
    return vstack(tup, dtype=dtype, casting=casting)


def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    """Join arrays one after the other as columns; vectors end to end."""
    parts = [atleast_1d(x) for x in sequence_of(tup)]
    axis = 0 if parts and parts[0].ndim == 1 else 1
    return concatenate(parts, axis, dtype=dtype, casting=casting)


@by_numpy_if_small
def dstack(tup: Any) -> Array:
    """Join arrays one after the other along the third axis."""
    return concatenate([atleast_3d(x) for x in sequence_of(tup)], 2)


@by_numpy_if_small
def column_stack(tup: Any) -> Array:
    """Join vectors as the columns of a matrix; matrices are put beside each other.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.column_stack(([1, 2], [3, 4]))
    Array([[1, 3],
           [2, 4]], dtype=int64)
    """
    parts = [asarray(x) for x in sequence_of(tup)]
    return concatenate([x if x.ndim >= 2 else array(x, ndmin=2).T for x in parts], 1)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Split along the second axis; a vector along its only one. See `split`."""
    if ndim(ary) == 0:
        raise ValueError("hsplit only works on arrays of 1 or more dimensions")
    return split(ary, indices_or_sections, 1 if ndim(ary) > 1 else 0)


def vsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Split along the first of at least two axes. See `split`."""
    if ndim(ary) < 2:
        raise ValueError("vsplit only works on arrays of 2 or more dimensions")
    return split(ary, indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    """Split along the third of at least three axes. See `split`."""
    if ndim(ary) < 3:
        raise ValueError("dsplit only works on arrays of 3 or more dimensions")
    return split(ary, indices_or_sections, 2)


# --- blocks ------------------------------------------------------------------------------


@by_numpy_if_small
def block(arrays: Any) -> Array:
    """Put an array together from nested lists of blocks: the innermost lists along the last axis,
    those around them along the one before it, and so on.

    Raises
    ------
    ValueError
        Lists are empty or nested unevenly, or shapes do not fit.
    TypeError
        A tuple is among the lists.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.block([[xp.eye(2), xp.zeros((2, 1))], [xp.ones((1, 3))]])
    Array([[1., 0., 0.],
           [0., 1., 0.],
           [1., 1., 1.]], dtype=float64)
    """
    depth = _depth(arrays, "arrays")
    width = max(depth, _most_axes(arrays))
    return _joined(arrays, depth, width).copy()


def _depth(nested: Any, path: str) -> int:
    """Return the depth to which lists are nested, everywhere the same."""
    if isinstance(nested, tuple):
        raise TypeError(
            f"{path} is a tuple. Only lists can be used to arrange blocks, and np.block does not "
            "allow implicit conversion from tuple to ndarray."
        )
    if not isinstance(nested, list):
        return 0
    if not nested:
        raise ValueError(f"List at {path} cannot be empty")
    depths = [_depth(entry, f"{path}[{i}]") for i, entry in enumerate(nested)]
    if len(set(depths)) > 1:
        raise ValueError(
            f"List depths are mismatched. First element was at depth {depths[0] + 1}, but there "
            f"is an element at another depth in {path}"
        )
    return depths[0] + 1


def _most_axes(nested: Any) -> int:
    return max(map(_most_axes, nested)) if isinstance(nested, list) else ndim(nested)


def _joined(nested: Any, depth: int, width: int) -> Array:
    if not depth:
        return array(nested, copy=None, ndmin=width)
    return concatenate([_joined(entry, depth - 1, width) for entry in nested], -depth)
