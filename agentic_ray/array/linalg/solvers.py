"""Powers and chains of matrices, tensor equations, least squares, and leading singular vectors by
random projection."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import sequence_of
from agentic_ray.array.core.build import leaf, strict_operand
from agentic_ray.array.creation import eye, zeros
from agentic_ray.array.elementwise import conj, divide, where
from agentic_ray.array.linalg.decompositions import (
    SVDResult,
    default_rtol,
    inexact,
    inv,
    qr,
    solve,
    svd,
)
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.structure import matrix_operand
from agentic_ray.array.linalg.vectors import dot
from agentic_ray.array.manipulation import (
    broadcast_to,
    expand_dims,
    ravel,
    reshape,
    squeeze,
    transpose,
)
from agentic_ray.array.statistics import count_nonzero
from agentic_ray.array.statistics import sum as _sum
from agentic_ray.errors import InvalidArgumentError


def matrix_power(a: Any, n: int) -> Array:
    """Multiply each matrix ``n`` times with itself; the inverse for negative ``n``.

    Raises
    ------
    TypeError
        ``n`` is no integer.
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, singular.
    """
    node = matrix_operand("matrix_power", a, square=True)
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError("exponent must be an integer") from None
    if n == 0:
        unit = eye(node.shape[-1], dtype=node.dtype)
        return broadcast_to(unit, node.shape).copy()
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


def lstsq(a: Any, b: Any, rcond: float | None = None) -> tuple[Array, Array, Any, Array]:
    """Return the vector of least norm among those that minimise ``norm(a @ x - b)``, as in NumPy.

    The method is the singular value decomposition, which for a tall ``a`` is made chunk by chunk.
    The rank is computed at the call, because the shape of the residuals depends on it.

    Parameters
    ----------
    a : Array
        Matrix of shape (m, n).
    b : Array
        Right-hand sides, of shape (m,) or (m, k).
    rcond : float, optional
        Singular values below this times the largest count as zero; default: the larger of m
        and n times the machine's precision; -1: the precision itself.

    Returns
    -------
    x : Array
        Solutions, of shape (n,) or (n, k).
    residuals : Array
        Squared norm of ``b - a @ x`` for each column of ``b``; empty if ``a`` lacks full column
        rank or has not more rows than columns.
    rank : int
    s : Array
        Singular values of ``a``.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``a`` is not a matrix, ``b`` neither vector nor matrix, or their rows differ in number.
    """
    node, right = inexact("lstsq", a), strict_operand(b)
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
    limit = float(np.finfo(node.dtype).eps) if rcond == -1 else limit
    kept = s > s[:1] * limit
    rank = int(count_nonzero(kept))
    # The direction of a singular value that counts as zero is left out, not divided by it.
    inverse = where(kept, divide(1.0, where(kept, s, 1.0)), 0.0)
    projected = matmul(conj(u.T), target)
    x = matmul(conj(vh.T), projected * expand_dims(inverse, axis=1))
    residuals = zeros((0,), dtype=s.dtype)
    if rank == node.shape[1] < node.shape[0]:
        # Computed from the columns of U, not from x, whose error is that of the largest solution.
        rest = target - matmul(u, projected)
        residuals = _sum((rest * conj(rest)).real, axis=0)
    return (squeeze(x, axis=1).copy() if vector else x), residuals, np.int32(rank), s


def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """Multiply several matrices, in the order that takes the fewest multiplications.

    Parameters
    ----------
    arrays : sequence of array_like
        Matrices; the first and the last may be vectors.
    out : array, optional
        Array of the result's shape and dtype.

    Raises
    ------
    ValueError
        There are fewer than two arrays, or shapes do not fit.
    numpy.linalg.LinAlgError
        An array in the middle is no matrix.

    References
    ----------
    T. Cormen et al., "Introduction to Algorithms", chapter 15.2 (matrix chain multiplication).

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.linalg.multi_dot([xp.ones((2, 50)), xp.ones((50, 3)), [1, 1, 1]])
    Array([150., 150.], dtype=float64)
    """
    found = [Array(strict_operand(x)) for x in sequence_of(arrays)]
    if len(found) < 2:
        raise ValueError("Expecting at least two arrays.")
    if len(found) == 2:
        return dot(found[0], found[1], out)
    first, last = found[0].ndim, found[-1].ndim
    if first == 1:
        found[0] = expand_dims(found[0], 0)
    if last == 1:
        found[-1] = expand_dims(found[-1], 1)
    for x in found:
        if x.ndim != 2:
            raise np.linalg.LinAlgError(
                f"{x.ndim}-dimensional array given. Array must be two-dimensional"
            )
    for one, other in itertools.pairwise(found):
        if one.shape[1] != other.shape[0]:
            raise ValueError(f"shapes {one.shape} and {other.shape} not aligned")
    splits = _best_splits([*[x.shape[0] for x in found], found[-1].shape[1]])
    result = _multiplied(found, splits, 0, len(found) - 1)
    if first == 1:
        result = result[0]
    if last == 1:
        result = result[..., 0]
    return dot(result, 1, out) if out is not None else result


def _best_splits(lengths: list[int]) -> dict[tuple[int, int], int]:
    """Return for each run of matrices the one after which its product is best divided in two."""
    count = len(lengths) - 1
    costs = {(i, i): 0 for i in range(count)}
    splits: dict[tuple[int, int], int] = {}
    for span in range(1, count):
        for i in range(count - span):
            j = i + span
            tried = [
                (costs[i, k] + costs[k + 1, j] + lengths[i] * lengths[k + 1] * lengths[j + 1], k)
                for k in range(i, j)
            ]
            costs[i, j], splits[i, j] = min(tried)
    return splits


def _multiplied(arrays: list[Array], splits: dict[tuple[int, int], int], i: int, j: int) -> Array:
    if i == j:
        return arrays[i]
    k = splits[i, j]
    return matmul(_multiplied(arrays, splits, i, k), _multiplied(arrays, splits, k + 1, j))


def tensorsolve(a: Any, b: Any, axes: Any = None) -> Array:
    """Solve ``tensordot(a, x, x.ndim) == b`` for ``x``.

    Parameters
    ----------
    a : array_like
        Array of shape ``b.shape + q``, the lengths in ``q`` multiplying to the size of ``b``.
    b : array_like
    axes : sequence of int, optional
        Axes of ``a`` that are moved to the end first.

    Raises
    ------
    numpy.linalg.LinAlgError
        Sizes do not fit; or, when computed, ``a`` is singular.
    """
    left, right = Array(strict_operand(a)), Array(strict_operand(b))
    if axes is not None:
        order = [axis for axis in range(left.ndim) if axis not in axes]
        left = transpose(left, (*order, *axes))
    shape = left.shape[right.ndim :]
    size = math.prod(shape)
    if left.size != size**2:
        raise np.linalg.LinAlgError(
            "Input arrays must satisfy the requirement prod(a.shape[b.ndim:]) == "
            "prod(a.shape[:b.ndim])"
        )
    return reshape(solve(reshape(left, (size, size)), ravel(right)), shape)


def tensorinv(a: Any, ind: int = 2) -> Array:
    """Invert ``a`` as a map from its last axes to its first ``ind`` ones.

    Raises
    ------
    ValueError
        ``ind`` is not positive.
    numpy.linalg.LinAlgError
        The map is not square; or, when computed, singular.
    """
    array = Array(strict_operand(a))
    if ind <= 0:
        raise ValueError("Invalid ind argument.")
    shape = (*array.shape[ind:], *array.shape[:ind])
    columns = math.prod(array.shape[ind:])
    return reshape(inv(reshape(array, (columns, -1))), shape)


def svd_compressed(
    x: Array,
    k: int,
    /,
    *,
    oversample: int = 10,
    power_iterations: int = 2,
    seed: int = 0,
) -> SVDResult:
    """Approximate the ``k`` largest singular values of a matrix and their vectors.

    The error in norm is with high probability within a small factor of the largest singular value
    that is left out; power iterations bring the factor towards one.

    Parameters
    ----------
    x : Array
        Matrix of shape (m, n).
    k : int
        Number of singular values, at most min(m, n).
    oversample : int
        Additional directions that are tried.
    power_iterations : int
        Passes over ``x`` and back that sharpen the directions; each costs two products.
    seed : int
        Seed of the random directions; equal seeds give equal results.

    Returns
    -------
    SVDResult
        Factors of shapes (m, k), (k,), (k, n).

    Raises
    ------
    InvalidArgumentError
        ``k`` is out of range, or another number is negative.

    References
    ----------
    N. Halko, P.-G. Martinsson and J. Tropp, "Finding structure with randomness", SIAM Review
    53(2), 2011 (algorithms 4.4 and 5.1).

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> u, s, vh = xp.linalg.svd_compressed(xp.eye(6) * 3, 2)
    >>> s.shape, vh.shape
    ((2,), (2, 6))
    """
    node = inexact("svd_compressed", x)
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
