"""Eight elements side by side in registers, for numba: what NumPy's pairwise sum is made of.

Written as LLVM's vectors, because numba leaves such loops scalar: the pass of LLVM that would find
them is off in numba, after it miscompiled (https://github.com/numba/numba/pull/8852).
Only generated kernels import this module, and only where numba is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "lanes_absolute",
    "lanes_add",
    "lanes_at",
    "lanes_divide",
    "lanes_multiply",
    "lanes_negative",
    "lanes_of_float32",
    "lanes_of_float64",
    "lanes_sqrt",
    "lanes_subtract",
    "lanes_sum",
    "lanes_total",
]

_LANES = 8


class Lanes(types.Type):
    """Eight numbers of one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        number = ir.DoubleType() if kind.dtype == types.float64 else ir.FloatType()
        super().__init__(manager, kind, ir.VectorType(number, _LANES))  # type: ignore[no-untyped-call]


@intrinsic
def lanes_at(typing_context: Any, array: Any, start: Any) -> Any:
    """The elements from ``start`` on of a contiguous array of float32 or float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, at = args
        data = context.make_array(signature.args[0])(context, builder, source).data
        vector = context.get_value_type(signature.return_type)
        place = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
        return builder.load(place, align=signature.args[0].dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


def _all_equal(dtype: Any) -> Any:
    @intrinsic
    def lanes_of(typing_context: Any, number: Any) -> Any:
        """Repeat a number eight times."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = context.get_value_type(signature.return_type)
            one = ir.VectorType(vector.element, 1)
            single = builder.insert_element(one(ir.Undefined), args[0], ir.IntType(32)(0))
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
            return builder.shuffle_vector(single, one(ir.Undefined), everywhere)

        return Lanes(dtype)(dtype), generate

    return lanes_of


lanes_of_float64 = _all_equal(types.float64)
lanes_of_float32 = _all_equal(types.float32)


def _elementwise(operate: Callable[..., Any], operands: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return operate(builder, *args)

    @intrinsic
    def unary(typing_context: Any, x: Any) -> Any:
        return x(x), generate

    @intrinsic
    def binary(typing_context: Any, x: Any, y: Any) -> Any:
        return x(x, y), generate

    return unary if operands == 1 else binary


def _of_llvm(name: str) -> Callable[..., Any]:
    def operate(builder: Any, x: Any) -> Any:
        bits = 64 if x.type.element == ir.DoubleType() else 32
        kind = ir.FunctionType(x.type, [x.type])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, kind, f"{name}.v{_LANES}f{bits}"
        )
        return builder.call(function, [x])

    return operate


lanes_add = _elementwise(lambda builder, x, y: builder.fadd(x, y), 2)
lanes_subtract = _elementwise(lambda builder, x, y: builder.fsub(x, y), 2)
lanes_multiply = _elementwise(lambda builder, x, y: builder.fmul(x, y), 2)
lanes_divide = _elementwise(lambda builder, x, y: builder.fdiv(x, y), 2)
lanes_negative = _elementwise(lambda builder, x: builder.fneg(x), 1)
lanes_absolute = _elementwise(_of_llvm("llvm.fabs"), 1)
lanes_sqrt = _elementwise(_of_llvm("llvm.sqrt"), 1)


@intrinsic
def lanes_total(typing_context: Any, x: Any) -> Any:
    """((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)) of the lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _total(builder, args[0])

    return x.dtype(x), generate


def _total(builder: Any, vector: Any) -> Any:
    lanes = [builder.extract_element(vector, ir.IntType(32)(k)) for k in range(_LANES)]
    while len(lanes) > 1:
        pairs = zip(lanes[::2], lanes[1::2], strict=True)
        lanes = [builder.fadd(left, right) for left, right in pairs]
    return lanes[0]


@intrinsic
def lanes_sum(typing_context: Any, array: Any, count: Any) -> Any:
    """The sum of the first ``count`` elements of a contiguous array of float32 or float64.

    ``count`` is a positive multiple of eight. Lane k adds the elements k, k + 8, ...; then
    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)) of the lanes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, end = args
        data = context.make_array(signature.args[0])(context, builder, source).data
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), _LANES)
        itemsize = signature.args[0].dtype.bitwidth // 8

        def eight(start: Any) -> Any:
            at = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
            return builder.load(at, align=itemsize)

        first, step = (ir.Constant(end.type, n) for n in (0, _LANES))
        sums = cgutils.alloca_once(builder, vector)  # type: ignore[no-untyped-call]
        builder.store(eight(first), sums)
        with cgutils.for_range_slice(builder, step, end, step) as (start, _):
            builder.store(builder.fadd(builder.load(sums), eight(start)), sums)
        return _total(builder, builder.load(sums))

    return array.dtype(array, types.intp), generate
