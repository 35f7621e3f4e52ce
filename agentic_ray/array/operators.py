"""Python's operators for `Array`: each finds its operation by name and builds one node.

The operations themselves are defined in `elementwise` and `linalg.products`, which enter them in
the tables here. That keeps `Array` free of imports of the modules that are built on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from agentic_ray.array.array_object import Array

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""Functions behind the operators, by name. Filled when those functions are defined."""

_PLAIN = (bool, int, float, complex, np.ndarray, np.generic, list, tuple)
_ELEMENTS = (str, bytes, type(None))
"""Operands that equal no array of numbers: comparing with them gives False everywhere."""

Method = Callable[[Any, Any], "Array"]


def is_operand(value: object) -> bool:
    """Whether an operator takes ``value`` beside an array; other types get their own turn."""
    return isinstance(value, _PLAIN) or hasattr(value, "_node")


def repeats(name: str, array: Array, other: object) -> bool:
    """Whether ``array * other`` repeats a list or tuple, as a scalar of NumPy's does.

    If the operator is not implemented, Python repeats the list itself, or says that the scalar is
    no integer.
    """
    return name == "multiply" and isinstance(other, list | tuple) and array._is_scalar


def forward(name: str) -> Method:
    """Make the method for ``array <operator> other``."""
    equality = {"equal": False, "not_equal": True}.get(name)

    def method(self: Array, other: Any) -> Any:
        if repeats(name, self, other):
            return NotImplemented
        if is_operand(other):
            if equality is not None and self.dtype.names is not None:
                return FUNCTIONS[f"{name}_records"](self, other)
            return FUNCTIONS[name](self, other)
        if equality is not None and isinstance(other, _ELEMENTS):
            if self.dtype.names is not None:
                operator.eq(np.empty(0, self.dtype), other)  # raises NumPy's own error
            return FUNCTIONS["full_like"](self, equality, dtype=np.bool_)
        if isinstance(other, str | bytes):
            getattr(np, name)(np.empty(1, self.dtype), other)  # raises NumPy's own error
        return NotImplemented

    return method


def reflected(name: str) -> Method:
    """Make the method for ``other <operator> array``."""

    def method(self: Array, other: Any) -> Any:
        if repeats(name, self, other):
            return NotImplemented
        return FUNCTIONS[name](other, self) if is_operand(other) else NotImplemented

    return method


def in_place(name: str) -> Method:
    """Make the method for ``array <operator>= other``."""

    def method(self: Array, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        result = FUNCTIONS[name](self, other)
        # NumPy's scalars are immutable: ``m += 1`` makes a new one, and other names of the old one
        # keep its value.
        return result if self._is_scalar else self._assign(result, name)

    return method


def refuse_cast(name: str, found: np.dtype[Any], wanted: np.dtype[Any]) -> None:
    """Raise NumPy's own error for an in-place operator whose result cannot be cast.

    Raises
    ------
    TypeError
        Always, with NumPy's own type.
    """
    ufunc = getattr(np, name)
    operands = [np.empty((0, 0), found)] * ufunc.nin
    ufunc(*operands, out=np.empty((0, 0), wanted), casting="same_kind")
    raise TypeError(f"cannot cast the result of {name} from {found} to {wanted}")


def unary(name: str) -> Callable[[Any], Array]:
    """Make the method for ``<operator> array``."""

    def method(self: Array) -> Any:
        return FUNCTIONS[name](self)

    return method


def divided(*, reflected: bool) -> Callable[[Any, Any], tuple[Array, Array]]:
    """Make the method for ``divmod``: quotient and remainder."""

    def method(self: Array, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        pair = (other, self) if reflected else (self, other)
        return FUNCTIONS["floor_divide"](*pair), FUNCTIONS["remainder"](*pair)

    return method
