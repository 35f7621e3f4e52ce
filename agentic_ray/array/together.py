"""Several arrays at once: what they share is computed once."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate


def compute(*arrays: Array, progress: bool | None = None) -> tuple[np.ndarray[Any, Any], ...]:
    """The values of ``arrays`` as NumPy arrays of the caller's own, in order.

    Raises
    ------
    TypeError
        One of them is not an `agentic_ray.array` array.
    """
    values = evaluate.values(_nodes(arrays), progress=progress)
    return tuple(np.array(value) for value in values)


def persist(*arrays: Array) -> tuple[Array, ...]:
    """Compute ``arrays`` now and keep their chunks where they were made; they then hold them.

    Raises
    ------
    TypeError
        One of them is not an `agentic_ray.array` array.
    """
    for array, node in zip(arrays, evaluate.persist(_nodes(arrays)), strict=True):
        array._computed(node)
    return arrays


def _nodes(arrays: tuple[Array, ...]) -> list[Any]:
    for array in arrays:
        if not isinstance(array, Array):
            raise TypeError(f"expected an agentic_ray.array array, not {type(array).__name__}")
    return [array._node for array in arrays]
