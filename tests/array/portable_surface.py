"""Cases for `test_portable_kernels`: creation, joining, picking, products, transforms, polynomials
and NumPy's functions for files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import agentic_ray.array as xp

linalg, fft = xp.linalg, xp.fft
Case = Callable[[Any], Any]


def _of(function: Callable[..., Any], *operands: str, **options: Any) -> Case:
    return lambda d: function(*[getattr(d, operand) for operand in operands], **options)


def _saved(d: Any) -> Any:
    xp.save(d.folder / "s.npy", d.x * 2)
    return xp.load(d.folder / "s.npy") + 1


def _archived(function: Callable[..., None]) -> Case:
    def case(d: Any) -> Any:
        function(d.folder / "s.npz", d.x * 2, w=d.v)
        found = xp.load(d.folder / "s.npz")
        return [found["arr_0"] + 1, found["w"]]

    return case


def _as_text(d: Any) -> Any:
    text = io.StringIO()
    xp.savetxt(text, d.x * 2)
    return xp.loadtxt(text.getvalue().splitlines()) + 1


def _from_file(d: Any) -> Any:
    (d.x * 2).tofile(d.folder / "s.bin")
    return xp.fromfile(d.folder / "s.bin") + 1


CASES: dict[str, list[Case]] = {
    "asanyarray": [lambda d: xp.asanyarray(d.host) + 1],
    "asarray_chkfinite": [lambda d: xp.asarray_chkfinite(d.x) + 1],
    "ascontiguousarray": [lambda d: xp.ascontiguousarray(d.x) + 1],
    "asfortranarray": [lambda d: xp.asfortranarray(d.x) + 1],
    "require": [lambda d: xp.require(d.x, float, "F") + 1],
    "frombuffer": [lambda d: xp.frombuffer(d.host.tobytes()) + 1],
    "fromfile": [_from_file],
    "fromiter": [lambda d: xp.fromiter(range(5), float) + 1],
    "fromregex": [lambda d: xp.fromregex(io.StringIO("1\n2"), r"(\d)\n?", [("n", int)])["n"] + 1],
    "fromstring": [lambda d: xp.fromstring("1 2", sep=" ") + 1],
    "fromfunction": [lambda d: xp.fromfunction(lambda i, j: i + 2 * j, (3, 4))],
    "indices": [lambda d: xp.indices((3, 4), chunks=2), lambda d: xp.indices((3, 4), sparse=True)],
    "ix_": [lambda d: [part + 1 for part in xp.ix_(d.j[0], [1, 2])]],
    "mgrid": [lambda d: xp.mgrid[0:3, 0:1:5j]],
    "ogrid": [lambda d: xp.ogrid[0:3, 0:4]],
    "r_": [lambda d: xp.r_[d.v, 1, 2:5] * 2],
    "c_": [lambda d: xp.c_[d.v, d.w] * 2],
    "logspace": [lambda d: xp.logspace(0, 2, 7, chunks=3)],
    "geomspace": [lambda d: xp.geomspace(1, 64, 7, chunks=3)],
    "linspace": [lambda d: xp.linspace(d.row, d.row + 1, 4)],
    "tri": [lambda d: xp.tri(5, 4, 1, chunks=2)],
    "tril_indices": [lambda d: xp.tril_indices(4)],
    "triu_indices": [lambda d: xp.triu_indices(4, 1)],
    "tril_indices_from": [lambda d: xp.tril_indices_from(d.x)],
    "triu_indices_from": [lambda d: xp.triu_indices_from(d.x)],
    "mask_indices": [lambda d: xp.mask_indices(4, xp.triu)],
    "diag_indices": [lambda d: xp.diag_indices(4)],
    "diag_indices_from": [lambda d: xp.diag_indices_from(d.square)],
    "diagflat": [_of(xp.diagflat, "x")],
    "vander": [_of(xp.vander, "v", N=4)],
    **{
        name: [lambda d, name=name: getattr(xp, name)(9)]
        for name in ("bartlett", "blackman", "hamming", "hanning")
    },
    "kaiser": [lambda d: xp.kaiser(9, 4.0)],
    "ndenumerate": [lambda d: [value for _, value in xp.ndenumerate(d.x + 0)]],
    "nditer": [lambda d: [value + 0 for value in xp.nditer(d.x + 0)]],
    "broadcast": [lambda d: [one + other for one, other in xp.broadcast(d.x + 0, d.row)]],
    "compress": [
        lambda d: xp.compress(d.b[:, 0], d.x, axis=0),
        lambda d: xp.compress(d.b[0], d.x, 1),
    ],
    "extract": [_of(xp.extract, "b", "x")],
    "take": [lambda d: xp.take(d.x, [3, 99, -50], mode="wrap")],
    "array_split": [lambda d: [part + 1 for part in xp.array_split(d.x, 3)]],
    "hsplit": [lambda d: [part + 1 for part in xp.hsplit(d.x, [2])]],
    "vsplit": [lambda d: [part + 1 for part in xp.vsplit(d.x, [2])]],
    "dsplit": [lambda d: [part + 1 for part in xp.dsplit(d.oblongs, 3)]],
    "atleast_3d": [_of(xp.atleast_3d, "x")],
    "fliplr": [lambda d: xp.fliplr(d.x) + 1],
    "flipud": [lambda d: xp.flipud(d.x) + 1],
    "rot90": [lambda d: xp.rot90(d.x) + 1],
    "rollaxis": [lambda d: xp.rollaxis(d.oblongs, 2) + 1],
    "block": [lambda d: xp.block([[d.x, d.y], [d.y, d.x]]) + 1],
    "column_stack": [lambda d: xp.column_stack([d.v, d.w]) + 1],
    "dstack": [lambda d: xp.dstack([d.x, d.y]) + 1],
    "row_stack": [lambda d: xp.row_stack([d.v, d.w]) + 1],
    "resize": [lambda d: xp.resize(d.v, (5, 7))],
    "append": [lambda d: xp.append(d.v, d.row) + 1],
    "delete": [lambda d: xp.delete(d.x, [1, 3], axis=0), lambda d: xp.delete(d.v, 2) + 1],
    "insert": [lambda d: xp.insert(d.x, [1, 3], d.row, axis=0)],
    "trim_zeros": [lambda d: xp.trim_zeros(d.b.astype(int)[0]) + 1],
    "packbits": [_of(xp.packbits, "b", axis=0)],
    "unpackbits": [lambda d: xp.unpackbits(d.i.astype("uint8"), axis=1)],
    "ravel_multi_index": [lambda d: xp.ravel_multi_index((d.j, d.j), (5, 6))],
    "unravel_index": [lambda d: xp.unravel_index(d.i, (3, 4))],
    "pad": [
        lambda d: xp.pad(d.x, 2, "linear_ramp"),
        lambda d: xp.pad(d.x, 2, "mean"),
        lambda d: xp.pad(d.x, 3, "symmetric", reflect_type="odd"),
    ],
    "inner": [_of(xp.inner, "x", "y")],
    "vdot": [_of(xp.vdot, "z", "z")],
    "kron": [_of(xp.kron, "x", "row")],
    "cross": [_of(xp.cross, "triples", "triples2", axis=1)],
    "matvec": [_of(xp.matvec, "x", "row")],
    "vecmat": [lambda d: xp.vecmat(d.z[:, 0], d.x)],
    "linalg.cond": [_of(linalg.cond, "square"), lambda d: linalg.cond(d.stack, 1)],
    "linalg.multi_dot": [lambda d: linalg.multi_dot([d.x, d.y.T, d.x])],
    "linalg.tensorinv": [lambda d: linalg.tensorinv(d.square.reshape(8, 2, 4), ind=1)],
    "linalg.tensorsolve": [lambda d: linalg.tensorsolve(d.square.reshape(8, 2, 4), d.b8)],
    "linalg.norm": [lambda d: linalg.norm(d.oblongs, 1, axis=(0, 2))],
    "linalg.qr": [lambda d: linalg.qr(d.square, mode="r")],
    "linalg.svd": [lambda d: linalg.svd(d.definite, compute_uv=False, hermitian=True)],
    "linalg.matrix_rank": [_of(linalg.matrix_rank, "definite", hermitian=True)],
    "linalg.pinv": [_of(linalg.pinv, "definite", hermitian=True)],
    "fft.fft2": [_of(fft.fft2, "x")],
    "fft.ifft2": [_of(fft.ifft2, "z")],
    "fft.rfft2": [_of(fft.rfft2, "x")],
    "fft.irfft2": [_of(fft.irfft2, "z")],
    "poly": [lambda d: xp.poly(d.row) + 0],
    "polyadd": [lambda d: xp.polyadd(d.row, [1.0]) + 0],
    "polysub": [lambda d: xp.polysub(d.row, [1.0]) + 0],
    "polymul": [lambda d: xp.polymul(d.row, [1.0, 2.0]) + 0],
    "polydiv": [lambda d: [part + 0 for part in xp.polydiv(d.row, [1.0, 2.0])]],
    "polyder": [lambda d: xp.polyder(d.row) + 0],
    "polyint": [lambda d: xp.polyint(d.row) + 0],
    "roots": [lambda d: xp.abs(xp.roots(d.row))],
    "polyval": [lambda d: xp.polyval([1.0, 2.0, 3.0], d.x)],
    "polyfit": [lambda d: xp.polyfit(d.v, d.w, 2)],
    "load": [_saved],
    "save": [_saved],
    "savez": [_archived(xp.savez)],
    "savez_compressed": [_archived(xp.savez_compressed)],
    "loadtxt": [_as_text],
    "savetxt": [_as_text],
    "genfromtxt": [lambda d: xp.genfromtxt(["1,2", "3,4"], delimiter=",") + 1],
    "astype": [lambda d: d.i.astype(float, casting="same_value")],
}

NO_KERNELS = [
    "copy",
    "einsum_path",
    "index_exp",
    "isfortran",
    "linalg.LinAlgError",
    "may_share_memory",
    "ndindex",
    "s_",
    "shares_memory",
]
"""They compute nothing."""

BEYOND = [
    "delete",
    "fromregex",
    "insert",
    "kaiser",
    "linalg.tensorinv",
    "linalg.tensorsolve",
    "mask_indices",
    "polyfit",
    "ravel_multi_index",
    "resize",
    "tril_indices",
    "tril_indices_from",
    "triu_indices",
    "triu_indices_from",
    "unravel_index",
]
"""The standard has no such function, does not assign at index arrays, or adds no booleans."""

HOST_ONLY = {
    "packbits": "array.packbits",
    "unpackbits": "array.unpackbits",
    "linalg.cond": "array.cond",
    "astype": "array.astype_same_value",
    "save": "array.write",
    "load": "array.write",
}
"""CuPy has no such function, or not for all arguments; or files are written."""
