"""Principal components and truncated SVD over rows in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import sklearn.decomposition as sk
from sklearn.decomposition._pca import _infer_dimension
from sklearn.utils.extmath import svd_flip

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, seed_of
from agentic_ray.ml.moments import (
    column_moments,
    merged_columns,
    merged_scatter,
    merged_triangle,
    scatter,
    triangle,
)
from agentic_ray.ml.passes import Passes

MOST_COLUMNS = 4096
"""Of more columns the products with each other are not made: a few random directions are turned
to the main ones instead."""


class PCA(Distributed, sk.PCA):
    """Principal components over rows in chunks; parameters as `sklearn.decomposition`'s.

    ``svd_solver`` says how: ``"covariance_eigh"`` and ``"arpack"`` by the covariance matrix in one
    pass; ``"full"`` by the triangular factor of the rows, in two; ``"randomized"`` by a few
    passes over random directions; ``"auto"`` by the covariance matrix up to 4096 columns, above
    that as ``"randomized"``.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    >>> ml.PCA(1).fit(X).explained_variance_ratio_
    array([1.])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(self, X, checkpoint=checkpoint, accept_sparse=True, min_samples=1)
        solver = self.svd_solver
        if solver == "auto":
            solver = "covariance_eigh" if run.p <= MOST_COLUMNS else "randomized"
        if run.is_sparse and solver == "full":
            raise TypeError(
                'PCA only support sparse inputs with the "arpack" and "covariance_eigh" solvers, '
                f'while "{self.svd_solver}" was passed.'
            )
        wanted = self._wanted(run, solver)
        self._fit_svd_solver = solver
        if solver == "randomized":
            mean, total, variances, components = self._randomized(run, int(wanted))
        else:
            mean, variances, components = _spectrum(run, solver)
            total = float(variances.sum())
        self._learn(run, wanted, mean, total, variances, components)
        return self

    def _wanted(self, run: Passes, solver: str) -> Any:
        least, wanted = min(run.n, run.p), self.n_components
        if wanted is None:
            return least - 1 if solver == "arpack" else least
        if wanted == "mle":
            if solver in ("arpack", "randomized"):
                raise ValueError(
                    f"n_components={wanted!r} cannot be a string with svd_solver='{solver}'"
                )
            if run.n < run.p:
                raise ValueError("n_components='mle' is only supported if n_samples >= n_features")
            return wanted
        low = 1 if solver in ("arpack", "randomized") else 0
        if not low <= wanted <= least:
            raise ValueError(
                f"n_components={wanted} must be between {low} and "
                f"min(n_samples, n_features)={least} with svd_solver={solver!r}"
            )
        if solver == "arpack" and wanted == least:
            raise ValueError(
                f"n_components={wanted} must be strictly less than "
                f"min(n_samples, n_features)={least} with svd_solver={solver!r}"
            )
        return wanted

    def _randomized(self, run: Passes, count: int) -> tuple[Any, float, Any, Any]:
        _, mean, squares = run.run(column_moments, combine=merged_columns)
        turns = 7 if self.iterated_power == "auto" else self.iterated_power
        squared, components = main_directions(
            run, mean, count, self.n_oversamples, turns, seed_of(run, self.random_state)
        )
        spare = max(run.n - 1, 1)
        return mean, float(squares.sum() / spare), squared / spare, components

    def _learn(
        self, run: Passes, wanted: Any, mean: Any, total: float, variances: Any, components: Any
    ) -> None:
        least = min(run.n, run.p)
        variances = np.maximum(variances[:least], 0.0)
        components = components[:least]
        _, components = svd_flip(None, components, u_based_decision=False)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = variances / total
        if wanted == "mle":
            wanted = _infer_dimension(variances, run.n)
        elif 0 < wanted < 1:
            wanted = int(np.searchsorted(np.cumsum(ratios), wanted, side="right")) + 1
        wanted = int(wanted)
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        self.noise_variance_ = 0.0
        if wanted < least:
            if len(variances) == least:
                self.noise_variance_ = float(variances[wanted:].mean())
            else:
                self.noise_variance_ = float(total - variances[:wanted].sum()) / (least - wanted)
        self.n_samples_, self.n_components_ = run.n, wanted
        self.mean_ = mean.astype(kind)
        self.components_ = np.ascontiguousarray(components[:wanted], dtype=kind)
        self.explained_variance_ = variances[:wanted].astype(kind)
        self.explained_variance_ratio_ = ratios[:wanted].astype(kind)
        self.singular_values_ = np.sqrt(variances[:wanted] * max(run.n - 1, 0)).astype(kind)


def _spectrum(run: Passes, solver: str) -> tuple[Any, Any, Any]:
    """Means, variances and directions, greatest first."""
    spare = max(run.n - 1, 1)
    if run.is_sparse and run.p > MOST_COLUMNS:
        raise InvalidArgumentError(
            f"X has {run.p} columns; above {MOST_COLUMNS} use svd_solver='randomized', or "
            "TruncatedSVD"
        )
    if solver == "full":
        _, mean, _ = run.run(column_moments, combine=merged_columns)
        factor = run.run(triangle, mean, combine=merged_triangle)
        _, values, components = scipy.linalg.svd(factor, full_matrices=False)
        return mean, values**2 / spare, components
    _, mean, spread, _ = run.run(scatter, combine=merged_scatter)
    values, vectors = scipy.linalg.eigh(spread / spare)
    return mean, values[::-1], np.ascontiguousarray(vectors[:, ::-1].T)


def turned(x: Any, y: Any, w: Any, centre: Any, directions: Any) -> Any:
    """``(X - centre)ᵀ (X - centre) Q``, and ``Qᵀ`` times that."""
    ahead = x @ directions - centre @ directions
    back = x.T @ ahead - np.outer(centre, ahead.sum(axis=0))
    return np.asarray(back), ahead.T @ ahead


def main_directions(
    run: Passes, centre: Any, count: int, more: int, turns: int, seed: int
) -> tuple[Any, Any]:
    """Squares of the largest singular values, and their right vectors, by subspace iteration
    (N. Halko, P. G. Martinsson, J. A. Tropp, 2011)."""
    width = min(count + more, run.p)
    random = np.random.Generator(np.random.Philox(seed))
    directions = np.linalg.qr(random.standard_normal((run.p, width)))[0]
    for _ in range(turns + 1):
        directions = np.linalg.qr(run.run(turned, centre, directions)[0])[0]
    _, inner = run.run(turned, centre, directions)
    squares, vectors = scipy.linalg.eigh(inner)
    components = (directions @ vectors[:, ::-1]).T
    return np.maximum(squares[::-1][:count], 0.0), components[:count]


class TruncatedSVD(Distributed, sk.TruncatedSVD):
    """Largest singular vectors of rows in chunks, not centred; dense or sparse.

    Up to 4096 columns the products of the columns are added up in one pass (both algorithms then
    give the exact vectors); above that ``n_iter`` passes turn random directions to the main ones.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[3.0, 0.0], [0.0, 1.0], [4.0, 0.0]])
    >>> ml.TruncatedSVD(1).fit(X).singular_values_
    array([5.])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(
            self, X, checkpoint=checkpoint, accept_sparse=True, min_features=2
        )  # fmt: skip
        count = self.n_components
        if self.algorithm == "randomized" and count > run.p:
            raise ValueError(f"n_components({count}) must be <= n_features({run.p}).")
        if run.p <= MOST_COLUMNS:
            weight, mean, spread, _ = run.run(scatter, combine=merged_scatter)
            product = spread + weight * np.outer(mean, mean)
            values, vectors = scipy.linalg.eigh(product)
            squares, components = values[::-1][:count], vectors[:, ::-1].T[:count]
            total = float(np.trace(spread)) / run.n
        else:
            _, mean, sums = run.run(column_moments, combine=merged_columns)
            squares, components = main_directions(
                run, np.zeros(run.p), count, self.n_oversamples, self.n_iter,
                seed_of(run, self.random_state),
            )  # fmt: skip
            total = float(sums.sum()) / run.n
        _, components = svd_flip(None, components, u_based_decision=False)
        squares = np.maximum(squares, 0.0)
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        self.components_ = np.ascontiguousarray(components, dtype=kind)
        self.singular_values_ = np.sqrt(squares).astype(kind)
        variances = np.maximum(squares / run.n - (components @ mean) ** 2, 0.0)
        self.explained_variance_ = variances.astype(kind)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.explained_variance_ratio_ = (variances / total).astype(kind)
        return self


class FactorAnalysis(Distributed, sk.FactorAnalysis):
    """Factor analysis over rows in chunks; parameters as `sklearn.decomposition`'s.

    One pass makes the covariance matrix, which is all that the model depends on.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.random.default_rng(0).standard_normal((50, 3))
    >>> ml.FactorAnalysis(2).fit(X).components_.shape
    (2, 3)
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(self, X, checkpoint=checkpoint)
        weight, mean, spread, _ = run.run(scatter, combine=merged_scatter)
        values, vectors = scipy.linalg.eigh(spread / weight)
        root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * np.sqrt(run.p)
        # Each row and its opposite: their mean is 0, their covariance that of all rows.
        options = self.get_params(deep=False)
        options["tol"] = self.tol * 2 * run.p / run.n  # of a sum over so many rows
        twin = self._sklearn_class(**options).fit(np.vstack([root, -root]))
        for name, value in vars(twin).items():
            if name.endswith("_") and name not in ("n_features_in_", "feature_names_in_"):
                setattr(self, name, value)
        self.mean_ = mean
        self.loglike_ = [value * run.n / (2 * run.p) for value in twin.loglike_]
        return self
