"""Gaussian mixtures over rows in chunks, by expectation and maximisation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.mixture as sk
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, is_distributed, seed_of
from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.cluster.kmeans import KMeans
from agentic_ray.ml.data import rows
from agentic_ray.ml.passes import Passes, row_blocks


def expectation(x: Any, y: Any, w: Any, model: Any, centres: Any) -> Any:
    """The log-likelihood of rows, and for each component the weight of what it is responsible
    for, the sum of that less ``centres``, and its scatter about them."""
    count, p = centres.shape
    full = model.covariance_type in ("full", "tied")
    total, weights, sums = 0.0, np.zeros(count), np.zeros((count, p))
    spread = np.zeros((count, p, p) if full else (count, p))
    for part in row_blocks(x, 1 << 16):
        block = np.asarray(x[part], dtype=np.float64)
        if w is None:
            likelihood, logs = model._estimate_log_prob_resp(block)
            total += float(likelihood.sum())
            share = np.exp(logs)
        else:  # labels to begin with
            share = (w[part][:, None] == np.arange(count)).astype(np.float64)
        weights += share.sum(axis=0)
        for k in range(count):
            apart = block - centres[k]
            own = share[:, k]
            sums[k] += own @ apart
            if full:
                spread[k] += (apart * own[:, None]).T @ apart
            else:
                spread[k] += own @ (apart * apart)
    return total, weights, sums, spread


class GaussianMixture(Distributed, sk.GaussianMixture):
    """A mixture of normal distributions over rows in chunks; parameters as `sklearn.mixture`'s.

    One pass for each iteration. It starts from `KMeans` of this package, or from random rows
    (``init_params="random_from_data"``); ``"random"`` and ``"k-means++"`` are refused.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [0.2], [-0.2], [9.0], [9.2], [8.8]])
    >>> model = ml.GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(model.means_.ravel().round(3).tolist())
    [0.0, 9.0]
    """

    def bic(self, X: Any) -> float:
        """The Bayesian information criterion of data; less is better."""
        if not is_distributed(X):
            return float(sk.GaussianMixture.bic(self, X))
        n = len(rows(X))
        return float(-2 * self.score(X) * n + self._n_parameters() * np.log(n))

    def aic(self, X: Any) -> float:
        """Akaike's information criterion of data; less is better."""
        if not is_distributed(X):
            return float(sk.GaussianMixture.aic(self, X))
        return float(-2 * self.score(X) * len(rows(X)) + 2 * self._n_parameters())

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(self, X, checkpoint=checkpoint, min_samples=2)
        if run.n < self.n_components:
            raise ValueError(
                "Expected n_samples >= n_components but got n_components = "
                f"{self.n_components}, n_samples = {run.n}"
            )
        self._check_parameters(np.zeros((1, run.p)), xp=np)
        again = self.warm_start and hasattr(self, "converged_")
        starts = 1 if again else self.n_init
        best: tuple[float, dict[str, Any]] | None = None
        seed = seed_of(run, self.random_state)
        for start in range(starts):
            if not again:
                self._start(run, (seed, start))
            bound, learnt = self._iterate(run)
            if best is None or bound > best[0]:
                best = (bound, learnt)
        assert best is not None
        for name, value in best[1].items():
            setattr(self, name, value)
        if not self.converged_:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, "
                "or increase max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _iterate(self, run: Passes) -> tuple[float, dict[str, Any]]:
        bound, bounds, converged, turn = -np.inf, [], False, 0
        for turn in range(1, self.max_iter + 1):  # noqa: B007
            found = run.run(expectation, self._twin(), self.means_)
            before, bound = bound, found[0] / run.n
            self._maximise(run, *found[1:])
            bounds.append(bound)
            run.progress.iteration(-bound)
            if abs(bound - before) < self.tol:
                converged = True
                break
        names = ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_")
        learnt = {name: getattr(self, name) for name in names}
        learnt |= {
            "lower_bound_": bound,
            "lower_bounds_": bounds,
            "converged_": converged,
            "n_iter_": turn,
        }
        return bound, learnt

    def _twin(self) -> Any:
        """The model as it is, which chunks are sent."""
        twin = sk.GaussianMixture(self.n_components, covariance_type=self.covariance_type)
        for name in ("weights_", "means_", "precisions_cholesky_"):
            setattr(twin, name, getattr(self, name))
        return twin

    def _maximise(self: Any, run: Passes, weights: Any, sums: Any, spread: Any) -> None:
        tiny = 10 * np.finfo(np.float64).eps
        weights = weights + tiny
        moved = sums / weights[:, None]
        means = self.means_ + moved
        p = means.shape[1]
        kind = self.covariance_type
        if kind in ("full", "tied"):
            spread = spread - weights[:, None, None] * (moved[:, :, None] * moved[:, None, :])
            if kind == "full":
                covariances = spread / weights[:, None, None]
                covariances[:, np.arange(p), np.arange(p)] += self.reg_covar
            else:
                covariances = spread.sum(axis=0) / weights.sum()
                covariances[np.arange(p), np.arange(p)] += self.reg_covar
        else:
            covariances = spread / weights[:, None] - moved**2 + self.reg_covar
            if kind == "spherical":
                covariances = covariances.mean(axis=1)
        self.weights_ = weights / weights.sum()
        self.means_, self.covariances_ = means, covariances
        self.precisions_cholesky_ = _compute_precision_cholesky(covariances, kind)
        self._set_precisions()

    def _set_precisions(self) -> None:
        roots = self.precisions_cholesky_
        if self.covariance_type == "full":
            self.precisions_ = np.array([root @ root.T for root in roots])
        elif self.covariance_type == "tied":
            self.precisions_ = roots @ roots.T
        else:
            self.precisions_ = roots**2

    def _start(self, run: Passes, seed: tuple[int, ...]) -> None:
        count = self.n_components
        if self.init_params == "kmeans":
            model = KMeans(count, n_init=1, random_state=np.random.RandomState(sum(seed) % 2**31))
            data = run.x
            model.fit(data)
            labels = model.labels_
            self.means_ = model.cluster_centers_.astype(np.float64)
        elif self.init_params == "random_from_data":
            seeds = [(*seed, i) for i in range(len(run.x.lengths))]
            _, drawn, _ = run.run(lloyd.draw_rows, count, combine=lloyd.merged_draw, numbered=seeds)
            self.means_ = drawn
            labels = run.x.then(Closest(drawn))
        else:
            raise InvalidArgumentError(
                f"init_params={self.init_params!r} is not taken here; use 'kmeans' or "
                "'random_from_data'"
            )
        run.weight = labels
        found = run.run(expectation, sk.GaussianMixture(count, covariance_type=self.covariance_type), self.means_)  # noqa: E501  # fmt: skip
        run.weight = None
        self._maximise(run, *found[1:])
        if self.weights_init is not None:
            self.weights_ = np.asarray(self.weights_init)
        if self.means_init is not None:
            self.means_ = np.asarray(self.means_init)
        if self.precisions_init is not None:
            self._initialize_precisions()

    def _initialize_precisions(self) -> None:
        given = np.asarray(self.precisions_init)
        if self.covariance_type == "full":
            self.precisions_cholesky_ = np.array([np.linalg.cholesky(part) for part in given])
        elif self.covariance_type == "tied":
            self.precisions_cholesky_ = np.linalg.cholesky(given)
        else:
            self.precisions_cholesky_ = np.sqrt(given)
        self._set_precisions()


class Closest:
    """A step: the number of the closest of some rows."""

    def __init__(self, centres: Any) -> None:
        self._centres = centres

    def __call__(self, block: Any) -> Any:
        squares = (self._centres * self._centres).sum(axis=1)
        return lloyd.nearest(np.asarray(block, np.float64), self._centres, squares)[0]
