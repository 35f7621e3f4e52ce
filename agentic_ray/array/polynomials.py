"""Polynomials as vectors of coefficients, the highest power first: NumPy's older functions.

Coefficients are few: they are brought here and worked on by NumPy. Values (`polyval`) and fits
(`polyfit`) are made chunk by chunk.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core.build import without_arrays
from agentic_ray.array.creation import zeros_like
from agentic_ray.array.elementwise import sqrt
from agentic_ray.array.linalg.decompositions import inv
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.solvers import lstsq
from agentic_ray.array.linalg.structure import vander
from agentic_ray.array.linalg.vectors import outer
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import sum as _sum
from agentic_ray.errors import InvalidTypeError


def _coefficients(p: Any) -> Any:
    """Return coefficients as NumPy takes them, in this process.

    Raises
    ------
    InvalidTypeError
        ``p`` is a ``numpy.poly1d``, which is left out: NumPy's result would be one, too.
    """
    if isinstance(p, np.poly1d):
        raise InvalidTypeError("poly1d is left out: give its coefficients, p.coeffs")
    return np.asarray(without_arrays(p))


def poly(seq_of_zeros: Any) -> Array:
    """Return the coefficients of the polynomial with these zeros, or of a matrix's characteristic
    one.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.poly([1, 2])
    Array([ 1., -3.,  2.], dtype=float64)
    """
    return asarray(np.poly(_coefficients(seq_of_zeros)))


def roots(p: Any) -> Array:
    """Return the zeros of a polynomial.

    Raises
    ------
    ValueError
        ``p`` is no vector.
    """
    return asarray(np.roots(_coefficients(p)))


def polyadd(a1: Any, a2: Any) -> Array:
    """Add two polynomials."""
    return asarray(np.polyadd(_coefficients(a1), _coefficients(a2)))


def polysub(a1: Any, a2: Any) -> Array:
    """Subtract one polynomial from another."""
    return asarray(np.polysub(_coefficients(a1), _coefficients(a2)))


def polymul(a1: Any, a2: Any) -> Array:
    """Multiply two polynomials."""
    return asarray(np.polymul(_coefficients(a1), _coefficients(a2)))


def polydiv(u: Any, v: Any) -> tuple[Array, Array]:
    """Divide one polynomial by another; return quotient and remainder."""
    quotient, rest = np.polydiv(_coefficients(u), _coefficients(v))
    return asarray(quotient), asarray(rest)


def polyder(p: Any, m: int = 1) -> Array:
    """Return the ``m``-th derivative of a polynomial.

    Raises
    ------
    ValueError
        ``m`` is negative.
    """
    return asarray(np.polyder(_coefficients(p), m))


def polyint(p: Any, m: int = 1, k: Any = None) -> Array:
    """Return the ``m``-th antiderivative of a polynomial, ``k`` its constants of integration.

    Raises
    ------
    ValueError
        ``m`` is negative, or there are too few constants.
    """
    return asarray(np.polyint(_coefficients(p), m, None if k is None else _coefficients(k)))


@by_numpy_if_small
def polyval(p: Any, x: Any) -> Array:
    """Evaluate a polynomial at ``x``, elementwise.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.polyval([3, 0, 1], [5, 6])
    Array([ 76, 109], dtype=int64)
    """
    coefficients = _coefficients(p)
    at = x if isinstance(x, Array) else asarray(x)
    result = zeros_like(at)
    for coefficient in coefficients:
        result = result * at + coefficient
    return result


def polyfit(
    x: Any,
    y: Any,
    deg: int,
    rcond: float | None = None,
    full: bool = False,
    w: Any = None,
    cov: bool | str = False,
) -> Any:
    """Fit the polynomial of degree ``deg`` that comes closest to ``y`` at ``x``, by least squares.

    Parameters
    ----------
    x : array_like
        Places, of shape (m,).
    y : array_like
        Values, of shape (m,) or (m, k).
    deg : int
    rcond : float, optional
        As in `linalg.lstsq`; default: m times the precision.
    full : bool
        Whether to return residuals, rank, singular values and ``rcond``, too.
    w : array_like, optional
        Weight of each difference, of shape (m,).
    cov : bool or "unscaled"
        Whether to return the covariance of the coefficients, too.

    Returns
    -------
    Array of coefficients, the highest power first; with ``full`` or ``cov`` a tuple

    Raises
    ------
    ValueError
        ``deg`` is negative, or there are too few points for ``cov``.
    TypeError
        Shapes do not fit.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.polyfit([0, 1, 2], [1, 3, 5], 1).round(6)
    Array([2., 1.], dtype=float64)
    """
    order = int(deg) + 1
    points, values = asarray(x) + 0.0, asarray(y) + 0.0
    if deg < 0:
        raise ValueError("expected deg >= 0")
    if points.ndim != 1:
        raise TypeError("expected 1D vector for x")
    if points.size == 0:
        raise TypeError("expected non-empty vector for x")
    if values.ndim < 1 or values.ndim > 2:
        raise TypeError("expected 1D or 2D array for y")
    if points.shape[0] != values.shape[0]:
        raise TypeError("expected x and y to have same length")
    rcond = len(points) * float(np.finfo(points.dtype).eps) if rcond is None else rcond
    powers, target = vander(points, order), values
    if w is not None:
        weights = asarray(w) + 0.0
        if weights.ndim != 1:
            raise TypeError("expected a 1-d array for weights")
        if weights.shape[0] != values.shape[0]:
            raise TypeError("expected w and y to have the same length")
        powers = powers * weights[:, None]
        target = target * (weights[:, None] if target.ndim == 2 else weights)
    scale = sqrt(_sum(powers * powers, axis=0))
    powers = powers / scale
    found, residuals, rank, singular = lstsq(powers, target, rcond)
    found = (found.T / scale).T
    if rank != order and not full:
        warnings.warn("Polyfit may be poorly conditioned", np.exceptions.RankWarning, stacklevel=2)
    if full:
        return found, residuals, rank, singular, rcond
    if not cov:
        return found
    base = inv(matmul(powers.T, powers)) / outer(scale, scale)
    factor: Any = 1
    if cov != "unscaled":
        if len(points) <= order:
            raise ValueError(
                "the number of data points must exceed order to scale the covariance matrix"
            )
        factor = residuals / (len(points) - order)
    if values.ndim == 1:
        return found, base * factor
    return found, base[:, :, None] * factor
