"""Random orders and choices."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.creation import shape_of
from agentic_ray.array.elementwise import divide, log, where
from agentic_ray.array.outputs import delivered
from agentic_ray.array.random.multivariate import Multivariate
from agentic_ray.array.ranges import arange
from agentic_ray.array.searching import searchsorted
from agentic_ray.array.sorting import argsort
from agentic_ray.array.taking import take, take_along_axis


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


class Permuting(Multivariate):
    """Methods that draw positions."""

    def _order(self, count: int, chunks: Any = "auto") -> Array:
        """Return ``range(count)`` in random order."""
        return argsort(self.random(count, chunks=chunks)) if count else arange(0)

    def permutation(self, x: Any, axis: int = 0, *, chunks: Any = "auto") -> Array:
        """Return ``range(x)``, or the slices of an array along ``axis``, in random order.

        Parameters
        ----------
        x : int or array_like
        axis : int

        Raises
        ------
        AxisError
            The array has no such axis.
        """
        if _is_number(x):
            return self._order(int(x), chunks)
        node = strict_operand(x)
        at = normalize_axis_index(axis, node.ndim)
        return take(Array(node), self._order(node.shape[at], chunks), axis=at)  # type: ignore[no-any-return]

    def shuffle(self, x: Any, axis: int = 0) -> None:
        """Put the slices of ``x`` along ``axis`` in random order, in place.

        Parameters
        ----------
        x : Array, numpy.ndarray or list
        axis : int

        Raises
        ------
        TypeError
            ``x`` cannot be written to.
        """
        if isinstance(x, Array):
            if x._is_scalar or not x.ndim:
                raise TypeError("an array without axes has no order")
            x[...] = self.permutation(x, axis)
        elif isinstance(x, np.ndarray):
            at = normalize_axis_index(axis, x.ndim)
            x[...] = np.take(x, np.asarray(self._order(x.shape[at])), axis=at)
        else:
            if axis != 0:
                raise NotImplementedError("Axis argument is only supported on ndarray objects")
            x[:] = [x[place] for place in self._order(len(x)).tolist()]

    def permuted(self, x: Any, axis: int | None = None, out: Any = None) -> Any:
        """Return ``x`` with the elements of each line along ``axis`` in an order of their own.

        Parameters
        ----------
        x : array_like
        axis : int, optional
            Axis of the lines; default: all elements, whatever their axis.
        out : array, optional
            Array that receives the result; may be ``x``.
        """
        array = Array(strict_operand(x))
        if axis is None:
            flat = take(array.reshape(-1), self._order(array.size), axis=0)
            return delivered(flat.reshape(array.shape), out)
        at = normalize_axis_index(axis, array.ndim)
        order = argsort(self.random(array.shape, chunks=array.chunks), axis=at)
        return delivered(take_along_axis(array, order, axis=at), out)

    def choice(
        self,
        a: Any,
        size: Any = None,
        replace: bool = True,
        p: Any = None,
        axis: int = 0,
        shuffle: bool = True,
        *,
        chunks: Any = "auto",
    ) -> Array:
        """Draw elements of ``a``, or of ``range(a)``, at random.

        Parameters
        ----------
        a : int or array_like
        size : int or tuple of int, optional
        replace : bool
            Whether an element may be drawn more than once.
        p : array_like, optional
            Probability of each; default the same for all.
        axis : int
            Axis of ``a`` along which slices are drawn.
        shuffle : bool
            False: without replacement the order of the drawn elements need not be random.

        Raises
        ------
        ValueError
            Without replacement more elements are wanted than there are; or probabilities do not
            fit.
        """
        array = None if _is_number(a) else Array(strict_operand(a))
        if array is not None and array.ndim == 0:
            if array.dtype.kind not in "iu":
                raise ValueError(f"a must be a sequence or an integer, not {type(a)}")
            a, array = int(array), None
        at = 0 if array is None else normalize_axis_index(axis, array.ndim)
        count = operator.index(a) if array is None else array.shape[at]
        shape = () if size is None else shape_of(size)
        total = math.prod(shape)
        if array is None and count <= 0 and total:
            raise ValueError("a must be a positive integer unless no samples are taken")
        if array is not None and count == 0 and total:
            raise ValueError("a cannot be empty unless no samples are taken")
        weights = None if p is None else _checked_weights(p, count)
        if not replace and total > count:
            raise ValueError("Cannot take a larger sample than population when replace is False")
        if weights is None:
            if replace:
                index = self.integers(0, max(count, 1), shape, chunks=chunks)
            else:
                index = self._order(count, chunks)[:total].reshape(shape)
        elif replace:
            edges = np.cumsum(weights)
            edges /= edges[-1]
            index = searchsorted(Array(strict_operand(edges)), self.random(shape, chunks=chunks),
                                 side="right")  # fmt: skip
        else:
            if np.count_nonzero(weights) < total:
                raise ValueError("Fewer non-zero entries in p than size")
            index = self._without_replacement(weights, total).reshape(shape)
        if array is None:
            return Array(index._node, is_cell=size is not None)
        return take(array, index, axis=at)  # type: ignore[no-any-return]

    def _without_replacement(self, weights: np.ndarray[Any, Any], total: int) -> Array:
        """Draw positions one after the other, each with its share of the remaining probability.

        The order of ``log(u) / p``, from the largest on, has this distribution (P. S. Efraimidis
        and P. G. Spirakis, "Weighted random sampling with a reservoir", 2006).
        """
        heavy = Array(strict_operand(weights))
        keys = divide(log(1.0 - self.random(weights.size)), where(heavy > 0, heavy, 1.0))
        keys = where(heavy > 0, -keys, np.inf)
        return argsort(keys)[:total]


def _checked_weights(p: Any, count: int) -> np.ndarray[Any, Any]:
    found = np.asarray(evaluate.value(strict_operand(p)), dtype=np.float64)
    if found.ndim != 1:
        raise ValueError("p must be 1-dimensional")
    if found.size != count:
        raise ValueError("a and p must have same size")
    if np.isnan(found).any():
        raise ValueError("Probabilities contain NaN")
    if (found < 0).any():
        raise ValueError("Probabilities are not non-negative")
    if abs(found.sum() - 1.0) > np.sqrt(np.finfo(np.float64).eps):
        raise ValueError("Probabilities do not sum to 1.")
    return found
