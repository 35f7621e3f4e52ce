"""Elementwise functions: NumPy's ufuncs, one operation of kind ``map`` each.

Below them come functions of elements that are no ufuncs: where, clip, round and others; more are in
`special` and `selecting`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, overload

import numpy as np

from agentic_ray.array.array_object import Array, viewed
from agentic_ray.array.core.build import elementwise, operand, strict_operand
from agentic_ray.array.core.elements import ELEMENTWISE
from agentic_ray.array.core.node import Op
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.operators import FUNCTIONS
from agentic_ray.array.outputs import NO_VALUE, delivered, looked_at
from agentic_ray.array.ufuncs import Named, Part, Ufunc, plain_function
from agentic_ray.array.viewing import ComplexPart


def _tanh(xp: Any, x: Any) -> Any:
    """Compute NumPy's tanh, with the zeros at infinity signed as in the standard."""
    result = xp.tanh(x)
    if dtype_of(result).kind == "c":
        far = xp.isinf(xp.real(x)) & xp.isfinite(xp.imag(x))
        if xp.any(far):
            zero = xp.copysign(xp.zeros_like(xp.imag(x)), xp.imag(x))
            result = xp.array(result)
            result.imag = xp.where(far, zero, xp.imag(result))
    return result


def _expm1(xp: Any, x: Any) -> Any:
    """Compute NumPy's expm1, with a positive real zero at complex zero, as in the standard."""
    result = xp.expm1(x)
    if dtype_of(result).kind == "c":
        at_zero = xp.asarray(x) == 0
        if xp.any(at_zero):
            result = xp.array(result)
            result.real[at_zero] = 0.0
    return result


def _spacing(xp: Any, x: Any) -> Any:
    """Compute NumPy's spacing; in namespaces that lack it, from the next number away from zero."""
    if hasattr(xp, "spacing"):
        return xp.spacing(x)
    return xp.nextafter(x, xp.copysign(xp.full_like(x, np.inf), x)) - x


_KERNELS: dict[str, Callable[..., Any]] = {"tanh": _tanh, "expm1": _expm1, "spacing": _spacing}


def elementwise_op(name: str, numpy_name: str | None = None, weight: float = 1.0) -> Op:
    """Return the operation of one operand or two that ``numpy_name`` of a namespace computes."""
    kernel = _KERNELS.get(name) or Named(numpy_name or name)
    made = ELEMENTWISE[name] = Op(name, "map", kernel, weight=weight)
    return made


def _ufunc(name: str, numpy_name: str | None = None, weight: float = 1.0) -> Ufunc[Array]:
    """Make a ufunc of one result; ``name`` is that of its operation, as in the standard."""
    made: Ufunc[Array] = Ufunc(numpy_name or name, [elementwise_op(name, numpy_name, weight)])
    FUNCTIONS[name] = made.plain
    return made


def _pair(name: str, weight: float) -> Ufunc[tuple[Array, Array]]:
    """Make a ufunc of two results."""
    ops = [Op(f"{name}_{number}", "map", Part(name, number), weight=weight) for number in (0, 1)]
    return Ufunc(name, ops)


abs = _ufunc("abs", "absolute")
acos = _ufunc("acos", "arccos", 16)
acosh = _ufunc("acosh", "arccosh", 16)
asin = _ufunc("asin", "arcsin", 16)
asinh = _ufunc("asinh", "arcsinh", 16)
atan = _ufunc("atan", "arctan", 16)
atanh = _ufunc("atanh", "arctanh", 16)
bitwise_count = _ufunc("bitwise_count")
bitwise_invert = _ufunc("bitwise_invert", "invert")
cbrt = _ufunc("cbrt", weight=16)
ceil = _ufunc("ceil")
conj = _ufunc("conj")
cos = _ufunc("cos", weight=8)
cosh = _ufunc("cosh", weight=16)
deg2rad = _ufunc("deg2rad")
degrees = _ufunc("degrees")
exp = _ufunc("exp", weight=4)
exp2 = _ufunc("exp2", weight=8)
expm1 = _ufunc("expm1", weight=16)
fabs = _ufunc("fabs")
floor = _ufunc("floor")
frexp = _pair("frexp", 4)
isfinite = _ufunc("isfinite")
isinf = _ufunc("isinf")
isnan = _ufunc("isnan")
isnat = _ufunc("isnat")
log = _ufunc("log", weight=4)
log10 = _ufunc("log10", weight=8)
log1p = _ufunc("log1p", weight=16)
log2 = _ufunc("log2", weight=8)
logical_not = _ufunc("logical_not")
modf = _pair("modf", 4)
negative = _ufunc("negative")
positive = _ufunc("positive")
rad2deg = _ufunc("rad2deg")
radians = _ufunc("radians")
reciprocal = _ufunc("reciprocal")
rint = _ufunc("rint")
sign = _ufunc("sign")
signbit = _ufunc("signbit")
sin = _ufunc("sin", weight=8)
sinh = _ufunc("sinh", weight=16)
spacing = _ufunc("spacing", weight=4)
sqrt = _ufunc("sqrt", weight=2)
square = _ufunc("square")
tan = _ufunc("tan", weight=16)
tanh = _ufunc("tanh", weight=8)
trunc = _ufunc("trunc")

add = _ufunc("add")
atan2 = _ufunc("atan2", "arctan2", 16)
bitwise_and = _ufunc("bitwise_and")
bitwise_left_shift = _ufunc("bitwise_left_shift", "left_shift")
bitwise_or = _ufunc("bitwise_or")
bitwise_right_shift = _ufunc("bitwise_right_shift", "right_shift")
bitwise_xor = _ufunc("bitwise_xor")
copysign = _ufunc("copysign")
divide = _ufunc("divide", weight=2)
divmod = _pair("divmod", 8)
equal = _ufunc("equal")
float_power = _ufunc("float_power", weight=16)
floor_divide = _ufunc("floor_divide", weight=8)
fmax = _ufunc("fmax")
fmin = _ufunc("fmin")
fmod = _ufunc("fmod", weight=8)
gcd = _ufunc("gcd", weight=16)
greater = _ufunc("greater")
greater_equal = _ufunc("greater_equal")
heaviside = _ufunc("heaviside")
hypot = _ufunc("hypot", weight=8)
lcm = _ufunc("lcm", weight=16)
ldexp = _ufunc("ldexp", weight=4)
less = _ufunc("less")
less_equal = _ufunc("less_equal")
logaddexp = _ufunc("logaddexp", weight=16)
logaddexp2 = _ufunc("logaddexp2", weight=16)
logical_and = _ufunc("logical_and")
logical_or = _ufunc("logical_or")
logical_xor = _ufunc("logical_xor")
maximum = _ufunc("maximum")
minimum = _ufunc("minimum")
multiply = _ufunc("multiply")
nextafter = _ufunc("nextafter", weight=4)
not_equal = _ufunc("not_equal")
pow = _ufunc("pow", "power", 16)
remainder = _ufunc("remainder", weight=8)
subtract = _ufunc("subtract")

# Other names of the same functions, in NumPy or the standard.
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

_power_of_any = pow.plain


def _power(x1: Any, x2: Any) -> Array:
    """Raise ``x1`` to the power ``x2``; refuse negative powers of integers at the call, so that
    ``x **= -1`` leaves ``x`` as it is."""
    result: Array = _power_of_any(x1, x2)
    if result.dtype.kind != "i" or not result.size:
        return result
    if isinstance(x2, int):
        np.power(np.ones(1, result.dtype), x2)  # raises NumPy's own error
        return result
    return looked_at(result)


pow.plain = _power

# --- not ufuncs in NumPy -----------------------------------------------------------------

for _part in ("real", "imag"):
    elementwise_op(_part)

_WHERE = Op("where", "map", Named("where"))
_ROUND = Op("round", "map", Named("round"))


def real(val: Any) -> Array:
    """Return the real part: a view of an `Array`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.real(xp.asarray([1 + 2j, 3]))
    Array([1., 3.], dtype=float64)
    """
    return viewed(val, ComplexPart("real"))


def imag(val: Any) -> Array:
    """Return the imaginary part: a view of an `Array`; zeros for real numbers."""
    return viewed(val, ComplexPart("imag"))


@overload
def where(condition: Any, /) -> tuple[Array, ...]: ...
@overload
def where(condition: Any, x: Any, y: Any, /) -> Array: ...
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """Take ``x`` where ``condition`` holds, else ``y``; without them return the positions where it
    holds.

    Raises
    ------
    ValueError
        Only one of ``x`` and ``y`` is given.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.asarray([-1, 2, -3])
    >>> xp.where(x > 0, x, 0)
    Array([0, 2, 0], dtype=int64)
    """
    if x is None or y is None:
        if x is None and y is None:
            return FUNCTIONS["nonzero"](condition)
        raise ValueError("either both or neither of x and y should be given")
    return Array(elementwise(_WHERE, [operand(condition), operand(x), operand(y)]))


def round(a: Any, decimals: int = 0, out: Any = None) -> Array:
    """Round to ``decimals`` places, halves to even.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.round(xp.asarray([0.5, 1.25, 2.75]), 1)
    Array([0.5, 1.2, 2.8], dtype=float64)
    """
    nodes = [strict_operand(a)]
    if decimals:
        nodes.append(operand(operator.index(decimals)))
    result = Array(elementwise(_ROUND, nodes))
    return result if out is None else delivered(result, out)


around = round


def fix(x: Any, out: Any = None) -> Any:
    """Round towards zero, as `trunc`."""
    return trunc(x, out=out)


def _clip_kernel(xp: Any, x: Any, low: Any, high: Any) -> Any:
    return xp.minimum(xp.maximum(x, low), high)


_CLIP = Op("clip", "map", _clip_kernel, weight=2)


def clip(
    a: Any,
    min: Any = NO_VALUE,
    max: Any = NO_VALUE,
    out: Any = None,
    *,
    a_min: Any = NO_VALUE,
    a_max: Any = NO_VALUE,
    **kwargs: Any,
) -> Any:
    """Limit ``a`` to ``min`` … ``max``, either of which may be None or missing.

    Parameters
    ----------
    a : array_like
    min, max : array_like or None
        Bounds; ``a_min`` and ``a_max`` are NumPy's other names for them.
    out : array, optional
    **kwargs
        Arguments of ufuncs: ``where``, ``dtype``, ``casting``.

    Raises
    ------
    ValueError
        A bound is given by both of its names.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.clip(xp.arange(6), 1, 3)
    Array([1, 1, 2, 3, 3, 3], dtype=int64)
    """
    if a_min is not NO_VALUE or a_max is not NO_VALUE:
        if min is not NO_VALUE or max is not NO_VALUE:
            raise ValueError(
                "Passing `min` or `max` keyword argument when `a_min` and `a_max` are provided is "
                "forbidden."
            )
        if a_min is NO_VALUE or a_max is NO_VALUE:
            name = "a_min" if a_min is NO_VALUE else "a_max"
            raise TypeError(f"clip() missing 1 required positional argument: {name!r}")
        min, max = a_min, a_max
    a_min = None if min is NO_VALUE else min
    a_max = None if max is NO_VALUE else max
    node = strict_operand(a)
    if node.dtype.kind in "iu":  # a Python integer that the dtype cannot hold limits nothing
        limits = np.iinfo(node.dtype)
        a_min = None if type(a_min) is int and a_min <= limits.min else a_min
        a_max = None if type(a_max) is int and a_max >= limits.max else a_max
    if out is not None:
        kwargs["out"] = out
    x = Array(node)
    if a_min is None and a_max is None:
        return positive(x, **kwargs)
    if a_min is None:
        return minimum(x, a_max, **kwargs)
    if a_max is None:
        return maximum(x, a_min, **kwargs)
    if not kwargs:
        return Array(elementwise(_CLIP, [node, operand(a_min), operand(a_max)]))
    loop = {name: kwargs[name] for name in ("dtype", "casting") if name in kwargs}
    return minimum(maximum(x, a_min, **loop), a_max, **kwargs)


def _equal_records_kernel(xp: Any, a: Any, b: Any) -> Any:
    return a == b


def _unequal_records_kernel(xp: Any, a: Any, b: Any) -> Any:
    return a != b


# NumPy's ufuncs know no records, its operators do.
for _name, _kernel in (("equal", _equal_records_kernel), ("not_equal", _unequal_records_kernel)):
    FUNCTIONS[f"{_name}_records"] = plain_function((Op(f"{_name}_records", "map", _kernel),), 2)


def _isclose_kernel(xp: Any, a: Any, b: Any, rtol: Any, atol: Any, equal_nan: bool) -> Any:
    return xp.isclose(a, b, rtol, atol, equal_nan)


_ISCLOSE = Op("isclose", "map", _isclose_kernel, weight=8)


def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Array:
    """Whether ``|a - b| <= atol + rtol |b|``, element by element.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.isclose([1e10, 1e-7], [1.00001e10, 1e-8])
    Array([ True, False], dtype=bool)
    """
    nodes = [operand(a), operand(b), operand(rtol), operand(atol)]
    return Array(elementwise(_ISCLOSE, nodes, (bool(equal_nan),)))


def _nan_to_num(xp: Any, x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    return xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


_NAN_TO_NUM = Op("nan_to_num", "map", _nan_to_num, weight=4)


def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Array:
    """Replace NaN and infinities in ``x`` by finite numbers.

    Parameters
    ----------
    x : array_like
    copy : bool
        False: assign the result to ``x`` and return it.
    nan, posinf, neginf : number
        Replacements; for infinities by default the largest finite numbers.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.nan_to_num([xp.nan, 1.0, -xp.inf], nan=-1.0, neginf=0.0)
    Array([-1.,  1.,  0.], dtype=float64)
    """
    params = tuple(
        value.item() if isinstance(value, Array | np.ndarray | np.generic) else value
        for value in (nan, posinf, neginf)
    )
    result = Array(elementwise(_NAN_TO_NUM, [strict_operand(x)], params))
    if copy or not isinstance(x, Array | np.ndarray):
        return result
    return result if isinstance(x, Array) and x._is_scalar else delivered(result, x)
