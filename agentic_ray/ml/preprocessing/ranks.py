"""Quantiles of columns in chunks, exactly, and what is made of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import sklearn.preprocessing as sk
from sklearn.preprocessing._data import _handle_zeros_in_scale

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, is_distributed, seed_of
from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.moments import column_moments, extremes, merged_columns, merged_extremes
from agentic_ray.ml.passes import Passes

_BINS = 512
_LEAST_APART = 1e-8
"""A standard deviation beside its mean that rounding alone may make."""
_FEW = 2048
"""So many values of a column are brought here to be sorted."""


def counts_between(x: Any, y: Any, w: Any, low: Any, high: Any) -> Any:
    """For each column how many values lie below ``low``, and in each of the bins up to ``high``;
    and how many are no NaN."""
    p, queries = x.shape[1], len(low)
    below, binned = np.zeros((queries, p)), np.zeros((queries, p, _BINS))
    for at in range(p):
        column = x[:, at]
        column = column[~np.isnan(column)]
        for query in range(queries):
            a, b = low[query, at], high[query, at]
            below[query, at] = (column < a).sum()
            inside = column[(column >= a) & (column <= b)]
            if len(inside):
                binned[query, at] = np.bincount(_bin(inside, a, b), minlength=_BINS)
    return below, binned


def _bin(values: Any, low: float, high: float) -> Any:
    """The bin of each value, by the same arithmetic in every chunk."""
    width = (high - low) / _BINS
    if not width > 0 or not np.isfinite(width):
        return np.zeros(len(values), np.int64)
    return np.clip(((values - low) / width).astype(np.int64), 0, _BINS - 1)


def bin_extremes(x: Any, y: Any, w: Any, low: Any, high: Any, chosen: Any) -> Any:
    """For each query and column the least and the greatest value in the chosen bins."""
    queries, p = low.shape
    least, greatest = np.full((queries, p), np.inf), np.full((queries, p), -np.inf)
    for at in range(p):
        column = x[:, at]
        column = column[~np.isnan(column)]
        for query in range(queries):
            a, b = low[query, at], high[query, at]
            inside = column[(column >= a) & (column <= b)]
            inside = inside[_bin(inside, a, b) == chosen[query, at]] if len(inside) else inside
            if len(inside):
                least[query, at], greatest[query, at] = inside.min(), inside.max()
    return least, greatest


def widest(left: Any, right: Any) -> Any:
    """Keep the widest range of two lots of rows."""
    return np.minimum(left[0], right[0]), np.maximum(left[1], right[1])


def values_between(x: Any, y: Any, w: Any, low: Any, high: Any) -> Any:
    """For each query and column the values from ``low`` to ``high``."""
    queries, p = low.shape
    found = []
    for query in range(queries):
        for at in range(p):
            column = x[:, at]
            found.append(column[(column >= low[query, at]) & (column <= high[query, at])])
    return tuple([np.asarray(part, np.float64) for part in found])


def all_of(left: Any, right: Any) -> Any:
    """Values of two lots of rows together."""
    return tuple([np.concatenate([a, b]) for a, b in zip(left, right, strict=True)])


def quantiles(run: Passes, wanted: Sequence[float]) -> Any:
    """Quantiles of each column's values that are no NaN, interpolated as `numpy.nanquantile`
    does: one row for each that is wanted.

    Bins are counted and the one with the rank is looked into, until few values are left. Where
    all values of a bin are equal it is found at once.
    """
    weight, *_ = run.run(column_moments, combine=merged_columns)
    least, greatest = run.run(extremes, combine=merged_extremes)
    count = weight.astype(np.int64)
    place = np.asarray(wanted)[:, None] * np.maximum(count - 1, 0)
    first = np.floor(place).astype(np.int64)
    ranks = np.concatenate([first, np.minimum(first + 1, np.maximum(count - 1, 0))])
    found = _at_ranks(run, ranks, least.astype(np.float64), greatest.astype(np.float64))
    lower, upper = found[: len(first)], found[len(first) :]
    share = place - first
    apart = upper - lower
    result = lower + apart * share
    high = share >= 0.5
    result[high] = (upper - apart * (1 - share))[high]  # as NumPy, which keeps the order so
    return np.where(count > 0, result, np.nan)


def _at_ranks(run: Passes, ranks: Any, least: Any, greatest: Any) -> Any:
    low = np.broadcast_to(np.nan_to_num(least), ranks.shape).copy()
    high = np.broadcast_to(np.nan_to_num(greatest), ranks.shape).copy()
    while True:
        below, binned = run.run(counts_between, low, high)
        inside = binned.sum(axis=2)
        if (inside[low < high] <= _FEW).all():
            break
        upto = below[..., None] + np.cumsum(binned, axis=2)
        chosen = (upto > ranks[..., None]).argmax(axis=2)
        low, high = run.run(bin_extremes, low, high, chosen, combine=widest)
    if (low == high).all():
        return low
    parts = run.run(values_between, low, high, combine=all_of)
    found = low.copy()
    for at, values in enumerate(parts):
        where = np.unravel_index(at, ranks.shape)
        if len(values) and low[where] < high[where]:
            rank = int(ranks[where] - below[where])
            found[where] = np.partition(values, rank)[rank]
    return found


class RobustScaler(Distributed, sk.RobustScaler):
    """Columns less their median, by a range of quantiles; exact, a few passes.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> ml.RobustScaler().fit_transform(np.array([[1.0], [2.0], [3.0]])).ravel()
    array([-1.,  0.,  1.])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find the quantiles.

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
        if not is_distributed(X):
            return sk.RobustScaler.fit(self, X, y)
        low, high = self.quantile_range
        if not 0 <= low <= high <= 100:
            raise ValueError(f"Invalid quantile range: {self.quantile_range}")
        run = begin(self, X, checkpoint=checkpoint, allow_nan=True)
        found = quantiles(run, [0.5, low / 100.0, high / 100.0])
        self.center_ = found[0] if self.with_centering else None
        self.scale_ = None
        if self.with_scaling:
            self.scale_ = _handle_zeros_in_scale(found[2] - found[1], copy=False)
            if self.unit_variance:
                normal = scipy.stats.norm.ppf([low / 100.0, high / 100.0])
                self.scale_ = self.scale_ / (normal[1] - normal[0])
        return self


def drawn_rows(run: Passes, most: int, seed: int) -> Any:
    """All rows if there are at most so many, else so many at random."""
    if run.n <= most:
        return run.run(every_row, combine=lloyd.below)
    seeds = [(seed, 0, i) for i in range(len(run.x.lengths))]
    return run.run(lloyd.draw_rows, most, combine=lloyd.merged_draw, numbered=seeds)[1]


def every_row(x: Any, y: Any, w: Any) -> Any:
    """A chunk as it is."""
    return np.asarray(x, dtype=np.float64)


class QuantileTransformer(Distributed, sk.QuantileTransformer):
    """Columns brought to a distribution by their quantiles, from ``subsample`` random rows.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> x = np.array([[1.0], [2.0], [9.0]])
    >>> ml.QuantileTransformer(n_quantiles=3).fit_transform(x).ravel()
    array([0. , 0.5, 1. ])
    """

    def fit(self, X: Any, y: Any = None) -> Any:
        """Find the quantiles.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.QuantileTransformer.fit(self, X, y)
        if self.subsample is None:
            raise InvalidArgumentError("subsample=None would bring all rows here; give a number")
        run = begin(self, X, allow_nan=True)
        return _with_names(
            self, run, drawn_rows(run, self.subsample, seed_of(run, self.random_state))
        )


def _with_names(self: Any, run: Passes, table: Any, **options: Any) -> Any:
    """Fit scikit-learn's class on a few rows, with the columns' names."""
    names = run.x.columns
    if names is not None:
        import pandas as pd

        table = pd.DataFrame(table, columns=list(names))
    return self._sklearn_class.fit(self, table, **options)


class KBinsDiscretizer(Distributed, sk.KBinsDiscretizer):
    """Columns cut in bins: ``"uniform"`` by their extremes, in one pass; by quantiles or k-means
    from ``subsample`` random rows.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.KBinsDiscretizer(2, encode="ordinal", strategy="uniform")
    >>> model.fit_transform(np.array([[0.0], [1.0], [9.0], [10.0]])).ravel()
    array([0., 0., 1., 1.])
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the edges of the bins.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Of data in memory only.

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.KBinsDiscretizer.fit(self, X, y, sample_weight)
        if sample_weight is not None:
            raise InvalidArgumentError("sample_weight is not taken for data in chunks")
        run = begin(self, X)
        if self.strategy == "uniform":
            least, greatest = run.run(extremes, combine=merged_extremes)
            return _with_names(self, run, np.array([least, greatest], np.float64))
        if self.subsample is None:
            raise InvalidArgumentError("subsample=None would bring all rows here; give a number")
        return _with_names(
            self, run, drawn_rows(run, self.subsample, seed_of(run, self.random_state))
        )


# --- powers ----------------------------------------------------------------------------------


def power_sums(x: Any, y: Any, w: Any, powers: Any, method: str) -> Any:
    """For each power and column: how many values there are, the mean of the transformed and their
    scatter, and the sum of the logarithms that the likelihood has."""
    tries, p = powers.shape
    count, mean, spread, logs = (np.zeros((tries, p)) for _ in range(4))
    for at in range(p):
        column = np.asarray(x[:, at], np.float64)
        column = column[~np.isnan(column)]
        if not len(column):
            continue
        terms = (
            np.log(column) if method == "box-cox" else np.sign(column) * np.log1p(np.abs(column))
        )
        for i in range(tries):
            made = _powered(column, powers[i, at], method)
            count[i, at], mean[i, at] = len(made), made.mean()
            spread[i, at] = ((made - mean[i, at]) ** 2).sum()
            logs[i, at] = terms.sum()
    return (count, mean, spread), logs


def _powered(column: Any, power: float, method: str) -> Any:
    if method == "box-cox":
        return scipy.stats.boxcox(column, power)
    return scipy.stats.yeojohnson(column, power)


def merged_powers(left: Any, right: Any) -> Any:
    """Merge the sums of powers of two lots of rows."""
    return merged_columns(left[0], right[0]), left[1] + right[1]


class PowerTransformer(Distributed, sk.PowerTransformer):
    """Columns made more like a normal distribution by the likeliest power from -6 to 6; some
    fifteen passes, each of which tries nine powers.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.PowerTransformer().fit(np.exp(np.arange(8.0))[:, None])
    >>> model.lambdas_.shape
    (1,)
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find the powers.

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
        if not is_distributed(X):
            return sk.PowerTransformer.fit(self, X, y)
        run = begin(self, X, checkpoint=checkpoint, allow_nan=True)
        if self.method == "box-cox":
            least, _ = run.run(extremes, combine=merged_extremes)
            if np.nanmin(least) <= 0:
                raise ValueError(
                    "The Box-Cox transformation can only be applied to strictly positive data"
                )
        self.lambdas_ = self._likeliest(run)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (count, mean, spread), _ = run.run(
                power_sums, self.lambdas_[None, :], self.method, combine=merged_powers
            )
        if self.standardize:
            self._scaler = sk.StandardScaler(copy=False)
            self._scaler.n_samples_seen_ = run.n
            self._scaler.mean_, self._scaler.var_ = mean[0], spread[0] / count[0]
            self._scaler.scale_ = _handle_zeros_in_scale(np.sqrt(self._scaler.var_), copy=True)
            self._scaler.n_features_in_ = run.p
        return self

    def _likeliest(self, run: Passes) -> Any:
        low, high = np.full(run.p, -6.0), np.full(run.p, 6.0)
        known = np.zeros(run.p, bool)
        while (high - low).max() > 1e-9:
            tried = low + (high - low) * np.linspace(0, 1, 9)[:, None]
            (count, mean, spread), logs = run.run(
                power_sums, tried, self.method, combine=merged_powers
            )
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                value = -0.5 * count * np.log(spread / count) + (tried - 1.0) * logs
                # A power that makes the values equal but for rounding says nothing of them.
                is_told = np.isfinite(value) & (np.sqrt(spread / count) > _LEAST_APART * abs(mean))
            best = np.where(is_told, value, -np.inf).argmax(axis=0)
            known |= is_told.any(axis=0)
            at = np.arange(run.p)
            low = tried[np.maximum(best - 1, 0), at]
            high = tried[np.minimum(best + 1, 8), at]
        return np.where(known, (low + high) / 2, 1.0)  # a constant column is left as it is
