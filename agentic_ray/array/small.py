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
            args
            and isinstance(args[0], Array)
            and args[0]._node.small
            and kwargs.keys() <= known
            and kwargs.get("out") is None
            and kwargs.get("copy", True)
            and (len(args) <= place or args[place] is None)
        ):
            values = _values((*args, *kwargs.values()))
            if values is not None:
                count = len(args)
                options = dict(zip(kwargs, values[count:], strict=True))
                try:
                    return _result(own(*values[:count], **options))
                except ValueError:
                    function(*args, **kwargs)  # ours for chunks may raise a clearer error
                    raise
        return function(*args, **kwargs)

    return cast(Function, choose)


def _values(given: tuple[Any, ...]) -> list[Any] | None:
    """Replace arrays in arguments by NumPy's; None if an array is not small, or depends on a user's
    function, which is called only when values are asked for."""
    found: list[Any] = []
    for value in given:
        if isinstance(value, Array):
            node = value._node
            if not node.small or _is_of_user(node):
                return None
            value = evaluate.value(node)
        elif isinstance(value, list | tuple) and any(isinstance(part, Array) for part in value):
            return None
        found.append(value)
    return found


def _is_of_user(node: Node) -> bool:
    return node.value is None and any(source.op.of_user for source in topological([node]))


def _result(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_result, value))
    array = np.asarray(value)
    check_numbers(array.dtype)
    return Array(leaf(array))
