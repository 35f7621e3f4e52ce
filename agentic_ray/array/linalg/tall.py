"""QR and SVD of tall matrices that are cut along their rows, and functions built on them.

One small factor is made of each chunk and these are combined; the matrix itself stays where it is.
The functions for users are in ``decompositions`` and ``solvers``.

References
----------
J. Demmel et al., "Communication-optimal parallel and sequential QR and LU factorizations",
SIAM J. Sci. Comput. 34(1), 2012 (TSQR).
A. Benson, D. Gleich and J. Demmel, "Direct QR factorizations for tall-and-skinny matrices in
MapReduce architectures", IEEE BigData 2013 (its Q, orthogonal whatever the condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import picks
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.core.views import permuted, rechunk
from agentic_ray.array.linalg.over_rows import gram

GRAM_CONDITION = 100.0
"""Up to this condition singular values are taken from the product of the matrix with itself.

Their error is then at most about ``GRAM_CONDITION`` units in the last place of the largest one, of
the order of LAPACK's own bound; beyond it each chunk is factored by Householder's method, which is
accurate for every condition and several times slower.
"""


def is_tall(node: Node) -> bool:
    """Whether a matrix is cut along its rows and its factors of chunks are small beside it."""
    return (
        node.ndim == 2
        and len(node.chunks[0]) > 1
        and node.shape[1] > 0
        and len(node.chunks[0]) * node.shape[1] <= node.shape[0]
    )


def is_wide(node: Node) -> bool:
    """Whether the transpose of ``node`` is tall."""
    return node.ndim == 2 and is_tall(permuted(node, (1, 0)))


def _in_rows(node: Node) -> Node:
    """Cut along rows only, in chunks that have at least as many rows as columns."""
    rows, columns = node.shape
    lengths = node.chunks[0]
    if min(lengths) < columns:
        lengths = grids.regular(rows, max(columns, -(-rows // len(lengths))))
        if len(lengths) > 1 and lengths[-1] < columns:
            lengths = (*lengths[:-2], lengths[-2] + lengths[-1])
    return rechunk(node, (lengths, (columns,)))


def _dagger(xp: Any, x: Any) -> Any:
    return xp.conj(x.T) if dtype_of(x).kind == "c" else x.T


# --- QR ----------------------------------------------------------------------------------


def _local_r(xp: Any, block: Any) -> Any:
    return xp.linalg.qr(block, mode="r")


def _stacked_qr(xp: Any, factors: Sequence[Any]) -> tuple[Any, Any]:
    q, r = xp.linalg.qr(xp.concatenate(list(factors)))
    return q, r


def _local_q(xp: Any, block: Any, factors: Any, i: int) -> Any:
    """Compute rows of Q: the chunk's own Q times its part of the Q of the stacked factors."""
    columns = block.shape[1]
    return xp.linalg.qr(block)[0] @ factors[0][i * columns : (i + 1) * columns]


def _second(xp: Any, pair: tuple[Any, Any]) -> Any:
    return pair[1]


def _lower_factors(node: Node, lowering: Any) -> list[Any]:
    (x,) = node.inputs
    rows = [(block,) for block in lowering.blocks(x)]
    flops = 2.0 * x.size * x.shape[1]
    made = lowering.call(
        node, _local_r, rows, label=".local", written_bytes=node.nbytes * len(rows), flops=flops
    )
    return list(lowering.call(node, _stacked_qr, [(made,)], read_bytes=node.nbytes * len(rows)))


def _lower_q(node: Node, lowering: Any) -> list[Any]:
    x, factors = node.inputs
    (pair,) = lowering.blocks(factors)
    rows = [(block, pair, i) for i, block in enumerate(lowering.blocks(x))]
    return list(lowering.call(node, _local_q, rows, flops=6.0 * x.size * x.shape[1]))


def _lower_second(node: Node, lowering: Any) -> list[Any]:
    rows = [(pair,) for pair in lowering.blocks(node.inputs[0])]
    return list(lowering.call(node, _second, rows, read_bytes=node.nbytes))


def _factors_whole(xp: Any, x: Any) -> tuple[Any, Any]:
    return _stacked_qr(xp, [_local_r(xp, x)])


def _q_whole(xp: Any, x: Any, factors: Any) -> Any:
    return _local_q(xp, x, factors, 0)


_FACTORS = Op("tsqr", "tasks", _factors_whole, _lower_factors, weight=128)
_Q = Op("tsqr_q", "tasks", _q_whole, _lower_q, weight=256)
_R = Op("tsqr_r", "tasks", _second, _lower_second)


def tall_qr(node: Node) -> tuple[Node, Node]:
    """Return Q and R of a tall matrix; Q is made only if it is used."""
    x = _in_rows(node)
    n = x.shape[1]
    shape = (n, n)
    factors = make(_FACTORS, (x,), (), shape, x.dtype, grids.single(shape))
    q = make(_Q, (x, factors), (), x.shape, x.dtype, x.chunks)
    r = make(_R, (factors,), (), shape, x.dtype, grids.single(shape))
    return q, r


# --- SVD ---------------------------------------------------------------------------------


def _is_safe(xp: Any, product: Any) -> Any:
    """Whether the condition is small enough for the product of the matrix with itself."""
    if not xp.all(xp.isfinite(product)):
        return xp.asarray(False)
    values = xp.linalg.eigvalsh(product)
    limits = np.finfo(dtype_of(values))
    # Squares that underflow have lost digits: neither they nor zero are a safe divisor.
    normal = values[0] > float(limits.tiny / limits.eps)
    return normal & (values[0] * GRAM_CONDITION**2 >= values[-1])


def _local_r_if(xp: Any, block: Any, safe: Any) -> Any:
    return block[:0] if bool(safe) else _local_r(xp, block)


def _small_svd(xp: Any, product: Any, safe: Any, factors: Sequence[Any]) -> tuple[Any, ...]:
    """Return singular values, right vectors, and the matrix by which chunks are multiplied to give
    left vectors."""
    if bool(safe):
        r = _dagger(xp, xp.linalg.cholesky(product))
        _, s, vh = xp.linalg.svd(r, full_matrices=False)
        return s, vh, _dagger(xp, vh) / s
    q, r = xp.linalg.qr(xp.concatenate(list(factors)))
    u, s, vh = xp.linalg.svd(r, full_matrices=False)
    return s, vh, q @ u


def _lower_svd(node: Node, lowering: Any) -> list[Any]:
    x, product = node.inputs
    (small,) = lowering.blocks(product)
    cheap = {"read_bytes": product.nbytes, "written_bytes": product.nbytes}
    (safe,) = lowering.call(node, _is_safe, [(small,)], label=".check", **cheap)
    rows = [(block, safe) for block in lowering.blocks(x)]
    factors = lowering.call(
        node, _local_r_if, rows, label=".local", written_bytes=product.nbytes * len(rows)
    )
    return list(lowering.call(node, _small_svd, [(small, safe, factors)], **cheap))


def _svd_whole(xp: Any, x: Any, product: Any) -> tuple[Any, ...]:
    return _small_svd(xp, product, False, [_local_r(xp, x)])


_SVD = Op("tall_svd", "tasks", _svd_whole, _lower_svd, weight=16)


def _local_u(xp: Any, block: Any, parts: tuple[Any, ...], i: int) -> Any:
    right = parts[2]
    columns = block.shape[1]
    if right.shape[0] == columns:
        return block @ right
    return xp.linalg.qr(block)[0] @ right[i * columns : (i + 1) * columns]


def _lower_u(node: Node, lowering: Any) -> list[Any]:
    x, parts = node.inputs
    (small,) = lowering.blocks(parts)
    rows = [(block, small, i) for i, block in enumerate(lowering.blocks(x))]
    return list(lowering.call(node, _local_u, rows, flops=2.0 * x.size * x.shape[1]))


def _u_whole(xp: Any, x: Any, parts: tuple[Any, ...]) -> Any:
    return xp.linalg.qr(x)[0] @ parts[2]


_U = Op("tall_svd_u", "tasks", _u_whole, _lower_u, weight=64)


def _real(dtype: DType) -> DType:
    return np.empty(0, dtype).real.dtype


def tall_svd(node: Node) -> tuple[Node, Node, Node]:
    """Return thin U, S and Vh of a tall matrix; U is made only if it is used."""
    x = _in_rows(node)
    n = x.shape[1]
    square = ((n, n), grids.single((n, n)))
    made = make(_SVD, (x, gram(x)), (), square[0], x.dtype, square[1])
    s, vh = picks(
        made,
        [((n,), _real(x.dtype), grids.single((n,))), (square[0], x.dtype, square[1])],
    )
    u = make(_U, (x, made), (), x.shape, x.dtype, x.chunks)
    return u, s, vh


def thin_svd(node: Node) -> tuple[Node, Node, Node] | None:
    """Return thin U, S and Vh of a tall or a wide matrix; None if it is neither."""
    if is_tall(node):
        return tall_svd(node)
    if not is_wide(node):
        return None
    # The transpose's factors, exchanged: x.T = U S Vh, so x = Vh.T S U.T.
    u, s, vh = tall_svd(permuted(node, (1, 0)))
    return permuted(vh, (1, 0)), s, permuted(u, (1, 0))
