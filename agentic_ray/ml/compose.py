"""Transformers of some columns beside each other, over tables in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.compose as sk
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from agentic_ray.errors import InvalidTypeError
from agentic_ray.ml.base import Distributed, as_sklearn, blockwise, is_distributed
from agentic_ray.ml.chunks import OfArray
from agentic_ray.ml.data import Rows, rows


@dataclass(frozen=True)
class Places:
    """A step: columns by their positions."""

    at: tuple[int, ...]

    def __call__(self, block: Any) -> Any:
        return block.iloc[:, list(self.at)] if hasattr(block, "iloc") else block[:, list(self.at)]


class ColumnTransformer(Distributed, sk.ColumnTransformer):
    """Transformers of some columns each, side by side; parameters as `sklearn.compose`'s.

    Each transformer is fitted over the chunks, by this package where it is an estimator of it;
    others are refused for data in chunks.

    Examples
    --------
    >>> import pandas as pd
    >>> from agentic_ray import ml
    >>> table = pd.DataFrame({"size": [1.0, 3.0], "colour": ["red", "blue"]})
    >>> columns = ml.ColumnTransformer(
    ...     [("size", ml.StandardScaler(), ["size"]), ("colour", ml.OneHotEncoder(), ["colour"])]
    ... )
    >>> columns.fit_transform(ml.rows(table, chunk_rows=1)).compute()
    array([[-1.,  0.,  1.],
           [ 1.,  1.,  0.]])
    """

    def fit(self: Any, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit each transformer on its columns.

        Parameters
        ----------
        X : table, array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows, optional

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.ColumnTransformer.fit(self, X, y, **params)
        data = rows(X)
        real = _real_row(data)
        frozen = []
        fitted: dict[str, Any] = {}
        for name, transformer, columns in self.transformers:
            if isinstance(transformer, str):
                frozen.append((name, transformer, columns))
                continue
            part = self._part(data, columns, real)
            if not part.shape[1]:
                frozen.append((name, transformer, columns))
                continue
            if not isinstance(transformer, Distributed) and not hasattr(transformer, "steps"):
                raise InvalidTypeError(
                    f"{type(transformer).__name__} cannot be fitted to data in chunks; use the one "
                    "of agentic_ray.ml"
                )
            fitted[name] = clone(transformer).fit(part, y)
            frozen.append((name, FrozenEstimator(as_sklearn(fitted[name])), columns))
        # scikit-learn's class learns from one row which columns go where.
        own, self.transformers = self.transformers, frozen
        try:
            sk.ColumnTransformer.fit_transform(self, real, None)
        finally:
            self.transformers = own
        self.transformers_ = [
            (name, fitted.get(name, getattr(part, "estimator", part)), columns)
            for name, part, columns in self.transformers_
        ]
        self.__dict__.pop("n_features_in_", None)
        self._check_n_features_of(real)
        return self

    def _check_n_features_of(self, real: Any) -> None:
        self.n_features_in_ = int(np.shape(real)[1])

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit, then transform the same data."""
        if not is_distributed(X):
            return sk.ColumnTransformer.fit_transform(self, X, y, **params)
        return self.fit(X, y).transform(X)

    def transform(self, X: Any, **params: Any) -> Any:
        """The transformed columns side by side."""
        if not is_distributed(X):
            return sk.ColumnTransformer.transform(self, X, **params)
        return blockwise(self, "transform", X)

    def _part(self, data: Rows, columns: Any, real: Any) -> Rows:
        """The columns of one transformer."""
        if callable(columns):
            columns = columns(real)
        single = isinstance(columns, str | int | np.integer)
        wanted = [columns] if single else list(columns)
        if all(isinstance(name, str) for name in wanted):
            return data[wanted[0]] if single else data[wanted]
        if all(isinstance(flag, bool | np.bool_) for flag in wanted):
            wanted = np.flatnonzero(wanted).tolist()
        places = [int(at) % int(data.shape[1]) for at in wanted]
        if isinstance(data.source, OfArray) and not data.steps:
            return rows(data.source.array[:, places])
        return data.then(Places(tuple(places)))


def _real_row(data: Rows) -> Any:
    """A row that is there: the one of ones that stands for an array may be none there could be."""
    if not isinstance(data.source, OfArray) or not len(data):
        return data.sample
    row = np.asarray(data.source.array[:1])
    for step in data.steps:
        row = step(row)
    return row
