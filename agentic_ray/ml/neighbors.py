"""Nearest neighbours among rows in chunks: exact, block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import sklearn.neighbors as sk
from scipy.sparse import issparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, is_distributed
from agentic_ray.ml.data import offsets, rows
from agentic_ray.ml.passes import Passes, each_chunk

SPARE = 4
"""Further rows that are looked at: distances that differ in their last bits may change places."""
AT_ONCE_ELEMENTS = 1 << 20
"""Elements of differences that are in memory at a time."""


def nearest_rows(
    x: Any, y: Any, w: Any, queries: Any, count: int, options: Any, start: int
) -> Any:  # fmt: skip
    """Find the nearest rows of a chunk for each query: distances, positions, and targets; and how
    many are wanted, of which a chunk may have fewer."""
    few = min(count, x.shape[0])
    if not few:
        empty = np.zeros((queries.shape[0], 0))
        none = empty.astype(np.int64)
        return empty, none, None if y is None else y[:0][none], count
    more = min(few + SPARE, x.shape[0])
    finder = sk.NearestNeighbors(n_neighbors=more, algorithm="brute", **options).fit(x)
    distances, positions = finder.kneighbors(queries)
    if finder.effective_metric_ == "euclidean" and not (issparse(x) or issparse(queries)):
        distances = _euclidean(queries, x, positions)
        order = np.lexsort((positions, distances), axis=1)
        distances, positions = (np.take_along_axis(a, order, 1) for a in (distances, positions))
    distances, positions = distances[:, :few], positions[:, :few]
    return distances, positions + start, None if y is None else y[positions], count


def _euclidean(queries: Any, x: Any, positions: Any) -> Any:
    """Compute the distance of each query to the rows at its positions.

    The search computes ``|a|² - 2ab + |b|²``, of which little is left for rows that are close: a
    row's distance to itself is then not zero, on some processors, and its weight not infinite.
    """
    found = np.empty(positions.shape)
    rows_at_once = max(AT_ONCE_ELEMENTS // max(positions.shape[1] * x.shape[1], 1), 1)
    for low in range(0, len(positions), rows_at_once):
        part = slice(low, low + rows_at_once)
        found[part] = np.linalg.norm(queries[part, None, :] - x[positions[part]], axis=2)
    return found


def merged_nearest(left: Any, right: Any) -> Any:
    """The nearest of both; of equal ones those that come first."""
    count = left[-1]
    both: list[Any] = [
        None if a is None else np.concatenate([a, b], axis=1)
        for a, b in zip(left[:-1], right[:-1], strict=True)
    ]
    order = np.argsort(both[0], axis=1, kind="stable")[:, :count]
    at = np.arange(len(order))[:, None]
    return (*[None if part is None else part[at, order] for part in both], count)


def flattened(block: Any) -> Any:
    """A step: a table of one column as a vector, with scikit-learn's warning."""
    return column_or_1d(np.asarray(block), warn=True)


def labels_by_column(x: Any, y: Any, w: Any) -> Any:
    """The labels in each column of a chunk."""
    table = np.asarray(y)
    check_classification_targets(table)
    return tuple([np.unique(table[:, at]) for at in range(table.shape[1])])


def merged_labels(left: Any, right: Any) -> Any:
    """The labels of two lots of rows, column by column."""
    return tuple([np.union1d(a, b) for a, b in zip(left, right, strict=True)])


@dataclass(frozen=True, eq=False)
class CodesByColumn:
    """A step: the position of each label among the classes of its column, as floats."""

    classes: tuple[Any, ...]

    def __call__(self, block: Any) -> Any:
        table = np.asarray(block)
        found = [np.searchsorted(own, table[:, at]) for at, own in enumerate(self.classes)]
        return np.column_stack(found).astype(np.float64)


class _Neighbours(Distributed):
    """Rows to be searched. Data in memory are scikit-learn's own to search.

    Attributes
    ----------
    _target : str or None
    """

    _target: str | None = None
    _run: Passes | None = None

    def fit(self: Any, X: Any, y: Any = None) -> Any:
        """Remember the rows; persist an `Array` first, or it is computed for each search.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows, where the estimator predicts

        Returns
        -------
        self
        """
        self.__dict__.pop("_run", None)
        if not is_distributed(X):
            if self._target is None:
                return self._sklearn_class.fit(self, X, y)
            return self._sklearn_class.fit(self, X, y)
        if self.algorithm not in ("auto", "brute"):
            raise InvalidArgumentError(
                f"algorithm={self.algorithm!r} is not taken for data in chunks; use 'brute'"
            )
        run = begin(self, X, y, target=self._target, accept_sparse=True, multi_output=True)
        if self._target == "labels":
            self._encode(run)
        self.n_samples_fit_ = run.n
        self.effective_metric_ = self.metric
        self._run = run
        return self

    def _encode(self: Any, run: Passes) -> None:
        """Make positions among the classes of each column of labels; several columns are several
        outputs."""
        assert run.y is not None
        self.outputs_2d_ = run.y.ndim == 2 and run.y.shape[1] > 1
        if not self.outputs_2d_:
            if run.y.ndim == 2:
                run.y = run.y.then(flattened)
            self.classes_ = encode_labels(run)
            return
        only = Passes(run.y, run.y, None, replace(run.check, as_table=True), None, run.progress)
        self.classes_ = list(only.run(labels_by_column, combine=merged_labels))
        run.y = run.y.then(CodesByColumn(tuple(self.classes_)))

    def kneighbors(
        self: Any, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """The nearest rows of each of ``X``: distances and positions; one pass for each chunk of
        ``X``.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_queries, n_features)
        n_neighbors : int, optional
        return_distance : bool
        """
        if self._run is None:
            if is_distributed(X):
                parts = each_chunk([rows(X)], searched, self.to_sklearn(), n_neighbors)
                found = tuple([np.concatenate(part) for part in zip(*parts, strict=True)])
                return found if return_distance else found[1]
            return self._sklearn_class.kneighbors(self, X, n_neighbors, return_distance)
        check_is_fitted(self)
        if X is None:
            raise InvalidArgumentError("give the rows to search for: X=None is not taken here")
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        if isinstance(count, bool) or not isinstance(count, Integral):
            raise TypeError(f"n_neighbors does not take {type(count)} value, enter integer value")
        if count <= 0:
            raise ValueError(f"Expected n_neighbors > 0. Got {count}")
        found = self._search(X, int(count))
        return (found[0], found[1]) if return_distance else found[1]

    def radius_neighbors(
        self: Any, X: Any = None, radius: Any = None, return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:  # fmt: skip
        """The rows within a radius; where the estimator was fitted on data in memory."""
        self._refuse_radius(X)
        return self._sklearn_class.radius_neighbors(self, X, radius, return_distance, sort_results)

    def radius_neighbors_graph(
        self: Any, X: Any = None, radius: Any = None, mode: str = "connectivity",
        sort_results: bool = False,
    ) -> Any:  # fmt: skip
        """The graph of that; where the estimator was fitted on data in memory."""
        self._refuse_radius(X)
        return self._sklearn_class.radius_neighbors_graph(self, X, radius, mode, sort_results)

    def _refuse_radius(self: Any, X: Any) -> None:
        if self._run is not None or is_distributed(X):
            raise InvalidArgumentError(
                "a search by radius is not there for data in chunks: its answer has no bound; use "
                "kneighbors"
            )

    def _search(self: Any, X: Any, count: int) -> Any:
        if count > self.n_samples_fit_:
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {count}, n_samples_fit ="
                f" {self.n_samples_fit_}, n_samples = {len(X)}"
            )
        if is_distributed(X):
            data = rows(X)
            queries = [data.take_chunks([i]).compute() for i in range(len(data.lengths))]
        else:
            queries = [X]
        least = 0 if is_distributed(X) else 1
        queries = [
            validate_data(
                self, block, reset=False, accept_sparse="csr", order="C", ensure_min_samples=least
            )
            for block in queries
        ]
        options = {
            "metric": self.metric,
            "p": self.p,
            "metric_params": self.metric_params,
        }
        starts = list(offsets(self._run.x.lengths))
        found = [
            self._run.run(
                nearest_rows, block, count, options, combine=merged_nearest, numbered=starts
            )[:-1]
            for block in queries
        ]
        return tuple(
            [None if part[0] is None else np.concatenate(part) for part in zip(*found, strict=True)]
        )

    def __getstate__(self) -> Any:
        if self._run is not None:
            raise InvalidArgumentError(
                f"a {type(self).__name__} of data in chunks cannot be pickled: it has no copy of "
                "them. Pickle its parameters (clone) and fit it where the data are"
            )
        return super().__getstate__()

    def to_sklearn(self) -> Any:
        """Return scikit-learn's own estimator; one of data in chunks takes all the rows along.

        Raises
        ------
        MemoryError
            They do not fit in this process.
        """
        if self._run is None:
            return super().to_sklearn()
        own: Any = self
        data = own._run.x.compute()
        twin = own._sklearn_class(**own.get_params(deep=False))
        if own._target is None:
            return twin.fit(data)
        targets = own._run.y.compute()
        if own._target == "labels":
            codes = targets.astype(np.int64)
            if own.outputs_2d_:
                columns = [c[codes[:, at]] for at, c in enumerate(own.classes_)]
                targets = np.column_stack(columns)
            else:
                targets = own.classes_[codes]
        return twin.fit(data, targets)


def searched(chunk: Any, model: Any, count: int | None) -> Any:
    """The nearest rows of those of a chunk."""
    return model.kneighbors(chunk, count)


class NearestNeighbors(_Neighbours, sk.NearestNeighbors):
    """A search for the nearest of rows in chunks: exact, block by block.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> import agentic_ray.array as xp
    >>> model = ml.NearestNeighbors(n_neighbors=1).fit(xp.asarray([[0.0], [5.0], [9.0]]))
    >>> model.kneighbors([[6.0]], return_distance=False)
    array([[1]])
    """


class _Predicting(_Neighbours):
    def _weights_of(self: Any, distances: Any) -> Any:
        if self.weights in (None, "uniform"):
            return np.ones_like(distances)
        if self.weights == "distance":
            with np.errstate(divide="ignore"):
                found = 1.0 / distances
            same = np.isinf(found)
            some = same.any(axis=1)
            found[some] = same[some]
            return found
        return self.weights(distances)


class KNeighborsClassifier(_Predicting, sk.KNeighborsClassifier):
    """Labels by the nearest of rows in chunks.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> import agentic_ray.array as xp
    >>> model = ml.KNeighborsClassifier(1).fit(xp.asarray([[0.0], [5.0]]), ["a", "b"])
    >>> model.predict([[1.0], [4.0]])
    array(['a', 'b'], dtype='<U1')
    """

    _target = "labels"

    def predict(self, X: Any) -> Any:
        """The label of each row of ``X``."""
        if self._run is None:
            return sk.KNeighborsClassifier.predict(self, _here(X))
        shares = self.predict_proba(X)
        if not self.outputs_2d_:
            return self.classes_[shares.argmax(axis=1)]
        columns = [c[p.argmax(axis=1)] for c, p in zip(self.classes_, shares, strict=True)]
        return np.column_stack(columns)

    def predict_proba(self, X: Any) -> Any:
        """The share of each class among the neighbours of each row; of several columns of labels a
        list, a table for each."""
        if self._run is None:
            return sk.KNeighborsClassifier.predict_proba(self, _here(X))
        distances, _, codes = self._search(X, self.n_neighbors)
        weights = self._weights_of(distances)
        if not self.outputs_2d_:
            return _shares(weights, codes, len(self.classes_))
        return [_shares(weights, codes[:, :, at], len(c)) for at, c in enumerate(self.classes_)]


def _shares(weights: Any, codes: Any, count: int) -> Any:
    """The share of each class in the weights of neighbours."""
    found = np.zeros((len(weights), count))
    for label in range(count):
        found[:, label] = (weights * (codes == label)).sum(axis=1)
    total = found.sum(axis=1, keepdims=True)
    return found / np.where(total > 0, total, 1.0)


class KNeighborsRegressor(_Predicting, sk.KNeighborsRegressor):
    """Numbers by the nearest of rows in chunks.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> import agentic_ray.array as xp
    >>> model = ml.KNeighborsRegressor(1).fit(xp.asarray([[0.0], [5.0]]), [1.0, 2.0])
    >>> model.predict([[1.0], [4.0]])
    array([1., 2.])
    """

    _target = "numeric"

    def predict(self, X: Any) -> Any:
        """The number of each row of ``X``."""
        if self._run is None:
            return sk.KNeighborsRegressor.predict(self, _here(X))
        distances, _, values = self._search(X, self.n_neighbors)
        weights = self._weights_of(distances)
        if values.ndim == 3:
            weights = weights[:, :, None]
        return (weights * values).sum(axis=1) / weights.sum(axis=1)


def _here(X: Any) -> Any:
    """Queries in memory."""
    return rows(X).compute() if is_distributed(X) else X
