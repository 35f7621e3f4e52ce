"""Python's operators for `Array`: each finds its operation by name and builds one node.

The operations themselves are defined in `elementwise` and `linalg.products`, which enter them in
the tables here. That keeps `Array` free of imports of the modules that are built on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from agentic_ray.array.array_object import Array

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""Functions behind the operators, by name. Filled when those functions are defined."""

_PLAIN = (bool, int, float, complex, np.ndarray, np.generic, list, tuple)
_ELEMENTS = (str, bytes, type(None))
"""Operands that equal no array of numbers: comparing with them gives False everywhere."""

_PYTHONS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt,
    "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
    "divide": operator.truediv, "floor_divide": operator.floordiv, "remainder": operator.mod,
    "pow": operator.pow, "matmul": operator.matmul, "bitwise_and": operator.and_,
    "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
    "bitwise_left_shift": operator.lshift, "bitwise_right_shift": operator.rshift,
}  # fmt: skip
"""Python's operators by the names of their functions."""
_COMPARISONS = frozenset(list(_PYTHONS)[:6])

Method = Callable[[Any, Any], "Array"]


def is_operand(value: object) -> bool:
    """Whether an operator takes ``value`` beside an array; other types get their own turn."""
    if type(value) in _PLAIN:
        return True
    return (isinstance(value, _PLAIN) and not has_own_turn(value)) or hasattr(value, "_node")


def has_own_turn(value: object) -> bool:
    """Whether ``value`` computes with arrays itself, as subclasses of NumPy's array with a mask or
    with units do."""
    own = getattr(type(value), "__array_ufunc__", None)
    if own is None or own is np.ndarray.__array_ufunc__:
        return isinstance(value, np.ma.MaskedArray)
    return not hasattr(value, "_node")


def _as_operand(value: Any) -> Any:
    """Convert a sequence such as a ``range`` or an ``array.array`` to NumPy's array. Return None if
    NumPy does not read ``value`` as a sequence, or if its class computes with arrays itself."""
    kind = type(value)
    if hasattr(kind, "__array_ufunc__") or hasattr(kind, "__array_priority__"):
        return None
    if isinstance(value, Sequence) or hasattr(kind, "__array__"):
        return None if isinstance(value, str | bytes) else np.asarray(value)
    return None


def _by_numpy(name: str, array: Array, other: Any, swap: bool = False) -> Any:
    """Leave an operator to NumPy over the values: with a class that takes NumPy's arrays and not
    ours, such as pandas' ``Timestamp``, and for comparisons with any Python object."""
    kind = type(other)
    if hasattr(kind, "__array_ufunc__"):
        if name not in ("equal", "not_equal"):
            return NotImplemented
        # Without an answer of its class Python would take the two for unequal as a whole.
        own: Any = kind.__eq__ if name == "equal" else kind.__ne__
        found = own(other, array)
        return _PYTHONS[name](np.asarray(array), other) if found is NotImplemented else found
    if not hasattr(kind, "__array_priority__") and name not in _COMPARISONS:
        return NotImplemented
    values = np.asarray(array)
    found = _PYTHONS[name](*((other, values) if swap else (values, other)))
    if type(found) is np.ndarray and not found.dtype.hasobject:
        chunks = array.chunks if found.shape == array.shape else None
        return FUNCTIONS["asarray"](found, chunks=chunks)
    return found


def _is_product(name: str, other: object) -> bool:
    """Whether ``*`` of an array and ``other`` is the product of matrices."""
    return name == "multiply" and isinstance(other, np.matrix)


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
            if name == "pow" and self.dtype == np.bool_ and type(other) is int and other == 2:
                return FUNCTIONS["square"](self)  # NumPy's operator does so: of dtype int8
            return FUNCTIONS["matmul" if _is_product(name, other) else name](self, other)
        if equality is not None and isinstance(other, _ELEMENTS):
            if self.dtype.names is not None:
                operator.eq(np.empty(0, self.dtype), other)  # raises NumPy's own error
            return FUNCTIONS["full_like"](self, equality, dtype=np.bool_)
        if isinstance(other, str | bytes):
            getattr(np, name)(np.empty(1, self.dtype), other)  # raises NumPy's own error
        array = _as_operand(other)
        if array is not None:
            return method(self, array)
        return _by_numpy(name, self, other)

    return method


def reflected(name: str) -> Method:
    """Make the method for ``other <operator> array``."""

    def method(self: Array, other: Any) -> Any:
        if repeats(name, self, other):
            return NotImplemented
        if is_operand(other):
            return FUNCTIONS["matmul" if _is_product(name, other) else name](other, self)
        array = _as_operand(other)
        return _by_numpy(name, self, other, True) if array is None else FUNCTIONS[name](array, self)

    return method


def in_place(name: str) -> Method:
    """Make the method for ``array <operator>= other``."""

    def method(self: Array, other: Any) -> Any:
        if not is_operand(other) and not isinstance(other, np.ma.MaskedArray):
            array = _as_operand(other)
            return NotImplemented if array is None else method(self, array)
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
            array = _as_operand(other)
            return NotImplemented if array is None else method(self, array)
        pair = (other, self) if reflected else (self, other)
        return FUNCTIONS["floor_divide"](*pair), FUNCTIONS["remainder"](*pair)

    return method
