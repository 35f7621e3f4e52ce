"""Functions of many steps over small arrays: NumPy's own, at the call.

An array that fits one small chunk is computed in the caller's process whenever it is. Where a
function takes a dozen operations here, making and running their nodes would take several times as
long as NumPy's function over the values.
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
    """Decorator: call NumPy's function of this name if all arrays are small and none is written to.

    NumPy has to have each parameter that is used, and the result to be new.
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
    """Arguments with arrays as NumPy's; None if one is not small, or of a function of the
    user's, which is called when its values are asked for."""
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
