"""Transformers of some columns beside each other, over tables in chunks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.compose as sk
import sklearn.pipeline as pipeline
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from agentic_ray.array import Array
from agentic_ray.errors import InvalidTypeError
from agentic_ray.ml.base import Distributed, as_sklearn, blockwise, is_distributed, transformed
from agentic_ray.ml.chunks import OfArray, Positions
from agentic_ray.ml.data import Rows, rows, together


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
        _refuse(self, params)
        self._fitted(rows(X), y)
        return self

    def _fitted(self: Any, data: Rows, y: Any) -> dict[str, Rows]:
        """Fit each transformer; give, by their names, what those make of these rows that encode
        each row by the others."""
        real = _real_row(data)
        frozen = []
        fitted: dict[str, Any] = {}
        made: dict[str, Rows] = {}
        for name, transformer, columns in self.transformers:
            if isinstance(transformer, str):
                frozen.append((name, transformer, columns))
                continue
            part = self._part(data, columns, real)
            if not part.shape[1]:
                frozen.append((name, transformer, columns))
                continue
            fitted[name] = fitted_to_chunks(name, transformer, part, y, made)
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
        return made

    def _check_n_features_of(self, real: Any) -> None:
        self.n_features_in_ = int(np.shape(real)[1])

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit, then transform the same data."""
        if not is_distributed(X):
            return sk.ColumnTransformer.fit_transform(self, X, y, **params)
        _refuse(self, params)
        data = rows(X)
        made = self._fitted(data, y)
        if not made:
            return self.transform(X)
        step = BesideKnown(self._for_steps(), tuple(made), data.sample)
        return transformed(together([data, *made.values()]), step, isinstance(X, Array))

    def transform(self, X: Any, **params: Any) -> Any:
        """The transformed columns side by side."""
        if not is_distributed(X):
            return sk.ColumnTransformer.transform(self, X, **params)
        _refuse(self, params)
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
        return data.then(Positions(places))


class FeatureUnion(Distributed, pipeline.FeatureUnion):
    """Transformers of the same columns, side by side; as `sklearn.pipeline`'s.

    Each transformer is fitted over the chunks, by this package where it is an estimator of it;
    others are refused for data in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> union = ml.FeatureUnion([("scaled", ml.StandardScaler()), ("main", ml.PCA(1))])
    >>> union.fit_transform(np.array([[1.0, 2.0], [3.0, 5.0]])).shape
    (2, 3)
    """

    def fit(self: Any, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit each transformer.

        Parameters
        ----------
        X : table, array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows, optional

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return pipeline.FeatureUnion.fit(self, X, y, **params)
        self._fitted(X, y, params)
        return self

    def _fitted(self: Any, X: Any, y: Any, params: Any) -> dict[str, Rows]:
        """As `ColumnTransformer`'s."""
        _refuse(self, params)
        self._validate_transformers()
        self._validate_transformer_weights()
        made: dict[str, Rows] = {}
        found = []
        for name, transformer in self.transformer_list:
            if isinstance(transformer, str):
                found.append((name, transformer))
                continue
            model = fitted_to_chunks(name, transformer, X, y, made)
            found.append((name, model))
        self.transformer_list = found
        return made

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit, then transform the same data."""
        if not is_distributed(X):
            return pipeline.FeatureUnion.fit_transform(self, X, y, **params)
        made = self._fitted(X, y, params)
        if not made:
            return self.transform(X)
        step = BesideKnown(self._for_steps(), tuple(made), rows(X).sample)
        return transformed(together([rows(X), *made.values()]), step, isinstance(X, Array))


def _refuse(estimator: Any, params: dict[str, Any]) -> None:
    """Refuse metadata, which transformers over chunks are not given.

    Raises
    ------
    InvalidTypeError
        There is some.
    """
    if params:
        raise InvalidTypeError(
            f"{type(estimator).__name__} takes no {', '.join(params)} with data in chunks: its "
            "transformers are given X and y alone"
        )


def fitted_to_chunks(name: str, transformer: Any, X: Any, y: Any, made: dict[str, Rows]) -> Any:
    """Fit a transformer to chunks and return it. If its `fit_transform` differs from `transform`,
    put the rows that `fit_transform` makes in the dict, under the transformer's name."""
    if not isinstance(transformer, Distributed) and not hasattr(transformer, "steps"):
        raise InvalidTypeError(
            f"{type(transformer).__name__} cannot be fitted to data in chunks; use the one of "
            "agentic_ray.ml"
        )
    model = clone(transformer)
    if not _cross_fits(model):
        return model.fit(X, y)
    made[name] = rows(model.fit_transform(X, y))
    return model


def _cross_fits(transformer: Any) -> bool:
    """Whether ``fit_transform`` is another thing than `fit`, then `transform`."""
    steps = [step for _, step in getattr(transformer, "steps", ())]
    parts = [
        part[1]
        for name in ("transformers", "transformer_list")
        for part in getattr(transformer, name, ())
    ]
    return getattr(transformer, "cross_fits", False) or any(map(_cross_fits, [*steps, *parts]))


class Known:
    """Takes the place of a fitted transformer; returns the rows that it has made of a chunk."""

    def __init__(self, transformer: Any, made: Any) -> None:
        self._transformer = transformer
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def transform(self, X: Any) -> Any:
        """Return the rows that were made before."""
        return self._made


@dataclass(frozen=True, eq=False)
class BesideKnown:
    """A step over a chunk and what some transformers made of it: all transformers side by side."""

    twin: Any
    names: tuple[str, ...]
    head: Any
    """The first row of the data, which gives a chunk without rows its columns and types."""

    def __call__(self, parts: Any) -> Any:
        block, *made = parts
        if not block.shape[0]:  # scikit-learn refuses no rows
            return self.twin.transform(self.head)[:0]
        known = dict(zip(self.names, made, strict=True))
        twin = copy.copy(self.twin)
        kept = "transformers_" if hasattr(twin, "transformers_") else "transformer_list"
        replaced = [
            (name, Known(part, known[name]) if name in known else part, *columns)
            for name, part, *columns in getattr(self.twin, kept)
        ]
        setattr(twin, kept, replaced)
        return twin.transform(block)


def _real_row(data: Rows) -> Any:
    """A row that is there: the one of ones that stands for an array may be none there could be."""
    if not isinstance(data.source, OfArray) or not len(data):
        return data.sample
    row = np.asarray(data.source.array[:1])
    for step in data.steps:
        row = step(row)
    return row
