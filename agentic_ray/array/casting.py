"""Conversions of an array to another dtype, with all arguments of NumPy's ``astype``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_device, check_order, is_fortran
from agentic_ray.array.core.build import along, blockwise_op, check_numbers, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType
from agentic_ray.array.core.program import host_only
from agentic_ray.array.outputs import looked_at


@host_only
def _same_value_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return np.asarray(x).astype(dtype, casting="same_value")


_SAME_VALUE = blockwise_op("astype_same_value", _same_value_kernel)


def converted(
    x: Any,
    dtype: Any,
    order: str = "K",
    casting: str = "unsafe",
    copy: Any = True,
    device: str | None = None,
) -> Array:
    """Convert ``x`` to another dtype; `Array.astype` describes the arguments.

    Nodes are immutable, so the copy that ``copy=True`` asks for is only made when one of the two
    arrays is assigned to.

    Raises
    ------
    TypeError
        ``casting`` forbids the conversion.
    ValueError
        ``casting`` is ``"same_value"`` and a value changes.
    """
    array = x if isinstance(x, Array) else Array(strict_operand(x), is_cell=True)
    node, wanted = array._node, check_numbers(np.dtype(dtype))
    order = check_order(order)
    if casting != "same_value" and not np.can_cast(node.dtype, wanted, casting):  # type: ignore[arg-type]
        raise TypeError(
            f"Cannot cast array data from {node.dtype!r} to {wanted!r} according to the rule "
            f"{casting!r}"
        )
    if node.dtype.kind == "c" and wanted.kind in "iuf" and casting != "same_value":
        warnings.warn(
            "Casting complex values to real discards the imaginary part",
            np.exceptions.ComplexWarning,
            stacklevel=3,
        )
    layout = array._layout
    fits = order in "KA" or (layout.flags.c_contiguous if order == "C" else
                             layout.flags.f_contiguous)  # fmt: skip
    if not copy and fits and node.dtype == wanted and check_device(device) in (None, node.device):
        return array
    if casting == "same_value" and node.dtype != wanted:
        made = looked_at(Array(along(_SAME_VALUE, [node], (), None, wanted, (wanted,))))._node
    else:
        made = cast(node, wanted)
    result = Array(made, is_cell=array._is_cell, is_fortran=is_fortran(order, layout))
    return result if device is None else result.to_device(device)
