"""Programs compiled by numba, with the bits of the NumPy path.

Only operations that IEEE 754 rounds exactly are compiled, and sums are left to NumPy, so it
does not show in a result whether, or when, a program was compiled.
Compiling goes on aside, once a process has seen enough work of one program; compiled code is
kept on disk. Without numba everything runs in NumPy.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import SMALL_ELEMENTS, NDArray
from agentic_ray.config import cache_directory
from agentic_ray.graph import content_key

WORTH_ELEMENTS = 1 << 23
"""Elements of a program after which compiling it, about a second, will pay."""

SCRATCH_ELEMENTS = 4 * SMALL_ELEMENTS
"""Values made at a time before they are summed: together they fit in a core's cache."""

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

_logger = logging.getLogger("agentic_ray")
_lock = threading.Lock()
_seen: dict[Any, int] = {}
_ready: dict[Any, Any] = {}
_have_numba = importlib.util.find_spec("numba") is not None

_HEADER = """\
import math
import numpy as np
from numba import njit

"""


def wanted(program: Any, blocks: Any, shape: Shape, size: int) -> Any:
    """The compiled form of ``program`` for these blocks if there is one by now, else None."""
    if not _have_numba or not all(isinstance(block, np.ndarray) for block in blocks):
        return None
    kinds = tuple([_kind(block, shape) for block in blocks])
    rows = {block.size for block, kind in zip(blocks, kinds, strict=True) if kind == "row"}
    if not kinds or "" in kinds or len(rows) > 1:
        return None
    key = (program, kinds)
    found = _ready.get(key)
    if found is not None:
        return found if callable(found) else None
    with _lock:
        seen = _seen[key] = _seen.get(key, 0) + size
        if seen < WORTH_ELEMENTS:
            return None
        _ready[key] = False  # under way, or impossible
    source = _source(program, blocks, kinds)
    if source is not None:
        thread = threading.Thread(
            target=_compile,
            args=(key, source, program.dtype),
            name="compile-kernel",
            daemon=True,
        )
        thread.start()
    return None


def _kind(block: NDArray, shape: Shape) -> str:
    """How a block lies under the region: all of it, one row repeated, one number; else ""."""
    if not block.flags.c_contiguous:
        return ""
    if block.shape == shape:
        return "full"
    if block.size == 1:
        return "one"
    own = block.shape
    while own and own[0] == 1:
        own = own[1:]
    return "row" if own == shape[len(shape) - len(own) :] else ""


def _source(program: Any, blocks: Any, kinds: tuple[str, ...]) -> str | None:
    """The program as Python source; None if an operation is not exact or mixes dtypes."""
    dtype = program.dtype
    if dtype not in (np.float64, np.float32) or any(block.dtype != dtype for block in blocks):
        return None
    names = [f"y{i}" if kind == "one" else f"y{i}[j]" for i, kind in enumerate(kinds)]
    cast = "np.float64" if dtype == np.float64 else "np.float32"
    for kind, text, value in program.constants:
        if kind not in ("int", "float") or not np.isfinite(value):
            return None
        names.append(f"{cast}({text})")
    lines: list[str] = []
    for step in program.steps:
        form = _EXACT.get(getattr(step.kernel, "name", ""))
        if form is None or step.params:
            return None
        lines.append(f"v{len(names)} = {form.format(*[names[i] for i in step.registers])}")
        names.append(f"v{len(names)}")
    reducing = program.reducing
    result = names[-1]
    if reducing is not None:
        if not reducing.steps.summing or len(reducing.registers) != 1 or (
            reducing.params[-1] != dtype):  # fmt: skip
            return None
        result = names[reducing.registers[0]]
    arguments = ", ".join(f"x{i}" for i in range(len(kinds)))
    body = "\n            ".join([*lines, f"o[j] = {result}"])
    views = "\n        ".join(
        ["o = out[to : to + count]"] + [f"y{i} = {_part(i, kind)}" for i, kind in enumerate(kinds)]
    )
    return _HEADER + (
        f'@njit(nogil=True, cache=True, error_model="numpy")\n'
        f"def fill({arguments}, out, to, lo, hi, inner):\n"
        f"    # Segments that do not cross a row's end, so that rows need no division inside.\n"
        f"    while lo < hi:\n"
        f"        at = lo % inner\n"
        f"        count = min(hi - lo, inner - at)\n"
        f"        {views}\n"
        f"        for j in range(count):\n"
        f"            {body}\n"
        f"        lo += count\n"
        f"        to += count\n"
    )


def _part(i: int, kind: str) -> str:
    """What of input ``i`` lies under a segment; slices, so that no index can be negative."""
    if kind == "one":
        return f"x{i}[0]"
    return f"x{i}[lo : lo + count]" if kind == "full" else f"x{i}[at : at + count]"


def _compile(key: Any, source: str, dtype: np.dtype[Any]) -> None:
    name = content_key("kernel", source, np.__version__).replace("-", "_")
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
        one = [np.ones(1, dtype)] * len(key[1])
        module.fill(*one, np.empty(1, dtype), 0, 0, 1, 1)  # compiles, or loads from disk
        _ready[key] = Compiled(module.fill, dtype)
    except Exception as error:  # numba raises what it likes; NumPy does the work then
        _logger.warning("a fused kernel stays in NumPy: %s: %s", type(error).__name__, error)


class Compiled:
    """A compiled program: fills an array, or sums it run by run."""

    def __init__(self, fill: Any, dtype: np.dtype[Any]) -> None:
        self._fill = fill
        self._dtype = dtype

    def __call__(self, blocks: Any, shape: Shape, runs: Sequence[int] | None) -> NDArray:
        """All values (``runs`` None), or the sums of consecutive runs of these lengths.

        Values are made for a few runs at a time, which stay in the core's cache, and summed by
        NumPy itself, whose order of additions is thus kept.
        """
        size = math.prod(shape)
        flat = [block.reshape(-1) for block in blocks]
        inner = min([x.size for x in flat if x.size > 1], default=size)
        if runs is None:
            out = np.empty(size, self._dtype)
            self._fill(*flat, out, 0, 0, size, inner)
            return out.reshape(shape)
        sums: list[NDArray] = []
        scratch = np.empty(SCRATCH_ELEMENTS, self._dtype)
        at = 0
        for length, group in itertools.groupby(runs):
            left = sum(1 for _ in group)
            while left:
                count = min(left, SCRATCH_ELEMENTS // length)
                self._fill(*flat, scratch, 0, at, at + count * length, inner)
                rows = scratch[: count * length].reshape(count, length)
                sums.append(np.add.reduce(rows, axis=1))
                at += count * length
                left -= count
        return np.concatenate(sums)
