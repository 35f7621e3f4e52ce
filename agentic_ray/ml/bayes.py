"""Naive Bayes classifiers over rows in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import sklearn.naive_bayes as sk

from agentic_ray.ml.base import Distributed, begin, encode_labels, positive_weight
from agentic_ray.ml.moments import column_moments, merged_columns
from agentic_ray.ml.passes import row_blocks


def class_moments(x: Any, y: Any, w: Any, count: int) -> Any:
    """For each class and column the weight, the mean and the sum of squares about it."""
    total = None
    for rows in row_blocks(x, 1 << 17):
        block = np.asarray(x[rows], dtype=np.float64)
        codes = y[rows].astype(np.int64)
        n = len(codes)
        own = np.ones(n) if w is None else w[rows]
        chosen = sp.csc_array((own, codes, np.arange(n + 1)), shape=(count, n))
        weight = np.bincount(codes, own, count)[:, None] * np.ones(block.shape[1])
        mean = (chosen @ block) / np.where(weight > 0, weight, 1.0)
        apart = block - mean[codes]
        part = (weight, mean, chosen @ (apart * apart))
        total = part if total is None else merged_columns(total, part)
    if total is None:
        zero = np.zeros((count, x.shape[1]))
        return zero, zero, zero
    return total


class GaussianNB(Distributed, sk.GaussianNB):
    """Naive Bayes with normal distributions; two passes.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.GaussianNB().fit(np.array([[0.0], [1.0], [5.0], [6.0]]), [0, 0, 1, 1])
    >>> model.predict([[0.2], [5.2]])
    array([0, 1])
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(self, X, y, sample_weight, checkpoint=checkpoint, target="labels")
        self.classes_ = encode_labels(run)
        count = len(self.classes_)
        weight, mean, squares = run.run(class_moments, count, combine=merged_columns)
        n, _, total = _all_classes(weight, mean, squares)
        self.epsilon_ = self.var_smoothing * float((total / np.where(n > 0, n, 1.0)).max())
        if sample_weight is not None:  # the smoothing is of all rows alike, as scikit-learn's
            seen, _, spread = _unweighted(run)
            self.epsilon_ = self.var_smoothing * float((spread / seen).max())
        self.class_count_ = weight[:, 0].copy()
        self.theta_ = mean
        self.var_ = squares / np.where(weight > 0, weight, 1.0) + self.epsilon_
        self.class_prior_ = self._prior(count)
        return self

    def _prior(self, count: int) -> Any:
        if self.priors is None:
            return self.class_count_ / positive_weight(self.class_count_.sum())
        priors = np.asarray(self.priors)
        if len(priors) != count:
            raise ValueError("Number of priors must match number of classes.")
        if not np.isclose(priors.sum(), 1.0):
            raise ValueError("The sum of the priors should be 1.")
        if (priors < 0).any():
            raise ValueError("Priors must be non-negative.")
        return priors


def _all_classes(weight: Any, mean: Any, squares: Any) -> Any:
    total = (weight[0], mean[0], squares[0])
    for part in zip(weight[1:], mean[1:], squares[1:], strict=True):
        total = merged_columns(total, part)
    return total


def _unweighted(run: Any) -> Any:
    weight, run.weight = run.weight, None
    try:
        return run.run(column_moments, combine=merged_columns)
    finally:
        run.weight = weight


def class_sums(x: Any, y: Any, w: Any, count: int, threshold: Any) -> Any:
    """For each class its weight and the sums of the columns; with a threshold, of those above."""
    codes = y.astype(np.int64)
    n = len(codes)
    if threshold is not None:
        x = (x > threshold).astype(np.float64)
    own = np.ones(n) if w is None else w
    chosen = sp.csr_array(sp.csc_array((own, codes, np.arange(n + 1)), shape=(count, n)))
    sums = chosen @ x
    return np.bincount(codes, own, count), sums.toarray() if sp.issparse(sums) else sums


class _Counted(Distributed):
    """Naive Bayes by counts."""

    _counts = False

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True, target="labels"
        )
        self.classes_ = encode_labels(run)
        count = len(self.classes_)
        self.class_count_, sums = run.run(class_sums, count, getattr(self, "binarize", None))
        if self._counts and run.run(any_negative, combine=either):
            raise ValueError(f"Negative values in data passed to {type(self).__name__} (input X).")
        self.feature_count_ = sums
        self._update_feature_log_prob(self._check_alpha())
        self._update_class_log_prior(class_prior=self.class_prior)
        return self


def any_negative(x: Any, y: Any, w: Any) -> Any:
    """Whether a chunk has a negative value."""
    values = x.data if sp.issparse(x) else x
    return bool((values < 0).any())


def either(left: Any, right: Any) -> Any:
    """Whether one of both is true."""
    return left or right


class MultinomialNB(_Counted, sk.MultinomialNB):
    """Naive Bayes for counts, such as those of words; dense or sparse.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.MultinomialNB().fit(np.array([[3, 0], [2, 1], [0, 4]]), ["a", "a", "b"])
    >>> model.predict([[1, 0], [0, 1]])
    array(['a', 'b'], dtype='<U1')
    """

    _counts = True


class BernoulliNB(_Counted, sk.BernoulliNB):
    """Naive Bayes for columns that are there or not; dense or sparse.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.BernoulliNB().fit(np.array([[1, 0], [1, 1], [0, 1]]), ["a", "a", "b"])
    >>> model.predict([[1, 0], [0, 1]])
    array(['a', 'b'], dtype='<U1')
    """
