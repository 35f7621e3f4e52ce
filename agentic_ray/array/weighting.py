"""Weights of elements, for `average` and weighted quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import broadcast, permuted, reshaped


def weights_like(weights: Any, node: Node, axis: Any) -> Node:
    """Repeat ``weights`` to the shape of ``node``, along the axes that they lack.

    Raises
    ------
    TypeError
        The weights have another shape, and no axis is given.
    ValueError
        The weights do not fit the axes.
    """
    heavy = strict_operand(weights)
    if heavy.shape == node.shape:
        return heavy
    if axis is None:
        raise TypeError("Axis must be specified when shapes of a and weights differ.")
    axes = normalize_axis_tuple(axis, node.ndim, argname="axis")
    if heavy.shape != tuple([node.shape[a] for a in axes]):
        raise ValueError(
            "Shape of weights must be consistent with shape of a along specified axis."
        )
    heavy = permuted(heavy, tuple(np.argsort(axes).tolist()))
    spread = reshaped(heavy, tuple([n if a in axes else 1 for a, n in enumerate(node.shape)]))
    return broadcast(spread, node.shape, node.chunks)
