"""NumPy's protocols: ``np.mean(x)`` and ``np.add(x, y)`` of our arrays stay lazy and chunked.

A call of a NumPy function goes to the function of the same name here, with the very arguments:
signatures are NumPy's. If there is none, or it refuses arguments that NumPy may take, NumPy's own
is called over the values. Arrays are never written to behind a reader's back: NumPy gets read-only
values, and values that it writes to ``out`` are assigned.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.linalg.decompositions import numpy_eig, numpy_eigvals
from agentic_ray.array.mutation import ufunc_at
from agentic_ray.array.operators import has_own_turn
from agentic_ray.array.ufuncs import Ufunc
from agentic_ray.errors import AgenticRayError

_SPACES = {
    "numpy": "",
    "numpy.linalg": "linalg",
    "numpy.fft": "fft",
    "numpy.lib.stride_tricks": "lib.stride_tricks",
}
_IN_NUMPYS_DTYPE: dict[Any, Callable[..., Any]] = {
    np.linalg.eig: numpy_eig,
    np.linalg.eigvals: numpy_eigvals,
}
"""NumPy functions whose results have another dtype than those of the same name here."""
_WRITING = frozenset({"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"})
"""Functions that write to their first argument: NumPy's own would write to a copy of the values."""


def _namespace() -> Any:
    import agentic_ray.array as namespace  # the package that this module is part of

    return namespace


@functools.lru_cache(maxsize=1024)
def _own(func: Any) -> Callable[..., Any] | None:
    """Return the function here that stands for one of NumPy's."""
    if func in _IN_NUMPYS_DTYPE:
        return _IN_NUMPYS_DTYPE[func]
    part = _SPACES.get(getattr(func, "__module__", None) or "")
    if isinstance(func, np.ufunc):
        part = "" if getattr(np, func.__name__, None) is func else None
    if part is None:
        return None
    space = operator.attrgetter(part)(_namespace()) if part else _namespace()
    found = getattr(space, func.__name__, None)
    return found if callable(found) else None


@functools.lru_cache(maxsize=1024)
def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _takes(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether ``function`` can be called with these arguments."""
    signature = _signature(function)
    if signature is None:
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


# --- ufuncs ------------------------------------------------------------------------------


def array_ufunc(ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call NumPy's ufunc, or a method of it, on our arrays."""
    outs = kwargs.get("out") or ()
    if any(_has_own_turn(value) for value in (*inputs, *outs)):
        return NotImplemented
    if method == "at" and isinstance(inputs[0], Array):
        target, indices, *values = inputs
        return ufunc_at(ufunc, target, indices, *values)
    ours = _own(ufunc)
    function: Any = None
    if isinstance(ours, Ufunc):
        function = ours if method == "__call__" else getattr(ours, method)
    elif ours is not None and method == "__call__" and _takes(ours, inputs, kwargs):
        function = ours
    if function is not None:
        try:
            return function(*inputs, **kwargs)
        except AgenticRayError:
            pass  # not for arrays in chunks: NumPy's own over the values may know better
    return _over_values(getattr(ufunc, method), inputs, kwargs)


def _has_own_turn(value: Any) -> bool:
    """Whether ``value`` is of a type that handles ufuncs of our arrays itself."""
    return has_own_turn(value) and not isinstance(value, np.ma.MaskedArray)


# --- functions ---------------------------------------------------------------------------


def array_function(func: Any, args: Any, kwargs: Any) -> Any:
    """Call NumPy's function on our arrays."""
    function = _own(func)
    if function is not None and (func.__name__ in _WRITING or _takes(function, args, kwargs)):
        try:
            return function(*args, **kwargs)
        except AgenticRayError:
            if func.__name__ in _WRITING:
                raise
    result = _over_values(func, args, kwargs)
    if isinstance(result, np.ndarray) and not any(map(_has_array, (*args, *kwargs.values()))):
        return _namespace().asarray(result)  # called for its ``like=``
    return result


def _has_array(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_array, value))
    return isinstance(value, Array)


# --- NumPy's own -------------------------------------------------------------------------


def _over_values(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call NumPy's ``func`` over the values of our arrays; assign the values written to ``out``."""
    args, kwargs = list(args), dict(kwargs)
    signature = _signature(func)
    if "out" not in kwargs and signature is not None:
        names = list(signature.parameters)
        place = names.index("out") if "out" in names else len(args)
        if place < len(args) and not any(
            p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()
        ):
            kwargs["out"] = args[place]
            args[place] = None
            if place == len(args) - 1:
                args.pop()
    out = kwargs.pop("out", None)
    targets = out if isinstance(out, tuple) else (out,)
    if not any(isinstance(target, Array) for target in targets):
        if out is not None:
            kwargs["out"] = out
        return func(*map(_values, args), **{name: _values(v) for name, v in kwargs.items()})
    made = tuple([np.array(t) if isinstance(t, Array) else t for t in targets])
    kwargs = {name: _values(value) for name, value in kwargs.items()}
    result = func(*map(_values, args), **kwargs, out=made if isinstance(out, tuple) else made[0])
    for target, written in zip(targets, made, strict=True):
        if isinstance(target, Array):
            target[...] = written
    results = result if isinstance(result, tuple) else (result,)
    back = [next((t for t, w in zip(targets, made, strict=True) if w is one), one)
            for one in results]  # fmt: skip
    return tuple(back) if isinstance(result, tuple) else back[0]


def _values(value: Any) -> Any:
    """Replace our arrays in ``value`` by NumPy's, which cannot be written to."""
    if isinstance(value, Array):
        found = np.asarray(value)
        found.flags.writeable = False
        return found
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(_values, value))
    return value
