"""Every public function's kernels over namespaces other than NumPy, against NumPy.

The table `CASES` has an expression or several for each function. Each is computed twice from
arrays of several chunks: by the kernels for CPUs over NumPy, and by those for GPUs over a
stand-in, see ``stand_ins``.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import portable_mutation
import portable_numbers
import portable_surface
import pytest
from stand_ins import CUPY_LIKE, STRICT, Ran, StandIn, on, torch_stand_in

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import exchange, gathering, ranks, searching, uniqueness
from agentic_ray.array.core import node as nodes

linalg, fft, random = xp.linalg, xp.fft, xp.random


def _words(text: str) -> list[str]:
    return text.split()


NO_KERNELS = (
    _words(
        """
    Array __array_api_version__ __array_namespace_info__ bool broadcast_shapes can_cast complex64
    complex128 config e fft finfo float32 float64 iinfo inf int8 int16 int32 int64 isdtype lib
    linalg nan newaxis pi random result_type uint8 uint16 uint32 uint64
    """
    )
    + portable_numbers.NO_KERNELS
    + portable_surface.NO_KERNELS
)
"""Names that compute nothing."""

HOST_ONLY = {
    **portable_surface.HOST_ONLY,
    "linalg.eig": "array.eig",
    "linalg.eigvals": "array.eigvals",
    "nanquantile": "array.nanquantile",
    "nanpercentile": "array.nanquantile",
    "apply_along_axis": "array.map_blocks.sort",
    "frompyfunc": "array.apply_gufunc.floor",
    "piecewise": "array.map_blocks.piecewise",
    "vectorize": "array.apply_gufunc.floor",
    "to_npy": "array.write",
    "unique": "array.unique_row_inverse",
    "to_zarr": "array.write",
    "to_hdf5": "array.write",
    "to_parquet": "array.write",
}
"""Functions one of whose codelets has no version for GPUs, and which: CuPy has no such function
(or, in the oldest version that is supported, had none), it writes files, or calls a function of
elements."""


NOT_IN_STANDARD = _words(
    """
    argpartition bincount cbrt deg2rad exp2 fabs fmax fmin fmod histogram isclose median
    nan_to_num intersect1d pad partition percentile quantile rad2deg round setdiff1d setxor1d
    sort_complex union1d unique unique_all unique_counts unique_inverse unique_values
    """
)
"""The standard has no such function, or not with these parameters."""

NUMPYS_INDEXING = _words(
    """
    [] argsort lexsort linalg.det linalg.inv linalg.lstsq linalg.matrix_power linalg.pinv linalg.qr
    linalg.slogdet linalg.solve linalg.solve_triangular linalg.svd linalg.svd_compressed
    linalg.svdvals matmul random.choice random.permutation repeat searchsorted sort take
    """
)
"""Some kernel indexes rows without naming the other axes, or assigns at index arrays."""

NUMPYS_PROMOTION = _words(
    """
    add argmin argwhere divide exp linalg.matrix_rank nanmean nanmedian nanpercentile nanstd nanvar
    nonzero
    """
)
"""Some case mixes kinds of numbers, or takes what the standard wants of one kind in another."""

NOT_IN_TORCH = ["flip"]
"""PyTorch has no slices with negative steps."""

NUMPYS_PARTS = _words("expm1 tanh")
"""Some kernel assigns to the real or imaginary part of complex numbers."""

BEYOND = [
    *NOT_IN_STANDARD,
    *NUMPYS_INDEXING,
    *NUMPYS_PROMOTION,
    *NUMPYS_PARTS,
    *portable_mutation.NUMPYS_INDEXING,
    *portable_numbers.NOT_IN_STANDARD,
    *portable_surface.BEYOND,
]
"""What needs more than the standard, so that it only runs over NumPy, CuPy and their like."""


class Data:
    """Operands, made anew for each run; each in several chunks."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)

        def cut(array: Any, *chunks: Any) -> xp.Array:
            return xp.asarray(np.asarray(array), chunks=chunks)

        self.folder = folder
        self.host = rng.uniform(-0.9, 0.9, (7, 5))
        self.x = cut(self.host, 3, 2)
        self.y = cut(rng.uniform(-0.9, 0.9, (7, 5)), 3, 2)
        self.row = cut(rng.uniform(-0.9, 0.9, 5), 2)
        self.above = cut(rng.uniform(1.1, 3, (7, 5)), 3, 2)
        self.z = cut(rng.normal(size=(7, 5)) + 1j * rng.normal(size=(7, 5)), 3, 2)
        self.i = cut(rng.integers(1, 9, (7, 5)), 3, 2)
        self.j = cut(rng.integers(0, 5, (7, 5)), 3, 2)
        self.b = cut(rng.random((7, 5)) < 0.5, 3, 2)
        self.c = cut(rng.random((7, 5)) < 0.5, 3, 2)
        holes = rng.uniform(-0.9, 0.9, (7, 5))
        holes[[0, 2, 6], [1, 3, 0]] = np.nan
        self.holes = cut(holes, 3, 2)
        self.wild = cut([1.0, np.nan, -np.inf, np.inf, -0.0, 0.0, 1e300, 2.5, -7.5], 4)
        self.v = cut(rng.normal(size=23), 6)
        self.w = cut(rng.normal(size=23), 6)
        self.ties = cut(rng.integers(0, 6, 23), 6)
        self.stairs = cut(np.sort(rng.normal(size=23)), 6)
        square = rng.normal(size=(8, 8)) + 8 * np.eye(8)
        self.square = cut(square, 3, 3)
        self.mixed = cut(rng.normal(size=(8, 8)), 3, 3)
        self.wilder = cut([0j, np.inf + 1j, -np.inf - 2j, 1 + 1j, complex(0.0, -0.0)], 2)
        self.broad = cut(rng.normal(size=(48, 48)) + 48 * np.eye(48), 24, 24)
        self.wide = cut(rng.normal(size=(4, 23)), 2, 6)
        self.tall = cut(rng.normal(size=(24, 3)), 6, 3)
        self.offset = cut(rng.normal(size=(24, 3)) + 1e3, 6, 3)
        self.far = cut(rng.normal(size=(24, 3)) + np.linspace(0, 1e3, 24)[:, None], 6, 3)
        self.flat = cut(rng.normal(size=(9, 7)), 4, 3)
        self.definite = cut(square @ square.T, 3, 3)
        self.stack = cut(rng.normal(size=(4, 3, 3)) + 3 * np.eye(3), 2, 3, 3)
        self.oblongs = cut(rng.normal(size=(4, 5, 3)), 2, 5, 3)
        self.symmetric = self.stack @ xp.matrix_transpose(self.stack)
        self.poor = self.tall * np.asarray([1.0, 1e-9, 1.0])
        self.lopsided = cut(rng.normal(size=(8, 8)), 5, 4)
        self.b8 = cut(rng.normal(size=8), 3)
        self.y9, self.y24 = cut(rng.normal(size=9), 4), cut(rng.normal(size=(24, 2)), 6, 2)
        self.triples = cut(rng.normal(size=(7, 3)), 3, 2)
        self.triples2 = cut(rng.normal(size=(7, 3)), 3, 2)

    def changed(self, key: Any, value: Any) -> xp.Array:
        """``x`` after ``x[key] = value``."""
        made = self.x + 0
        made[key] = value
        return made


Case = Callable[[Data], Any]
CASES: dict[str, list[Case]] = {}


def _add(name: str, *cases: Case) -> None:
    CASES.setdefault(name, []).extend(cases)


def _find(name: str) -> Callable[..., Any]:
    found: Any = functools.reduce(getattr, name.split("."), xp)
    return found


def _unsigned(result: Any) -> list[xp.Array]:
    """Values and vectors without their signs, which libraries choose differently."""
    return [xp.abs(part) for part in result]


def _standardised(x: xp.Array) -> xp.Array:
    """With columns of mean 0 and deviation 1."""
    return (x - xp.mean(x, axis=0)) / xp.std(x, axis=0)


def _each(names: str, *operands: str, **options: Any) -> None:
    """The functions ``names`` of these operands."""
    for name in _words(names):
        function = _find(name)
        _add(
            name,
            lambda d, f=function: f(*[getattr(d, operand) for operand in operands], **options),
        )


_each(
    """
    abs absolute acos arccos asin arcsin asinh arcsinh atan arctan atanh arctanh cbrt ceil conj
    conjugate cos cosh deg2rad exp exp2 expm1 fabs floor isfinite isinf isnan negative positive
    rad2deg real reciprocal round sign signbit sin sinh square tan tanh trunc
    """,
    "x",
)
_each("abs conj conjugate exp expm1 imag real sqrt square tanh sin log isnan sign negative", "z")
_each("tanh expm1", "wilder")
_each("acosh arccosh log log10 log1p log2 sqrt", "above")
_each("abs exp isfinite sign square trunc bitwise_invert bitwise_not invert negative", "i")
_each("logical_not bitwise_invert", "b")
_each("isfinite isinf isnan nan_to_num signbit floor", "wild")
_each(
    """
    add atan2 arctan2 copysign divide true_divide equal floor_divide fmax fmin fmod greater
    greater_equal hypot less less_equal logaddexp maximum minimum mod multiply nextafter not_equal
    remainder subtract isclose
    """,
    "x", "y",
)  # fmt: skip
_each("add subtract multiply divide pow power equal not_equal", "z", "z")
_each("add subtract multiply divide maximum less pow power", "above", "row")
_each(
    """
    bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift left_shift
    right_shift add floor_divide remainder multiply divide
    """,
    "j", "i",
)  # fmt: skip
_each("logical_and logical_or logical_xor bitwise_and", "b", "c")
_add("add", lambda d: d.x + 1, lambda d: 2.5 - d.i, lambda d: d.x + np.float32(1))
_add("round", lambda d: xp.round(d.x, 2), lambda d: xp.round(d.i))
_add("isclose", lambda d: xp.isclose(d.holes, d.holes, equal_nan=True))
_add("nan_to_num", lambda d: xp.nan_to_num(d.wild, nan=1.0, posinf=5.0, neginf=-5.0))
_add("where", lambda d: xp.where(d.b, d.x, d.row), lambda d: xp.where(d.b, d.x, 0.0))
_add(
    "clip",
    lambda d: xp.clip(d.x, -0.5, 0.5),
    lambda d: xp.clip(d.x, d.row, None),
    lambda d: xp.clip(d.i, max=4),
)
_add(
    "astype", *[lambda d, t=t: xp.astype(d.x, t) for t in ("float32", "int64", "complex64", "bool")]
)
_add("multiply", lambda d: xp.sqrt(d.above * 2 + d.row) * d.x - 1)  # a fused chain

# --- creation ----------------------------------------------------------------------------

_add("arange", lambda d: xp.arange(2, 25, 3, chunks=3), lambda d: xp.arange(0.5, 4, 0.3, chunks=5))
_add("array", lambda d: xp.array([[1, 2], [3, 4]], chunks=1) + 0)
_add(
    "asarray",
    lambda d: xp.asarray([1.0, 2.0, 3.0], chunks=2) + 0,
    lambda d: xp.asarray(d.x, dtype="f4"),
)
_add("from_numpy", lambda d: xp.from_numpy(d.host, chunks=2) + 0)
_add("from_dlpack", lambda d: xp.from_dlpack(d.host) + 0)
_add("empty", lambda d: xp.empty((7, 5), chunks=3))
_add("empty_like", lambda d: xp.empty_like(d.x))
_add("zeros", lambda d: xp.zeros((7, 5), chunks=3))
_add("zeros_like", lambda d: xp.zeros_like(d.i))
_add("ones", lambda d: xp.ones((7, 5), dtype="int16", chunks=3))
_add("ones_like", lambda d: xp.ones_like(d.z))
_add("full", lambda d: xp.full((7, 5), 2.5, chunks=3), lambda d: xp.full((7,), 1j, chunks=3))
_add("full_like", lambda d: xp.full_like(d.i, 7))
_add("eye", lambda d: xp.eye(7, 5, k=1, chunks=3))
_add("identity", lambda d: xp.identity(5))
_add(
    "linspace",
    lambda d: xp.linspace(0, 1, 11, chunks=4),
    lambda d: xp.linspace(5, -3, 11, endpoint=False, dtype="int64", chunks=4),
    lambda d: xp.linspace(0, 1j, 11, chunks=4),
)
_add(
    "meshgrid", lambda d: xp.meshgrid(d.v, d.row), lambda d: xp.meshgrid(d.v, d.row, indexing="ij")
)
_add("tril", lambda d: xp.tril(d.x, k=1))
_add("triu", lambda d: xp.triu(d.stack))

# --- reductions and scans ----------------------------------------------------------------

_REDUCTIONS = "sum prod mean var std max min all any count_nonzero"
_each(_REDUCTIONS, "x")
_each("sum prod mean max min any count_nonzero", "i")
_each("sum prod mean var std", "z")
_each("all any sum", "b")
_NAN = "nansum nanprod nanmean nanvar nanstd nanmax nanmin nanargmax nanargmin nanmedian"
_each(_NAN, "holes")
_each("nansum nanmean nanvar nanmax", "i")
_each(_REDUCTIONS, "x", axis=0)
_each(_REDUCTIONS, "x", axis=1, keepdims=True)
_each(_NAN, "holes", axis=0)
_add(
    "sum",
    lambda d: xp.sum(d.x * 2 + d.row, dtype="float32"),
    lambda d: xp.sum(d.x - xp.mean(d.x, axis=0)),
)
_add("std", lambda d: [xp.std(d.x, axis=0, correction=1), xp.mean(d.x, axis=0)])
_add("nanquantile", lambda d: xp.nanquantile(d.holes, [0.2, 0.7], axis=1))
_add(
    "nanpercentile",
    lambda d: xp.nanpercentile(d.holes, 30),
    lambda d: xp.nanpercentile(d.holes, 30, axis=0),
)
_add(
    "argmax",
    lambda d: xp.argmax(d.x),
    lambda d: xp.argmax(d.holes, axis=1),
    lambda d: xp.argmax(d.j, axis=0, keepdims=True),
)
_add("argmin", lambda d: xp.argmin(d.x), lambda d: xp.argmin(d.b, axis=0))
_add("cumsum", lambda d: xp.cumsum(d.x), lambda d: xp.cumsum(d.i, axis=1))
_add("cumprod", lambda d: xp.cumprod(d.x, axis=0))
_add(
    "cumulative_sum",
    lambda d: xp.cumulative_sum(d.x, axis=0),
    lambda d: xp.cumulative_sum(d.v, include_initial=True),
)
_add("cumulative_prod", lambda d: xp.cumulative_prod(d.i, axis=1, dtype="float64"))
_add("diff", lambda d: xp.diff(d.x, axis=0, n=2), lambda d: xp.diff(d.b))
_add("average", lambda d: xp.average(d.x, axis=1, weights=d.row), lambda d: xp.average(d.x))
_add("cov", lambda d: xp.cov(d.wide), lambda d: xp.cov(d.v))
_each("median", "x")
_add("median", lambda d: xp.median(d.x, axis=0))
_add(
    "quantile",
    lambda d: xp.quantile(d.x, [0.1, 0.5, 0.75], axis=1),
    lambda d: xp.quantile(d.v, 0.3, method="lower"),
)
_add("percentile", lambda d: xp.percentile(d.x, 40, axis=0, keepdims=True))
_add(
    "histogram",
    lambda d: xp.histogram(d.v, 5),
    lambda d: xp.histogram(d.v, 5, (-1, 1), density=True),
    lambda d: xp.histogram(d.v, [-1.0, 0.0, 2.0], weights=d.w),
)
_add(
    "bincount",
    lambda d: xp.bincount(d.ties),
    lambda d: xp.bincount(d.ties, weights=d.w, minlength=9),
)

# --- searching, sorting, sets, indexing --------------------------------------------------

_add("nonzero", lambda d: xp.nonzero(d.j), lambda d: xp.nonzero(d.b))
_add("flatnonzero", lambda d: xp.flatnonzero(d.j))
_add("argwhere", lambda d: xp.argwhere(d.b))
_add(
    "searchsorted",
    lambda d: xp.searchsorted(d.stairs, d.x),
    lambda d: xp.searchsorted(d.stairs, d.v, side="right"),
    lambda d: xp.searchsorted(d.v, d.x, sorter=xp.argsort(d.v)),
)
_add(
    "sort",
    lambda d: xp.sort(d.x, axis=0),
    lambda d: xp.sort(d.v),
    lambda d: xp.sort(d.ties, descending=True),
    lambda d: xp.sort(d.wild),
    lambda d: xp.sort(d.holes, descending=True),
)
_add(
    "argsort",
    lambda d: xp.argsort(d.x, axis=0, descending=True),
    lambda d: xp.argsort(d.v),
    lambda d: xp.argsort(d.ties, descending=True),
    lambda d: xp.argsort(d.wild),
)
_add("isin", lambda d: xp.isin(d.j, d.ties), lambda d: xp.isin(d.i, 3, invert=True))
for _operand in ("ties", "j", "wild"):
    _each("unique_all unique_counts unique_inverse unique_values", _operand)
_add(
    "unique",
    lambda d: xp.unique(d.wild, True, True, True),
    lambda d: xp.unique(d.j, return_inverse=True, equal_nan=False),
    lambda d: xp.unique(d.b, True, True, True, axis=0),
)
_add("union1d", lambda d: xp.union1d(d.ties, d.j))
_add("intersect1d", lambda d: xp.intersect1d(d.ties, d.i, return_indices=True))
_add("setdiff1d", lambda d: xp.setdiff1d(d.i, d.ties))
_add("setxor1d", lambda d: xp.setxor1d(d.i, d.ties))
_add("partition", lambda d: xp.sort(xp.partition(d.x, 2, axis=0), axis=0), lambda d: xp.partition(
    d.v, 3))  # fmt: skip
_add("argpartition", lambda d: xp.sort(xp.argpartition(d.x, 2, axis=0), axis=0))
_add("lexsort", lambda d: xp.lexsort((d.x, d.j), axis=0), lambda d: xp.lexsort((d.v, d.ties)))
_add("sort_complex", lambda d: xp.sort_complex(d.ties), lambda d: xp.sort_complex(d.z))
_add("digitize", lambda d: xp.digitize(d.x, [-0.5, 0.1, 0.5]), lambda d: xp.digitize(
    d.v, d.stairs[::-1], right=True))  # fmt: skip
_add(
    "take",
    lambda d: xp.take(d.x, xp.asarray([3, 0, 6, -1]), axis=0),
    lambda d: xp.take(d.v, d.ties),
)
_add("take_along_axis", lambda d: xp.take_along_axis(d.x, xp.argsort(d.y, axis=0), axis=0))

# Indexing itself, which has no name.
_add(
    "[]",
    lambda d: d.x[1:6:2, ::-1],
    lambda d: d.x[4],
    lambda d: d.x[..., None, 3],
    lambda d: d.x[[5, 0, 3]],
    lambda d: d.x[[5, 0, 3], [1, 4, 1]],
    lambda d: d.x[:, xp.asarray([[0, 4], [2, 2]])],
    lambda d: d.x[d.b],
    lambda d: d.x[xp.any(d.b, axis=1)],
    lambda d: d.changed((slice(1, 5), 2), 7.0),
    lambda d: d.changed((slice(None), slice(0, 4, 2)), d.y[:, :2]),
    lambda d: d.changed(d.b, 0.0),
    lambda d: d.changed([5, 0], d.row),
    lambda d: d.changed((slice(None), xp.asarray([3, 1])), 1.0),
    lambda d: d.changed((d.b.compute(),), 1.0),
    lambda d: d.x.rechunk(4),
    lambda d: xp.sum(d.x.to_device("gpu") * 2, axis=0).to_device("cpu"),
)  # fmt: skip

# --- manipulation ------------------------------------------------------------------------

_each("ravel transpose matrix_transpose flip expand_dims squeeze atleast_2d", "x")
_each("atleast_1d atleast_2d", "v")
_each("broadcast_arrays", "x", "row")
_add("atleast_1d", lambda d: xp.atleast_1d(xp.sum(d.x)))
_add("broadcast_to", lambda d: xp.broadcast_to(d.row, (3, 7, 5)))
_add("concat", lambda d: xp.concat([d.x, d.i], axis=1), lambda d: xp.concat([d.x, d.y], axis=None))
_add(
    "concatenate", lambda d: xp.concatenate([d.x, d.y]), lambda d: xp.concatenate([d.x[0], d.x[1]])
)
_add("expand_dims", lambda d: xp.expand_dims(d.x, axis=(0, 2)))
_add("flip", lambda d: xp.flip(d.x, axis=1))
_add("hstack", lambda d: xp.hstack([d.x, d.y]) + 1)
_add("moveaxis", lambda d: xp.moveaxis(d.oblongs, 0, -1))
_add(
    "pad",
    lambda d: xp.pad(d.x, 2),
    lambda d: xp.pad(d.x, ((1, 2), (0, 3)), mode="reflect"),
    lambda d: xp.pad(d.x, 1, mode="wrap"),
)
_add("permute_dims", lambda d: xp.permute_dims(d.oblongs, (2, 0, 1)))
_add(
    "repeat",
    lambda d: xp.repeat(d.x, 3, axis=1),
    lambda d: xp.repeat(d.row, xp.asarray([1, 0, 2, 0, 3])),
)
_add("reshape", lambda d: xp.reshape(d.x, (5, 7)), lambda d: xp.reshape(d.oblongs, (-1, 6)))
_add("roll", lambda d: xp.roll(d.x, 3), lambda d: xp.roll(d.x, (1, -2), axis=(0, 1)))
_add("split", lambda d: xp.split(d.x, [2, 5]))
_add("squeeze", lambda d: xp.squeeze(xp.expand_dims(d.x, axis=1)))
_add("stack", lambda d: xp.stack([d.x, d.y], axis=1))
_add("swapaxes", lambda d: xp.swapaxes(d.oblongs, 0, 2))
_add("tile", lambda d: xp.tile(d.x, (2, 2)) + 1)
_add("unstack", lambda d: xp.unstack(d.x, axis=1))
_add("vstack", lambda d: xp.vstack([d.x, d.row]))

# --- products and linear algebra ---------------------------------------------------------

for _prefix in ("", "linalg."):
    _each(f"{_prefix}matmul", "stack", "symmetric")
    _each(f"{_prefix}matmul", "square", "definite")
    _each(f"{_prefix}matmul", "square", "lopsided")
    _each(f"{_prefix}outer", "v", "row")
    _each(f"{_prefix}vecdot", "x", "row")
    _each(f"{_prefix}vecdot", "z", "z")
    for _name in ("diagonal", "trace", "matrix_transpose"):
        _each(_prefix + _name, "stack")
    _each(f"{_prefix}tensordot", "x", "y", axes=((0,), (0,)))
_add(
    "matmul", lambda d: d.tall.T @ d.tall, lambda d: _standardised(d.tall).T @ _standardised(d.tall)
)
_add("matmul", lambda d: d.i.T @ d.i, lambda d: d.z.T @ d.z)
_add("matmul", lambda d: _standardised(d.far).T @ _standardised(d.far))
_add("matmul", lambda d: _standardised(d.offset).T @ _standardised(d.offset))
_add("diag", lambda d: xp.diag(d.row, 1), lambda d: xp.diag(d.square, -2))
_each("dot", "x", "row")
_add("dot", lambda d: xp.dot(d.x, 2.0 * d.x.T))
_add(
    "einsum",
    lambda d: xp.einsum("ij,kj->ik", d.x, d.y),
    lambda d: xp.einsum("ii->i", d.square),
    lambda d: xp.einsum("ij,j,ij->", d.x, d.row, d.y),
)
_each("linalg.cholesky linalg.inv linalg.det linalg.slogdet", "symmetric")
_each("linalg.cholesky linalg.inv linalg.det linalg.slogdet", "definite")
_add("linalg.cholesky", lambda d: linalg.cholesky(d.symmetric, upper=True))
_each("linalg.cross", "triples", "triples2")
_each("linalg.eig linalg.eigvals", "stack")
_each("linalg.eigvalsh", "symmetric")
_each("linalg.eigvalsh", "definite")
_add("linalg.eigh", lambda d: _unsigned(linalg.eigh(d.symmetric)))
_add("linalg.eigh", lambda d: _unsigned(linalg.eigh(d.definite)))
_each("linalg.lstsq", "tall", "y24")
_each("linalg.lstsq", "flat", "y9")
for _name in ("matrix_norm", "matrix_rank", "pinv", "svd", "svdvals", "qr"):
    for _operand in ("oblongs", "tall", "flat"):
        _each(f"linalg.{_name}", _operand)
_add("linalg.matrix_norm", *[lambda d, o=o: linalg.matrix_norm(d.x, ord=o) for o in (1, 2, "nuc")])
_add("linalg.matrix_power", *[lambda d, n=n: linalg.matrix_power(d.square, n) for n in (3, -2)])
_each("linalg.norm linalg.vector_norm", "x")
_add("linalg.norm", lambda d: linalg.norm(d.x, ord=3, axis=0))
_add("linalg.vector_norm", *[lambda d, o=o: linalg.vector_norm(d.z, ord=o) for o in (0, 1, np.inf)])
_add("linalg.pinv", lambda d: linalg.pinv(d.oblongs, rtol=xp.asarray([0.1] * 4)))
_add(
    "linalg.qr",
    *[lambda d, a=a: linalg.qr(getattr(d, a), mode="complete") for a in ("oblongs", "flat")],
)
_add(
    "linalg.svd",
    *[
        lambda d, a=a: linalg.svd(getattr(d, a), full_matrices=False)
        for a in ("oblongs", "tall", "poor", "flat", "wide")
    ],
)
_each("linalg.det linalg.inv linalg.slogdet", "mixed")
_each("linalg.solve", "square", "b8")
_each("linalg.solve", "stack", "symmetric")
_each("linalg.inv linalg.qr", "broad")
_each("linalg.solve_triangular", "square", "b8")
_add(
    "linalg.solve_triangular",
    lambda d: linalg.solve_triangular(d.stack, d.symmetric, lower=True),
    lambda d: linalg.solve_triangular(d.square, d.definite, lower=True, unit_diagonal=True),
)
_add("linalg.svd_compressed", lambda d: linalg.svd_compressed(d.wide, 2))

# --- Fourier transforms and random numbers -----------------------------------------------

_each("fft.fft fft.ifft fft.fftn fft.ifftn fft.irfft fft.hfft fft.irfftn", "z")
_each("fft.fft fft.ifft fft.fftn fft.rfft fft.rfftn fft.ihfft fft.fftshift fft.ifftshift", "x")
_add("fft.fft", lambda d: fft.fft(d.i, n=9, axis=0, norm="ortho"))
_add("fft.ifftshift", lambda d: fft.ifftshift(d.v))
_add("fft.fftfreq", lambda d: fft.fftfreq(7) * 2)
_add("fft.rfftfreq", lambda d: fft.rfftfreq(7) * 2)

_DRAWS: dict[str, tuple[Any, ...]] = {
    "binomial": (9, 0.3), "exponential": (2.0,), "gamma": (2.0,), "integers": (3, 9),
    "normal": (1.0, 2.0), "poisson": (3.0,), "random": (), "standard_normal": (),
    "uniform": (-1.0, 1.0),
}  # fmt: skip
for _name, _args in _DRAWS.items():
    _add(
        f"random.{_name}",
        lambda d, n=_name, a=_args: getattr(random.default_rng(1), n)(*a, size=(7, 5), chunks=3),
    )
_add("random.default_rng", lambda d: random.default_rng(3).random(9, dtype="float32", chunks=4))
_add(
    "random.permutation",
    lambda d: random.default_rng(2).permutation(11, chunks=4),
    lambda d: random.default_rng(2).permutation(d.x),
)
_add(
    "random.choice",
    lambda d: random.default_rng(2).choice(d.v, 9, chunks=4),
    lambda d: random.default_rng(2).choice(11, 5, replace=False),
)
_add("random.spawn", lambda d: random.default_rng(2).spawn(2)[1].random(9, chunks=4))

# --- users' kernels and files ------------------------------------------------------------


def _over_xp(block: Any, *, xp: Any) -> Any:
    return xp.flip(block * 2, axis=0)


def _over_numpy(block: Any) -> Any:
    return np.flip(block * 2, axis=0)


@ar.codelet
def _of_each_kind(block: Any) -> Any:
    return np.flip(block * 2, axis=0)


@_of_each_kind.gpu
def _of_gpus(block: Any, *, xp: Any) -> Any:
    assert xp is not np
    return xp.flip(block * 2, axis=0)


for _function in (_over_xp, _of_each_kind):
    _add("map_blocks", lambda d, f=_function: xp.map_blocks(f, d.x))
    _add("map_overlap", lambda d, f=_function: xp.map_overlap(f, d.x, depth=1))
    _add("apply_gufunc", lambda d, f=_function: xp.apply_gufunc(f, "(i)->(i)", d.x))


for _boundary in ("reflect", "nearest", "periodic", -1.0):
    _add("map_overlap", lambda d, b=_boundary: xp.map_overlap(_over_xp, d.x, depth=2, boundary=b))
_add("apply_along_axis", lambda d: xp.apply_along_axis(np.sort, 0, d.x))
_add("apply_over_axes", lambda d: xp.apply_over_axes(lambda a, axis: xp.max(a, axis=axis), d.x, 0))
_add("piecewise", lambda d: xp.piecewise(d.x, [d.x > 0], [_over_numpy, 0]))
_add("vectorize", lambda d: xp.vectorize(math.floor)(d.x))
_add("frompyfunc", lambda d: xp.frompyfunc(math.floor, 1, 1)(d.x))


def _from_npy(d: Data) -> Any:
    np.save(d.folder / "x.npy", d.host)
    return xp.from_npy(str(d.folder / "x.npy"), chunks=3) + 1


def _to_npy(d: Data) -> Any:
    xp.to_npy(str(d.folder / "x.npy"), d.x * 2)
    return np.load(d.folder / "x.npy")


def _from_npz(d: Data) -> Any:
    np.savez(d.folder / "x.npz", x=d.host)
    return xp.from_npz(str(d.folder / "x.npz"), chunks=3)["x"] + 1


def _from_zarr(d: Data) -> Any:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(d.folder / "x.zarr", data=d.host, chunks=(3, 3))
    return xp.from_zarr(str(d.folder / "x.zarr")) + 1


def _to_zarr(d: Data) -> Any:
    zarr = pytest.importorskip("zarr")
    xp.to_zarr(str(d.folder / "x.zarr"), d.x * 2)
    return zarr.open_array(d.folder / "x.zarr")[...]


def _from_hdf5(d: Data) -> Any:
    h5py = pytest.importorskip("h5py")
    with h5py.File(d.folder / "x.h5", "w") as file:
        file["x"] = d.host
    return xp.from_hdf5(str(d.folder / "x.h5"), "x", chunks=3) + 1


def _to_hdf5(d: Data) -> Any:
    h5py = pytest.importorskip("h5py")
    xp.to_hdf5(str(d.folder / "x.h5"), "x", d.x * 2)
    with h5py.File(d.folder / "x.h5") as file:
        return file["x"][...]


def _from_parquet(d: Data) -> Any:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"a": d.host[:, 0], "b": d.host[:, 1]})
    parquet.write_table(table, d.folder / "x.parquet")
    return xp.from_parquet(str(d.folder / "x.parquet"), chunks=3) + 1


def _to_parquet(d: Data) -> Any:
    parquet = pytest.importorskip("pyarrow.parquet")
    xp.to_parquet(d.folder / "x.parquet", d.x * 2)
    xp.to_parquet(d.folder / "table", {"a": d.v, "b": d.w * 2})
    table = parquet.read_table(d.folder / "x.parquet")
    more = parquet.read_table(d.folder / "table")
    return [column.to_numpy() for column in [*table.columns, *more.columns]]


_add("to_parquet", _to_parquet)
_add("from_npy", _from_npy)
_add("from_npz", _from_npz)
_add("from_zarr", _from_zarr)
_add("from_hdf5", _from_hdf5)
_add("from_parquet", _from_parquet)
_add("to_npy", _to_npy)
_add("to_zarr", _to_zarr)
_add("to_hdf5", _to_hdf5)


for _more in (portable_mutation, portable_numbers, portable_surface):
    for _name, _cases in _more.CASES.items():
        _add(_name, *_cases)

IN_STAGES = _words(
    "take searchsorted sort argsort unique_all unique_counts unique_inverse lexsort isin"
)
"""What is done in another way where chunks are many."""
STANDARD = [name for name in CASES if name not in BEYOND]


# --- the tests ---------------------------------------------------------------------------


def _values(result: Any) -> list[np.ndarray]:
    """All arrays in a result, computed."""
    if isinstance(result, xp.Array):
        return [result.compute()]
    if isinstance(result, list | tuple):
        return [value for element in result for value in _values(element)]
    return [np.asarray(result)]


def _compare(case: Case, stand_in: StandIn, folder: Path) -> Ran:
    """Run one case on the stand-in and over NumPy; what ran where on the stand-in."""
    nodes._known.clear()  # an equal expression that another test keeps would be computed already
    with on(None), np.errstate(all="ignore"):
        wanted = _values(case(Data(_made(folder / "host"))))
    nodes._known.clear()
    with on(stand_in) as ran, np.errstate(all="ignore"):
        found = _values(case(Data(_made(folder / "device"))))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    return ran


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_table_has_every_public_function() -> None:
    methods = {f"random.{name}" for name in dir(random.Generator) if not name.startswith("_")}
    functions = {f"fft.{name}" for name in vars(fft) if isinstance(
        getattr(fft, name), types.FunctionType) and getattr(fft, name).__module__ == fft.__name__
        and not name.startswith("_")}  # fmt: skip
    public = {*xp.__all__} | {f"linalg.{name}" for name in linalg.__all__} | functions | methods
    assert public | {"[]", "random.default_rng"} == CASES.keys() | {*NO_KERNELS}


@pytest.mark.parametrize("name", CASES)
def test_over_arrays_that_refuse_numpys(name: str, tmp_path: Path) -> None:
    ran = [_compare(c, CUPY_LIKE, tmp_path / str(i)) for i, c in enumerate(CASES[name])]
    assert any(one.device for one in ran) or name in HOST_ONLY
    host = set[str]().union(*[one.host for one in ran])
    assert host == ({HOST_ONLY[name]} if name in HOST_ONLY else set())


@pytest.mark.parametrize("name", IN_STAGES)
def test_over_arrays_that_refuse_numpys_where_chunks_are_many(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "DIRECT_BLOCKS", 2)
    monkeypatch.setattr(exchange, "MOST_RUNS", 1)
    monkeypatch.setattr(exchange, "WIDTH", 2)
    monkeypatch.setattr(ranks, "SAMPLES", 2)
    monkeypatch.setattr(ranks, "SAMPLES_PER_RUN", 0)
    monkeypatch.setattr(searching, "TABLE_BYTES", 60)
    monkeypatch.setattr(searching, "PAIRED", 0)
    monkeypatch.setattr(uniqueness, "TABLE_ELEMENTS", 1)
    for number, case in enumerate(CASES[name]):
        assert not _compare(case, CUPY_LIKE, tmp_path / str(number)).host


@pytest.mark.parametrize("name", STANDARD)
def test_over_the_standard_alone(name: str, tmp_path: Path) -> None:
    for number, case in enumerate(CASES[name]):
        _compare(case, STRICT, tmp_path / str(number))


@pytest.mark.parametrize("name", BEYOND)
def test_what_the_standard_has_not_is_refused(name: str, tmp_path: Path) -> None:
    """Some case fails, and none gives other values: the lists above are no longer than true."""
    refused = 0
    for number, case in enumerate(CASES[name]):
        try:
            _compare(case, STRICT, tmp_path / str(number))
        except (AttributeError, IndexError, TypeError, ValueError):
            refused += 1
    assert refused


def test_over_torch_on_the_cpu(tmp_path: Path) -> None:
    stand_in = torch_stand_in()
    for name in STANDARD:
        for number, case in enumerate(CASES[name] if name not in NOT_IN_TORCH else ()):
            try:
                _compare(case, stand_in, tmp_path / f"{name}-{number}")
            except Exception as error:
                error.add_note(f"in case {number} of {name}")
                raise


@pytest.mark.parametrize("name", ["map_blocks", "map_overlap", "apply_gufunc"])
def test_a_users_function_of_numpy_arrays_stays_on_cpus(name: str, tmp_path: Path) -> None:
    def made() -> xp.Array:
        x = Data(tmp_path).x
        if name == "apply_gufunc":
            return xp.apply_gufunc(_over_numpy, "(i)->(i)", x)
        return _find(name)(_over_numpy, x, **({"depth": 1} if name == "map_overlap" else {}))

    with on(None):
        wanted = made().compute()
    with on(CUPY_LIKE) as ran:
        np.testing.assert_array_equal((made() + 0).compute(), wanted)
    assert ran.host == {f"array.{name}.{_over_numpy.__qualname__}"}
