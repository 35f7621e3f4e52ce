"""NumPy's ``out=``, ``where=`` and ``initial=``, for the functions of all areas."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to, fitted
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import operand, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node
from agentic_ray.array.core.views import rechunk

NO_VALUE: Any = np._NoValue
"""Stand-in for an argument that was not given, as in NumPy's signatures."""


def single_out(out: Any) -> Any:
    """Return the one array that NumPy's ``out`` names; None if it names none.

    Raises
    ------
    TypeError, ValueError
        ``out`` is no array, or a tuple of several.
    """
    if isinstance(out, tuple):
        if len(out) != 1:
            raise ValueError("The 'out' tuple must have exactly one entry")
        (out,) = out
    if out is None:
        return None
    if isinstance(out, Array) and out._is_scalar:
        raise TypeError("return arrays must be of ArrayType: a result without axes is a scalar")
    if not isinstance(out, Array | np.ndarray):
        raise TypeError("return arrays must be of ArrayType")
    return out


def delivered(
    result: Array, out: Any, casting: Any = "same_kind", *, broadcasts: bool = False
) -> Array:
    """Return ``result``, or assign it to ``out`` and return that (also if it is NumPy's array).

    Parameters
    ----------
    out : Array, numpy.ndarray, a tuple of one, or None
    casting : str
        Conversions to the dtype of ``out`` that are allowed.
    broadcasts : bool
        Whether ``result`` may have fewer elements than ``out``.

    Raises
    ------
    TypeError
        The conversion is not allowed, or ``out`` is no array.
    ValueError
        Shapes differ.
    """
    out = single_out(out)
    if out is None:
        return result
    check_delivery(result, out, casting, broadcasts=broadcasts)
    if isinstance(out, Array):
        node = broadcast_to(cast(result._node, out.dtype), out.shape)
        out._node = rechunk(node, out._node.chunks)
    else:
        out[...] = np.asarray(result)
    given: Array = out
    return given


def check_delivery(
    result: Array, out: Any, casting: Any = "same_kind", *, broadcasts: bool = False
) -> None:
    """Raise the error that `delivered` would; parameters as there.

    Raises
    ------
    TypeError
        The conversion is not allowed.
    ValueError
        Shapes differ.
    """
    if out is None:
        return
    if result.shape != out.shape and not (broadcasts and _broadcasts(result.shape, out.shape)):
        raise ValueError(
            f"non-broadcastable output operand with shape {out.shape} doesn't match the broadcast "
            f"shape {result.shape}"
        )
    if not np.can_cast(result.dtype, out.dtype, casting):
        raise TypeError(
            f"Cannot cast output from {result.dtype!r} to {out.dtype!r} with casting rule "
            f"{casting!r}"
        )


def returned(result: Array, out: Any) -> Array:
    """Return ``result``, or assign it to ``out`` as `take`, `compress` and `choose` do: NumPy
    converts ``out`` to the dtype of the result first, which must be safe, and the result back.

    Raises
    ------
    TypeError
        ``out`` cannot be converted to the dtype of the result safely.
    """
    target = single_out(out)
    if target is not None and not np.can_cast(target.dtype, result.dtype, "safe"):
        raise TypeError(
            f"Cannot cast array data from {target.dtype!r} to {result.dtype!r} according to the "
            "rule 'safe'"
        )
    return delivered(result, target, "unsafe")


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def looked_at(result: Array) -> Array:
    """Raise an error that lies in the data of ``result`` now, if it is computed in this process
    anyway (it touches little data), and return it; otherwise the error comes when it is
    computed."""
    if result._node.small or evaluate.runs_locally([result._node]):
        evaluate.values([result._node])
    return result


def mask_of(where: Any, node: Node) -> Node | None:
    """Return NumPy's ``where`` of a reduction of ``node``; None if every element counts.

    Raises
    ------
    TypeError
        ``where`` does not hold booleans.
    ValueError
        ``where`` does not broadcast to ``node``.
    """
    if where is True or where is NO_VALUE:
        return None
    mask = strict_operand(where)
    if mask.dtype.kind != "b":
        raise TypeError(
            f"Cannot cast array data from {mask.dtype!r} to dtype('bool') according to the rule "
            "'safe'"
        )
    return fitted(mask, node.shape)


def initial_of(ufunc: np.ufunc, dtype: DType, initial: Any) -> Node | None:
    """Convert NumPy's ``initial`` of a reduction to ``dtype``; None if none was given."""
    if initial is NO_VALUE or initial is None:
        return None
    if isinstance(initial, Array):
        initial = initial.item()
    return operand(ufunc.reduce(np.empty(0, dtype), dtype=dtype, initial=initial))
