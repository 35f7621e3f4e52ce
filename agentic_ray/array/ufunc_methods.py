"""Methods of ufuncs: reduce, accumulate, reduceat, outer and at, as in NumPy.

The package imports this module when all modules of functions are there: it gives `Ufunc` its
methods.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array import masked, scans, statistics
from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import broadcast_to
from agentic_ray.array.core import build, evaluate
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import blockwise_op, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node, make
from agentic_ray.array.core.program import host_only
from agentic_ray.array.core.views import concatenated, expanded, rechunk, sliced
from agentic_ray.array.folding import ASSOCIATIVE, accumulated, reduced
from agentic_ray.array.mutation import ufunc_at
from agentic_ray.array.outputs import NO_VALUE, delivered, initial_of, mask_of
from agentic_ray.array.reducing import asked, loop_dtype
from agentic_ray.array.ufuncs import Ufunc

_OWN: dict[str, Callable[..., Array]] = {
    "add": statistics.sum,
    "multiply": statistics.prod,
    "maximum": statistics.max,
    "minimum": statistics.min,
}
"""Reductions that have a function of their own."""
_SCANS = {"add": scans.cumsum, "multiply": scans.cumprod}


def _check_pair(ufunc: Ufunc[Any], method: str) -> None:
    if ufunc.nin != 2:
        raise ValueError(f"{method} only supported for binary functions")
    if ufunc.nout != 1:
        raise ValueError(f"{method} only supported for functions returning a single value")


def reduce(
    self: Ufunc[Any],
    array: Any,
    axis: Any = 0,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = NO_VALUE,
    where: Any = True,
) -> Any:
    """Reduce ``array`` over ``axis`` by the ufunc: see `numpy.ufunc.reduce`.

    Parameters
    ----------
    array : array_like
    axis : int, tuple of int or None
        None: all axes.
    dtype, out, keepdims, initial, where
        As in `agentic_ray.array.sum`.

    Raises
    ------
    ValueError
        The ufunc does not have two operands and one result; there are no elements and no identity;
        or there are several axes and their order would matter.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.subtract.reduce([10, 3, 2])
    Array(5, dtype=int64)
    """
    _check_pair(self, "reduce")
    name = self.__name__
    node = strict_operand(array)
    wanted = asked(dtype)
    if name in _OWN and (wanted is None or name in ("add", "multiply")):
        options = {"dtype": wanted} if wanted is not None else {}
        return _OWN[name](array, axis, out=out, keepdims=keepdims, initial=initial, where=where,
                          **options)  # fmt: skip
    axes = build.axes_of_ufunc(axis, node.ndim)
    own: np.ufunc = self.numpy
    found = loop_dtype(own, node.dtype, wanted)
    mask = None if where is True else mask_of(where, node)
    start = None if initial is NO_VALUE else initial_of(own, found, initial)
    if (
        start is None
        and initial is not None
        and (mask is not None or any(node.shape[a] == 0 for a in axes))
    ):
        start = _identity(own, found, mask is not None)
    node = cast(node, _operand_dtype(own, node.dtype, found))
    if mask is not None:
        assert start is not None
        if name not in ASSOCIATIVE:
            raise ValueError(f"reduction operation {name!r} cannot be masked: its order matters")
        node = masked.kept(node, mask, start.params[0].value.astype(node.dtype)[()])
    if any(node.shape[a] == 0 for a in axes):
        shape = tuple([1 if a in axes else n for a, n in enumerate(node.shape)
                       if keepdims or a not in axes])  # fmt: skip
        made = broadcast_to(_started(start, name), shape)
    elif start is not None and name not in ASSOCIATIVE:
        made = _from_start(name, node, axes, keepdims, found, start)
    else:
        made = reduced(name, node, axes, keepdims, found)
        if start is not None and initial is not NO_VALUE:
            made = self.plain(Array(start), Array(made))._node
    return delivered(Array(made), out, "unsafe")


def _operand_dtype(ufunc: np.ufunc, dtype: DType, found: DType) -> DType:
    """Return the dtype that elements are converted to: the results', unless that is bool."""
    return dtype if found.kind == "b" and dtype.kind != "b" else found


def _identity(ufunc: np.ufunc, dtype: DType, is_masked: bool) -> Node | None:
    """Return the result of reducing no elements.

    Raises
    ------
    ValueError
        The ufunc has no identity.
    """
    if ufunc.identity is None:
        raise ValueError(
            f"reduction operation {ufunc.__name__!r} does not have an identity, so to use a where "
            "mask one has to specify 'initial'"
            if is_masked
            else f"zero-size array to reduction operation {ufunc.__name__} which has no identity"
        )
    return build.leaf(np.asarray(ufunc.reduce(np.empty(0, dtype), dtype=dtype)))


def _started(start: Node | None, name: str) -> Node:
    if start is None:
        raise ValueError(f"zero-size array to reduction operation {name} which has no identity")
    return start


def _from_start(
    name: str, node: Node, axes: tuple[int, ...], keepdims: bool, dtype: DType, start: Node
) -> Node:
    """Reduce from ``start`` on, as if it was the first element."""
    (axis,) = axes
    shape = (*node.shape[:axis], 1, *node.shape[axis + 1 :])
    head = broadcast_to(cast(start, node.dtype), shape)
    return reduced(name, concatenated([head, node], axis), axes, keepdims, dtype)


def accumulate(
    self: Ufunc[Any], array: Any, axis: int = 0, dtype: Any = None, out: Any = None
) -> Any:
    """Return the reduction up to each element along ``axis``: see `numpy.ufunc.accumulate`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.maximum.accumulate([1, 3, 2, 5])
    Array([1, 3, 3, 5], dtype=int64)
    """
    _check_pair(self, "accumulate")
    node = strict_operand(array)
    if node.ndim == 0:
        raise TypeError("cannot accumulate on a scalar")
    at = normalize_axis_index(operator.index(axis), node.ndim)
    if self.__name__ in _SCANS:
        return _SCANS[self.__name__](array, at, dtype, out)
    found = loop_dtype(self.numpy, node.dtype, asked(dtype))
    node = cast(node, _operand_dtype(self.numpy, node.dtype, found))
    made = accumulated(self.__name__, node, at, found) if node.size else cast(node, found)
    return delivered(Array(made), out, "unsafe")


# --- reduceat ----------------------------------------------------------------------------


@host_only  # CuPy's ufuncs have no such method
def _reduceat_kernel(
    xp: Any, x: Any, name: str, starts: tuple[int, ...], stops: tuple[int, ...], axis: int,
    dtype: DType,
) -> Any:  # fmt: skip
    own = getattr(np, name)
    if all(low < high for low, high in itertools.pairwise(starts)):
        return own.reduceat(x, starts, axis=axis, dtype=dtype)
    head = (slice(None),) * axis
    pieces = [x[(*head, slice(low, high))] for low, high in zip(starts, stops, strict=True)]
    parts = [
        piece.astype(dtype)
        if piece.shape[axis] == 1
        else own.reduce(piece, axis=axis, dtype=dtype, keepdims=True)
        for piece in pieces
    ]
    return np.concatenate(parts, axis=axis)


_REDUCEAT = blockwise_op("reduceat", _reduceat_kernel, 4)


def reduceat(
    self: Ufunc[Any], array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None
) -> Any:
    """Reduce slices along ``axis``: from each index to the next one, or the one element if the next
    is not larger. See `numpy.ufunc.reduceat`.

    Raises
    ------
    IndexError
        An index lies outside.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.add.reduceat(xp.arange(8), [0, 4, 1, 5])
    Array([ 6,  4, 10, 18], dtype=int64)
    """
    _check_pair(self, "reduceat")
    node = strict_operand(array)
    at = normalize_axis_index(operator.index(axis), node.ndim)
    length = node.shape[at]
    found = evaluate.value(strict_operand(indices)).astype(np.int64)
    if found.size and (found.min() < 0 or found.max() >= length):
        wrong = found[(found < 0) | (found >= length)][0]
        raise IndexError(f"index {wrong} out-of-bounds in {self.__name__}.reduceat [0, {length})")
    result = loop_dtype(self.numpy, node.dtype, asked(dtype))
    node = cast(node, _operand_dtype(self.numpy, node.dtype, result))
    starts = found.tolist()
    stops = [high if high > low else low + 1
             for low, high in zip(starts, [*starts[1:], length], strict=False)]  # fmt: skip
    parts = [
        _segments(self.__name__, node, at, starts[i:j], stops[i:j], result)
        for i, j in _groups(node, at, starts, stops)
    ]
    if not parts:
        shape = (*node.shape[:at], 0, *node.shape[at + 1 :])
        return delivered(Array(build.leaf(np.empty(shape, result))), out, "unsafe")
    return delivered(Array(concatenated(parts, at)), out, "unsafe")


def _groups(
    node: Node, axis: int, starts: Sequence[int], stops: Sequence[int]
) -> list[tuple[int, int]]:
    """Group segments into runs that lie within so many elements that one chunk can hold them."""
    others = math.prod([max(c, default=1) for a, c in enumerate(node.chunks) if a != axis])
    limit = max(1, grids.rules().elements(node.dtype) // max(1, others))
    found: list[tuple[int, int]] = []
    first, low, high = 0, 0, 0
    for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if place == first:
            low, high = start, stop
            continue
        if max(high, stop) - min(low, start) > limit:
            found.append((first, place))
            first, low, high = place, start, stop
        low, high = min(low, start), max(high, stop)
    return [*found, (first, len(starts))] if starts else []


def _segments(
    name: str, node: Node, axis: int, starts: Sequence[int], stops: Sequence[int], dtype: DType
) -> Node:
    low, high = min(starts), max(stops)
    index = tuple([("s", low, high - low, 1) if a == axis else ("s", 0, n, 1)
                   for a, n in enumerate(node.shape)])  # fmt: skip
    part = sliced(node, index)
    if len(starts) == 1:
        return cast(part, dtype) if high - low == 1 else reduced(name, part, (axis,), True, dtype)
    wanted = tuple([(high - low,) if a == axis else c for a, c in enumerate(part.chunks)])
    params = (name, tuple(s - low for s in starts), tuple(s - low for s in stops), axis, dtype)
    shape = tuple([len(starts) if a == axis else n for a, n in enumerate(part.shape)])
    chunks = tuple([(len(starts),) if a == axis else c for a, c in enumerate(wanted)])
    return make(_REDUCEAT, (rechunk(part, wanted),), params, shape, dtype, chunks)


# --- outer and at ------------------------------------------------------------------------


def outer(self: Ufunc[Any], A: Any, B: Any, /, **kwargs: Any) -> Any:
    """Apply the ufunc to every element of ``A`` with every element of ``B``.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.multiply.outer([1, 2, 3], [4, 5])
    Array([[ 4,  5],
           [ 8, 10],
           [12, 15]], dtype=int64)
    """
    if self.nin != 2:
        raise ValueError("outer product only supported for binary functions")
    if isinstance(A, bool | int | float | complex) and isinstance(B, bool | int | float | complex):
        return self(A, B, **kwargs)
    first, second = strict_operand(A), strict_operand(B)
    if second.ndim:
        first = expanded(first, tuple(range(first.ndim, first.ndim + second.ndim)))
    return self(Array(first), Array(second), **kwargs)


def at(self: Ufunc[Any], a: Any, indices: Any, b: Any = NO_VALUE, /) -> None:
    """Apply the ufunc in place to the elements of ``a`` at ``indices``, as often as each is named.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.zeros(3)
    >>> xp.add.at(x, [0, 0, 2], 1)
    >>> x
    Array([2., 0., 1.], dtype=float64)
    """
    if (b is NO_VALUE) != (self.nin == 1):
        raise ValueError("second operand needed for ufunc" if b is NO_VALUE else "second operand "
                         "provided when ufunc is unary")  # fmt: skip
    values = () if b is NO_VALUE else (b,)
    if isinstance(a, np.ndarray):
        self.numpy.at(a, build.without_arrays(indices), *map(build.without_arrays, values))
    elif not isinstance(a, Array) or a._is_scalar:
        raise TypeError("first operand must be array")
    else:
        ufunc_at(self.numpy, a, indices, *values)


for method in (reduce, accumulate, reduceat, outer, at):
    setattr(Ufunc, method.__name__, method)
