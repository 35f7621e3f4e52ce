"""Elementwise functions. Each is one operation of kind ``map`` over a NumPy ufunc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import elementwise, operand
from agentic_ray.array.core.elements import ELEMENTWISE
from agentic_ray.array.core.node import Op
from agentic_ray.array.core.standard import cast, dtype_of
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.errors import InvalidTypeError


@dataclass(frozen=True, slots=True)
class Ufunc:
    """A function of the array namespace, called by name."""

    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, xp: Any, *values: Any) -> Any:
        return getattr(xp, self.name)(*values)


def _tanh(xp: Any, x: Any) -> Any:
    """NumPy's, with the zeros at infinity signed as the standard has them."""
    result = xp.tanh(x)
    if dtype_of(result).kind == "c":
        far = xp.isinf(xp.real(x)) & xp.isfinite(xp.imag(x))
        if xp.any(far):
            zero = xp.copysign(xp.zeros_like(xp.imag(x)), xp.imag(x))
            result = xp.array(result)
            result.imag = xp.where(far, zero, xp.imag(result))
    return result


def _expm1(xp: Any, x: Any) -> Any:
    """NumPy's, with a positive real zero at complex zero, as the standard has it."""
    result = xp.expm1(x)
    if dtype_of(result).kind == "c":
        at_zero = xp.asarray(x) == 0
        if xp.any(at_zero):
            result = xp.array(result)
            result.real[at_zero] = 0.0
    return result


_KERNELS: dict[str, Callable[..., Any]] = {"tanh": _tanh, "expm1": _expm1}


def _op(name: str, numpy_name: str | None = None, weight: float = 1.0) -> Op:
    kernel = _KERNELS.get(name) or Ufunc(numpy_name or name)
    made = ELEMENTWISE[name] = Op(name, "map", kernel, weight=weight)
    return made


def _unary(name: str, numpy_name: str | None = None, weight: float = 1.0) -> Callable[[Any], Array]:
    op = _op(name, numpy_name, weight)

    def function(x: Any, /) -> Array:
        return Array(elementwise(op, [operand(x)]))

    _name(function, name, f"Elementwise ``{name}``, as in the array API standard.")
    FUNCTIONS[name] = function
    return function


def _binary(
    name: str, numpy_name: str | None = None, weight: float = 1.0
) -> Callable[[Any, Any], Array]:
    op = _op(name, numpy_name, weight)

    def function(x1: Any, x2: Any, /) -> Array:
        return Array(elementwise(op, [operand(x1), operand(x2)]))

    _name(function, name, f"Elementwise ``{name}`` with broadcasting, as in the standard.")
    FUNCTIONS[name] = function
    return function


def _name(function: Any, name: str, text: str) -> None:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text


abs = _unary("abs", "absolute")
acos = _unary("acos", "arccos", 16)
acosh = _unary("acosh", "arccosh", 16)
asin = _unary("asin", "arcsin", 16)
asinh = _unary("asinh", "arcsinh", 16)
atan = _unary("atan", "arctan", 16)
atanh = _unary("atanh", "arctanh", 16)
bitwise_invert = _unary("bitwise_invert", "invert")
cbrt = _unary("cbrt", weight=16)
ceil = _unary("ceil")
conj = _unary("conj")
cos = _unary("cos", weight=8)
cosh = _unary("cosh", weight=16)
deg2rad = _unary("deg2rad")
exp = _unary("exp", weight=4)
exp2 = _unary("exp2", weight=8)
expm1 = _unary("expm1", weight=16)
fabs = _unary("fabs")
floor = _unary("floor")
imag = _unary("imag")
isfinite = _unary("isfinite")
isinf = _unary("isinf")
isnan = _unary("isnan")
log = _unary("log", weight=4)
log10 = _unary("log10", weight=8)
log1p = _unary("log1p", weight=16)
log2 = _unary("log2", weight=8)
logical_not = _unary("logical_not")
negative = _unary("negative")
positive = _unary("positive")
rad2deg = _unary("rad2deg")
real = _unary("real")
reciprocal = _unary("reciprocal")
sign = _unary("sign")
signbit = _unary("signbit")
sin = _unary("sin", weight=8)
sinh = _unary("sinh", weight=16)
sqrt = _unary("sqrt", weight=2)
square = _unary("square")
tan = _unary("tan", weight=16)
tanh = _unary("tanh", weight=8)
trunc = _unary("trunc")

add = _binary("add")
atan2 = _binary("atan2", "arctan2", 16)
bitwise_and = _binary("bitwise_and")
bitwise_left_shift = _binary("bitwise_left_shift", "left_shift")
bitwise_or = _binary("bitwise_or")
bitwise_right_shift = _binary("bitwise_right_shift", "right_shift")
bitwise_xor = _binary("bitwise_xor")
copysign = _binary("copysign")
divide = _binary("divide", weight=2)
equal = _binary("equal")
floor_divide = _binary("floor_divide", weight=8)
fmax = _binary("fmax")
fmin = _binary("fmin")
fmod = _binary("fmod", weight=8)
greater = _binary("greater")
greater_equal = _binary("greater_equal")
hypot = _binary("hypot", weight=8)
less = _binary("less")
less_equal = _binary("less_equal")
logaddexp = _binary("logaddexp", weight=16)
logical_and = _binary("logical_and")
logical_or = _binary("logical_or")
logical_xor = _binary("logical_xor")
maximum = _binary("maximum")
minimum = _binary("minimum")
multiply = _binary("multiply")
nextafter = _binary("nextafter", weight=4)
not_equal = _binary("not_equal")
pow = _binary("pow", "power", 16)
remainder = _binary("remainder", weight=8)
subtract = _binary("subtract")

# NumPy's names for the same
absolute = abs
arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh = (
    acos, acosh, asin, asinh, atan, atan2, atanh
)  # fmt: skip
conjugate = conj
invert = bitwise_not = bitwise_invert
left_shift, right_shift = bitwise_left_shift, bitwise_right_shift
mod = remainder
power = pow
true_divide = divide

_WHERE = Op("where", "map", Ufunc("where"))
_ROUND = Op("round", "map", Ufunc("round"))
_ISCLOSE = Op("isclose", "map", Ufunc("isclose"), weight=8)


def round(x: Any, /, decimals: int = 0) -> Array:
    """Elementwise rounding to even, to ``decimals`` places."""
    if decimals == 0:
        return Array(elementwise(_ROUND, [operand(x)]))
    return Array(elementwise(_ROUND, [operand(x), operand(decimals)]))


def where(condition: Any, x1: Any, x2: Any, /) -> Array:
    """``x1`` where ``condition`` holds, else ``x2``."""
    return Array(elementwise(_WHERE, [operand(condition), operand(x1), operand(x2)]))


def _clip_kernel(xp: Any, x: Any, low: Any, high: Any, dtype: np.dtype[Any]) -> Any:
    # The bounds need not fit x's dtype: compared as they are, then cast.
    result = x
    if low is not None:
        result = xp.maximum(result, low)
    if high is not None:
        result = xp.minimum(result, high)
    return cast(xp, result, dtype)


def _clip_low(xp: Any, x: Any, low: Any, dtype: np.dtype[Any]) -> Any:
    return _clip_kernel(xp, x, low, None, dtype)


def _clip_high(xp: Any, x: Any, high: Any, dtype: np.dtype[Any]) -> Any:
    return _clip_kernel(xp, x, None, high, dtype)


_CLIP = Op("clip", "map", _clip_kernel, weight=2)
_CLIP_LOW = Op("clip", "map", _clip_low)
_CLIP_HIGH = Op("clip", "map", _clip_high)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Array:
    """``x`` limited to ``min`` … ``max``, either of which may be missing; in ``x``'s dtype."""
    node = operand(x)
    if node.op.kind == "literal":
        raise InvalidTypeError("clip expects an array, not a Python scalar")
    bounds = [_bound(value, node.dtype) for value in (min, max)]
    low, high = bounds
    if low is None and high is None:
        return Array(node)
    if low is None:
        return Array(elementwise(_CLIP_HIGH, [node, high], (node.dtype,)))
    if high is None:
        return Array(elementwise(_CLIP_LOW, [node, low], (node.dtype,)))
    return Array(elementwise(_CLIP, [node, low, high], (node.dtype,)))


def _bound(value: Any, dtype: np.dtype[Any]) -> Any:
    """A bound as an operand; an integer outside the dtype's range is limited to the range."""
    if value is None:
        return None
    if dtype.kind in "iu" and isinstance(value, int) and not isinstance(value, bool):
        limits = np.iinfo(dtype)
        value = int(limits.min) if value < limits.min else int(limits.max) if (
            value > limits.max) else value  # fmt: skip
    return operand(value)


def isclose(
    a: Any, b: Any, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Array:
    """Whether elements are equal within a tolerance, as in NumPy."""
    if equal_nan:
        both = logical_and(isnan(a), isnan(b))
        return logical_or(both, isclose(a, b, rtol, atol))
    return Array(elementwise(_ISCLOSE, [operand(a), operand(b), operand(rtol), operand(atol)]))


def nan_to_num(x: Any, /, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Array:
    """``x`` with NaN and infinities replaced by finite numbers, as in NumPy."""
    return Array(elementwise(_NAN_TO_NUM, [operand(x)], (nan, posinf, neginf)))


def _nan_to_num(xp: Any, x: Any, nan: float, posinf: Any, neginf: Any) -> Any:
    return xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


_NAN_TO_NUM = Op("nan_to_num", "map", _nan_to_num, weight=4)
