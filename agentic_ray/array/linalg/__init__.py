"""The standard's extension ``linalg``, and NumPy's names beside it."""

from agentic_ray.array.linalg.decompositions import (
    cholesky,
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    inv,
    pinv,
    qr,
    slogdet,
    solve,
    svd,
    svdvals,
)
from agentic_ray.array.linalg.norms import matrix_norm, matrix_rank, norm, vector_norm
from agentic_ray.array.linalg.products import cross, matmul, outer, tensordot, vecdot
from agentic_ray.array.linalg.solvers import lstsq, matrix_power, svd_compressed
from agentic_ray.array.linalg.structure import matrix_diagonal as diagonal
from agentic_ray.array.linalg.structure import matrix_trace as trace
from agentic_ray.array.linalg.triangular import solve_triangular
from agentic_ray.array.manipulation import matrix_transpose

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svd_compressed",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
