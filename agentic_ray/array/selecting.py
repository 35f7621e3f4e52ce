"""Elements chosen from several arrays: by conditions, or by a number each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import elementwise, operand, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import LITERAL, Op
from agentic_ray.array.elementwise import where
from agentic_ray.array.outputs import delivered, looked_at
from agentic_ray.array.small import by_numpy_if_small


@by_numpy_if_small
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Array:
    """Take for each element the choice whose condition is the first that holds.

    Parameters
    ----------
    condlist : sequence of bool arrays
    choicelist : sequence of arrays
        Choices, one for each condition.
    default : scalar or array
        Value where no condition holds.

    Raises
    ------
    ValueError
        The lists differ in length, or are empty.
    TypeError
        A condition does not hold booleans.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.arange(6)
    >>> xp.select([x < 3, x > 3], [x, x**2], 42)
    Array([ 0,  1,  2, 42, 16, 25], dtype=int64)
    """
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if len(condlist) == 0:
        raise ValueError("select with an empty condition list is not possible")
    conditions = [Array(strict_operand(condition)) for condition in condlist]
    for number, condition in enumerate(conditions):
        if condition.dtype.kind != "b":
            raise TypeError(f"invalid entry {number} in condlist: should be boolean ndarray")
    nodes = [operand(choice) for choice in (*choicelist, default)]
    try:
        dtype = np.result_type(
            *[node.params[2] if node.op is LITERAL else node.dtype for node in nodes]
        )
    except TypeError as error:
        raise TypeError(
            f"Choicelist and default value do not have a common dtype: {error}"
        ) from None
    choices = [Array(node) for node in nodes]
    result: Any = choices.pop()
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        result = where(condition, choice, result)
    return Array(cast(result._node, dtype))


def _choose_kernel(xp: Any, a: Any, *rest: Any) -> Any:
    *choices, mode = rest
    return xp.choose(a, choices, mode=mode)


_CHOOSE = Op("choose", "map", _choose_kernel, weight=2)


def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Array:
    """Take for each element of ``a`` the element of the array among ``choices`` which it numbers.

    Parameters
    ----------
    a : array_like of int
    choices : sequence of arrays, or an array
        Arrays that broadcast to ``a``; for one array its rows.
    out : array, optional
    mode : {"raise", "wrap", "clip"}
        Treatment of numbers outside.

    Raises
    ------
    ValueError
        A number lies outside and ``mode`` is ``"raise"`` (when it is computed, if that is not
        done in this process).

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.choose([0, 1, 0], [xp.asarray([1, 2, 3]), xp.asarray([10, 20, 30])])
    Array([ 1, 20,  3], dtype=int64)
    """
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    rows = list(choices) if isinstance(choices, list | tuple) else list(Array(
        strict_operand(choices)))  # fmt: skip
    nodes = [strict_operand(row) for row in rows]
    index = strict_operand(a)
    if index.dtype.kind not in "iub":
        raise TypeError(
            f"Cannot cast array data from {index.dtype!r} to dtype('int64') according to the rule "
            "'safe'"
        )
    dtype = np.result_type(*[node.dtype for node in nodes]) if nodes else index.dtype
    nodes = [cast(node, dtype) for node in nodes]
    result = Array(elementwise(_CHOOSE, [cast(index, np.int64), *nodes], (mode,)))
    return delivered(looked_at(result) if mode == "raise" else result, out, "unsafe")
