"""Elementwise operations by name, and those that other modules of the core need themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.core import standard
from agentic_ray.array.core.build import check_numbers, elementwise
from agentic_ray.array.core.node import DType, Node, Op

ELEMENTWISE: dict[str, Op] = {}
"""Every elementwise operation that stands for a function of the namespace, by its name."""


def _astype_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return standard.cast(xp, x, dtype)


ASTYPE = Op("astype", "map", _astype_kernel)


def cast(node: Node, dtype: Any) -> Node:
    """``node`` with another dtype.

    Raises
    ------
    InvalidTypeError
        It is of objects or texts.
    """
    dtype = np.dtype(dtype)
    if node.dtype == dtype:
        return node
    check_numbers(dtype)
    return elementwise(ASTYPE, [node], (dtype,))


def _complex_kernel(xp: Any, real: Any, imag: Any) -> Any:
    out = xp.empty(real.shape, dtype=np.result_type(real.dtype, np.complex64))
    out.real = real
    out.imag = imag
    return out


COMPLEX = Op("complex", "map", _complex_kernel)
"""Complex numbers from their parts."""


def _field_kernel(xp: Any, x: Any, name: str) -> Any:
    return x[name]


def _with_field_kernel(xp: Any, x: Any, value: Any, name: str) -> Any:
    out = xp.array(x)
    out[name] = value
    return out


def _fields_kernel(xp: Any, x: Any, names: tuple[str, ...]) -> Any:
    return x[list(names)]


FIELD = Op("field", "map", _field_kernel)
FIELDS = Op("fields", "map", _fields_kernel)
WITH_FIELD = Op("with_field", "map", _with_field_kernel)
"""A field of records, records of some of the fields, and records in which one has other values."""
