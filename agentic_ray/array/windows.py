"""Windows for signals, as vectors of ``M`` weights that fall off towards both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.creation import ones, zeros
from agentic_ray.array.elementwise import cos, less_equal, sqrt, where
from agentic_ray.array.ranges import arange
from agentic_ray.array.special import i0


def _window(M: Any, weights: Callable[[float], Array]) -> Array:
    """Make ``weights`` for the length, unless there is at most one weight."""
    length = np.array([0.0, M])[1]  # raises where NumPy does
    if length < 1:
        return zeros(0)
    return ones(1) if length == 1 else weights(length)


def bartlett(M: Any) -> Array:
    """Return the triangle of ``M`` weights that is zero at both ends."""

    def weights(length: float) -> Array:
        n = arange(1 - length, length, 2)
        return where(less_equal(n, 0), 1 + n / (length - 1), 1 - n / (length - 1))

    return _window(M, weights)


def hanning(M: Any) -> Array:
    """Return a raised cosine of ``M`` weights.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.hanning(3)
    Array([0., 1., 0.], dtype=float64)
    """

    def weights(length: float) -> Array:
        return 0.5 + 0.5 * cos(np.pi * arange(1 - length, length, 2) / (length - 1))

    return _window(M, weights)


def hamming(M: Any) -> Array:
    """Return a raised cosine of ``M`` weights that are not zero at the ends."""

    def weights(length: float) -> Array:
        return 0.54 + 0.46 * cos(np.pi * arange(1 - length, length, 2) / (length - 1))

    return _window(M, weights)


def blackman(M: Any) -> Array:
    """Return a sum of cosines, of ``M`` weights."""

    def weights(length: float) -> Array:
        n = arange(1 - length, length, 2)
        once, twice = cos(np.pi * n / (length - 1)), cos(2.0 * np.pi * n / (length - 1))
        return 0.42 + 0.5 * once + 0.08 * twice

    return _window(M, weights)


def kaiser(M: Any, beta: float) -> Array:
    """Return Kaiser's window of ``M`` weights, the narrower the larger ``beta`` is."""
    length, beta = np.array([0.0, M, beta])[1:].tolist()
    if length == 1:
        return ones(1)
    n = arange(0, length)
    alpha = (length - 1) / 2.0
    return i0(beta * sqrt(1 - ((n - alpha) / alpha) ** 2.0)) / i0(float(beta))
