"""Powers of a matrix, least squares, and leading singular vectors by random projection."""

from __future__ import annotations

import operator

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import leaf, strict_operand
from agentic_ray.array.creation import eye, zeros
from agentic_ray.array.elementwise import conj, divide, where
from agentic_ray.array.linalg.decompositions import (
    SVDResult,
    _inexact,
    default_rtol,
    inv,
    qr,
    svd,
)
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.structure import matrix_operand
from agentic_ray.array.manipulation import broadcast_to, expand_dims, squeeze
from agentic_ray.array.statistics import count_nonzero
from agentic_ray.array.statistics import sum as _sum
from agentic_ray.errors import InvalidArgumentError


def matrix_power(x: Array, n: int, /) -> Array:
    """Each matrix multiplied ``n`` times with itself; the inverse's power for negative ``n``."""
    node = matrix_operand("matrix_power", x, square=True)
    n = operator.index(n)
    if n == 0:
        unit = eye(node.shape[-1], dtype=node.dtype)
        return broadcast_to(unit, node.shape)
    base = Array(node)
    if n < 0:
        base, n = inv(base), -n
    result: Array | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    assert result is not None
    return result


def lstsq(a: Array, b: Array, /, rcond: float | None = None) -> tuple[Array, Array, int, Array]:
    """The vector of least norm among those that minimise ``norm(a @ x - b)``, as in NumPy.

    Through the singular value decomposition, which for a tall ``a`` is made chunk by chunk.
    The rank is computed at the call, because the shape of the residuals depends on it.

    Parameters
    ----------
    a : Array
        (m, n)
    b : Array
        (m,) or (m, k)
    rcond : float, optional
        Singular values below this times the largest count as zero; default: the larger of m
        and n times the machine's precision.

    Returns
    -------
    x : Array
        (n,) or (n, k)
    residuals : Array
        Squared norm of ``b - a @ x`` for each column of ``b``; empty if ``a`` has not full
        column rank or not more rows than columns.
    rank : int
    s : Array
        Singular values of ``a``.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``a`` is not a matrix, ``b`` neither vector nor matrix, or their rows differ in number.
    """
    node, right = _inexact("lstsq", a), strict_operand(b)
    if node.ndim != 2 or right.ndim not in (1, 2):
        raise np.linalg.LinAlgError(f"lstsq: shapes {node.shape} and {right.shape}")
    if node.shape[0] != right.shape[0]:
        raise np.linalg.LinAlgError(
            f"lstsq: {node.shape[0]} rows but right-hand sides of {right.shape[0]}"
        )
    target = Array(right)
    vector = right.ndim == 1
    target = expand_dims(target, axis=1) if vector else target
    u, s, vh = svd(Array(node), full_matrices=False)
    s.persist()
    limit = default_rtol(node) if rcond is None else rcond
    kept = s > s[:1] * limit
    rank = int(count_nonzero(kept))
    # Where a value counts as zero its direction is left out, not divided by it.
    inverse = where(kept, divide(1.0, where(kept, s, 1.0)), 0.0)
    projected = matmul(conj(u.T), target)
    x = matmul(conj(vh.T), projected * expand_dims(inverse, axis=1))
    residuals = zeros((0,), dtype=s.dtype)
    if rank == node.shape[1] < node.shape[0]:
        # Not from x, whose error is that of the largest solution, but from what U spans.
        rest = target - matmul(u, projected)
        residuals = _sum((rest * conj(rest)).real, axis=0)
    return (squeeze(x, axis=1) if vector else x), residuals, rank, s


def svd_compressed(
    x: Array,
    k: int,
    /,
    *,
    oversample: int = 10,
    power_iterations: int = 2,
    seed: int = 0,
) -> SVDResult:
    """The ``k`` largest singular values of a matrix and their vectors, approximately.

    The error in norm is with high probability within a small factor of the largest singular
    value that is left out, which power iterations bring towards one.

    Parameters
    ----------
    x : Array
        (m, n)
    k : int
        At most min(m, n).
    oversample : int
        Additional directions that are tried.
    power_iterations : int
        Passes over ``x`` and back that sharpen the directions; each costs two products.
    seed : int
        Of the random directions; equal seeds give equal results.

    Returns
    -------
    SVDResult
        Of shapes (m, k), (k,), (k, n).

    Raises
    ------
    InvalidArgumentError
        ``k`` is out of range, or another number is negative.

    References
    ----------
    N. Halko, P.-G. Martinsson and J. Tropp, "Finding structure with randomness", SIAM Review
    53(2), 2011 (algorithms 4.4 and 5.1).
    """
    node = _inexact("svd_compressed", x)
    k, least = operator.index(k), min(node.shape[-2:])
    if node.ndim != 2 or not 1 <= k <= least:
        raise InvalidArgumentError(f"svd_compressed: k={k} of a matrix of shape {node.shape}")
    if oversample < 0 or power_iterations < 0:
        raise InvalidArgumentError("oversample and power_iterations must not be negative")
    matrix = Array(node)
    width = min(k + oversample, least)
    directions = np.random.default_rng(seed).standard_normal((node.shape[1], width))
    transposed = conj(matrix.T)
    q = qr(matmul(matrix, Array(leaf(directions.astype(node.dtype))))).Q
    for _ in range(power_iterations):
        # Orthonormal again after each product: small values would drown in rounding otherwise.
        q = qr(matmul(matrix, qr(matmul(transposed, q)).Q)).Q
    u, s, vh = svd(matmul(conj(q.T), matrix), full_matrices=False)
    return SVDResult(matmul(q, u[:, :k]), s[:k], vh[:k])
