"""Expressions over all public functions, and ways to compute them that must not change a bit.

Run as a program it prints, for one thread of BLAS and for several, a digest of each result:
``test_bits`` runs it with other kernels of OpenBLAS.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test_portable_kernels import CASES as SMALL_CASES
from test_portable_kernels import Data

import agentic_ray.array as xp
from agentic_ray import blas
from agentic_ray.array.core import evaluate, node, prepared
from agentic_ray.graph import Task, replace_refs

linalg, fft = xp.linalg, xp.fft


class Operands:
    """Arrays so large that BLAS would share their products out; made anew for each run."""

    def __init__(self, dtype: str = "f8", *, fortran: bool = False) -> None:
        rng = np.random.default_rng(0)
        kind = np.dtype(dtype)

        def cut(*shape: int, chunks: Any = -1) -> xp.Array:
            made = rng.normal(size=shape)
            if kind.kind == "c":
                made = made + 1j * rng.normal(size=shape)
            array = made.astype(kind)
            return xp.asarray(np.asfortranarray(array) if fortran else array, chunks=chunks)

        self.x = cut(200, 150, chunks=(77, 60))
        self.y = cut(200, 150, chunks=(60, 77))
        self.whole = cut(180, 130)
        self.tall = cut(3000, 12, chunks=(700, 12))
        self.long = cut(3000, chunks=700)
        self.v, self.u = cut(150, chunks=60), cut(200)
        self.row, self.column = cut(150), cut(200, 1)
        self.square = cut(140, 140, chunks=(60, 50))
        self.stack = cut(6, 40, 30, chunks=(4, 40, 30))
        self.panels = cut(2500, 40)  # products with it are made by panels of rows
        self.block, self.line = cut(255, 257), cut(65_500)  # one cache block each, all but full


Case = Callable[[Any], Any]


def _sigmoid(z: xp.Array) -> xp.Array:
    return 1 / (1 + xp.exp(-z))


def _standardised(x: xp.Array) -> xp.Array:
    return (x - xp.mean(x, axis=0)) / xp.std(x, axis=0)


def _definite(x: xp.Array) -> xp.Array:
    return x @ xp.conj(x.T) + 200 * xp.eye(x.shape[0], dtype=x.dtype)


PRODUCTS: dict[str, Case] = {
    "x @ x.T": lambda d: d.x @ d.x.T,
    "x.T @ x": lambda d: d.x.T @ d.x,
    "x.T @ y": lambda d: d.x.T @ d.y,
    "x @ y.T": lambda d: d.x @ d.y.T,
    "x.T @ u": lambda d: d.x.T @ d.u,
    "x @ v": lambda d: d.x @ d.v,
    "u @ x": lambda d: d.u @ d.x,
    "v @ v": lambda d: d.v @ d.v,
    "column @ row": lambda d: d.column @ d.row[None, :],
    "column @ column.T": lambda d: d.column @ d.column.T,
    "whole @ whole.T": lambda d: d.whole @ d.whole.T,
    "whole.T @ whole": lambda d: d.whole.T @ d.whole,
    "square @ square": lambda d: d.square @ d.square,
    "square[::-1] @ square.T": lambda d: d.square[::-1] @ d.square.T,
    "tall.T @ tall": lambda d: d.tall.T @ d.tall,
    "tall.T @ (2 tall)": lambda d: d.tall.T @ (d.tall * 2),
    "long @ tall": lambda d: d.long @ d.tall,
    "long @ long": lambda d: d.long @ d.long,
    "tall.T @ long": lambda d: d.tall.T @ (d.long + 1),
    "tall[:, :5].T @ tall": lambda d: d.tall[:, :5].T @ d.tall,
    "tall[:2990].T @ tall[10:]": lambda d: d.tall[:2990].T @ d.tall[10:],
    "gradient": lambda d: d.tall.T @ (_sigmoid(d.tall @ d.tall[5]) - d.long),
    "standardised": lambda d: _standardised(d.tall).T @ _standardised(d.tall),
    "centred": lambda d: (d.tall - d.tall.mean(axis=0)).T @ (d.long - d.long.mean()),
    "stack @ stack.mT": lambda d: d.stack @ d.stack.mT,
    "dot": lambda d: xp.dot(d.x, d.y.T),
    "vecdot": lambda d: xp.vecdot(d.x, d.y),
    "tensordot": lambda d: xp.tensordot(d.x, d.x, axes=((0,), (0,))),
    "tensordot of stacks": lambda d: xp.tensordot(d.stack, d.stack, axes=((1, 2), (1, 2))),
    "einsum": lambda d: xp.einsum("ki,kj->ij", d.x, d.x),
    "einsum of three": lambda d: xp.einsum("ij,jk,kl->il", d.x, d.x.T, d.x),
    "outer": lambda d: xp.outer(d.v, d.u),
    "cov": lambda d: xp.cov(xp.real(d.x)),
    "vector_norm": lambda d: linalg.vector_norm(d.x),
    "matrix_norm": lambda d: linalg.matrix_norm(d.x, ord=2),
    "matrix_power": lambda d: linalg.matrix_power(d.square / 10, 5),
    "trace": lambda d: linalg.trace(d.square),
}

FACTORS: dict[str, Case] = {
    "svd of tall": lambda d: linalg.svd(d.tall, full_matrices=False),
    "svdvals of tall.T": lambda d: linalg.svdvals(d.tall.T),
    "svdvals of whole.T": lambda d: linalg.svdvals(d.whole.T),
    "qr of tall": lambda d: linalg.qr(d.tall),
    "qr of x": lambda d: linalg.qr(d.x),
    "qr of whole.T": lambda d: linalg.qr(d.whole.T),
    "solve": lambda d: linalg.solve(d.square, d.square[:, :7].T.T),
    "inv of square.T": lambda d: linalg.inv(d.square.T),
    "slogdet": lambda d: linalg.slogdet(d.square),
    "cholesky": lambda d: linalg.cholesky(_definite(d.square)),
    "eigvalsh": lambda d: linalg.eigvalsh(_definite(d.square)),
    "eigh": lambda d: linalg.eigh(_definite(d.whole)),
    "lstsq": lambda d: linalg.lstsq(d.tall, d.long),
    "pinv": lambda d: linalg.pinv(d.x),
    "svd_compressed": lambda d: linalg.svd_compressed(d.x, 4, seed=1),
    "solve_triangular": lambda d: linalg.solve_triangular(d.square, d.square[:, 3]),
}

SUMS: dict[str, Case] = {
    "sum of transposed": lambda d: d.x.T.sum(),
    "sum of reversed": lambda d: d.x[::-1, ::2].sum(axis=0),
    "sum of strided": lambda d: (d.whole[::3, ::-2] * 2).sum(axis=1),
    "exp of transposed": lambda d: xp.exp(d.x.T).sum(axis=0),
    "power of reversed": lambda d: xp.abs(d.x[:, ::-1]) ** 1.3,
    "squares less means": lambda d: (d.x * d.x - d.x.mean(axis=0)).sum(),
    "twice less means": lambda d: ((d.tall + 1) * 2 - d.tall.mean(axis=0)).sum(),
    "std and mean": lambda d: [d.x.std(axis=0), d.x.mean(axis=0), d.x.var()],
    "var of transposed": lambda d: xp.var(d.x.T * 3, axis=1),
    "prod": lambda d: xp.prod(d.x[:, :40] / 2, axis=1),
    "cumulative_sum": lambda d: xp.cumulative_sum(d.x.T, axis=0),
    "cumulative_prod": lambda d: xp.cumulative_prod(d.x, axis=1),
    "broadcast": lambda d: (xp.broadcast_to(d.row, (200, 150)) * d.column).sum(axis=0),
    "reshape": lambda d: xp.reshape(d.x.T, (75, 400)).sum(axis=0),
    "concat": lambda d: xp.concat([d.x.T, d.y.T], axis=1).mean(axis=1),
    "einsum of one": lambda d: xp.einsum("ij->j", d.x.T),
    "fft": lambda d: fft.fft(d.x.T, axis=0),
    "fftn": lambda d: fft.fftn(d.x),
    "rolled": lambda d: xp.roll(d.x, 3, axis=0).sum(axis=0) + xp.flip(d.x, axis=0).sum(axis=0),
    "average": lambda d: xp.average(d.x, axis=0, weights=d.u),
    "nan": lambda d: [xp.nansum(d.x.T), xp.nanvar(d.x.T, axis=0), xp.nanmean(d.x[::-1])],
    "made here": lambda d: (xp.linspace(0, 1, 3000, chunks=700)[:, None] * d.tall).sum(axis=0),
}

REAL: dict[str, Case] = {
    "quantile": lambda d: xp.quantile(d.x.T, xp.asarray([0.1, 0.77])),
    "median": lambda d: xp.median(d.x.T, axis=0),
    "bincount": lambda d: xp.bincount(xp.astype(xp.abs(d.long) * 9, "int64"), weights=d.long),
    "histogram": lambda d: xp.histogram(d.long, 9, weights=d.long),
    "sort": lambda d: xp.sort(d.long).sum(),
    "random": lambda d: xp.random.default_rng(3).normal(size=(300, 40), chunks=(70, 40)).sum(),
}

BLOCKS: dict[str, Case] = {
    "block: elementwise": lambda d: xp.exp(d.block * 0.3) - d.block.T[:, :255].T / 7,
    "block: sums": lambda d: [d.block.sum(), d.block.sum(axis=0), d.block.T.sum(axis=0)],
    "block: means": lambda d: [d.block.mean(axis=1), d.line.mean(), (d.line * d.line).mean()],
    "block: spreads": lambda d: [d.block.std(), d.block.std(axis=0), d.line.var()],
    "block: strided": lambda d: [d.line[::3].sum(), d.block[::-2, 1::3].sum(axis=1)],
    "block: scans": lambda d: [xp.cumsum(d.line), xp.cumsum(d.block, axis=0), xp.diff(d.line)],
    "block: products": lambda d: [d.block @ d.block.T, d.block.T @ d.block, d.line @ d.line],
    "block: matrix and vector": lambda d: [d.block @ d.block[0], d.block.T @ d.block[:, 1]],
    "block: factors": lambda d: [linalg.qr(d.block), linalg.svd(d.block[:, :90])],
    "block: norms": lambda d: [linalg.vector_norm(d.line), linalg.vector_norm(d.block, axis=0)],
    "block: spectra": lambda d: [fft.fft(d.line), fft.fftn(d.block)],
    "block: moves": lambda d: xp.concat([xp.roll(d.block, 9), d.block[::-1]]).sum(axis=0),
    "panels @ panels.T": lambda d: d.panels @ d.panels[:900].T,
    "panels @ row": lambda d: (d.panels @ d.panels[7]) @ d.panels,
    "block: of one large": lambda d: d.block * d.tall.sum() + d.tall[0, 0],
}
REAL_BLOCKS: dict[str, Case] = {
    "block: sorts": lambda d: [xp.sort(d.block), xp.argsort(d.line), xp.unique_values(d.line)],
    "block: quantiles": lambda d: [xp.median(d.line), xp.quantile(d.block, 0.3, axis=0)],
    "block: counts": lambda d: [xp.histogram(d.line, 30), xp.bincount(xp.astype(d.line**2, "i8"))],
    "block: largest": lambda d: [d.block.max(axis=0), d.block.argmax(), xp.argmin(d.line)],
    "block: masked": lambda d: [d.line[d.line > 0].sum(), xp.where(d.block > 0, d.block, 0.5)],
}
BLOCKS_OF_REAL = {**BLOCKS, **REAL_BLOCKS}

LARGE_CASES = {**PRODUCTS, **FACTORS, **SUMS, **REAL, **BLOCKS_OF_REAL}
LARGE_DTYPES = {
    "f8": LARGE_CASES,
    "f4": {**PRODUCTS, **SUMS, **BLOCKS_OF_REAL},
    "c16": {**PRODUCTS, **SUMS, **FACTORS, **BLOCKS},
}


# --- values ------------------------------------------------------------------------------


def parts(result: Any) -> list[bytes]:
    """The bytes of all arrays in a result, each with its dtype and shape."""
    if isinstance(result, xp.Array):
        result = np.asarray(result)
    if isinstance(result, list | tuple):
        return [part for element in result for part in parts(element)]
    if isinstance(result, dict):
        return parts(list(result.values()))
    array = np.asarray(result)
    return [f"{array.dtype}{array.shape}".encode(), array.tobytes()]


def small_results(
    make: Callable[[Path], Any] = Data, *, here: bool = True
) -> dict[str, list[bytes]]:
    """Of each expression over all public names its bytes, computed in this process or by the
    session."""
    found: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder, _computed(here):
        for name, cases in SMALL_CASES.items():
            for at, case in enumerate(cases):
                own = Path(folder) / f"{name}.{at}"
                own.mkdir()
                found[f"{name} {at}"] = parts(case(make(own)))
    return found


def large_results(
    make: Callable[[str], Any] = Operands,
    dtypes: Sequence[str] = tuple(LARGE_DTYPES),
    *,
    here: bool = True,
) -> dict[str, list[bytes]]:
    """Of each expression over the larger operands its bytes."""
    with _computed(here):
        return {
            f"{name}, {dtype}": parts(case(make(dtype)))
            for dtype in dtypes
            for name, case in LARGE_DTYPES[dtype].items()
        }


@contextmanager
def _computed(here: bool) -> Iterator[None]:
    prepared.forget()  # those of before may run elsewhere
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        mock.patch.object(evaluate, "runs_locally", return_value=here),
        xp.config(seconds_here=0.0),
    ):
        warnings.simplefilter("ignore")
        yield


# --- ways --------------------------------------------------------------------------------


class Copied:
    """Operands of which each use is of a copy of its own."""

    def __init__(self, operands: Any) -> None:
        self._operands = operands

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._operands, name)
        if isinstance(found, xp.Array):
            return xp.asarray(np.asarray(found).copy(), chunks=found.chunks)
        return found


@contextmanager
def each_array(act: Callable[[xp.Array], None]) -> Iterator[None]:
    """Every array that is made, by the library too, is given to ``act`` at once."""
    made = xp.Array.__init__

    def init(self: xp.Array, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        act(self)

    with mock.patch.object(xp.Array, "__init__", init):
        yield


def look_at(array: xp.Array) -> None:
    evaluate.value(array._node)


def persist(array: xp.Array) -> None:
    array.persist()


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, 5))


def _run_here(tasks: Sequence[Task], outputs: Sequence[str], **_: Any) -> dict[str, Any]:
    """`evaluate.run_here`, but what a task makes is sent to each of its users by itself."""
    made: dict[str, Any] = {}
    for task in tasks:
        args = replace_refs(_sent(task.args), lambda key: _sent(made[key]))
        made[task.key] = task.codelet.cpu(*args, **task.kwargs, xp=np)  # type: ignore[misc]
    return {key: made[key] for key in outputs}


@contextmanager
def as_tasks(*, sent: bool) -> Iterator[None]:
    """Nothing is computed by kernels on whole arrays; blocks are ``sent`` between tasks or not."""
    prepared.forget()
    with (
        mock.patch.object(node, "SMALL_ELEMENTS", -1),
        mock.patch.object(evaluate, "run_here", _run_here if sent else evaluate.run_here),
        mock.patch.object(prepared, "MOST_TASKS_EACH", -1 if sent else prepared.MOST_TASKS_EACH),
    ):
        yield


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the expressions with other bits."""
    assert one.keys() == other.keys()
    return [name for name in one if one[name] != other[name]]


def digests(results: dict[str, list[bytes]]) -> dict[str, str]:
    return {name: hashlib.sha256(b"|".join(found)).hexdigest() for name, found in results.items()}


def main() -> int:
    """Compare results with one thread of BLAS and with several, and print which differ."""
    first: dict[str, str] | None = None
    for threads in (1, 2, 4):
        for library in blas.loaded():
            library.set_threads(threads)
        found = digests(large_results())
        first = first or found
        for name in different(first, found):
            print(f"{name}: other bits with {threads} threads of BLAS")
    return 0


if __name__ == "__main__":
    sys.exit(main())
