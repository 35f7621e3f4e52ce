"""NumPy's protocols: ``np.mean(x)`` and ``np.add(x, y)`` of our arrays stay lazy and chunked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.mutation import ufunc_at

_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min",
               "logical_and": "all", "logical_or": "any"}  # fmt: skip


def _namespace() -> Any:
    import agentic_ray.array as namespace

    return namespace


def _lookup(name: str, module: str = "") -> Callable[..., Any] | None:
    space = _namespace()
    if module.startswith(("numpy.linalg", "numpy.fft")):
        space = getattr(space, module.split(".")[1])
    function = getattr(space, name, None)
    return function if callable(function) else None


def array_ufunc(ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """NumPy's ufunc over our arrays."""
    if method == "at":
        return _at(ufunc, inputs)
    known = set(kwargs) - {"axis", "keepdims", "dtype"}
    if method == "__call__" and not kwargs and ufunc.nout == 1:
        function = _lookup(ufunc.__name__)
        if function is not None and all(map(_is_operand, inputs)):
            return function(*inputs)
    elif method == "reduce" and not known and ufunc.__name__ in _REDUCTIONS:
        function = _lookup(_REDUCTIONS[ufunc.__name__])
        if function is not None:
            return function(inputs[0], **{"axis": 0, **kwargs})
    if kwargs.get("out") is not None and any(isinstance(out, Array) for out in kwargs["out"]):
        return _into(ufunc, method, inputs, kwargs)
    return getattr(ufunc, method)(*map(_as_numpy, inputs), **kwargs)


def _into(ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    rest = {name: value for name, value in kwargs.items() if name != "out"}
    (target,) = kwargs["out"]
    result = array_ufunc(ufunc, method, inputs, rest)
    return target._assign(result if isinstance(result, Array) else _namespace().asarray(result))


def _at(ufunc: Any, inputs: Sequence[Any]) -> None:
    target, *rest = inputs
    if isinstance(target, Array):
        return ufunc_at(ufunc, target, *rest)
    return ufunc.at(target, *map(_as_numpy, rest))  # type: ignore[no-any-return]


def _is_operand(value: Any) -> bool:
    return isinstance(value, Array | bool | int | float | complex | np.ndarray | np.generic)


def _as_numpy(value: Any) -> Any:
    if isinstance(value, Array):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_as_numpy, value))
    return value


def array_function(func: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's function over our arrays: ours if there is one, else NumPy's on the values."""
    function = _lookup(func.__name__, getattr(func, "__module__", "") or "")
    if function is not None:
        bound = _bound(func, function, args, kwargs)
        if bound is not None:
            return function(*bound[0], **bound[1])
    return func(*map(_as_numpy, args), **{name: _as_numpy(v) for name, v in kwargs.items()})


def _bound(func: Any, function: Any, args: Any, kwargs: Any) -> tuple[list[Any], Any] | None:
    """Arguments of NumPy's call as ours takes them; None if it has options that ours lacks."""
    try:
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        ours = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    named = {"ddof": "correction", "a": None, "array": None}
    positional = [
        p for p in ours.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    result: list[Any] = []
    rest: dict[str, Any] = {}
    defaults = inspect.signature(func).parameters
    for place, (name, value) in enumerate(given.items()):
        parameter = defaults[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            result.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            rest.update(value)
        elif name in ours and ours[name].kind is not inspect.Parameter.POSITIONAL_ONLY:
            rest[name] = value
        elif named.get(name) in ours:
            rest[str(named[name])] = value
        elif place < len(positional) and len(result) == place and not rest:
            result.append(value)
        elif value is not parameter.default:
            return None
    return result, rest
