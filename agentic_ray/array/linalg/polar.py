"""Computes the unitary factor of a square matrix of several chunks by QDWH: products, QR, Cholesky.

The caller computes the steps one after the other; their results stay in tiles in the cluster, and
no task is given the whole matrix. ``spectral`` makes spectra of such factors.

References
----------
Y. Nakatsukasa, Z. Bai and F. Gygi, "Optimizing Halley's iteration for computing the matrix polar
decomposition", SIAM J. Matrix Anal. Appl. 31(5), 2010.
Y. Nakatsukasa and N. Higham, "Backward stability of iterations for computing the polar
decomposition", SIAM J. Matrix Anal. Appl. 33(2), 2012.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.views import rechunk
from agentic_ray.array.creation import eye
from agentic_ray.array.elementwise import abs as _abs
from agentic_ray.array.elementwise import conj
from agentic_ray.array.linalg.columns import blocked_qr
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.tiled import tiled_cholesky
from agentic_ray.array.linalg.triangular import solve_triangular
from agentic_ray.array.manipulation import concat
from agentic_ray.array.statistics import max as _max
from agentic_ray.array.statistics import sum as _sum

MOST_TILES = 32
"""Most tiles along an axis: a product takes as many tasks as there are tiles, each of a row and a
column."""
CHOLESKY_WEIGHT = 100.0
"""Up to this weight a step goes through ``I + c x* x``, whose condition is at most 1 + c; beyond it
through QR, which costs twice as much and is stable for every weight (2010, section 5.3)."""


def tile_length(chunks: grids.Chunks) -> int:
    """Return the side of square tiles of about the size of a matrix's chunks."""
    area = math.prod([max(lengths) for lengths in chunks])
    longest = max(grids.shape_of(chunks))
    return max(math.isqrt(area), -(-longest // MOST_TILES))


def tiled(x: Array, side: int) -> Array:
    """Cut a matrix in square tiles."""
    grid = tuple([grids.regular(length, side) for length in x.shape])
    return Array(rechunk(x._node, grid))


def dagger(x: Array) -> Array:
    """Return the conjugate transpose of a matrix."""
    return conj(x.T) if x.dtype.kind == "c" else x.T


def persisted(*arrays: Array) -> list[Array]:
    """Compute arrays together and keep them in the cluster."""
    return [Array(node) for node in evaluate.persist([x._node for x in arrays])]


def fetched(*arrays: Array) -> list[float]:
    """Compute arrays without axes together and return their values."""
    return [float(value) for value in evaluate.values([x._node for x in arrays])]


def frobenius(x: Array) -> Array:
    """Sum the squares of a matrix's elements, in double precision."""
    sizes = _abs(x)
    return _sum(sizes * sizes, dtype=np.float64)


def unit_like(x: Array) -> Array:
    """Return the unit matrix, cut as the square matrix ``x`` is."""
    return eye(x.shape[0], dtype=x.dtype, chunks=x.chunks)


def weights(lower: float, precision: float) -> Iterator[tuple[float, float, float]]:
    """Yield the weights (a, b, c) of each step, until singular values from ``lower`` to 1 are all
    1.

    A step takes a singular value s to ``s (a + b s²) / (1 + c s²)``; these weights take the
    interval to the one nearest to 1. Six steps are enough for double precision.
    """
    while 1 - lower > 10 * precision:
        square = lower * lower
        d = math.cbrt(4 * (1 - square) / (square * square))
        root = math.sqrt(1 + d)
        a = root + math.sqrt(8 - 4 * d + 8 * (2 - square) / (square * root)) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        yield a, b, c
        lower = min(lower * (a + b * square) / (1 + c * square), 1.0)


def polar_unitary(x: Array, side: int, *, hermitian: bool = False) -> Array:
    """Compute the unitary factor U of ``x = U H`` at the call, and keep it in the cluster.

    Parameters
    ----------
    x : Array
        Square matrix of shape (n, n), without infinities and NaN.
    side : int
        Side of the tiles.
    hermitian : bool
        Whether ``x`` is Hermitian; U then is, too.

    Returns
    -------
    Array
        Factor, orthogonal to working precision as far as singular values exceed ``eps`` times the
        largest. Smaller ones come out between 0 and 1; a caller who needs all of U checks it.
    """
    sizes = _abs(x)
    columns, rows = fetched(_max(_sum(sizes, axis=0)), _max(_sum(sizes, axis=1)))
    if not columns:
        return unit_like(tiled(x, side))
    # ||x||_2² <= ||x||_1 ||x||_inf, and they exceed it by a factor of at most n together.
    precision = float(np.finfo(x.dtype).eps)
    lowest = precision / math.sqrt(x.shape[0])
    (x,) = persisted(tiled(x / (math.sqrt(columns) * math.sqrt(rows)), side))
    for a, b, c in weights(lowest, precision):
        step = _by_qr(x, a, b, c) if c > CHOLESKY_WEIGHT else _by_cholesky(x, a, b, c, hermitian)
        step = tiled(step, side)
        (x,) = persisted((step + dagger(step)) / 2 if hermitian else step)
    return x


def _by_qr(x: Array, a: float, b: float, c: float) -> Array:
    n, side = x.shape[0], max(x.chunks[0])
    stacked = concat([x * math.sqrt(c), unit_like(x)])
    q = Array(blocked_qr(stacked._node)[0])
    product = matmul(tiled(q[:n], side), dagger(tiled(q[n:], side)))
    return x * (b / c) + product * ((a - b / c) / math.sqrt(c))


def _by_cholesky(x: Array, a: float, b: float, c: float, hermitian: bool) -> Array:
    turned = x if hermitian else dagger(x)
    lower = Array(tiled_cholesky((matmul(turned, x) * c + unit_like(x))._node))
    solved = solve_triangular(lower, turned, lower=True)
    solved = solve_triangular(dagger(lower), solved)
    return x * (b / c) + dagger(tiled(solved, max(x.chunks[0]))) * (a - b / c)
