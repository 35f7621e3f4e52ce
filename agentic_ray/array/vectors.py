"""Products of vectors in space."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.manipulation import moveaxis, stack


def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Array:
    """Compute the cross product of vectors of three components.

    Parameters
    ----------
    a, b : array_like
        Vectors; those of two components get a third one of 0 (with NumPy's warning; for two of
        these the result is only the third component of the product).
    axisa, axisb, axisc : int
        Axes of the components in ``a``, in ``b`` and in the result.
    axis : int, optional
        Axis for all three of these.

    Raises
    ------
    ValueError
        The number of components is neither two nor three.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.cross([1, 2, 3], [4, 5, 6])
    Array([-3,  6, -3], dtype=int64)
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    first, second = strict_operand(a), strict_operand(b)
    if first.ndim < 1 or second.ndim < 1:
        raise ValueError("At least one array has zero dimension")
    dtype = np.result_type(first.dtype, second.dtype)
    left = moveaxis(Array(cast(first, dtype)), normalize_axis_index(axisa, first.ndim), -1)
    right = moveaxis(Array(cast(second, dtype)), normalize_axis_index(axisb, second.ndim), -1)
    lengths = left.shape[-1], right.shape[-1]
    if not {*lengths} <= {2, 3}:
        raise ValueError("incompatible dimensions for cross product\n(dimension must be 2 or 3)")
    if 2 in lengths:
        warnings.warn(
            "Arrays of 2-dimensional vectors are deprecated. Use arrays of 3-dimensional vectors "
            "instead. (deprecated in NumPy 2.0)",
            DeprecationWarning,
            stacklevel=2,
        )
    broadcast_shapes([left.shape[:-1], right.shape[:-1]], "cross")
    x, y = (
        [side[..., i] for i in range(n)] for side, n in zip((left, right), lengths, strict=True)
    )
    third = x[0] * y[1] - x[1] * y[0]
    if lengths == (2, 2):
        return third
    if lengths == (3, 3):
        parts = [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], third]
    elif lengths == (2, 3):
        parts = [x[1] * y[2], -(x[0] * y[2]), third]
    else:
        parts = [-(x[2] * y[1]), x[2] * y[0], third]
    return moveaxis(stack(parts, axis=-1), -1, axisc)
