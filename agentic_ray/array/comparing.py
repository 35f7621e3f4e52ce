"""Comparisons of two arrays as a whole. The data are computed: the result is a Python bool."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.elementwise import equal, isclose, isnan, logical_and, logical_or
from agentic_ray.array.statistics import all


def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are equal within a tolerance: see `isclose`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.allclose([1.0, 2.0], [1.0, 2.0000001])
    True
    """
    return bool(all(isclose(a, b, rtol, atol, equal_nan)))


def _arrays(a1: Any, a2: Any) -> tuple[Array, Array] | None:
    """Return both as arrays; None if one of them is none."""
    try:
        return Array(strict_operand(a1)), Array(strict_operand(a2))
    except (TypeError, ValueError):
        return None


def _same(pair: tuple[Array, Array]) -> Array:
    """Return where both are equal: nowhere if their dtypes cannot be compared, as of a date and a
    number."""
    try:
        return pair[0] == pair[1]
    except TypeError:
        return equal(pair[0], pair[0]) & np.False_


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    """Whether shapes and all elements are the same.

    Parameters
    ----------
    a1, a2 : array_like
    equal_nan : bool
        Whether NaN (for dates NaT) is equal to NaN.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.array_equal(xp.arange(3), [0, 1, 2])
    True
    """
    pair = _arrays(a1, a2)
    if pair is None or pair[0].shape != pair[1].shape:
        return False
    same = _same(pair)
    if equal_nan and all_may_be_nan(pair):
        same = logical_or(same, logical_and(isnan(pair[0]), isnan(pair[1])))
    return bool(all(same))


def all_may_be_nan(arrays: tuple[Array, ...]) -> bool:
    """Whether each of ``arrays`` is of a dtype that has a NaN or NaT."""
    return not any(x.dtype.kind not in "fcmM" for x in arrays)


def array_equiv(a1: Any, a2: Any) -> bool:
    """Whether shapes broadcast to each other and all elements are then the same."""
    pair = _arrays(a1, a2)
    if pair is None:
        return False
    try:
        broadcast_shapes([pair[0].shape, pair[1].shape])
    except ValueError:
        return False
    return bool(all(_same(pair)))
