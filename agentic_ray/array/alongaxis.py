"""Users' functions along axes, or where conditions hold: `apply_along_axis`,
`apply_over_axes`, `piecewise`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.blocks import map_blocks
from agentic_ray.array.core.build import leaf, strict_operand
from agentic_ray.array.creation import zeros_like
from agentic_ray.array.manipulation import broadcast_to, expand_dims
from agentic_ray.array.userfunctions import numeric_dtype, sample
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import name_of


@dataclass(frozen=True, slots=True, eq=False)
class AlongAxis:
    """A user's function of one-dimensional arrays, looped over blocks."""

    function: Callable[..., Any]
    axis: int
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self, block: Any) -> Any:
        return np.apply_along_axis(self.function, self.axis, block, *self.args, **self.options)


def apply_along_axis(
    func1d: Callable[..., Any],
    axis: int,
    arr: Any,
    *args: Any,
    dtype: Any = None,
    shape: Sequence[int] | None = None,
    **kwargs: Any,
) -> Array:
    """Apply ``func1d(a, *args, **kwargs)`` to each one-dimensional slice along an axis, as in
    NumPy.

    The axis is put in one chunk; the others stay cut. The function is captured at this call (see
    `map_blocks`).

    Parameters
    ----------
    func1d : callable
    axis : int
    arr : Array
    dtype, shape : optional
        Dtype and shape of the function's result; None: found by a call on a slice of ones.

    Raises
    ------
    InvalidArgumentError
        Dtype and shape cannot be found, or an axis that is looped over is empty.
    BlockResultError
        When values are computed: the function returned another shape or dtype.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.reshape(xp.arange(6.0), (2, 3))
    >>> xp.apply_along_axis(lambda row: row[::-1], 1, x).compute()
    array([[2., 1., 0.],
           [5., 4., 3.]])
    """
    node = strict_operand(arr if isinstance(arr, Array) else np.asarray(arr))
    at = normalize_axis_index(axis, node.ndim)
    if any(not n for i, n in enumerate(node.shape) if i != at):
        raise InvalidArgumentError("apply_along_axis: an axis that is looped over is empty")
    if not callable(func1d):
        raise InvalidTypeError(f"apply_along_axis: not a function: {func1d!r}")
    given = tuple([arg.compute() if isinstance(arg, Array) else arg for arg in args])
    if dtype is None or shape is None:
        try:
            with np.errstate(all="ignore"):
                found = np.asanyarray(func1d(sample(node, (node.shape[at],)), *given, **kwargs))
        except Exception as error:  # user code
            raise InvalidArgumentError(
                f"the dtype and shape of the result are not known, since {name_of(func1d)} failed "
                f"on ones ({type(error).__name__}: {error}); give dtype= and shape="
            ) from error
        dtype = found.dtype if dtype is None else dtype
        shape = found.shape if shape is None else shape
    new = tuple(int(n) for n in shape)
    counts = [1 if i == at else len(lengths) for i, lengths in enumerate(node.chunks)]
    grid = [lengths for i, lengths in enumerate(node.chunks) if i != at]
    out = (*grid[:at], *[(n,) for n in new], *grid[at:])
    assert len(out) == len(counts) - 1 + len(new)
    return map_blocks(
        AlongAxis(func1d, at, given, kwargs),
        Array(node),
        dtype=numeric_dtype("apply_along_axis", dtype),
        drop_axis=at,
        new_axis=tuple(range(at, at + len(new))),
        chunks=out,
        name=name_of(func1d),
    )


def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Array:
    """Apply ``func(a, axis)`` for one axis after another, as in NumPy.

    Parameters
    ----------
    func : callable
        ``func(array, axis)`` returns an array with as many axes, or one fewer.
    a : Array
    axes : int or sequence of int

    Raises
    ------
    ValueError
        The function returns another number of axes.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> total = lambda a, axis: xp.sum(a, axis=axis)
    >>> xp.apply_over_axes(total, xp.ones((2, 3, 4)), [0, 2]).compute().ravel()
    array([8., 8., 8.])
    """
    result = a if isinstance(a, Array) else Array(strict_operand(np.asarray(a)))
    ndim = result.ndim
    for axis in np.atleast_1d(axes).tolist():
        at = normalize_axis_index(axis, ndim)
        found = func(result, at)
        if not isinstance(found, Array):
            found = Array(strict_operand(np.asarray(found)))
        if found.ndim == ndim - 1:
            found = expand_dims(found, at)
        if found.ndim != ndim:
            raise ValueError(
                "function is not returning an array of the correct shape: "
                f"{found.ndim} axes of {ndim}"
            )
        result = found
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Kernel that applies NumPy's ``piecewise`` to a block and its conditions."""

    functions: tuple[Any, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self, block: Any, *conditions: Any) -> Any:
        return np.piecewise(
            block, list(conditions), list(self.functions), *self.args, **self.options
        )


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Array:
    """Apply a different function wherever a different condition holds, as in NumPy.

    A function is called with all elements where its condition holds, and may be a reduction of
    them. So the array is put in one chunk, unless all functions are numbers or NumPy's elementwise
    ones. For large arrays use ``where`` or `map_blocks`.

    Parameters
    ----------
    x : Array
    condlist : list of arrays of bool, or one
    funclist : list of callables or numbers
        A function for each condition, and perhaps one more for elements where none holds.

    Raises
    ------
    ValueError
        The number of functions does not fit the conditions.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.asarray([-2.0, 3.0])
    >>> xp.piecewise(x, [x < 0, x >= 0], [lambda v: -v, 10]).compute()
    array([ 2., 10.])
    """
    whole = x if isinstance(x, Array) else Array(strict_operand(np.asarray(x)))
    conditions = list(condlist) if isinstance(condlist, list | tuple) else [condlist]
    if conditions and all(np.ndim(c) == 0 for c in conditions) and whole.ndim:
        conditions = [np.asarray(conditions)]  # a list of bool is one condition
    if isinstance(condlist, np.ndarray | Array) and condlist.ndim > whole.ndim:
        conditions = [condlist[i] for i in range(condlist.shape[0])]
    functions = tuple(funclist)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or "
            f"{len(conditions) + 1} functions are expected"
        )
    arrays = [
        broadcast_to(c if isinstance(c, Array) else Array(leaf(np.asarray(c, bool))), whole.shape)
        for c in conditions
    ]
    if not any(map(callable, functions)):
        result = zeros_like(whole)
        if len(functions) > len(arrays):
            result[...] = functions[-1]
        for condition, value in zip(arrays, functions, strict=False):
            result[condition] = value
        return result
    if not all(not callable(f) or isinstance(f, np.ufunc) for f in functions):
        whole = whole.rechunk(-1)
        arrays = [array.rechunk(-1) for array in arrays]
    return map_blocks(
        Pieces(functions, args, kw), whole, *arrays, dtype=whole.dtype, name="piecewise"
    )
