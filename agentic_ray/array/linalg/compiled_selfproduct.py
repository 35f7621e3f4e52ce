"""`selfproduct.summed` as one call without the interpreter, for the BLAS that NumPy's wheels bring.

Threads that return to Python for every small product wait for each other longer than a product
takes. Imported only where numba is installed.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from threadpoolctl import threadpool_info

from agentic_ray.array.core.node import NDArray

if TYPE_CHECKING:
    from agentic_ray.array.linalg.selfproduct import Panel, Summing

_NAMES = {"float64": "scipy_cblas_dgemm64_", "float32": "scipy_cblas_sgemm64_"}
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112
"""As in ``cblas.h``."""


@intrinsic
def _product(
    typing_context: Any,
    routine: Any,
    m: Any,
    n: Any,
    k: Any,
    x: Any,
    left: Any,
    right: Any,
    stride: Any,
    out: Any,
    at: Any,
) -> Any:
    """The transpose of ``k`` rows of ``m`` elements, from ``x[left]`` on, times as many rows of
    ``n`` from ``x[right]`` on, rows being ``stride`` apart; written to ``out[at]`` and after."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        routine, m, n, k, x, left, right, stride, out, at = args
        number = context.get_value_type(signature.args[4].dtype)
        integer, mode = ir.IntType(64), ir.IntType(32)
        source = context.make_array(signature.args[4])(context, builder, x).data
        target = context.make_array(signature.args[8])(context, builder, out).data
        pointer = source.type
        form = ir.FunctionType(
            ir.VoidType(),
            [mode] * 3
            + [integer] * 3
            + [number, pointer, integer, pointer, integer, number, pointer, integer],
        )
        function = builder.inttoptr(routine, form.as_pointer())
        modes = [ir.Constant(mode, value) for value in (_ROW_MAJOR, _TRANSPOSED, _PLAIN)]
        one, nothing = ir.Constant(number, 1.0), ir.Constant(number, 0.0)
        first, second = builder.gep(source, [left]), builder.gep(source, [right])
        result = builder.gep(target, [at])
        builder.call(
            function,
            [*modes, m, n, k, one, first, stride, second, stride, nothing, result, n],
        )
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, index, index, index, x, index, index, index, out, index), generate


@njit(nogil=True, cache=True, error_model="numpy")
def _add_rows(rows: NDArray, sums: NDArray) -> None:
    columns = sums.size
    sums[:] = rows[:columns]
    for at in range(columns, rows.size, columns):
        row = rows[at : at + columns]  # a slice, so that no index can be negative
        for j in range(columns):
            sums[j] += row[j]


@njit(nogil=True, cache=True, error_model="numpy")
def _add_up(
    routine: int,
    x: NDArray,
    shift: NDArray,
    scratch: NDArray,
    bounds: NDArray,
    shape: tuple[int, int, int, int],
    total: NDArray,
) -> None:
    calls, at_once, rows, columns = shape
    size = rows * columns
    made = np.empty_like(total)
    own = np.empty_like(total)
    for call in range(calls):
        for product in range(at_once):
            source = x
            first = (call * at_once + product) * size
            if shift.size:
                for at in range(0, size, columns):  # slices, so that no index can be negative
                    given, less = x[first + at : first + at + columns], scratch[at : at + columns]
                    for j in range(columns):
                        less[j] = given[j] - shift[j]
                source = scratch
                first = 0
            into = made if product else own
            at = 0
            for panel in range(bounds.shape[0]):
                begin, end, start = bounds[panel]
                wide = columns - start
                _product(  # type: ignore[call-arg]  # numba gives it the first
                    routine, end - begin, wide, rows, source, first + begin, first + start,
                    columns, into, at,
                )  # fmt: skip
                at += (end - begin) * wide
            if at < total.size:
                _add_rows(source[first : first + size], into[at:])
            if product:
                own += made
        total += own


def summing(dtype: np.dtype[Any]) -> Summing | None:
    """The compiled form for arrays of this dtype; None where NumPy has another BLAS."""
    routine = _routine(_NAMES[dtype.name])
    if routine is None:
        return None

    def summed(
        blocks: NDArray, shift: NDArray | None, panels: tuple[Panel, ...], total: NDArray
    ) -> None:
        nothing = np.empty(0, dtype)
        rows, columns = blocks.shape[2:]
        bounds = np.array([(panel.begin, panel.end, panel.start) for panel in panels])
        scratch = nothing if shift is None else np.empty(rows * columns, dtype)
        given = nothing if shift is None else np.ascontiguousarray(shift)
        _add_up(routine, blocks.reshape(-1), given, scratch, bounds, blocks.shape, total)

    return summed


def _routine(name: str) -> int | None:
    """The address of a routine of NumPy's own BLAS."""
    for library in threadpool_info():
        if "numpy.libs" in library["filepath"]:
            found = getattr(ctypes.CDLL(library["filepath"]), name, None)
            if found is not None:
                return ctypes.cast(found, ctypes.c_void_p).value
    return None
