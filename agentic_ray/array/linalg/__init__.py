"""The standard's extension ``linalg``, and NumPy's names beside it."""

from typing import Any as _Any

from numpy.linalg import LinAlgError

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
from agentic_ray.array.linalg.norms import cond, matrix_norm, matrix_rank, norm, vector_norm
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.linalg.solvers import (
    lstsq,
    matrix_power,
    multi_dot,
    svd_compressed,
    tensorinv,
    tensorsolve,
)
from agentic_ray.array.linalg.structure import matrix_diagonal as diagonal
from agentic_ray.array.linalg.structure import matrix_trace as trace
from agentic_ray.array.linalg.triangular import solve_triangular
from agentic_ray.array.linalg.vectors import matrix_tensordot as tensordot
from agentic_ray.array.linalg.vectors import vector_cross as cross
from agentic_ray.array.linalg.vectors import vector_outer as outer
from agentic_ray.array.linalg.vectors import vector_vecdot as vecdot
from agentic_ray.array.manipulation import matrix_transpose
from agentic_ray.array.names import refusal as _refusal

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
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
    "multi_dot",
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
    "tensorinv",
    "tensorsolve",
    "trace",
    "vecdot",
    "vector_norm",
]


def __getattr__(name: str) -> _Any:
    raise _refusal(__name__, name, __all__)
