"""NumPy's inner loop of a pairwise sum for numba: eight running sums, side by side in registers.

Written as LLVM's vectors, because numba leaves such a loop scalar: the pass of LLVM that would
find it is off in numba, after it miscompiled (https://github.com/numba/numba/pull/8852).
Only generated kernels import this module, and only where numba is installed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_LANES = 8


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
        total = builder.load(sums)
        lanes = [builder.extract_element(total, ir.IntType(32)(k)) for k in range(_LANES)]
        while len(lanes) > 1:
            pairs = zip(lanes[::2], lanes[1::2], strict=True)
            lanes = [builder.fadd(left, right) for left, right in pairs]
        return lanes[0]

    return array.dtype(array, types.intp), generate
