"""Eigenvalues of Hermitian matrices and singular values of square ones: LAPACK's in one task, or by
blocks if the matrix is larger than a task should be given.

By blocks, the unitary factor of the matrix less a shift separates the eigenvalues above the shift
from those below it. A basis of either side makes two matrices of one, and so on until they are
small.

References
----------
Y. Nakatsukasa and N. Higham, "Stable and efficient spectral divide and conquer algorithms for the
symmetric eigenvalue decomposition and the SVD", SIAM J. Sci. Comput. 35(3), 2013.
N. Higham and P. Papadimitriou, "A parallel algorithm for computing the polar decomposition",
Parallel Computing 20(8), 1994 (the SVD from the polar decomposition).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import gufunc, gufunc_op, gufunc_picks
from agentic_ray.array.core.node import NDArray, Node
from agentic_ray.array.elementwise import abs as _abs
from agentic_ray.array.elementwise import maximum, real, sign, where
from agentic_ray.array.linalg.columns import blocked_qr
from agentic_ray.array.linalg.polar import (
    dagger,
    fetched,
    frobenius,
    persisted,
    polar_unitary,
    tile_length,
    tiled,
    unit_like,
)
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.structure import matrix_diagonal as diagonal
from agentic_ray.array.manipulation import concat
from agentic_ray.array.random import default_rng
from agentic_ray.array.statistics import max as _max
from agentic_ray.array.statistics import sum as _sum
from agentic_ray.array.triangles import tril, triu

NEGLIGIBLE = 1.0
"""Most that one division may drop, in units of ``sqrt(n) eps ||A||_F``: rounding errors of products
of A with orthonormal matrices were measured to be a fifth to a half of that, for n from 100 to
1000."""


def by_blocks(node: Node) -> bool:
    """Whether ``node`` is one matrix of several chunks that is too large for a task."""
    return node.ndim == 2 and node.blocks > 1 and node.nbytes > grids.rules().whole_matrix_bytes


# --- in one task -------------------------------------------------------------------------


def _eigh_kernel(xp: Any, x: Any) -> Any:
    return tuple(xp.linalg.eigh(x))


def _eigvalsh_kernel(xp: Any, x: Any) -> Any:
    return xp.linalg.eigvalsh(x)


_EIGH = gufunc_op("eigh", _eigh_kernel, 512)
_EIGVALSH = gufunc_op("eigvalsh", _eigvalsh_kernel, 256)


def whole_eigh(node: Node) -> tuple[Array, Array]:
    """Compute eigenvalues and vectors of each matrix of a stack, one LAPACK call each."""
    n = node.shape[-1]
    own = np.empty(0, node.dtype).real.dtype
    made = gufunc(_EIGH, [node], (2,), (n,), own)
    values, vectors = gufunc_picks(made, [((n,), own), ((n, n), node.dtype)])
    return Array(values), Array(vectors)


def whole_eigvalsh(node: Node) -> Array:
    """Compute the eigenvalues of each matrix of a stack, one LAPACK call each."""
    own = np.empty(0, node.dtype).real.dtype
    return Array(gufunc(_EIGVALSH, [node], (2,), node.shape[-1:], own))


# --- by blocks ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Division:
    """Settings shared by all parts of one matrix.

    Parameters
    ----------
    side : int
        Side of the tiles.
    negligible : float
        Frobenius norm of the part of the matrix that may be dropped.
    vectors : bool
        Whether vectors are wanted, or only the values.
    """

    side: int
    negligible: float
    vectors: bool

    def parts(self, x: Array) -> tuple[Array, Array | None]:
        """Return the eigenvalues of a Hermitian matrix and their vectors, still to be computed."""
        if x.nbytes <= max(grids.rules().whole_matrix_bytes, self.side**2 * x.itemsize):
            if not self.vectors:
                return whole_eigvalsh(x._node), None
            values, vectors = whole_eigh(x._node)
            return values, tiled(vectors, self.side)
        unit = unit_like(x)
        entries = real(diagonal(x)).compute().astype(np.float64)
        centre = float(entries.mean())
        spread = math.sqrt(fetched(frobenius(x - unit * centre))[0])
        if spread <= self.negligible:
            return real(diagonal(x)), unit
        for shift in _shifts(entries, spread / math.sqrt(entries.size)):
            halves = self.halves(x, shift)
            if halves is not None:
                break
        else:
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        found = [(basis, *self.parts(part)) for basis, part in halves]
        values = concat([own for _, own, _ in found])
        if not self.vectors:
            return values, None
        columns = [matmul(basis, own) for basis, _, own in found if own is not None]
        return values, tiled(concat(columns, axis=1), self.side)

    def halves(self, x: Array, shift: float) -> list[tuple[Array, Array]] | None:
        """Return bases of the eigenvectors below and above ``shift``, and the matrix in each basis.

        Return None if no eigenvalue is on one of the sides, or one is so near to the shift that it
        is on neither.
        """
        unit = unit_like(x)
        n = x.shape[0]
        above = (polar_unitary(x - unit * shift, self.side, hermitian=True) + unit) / 2
        (count,) = fetched(_sum(real(diagonal(above)), dtype=np.float64))
        rank = round(count)
        if not 0 < rank < n or abs(count - rank) > 0.1:
            return None
        upper, lower = self.bases(above, rank)
        image = matmul(x, upper)
        left, right = matmul(dagger(lower), matmul(x, lower)), matmul(dagger(upper), image)
        mixed = frobenius(matmul(dagger(lower), image))
        left, right = [tiled((part + dagger(part)) / 2, self.side) for part in (left, right)]
        lower, upper, left, right, mixed = persisted(lower, upper, left, right, mixed)
        if fetched(mixed)[0] > self.negligible**2:
            return None
        return [(lower, left), (upper, right)]

    def bases(self, projector: Array, rank: int) -> tuple[Array, Array]:
        """Return orthonormal bases of a projector's range and of its complement.

        The method is two steps of subspace iteration: the error of the first is that of the
        projector times the condition of a random matrix of ``rank`` columns, the second's is the
        projector's.
        """
        n = projector.shape[0]
        own = np.empty(0, projector.dtype).real.dtype
        start = default_rng(0).standard_normal((n, rank), dtype=own, chunks=(self.side, self.side))
        first = Array(blocked_qr(matmul(projector, start)._node)[0])
        image = matmul(projector, tiled(first, self.side))
        q = Array(blocked_qr(image._node, complete=True)[0])
        return tiled(q[:, :rank], self.side), tiled(q[:, rank:], self.side)


def _shifts(entries: NDArray, deviation: float) -> Iterator[float]:
    """Yield shifts at which to divide a spectrum, from the diagonal and the eigenvalues' standard
    deviation.

    The first shift has about half of the eigenvalues on either side, and avoids the diagonal's own
    entries, which are the eigenvalues of a nearly diagonal matrix. The next is the mean, which
    divides all spectra but those of one value, unless an eigenvalue lies there. But some eigenvalue
    is at least a standard deviation from the mean, so half a deviation up or down has eigenvalues
    on both sides.
    """
    ordered = np.sort(entries)
    quarter = ordered.size // 4
    middle = ordered[quarter : ordered.size - quarter]
    widest = int(np.argmax(np.diff(middle)))
    yield float(middle[widest] + middle[widest + 1]) / 2
    centre = float(entries.mean())
    yield centre
    for divisor in (2, 3, 5, 7):
        yield centre + deviation / divisor
        yield centre - deviation / divisor


def _scaled(x: Array, message: str) -> tuple[Array, float]:
    """Divide ``x`` by a power of two that makes its largest element about 1; return it and that
    power.

    The quotient is computed once, and kept in the cluster.

    Raises
    ------
    numpy.linalg.LinAlgError
        With ``message``: ``x`` has infinities or NaN.
    """
    (x,) = persisted(x)
    (largest,) = fetched(_max(_abs(x)))
    if not math.isfinite(largest):
        raise np.linalg.LinAlgError(message)
    scale = math.ldexp(0.5, math.frexp(largest)[1]) if largest else 1.0
    (x,) = persisted(x / scale)
    return x, scale


def _divided(x: Array, vectors: bool) -> tuple[Array, Array | None, float]:
    """Return eigenvalues and vectors in the parts' order, and the scale of the values."""
    side = tile_length(x.chunks)
    x = tiled(x, side)
    below = tril(x, k=-1)
    whole = below + dagger(below) + real(tril(triu(x)))
    x, scale = _scaled(whole, "Eigenvalues did not converge")
    (squares,) = fetched(frobenius(x))
    negligible = NEGLIGIBLE * float(np.finfo(x.dtype).eps) * math.sqrt(x.shape[0] * squares)
    return *_Division(side, negligible, vectors).parts(x), scale


def eigh_by_blocks(x: Array) -> tuple[Array, Array]:
    """Compute eigenvalues, ascending, and eigenvectors of a Hermitian matrix of several chunks.

    They are computed at the call, because the parts' shapes depend on the values; the results stay
    in the cluster. Only the lower triangle of ``x`` is used.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``x`` has infinities or NaN.
    """
    values, vectors, scale = _divided(x, True)
    assert vectors is not None
    values, vectors = persisted(values, vectors)
    # Each part is in order and below the next, except for rounding.
    found = values.compute()
    order = np.argsort(found, kind="stable")
    if np.any(np.diff(order) != 1):
        vectors = vectors[:, order]
    return asarray(found[order] * scale, device=x.device), vectors


def eigvalsh_by_blocks(x: Array) -> Array:
    """Compute the ascending eigenvalues of a Hermitian matrix as `eigh_by_blocks` does."""
    values, _, scale = _divided(x, False)
    return asarray(np.sort(values.compute()) * scale, device=x.device)


def _polar_factors(x: Array) -> tuple[Array, Array, float]:
    """Return P and H of ``x = P H``, and the scale to multiply H by."""
    side = tile_length(x.chunks)
    x, scale = _scaled(tiled(x, side), "SVD did not converge")
    unitary = polar_unitary(x, side)
    (factor,) = persisted(tiled(matmul(dagger(unitary), x), side))
    return unitary, factor, scale


def svd_by_blocks(x: Array) -> tuple[Array, Array, Array]:
    """Compute U, S and Vh of a square matrix of several chunks; S and Vh are computed at the call.

    In ``x = P H`` with P unitary, S and Vh are the eigenvalues and vectors of H, and U = P V. For
    singular values that count as zero the columns of P V may not have length one: QR makes U of
    them whatever the rank, and leaves orthonormal columns unchanged.

    Raises
    ------
    numpy.linalg.LinAlgError
        ``x`` has infinities or NaN.
    """
    unitary, factor, scale = _polar_factors(x)
    values, vectors = eigh_by_blocks((factor + dagger(factor)) / 2)
    v = vectors[:, ::-1]
    q, r = map(Array, blocked_qr(matmul(unitary, v)._node))
    turns = sign(diagonal(r))
    u = tiled(q * where(turns == 0, 1, turns), max(unitary.chunks[0]))
    return u, maximum(values[::-1], 0) * scale, dagger(v)


def svdvals_by_blocks(x: Array) -> Array:
    """Compute the singular values of a square matrix as `svd_by_blocks` does."""
    _, factor, scale = _polar_factors(x)
    values = eigvalsh_by_blocks((factor + dagger(factor)) / 2)
    return maximum(values[::-1], 0) * scale
