"""Elementwise functions that NumPy builds on ufuncs: sinc, angle, isreal and others."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import elementwise, strict_operand
from agentic_ray.array.core.node import Op
from agentic_ray.array.elementwise import abs, imag, less
from agentic_ray.array.outputs import delivered
from agentic_ray.array.statistics import all
from agentic_ray.array.ufuncs import Named

_SINC = Op("sinc", "map", Named("sinc"), weight=16)
_I0 = Op("i0", "map", Named("i0"), weight=64)
_ISREAL = Op("isreal", "map", Named("isreal"))
_ISCOMPLEX = Op("iscomplex", "map", Named("iscomplex"))
_ISPOSINF = Op("isposinf", "map", Named("isposinf"), weight=2)
_ISNEGINF = Op("isneginf", "map", Named("isneginf"), weight=2)


def _angle_kernel(xp: Any, z: Any, deg: bool) -> Any:
    return xp.angle(z, deg=deg)


_ANGLE = Op("angle", "map", _angle_kernel, weight=16)


def _of_one(op: Op, x: Any, *params: Any) -> Array:
    return Array(elementwise(op, [strict_operand(x)], params))


def sinc(x: Any) -> Array:
    """Compute ``sin(pi x) / (pi x)``, 1 at zero.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.sinc([0.0, 0.5])
    Array([1.        , 0.63661977], dtype=float64)
    """
    return _of_one(_SINC, x)


def i0(x: Any) -> Array:
    """Compute the modified Bessel function of the first kind, of order 0.

    Raises
    ------
    TypeError
        ``x`` is complex.
    """
    return _of_one(_I0, x)


def angle(z: Any, deg: bool = False) -> Array:
    """Return the angle of complex numbers in the plane, in radians, or in degrees if ``deg``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.angle([1.0, 1.0j, -1.0], deg=True)
    Array([  0.,  90., 180.], dtype=float64)
    """
    return _of_one(_ANGLE, z, bool(deg))


def isreal(x: Any) -> Array:
    """Whether each element has no imaginary part."""
    return _of_one(_ISREAL, x)


def iscomplex(x: Any) -> Array:
    """Whether each element has an imaginary part that is not zero."""
    return _of_one(_ISCOMPLEX, x)


def isrealobj(x: Any) -> bool:
    """Whether ``x`` is of a real type, whatever its values."""
    return not iscomplexobj(x)


def iscomplexobj(x: Any) -> bool:
    """Whether ``x`` is of a complex type, whatever its values."""
    return strict_operand(x).dtype.kind == "c"


def isposinf(x: Any, out: Any = None) -> Array:
    """Whether each element is positive infinity.

    Raises
    ------
    TypeError
        ``x`` is complex.
    """
    return delivered(_of_one(_ISPOSINF, x), out, "unsafe", broadcasts=True)


def isneginf(x: Any, out: Any = None) -> Array:
    """Whether each element is negative infinity.

    Raises
    ------
    TypeError
        ``x`` is complex.
    """
    return delivered(_of_one(_ISNEGINF, x), out, "unsafe", broadcasts=True)


def real_if_close(a: Any, tol: float = 100) -> Any:
    """Return the real part of ``a`` if all imaginary parts are close to zero, else ``a``.

    The data are computed: they decide which of the two it is.

    Parameters
    ----------
    a : array_like
    tol : float
        Tolerance: in machine epsilons if above 1, else absolute.
    """
    node = strict_operand(a)
    x = a if isinstance(a, Array) else Array(node, is_cell=True)
    if node.dtype.kind != "c":
        return x
    if tol > 1:
        tol = float(np.finfo(node.dtype).eps) * tol
    return x.real if bool(all(less(abs(imag(x)), tol))) else x
