"""Kernels of non-negative factorisation over a chunk: of ``X ≈ W H`` a chunk has its rows of W,
which stay where it is, and gives sums from which the caller makes the next H."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition._nmf import (
    EPSILON,
    _beta_divergence,
    _multiplicative_update_w,
    _special_sparse_dot,
    _update_coordinate_descent,
)
from sklearn.utils.extmath import safe_sparse_dot

from agentic_ray.ml.cluster.lloyd import generator

_SMALL = 1e-6
"""Entries of the starting factors that are less than this become 0, as in scikit-learn's NNDSVD."""
_TINY = float(np.finfo(np.float64).eps)


def facts(x: Any, y: Any, w: Any) -> Any:
    """The sum of a chunk, the sum of its squares, and how many values are 0.

    Raises
    ------
    ValueError
        A value is negative, with scikit-learn's message.
    """
    values = x.data if sp.issparse(x) else x
    if values.size and values.min() < 0:
        raise ValueError("Negative values in data passed to NMF initialization.")
    zeros = x.shape[0] * x.shape[1] - int(np.count_nonzero(values))
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(flat.sum()), float(flat @ flat), zeros


# --- where to start --------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomStart:
    """Rows of W as absolute normal numbers times ``scale``."""

    scale: float
    seed: int

    def __call__(self, x: Any, given: Any, components: int, number: int) -> Any:
        drawn = generator((self.seed, number)).standard_normal((x.shape[0], components))
        return np.abs(self.scale * drawn).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class GivenStart:
    """Rows of W that the user gives."""

    def __call__(self, x: Any, given: Any, components: int, number: int) -> Any:
        return np.array(given, dtype=x.dtype, order="C")


@dataclass(frozen=True, eq=False)
class SingularStart:
    """Rows of W by left singular vectors: of each its positive or its negative part.

    Parameters
    ----------
    directions : ndarray of shape (n_features, n_components)
        Right singular vectors over their singular values; zeros where these are 0.
    signs : ndarray of shape (n_components,)
        Which part is taken; 0: the absolute value.
    factors : ndarray of shape (n_components,)
        What the part is multiplied by.
    fill : float
        Stands for zeros, times a random number if there is a seed.
    seed : int or None
    """

    directions: Any
    signs: Any
    factors: Any
    fill: float
    seed: int | None

    def __call__(self, x: Any, given: Any, components: int, number: int) -> Any:
        left = np.asarray(x @ self.directions)
        parts = np.where(self.signs == 0, np.abs(left), np.maximum(left * self.signs, 0.0))
        found = parts * self.factors
        found[found < _SMALL] = 0.0
        return filled(found, self.fill, self.seed, number).astype(x.dtype, copy=False)


def filled(found: Any, fill: float, seed: int | None, number: int) -> Any:
    """``found`` with something in place of its zeros."""
    empty = found == 0
    if seed is None:
        found[empty] = fill
    else:
        drawn = generator((seed, number)).standard_normal(int(empty.sum()))
        found[empty] = np.abs(fill * drawn / 100)
    return found


def squares_of_parts(x: Any, y: Any, w: Any, directions: Any) -> Any:
    """Sums of squares of the positive and of the negative part of each left singular vector."""
    left = np.asarray(x @ directions)
    return (np.maximum(left, 0.0) ** 2).sum(axis=0), (np.minimum(left, 0.0) ** 2).sum(axis=0)


# --- iterations ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Descent:
    """Coordinate descent in the rows of W.

    Parameters
    ----------
    components : ndarray of shape (n_features, n_components)
        The transpose of H.
    l1, l2 : float
    order : ndarray of int
        In which coordinates are gone through.
    """

    components: Any
    l1: float
    l2: float
    order: Any

    def permutation(self, count: int) -> Any:
        """The order, as a source of random numbers gives it."""
        return self.order

    def __call__(self, x: Any, rows: Any) -> Any:
        """Change ``rows``, and return the violation before."""
        return float(
            _update_coordinate_descent(x, rows, self.components, self.l1, self.l2, True, self)
        )

    def sums(self, x: Any, rows: Any) -> Any:
        """``WᵀX`` and ``WᵀW``."""
        return np.asarray(safe_sparse_dot(x.T, rows)).T, rows.T @ rows


@dataclass(frozen=True, eq=False)
class Multiplication:
    """A multiplicative update of the rows of W.

    Parameters
    ----------
    components : ndarray of shape (n_components, n_features)
    beta, gamma : float
        Of the divergence, and the power of the update.
    l1, l2 : float
    """

    components: Any
    beta: float
    gamma: float
    l1: float
    l2: float

    def __call__(self, x: Any, rows: Any) -> Any:
        """Change ``rows``; return 0."""
        made, *_ = _multiplicative_update_w(
            x, rows, self.components, self.beta, self.l1, self.l2, self.gamma
        )
        if self.beta < 1:
            made[made < _TINY] = 0.0
        rows[...] = made
        return 0.0

    def sums(self, x: Any, rows: Any) -> Any:
        """Numerator and denominator of the update of H; for Frobenius norms ``WᵀX`` and ``WᵀW``,
        for Kullback-Leibler's divergence the sums of the columns of W in place of the latter."""
        if self.beta == 2:
            return np.asarray(safe_sparse_dot(rows.T, x)), rows.T @ rows
        made = _special_sparse_dot(rows, self.components, x)
        whole = None
        if not sp.issparse(x):
            whole = made.copy()
            if self.beta < 1:
                whole[whole < EPSILON] = EPSILON
        values, data = (made.data, x.data) if sp.issparse(x) else (made, x)
        if self.beta < 2:
            values[values < EPSILON] = EPSILON
        values **= self.beta - 2
        values *= data
        above = np.asarray(safe_sparse_dot(rows.T, made))
        if self.beta == 1:
            return above, rows.sum(axis=0)
        if whole is not None:
            return above, rows.T @ whole ** (self.beta - 1)
        below = np.empty_like(above)
        for at in range(x.shape[1]):  # so that no dense product has to be there
            column = rows @ self.components[:, at]
            if self.beta < 1:
                column[column < EPSILON] = EPSILON
            below[:, at] = rows.T @ column ** (self.beta - 1)
        return above, below


def iterated(x: Any, y: Any, w: Any, update: Any, rows: Any) -> Any:
    """The rows of W of a chunk after an update; the violation, and sums for the next H."""
    made = np.array(rows)
    violation = update(x, made)
    return made, (violation, *update.sums(x, made))


def begun(x: Any, y: Any, w: Any, start: Any, components: int, past: Any, number: int) -> Any:
    """The rows of W of a chunk where a fit starts, and after each of the updates that were."""
    rows = np.ascontiguousarray(start(x, y, components, number))
    for update in past:
        update(x, rows)
    return rows, 0.0


def divergence(x: Any, y: Any, w: Any, components: Any, beta: float, rows: Any) -> Any:
    """The rows of a chunk as they are, and the divergence of X from their product with H."""
    return rows, float(_beta_divergence(x, rows, components, beta, square_root=False))
