"""``array_expression`` and ``matmul``: arrays, and a small JSON expression over named functions.

An expression is a number, the name of an array, or a list of a function's name and its arguments:
``["sum", ["multiply", "x", "x"]]``. Arrays are of float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

import numpy as np
from pydantic import AfterValidator, ConfigDict, with_config
from typing_extensions import TypedDict

from agentic_ray.errors import InvalidParametersError
from agentic_ray.master.named.uploads import UploadParams, whole_array

_ONE: Final = (
    "abs", "negative", "sqrt", "square", "exp", "expm1", "log", "log1p", "log2", "log10", "sin",
    "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "floor", "ceil", "round", "sign",
)  # fmt: skip
_TWO: Final = (
    "add", "subtract", "multiply", "divide", "minimum", "maximum", "less", "less_equal", "greater",
    "greater_equal", "equal", "not_equal", "matmul", "pow", "hypot", "atan2",
)  # fmt: skip
_ALL_OF: Final = ("sum", "mean", "min", "max", "std", "var", "prod")

_MOST_NODES: Final = 1000
_DEEPEST: Final = 50
_LARGEST: Final = sys.float_info.max
_MOST_ELEMENTS: Final = 10_000_000
"""Of a result, which is sent as JSON."""


@with_config(ConfigDict(extra="forbid"))
class ExpressionParams(TypedDict):
    """Parameters of ``array_expression``: arrays by name, and what to make of them."""

    arrays: dict[str, list[Any] | float | UploadParams]
    expression: Any


@with_config(ConfigDict(extra="forbid"))
class MatmulParams(TypedDict):
    """Parameters of ``matmul``: two matrices."""

    a: list[Any] | UploadParams
    b: list[Any] | UploadParams


def check_expression(node: Any, arrays: Collection[str]) -> None:
    """Check an expression before any array is read: its functions, names and numbers. Pure.

    Raises
    ------
    InvalidParametersError
        Says which function, array or number of arguments is wrong.
    """
    left = [(node, 0)]
    seen = 0
    while left:
        node, depth = left.pop()
        seen += 1
        if seen > _MOST_NODES or depth > _DEEPEST:
            raise InvalidParametersError(
                f"an expression has up to {_MOST_NODES} parts, nested {_DEEPEST} deep"
            )
        if isinstance(node, bool) or node is None or isinstance(node, dict):
            raise InvalidParametersError(f"not an expression: {str(node)[:60]}")
        if isinstance(node, str):
            if node not in arrays:
                raise InvalidParametersError(f"no array {node[:60]!r} is given")
        elif isinstance(node, list):
            if not node or not isinstance(node[0], str):
                raise InvalidParametersError("a list must begin with the name of a function")
            left += [(each, depth + 1) for each in _arguments(node[0], node[1:])]
        elif not -_LARGEST <= node <= _LARGEST:
            raise InvalidParametersError("a number is out of range")


def _arguments(name: str, given: list[Any]) -> list[Any]:
    """The arguments of a function that are expressions, if it has as many as it takes."""
    if name in _ALL_OF:
        if len(given) not in (1, 2):
            raise InvalidParametersError(f"{name} has an array and, if wished, an axis")
        axis = given[1] if len(given) == 2 else None
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise InvalidParametersError(f"{name}: an axis is a whole number")
        return given[:1]
    wanted = 1 if name in _ONE or name == "transpose" else 2 if name in _TWO else 3
    if wanted == 3 and name != "where":
        raise InvalidParametersError(f"there is no function {name[:60]!r}")
    if len(given) != wanted:
        raise InvalidParametersError(f"{name} has {wanted} arguments, not {len(given)}")
    return given


def _sound(params: ExpressionParams) -> ExpressionParams:
    check_expression(params["expression"], params["arrays"])
    return params


def array_expression(params: Annotated[ExpressionParams, AfterValidator(_sound)]) -> Any:
    """Evaluate an expression over arrays: a number, or an array as lists.

    Functions of one argument: abs, negative, sqrt, square, exp, expm1, log, log1p, log2, log10,
    sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, floor, ceil, round, sign, transpose. Of two:
    add, subtract, multiply, divide, minimum, maximum, less, less_equal, greater, greater_equal,
    equal, not_equal, matmul, pow, hypot, atan2. Of three: where. Reductions of one argument and,
    if wished, an axis: sum, mean, min, max, std, var, prod.
    """
    # imported when first run: importing this module must not start to load Ray
    import agentic_ray.array as xp

    arrays = {
        name: xp.asarray(_floats(whole_array(given))) for name, given in params["arrays"].items()
    }
    made = _Evaluation(xp, arrays).value(params["expression"])
    if not hasattr(made, "shape"):
        return made
    if int(np.prod(made.shape, dtype=np.int64)) > _MOST_ELEMENTS:
        raise InvalidParametersError(
            f"the result has shape {tuple(made.shape)}, and may have {_MOST_ELEMENTS:,} elements"
        )
    return np.asarray(made)


def matmul(params: MatmulParams) -> Any:
    """The product of two matrices of numbers, as lists, in float64."""
    import agentic_ray.array as xp

    a, b = (_floats(whole_array(params[name])) for name in ("a", "b"))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise InvalidParametersError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    if a.shape[0] * b.shape[1] > _MOST_ELEMENTS:
        raise InvalidParametersError(f"the result may have {_MOST_ELEMENTS:,} elements")
    return np.asarray(xp.matmul(xp.asarray(a), xp.asarray(b)))


class _Evaluation:
    """The evaluation of an expression that was checked. Each name is looked up in a fixed list."""

    def __init__(self, xp: Any, arrays: Mapping[str, Any]) -> None:
        self._xp = xp
        self._arrays = arrays

    def value(self, node: Any) -> Any:
        if isinstance(node, str):
            return self._arrays[node]
        if not isinstance(node, list):
            return float(node)
        name, arguments = node[0], node[1:]
        if name in _ALL_OF:
            return self._reduced(name, arguments)
        values = [self.value(each) for each in arguments]
        if not any(hasattr(each, "shape") for each in values):
            values[0] = self._xp.asarray(values[0])
        if name == "transpose":
            return values[0].T
        function: Callable[..., Any] = getattr(self._xp, name)
        try:
            return function(*values)
        except (ValueError, TypeError) as error:
            raise InvalidParametersError(f"{name}: {error}") from error

    def _reduced(self, name: str, arguments: list[Any]) -> Any:
        axis = arguments[1] if len(arguments) == 2 else None
        array = self.value(arguments[0])
        array = array if hasattr(array, "shape") else self._xp.asarray(array)
        if axis is not None and not -array.ndim <= axis < array.ndim:
            raise InvalidParametersError(f"{name}: there is no axis {axis} of {array.ndim}")
        return getattr(self._xp, name)(array, axis=axis)


def _floats(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    try:
        return array.astype(np.float64)
    except OverflowError as error:
        raise InvalidParametersError(f"a number is out of range: {error}") from None
