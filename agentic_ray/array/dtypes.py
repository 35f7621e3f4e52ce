"""Data types and promotion, as the standard has them; the types themselves are NumPy's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array, check_device
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType
from agentic_ray.errors import InvalidTypeError

bool = np.bool_
int8 = np.int8
int16 = np.int16
int32 = np.int32
int64 = np.int64
uint8 = np.uint8
uint16 = np.uint16
uint32 = np.uint32
uint64 = np.uint64
float32 = np.float32
float64 = np.float64
complex64 = np.complex64
complex128 = np.complex128


@dataclass(frozen=True, slots=True)
class finfo_object:
    """Limits of a floating point type."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class iinfo_object:
    """Limits of an integer type."""

    bits: int
    max: int
    min: int
    dtype: DType


def dtype_of(value: Any) -> DType:
    """``value`` as a dtype, or the dtype of the array that it is."""
    found: DType = value.dtype if isinstance(value, Array | np.ndarray) else np.dtype(value)
    return found


def finfo(type: Any, /) -> finfo_object:
    """Limits of a real or complex floating point type, given itself or an array of it."""
    found = np.finfo(dtype_of(type))
    return finfo_object(
        int(found.bits),
        float(found.eps),
        float(found.max),
        float(found.min),
        float(found.smallest_normal),
        np.dtype(found.dtype),
    )


def iinfo(type: Any, /) -> iinfo_object:
    """Limits of an integer type, given itself or an array of it."""
    dtype = dtype_of(type)
    found = np.iinfo(dtype)
    return iinfo_object(int(found.bits), int(found.max), int(found.min), dtype)


def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether ``dtype`` is of a kind such as ``"integral"``, or one of several."""
    return np.isdtype(np.dtype(dtype), _plain_kind(kind))


def _plain_kind(kind: Any) -> Any:
    if isinstance(kind, tuple):
        return tuple(_plain_kind(entry) for entry in kind)
    return kind if isinstance(kind, str) else np.dtype(kind)


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether a cast is safe by the standard's promotion rules."""
    return np.can_cast(dtype_of(from_), np.dtype(to))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that the arguments promote to; Python scalars give way.

    Raises
    ------
    InvalidTypeError
        Nothing was given.
    """
    if not arrays_and_dtypes:
        raise InvalidTypeError("result_type needs at least one array, dtype or scalar")
    return np.result_type(
        *[
            entry.dtype if isinstance(entry, Array | np.ndarray | np.generic) else entry
            for entry in arrays_and_dtypes
        ]
    )


def astype(x: Array, dtype: Any, /, *, copy: Any = True, device: str | None = None) -> Array:
    """``x`` with another dtype.

    Arrays are immutable expressions, so the copy that ``copy=True`` asks for is made when one
    of the two is assigned to.
    """
    node = strict_operand(x)
    wanted = np.dtype(dtype)
    if node.dtype.kind == "c" and wanted.kind in "biuf" and wanted.kind != "b":
        raise InvalidTypeError(f"cannot cast {node.dtype} to {wanted}; take the real part first")
    if not copy and node.dtype == wanted and check_device(device) in (None, node.device):
        return x
    is_cell = isinstance(x, Array) and x._is_cell
    result = Array(cast(node, wanted), is_cell=is_cell)
    return result if device is None else result.to_device(device)
