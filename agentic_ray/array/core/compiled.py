"""Fused programs compiled by numba, for chunks in host memory.

A compiled program computes what NumPy would, bit for bit: only operations that IEEE 754 rounds
exactly are compiled, and sums add in NumPy's own order (pairwise along rows, row after row along
the first axis). So it does not show in a result whether, or when, a program was compiled; each
kernel is compared with NumPy on a sample before it is used.
Compiling goes on aside, once a process has seen enough work of one program; compiled code is
kept on disk. Without numba everything runs in NumPy.

A kernel takes a whole chunk in one call: threads of an executor that return to Python after
every cache block wait for each other.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import math
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentic_ray.array.core.chunks import Shape, contiguous
from agentic_ray.array.core.node import BLOCK_ELEMENTS, NDArray
from agentic_ray.array.core.statements import statements
from agentic_ray.config import cache_directory
from agentic_ray.graph import content_key

WORTH_ELEMENTS = 1 << 23
"""Elements of a program after which compiling it, about a second, will pay."""

_EXACT = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "positive": "+{0}",
    "absolute": "abs({0})",
    "square": "{0} * {0}",
    "sqrt": "math.sqrt({0})",
}

_IN_LANES = {
    "add": "lanes_add({0}, {1})",
    "subtract": "lanes_subtract({0}, {1})",
    "multiply": "lanes_multiply({0}, {1})",
    "divide": "lanes_divide({0}, {1})",
    "negative": "lanes_negative({0})",
    "positive": "{0}",
    "absolute": "lanes_absolute({0})",
    "square": "lanes_multiply({0}, {0})",
    "sqrt": "lanes_sqrt({0})",
}

_logger = logging.getLogger("agentic_ray")
_lock = threading.Lock()
_seen: dict[Any, int] = {}
_ready: dict[Any, Any] = {}
_have_numba = importlib.util.find_spec("numba") is not None


def wanted(program: Any, blocks: Any, shape: Shape, size: int) -> Any:
    """The compiled form of ``program`` for these blocks if there is one by now, else None."""
    if not _have_numba or not all(isinstance(block, np.ndarray) for block in blocks):
        return None
    kinds = tuple([_kind(block, shape) for block in blocks])
    inner = {block.size for block, kind in zip(blocks, kinds, strict=True) if kind == "row"}
    inner |= {shape[-1] for kind in kinds if kind == "column"}
    if not kinds or "" in kinds or len(inner) > 1 or not size:
        return None
    form = _form(program, shape, inner)
    key = (program, kinds, form)
    found = _ready.get(key)
    if found is not None:
        return found or None
    with _lock:
        seen = _seen[key] = _seen.get(key, 0) + size
        if seen < WORTH_ELEMENTS:
            return None
        _ready[key] = False  # under way, or impossible
    source = _source(program, blocks, kinds, form)
    if source is not None:
        thread = threading.Thread(
            target=_compile,
            args=(key, source, program, *_sample(blocks, kinds, len(shape))),
            name="compile-kernel",
            daemon=True,
        )
        thread.start()
    return None


def _kind(block: NDArray, shape: Shape) -> str:
    """How a block lies under the region: all of it, one row or one column repeated, one number;
    else ""."""
    if not block.flags.c_contiguous:
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


def _form(program: Any, shape: Shape, inner: set[int]) -> str:
    """What the kernel makes of the values of a chunk: the values themselves (""), the sum of
    each cache block ("total"), the same less the columns' means in it ("centred"), its sums over
    the first axis ("rows"), or the sums of squares around the mean as well ("spread")."""
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
    over = reducing.params[0] if whole and form == "centred" else reducing.axes
    if not form or over != (0,) or not 2 <= columns <= BLOCK_ELEMENTS or inner - {columns}:
        return ""
    return "rows" if form == "sum" else form


def _source(program: Any, blocks: Any, kinds: tuple[str, ...], form: str) -> str | None:
    """The program as Python source; None if an operation is not exact or mixes dtypes."""
    dtype = program.dtype
    if dtype not in (np.float64, np.float32) or any(block.dtype != dtype for block in blocks):
        return None
    names = [f"y{i}" if kind in ("one", "column") else f"y{i}[j]" for i, kind in enumerate(kinds)]
    cast = "np.float64" if dtype == np.float64 else "np.float32"
    found = statements(program, names, _EXACT, cast, "{0} = {1}")
    if found is None:
        return None
    lines, results = found
    result, centred = results[0], form == "centred"
    if len(results) != 1 + centred:
        return None
    if form == "total" and set(kinds) <= {"full", "one"}:
        return _source_in_lanes(program, kinds, cast, lines, result)
    text = _TEMPLATE[form]
    if form in ("", "total", "centred"):
        text = _FILL + text
    segments = [f"y{i} = {_SEGMENT[kind].format(i)}" for i, kind in enumerate(kinds)]
    filled = inputs = ", ".join(f"x{i}" for i in range(len(kinds)))
    if centred:  # what is filled in takes the means as one more row
        filled, result = f"{inputs}, mean", f"{result} - m[j]"
        segments.append("m = mean[at : at + count]")
    for word, found_lines in (
        ("MEANS", _MEANS if centred else []),
        ("SEGMENT", segments),
        ("ROW", [f"y{i} = {_ROW[kind].format(i)}" for i, kind in enumerate(kinds)]),
        ("STEPS", lines),
    ):
        text = _with_lines(text, word, found_lines)
    for word, named in (
        ("FILLED", filled),
        ("XS", inputs),
        ("CAST", cast),
        ("RESULT", result),
        ("CENTRE", results[-1]),
    ):
        text = text.replace(word, named)
    return _HEADER + text


def _source_in_lanes(
    program: Any, kinds: tuple[str, ...], cast: str, lines: list[str], result: str
) -> str:
    """The total of a program whose inputs lie side by side: its values never leave registers."""
    names = [f"y{i}" for i in range(len(kinds))]
    wide = cast.replace("np.", "lanes_of_")
    found = statements(program, names, _IN_LANES, wide, "{0} = {1}")
    assert found is not None  # there is one of each in both tables
    text = _TOTAL_IN_LANES
    full = [i for i, kind in enumerate(kinds) if kind == "full"]
    one = [i for i, kind in enumerate(kinds) if kind == "one"]
    for word, found_lines in (
        ("ELEMENTS", [f"y{i} = x{i}" + "[0]" * (kind == "one") for i, kind in enumerate(kinds)]),
        ("NUMBERS", [f"y{i} = {wide}(x{i}[0])" for i in one]),
        ("LOADS", [f"y{i} = lanes_at(x{i}, at)" for i in full]),
        ("LANES", found[0]),
        ("STEPS", lines),
    ):
        text = _with_lines(text, word, found_lines)
    inputs = ", ".join(f"x{i}" for i in range(len(kinds)))
    text = text.replace("XS", inputs).replace("CAST", cast).replace("MADE", found[1][0])
    return _HEADER + text.replace("RESULT", result)


def _with_lines(text: str, word: str, lines: list[str]) -> str:
    """``text`` with each line that is only ``word`` replaced by ``lines``, indented like it."""
    result: list[str] = []
    for line in text.splitlines():
        if line.strip() == word:
            result += [line.replace(word, own) for own in lines]
        else:
            result.append(line)
    return "\n".join(result) + "\n"


# What of input i lies under a segment, or a row; slices, so that no index can be negative.
_SEGMENT = {
    "one": "x{0}[0]",
    "full": "x{0}[lo : lo + count]",
    "row": "x{0}[at : at + count]",
    "column": "x{0}[lo // inner]",
}
_ROW = {
    "one": "x{0}[0]",
    "full": "x{0}[i * columns : (i + 1) * columns]",
    "row": "x{0}",
    "column": "x{0}[i]",
}

_HEADER = """\
import math
import numpy as np
from numba import njit

from agentic_ray.array.core.lanes import *

"""

_FILL = """\
@njit(nogil=True, cache=True, error_model="numpy")
def fill(FILLED, out, lo, hi, inner):
    # Segments that do not cross a row's end, so that rows need no division inside.
    to = 0
    while lo < hi:
        at = lo % inner
        count = min(hi - lo, inner - at)
        o = out[to : to + count]
        SEGMENT
        for j in range(count):
            STEPS
            o[j] = RESULT
        lo += count
        to += count

"""

# How both forms of a total end: the sum of a leaf goes into the tree of its cache block.
_MERGED = """\
            for _ in range(merges[leaf]):
                top -= 1
                total = stack[top] + total
            stack[top] = total
            top += 1
        out[k] = CAST(0.0) + stack[0]
"""

# (No recursion: numba's cache on disk does not survive it.)
_TOTAL = (
    """\
@njit(nogil=True, cache=True, error_model="numpy")
def reduce(XS, out, leaves, merges, length, lo, inner):
    values = np.empty(256, out.dtype)  # a few runs at once, and still in the nearest cache
    stack = np.empty(64, out.dtype)
    stop = lo
    begin = lo
    for k in range(out.size):
        top = 0
        stop += length
        MEANS
        ready = lo
        for leaf in range(leaves.size):
            n = leaves[leaf]
            if lo + n > ready:
                begin = lo
                ready = min(lo + values.size, stop)
                fill(FILLED, values, lo, ready, inner)
            x = values[lo - begin : lo - begin + n]
            lo += n
            end = n - n % 8
            total = lanes_sum(x, end) if end else CAST(0.0)
            for i in range(end, n):
                total += x[i]
"""
    + _MERGED
)

_TOTAL_IN_LANES = (
    """\
@njit(nogil=True, error_model="numpy")
def total_of_rest(XS, lo, hi, total):
    ELEMENTS
    for j in range(lo, hi):
        STEPS
        total += RESULT
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def reduce(XS, out, leaves, merges, length, lo, inner):
    stack = np.empty(64, out.dtype)
    NUMBERS
    for k in range(out.size):
        top = 0
        for leaf in range(leaves.size):
            n = leaves[leaf]
            end = lo + n - n % 8
            total = CAST(0.0)
            if n >= 8:
                at = lo
                LOADS
                LANES
                sums = MADE
                for at in range(lo + 8, end, 8):
                    LOADS
                    LANES
                    sums = lanes_add(sums, MADE)
                total = lanes_total(sums)
            if end < lo + n:
                total = total_of_rest(XS, end, lo + n, total)
            lo += n
"""
    + _MERGED
)

_MEANS = """\
columns = inner
mean = np.zeros(columns, out.dtype)
for i in range(lo // columns, stop // columns):
    ROW
    for j in range(columns):
        STEPS
        mean[j] += CENTRE
for j in range(columns):
    mean[j] /= CAST(length // columns)
""".splitlines()

_ROWS = """\
@njit(nogil=True, cache=True, error_model="numpy")
def reduce(XS, out, block, rows, columns):
    for k in range(out.shape[0]):
        sums = out[k]
        sums[:] = 0.0
        for i in range(k * block, min(rows, (k + 1) * block)):
            ROW
            for j in range(columns):
                STEPS
                sums[j] += RESULT
"""

_SPREAD = """\
@njit(nogil=True, cache=True, error_model="numpy")
def reduce(XS, out, block, rows, columns):
    mean = np.empty(columns, out.dtype)
    for k in range(out.shape[0]):
        sums = out[k, 0]
        squares = out[k, 1]
        sums[:] = 0.0
        squares[:] = 0.0
        stop = min(rows, (k + 1) * block)
        for i in range(k * block, stop):
            ROW
            for j in range(columns):
                STEPS
                sums[j] += RESULT
        count = CAST(stop - k * block)
        for j in range(columns):
            mean[j] = sums[j] / count
        for i in range(k * block, stop):
            ROW
            for j in range(columns):
                STEPS
                off = RESULT - mean[j]
                squares[j] += off * off
"""

_TEMPLATE = {"": "", "total": _TOTAL, "centred": _TOTAL, "rows": _ROWS, "spread": _SPREAD}


def _sample(blocks: Any, kinds: tuple[str, ...], ndim: int) -> tuple[list[NDArray], Shape]:
    """Blocks of these kinds, in rows that do not divide into anything evenly."""
    rng = np.random.default_rng(0)
    shape = (140_971,) if ndim == 1 else (2311, *(1,) * (ndim - 2), 61)
    shapes = {"full": shape, "row": shape[-1:], "column": (*shape[:-1], 1), "one": (1,)}
    made = [
        (rng.random(shapes[kind]) + 0.5).astype(block.dtype)
        for block, kind in zip(blocks, kinds, strict=True)
    ]
    return made, shape


def _compile(key: Any, source: str, program: Any, sample: Sequence[NDArray], shape: Shape) -> None:
    lanes = Path(__file__).with_name("lanes.py").read_text()  # compiled into what calls it
    name = content_key("kernel", source, lanes, np.__version__).replace("-", "_")
    folder = cache_directory() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.py"
        if not path.exists():
            partial = path.with_suffix(f".{threading.get_ident()}.tmp")
            partial.write_text(source)
            partial.replace(path)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # numba's cache looks functions up by module
        spec.loader.exec_module(module)
        kernel = Compiled(module, key[1], key[2], program.dtype)
        if program.like_numpy(kernel, sample, shape):  # compiles, or loads from disk
            _ready[key] = kernel
        else:
            _logger.warning("a fused kernel stays in NumPy, whose order of additions is new to us")
    except Exception as error:  # numba raises what it likes; NumPy does the work then
        _logger.warning("a fused kernel stays in NumPy: %s: %s", type(error).__name__, error)


class Compiled:
    """A compiled program: makes values, or the partial values of each cache block.

    ``reduces`` tells which; it does only one of the two.
    """

    def __init__(
        self, module: Any, kinds: tuple[str, ...], form: str, dtype: np.dtype[Any]
    ) -> None:
        self._module = module
        self._kinds = kinds
        self._form = form
        self._dtype = dtype
        self.reduces = form != ""

    def values(self, blocks: Any, shape: Shape) -> Callable[[NDArray, int, int], None]:
        """``fill(out, lo, hi)`` writes elements ``lo`` to ``hi`` of the chunk, in C order."""
        fill, flat, inner = self._module.fill, _flat(blocks), self._inner(blocks, shape)
        return lambda out, lo, hi: fill(*flat, out, lo, hi, inner)

    def partials(self, blocks: Any, shape: Shape) -> Any:
        """Partial values of all cache blocks, stacked along a new first axis."""
        flat = _flat(blocks)
        if self._form in ("total", "centred"):
            runs = [math.prod(b) for b in itertools.product(*contiguous(shape, BLOCK_ELEMENTS))]
            inner, lo, parts = self._inner(blocks, shape), 0, []
            if self._form == "centred":
                inner = math.prod(shape[1:])
            for length, same in itertools.groupby(runs):
                parts.append(np.empty(sum(1 for _ in same), self._dtype))
                self._module.reduce(*flat, parts[-1], *_pairwise(length), length, lo, inner)
                lo += length * parts[-1].size
            return np.concatenate(parts).reshape(-1, *(1,) * len(shape))
        (cut, *rest) = contiguous(shape, BLOCK_ELEMENTS)
        tail = tuple([axis[0] for axis in rest])
        columns = math.prod(tail)
        size = (len(cut), columns) if self._form == "rows" else (len(cut), 2, columns)
        out = np.empty(size, self._dtype)
        self._module.reduce(*flat, out, cut[0], shape[0], columns)
        if self._form == "rows":
            return out.reshape(-1, 1, *tail)
        counts = np.empty((len(cut), 1, *tail), self._dtype)
        counts[:] = np.array(cut).reshape(-1, *(1,) * len(shape))
        return counts, *[out[:, i].reshape(counts.shape) for i in (0, 1)]

    def _inner(self, blocks: Any, shape: Shape) -> int:
        """Elements after which inputs that are repeated begin anew."""
        for block, kind in zip(blocks, self._kinds, strict=True):
            if kind in ("row", "column"):
                return int(block.size) if kind == "row" else shape[-1]
        return math.prod(shape)


@functools.lru_cache(maxsize=64)
def _pairwise(length: int) -> tuple[NDArray, NDArray]:
    """How NumPy adds ``length`` elements: eight running sums over up to 128, halves beyond.

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


def _flat(blocks: Any) -> list[NDArray]:
    return [block.reshape(-1) for block in blocks]


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
