"""Fused programs compiled by numba, for chunks in host memory.

A compiled program computes what NumPy would, bit for bit: only operations that IEEE 754 rounds
exactly are compiled, and sums add in NumPy's own order (pairwise along rows, row after row along
the first axis). So it does not show in a result whether, or when, a program was compiled; each
kernel is compared with NumPy on a sample before it is used. (Which NaN a NaN is may differ.)
Compiling goes on aside, once a process has seen enough work of one program; compiled code is
kept on disk. Without numba, and whenever anything about a kernel fails, NumPy does the work.

A kernel takes a whole chunk in one call: threads of an executor that return to Python after
every cache block wait for each other.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import sharing
from agentic_ray.array.core.chunks import Shape, contiguous
from agentic_ray.array.core.compile_queue import compiling
from agentic_ray.array.core.kernel_build import build, warn_once
from agentic_ray.array.core.kernel_source import kernel_source
from agentic_ray.array.core.node import BLOCK_ELEMENTS, NDArray
from agentic_ray.array.core.statements import as_floats
from agentic_ray.recent import Recent

WORTH_ELEMENTS = 1 << 23
"""Elements of a program after which compiling it, about a second, will pay."""

_HEARD = frozenset({"raise", "call", "print", "log"})
"""Settings of `numpy.errstate` that somebody asked for: a kernel tells nothing of divisions by zero
and the like, so NumPy does the work."""

_seen: Recent[Any, int] = Recent(1024)
"""Elements that were computed of programs that are not compiled yet."""
_kernels: Recent[Any, Compiled | None] = Recent(256)
"""None: under way, or impossible."""
_have_numba = importlib.util.find_spec("numba") is not None


def wanted(program: Any, inputs: Any, shape: Shape, size: int) -> Any:
    """The compiled form of ``program`` for these inputs if there is one by now, else None."""
    blocks = inputs.blocks
    if not _have_numba or not all(isinstance(block, np.ndarray) for block in blocks):
        return None
    kinds = tuple([_kind(block, shape) for block in blocks])
    inner = {block.size for block, kind in zip(blocks, kinds, strict=True) if kind == "row"}
    inner |= {shape[-1] for kind in kinds if kind == "column"}
    if not kinds or "" in kinds or len(inner) > 1 or not size:
        return None
    dtype = program.dtype
    if dtype not in (np.float64, np.float32) or any(block.dtype != dtype for block in blocks):
        return None
    if as_floats(inputs.scalars, dtype) is None or not _HEARD.isdisjoint(np.geterr().values()):
        return None
    form = form_of(program, shape, inner)
    key = (program, kinds, form)
    found = _kernels.get(key, _UNKNOWN)
    if found is not _UNKNOWN:
        return found
    seen = _seen.get(key, 0) + size
    _seen[key] = seen
    if seen >= WORTH_ELEMENTS and _kernels.add(key, None):
        _seen.pop(key)
        source = kernel_source(program, kinds, form)
        if source is not None and not compiling.submit(
            functools.partial(_compile, key, source, inputs.given, len(shape))
        ):
            _kernels.pop(key)  # asked for again when more work of it was seen
    return None


_UNKNOWN = object()


def give_up(kernel: Compiled, error: Exception) -> None:
    """Use ``kernel`` no more, because it raised ``error``."""
    _kernels[kernel.key] = None
    warn_once("a compiled kernel is given up for NumPy", f"{type(error).__name__}: {error}")


def _kind(block: NDArray, shape: Shape) -> str:
    """Say how a block lies under the region: all of it, one row or one column repeated, one number;
    else ""."""
    if not (block.flags.c_contiguous and block.flags.aligned):
        return ""
    if block.shape == shape:
        return "full"
    if block.size == 1:
        return "one"
    own = block.shape
    if own == (*shape[:-1], 1):
        return "column"
    while own and own[0] == 1:
        own = own[1:]
    return "row" if own == shape[len(shape) - len(own) :] else ""


def form_of(program: Any, shape: Shape, inner: set[int]) -> str:
    """Return the form in which the kernel gives the values of a chunk: the values themselves (""),
    the sum of each cache block ("total"), its sums over the first axis ("rows"), or the sums of
    deviations from the mean, and of their squares, as well ("spread")."""
    reducing = program.reducing
    if reducing is None or not any(
        isinstance(param, np.dtype) and param == program.dtype for param in reducing.params
    ):
        return ""
    columns = math.prod(shape[1:])
    form: str = reducing.steps.compiled
    whole = len(reducing.axes) == len(shape)
    if whole and form == "sum":
        return "total"
    if not form or reducing.axes != (0,) or not 2 <= columns <= BLOCK_ELEMENTS or inner - {columns}:
        return ""
    return "rows" if form == "sum" else form


def _compile(key: Any, source: str, given: Sequence[Any], ndim: int) -> None:
    program, kinds, _ = key
    try:
        kernel = Compiled(build(source), key)
        blocks, scalars, shape = _sample(program, kinds, ndim)
        alike = program.like_numpy(kernel, blocks, scalars, given, shape)
    except Exception as error:  # numba raises what it likes
        warn_once("fused kernels stay in NumPy", f"{type(error).__name__}: {error}")
        return
    if alike:
        _kernels[key] = kernel
    else:
        warn_once("fused kernels stay in NumPy", "NumPy adds in an order that is new to us")


def _sample(
    program: Any, kinds: tuple[str, ...], ndim: int
) -> tuple[list[NDArray], list[float], Shape]:
    """Blocks of these kinds, in rows that do not divide into anything evenly, and scalars."""
    rng = np.random.default_rng(0)
    shape = (140_971,) if ndim == 1 else (2311, *(1,) * (ndim - 2), 61)
    shapes = {"full": shape, "row": shape[-1:], "column": (*shape[:-1], 1), "one": (1,)}
    blocks = [(rng.random(shapes[kind]) + 0.5).astype(program.dtype) for kind in kinds]
    return blocks, [0.7 + 0.6 * i for i in range(program.scalars)], shape


class Compiled:
    """A compiled program: makes values, or the partial values of each cache block.

    ``reduces`` tells which; it does only one of the two.
    """

    def __init__(self, function: Callable[..., Any], key: Any) -> None:
        self.key = key
        program, self._kinds, self._form = key
        self._function = function
        self._dtype = program.dtype
        self.reduces = self._form != ""

    def values(
        self, blocks: Any, scalars: Sequence[Any], shape: Shape
    ) -> Callable[[NDArray, int, int], None]:
        """``fill(out, lo, hi)`` writes elements ``lo`` to ``hi`` of the chunk, in C order."""
        fill, given, inner = (
            self._function,
            self._given(blocks, scalars),
            self._inner(blocks, shape),
        )
        return lambda out, lo, hi: fill(*given, out, lo, hi, inner)

    def partials(self, blocks: Any, scalars: Sequence[Any], shape: Shape) -> Any:
        """Partial values of all cache blocks, stacked along a new first axis."""
        given = self._given(blocks, scalars)
        if self._form == "total":
            runs = [math.prod(b) for b in itertools.product(*contiguous(shape, BLOCK_ELEMENTS))]
            inner, lo, parts = self._inner(blocks, shape), 0, []
            for length, same in itertools.groupby(runs):
                parts.append(np.empty(sum(1 for _ in same), self._dtype))
                self._totals(given, parts[-1], length, lo, inner)
                lo += length * parts[-1].size
            return np.concatenate(parts).reshape(-1, *(1,) * len(shape))
        (cut, *rest) = contiguous(shape, BLOCK_ELEMENTS)
        tail = tuple([axis[0] for axis in rest])
        columns = math.prod(tail)
        size = (len(cut), columns) if self._form == "rows" else (len(cut), 3, columns)
        out = np.empty(size, self._dtype)
        self._over_rows(given, out, cut[0], shape[0], columns)
        if self._form == "rows":
            return out.reshape(-1, 1, *tail)
        counts = np.empty((len(cut), 1, *tail), self._dtype)
        counts[:] = np.array(cut).reshape(-1, *(1,) * len(shape))
        return counts, *[out[:, i].reshape(counts.shape) for i in (0, 1, 2)]

    def _totals(self, given: list[Any], out: NDArray, length: int, lo: int, inner: int) -> None:
        """Write to ``out`` the sums of runs of ``length`` elements, of which the first begins at
        element ``lo``."""
        parts = sharing.runs(out.size, 1)

        def total(number: int) -> None:
            first, last = parts[number]
            start = lo + first * length
            self._function(*given, out[first:last], *_pairwise(length), length, start, inner)

        sharing.each(total, len(parts))

    def _over_rows(
        self, given: list[Any], out: NDArray, block: int, rows: int, columns: int
    ) -> None:
        """Write to ``out`` the partial values of each ``block`` rows of a chunk."""
        parts = sharing.runs(len(out), 1)
        width = {"full": columns, "column": 1}

        def reduce(number: int) -> None:
            first, last = parts[number]
            skipped = first * block
            own = [
                value[skipped * width[kind] :] if kind in width else value
                for value, kind in zip(given, self._kinds, strict=False)
            ]
            numbers = given[len(self._kinds) :]
            self._function(*own, *numbers, out[first:last], block, rows - skipped, columns)

        sharing.each(reduce, len(parts))

    def _given(self, blocks: Any, scalars: Sequence[Any]) -> list[Any]:
        numbers = as_floats(scalars, self._dtype)
        assert numbers is not None  # else the kernel would not be `wanted`
        return [block.reshape(-1) for block in blocks] + numbers

    def _inner(self, blocks: Any, shape: Shape) -> int:
        """Elements after which inputs that are repeated begin anew."""
        for block, kind in zip(blocks, self._kinds, strict=True):
            if kind in ("row", "column"):
                return int(block.size) if kind == "row" else shape[-1]
        return math.prod(shape)


@functools.lru_cache(maxsize=64)
def _pairwise(length: int) -> tuple[NDArray, NDArray]:
    """Plan the sum of ``length`` elements as NumPy adds them: eight running sums over up to 128,
    halves beyond.

    Returns
    -------
    leaves : ndarray of int64
        Lengths of the runs of up to 128 elements, in order.
    merges : ndarray of int64
        How many sums to the left are added to each run's, one after the other.
    """
    if length <= 128:
        return np.array([length]), np.array([0])
    half = length // 2 - length // 2 % 8
    left, right = _pairwise(half), _pairwise(length - half)
    merges = np.concatenate([left[1], right[1]])
    merges[-1] += 1
    return np.concatenate([left[0], right[0]]), merges


Fold = Callable[[Any, Any], Any]


def fold_stacked(combine: Fold, stacked: Any) -> Any:
    """`graph.fold` over the first axis of ``stacked`` (an array or several), level by level,
    with an elementwise ``combine`` that is called once a level."""
    arrays = stacked if isinstance(stacked, tuple) else (stacked,)
    while (count := len(arrays[0])) > 1:
        half = count // 2 * 2
        left, right = ([array[i:half:2] for array in arrays] for i in (0, 1))
        made = combine(*[tuple(side) if isinstance(stacked, tuple) else side[0]
                         for side in (left, right)])  # fmt: skip
        made = made if isinstance(stacked, tuple) else (made,)
        if half < count:
            made = tuple(
                np.concatenate([new, array[half:]]) for new, array in zip(made, arrays, strict=True)
            )
        arrays = made
    first = tuple([array[0] for array in arrays])
    return first if isinstance(stacked, tuple) else first[0]
