"""Data types and promotion; the types themselves are NumPy's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy import (
    byte,
    cdouble,
    complex64,
    complex128,
    complexfloating,
    csingle,
    datetime64,
    double,
    dtype,
    flexible,
    float16,
    float32,
    float64,
    floating,
    generic,
    half,
    inexact,
    int8,
    int16,
    int32,
    int64,
    int_,
    intc,
    integer,
    intp,
    long,
    longlong,
    number,
    short,
    signedinteger,
    single,
    timedelta64,
    ubyte,
    uint,
    uint8,
    uint16,
    uint32,
    uint64,
    uintc,
    uintp,
    ulong,
    ulonglong,
    unsignedinteger,
    ushort,
    void,
)

from agentic_ray.array.array_object import Array
from agentic_ray.array.casting import converted
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.node import DType
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "astype", "bool", "bool_", "byte", "can_cast", "cdouble", "common_type", "complex64",
    "complex128", "complexfloating", "csingle", "datetime64", "double", "dtype", "finfo",
    "flexible", "float16", "float32", "float64", "floating", "generic", "half", "iinfo", "inexact",
    "int8", "int16", "int32", "int64", "int_", "intc", "integer", "intp", "isdtype", "issubdtype",
    "long", "longlong", "min_scalar_type", "mintypecode", "number", "promote_types", "result_type",
    "short", "signedinteger", "single", "timedelta64", "typename", "ubyte", "uint", "uint8",
    "uint16", "uint32", "uint64", "uintc", "uintp", "ulong", "ulonglong", "unsignedinteger",
    "ushort", "void",
]  # fmt: skip

bool = bool_ = np.bool_


@dataclass(frozen=True, slots=True)
class finfo_object:
    """Limits of a floating point type; has the standard's attributes and all of `numpy.finfo`."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType
    _own: Any = field(repr=False, compare=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._own, name)


@dataclass(frozen=True, slots=True)
class iinfo_object:
    """Limits of an integer type."""

    bits: int
    max: int
    min: int
    dtype: DType

    @property
    def kind(self) -> str:
        """Kind of integer: ``"i"`` or ``"u"``."""
        return self.dtype.kind


def dtype_of(value: Any) -> DType:
    """Return ``value`` as a dtype, or the dtype of an array or number."""
    if isinstance(value, Array | np.ndarray | np.generic):
        found: DType = value.dtype
        return found
    if type(value) in (int, float, complex):
        return np.dtype(type(value))
    made: DType = np.dtype(value)
    return made


def finfo(dtype: Any, /) -> finfo_object:
    """Return the limits of a real or complex floating point type, given itself or an array of it.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.finfo(xp.float32).bits
    32
    """
    found = np.finfo(dtype_of(dtype))
    return finfo_object(
        int(found.bits),
        float(found.eps),
        float(found.max),
        float(found.min),
        float(found.smallest_normal),
        np.dtype(found.dtype),
        found,
    )


def iinfo(type: Any, /) -> iinfo_object:
    """Return the limits of an integer type, given itself or an array of it."""
    own = dtype_of(type)
    found = np.iinfo(own)
    return iinfo_object(int(found.bits), int(found.max), int(found.min), own)


isdtype = np.isdtype
issubdtype = np.issubdtype
promote_types = np.promote_types
mintypecode = np.mintypecode
typename = np.typename


def _dtype_or_other(value: Any) -> Any:
    return value.dtype if isinstance(value, Array | np.ndarray | np.generic) else value


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> Any:
    """Whether a cast from a dtype, or from an array's dtype, is allowed.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.can_cast(xp.arange(3), "int8")
    False
    """
    return np.can_cast(_dtype_or_other(from_), to, casting)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """Return the dtype that the arguments promote to; Python scalars give way.

    Raises
    ------
    InvalidArgumentError
        There is no argument.
    """
    if not arrays_and_dtypes:
        raise InvalidArgumentError("at least one array or dtype is required")
    return np.result_type(*map(_dtype_or_other, arrays_and_dtypes))


def min_scalar_type(a: Any, /) -> DType:
    """Return the smallest dtype that holds a number; for an array with axes its own dtype."""
    if isinstance(a, Array):
        return a.dtype if a.shape else np.min_scalar_type(a.compute())
    return np.min_scalar_type(a)


def common_type(*arrays: Any) -> Any:
    """Return the inexact type that all ``arrays`` can be converted to."""
    return np.common_type(*[np.empty(0, strict_operand(array).dtype) for array in arrays])


def astype(x: Any, dtype: Any, /, *, copy: Any = True, device: str | None = None) -> Array:
    """Convert ``x`` to another dtype; see `Array.astype`.

    Raises
    ------
    TypeError
        ``x`` is no array.
    """
    if not isinstance(x, Array | np.ndarray | np.generic):
        raise InvalidTypeError(f"Input should be an array. It is of type {type(x).__name__}.")
    return converted(x, dtype, copy=copy, device=device)
