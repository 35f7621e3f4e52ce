"""Plans grow with the chunks as c log c, in tasks, in what these are given, and in the bytes that
they are said to read, write and hold.

Every function is planned over some chunks of a few elements and over 16 times as many. What
computes at the call is computed; what does not is only planned. The quotient of the two counts is
below 29 for c log c, 64 where work grows as c^1.5, and 256 for the square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.lower import Lowering
from agentic_ray.graph import Task

FEW = 32
FEW_IN_STAGES = 128
"""Where few chunks are exchanged directly, and only more of them in stages."""
TIMES = 16
EACH = 8
LONG = 32
"""Elements of a chunk, of one of a vector."""


@dataclass
class Counted:
    """Tasks of all plans that were made, values given to them, and bytes said to be moved."""

    tasks: int = 0
    edges: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    memory_bytes: int = 0

    def add(self, tasks: Sequence[Task]) -> None:
        self.tasks += len(tasks)
        self.edges += sum(len(task.dependencies) for task in tasks)
        self.read_bytes += sum(task.cost.read_bytes for task in tasks)
        self.written_bytes += sum(task.cost.written_bytes for task in tasks)
        self.memory_bytes += sum(task.resources.memory_bytes for task in tasks)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """What is planned from now on; all of it is run in this process."""
    found = Counted()
    run = Lowering.run

    def counting(self: Lowering, roots: Any) -> Any:
        blocks = run(self, roots)
        found.add(self.tasks)
        return blocks

    monkeypatch.setattr(Lowering, "run", counting)
    monkeypatch.setattr(evaluate, "runs_locally", lambda roots: True)
    return found


class Data:
    """Arrays of so many chunks each, made when they are first asked for."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.side = math.isqrt(chunks)
        self.n = LONG * chunks
        self._rng = np.random.default_rng(0)

    def _random(self, *axes: tuple[int, int]) -> xp.Array:
        """An array of so many chunks of such a length along each axis."""
        array = self._rng.random([count * length for count, length in axes])
        return xp.asarray(array, chunks=[length for _, length in axes])

    def __getattr__(self, name: str) -> xp.Array:
        c, side = self.chunks, self.side
        makers: dict[str, Callable[[], xp.Array]] = {
            "v": lambda: self._random((c, LONG)),
            "w": lambda: self._random((c, LONG)),
            "odd": lambda: self._random((c, LONG)).rechunk(LONG - 3),
            "i": lambda: xp.asarray(self._rng.integers(0, self.n, self.n), chunks=LONG),
            "j": lambda: xp.asarray(self._rng.integers(0, self.n, self.n), chunks=LONG),
            "b": lambda: xp.asarray(self._rng.random(self.n) < 0.5, chunks=LONG),
            "order": lambda: xp.asarray(self._rng.permutation(self.n), chunks=LONG),
            "nan": lambda: xp.where(self.b, np.nan, self.v),
            "stairs": lambda: xp.asarray(np.arange(float(self.n)), chunks=LONG),
            "tall": lambda: self._random((c, 4), (1, 2)),
            "wide": lambda: self._random((1, 2), (c, 4)),
            "deep": lambda: self._random((1, 2), (c, 2), (1, 2)),
            "square": lambda: self._random((side, 2), (side, 4)),
            "even": lambda: self._random((side, 4), (side, 4)),
            "row": lambda: self._random((side, 4)),
            "rows": lambda: self._random((c, 1), (1, c)),
            "columns": lambda: self._random((1, c), (c, 1)),
        }
        made = makers[name]()
        setattr(self, name, made)
        return made


Case = Callable[[Data], Any]


def _assigned(x: xp.Array, key: Any, value: Any) -> xp.Array:
    x = x * 1
    x[key] = value
    return x


def _shuffled(x: xp.Array, axis: int) -> xp.Array:
    return xp.asarray(np.random.default_rng(0).permutation(x.shape[axis]))


def _repeats(x: xp.Array, axis: int) -> Any:
    return np.arange(x.shape[axis]) % 3


def _same(block: Any) -> Any:
    return block


def _with_axis(name: str) -> Callable[[xp.Array, int], Any]:
    function = getattr(xp, name)
    return lambda x, axis: function(x, axis=axis)


SHAPES = ("v", "tall", "wide", "square", "deep")
_PLAIN = """
    exp isnan sum mean var std max all argmax count_nonzero nanmean nanmax median nanmedian ravel
    flip nonzero flatnonzero argwhere unique_all histogram cumsum cumprod
"""
_WITH_AXIS = "sum var argmax sort argsort cumsum cumprod median diff flip nanargmax"
OF_ANY: dict[str, Callable[[xp.Array], Any]] = {
    **{name: getattr(xp, name) for name in _PLAIN.split()},
    "whole": lambda x: x.rechunk(-1),
    "rechunk": lambda x: x.rechunk(tuple(3 for _ in x.shape)),
    "reshape": lambda x: x.reshape((2, x.size // 2)),
    "reshape to tall": lambda x: x.reshape((x.size // 2, 2)),
    "reshape and back": lambda x: x.reshape((x.size // 8, 8)).reshape(x.shape),
    "roll": lambda x: xp.roll(x, 5),
    "tile": lambda x: xp.tile(x, 2),
    "pad": lambda x: xp.pad(x, 1),
    "pad with edges": lambda x: xp.pad(x, 1, mode="edge"),
    "mask": lambda x: x[x > 0.5],
    "histogram in many bins": lambda x: xp.histogram(x, bins=x.size, range=(0, 1)),
    "stack": lambda x: xp.stack([x, x + 1]),
    "map_overlap": lambda x: xp.map_overlap(_same, x, depth=1, dtype=x.dtype),
    "map_blocks": lambda x: xp.map_blocks(_same, x, dtype=x.dtype),
    "quantile": lambda x: xp.quantile(x, [0.1, 0.5]),
    "nanquantile": lambda x: xp.nanquantile(x, 0.5),
    "isin few": lambda x: xp.isin(x, [0.5, 0.25]),
    "searchsorted": lambda x: xp.searchsorted(xp.asarray(np.arange(9.0)), x),
    "digitize": lambda x: xp.digitize(x, [0.1, 0.5]),
    "assigned to a slice": lambda x: _assigned(x, slice(1, -1), 0),
    "assigned to a mask": lambda x: _assigned(x, x > 0.5, 0),
}
ALONG: dict[str, Callable[[xp.Array, int], Any]] = {
    **{name: _with_axis(name) for name in _WITH_AXIS.split()},
    "fft": lambda x, axis: xp.fft.fft(x, axis=axis),
    "roll": lambda x, axis: xp.roll(x, 3, axis=axis),
    "repeat": lambda x, axis: xp.repeat(x, 2, axis=axis),
    "repeats": lambda x, axis: xp.repeat(x, _repeats(x, axis), axis=axis),
    "concat": lambda x, axis: xp.concat([x, x + 1], axis=axis),
    "take": lambda x, axis: xp.take(x, _shuffled(x, axis), axis=axis),
    "steps": lambda x, axis: xp.moveaxis(x, axis, 0)[::-3],
    "quantile": lambda x, axis: xp.quantile(x, [0.1, 0.9], axis=axis),
    "take_along_axis": lambda x, axis: xp.take_along_axis(x, xp.argsort(x, axis=axis), axis=axis),
    "partition": lambda x, axis: xp.partition(x, 1, axis=axis),
}
CASES: dict[str, Case] = {
    **{
        f"{name} of {shape}": lambda d, function=function, shape=shape: function(getattr(d, shape))
        for name, function in OF_ANY.items()
        for shape in SHAPES
    },
    **{
        f"{name} of {shape} along {axis}": lambda d, f=function, s=shape, a=axis: f(
            getattr(d, s), a
        )
        for name, function in ALONG.items()
        for shape in SHAPES
        for axis in (0, -1)
    },
    "differences one after the other": lambda d: np.subtract.reduce(d.v),
    "quotients one after the other": lambda d: np.divide.accumulate(d.v),
    "largest so far": lambda d: np.maximum.accumulate(d.tall),
    "many quantiles": lambda d: xp.quantile(d.v, np.linspace(0, 1, 101)),
    "lexsort": lambda d: xp.lexsort((d.i, d.v)),
    "union1d": lambda d: xp.union1d(d.i, d.j),
    "unique rows": lambda d: xp.unique(d.tall, axis=0),
    "rows to columns": lambda d: d.rows.rechunk((-1, 1)),
    "sort of other chunks": lambda d: xp.sort(d.odd),
    "argsort downwards": lambda d: xp.argsort(d.v, descending=True),
    "isin of many in many": lambda d: xp.isin(d.i, d.j),
    "searchsorted of many in many": lambda d: xp.searchsorted(d.stairs, d.v),
    "unique_all of many values": lambda d: xp.unique_all(d.i),
    "unique with NaN": lambda d: xp.unique(d.nan, return_inverse=True),
    "take in random order": lambda d: xp.take(d.v, d.order),
    "index in random order": lambda d: d.v[d.order],
    "index by two arrays": lambda d: d.even[d.i % d.even.shape[0], d.j % d.even.shape[1]],
    "mask of another array": lambda d: d.v[d.b],
    "assigned in random order": lambda d: _assigned(d.v, d.order, d.w),
    "assigned to a slice of another": lambda d: _assigned(d.v, slice(1, -1), d.w[2:]),
    "assigned to another mask": lambda d: _assigned(d.v, d.b, 0),
    "rows plus columns": lambda d: d.rows + d.columns,
    "rows plus their transpose": lambda d: d.rows + d.rows.T,
    "odd plus even": lambda d: d.odd + d.v,
    "where": lambda d: xp.where(d.b, d.v, d.odd),
    "square plus row": lambda d: d.square + d.row,
    "broadcast_to": lambda d: xp.broadcast_to(d.row, (d.side, *d.row.shape)),
    "meshgrid": lambda d: xp.meshgrid(d.row, d.row),
    "outer of short": lambda d: xp.outer(d.row, d.row),
    "bincount": lambda d: xp.bincount(d.i),
    "weighted bincount": lambda d: xp.bincount(d.i, weights=d.v),
    "average": lambda d: xp.average(d.tall, axis=0, weights=d.tall),
    "cov": lambda d: xp.cov(d.wide),
    "matrix times vector": lambda d: d.square @ d.row,
    "tall gram": lambda d: d.tall.T @ d.tall,
    "tall times small": lambda d: d.tall @ xp.ones((2, 2)),
    "dot": lambda d: xp.dot(d.v, d.w),
    "vecdot": lambda d: xp.vecdot(d.tall, d.tall),
    "einsum to a number": lambda d: xp.einsum("i,i->", d.v, d.w),
    "einsum to rows": lambda d: xp.einsum("ij,ij->i", d.tall, d.tall),
    "einsum of a diagonal": lambda d: xp.einsum("ii->i", d.even),
    "trace": lambda d: xp.trace(d.even),
    "tril": lambda d: xp.tril(d.even),
    "diagonal": lambda d: xp.diagonal(d.even),
    "diag": lambda d: xp.diag(d.row),
    "qr of tall": lambda d: xp.linalg.qr(d.tall),
    "svd of tall": lambda d: xp.linalg.svd(d.tall, full_matrices=False),
    "lstsq of tall": lambda d: xp.linalg.lstsq(d.tall, d.tall[:, 0]),
    "vector_norm": lambda d: xp.linalg.vector_norm(d.square),
    "matrix_norm": lambda d: xp.linalg.matrix_norm(d.square),
    "fftn": lambda d: xp.fft.fftn(d.square),
    "fftshift": lambda d: xp.fft.fftshift(d.square),
    "split": lambda d: xp.split(d.v, 16),
    "unstack": lambda d: xp.unstack(d.tall[:, :1].reshape((d.chunks, 4))),
    "concat of many": lambda d: xp.concat([d.v[i : i + 7] for i in range(0, d.n, LONG)]),
    "stack of many": lambda d: xp.stack([xp.asarray(np.zeros(4)) for _ in range(d.chunks)]),
    "choice": lambda d: xp.random.default_rng(0).choice(d.n, size=d.n),
    "permutation": lambda d: xp.random.default_rng(0).permutation(EACH * d.chunks),
    "random": lambda d: xp.random.default_rng(0).random((d.n,)),
    "arange": lambda d: xp.arange(d.n) + 1,
    "matmul": lambda d: d.even @ d.even,
    "cholesky": lambda d: xp.linalg.cholesky(d.even @ d.even.T),
    "solve": lambda d: xp.linalg.solve(d.even, d.row),
}
"""Expressions by what they are."""

IN_STAGES = {
    *(f"{name} of v along {axis}" for name in ("sort", "argsort", "take", "partition",
      "take_along_axis") for axis in (0, -1)),
    "sort of other chunks", "argsort downwards", "isin of many in many", "lexsort",
    "searchsorted of many in many",
    "take in random order", "index in random order", "index by two arrays", "many quantiles",
    "assigned in random order", "rows to columns", "rows plus their transpose", "choice",
    "permutation", "take of tall along 0", "take of wide along -1",
}  # fmt: skip
AS_THEIR_WORK = {"matmul", "cholesky", "solve", "outer of short"}
"""Products of matrices in blocks, and what is made of them: their work grows as c^1.5."""

OF_SQUARES = {"rows plus columns", "rows plus their transpose"}
"""Of arrays that have the square of the chunks' number of elements, and so many bytes."""


def _nodes(result: Any) -> list[Any]:
    if isinstance(result, xp.Array):
        return [result._node]
    if isinstance(result, tuple | list):
        return [node for element in result for node in _nodes(element)]
    return []


def _count(case: Case, chunks: int, counted: Counted) -> Counted:
    with xp.config(chunk_elements=EACH), np.errstate(all="ignore"):
        data = Data(chunks)
        for entry in fields(counted):
            setattr(counted, entry.name, 0)
        nodes = [node for node in _nodes(case(data)) if node.value is None]
        if nodes:
            evaluate.plan(nodes)
    return replace(counted)


@pytest.mark.parametrize("name", CASES)
def test_as_c_log_c(name: str, counted: Counted) -> None:
    small = FEW_IN_STAGES if name in IN_STAGES else FEW
    large = TIMES * small
    few, many = (_count(CASES[name], chunks, counted) for chunks in (small, large))
    most = TIMES * math.log2(large) / math.log2(small)
    if name in AS_THEIR_WORK:
        most = TIMES**1.5
    assert many.tasks <= 1.4 * most * max(few.tasks, small)
    assert many.edges <= 1.4 * most * max(few.edges, small)
    if name in OF_SQUARES:
        most *= TIMES
    for what in ("read_bytes", "written_bytes", "memory_bytes"):
        assert getattr(many, what) <= 1.4 * most * max(getattr(few, what), LONG * 8 * small), what
