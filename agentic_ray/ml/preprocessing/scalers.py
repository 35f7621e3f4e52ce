"""Scaling of columns over rows in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.preprocessing as sk
from sklearn.preprocessing._data import _handle_zeros_in_scale, _is_constant_feature

from agentic_ray.ml.base import Distributed, begin, positive_weight
from agentic_ray.ml.moments import column_moments, extremes, merged_columns, merged_extremes


class StandardScaler(Distributed, sk.StandardScaler):
    """Columns less their mean, by their standard deviation; one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> ml.StandardScaler().fit_transform(np.array([[1.0], [3.0]]))
    array([[-1.],
           [ 1.]])
    """

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None
    ) -> Any:  # fmt: skip
        """Find means and deviations.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(
            self, X, None, sample_weight, checkpoint=checkpoint, accept_sparse=True, allow_nan=True
        )
        if run.is_sparse and self.with_mean:
            raise ValueError(
                "Cannot center sparse matrices: pass `with_mean=False` instead. See docstring for "
                "motivation and alternatives."
            )
        weight, mean, squares = run.run(column_moments, combine=merged_columns)
        if sample_weight is not None:
            positive_weight(float(np.max(weight, initial=0.0)))
        safe = np.where(weight > 0, weight, np.nan)
        means, variances = np.where(weight > 0, mean, np.nan), squares / safe
        same = bool(np.ptp(weight) == 0) if len(weight) else True
        seen = weight[0] if same and len(weight) else weight
        if sample_weight is None:
            seen = np.asarray(seen).astype(np.int64)[()]
        self.n_samples_seen_ = seen
        self.mean_ = self.var_ = self.scale_ = None
        if self.with_mean or self.with_std:
            self.mean_ = means
        if run.is_sparse and not self.with_mean and not self.with_std:
            self.mean_ = None
        if self.with_std:
            self.var_ = variances = np.where(np.isfinite(variances), variances, np.nan)
            constant = _is_constant_feature(variances, means, weight)
            self.scale_ = _handle_zeros_in_scale(
                np.sqrt(variances), copy=False, constant_mask=constant
            )
        return self


class MinMaxScaler(Distributed, sk.MinMaxScaler):
    """Columns brought to a range by their least and greatest value; one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> ml.MinMaxScaler().fit_transform(np.array([[1.0], [3.0], [2.0]])).ravel()
    array([0. , 1. , 0.5])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find the extremes.

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
        low, high = self.feature_range
        if low >= high:
            raise ValueError(
                "Minimum of desired feature range must be smaller than maximum. Got "
                f"{self.feature_range}."
            )
        if hasattr(X, "tocsr") or _has_sparse_chunks(X):
            raise TypeError(
                "MinMaxScaler does not support sparse input. Consider using MaxAbsScaler instead."
            )
        run = begin(self, X, checkpoint=checkpoint, allow_nan=True)
        least, greatest = run.run(extremes, combine=merged_extremes)
        self.data_min_, self.data_max_ = least, greatest
        self.data_range_ = greatest - least
        self.scale_ = (high - low) / _handle_zeros_in_scale(self.data_range_, copy=True)
        self.min_ = low - least * self.scale_
        self.n_samples_seen_ = run.n
        return self


def _has_sparse_chunks(X: Any) -> bool:
    return hasattr(getattr(X, "sample", None), "tocsr")


class MaxAbsScaler(Distributed, sk.MaxAbsScaler):
    """Columns by their greatest magnitude; one pass, dense or sparse.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> ml.MaxAbsScaler().fit_transform(np.array([[1.0], [-4.0]])).ravel()
    array([ 0.25, -1.  ])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find the greatest magnitudes.

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
        least, greatest = run.run(extremes, combine=merged_extremes)
        self.max_abs_ = np.maximum(np.abs(least), np.abs(greatest))
        self.scale_ = _handle_zeros_in_scale(self.max_abs_, copy=True)
        self.n_samples_seen_ = run.n
        return self
