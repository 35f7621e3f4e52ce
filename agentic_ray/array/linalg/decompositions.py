"""Factorisations, solutions and spectra of stacks of matrices, one LAPACK call per matrix.

Each matrix of a stack is in one chunk here. A matrix of several chunks is factored where they are:
in ``tall`` if it has few columns, else over blocks of columns in ``columns``. Spectra of such a
matrix (`eigh`, `svd` of a nearly square one) are in ``spectral``: LAPACK's up to a size, by blocks
beyond it. Spectra of a matrix that is not Hermitian (`eig`) are always LAPACK's of the matrix in
one piece, which has to fit in the memory of a node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.conversion import asarray
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import gufunc, gufunc_op, gufunc_picks, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import expanded, permuted, squeezed
from agentic_ray.array.creation import eye, zeros
from agentic_ray.array.elementwise import abs as _abs
from agentic_ray.array.elementwise import conj, divide, sign, where
from agentic_ray.array.linalg import columns
from agentic_ray.array.linalg.polar import tile_length, tiled
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.spectral import (
    by_blocks,
    eigh_by_blocks,
    eigvalsh_by_blocks,
    svd_by_blocks,
    svdvals_by_blocks,
    whole_eigh,
    whole_eigvalsh,
)
from agentic_ray.array.linalg.structure import matrix_operand
from agentic_ray.array.linalg.tall import is_tall, tall_qr, thin_svd
from agentic_ray.array.linalg.tiled import tiled_cholesky
from agentic_ray.array.manipulation import concat, expand_dims, flip, matrix_transpose
from agentic_ray.array.outputs import NO_VALUE
from agentic_ray.array.sorting import argsort, sort
from agentic_ray.array.taking import take_along_axis


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


def inexact(name: str, x: Any, *, square: bool = False) -> Node:
    """Return a stack of matrices in a floating point dtype."""
    node = matrix_operand(name, x, square=square)
    if node.dtype.kind in "biu":
        return cast(node, np.float64)
    if node.dtype.kind not in "fc" or node.dtype.itemsize == 2:
        raise TypeError(f"{name}: array type {node.dtype} is unsupported in linalg")
    return node


def _real(dtype: DType) -> DType:
    return np.empty(0, dtype).real.dtype


def _complex(dtype: DType) -> DType:
    return np.result_type(dtype, np.complex64)


def is_cut(node: Node) -> bool:
    """Whether ``node`` is one matrix of several chunks."""
    return node.ndim == 2 and node.blocks > 1 and node.size > 0


def _cholesky_kernel(xp: Any, x: Any, upper: bool) -> Any:
    lower = xp.linalg.cholesky(x)
    return xp.conj(xp.swapaxes(lower, -1, -2)) if upper else lower


_CHOLESKY = gufunc_op("cholesky", _cholesky_kernel, 64)


def cholesky(a: Any, /, *, upper: bool = False) -> Array:
    """Compute the triangular factor of each positive definite matrix.

    A matrix of several chunks is factored tile by tile.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, not positive definite.
    """
    node = inexact("cholesky", a, square=True)
    if is_cut(node):
        lower = Array(tiled_cholesky(node))
        return conj(lower.T) if upper else lower
    return Array(gufunc(_CHOLESKY, [node], (2,), node.shape[-2:], node.dtype, (bool(upper),)))


def _qr_kernel(xp: Any, x: Any, mode: str) -> Any:
    return tuple(xp.linalg.qr(x, mode=mode))


@host_only
def _qr_raw_kernel(xp: Any, x: Any) -> Any:
    return tuple(np.linalg.qr(x, mode="raw"))


_QR = gufunc_op("qr", _qr_kernel, 128)
_QR_RAW = gufunc_op("qr_raw", _qr_raw_kernel, 128)


def qr(a: Any, mode: str = "reduced") -> Any:
    """Compute the orthonormal and the triangular factor of each matrix.

    A matrix of several chunks is factored in blocks, and Q only made if it is used: a tall one
    chunk by chunk, others by Householder's reflections over blocks of columns.

    Parameters
    ----------
    a : array_like
        Matrices, of shape (..., m, n).
    mode : {"reduced", "complete", "r", "raw"}
        ``"r"``: the triangular factor alone; ``"raw"``: LAPACK's reflections and their scales, of
        each matrix in one task.

    Returns
    -------
    QRResult, or one Array for ``"r"``, or two for ``"raw"``

    Raises
    ------
    ValueError
        There is no such mode.
    """
    node = inexact("qr", a)
    if mode == "r":
        return qr(a).R
    if mode == "raw":
        m, n = node.shape[-2:]
        made = gufunc(_QR_RAW, [node], (2,), (n, m), node.dtype)
        h, tau = gufunc_picks(made, [((n, m), node.dtype), ((min(m, n),), node.dtype)])
        return Array(h), Array(tau)
    if mode not in ("reduced", "complete"):
        raise ValueError(f"Unrecognized mode '{mode}'")
    if mode == "reduced" and is_tall(node):
        return QRResult(*map(Array, tall_qr(node)))
    if is_cut(node):
        return QRResult(*map(Array, columns.blocked_qr(node, complete=mode == "complete")))
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


def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    """Compute singular vectors and values of each matrix: ``U @ diag(S) @ Vh``.

    Without ``full_matrices`` the factors of a tall or wide matrix of several chunks are made chunk
    by chunk, and the long factor only if it is used. A matrix at least twice as long as wide is
    first reduced to a square one by QR. So is any other matrix larger than ``whole_matrix_bytes``
    (see `config`); the square one is then factored by blocks, at the call.

    Parameters
    ----------
    a : array_like
        Matrices, of shape (..., m, n).
    full_matrices : bool
        Whether U and Vh are square.
    compute_uv : bool
        False: return the singular values alone.
    hermitian : bool
        Whether each matrix is Hermitian: its singular values are then found from its eigenvalues.

    Returns
    -------
    SVDResult, or one Array without ``compute_uv``

    Raises
    ------
    numpy.linalg.LinAlgError
        When computed: a matrix has infinities or NaN.

    References
    ----------
    T. Chan, "An improved algorithm for computing the singular value decomposition", ACM TOMS
    8(1), 1982 (QR first).
    """
    node = inexact("svd", a, square=hermitian)
    if hermitian:
        return _svd_of_hermitian(Array(node), compute_uv)
    if not compute_uv:
        return svdvals(Array(node))
    thin = None if full_matrices else thin_svd(node)
    if thin is not None:
        return SVDResult(*map(Array, thin))
    m, n = node.shape[-2:]
    if by_blocks(node) and m == n:
        return SVDResult(*svd_by_blocks(Array(node)))
    if by_blocks(node) or (not full_matrices and _is_long(node)):
        return _svd_by_qr(node, full_matrices)
    k = min(m, n)
    left, right = (m, n) if full_matrices else (k, k)
    made = gufunc(_SVD, [node], (2,), (m, left), node.dtype, (bool(full_matrices),))
    outputs = [((m, left), node.dtype), ((k,), _real(node.dtype)), ((right, n), node.dtype)]
    u, s, vh = gufunc_picks(made, outputs)
    return SVDResult(Array(u), Array(s), Array(vh))


def _svd_of_hermitian(x: Array, compute_uv: bool) -> Any:
    if not compute_uv:
        return flip(sort(_abs(eigvalsh(x)), axis=-1), axis=-1)
    values, vectors = eigh(x)
    order = flip(argsort(_abs(values), axis=-1), axis=-1)
    values = take_along_axis(values, order, axis=-1)
    vectors = take_along_axis(vectors, expand_dims(order, -2), axis=-1)
    signs = expand_dims(sign(values), -2).astype(vectors.dtype)
    return SVDResult(vectors, _abs(values), conj(matrix_transpose(vectors * signs)))


def _is_long(node: Node) -> bool:
    """Whether ``node`` is one matrix of several chunks, one side at least twice the other."""
    return is_cut(node) and max(node.shape) >= 2 * min(node.shape)


def _upright(node: Node) -> Node:
    """Return a matrix or its transpose, whichever is longer than wide."""
    return permuted(node, (1, 0)) if node.shape[0] < node.shape[1] else node


def _svd_by_qr(node: Node, full_matrices: bool) -> SVDResult:
    k = min(node.shape)
    q, r = map(Array, columns.blocked_qr(_upright(node), complete=full_matrices))
    if by_blocks(node):  # otherwise a product with q would bring all of it to each task
        q = tiled(q, tile_length(node.chunks))
    u, s, vh = svd(r[:k], full_matrices=False)
    u = matmul(q[:, :k], u)
    if full_matrices:
        u = concat([u, q[:, k:]], axis=1)
    # The transpose's factors, exchanged: x.T = U S Vh, so x = Vh.T S U.T.
    return SVDResult(vh.T, s, u.T) if node.shape[0] < node.shape[1] else SVDResult(u, s, vh)


def svdvals(x: Any, /) -> Array:
    """Compute the singular values of each matrix, largest first, as `svd` finds them."""
    node = inexact("svdvals", x)
    thin = thin_svd(node)
    if thin is not None:
        return Array(thin[1])
    k = min(node.shape[-2:])
    if by_blocks(node) and node.shape == (k, k):
        return svdvals_by_blocks(Array(node))
    if by_blocks(node) or _is_long(node):
        return svdvals(Array(columns.blocked_qr(_upright(node))[1]))
    return Array(gufunc(_SVDVALS, [node], (2,), (k,), _real(node.dtype)))


@host_only  # CuPy has it since version 14 only
def _eig_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    values, vectors = xp.linalg.eig(x)
    return values.astype(dtype, copy=False), vectors.astype(dtype, copy=False)


@host_only
def _eigvals_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return xp.linalg.eigvals(x).astype(dtype, copy=False)


_EIG = gufunc_op("eig", _eig_kernel, 1024)
_EIGVALS = gufunc_op("eigvals", _eigvals_kernel, 512)


def _lower(name: str, a: Any, UPLO: str) -> Node:
    """Return Hermitian matrices whose lower triangle is read.

    Raises
    ------
    ValueError
        ``UPLO`` is neither ``"L"`` nor ``"U"``.
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError("UPLO argument must be 'L' or 'U'")
    node = inexact(name, a, square=True)
    return node if UPLO.upper() == "L" else conj(matrix_transpose(Array(node)))._node


def eigh(a: Any, UPLO: str = "L") -> EigResult:
    """Compute eigenvalues, ascending, and eigenvectors of each Hermitian matrix.

    A matrix of several chunks that is larger than ``whole_matrix_bytes`` (see `config`) is divided
    by blocks, and computed at the call; any other matrix is brought to a task.

    Parameters
    ----------
    a : array_like
        Matrices, of shape (..., n, n).
    UPLO : {"L", "U"}
        Triangle that is read.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, have infinities or NaN.
    """
    node = _lower("eigh", a, UPLO)
    if by_blocks(node):
        return EigResult(*eigh_by_blocks(Array(node)))
    return EigResult(*whole_eigh(node))


def eigvalsh(a: Any, UPLO: str = "L") -> Array:
    """Compute the eigenvalues, ascending, of each Hermitian matrix, as `eigh` finds them."""
    node = _lower("eigvalsh", a, UPLO)
    return eigvalsh_by_blocks(Array(node)) if by_blocks(node) else whole_eigvalsh(node)


def eig(a: Any) -> EigResult:
    """Compute eigenvalues and eigenvectors of each matrix, in one task a stack.

    Both are complex, as the array API standard says, so that the dtype is known before the values
    are. NumPy's own function, ``np.linalg.eig(x)``, keeps NumPy's dtypes over these arrays, too: it
    computes at the call, and real matrices whose eigenvalues are all real have real results.

    Parameters
    ----------
    a : array_like
        Matrices, of shape (..., n, n).

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, have infinities or NaN.
    """
    node = inexact("eig", a, square=True)
    n, dtype = node.shape[-1], _complex(node.dtype)
    made = gufunc(_EIG, [node], (2,), (n,), dtype, (dtype,))
    values, vectors = gufunc_picks(made, [((n,), dtype), ((n, n), dtype)])
    return EigResult(Array(values), Array(vectors))


def eigvals(a: Any) -> Array:
    """Compute the eigenvalues of each matrix, complex: see `eig`, also on ``np.linalg.eigvals``."""
    node = inexact("eigvals", a, square=True)
    dtype = _complex(node.dtype)
    return Array(gufunc(_EIGVALS, [node], (2,), node.shape[-1:], dtype, (dtype,)))


def numpy_eig(a: Any) -> EigResult:
    """Compute `eig` now, in NumPy's dtypes: real if the matrices and all eigenvalues are."""
    found = eig(a)
    if not _is_real(a, found.eigenvalues):
        return found
    return EigResult(found.eigenvalues.real.copy(), found.eigenvectors.real.copy())


def numpy_eigvals(a: Any) -> Array:
    """Compute `eigvals` now, in NumPy's dtype: real if the matrices and all eigenvalues are."""
    found = eigvals(a)
    return found.real.copy() if _is_real(a, found) else found


def _is_real(a: Any, eigenvalues: Array) -> bool:
    """Whether the eigenvalues of real matrices have no imaginary part; they are computed."""
    if strict_operand(a).dtype.kind == "c":
        return False
    return not np.any(evaluate.value(eigenvalues._node).imag)


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


def det(a: Any) -> Array:
    """Compute the determinant of each matrix."""
    node = inexact("det", a, square=True)
    if is_cut(node):
        return Array(columns.lu_det(columns.lu(node)))
    return Array(gufunc(_DET, [node], (2,), (), node.dtype))


def slogdet(a: Any) -> SlogdetResult:
    """Compute sign and logarithm of the absolute value of each determinant."""
    node = inexact("slogdet", a, square=True)
    if is_cut(node):
        found = columns.lu_slogdet(columns.lu(node), _real(node.dtype))
        return SlogdetResult(*map(Array, found))
    made = gufunc(_SLOGDET, [node], (2,), (), node.dtype)
    sign, log = gufunc_picks(made, [((), node.dtype), ((), _real(node.dtype))])
    return SlogdetResult(Array(sign), Array(log))


def inv(a: Any) -> Array:
    """Invert each matrix; a matrix of several chunks is factored over blocks of columns.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, singular.
    """
    node = inexact("inv", a, square=True)
    if is_cut(node):
        factors = columns.lu(node)
        unit = eye(node.shape[0], dtype=node.dtype, chunks=factors.chunks)
        return Array(columns.lu_solve(factors, unit._node))
    return Array(gufunc(_INV, [node], (2,), node.shape[-2:], node.dtype))


def solve(a: Any, b: Any) -> Array:
    """Solve ``a @ x = b`` for each matrix; a single vector ``b`` is a column.

    The method is LU with partial pivoting, over blocks of columns if operands are in several
    chunks.

    Raises
    ------
    numpy.linalg.LinAlgError
        Matrices are not square; or, when computed, singular.
    ValueError
        The numbers of rows differ.
    """
    left, right = inexact("solve", a, square=True), strict_operand(b)
    if right.dtype.kind in "biu":
        right = cast(right, np.float64)
    vector = right.ndim == 1
    right = expanded(right, (1,)) if vector else right
    if right.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise ValueError(f"solve: {left.shape[-1]} unknowns but right-hand sides of {np.shape(b)}")
    return _solved(left, right, vector)


def _solved(a: Node, b: Node, vector: bool) -> Array:
    if b.dtype.kind not in "fc" or b.dtype.itemsize == 2:
        raise TypeError(f"solve: array type {b.dtype} is unsupported in linalg")
    dtype = np.result_type(a.dtype, b.dtype)
    a, b = cast(a, dtype), cast(b, dtype)
    if a.ndim == b.ndim == 2 and a.blocks + b.blocks > 2 and a.size and b.size:
        made = columns.lu_solve(columns.lu(a), b)
    else:
        made = gufunc(_SOLVE, [a, b], (2, 2), b.shape[-2:], dtype)
    return Array(squeezed(made, (made.ndim - 1,)) if vector else made)


def _pinv_kernel(xp: Any, x: Any, rtol: Any) -> Any:
    return xp.linalg.pinv(x, rtol)  # by position: CuPy has it under NumPy's older name


_PINV = gufunc_op("pinv", _pinv_kernel, 512)


def default_rtol(node: Node) -> float:
    """Return the relative size under which a singular value counts as zero."""
    return float(max(node.shape[-2:]) * np.finfo(node.dtype).eps)


def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = NO_VALUE) -> Array:
    """Compute the pseudo-inverse of each matrix; singular values below ``rtol`` times the largest
    count as zero.

    Parameters
    ----------
    a : array_like
        Matrices, of shape (..., m, n).
    rcond : float or array_like, optional
        NumPy's older name of ``rtol``.
    hermitian : bool
        Whether each matrix is Hermitian.
    rtol : float or array_like, optional
        Relative limit; default: 1e-15, as in NumPy; None: the larger of m and n times the machine's
        precision.

    Raises
    ------
    ValueError
        ``rtol`` and ``rcond`` are both given.
    """
    node = inexact("pinv", a, square=hermitian)
    if rcond is not None and rtol is not NO_VALUE:
        raise ValueError("`rtol` and `rcond` can't be both set.")
    if rcond is not None:
        rtol = rcond
    rtol = 1e-15 if rtol is NO_VALUE else default_rtol(node) if rtol is None else rtol
    if np.ndim(rtol) and not isinstance(rtol, Array):
        rtol = asarray(rtol)
    if not node.size:
        return zeros((*node.shape[:-2], node.shape[-1], node.shape[-2]), node.dtype)
    if hermitian:
        u, s, vh = _svd_of_hermitian(Array(node), True)
        return _from_svd(u, s, vh, rtol)
    shape = (node.shape[-1], node.shape[-2])
    if isinstance(rtol, Array):
        return Array(gufunc(_PINV, [node, rtol._node], (2, 0), shape, node.dtype))
    if is_cut(node):
        u, s, vh = svd(Array(node), full_matrices=False)
        return _from_svd(u, s, vh, rtol)
    return Array(gufunc(_PINV, [node], (2,), shape, node.dtype, (float(rtol),)))


def _from_svd(u: Array, s: Array, vh: Array, rtol: Any) -> Array:
    """Make the pseudo-inverse of the matrix with these singular vectors and values."""
    limit = expand_dims(rtol, -1) if isinstance(rtol, Array) else rtol
    kept = s > s.max(axis=-1, keepdims=True) * limit
    inverse = where(kept, divide(1.0, where(kept, s, 1.0)), 0.0)
    long = conj(matrix_transpose(vh)) * expand_dims(inverse, -2).astype(s.dtype)
    return matmul(long, conj(matrix_transpose(u)))
