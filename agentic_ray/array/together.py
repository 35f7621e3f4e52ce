"""Computes several arrays at once, and the parts that they share only once."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate


def compute(*arrays: Array, progress: bool | None = None) -> tuple[np.ndarray[Any, Any], ...]:
    """Compute the values of ``arrays``; return NumPy arrays of the caller's own, in order.

    Raises
    ------
    TypeError
        An argument is not an `agentic_ray.array` array.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> import agentic_ray.array as xp
    >>> x = xp.arange(4)
    >>> ar.compute(x.sum(), x * 2)
    (array(6), array([0, 2, 4, 6]))
    """
    values = evaluate.values(_nodes(arrays), progress=progress)
    return tuple(np.array(value) for value in values)


def persist(*arrays: Array) -> tuple[Array, ...]:
    """Compute ``arrays`` now and keep their chunks where they were made; they then hold them.

    Raises
    ------
    TypeError
        An argument is not an `agentic_ray.array` array.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> import agentic_ray.array as xp
    >>> (x,) = ar.persist(xp.arange(4) * 2)
    >>> float(x.sum())
    12.0
    """
    for array, node in zip(arrays, evaluate.persist(_nodes(arrays)), strict=True):
        array._computed(node)
    return arrays


def _nodes(arrays: tuple[Array, ...]) -> list[Any]:
    for array in arrays:
        if not isinstance(array, Array):
            raise TypeError(f"expected an agentic_ray.array array, not {type(array).__name__}")
    return [array._node for array in arrays]
