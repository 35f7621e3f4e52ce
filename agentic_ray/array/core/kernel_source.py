"""Programs as the source of numba kernels, which is text made from templates. Compiles nothing.

Only operations that IEEE 754 rounds exactly are there, and sums add in NumPy's own order.
"""

from __future__ import annotations

from typing import Any

from agentic_ray.array.core.statements import statements

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


def kernel_source(program: Any, kinds: tuple[str, ...], form: str) -> str | None:
    """The program as a Python module; None if an operation is not exact.

    Parameters
    ----------
    program : Program
        Its dtype is float32 or float64, and so is every block of it.
    kinds : tuple of str
        How each block lies under the region: ``"full"``, ``"row"``, ``"column"`` or ``"one"``.
    form : str
        What the kernel makes, see `compiled.form_of`.

    Returns
    -------
    str or None
        The module has the function as ``ENTRY``, and the numba types it takes as ``SIGNATURE``.
    """
    cast = f"np.{program.dtype.name}"
    blocks = [f"y{i}" if kind in ("one", "column") else f"y{i}[j]" for i, kind in enumerate(kinds)]
    scalars = [f"c{i}" for i in range(program.scalars)]
    found = statements(program, [*blocks, *scalars], _EXACT, "{0} = {1}")
    if found is None:
        return None
    lines, results = found
    if len(results) != 1:
        return None
    (result,) = results
    inputs = ", ".join([f"x{i}" for i in range(len(kinds))] + scalars)
    if form == "total" and set(kinds) <= {"full", "one"}:
        text = _in_lanes(program, kinds, cast, lines)
    else:
        text = _TEMPLATE[form]
        if form in ("", "total"):
            text = _FILL + text
        for word, found_lines in (
            ("SEGMENT", [f"y{i} = {_SEGMENT[kind].format(i)}" for i, kind in enumerate(kinds)]),
            ("ROW", [f"y{i} = {_ROW[kind].format(i)}" for i, kind in enumerate(kinds)]),
            ("STEPS", lines),
        ):
            text = _with_lines(text, word, found_lines)
    for word, named in (("XS", inputs), ("CAST", cast), ("RESULT", result)):
        text = text.replace(word, named)
    return _HEADER + text + _ending(program.dtype.name, len(kinds), len(scalars), form)


def _in_lanes(program: Any, kinds: tuple[str, ...], cast: str, lines: list[str]) -> str:
    """The total of a program whose inputs lie side by side: its values never leave registers."""
    wide = cast.replace("np.", "lanes_of_")
    names = [f"y{i}" for i in range(len(kinds))]
    scalars = [f"d{i}" for i in range(program.scalars)]
    found = statements(program, [*names, *scalars], _IN_LANES, "{0} = {1}")
    assert found is not None  # there is one of each in both tables
    text = _TOTAL_IN_LANES
    one = [f"y{i} = {wide}(x{i}[0])" for i, kind in enumerate(kinds) if kind == "one"]
    for word, found_lines in (
        ("ELEMENTS", [f"y{i} = x{i}" + "[0]" * (kind == "one") for i, kind in enumerate(kinds)]),
        ("NUMBERS", one + [f"d{i} = {wide}(c{i})" for i in range(len(scalars))]),
        ("LOADS", [f"y{i} = lanes_at(x{i}, at)" for i, kind in enumerate(kinds) if kind == "full"]),
        ("LANES", found[0]),
        ("STEPS", lines),
    ):
        text = _with_lines(text, word, found_lines)
    return text.replace("MADE", found[1][0])


def _ending(dtype: str, blocks: int, scalars: int, form: str) -> str:
    """Return the types of the kernel's arguments. Blocks are read-only ones, for which others are
    taken too: there is one machine code for all, and none is made when a kernel is called."""
    axes = {"": 1, "total": 1, "rows": 2, "spread": 3}[form]
    read = f'types.Array(types.{dtype}, 1, "C", readonly=True)'
    plan = 'types.Array(types.int64, 1, "C", readonly=True)'
    taken = [
        *[read] * blocks,
        *[f"types.{dtype}"] * scalars,
        f'types.Array(types.{dtype}, {axes}, "C")',
        *[plan, plan] * (form == "total"),
        *["types.int64"] * 3,
    ]
    listed = "".join(f"    {kind},\n" for kind in taken)
    return f"\nENTRY = {'reduce' if form else 'fill'}\nSIGNATURE = (\n{listed})\n"


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
from numba import njit, types

from agentic_ray.array.core.lanes import *

"""

_FILL = """\
@njit(nogil=True, error_model="numpy")
def fill(XS, out, lo, hi, inner):
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
@njit(nogil=True, error_model="numpy")
def reduce(XS, out, leaves, merges, length, lo, inner):
    values = np.empty(256, out.dtype)  # a few runs at once, and still in the nearest cache
    stack = np.empty(64, out.dtype)
    stop = lo
    begin = lo
    for k in range(out.size):
        top = 0
        stop += length
        ready = lo
        for leaf in range(leaves.size):
            n = leaves[leaf]
            if lo + n > ready:
                begin = lo
                ready = min(lo + values.size, stop)
                fill(XS, values, lo, ready, inner)
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


@njit(nogil=True, error_model="numpy")
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

_ROWS = """\
@njit(nogil=True, error_model="numpy")
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
@njit(nogil=True, error_model="numpy")
def reduce(XS, out, block, rows, columns):
    mean = np.empty(columns, out.dtype)
    for k in range(out.shape[0]):
        sums = out[k, 0]
        rests = out[k, 1]
        squares = out[k, 2]
        sums[:] = 0.0
        rests[:] = 0.0
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
                rests[j] += off
                squares[j] += off * off
"""

_TEMPLATE = {"": "", "total": _TOTAL, "rows": _ROWS, "spread": _SPREAD}
