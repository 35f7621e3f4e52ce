"""Generalised linear models with a log link over rows in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.linear_model as sk
from sklearn.metrics import mean_tweedie_deviance

from agentic_ray.ml.base import Distributed, begin, is_distributed, positive_weight
from agentic_ray.ml.linear.logistic import Problem
from agentic_ray.ml.metrics import pairs
from agentic_ray.ml.passes import Passes


def target_sums(x: Any, y: Any, w: Any) -> Any:
    """Weight, weighted sum and least value of the targets."""
    total = float(len(y) if w is None else w.sum())
    return total, float(y.sum() if w is None else y @ w), float(y.min(initial=np.inf))


def merged_targets(left: Any, right: Any) -> Any:
    """Merge the targets' summaries of two lots of rows."""
    return left[0] + right[0], left[1] + right[1], min(left[2], right[2])


def sums_of_targets(p: Any, y: Any, w: Any) -> Any:
    """As `target_sums`, of the targets beside predictions."""
    return target_sums(None, np.asarray(y, np.float64), w)


def deviances(p: Any, y: Any, w: Any, mean: float, power: float) -> Any:
    """The weighted sums of the Tweedie deviances of targets from predictions, and from ``mean``."""
    y = np.asarray(y, np.float64)
    if not len(y):
        return 0.0, 0.0
    total = float(len(y) if w is None else w.sum())
    if not total:
        return 0.0, 0.0
    return tuple(
        [
            total * float(mean_tweedie_deviance(y, made, sample_weight=w, power=power))
            for made in (np.asarray(p, np.float64), np.full(len(y), mean))
        ]
    )


class _Generalised(Distributed):
    """`fit` of a generalised linear model.

    Attributes
    ----------
    _power : float
        Of the Tweedie distribution whose deviance `score` is made of.
    """

    _power = 0.0

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model; some passes over the rows for each iteration.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run: Passes = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True, target="numeric"
        )
        loss, options, name, allowed = self._what()
        total, sums, least = run.run(target_sums, combine=merged_targets)
        positive_weight(total)
        if not allowed(least):
            raise ValueError(f"Some value(s) of y are out of the valid range of the loss {name!r}.")
        problem = Problem(run, 2, self.fit_intercept, None, total, loss, options)
        problem.l2 = self.alpha
        start = np.zeros(problem.size)
        if self.warm_start and hasattr(self, "coef_"):
            parts = [self.coef_, [self.intercept_]] if self.fit_intercept else [self.coef_]
            start = np.concatenate(parts).astype(np.float64)
        elif self.fit_intercept:
            mean = sums / total
            start[-1] = mean if options is not None and options[1] else np.log(mean)
        point, self.n_iter_ = problem.solve(self.solver, self.tol, self.max_iter, start)
        coef, intercept = problem.parts(point)
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        self.coef_ = coef.astype(kind)
        self.intercept_ = kind(intercept) if self.fit_intercept else 0.0
        self._base_loss = self._get_loss()
        return self

    def score(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """D², the share of the deviance that is explained; two passes over data in chunks.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        """
        if not is_distributed(X):
            return self._sklearn_class.score(self, X, y, sample_weight)
        run = pairs(y, self.predict(X), sample_weight)
        weight, sums, _ = run.run(sums_of_targets, combine=merged_targets)
        power = getattr(self, "power", self._power)
        rest, null = run.run(deviances, sums / positive_weight(weight), float(power))
        return float(1.0 - rest / null)

    def _what(self: Any) -> Any:
        """The loss, its options, its name for messages, and which least target it allows."""
        raise NotImplementedError


class PoissonRegressor(_Generalised, sk.PoissonRegressor):
    """Poisson regression with a log link; parameters as `sklearn.linear_model`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = ml.PoissonRegressor(alpha=0.0).fit(X, [1.0, 2.0, 4.0, 8.0])
    >>> float(np.exp(model.coef_[0]).round(3))
    2.0
    """

    _power = 1.0

    def _what(self) -> Any:
        return "poisson", None, "HalfPoissonLoss", lambda least: least >= 0


class GammaRegressor(_Generalised, sk.GammaRegressor):
    """Gamma regression with a log link; parameters as `sklearn.linear_model`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = ml.GammaRegressor(alpha=0.0).fit(X, [1.0, 2.0, 4.0, 8.0])
    >>> float(np.exp(model.coef_[0]).round(3))
    2.0
    """

    _power = 2.0

    def _what(self) -> Any:
        return "gamma", None, "HalfGammaLoss", lambda least: least > 0


class TweedieRegressor(_Generalised, sk.TweedieRegressor):
    """Regression with a Tweedie distribution; parameters as `sklearn.linear_model`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = ml.TweedieRegressor(power=1.5, alpha=0.0).fit(X, [1.0, 2.0, 4.0, 8.0])
    >>> float(np.exp(model.coef_[0]).round(3))
    2.0
    """

    def _what(self) -> Any:
        identity = self.link == "identity" or (self.link == "auto" and self.power <= 0)
        name = "HalfTweedieLossIdentity" if identity else "HalfTweedieLoss"

        def allowed(least: float) -> bool:
            return self.power <= 0 or (least >= 0 if self.power < 2 else least > 0)

        return "tweedie", (float(self.power), identity), name, allowed
