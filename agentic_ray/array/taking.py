"""Elements at positions along an axis, or where a condition holds: take, compress and others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core.build import gufunc_op
from agentic_ray.array.core.build import strict_operand as strict
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.views import permuted, reshaped
from agentic_ray.array.gathering import gather
from agentic_ray.array.indexing import checked_positions, masked, positions_in
from agentic_ray.array.outputs import returned
from agentic_ray.array.small import by_numpy_if_small


def take(
    a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise"
) -> Any:
    """Take the elements of ``a`` at ``indices`` along ``axis``; of the flattened array if that is
    None.

    Parameters
    ----------
    a : array_like
    indices : array_like of int
        Positions; computed at the call.
    axis : int, optional
    out : array, optional
    mode : {"raise", "wrap", "clip"}
        Treatment of positions outside.

    Raises
    ------
    IndexError
        A position lies outside the axis, and ``mode`` is ``"raise"``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.take([4, 3, 5, 7], [0, 1, 4], mode="clip")
    Array([4, 3, 7], dtype=int64)
    """
    node = strict(a)
    if axis is None:
        node, axis = reshaped(node, (node.size,)), 0
    elif not node.ndim:
        node = reshaped(node, (1,))
    at = normalize_axis_index(axis, node.ndim)
    positions = positions_in(indices, node.shape[at], mode, at)
    taken = gather(node, (at,), (positions,))
    if positions.ndim != 1:
        shape = (*node.shape[:at], *positions.shape, *node.shape[at + 1 :])
        taken = reshaped(taken, shape)
    return returned(Array(taken), out)


def compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Any:
    """Select the elements of ``a`` along ``axis`` where ``condition`` holds, which is computed now.

    Parameters
    ----------
    condition : array_like of bool
        A vector; elements beyond its end are left out.
    a : array_like
    axis : int, optional
        Axis; default: that of the flattened array.
    out : array, optional

    Raises
    ------
    ValueError
        ``condition`` is no vector.
    IndexError
        ``condition`` holds beyond the end of the axis.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.compress([0, 1], [[1, 2], [3, 4], [5, 6]], axis=0)
    Array([[3, 4]], dtype=int64)
    """
    mask = strict(condition)
    if mask.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    node = strict(a)
    if axis is None or (node.ndim == 0 and axis in (0, -1)):
        node, axis = reshaped(node, (node.size,)), 0
    at = normalize_axis_index(axis, node.ndim)
    mask = cast(mask, np.bool_)
    if at == 0 and mask.size == node.shape[0] and not mask.small:
        return returned(Array(masked(node, mask)), out)
    places = np.flatnonzero(evaluate.value(mask))
    return returned(
        Array(gather(node, (at,), (checked_positions(places, node.shape[at], at),))), out
    )


def extract(condition: Any, arr: Any) -> Array:
    """Select the elements of ``arr``, flattened, where ``condition``, flattened, holds."""
    mask, node = strict(condition), strict(arr)
    return compress(  # type: ignore[no-any-return]
        Array(reshaped(mask, (mask.size,))), Array(reshaped(node, (node.size,)))
    )


def _take_along_kernel(xp: Any, x: Any, indices: Any) -> Any:
    loop = np.broadcast_shapes(x.shape[:-1], indices.shape[:-1])
    x = xp.broadcast_to(x, (*loop, x.shape[-1]))
    indices = xp.broadcast_to(indices, (*loop, indices.shape[-1]))
    return xp.take_along_axis(x, indices, axis=-1)


_TAKE_ALONG = gufunc_op("take_along_axis", _take_along_kernel)


@by_numpy_if_small
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Array:
    """Take for each position along ``axis`` the element that ``indices`` names there.

    Parameters
    ----------
    arr : array_like
    indices : array_like of int
        Positions, with as many axes as ``arr``; other axes broadcast.
    axis : int or None
        Axis; None: that of the flattened array.

    Raises
    ------
    IndexError
        Indices are not integers, or (when computed) lie outside the axis.
    ValueError
        The numbers of axes differ.
    """
    node, index = strict(arr), strict(indices)
    if axis is None:
        if index.ndim != 1:
            raise ValueError("when axis=None, `indices` must have a single dimension.")
        node, axis = reshaped(node, (node.size,)), 0
    if index.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    at = normalize_axis_index(axis, node.ndim)
    if node.ndim != index.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    others = [tuple([n for a, n in enumerate(x.shape) if a != at]) for x in (node, index)]
    try:
        np.broadcast_shapes(*others)
    except ValueError:
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together: {index.shape} and "
            f"{node.shape} but for axis {at}"
        ) from None
    order = (*[a for a in range(node.ndim) if a != at], at)
    made = build.gufunc(
        _TAKE_ALONG,
        [permuted(node, order), permuted(index, order)],
        (1, 1),
        (index.shape[at],),
        node.dtype,
    )
    back = tuple(np.argsort(order).tolist())
    return Array(permuted(made, back))
