"""Encoders and imputers of tables in chunks.

Data in memory are scikit-learn's own to fit. Of data in chunks one pass makes what the estimator
has to know of each column, and scikit-learn fits a small table that has just that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.impute as imputing
import sklearn.preprocessing as sk
from sklearn.utils._encode import _unique

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, blockwise, is_distributed
from agentic_ray.ml.data import Rows, rows
from agentic_ray.ml.moments import column_moments, merged_columns
from agentic_ray.ml.passes import Check, Passes
from agentic_ray.ml.preprocessing.ranks import quantiles
from agentic_ray.ml.progress import Progress


def column_of(x: Any, at: int) -> Any:
    """Return a column of a chunk as an array: pandas' nullable numbers as floats, with NaN."""
    if not hasattr(x, "iloc"):
        return np.asarray(x)[:, at]
    column = x.iloc[:, at]
    kind = getattr(column.dtype, "numpy_dtype", column.dtype)
    if not isinstance(column.dtype, np.dtype) and getattr(kind, "kind", "O") in "biuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy()


def categories(x: Any, y: Any, w: Any, with_missing: bool) -> Any:
    """For each column its distinct values and how often each is there.

    Parameters
    ----------
    with_missing : bool
        Whether pandas' NA is taken, as NaN; else it is an error, as in scikit-learn's encoders.
    """
    found = []
    for at in range(x.shape[1]):
        column = column_of(x, at)
        if with_missing and column.dtype.kind == "O":
            column = np.array([_plain(value) for value in column], dtype=object)
        values, counts = _unique(column, return_counts=True)
        found.append((values, counts.astype(np.float64)))
    return tuple(found)


def _plain(value: Any) -> Any:
    """A missing value of pandas as NaN."""
    return np.nan if type(value).__name__ == "NAType" else value


def merged_categories(left: Any, right: Any) -> Any:
    """Merge the categories of two lots of rows."""
    return tuple([_merged(a, b) for a, b in zip(left, right, strict=True)])


def _merged(left: Any, right: Any) -> Any:
    values = np.concatenate([left[0], right[0]])
    counts = np.concatenate([left[1], right[1]])
    if values.dtype.kind != "O":
        distinct, at = np.unique(values, return_inverse=True)
        return distinct, np.bincount(at, counts, len(distinct))
    distinct = _unique(values)
    places: dict[Any, int] = {_hashed(value): i for i, value in enumerate(distinct)}
    found = [places[_hashed(value)] for value in values]
    return distinct, np.bincount(found, counts, len(distinct))


def _hashed(value: Any) -> Any:
    """NaN is not equal to itself; this is."""
    return "a NaN of floats" if isinstance(value, float) and value != value else (0, value)


def table_of(columns: list[Any], names: tuple[str, ...] | None) -> Any:
    """A small table of columns, the shorter ones repeated."""
    length = max(map(len, columns))
    full = [np.resize(column, length) for column in columns]
    if names is not None:
        import pandas as pd

        return pd.DataFrame(dict(zip(names, full, strict=True)))
    kinds = {column.dtype for column in full}
    dtype = np.result_type(*kinds) if all(k.kind in "biuf" for k in kinds) else object
    made = np.empty((length, len(full)), dtype)
    for at, column in enumerate(full):
        made[:, at] = column
    return made


def table_pass(data: Rows, estimator: Any) -> Passes:
    """The passes over a table as it is."""
    check = Check(dtype=None, as_table=True, name=type(estimator).__name__)
    return Passes(data, None, None, check, None, Progress(type(estimator).__name__))


class _Encoder(Distributed):
    """`fit` of an encoder of categories."""

    def fit(self: Any, X: Any, y: Any = None) -> Any:
        """Find the categories: one pass.

        Parameters
        ----------
        X : array-like, table, Array or Rows of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return self._sklearn_class.fit(self, X, y)
        self._validate_params()
        data = rows(X)
        found = table_pass(data, self).run(categories, False, combine=merged_categories)
        limits = {"min_frequency": self.min_frequency, "max_categories": self.max_categories}
        limited = any(value is not None for value in limits.values())
        self.set_params(**dict.fromkeys(limits))
        try:
            self._sklearn_class.fit(self, table_of([v for v, _ in found], data.columns))
        finally:
            self.set_params(**limits)
        if limited:
            self._check_infrequent_enabled()
            counts = [self._in_order(i, *pair) for i, pair in enumerate(found)]
            self._fit_infrequent_category_mapping(len(data), counts, {})
            if hasattr(self, "_set_drop_idx"):
                self._set_drop_idx()
                self._n_features_outs = self._compute_n_features_outs()
        return self

    def _in_order(self: Any, at: int, values: Any, counts: Any) -> Any:
        """Count the rows of each category of a column."""
        known = {_hashed(value): count for value, count in zip(values, counts, strict=True)}
        return np.array([known.get(_hashed(value), 0) for value in self.categories_[at]], int)


class OneHotEncoder(_Encoder, sk.OneHotEncoder):
    """Categories as columns of zeros and ones; one pass finds them.

    Of an `Array` or of `Rows` ``transform`` gives sparse chunks, or an array where
    ``sparse_output=False``.

    Examples
    --------
    >>> import pandas as pd
    >>> from agentic_ray import ml
    >>> table = ml.rows(pd.DataFrame({"colour": ["red", "blue", "red"]}), chunk_rows=2)
    >>> ml.OneHotEncoder(sparse_output=False).fit_transform(table).compute()
    array([[0., 1.],
           [1., 0.],
           [0., 1.]])
    """


class OrdinalEncoder(_Encoder, sk.OrdinalEncoder):
    """Categories as their positions; one pass finds them.

    Examples
    --------
    >>> import pandas as pd
    >>> from agentic_ray import ml
    >>> table = ml.rows(pd.DataFrame({"colour": ["red", "blue", "red"]}), chunk_rows=2)
    >>> ml.OrdinalEncoder().fit_transform(table).compute().ravel()
    array([1., 0., 1.])
    """


class LabelEncoder(Distributed, sk.LabelEncoder):
    """Labels as their positions; one pass finds them.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> ml.LabelEncoder().fit_transform(["b", "a", "b"])
    array([1, 0, 1])
    """

    def fit(self, y: Any) -> Any:
        """Find the labels.

        Parameters
        ----------
        y : array-like, Array or Rows of shape (n_samples,)

        Returns
        -------
        self
        """
        if not is_distributed(y):
            return sk.LabelEncoder.fit(self, y)
        found = table_pass(rows(y), self).run(labels_of, combine=np.union1d)
        self.classes_ = found
        return self

    def fit_transform(self, y: Any) -> Any:
        """Find the labels, and the position of each."""
        if not is_distributed(y):
            return sk.LabelEncoder.fit_transform(self, y)
        return self.fit(y).transform(y)

    def transform(self, y: Any) -> Any:
        """The position of each label."""
        if not is_distributed(y):
            return sk.LabelEncoder.transform(self, y)
        return blockwise(self, "transform", y)


def labels_of(x: Any, y: Any, w: Any) -> Any:
    """The distinct values of a column."""
    return np.unique(np.asarray(x))


class SimpleImputer(Distributed, imputing.SimpleImputer):
    """Missing values replaced by a statistic of their column: one pass, for medians a few.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> import agentic_ray.array as xp
    >>> x = xp.asarray([[1.0], [float("nan")], [3.0]])
    >>> np.asarray(ml.SimpleImputer().fit_transform(x)).ravel()
    array([1., 2., 3.])
    """

    def fit(self, X: Any, y: Any = None) -> Any:
        """Find the statistics.

        Parameters
        ----------
        X : array-like, table, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return imputing.SimpleImputer.fit(self, X, y)
        self._validate_params()
        data = rows(X)
        if hasattr(data.sample, "tocsr") or callable(self.strategy):
            raise InvalidArgumentError(
                "sparse chunks, and a function as strategy, are not taken here"
            )
        run = table_pass(data, self)
        columns, missing = self._statistics(run)
        rows_of = [
            np.array([value, self.missing_values if is_missing else value], dtype=kind)
            for value, is_missing, kind in zip(columns, missing, self._kinds(data), strict=True)
        ]
        return imputing.SimpleImputer.fit(self, table_of(rows_of, data.columns))

    def _kinds(self, data: Rows) -> list[Any]:
        numbers = [column_of(data.sample, at).dtype for at in range(data.shape[1])]
        if self.strategy in ("mean", "median"):
            return [np.float64 if kind.kind in "biuf" else object for kind in numbers]
        return [kind if kind.kind in "biuf" else object for kind in numbers]

    def _statistics(self, run: Passes) -> tuple[list[Any], Any]:
        """A value for each column that has its statistic, and whether values are missing."""
        if self.strategy in ("mean", "median"):
            bare = Passes(
                run.x.then(Blanked(self.missing_values)), None, None,
                Check(dtype=("float64",), allow_nan=True, name=run.check.name), None, run.progress,
            )  # fmt: skip
            weight, mean, _ = bare.run(column_moments, combine=merged_columns)
            if self.strategy == "median":
                mean = quantiles(bare, [0.5])[0]
            return list(np.where(weight > 0, mean, np.nan)), weight < run.n
        found = run.run(categories, True, combine=merged_categories)
        values, missing = [], []
        for distinct, counts in found:
            there = [not self._is_missing(value) for value in distinct]
            missing.append(not all(there))
            kept = [(-c, i) for i, (c, t) in enumerate(zip(counts, there, strict=True)) if t]
            values.append(distinct[min(kept)[1]] if kept else self.missing_values)
        return values, np.array(missing)

    def _is_missing(self, value: Any) -> bool:
        blank = _plain(self.missing_values)
        if isinstance(blank, float) and blank != blank:
            return bool(value != value)
        return value is None if blank is None else bool(value == blank)


class Blanked:
    """A step: numbers, with NaN for what stands for a missing one."""

    def __init__(self, blank: Any) -> None:
        self._blank = blank

    def __call__(self, block: Any) -> Any:
        made = np.empty(block.shape) if hasattr(block, "iloc") else np.array(block, np.float64)
        if hasattr(block, "iloc"):
            for at in range(block.shape[1]):
                made[:, at] = column_of(block, at)
        if self._blank is not None and self._blank == self._blank:
            made[made == self._blank] = np.nan
        return made


def stateless(kind: type, example: str) -> Any:
    """A class whose `fit` looks at no more than one row of data in chunks."""

    def fit(self: Any, X: Any, y: Any = None) -> Any:
        """Look at the columns; the rows are not gone through."""
        if not is_distributed(X):
            return kind.fit(self, X, y)  # type: ignore[attr-defined]
        return kind.fit(self, rows(X).sample)  # type: ignore[attr-defined]

    first = (kind.__doc__ or "").strip().splitlines()[0]
    text = f"{first}\n\n    Rows by themselves: nothing is learnt of them.\n\n"
    text += f"    Examples\n    --------\n{example}    "
    members = {"fit": fit, "__doc__": text, "__module__": __name__, "__qualname__": kind.__name__}
    return type(kind.__name__, (Distributed, kind), members)


_START = "    >>> import numpy as np\n    >>> from agentic_ray import ml\n"
Normalizer = stateless(
    sk.Normalizer,
    f"{_START}    >>> ml.Normalizer().fit_transform(np.array([[3.0, 4.0]]))\n"
    "    array([[0.6, 0.8]])\n",
)
Binarizer = stateless(
    sk.Binarizer,
    f"{_START}    >>> ml.Binarizer(threshold=1).fit_transform(np.array([[3.0, 0.5]]))\n"
    "    array([[1., 0.]])\n",
)
PolynomialFeatures = stateless(
    sk.PolynomialFeatures,
    f"{_START}    >>> ml.PolynomialFeatures().fit_transform(np.array([[2.0, 3.0]]))\n"
    "    array([[1., 2., 3., 4., 6., 9.]])\n",
)
