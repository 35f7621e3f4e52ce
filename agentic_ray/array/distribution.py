"""Averages, covariances and correlations of values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import axes_of, elementwise, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, NDArray, Node, Op
from agentic_ray.array.core.views import broadcast, concatenated, expanded, permuted
from agentic_ray.array.elementwise import clip, multiply, sqrt
from agentic_ray.array.linalg.structure import diag
from agentic_ray.array.outputs import NO_VALUE, looked_at
from agentic_ray.array.reducing import asked
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import Axis, mean, sum
from agentic_ray.array.weighting import weights_like


def _average_kernel(xp: Any, total: Any, weight: Any) -> Any:
    if xp.any(weight == 0):
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return total / weight


_AVERAGE = Op("average", "map", _average_kernel)


@by_numpy_if_small
def average(
    a: Any, axis: Axis = None, weights: Any = None, returned: bool = False, *,
    keepdims: bool = False,
) -> Any:  # fmt: skip
    """Compute the weighted mean over ``axis``.

    Parameters
    ----------
    a : array_like
    axis : int or tuple of int, optional
        Default: all.
    weights : array_like, optional
        Weights in the shape of ``a`` or of the axes.
    returned : bool
        Whether to return the sum of the weights as well.
    keepdims : bool

    Raises
    ------
    ZeroDivisionError
        Weights add up to zero. It is raised at the call if the data are computed in this process,
        as for up to 32 MB; else when they are computed.
    TypeError, ValueError
        The weights' shape does not fit.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.average([1.0, 2.0, 3.0], weights=[3, 1, 0])
    Array(1.25, dtype=float64)
    """
    node = strict_operand(a)
    axes = axes_of(axis, node.ndim)
    if weights is None:
        result = mean(a, axis, keepdims=keepdims)
        count = int(np.prod([node.shape[axis] for axis in axes], dtype=np.int64))
        scale = Array(strict_operand(result.dtype.type(count)))
    else:
        heavy = weights_like(weights, node, axis)
        dtype = np.result_type(node.dtype, heavy.dtype)
        if node.dtype.kind in "biu":
            dtype = np.result_type(dtype, np.float64)
        scale = sum(Array(heavy), axis, dtype, keepdims=keepdims)
        total = sum(multiply(Array(node), Array(heavy), dtype=dtype), axis, keepdims=keepdims)
        result = looked_at(Array(elementwise(_AVERAGE, [total._node, scale._node])))
    if not returned:
        return result
    return result, Array(broadcast(scale._node, result.shape, result._node.chunks))


# --- covariances -------------------------------------------------------------------------


def _variables(m: Any, name: str, rowvar: bool, dtype: DType) -> Node:
    """Return ``m`` as a matrix with variables as rows, or without ``rowvar`` as columns."""
    node = strict_operand(m)
    if node.ndim > 2:
        raise ValueError(f"{name} has more than 2 dimensions")
    had = node.ndim
    while node.ndim < 2:
        node = expanded(node, (0,))
    is_one_row = had == 1 if name == "m" else node.shape[0] == 1  # a variable in any case
    if not rowvar and is_one_row:
        node = permuted(node, (1, 0))
    return cast(node, dtype)


def _weight(weights: Any, name: str, length: int) -> NDArray | None:
    """Return the weights of observations, which are brought to the caller."""
    if weights is None:
        return None
    found = np.asarray(evaluate.value(strict_operand(weights)), dtype=float)
    if name == "fweights" and not np.all(found == np.around(found)):
        raise TypeError("fweights must be integer")
    if found.ndim > 1:
        raise RuntimeError(f"cannot handle multidimensional {name}")
    if found.shape[0] != length:
        raise RuntimeError(f"incompatible numbers of samples and {name}")
    if np.any(found < 0):
        raise ValueError(f"{name} cannot be negative")
    return found


@by_numpy_if_small
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
    correction: Any = NO_VALUE,
) -> Any:
    """Compute the covariances of variables.

    Parameters
    ----------
    m : array_like
        Variables as rows, observations as columns.
    y : array_like, optional
        More variables.
    rowvar : bool
        False: variables are columns.
    bias : bool
        Whether to divide by the number of observations instead of one less.
    ddof, correction : int, optional
        Number subtracted from the number of observations, whatever ``bias`` says.
    fweights : array_like of int, optional
        Number of times that each observation counts.
    aweights : array_like, optional
        Weight of each observation.
    dtype : dtype, optional
        Dtype of the result; at least float64 by default.

    Raises
    ------
    ValueError
        There are more than two axes, negative weights, or ``ddof`` is no integer; or ``y`` has
        another number of observations.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.cov([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    Array([[ 1., -1.],
           [-1.,  1.]], dtype=float64)
    """
    if correction is not NO_VALUE:
        if ddof is not None:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        ddof = correction
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    wanted = asked(dtype)
    if wanted is None:
        operands = [strict_operand(m)] if y is None else [strict_operand(m), strict_operand(y)]
        wanted = np.result_type(*[node.dtype for node in operands], np.float64)
    along = 1 if rowvar else 0  # observations; a tall matrix is not transposed, but gone over once
    node = _variables(m, "m", rowvar, wanted)
    if node.shape[1 - along] == 0:
        return Array(strict_operand(np.empty((0, 0))))
    if y is not None:
        more = _variables(y, "y", rowvar, wanted)
        if more.shape[along] != node.shape[along]:
            raise ValueError(
                f"y has {more.shape[along]} observations, and the first argument has "
                f"{node.shape[along]}: each variable needs a value in every observation"
            )
        node = concatenated([node, more], 1 - along)
    if ddof is None:
        ddof = 0 if bias else 1
    frequencies = _weight(fweights, "fweights", node.shape[along])
    importance = _weight(aweights, "aweights", node.shape[along])
    weights = frequencies
    if importance is not None:
        weights = importance if weights is None else weights * importance
    values = Array(node)
    if weights is None:
        off = heavier = values - mean(values, axis=along, keepdims=True)
        free = float(node.shape[along] - ddof)
    else:
        heavy = Array(strict_operand(weights))
        off = values - average(values, along, heavy, keepdims=True)
        heavier = off * (heavy if rowvar else heavy[:, None])
        total = float(weights.sum())
        lost = 1.0 if importance is None else float((weights * importance).sum()) / total
        free = total - ddof * lost if ddof else total
    if free <= 0:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=2)
        free = 0.0
    other = heavier.conj() if wanted.kind == "c" else heavier
    products = off @ other.T if rowvar else off.T @ other
    result = products * np.true_divide(1, free)
    return Array(cast(result._node, wanted)).squeeze()


@by_numpy_if_small
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """Compute Pearson's correlation coefficients of variables; parameters as in `cov`.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.corrcoef([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    Array([[ 1., -1.],
           [-1.,  1.]], dtype=float64)
    """
    products = cov(x, y, rowvar, dtype=dtype)
    if products.ndim == 0:
        return products / products
    deviation = sqrt(diag(products).real)
    result = products / deviation[:, None] / deviation[None, :]
    if result.dtype.kind != "c":
        return clip(result, -1, 1)
    result.real = clip(result.real, -1, 1)
    result.imag = clip(result.imag, -1, 1)
    return result
