"""Facts about any object as an array: ndim, shape, size and others; NumPy's temporary settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import (
    errstate,
    get_printoptions,
    geterr,
    geterrcall,
    iterable,
    printoptions,
    set_printoptions,
    seterr,
    seterrcall,
)
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape

__all__ = [
    "errstate", "get_printoptions", "geterr", "geterrcall", "isscalar", "iterable", "ndim",
    "printoptions", "set_printoptions", "seterr", "seterrcall", "shape", "size",
]  # fmt: skip


def ndim(a: Any) -> int:
    """Return the number of axes of an array, a number or nested sequences."""
    return strict_operand(a).ndim


def shape(a: Any) -> Shape:
    """Return the lengths of the axes of an array, a number or nested sequences."""
    return strict_operand(a).shape


def size(a: Any, axis: Any = None) -> int:
    """Return the number of elements, or the product of the lengths along one axis or several."""
    node = strict_operand(a)
    if axis is None:
        return node.size
    axes = normalize_axis_tuple(axis, node.ndim)
    return int(np.prod([node.shape[a] for a in axes], dtype=np.int64))


def isscalar(element: Any) -> bool:
    """Whether ``element`` is a number or a text, or a result without axes (for which NumPy has
    scalars)."""
    return element._is_scalar if isinstance(element, Array) else np.isscalar(element)
