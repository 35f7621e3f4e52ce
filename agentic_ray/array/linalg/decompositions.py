"""Factorisations, solutions and spectra of stacks of matrices, one LAPACK call per matrix.

Each matrix of a stack is in one chunk here; matrices that are cut along their rows are factored
chunk by chunk, in ``tall``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import gufunc, gufunc_op, gufunc_picks
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.views import expanded, squeezed
from agentic_ray.array.dtypes import cast
from agentic_ray.array.elementwise import conj
from agentic_ray.array.linalg.structure import matrix_operand
from agentic_ray.array.linalg.tall import is_tall, tall_qr, thin_svd
from agentic_ray.array.linalg.tiled import tiled_cholesky
from agentic_ray.errors import InvalidArgumentError


class EigResult(NamedTuple):
    eigenvalues: Array
    eigenvectors: Array


class QRResult(NamedTuple):
    Q: Array
    R: Array


class SlogdetResult(NamedTuple):
    sign: Array
    logabsdet: Array


class SVDResult(NamedTuple):
    U: Array
    S: Array
    Vh: Array


def _inexact(name: str, x: Any, *, square: bool = False) -> Node:
    """A stack of matrices in a floating point dtype."""
    node = matrix_operand(name, x, square=square)
    if node.dtype.kind in "biu":
        return cast(node, np.float64)
    if node.dtype.kind not in "fc":
        raise TypeError(f"{name}: array type {node.dtype} is unsupported in linalg")
    return node


def _real(dtype: DType) -> DType:
    return np.empty(0, dtype).real.dtype


def _complex(dtype: DType) -> DType:
    return np.result_type(dtype, np.complex64)


def _cholesky_kernel(xp: Any, x: Any, upper: bool) -> Any:
    lower = xp.linalg.cholesky(x)
    return xp.conj(xp.swapaxes(lower, -1, -2)) if upper else lower


_CHOLESKY = gufunc_op("cholesky", _cholesky_kernel, 64)


def cholesky(x: Array, /, *, upper: bool = False) -> Array:
    """The triangular factor of each positive definite matrix.

    One matrix of several chunks is factored tile by tile.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, not positive definite.
    """
    node = _inexact("cholesky", x, square=True)
    if node.ndim == 2 and node.blocks > 1 and node.size:
        lower = Array(tiled_cholesky(node))
        return conj(lower.T) if upper else lower
    return Array(gufunc(_CHOLESKY, [node], (2,), node.shape[-2:], node.dtype, (bool(upper),)))


def _qr_kernel(xp: Any, x: Any, mode: str) -> Any:
    return tuple(xp.linalg.qr(x, mode=mode))


_QR = gufunc_op("qr", _qr_kernel, 128)


def qr(x: Array, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal and triangular factor of each matrix.

    The reduced factors of a tall matrix of several chunks are made chunk by chunk.

    Raises
    ------
    InvalidArgumentError
        ``mode`` is neither ``"reduced"`` nor ``"complete"``.
    """
    if mode not in ("reduced", "complete"):
        raise InvalidArgumentError(f"mode must be 'reduced' or 'complete', not {mode!r}")
    node = _inexact("qr", x)
    if mode == "reduced" and is_tall(node):
        return QRResult(*map(Array, tall_qr(node)))
    m, n = node.shape[-2:]
    k = m if mode == "complete" else min(m, n)
    made = gufunc(_QR, [node], (2,), (m, k), node.dtype, (mode,))
    q, r = gufunc_picks(made, [((m, k), node.dtype), ((k, n), node.dtype)])
    return QRResult(Array(q), Array(r))


def _svd_kernel(xp: Any, x: Any, full_matrices: bool) -> Any:
    return tuple(xp.linalg.svd(x, full_matrices=full_matrices))


def _svdvals_kernel(xp: Any, x: Any) -> Any:
    return xp.linalg.svd(x, compute_uv=False)


_SVD = gufunc_op("svd", _svd_kernel, 512)
_SVDVALS = gufunc_op("svdvals", _svdvals_kernel, 256)


def svd(x: Array, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular vectors and values of each matrix: ``U @ diag(S) @ Vh``.

    Without ``full_matrices`` the factors of a tall or wide matrix of several chunks are made
    chunk by chunk, and the long one only if it is used.
    """
    node = _inexact("svd", x)
    thin = None if full_matrices else thin_svd(node)
    if thin is not None:
        return SVDResult(*map(Array, thin))
    m, n = node.shape[-2:]
    k = min(m, n)
    left, right = (m, n) if full_matrices else (k, k)
    made = gufunc(_SVD, [node], (2,), (m, left), node.dtype, (bool(full_matrices),))
    outputs = [((m, left), node.dtype), ((k,), _real(node.dtype)), ((right, n), node.dtype)]
    u, s, vh = gufunc_picks(made, outputs)
    return SVDResult(Array(u), Array(s), Array(vh))


def svdvals(x: Array, /) -> Array:
    """Singular values of each matrix, largest first."""
    node = _inexact("svdvals", x)
    thin = thin_svd(node)
    if thin is not None:
        return Array(thin[1])
    k = min(node.shape[-2:])
    return Array(gufunc(_SVDVALS, [node], (2,), (k,), _real(node.dtype)))


def _eigh_kernel(xp: Any, x: Any) -> Any:
    return tuple(xp.linalg.eigh(x))


def _eigvalsh_kernel(xp: Any, x: Any) -> Any:
    return xp.linalg.eigvalsh(x)


def _eig_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    values, vectors = xp.linalg.eig(x)
    return values.astype(dtype, copy=False), vectors.astype(dtype, copy=False)


def _eigvals_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return xp.linalg.eigvals(x).astype(dtype, copy=False)


_EIGH = gufunc_op("eigh", _eigh_kernel, 512)
_EIGVALSH = gufunc_op("eigvalsh", _eigvalsh_kernel, 256)
_EIG = gufunc_op("eig", _eig_kernel, 1024)
_EIGVALS = gufunc_op("eigvals", _eigvals_kernel, 512)


def eigh(x: Array, /) -> EigResult:
    """Eigenvalues, ascending, and eigenvectors of each Hermitian matrix."""
    node = _inexact("eigh", x, square=True)
    n = node.shape[-1]
    made = gufunc(_EIGH, [node], (2,), (n,), _real(node.dtype))
    values, vectors = gufunc_picks(made, [((n,), _real(node.dtype)), ((n, n), node.dtype)])
    return EigResult(Array(values), Array(vectors))


def eigvalsh(x: Array, /) -> Array:
    """Eigenvalues, ascending, of each Hermitian matrix."""
    node = _inexact("eigvalsh", x, square=True)
    return Array(gufunc(_EIGVALSH, [node], (2,), node.shape[-1:], _real(node.dtype)))


def eig(x: Array, /) -> EigResult:
    """Eigenvalues and eigenvectors of each matrix, always complex."""
    node = _inexact("eig", x, square=True)
    n, dtype = node.shape[-1], _complex(node.dtype)
    made = gufunc(_EIG, [node], (2,), (n,), dtype, (dtype,))
    values, vectors = gufunc_picks(made, [((n,), dtype), ((n, n), dtype)])
    return EigResult(Array(values), Array(vectors))


def eigvals(x: Array, /) -> Array:
    """Eigenvalues of each matrix, always complex."""
    node = _inexact("eigvals", x, square=True)
    dtype = _complex(node.dtype)
    return Array(gufunc(_EIGVALS, [node], (2,), node.shape[-1:], dtype, (dtype,)))


def _det_kernel(xp: Any, x: Any) -> Any:
    return xp.linalg.det(x)


def _slogdet_kernel(xp: Any, x: Any) -> Any:
    return tuple(xp.linalg.slogdet(x))


def _inv_kernel(xp: Any, x: Any) -> Any:
    return xp.linalg.inv(x)


def _solve_kernel(xp: Any, a: Any, b: Any) -> Any:
    return xp.linalg.solve(a, b)


_DET = gufunc_op("det", _det_kernel, 64)
_SLOGDET = gufunc_op("slogdet", _slogdet_kernel, 64)
_INV = gufunc_op("inv", _inv_kernel, 128)
_SOLVE = gufunc_op("solve", _solve_kernel, 64)


def det(x: Array, /) -> Array:
    """Determinant of each matrix."""
    node = _inexact("det", x, square=True)
    return Array(gufunc(_DET, [node], (2,), (), node.dtype))


def slogdet(x: Array, /) -> SlogdetResult:
    """Sign and logarithm of the absolute value of each determinant."""
    node = _inexact("slogdet", x, square=True)
    made = gufunc(_SLOGDET, [node], (2,), (), node.dtype)
    sign, log = gufunc_picks(made, [((), node.dtype), ((), _real(node.dtype))])
    return SlogdetResult(Array(sign), Array(log))


def inv(x: Array, /) -> Array:
    """Inverse of each matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, singular.
    """
    node = _inexact("inv", x, square=True)
    return Array(gufunc(_INV, [node], (2,), node.shape[-2:], node.dtype))


def solve(x1: Array, x2: Array, /) -> Array:
    """The solution of ``x1 @ x = x2`` for each matrix; a single vector ``x2`` is a column.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, singular.
    ValueError
        The numbers of rows differ.
    """
    a = _inexact("solve", x1, square=True)
    b = x2._node if isinstance(x2, Array) else cast(matrix_operand("solve", x2), np.float64)
    vector = b.ndim == 1
    b = expanded(b, (1,)) if vector else b
    if b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"solve: {a.shape[-1]} unknowns but right-hand sides of {x2.shape}")
    dtype = np.result_type(a.dtype, b.dtype)
    made = gufunc(_SOLVE, [cast(a, dtype), cast(b, dtype)], (2, 2), b.shape[-2:], dtype)
    return Array(squeezed(made, (made.ndim - 1,)) if vector else made)


def _pinv_kernel(xp: Any, x: Any, rtol: Any) -> Any:
    return xp.linalg.pinv(x, rtol=rtol)


_PINV = gufunc_op("pinv", _pinv_kernel, 512)


def default_rtol(node: Node) -> float:
    """The relative size under which a singular value counts as zero."""
    return float(max(node.shape[-2:]) * np.finfo(node.dtype).eps)


def pinv(x: Array, /, *, rtol: Any = None) -> Array:
    """Pseudo-inverse of each matrix; singular values below ``rtol`` times the largest are zero."""
    node = _inexact("pinv", x)
    shape = (node.shape[-1], node.shape[-2])
    if isinstance(rtol, Array):
        return Array(gufunc(_PINV, [node, rtol._node], (2, 0), shape, node.dtype))
    limit = default_rtol(node) if rtol is None else float(rtol)
    return Array(gufunc(_PINV, [node], (2,), shape, node.dtype, (limit,)))
