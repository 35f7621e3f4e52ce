"""Calls NumPy's own functions on small arrays, at the call, in place of functions of many steps.

An array that fits one small chunk is computed in the caller's process whenever it is. If a function
takes a dozen operations here, making and running their nodes would take several times as long as
NumPy's function over the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import check_numbers, leaf
from agentic_ray.array.core.node import Node, topological

Function = TypeVar("Function", bound=Callable[..., Any])


def by_numpy_if_small(function: Function) -> Function:
    """Decorator: call NumPy's function of this name if all arrays are small and no array is written
    to.

    NumPy must have each parameter that is used, and the result must be new (as it is not with
    ``copy=False``).
    """
    own: Callable[..., Any] = getattr(np, function.__name__)
    known = frozenset(inspect.signature(own).parameters)
    names = list(inspect.signature(function).parameters)
    place = names.index("out") if "out" in names else len(names)

    @functools.wraps(function)
    def choose(*args: Any, **kwargs: Any) -> Any:
        if (
            kwargs.keys() <= known
            and kwargs.get("out") is None
            and kwargs.get("copy", True)
            and (len(args) <= place or args[place] is None)
        ):
            values = _values((*args, *kwargs.values()))
            if values is not None:
                count = len(args)
                options = dict(zip(kwargs, values[count:], strict=True))
                try:
                    result = own(*values[:count], **options)
                except ValueError:
                    function(*args, **kwargs)  # ours for chunks may raise a clearer error
                    raise
                if not any(result is value for value in values):
                    return _result(result)
        return function(*args, **kwargs)

    return cast(Function, choose)


class _NotSmall(Exception):
    """An array among the arguments is not small, or is not to be computed at the call."""


def _values(given: tuple[Any, ...]) -> list[Any] | None:
    """Replace arrays in arguments, and in lists of them, by NumPy's; None if there is no array, or
    one that is not small."""
    try:
        found = [_value(value) for value in given]
    except _NotSmall:
        return None
    return found if any(new is not old for new, old in zip(found, given, strict=True)) else None


def _value(value: Any) -> Any:
    """Return NumPy's array for an array of ours, and for a list with such arrays a list of NumPy's;
    other values as they are.

    Raises
    ------
    _NotSmall
        An array is large, or belongs on a GPU; or it depends on a user's function, which is called
        only when values are asked for.
    """
    if isinstance(value, Array):
        node = value._node
        if not node.small or node.device != "cpu" or _is_of_user(node):
            raise _NotSmall
        return evaluate.value(node)
    if isinstance(value, list | tuple) and not all(map(_is_plain, value)):
        return type(value)(map(_value, value)) if type(value) in (list, tuple) else value
    return value


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | np.generic | np.ndarray | str)


def _is_of_user(node: Node) -> bool:
    return node.value is None and any(source.op.of_user for source in topological([node]))


def _result(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_result, value))
    array = np.asarray(value)
    check_numbers(array.dtype)
    return Array(leaf(array))
