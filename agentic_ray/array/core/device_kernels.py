"""Programs as one CuPy kernel: a chain of steps, and perhaps a sum, in one pass over the device.

`cupy.ElementwiseKernel` and `cupy.ReductionKernel` compile the C++ made here, once a device and
signature, and keep the machine code on disk. Contraction to fused multiply-add is turned off, so
that elementwise results have the bits of CuPy's own functions. What is fused depends on the program
and the blocks' shape only, never on time, so a result's bits do not either.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.statements import as_floats, statements
from agentic_ray.graph import content_key

WORTH_ELEMENTS = 1 << 18
"""Smaller regions are not worth a compilation of a few tenths of a second."""

_OPTIONS = ("--fmad=false",)

_FORMS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "true_divide": "{0} / {1}",
    "negative": "-{0}",
    "positive": "+{0}",
    "absolute": "fabs({0})",
    "square": "{0} * {0}",
} | {
    name: f"{function}({{0}})"
    for name, function in {
        "sqrt": "sqrt",
        "exp": "exp",
        "expm1": "expm1",
        "log": "log",
        "log1p": "log1p",
        "log2": "log2",
        "log10": "log10",
        "sin": "sin",
        "cos": "cos",
        "tan": "tan",
        "sinh": "sinh",
        "cosh": "cosh",
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
        "arcsinh": "asinh",
        "arccosh": "acosh",
        "arctanh": "atanh",
        "floor": "floor",
        "ceil": "ceil",
        "trunc": "trunc",
    }.items()
}
"""The operations by the name of their kernel, as CuPy's own ufuncs have them."""


def run(program: Any, blocks: Sequence[Any], scalars: Sequence[Any], shape: Shape, xp: Any) -> Any:
    """Return the values of the program for these blocks, from one kernel.

    Parameters
    ----------
    program : Program
        With a reduction its partial value is given: reduced axes are kept with length 1.
    blocks : tuple
        Its inputs, which broadcast to ``shape``.
    scalars : tuple
        Python scalars. They are arguments of the kernel: another number needs no other kernel.
    xp : module
        The array namespace.

    Returns
    -------
    array or None
        None if the program, the blocks or the namespace are not for a fused kernel.
    """
    if not hasattr(xp, "ElementwiseKernel") or math.prod(shape) < WORTH_ELEMENTS:
        return None
    if any(not isinstance(block, xp.ndarray) or block.dtype != program.dtype for block in blocks):
        return None
    kernel = _kernel(program, len(blocks), xp)
    numbers = as_floats(scalars, program.dtype)
    if kernel is None or numbers is None:
        return None
    if program.reducing is None:
        return kernel(*blocks, *numbers)
    blocks = (xp.broadcast_to(blocks[0], shape), *blocks[1:])  # else an axis may be missing
    return kernel(*blocks, *numbers, axis=program.reducing.axes, keepdims=True)


@functools.lru_cache(maxsize=256)
def _kernel(program: Any, blocks: int, xp: Any) -> Any:
    source = function_source(program, blocks)
    if source is None:
        return None
    dtype = program.dtype.name  # CuPy takes "float" for float64, as NumPy does
    name = content_key("fused", source).replace("-", "_")
    names = _operands(program, blocks)
    arguments = ", ".join(f"{dtype} {name}" for name in names)
    call = f"fused({', '.join(names)})"
    if program.reducing is None:
        return xp.ElementwiseKernel(
            arguments, f"{dtype} out", f"out = {call}", name, preamble=source, options=_OPTIONS
        )
    return xp.ReductionKernel(
        arguments, f"{dtype} out", call, "a + b", "out = a", "0", name,
        preamble=source, options=_OPTIONS,
    )  # fmt: skip


def function_source(program: Any, blocks: int) -> str | None:
    """The steps as a C++ device function ``fused``; None if one of them has no such form.

    Parameters
    ----------
    program : Program
        Its dtype is float32 or float64, and so is every value in it.
    blocks : int
        How many blocks it takes; its scalars follow them among its registers.
    """
    ctype = _CTYPES.get(program.dtype.name)
    reducing = program.reducing
    fusible = len(program.steps) >= (1 if reducing is not None else 2)
    if ctype is None or not blocks or not fusible or any(program.located):
        return None
    if reducing is not None and not (
        reducing.steps.compiled == "sum" and reducing.axes and reducing.params[-1] == program.dtype
    ):
        return None
    names = _operands(program, blocks)
    found = statements(program, names, _FORMS, f"    const {ctype} {{0}} = {{1}};")
    if found is None:
        return None
    lines, (result,) = found
    arguments = ", ".join(f"const {ctype} {name}" for name in names)
    return "\n".join(
        [f"__device__ {ctype} fused({arguments}) {{", *lines, f"    return {result};", "}", ""]
    )


def _operands(program: Any, blocks: int) -> list[str]:
    return [f"x{i}" for i in range(blocks)] + [f"c{i}" for i in range(program.scalars)]


_CTYPES = {"float64": "double", "float32": "float"}
