"""Selection of columns over rows in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
import sklearn.feature_selection as sk

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, is_distributed
from agentic_ray.ml.bayes import any_negative, class_moments, class_sums, either
from agentic_ray.ml.moments import (
    column_moments,
    extremes,
    merged_columns,
    merged_extremes,
    merged_scatter,
    scatter,
)


class VarianceThreshold(Distributed, sk.VarianceThreshold):
    """Columns whose variance is above a threshold; one pass, or two where it is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> ml.VarianceThreshold().fit_transform(np.array([[1.0, 0.0], [2.0, 0.0]])).ravel()
    array([1., 2.])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find the variances.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(self, X, checkpoint=checkpoint, accept_sparse=True, allow_nan=True)
        weight, _, squares = run.run(column_moments, combine=merged_columns)
        self.variances_ = squares / np.where(weight > 0, weight, np.nan)
        if self.threshold == 0:
            least, greatest = run.run(extremes, combine=merged_extremes)
            self.variances_ = np.fmin(self.variances_, greatest - least)
        if not (self.variances_ > self.threshold).any():
            more = " (X contains only one sample)" if run.n == 1 else ""
            raise ValueError(
                f"No feature in X meets the variance threshold {self.threshold:.5f}{more}"
            )
        return self


def _f_of_classes(run: Any) -> Any:
    count = len(encode_labels(run))
    weight, mean, squares = run.run(class_moments, count, combine=merged_columns)
    total = (weight[0], mean[0], squares[0])
    for part in zip(weight[1:], mean[1:], squares[1:], strict=True):
        total = merged_columns(total, part)
    within = squares.sum(axis=0)
    between = (weight * (mean - total[1]) ** 2).sum(axis=0)
    free = run.n - count
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (between / (count - 1)) / (within / free)
    return found, scipy.stats.f.sf(found, count - 1, free)


def _f_of_numbers(run: Any) -> Any:
    _, _, spread, n = run.run(scatter, combine=merged_scatter)
    p = run.p
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.minimum(spread[:p, p] ** 2 / (np.diag(spread)[:p] * spread[p, p]), 1.0)
        found = squared / (1.0 - squared) * (n - 2)
    found = np.where(np.isnan(squared), 0.0, found)  # a constant column or target tells nothing
    chances = scipy.stats.f.sf(found, 1, n - 2)
    return np.where(np.isinf(found), np.finfo(np.float64).max, found), chances


def _chi2(run: Any) -> Any:
    count = len(encode_labels(run))
    if run.run(any_negative, combine=either):
        raise ValueError("Input X must be non-negative.")
    of_class, sums = run.run(class_sums, count, None)
    expected = np.outer(of_class / of_class.sum(), sums.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ((sums - expected) ** 2 / expected).sum(axis=0)
    return found, scipy.stats.chi2.sf(found, count - 1)


_SCORES = {
    sk.f_classif: (_f_of_classes, "labels"),
    sk.f_regression: (_f_of_numbers, "numeric"),
    sk.chi2: (_chi2, "labels"),
}


class _Filter(Distributed):
    """`fit` of a filter of columns by a score of each."""

    def fit(self: Any, X: Any, y: Any = None) -> Any:
        """Score the columns: one or two passes.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        InvalidArgumentError
            ``score_func`` is none of f_classif, f_regression and chi2, and the data are in chunks.
        """
        if not is_distributed(X):
            return self._sklearn_class.fit(self, X, y)
        if self.score_func not in _SCORES:
            names = ", ".join(function.__name__ for function in _SCORES)
            raise InvalidArgumentError(f"score_func of data in chunks must be one of {names}")
        score, target = _SCORES[self.score_func]
        sparse = self.score_func is not sk.f_classif
        run = begin(self, X, y, target=target, accept_sparse=sparse)
        self._check_params(run.x, y)
        self.scores_, self.pvalues_ = score(run)
        return self


class SelectKBest(_Filter, sk.SelectKBest):
    """The k columns with the best scores.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [0.1, 0.0], [5.0, 1.0], [5.1, 0.0]])
    >>> ml.SelectKBest(k=1).fit(X, [0, 0, 1, 1]).get_support()
    array([ True, False])
    """


class SelectPercentile(_Filter, sk.SelectPercentile):
    """The columns with the best scores, a share of all.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [0.1, 0.0], [5.0, 1.0], [5.1, 0.0]])
    >>> ml.SelectPercentile(percentile=50).fit(X, [0, 0, 1, 1]).get_support()
    array([ True, False])
    """
