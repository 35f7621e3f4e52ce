"""Categories encoded by the targets of their rows, over tables in chunks."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.preprocessing as sk
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import _raise_for_params, _routing_enabled, process_routing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

import agentic_ray.array as xp
from agentic_ray.array import Array
from agentic_ray.ml.base import Codes, Distributed, is_distributed, without_empty
from agentic_ray.ml.chunks import OfArray
from agentic_ray.ml.data import Rows, aligned, numbered_rows, rows, together
from agentic_ray.ml.passes import Check, Passes
from agentic_ray.ml.preprocessing.tables import categories, merged_categories, table_of
from agentic_ray.ml.progress import Progress

_KINDS = ("binary", "multiclass", "continuous")


# --- kernels ---------------------------------------------------------------------------------


def kinds_of_targets(x: Any, y: Any, w: Any) -> Any:
    """The kind of a chunk of targets by itself, and its distinct values unless it is continuous."""
    if not len(y):
        return "binary", np.zeros(0, np.asarray(y).dtype)
    kind = type_of_target(y, input_name="y")
    distinct = np.unique(y) if kind in ("binary", "multiclass") else np.zeros(0)
    return kind, distinct


def merged_kinds(left: Any, right: Any) -> Any:
    """The kind of the targets of two lots of rows together."""
    for kind, _ in (left, right):
        if kind not in ("binary", "multiclass"):
            return kind, np.zeros(0)
    if not len(left[1]) or not len(right[1]):  # an empty chunk has no labels, of no type
        return right if not len(left[1]) else left
    distinct = np.union1d(left[1], right[1])
    return ("multiclass" if len(distinct) > 2 else "binary"), distinct


def target_moments(x: Any, y: Any, w: Any, encoder: Any, outputs: int, folds: int, own: Any) -> Any:
    """Counts, means and sums of squares about them of the targets: for each column by fold,
    category and output, and by fold and output alone."""
    # Values of no known category have position 0, and scikit-learn counts them there.
    places, _ = _positions(encoder, x)
    table = np.asarray(y, dtype=np.float64).reshape(-1, 1)
    if outputs > 1:
        table = (table == np.arange(outputs)).astype(np.float64)
    own = np.zeros(len(places), np.int64) if own is None else own.astype(np.int64)
    found = []
    for at, values in enumerate(encoder.categories_):
        found.append(_moments(table, own * len(values) + places[:, at], (folds, len(values))))
    return tuple(found), _moments(table, own, (folds,))


def _positions(encoder: Any, x: Any) -> tuple[Any, Any]:
    """The position of each value among the categories of its column, and whether it is known."""
    if not x.shape[0]:  # scikit-learn refuses no rows
        return np.zeros(x.shape, np.int64), np.ones(x.shape, bool)
    places, known = encoder._transform(x, handle_unknown="ignore", ensure_all_finite="allow-nan")
    return places, known


def _moments(table: Any, cells: Any, shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape))
    counts = np.bincount(cells, minlength=size).astype(np.float64)
    means, squares = np.zeros((size, table.shape[1])), np.zeros((size, table.shape[1]))
    for at in range(table.shape[1]):
        sums = np.bincount(cells, table[:, at], size)
        means[:, at] = sums / np.where(counts > 0, counts, 1.0)
        apart = table[:, at] - means[cells, at]
        squares[:, at] = np.bincount(cells, apart * apart, size)
    full = (*shape, table.shape[1])
    return counts.reshape(shape), means.reshape(full), squares.reshape(full)


def merged_moments(left: Any, right: Any) -> Any:
    """Merge the moments of two lots of rows, cell by cell."""
    n1, m1, s1 = left
    n2, m2, s2 = right
    total = n1 + n2
    share = (n2 / np.where(total > 0, total, 1.0))[..., None]
    apart = m2 - m1
    return total, m1 + apart * share, s1 + s2 + apart * apart * share * n1[..., None]


def merged_targets(left: Any, right: Any) -> Any:
    """Merge what `target_moments` gives of two lots of rows."""
    columns = [merged_moments(a, b) for a, b in zip(left[0], right[0], strict=True)]
    return tuple(columns), merged_moments(left[1], right[1])


# --- encodings -------------------------------------------------------------------------------


def _over(moments: Any, folds: list[int]) -> Any:
    """The moments of some folds together."""
    parts = [tuple([part[fold] for part in moments]) for fold in folds]
    found = parts[0]
    for part in parts[1:]:
        found = merged_moments(found, part)
    return found


def encodings_of(columns: Any, whole: Any, smooth: Any, folds: list[int]) -> tuple[list[Any], Any]:
    """The encoding of each category of each column for each output, from the rows of some folds;
    and the means of their targets."""
    n, mean, squares = _over(whole, folds)
    found = []
    for moments in columns:
        counts, means, spread = _over(moments, folds)
        found += [
            _smoothed(counts, means[:, at], spread[:, at], mean[at], squares[at] / n, smooth)
            for at in range(means.shape[-1])
        ]
    return found, mean


def _smoothed(
    counts: Any, means: Any, squares: Any, mean: float, variance: float, smooth: Any
) -> Any:
    """Means of categories drawn to the mean of all (D. Micci-Barreca, 2001)."""
    there = counts > 0
    safe = np.where(there, counts, 1.0)
    if smooth == "auto":
        if variance == 0:
            return np.full(len(counts), mean)
        share = variance * counts / (variance * counts + squares / safe)
        return np.where(there, share * means + (1.0 - share) * mean, mean)
    total = counts + smooth
    return np.where(
        total > 0, (smooth * mean + counts * means) / np.where(total > 0, total, 1.0), mean
    )


@dataclass(frozen=True, eq=False)
class CrossEncoded:
    """A step over pairs: a chunk, and the number of the fold of each row. It encodes a row by the
    targets of the other folds."""

    encoder: Any
    encodings: tuple[list[Any], ...]
    means: tuple[Any, ...]

    def __call__(self, pair: Any, numbers: Any = None) -> Any:
        x, folds = pair if numbers is None else (pair, np.ravel(numbers))
        places, known = _positions(self.encoder, x)
        outputs = len(self.means[0])
        made = np.empty((len(places), places.shape[1] * outputs))
        for fold, (encodings, means) in enumerate(zip(self.encodings, self.means, strict=True)):
            at = folds == fold
            for column, encoding in enumerate(encodings):
                made[at, column] = encoding[places[at, column // outputs]]
                # scikit-learn gives rows of no known category the mean of the last fold's rows.
                made[~known[:, column // outputs], column] = means[column % outputs]
        return made


# --- the estimator ---------------------------------------------------------------------------


class TargetEncoder(Distributed, sk.TargetEncoder):
    """Categories as the mean target of their rows; parameters as `sklearn.preprocessing`'s.

    One pass finds the categories, another one the moments of the targets by fold and category.
    ``fit_transform`` encodes each row by the rows of other folds. Folds, which may depend on the
    targets, are made in this process, a number a row.

    Examples
    --------
    >>> import pandas as pd
    >>> from agentic_ray import ml
    >>> table = ml.rows(pd.DataFrame({"colour": ["red", "blue", "red", "blue"]}), chunk_rows=2)
    >>> ml.TargetEncoder(smooth=0).fit(table, [0.5, 1.5, 2.5, 3.5]).transform(table).compute()
    array([[1.5],
           [2.5],
           [1.5],
           [2.5]])
    """

    cross_fits = True
    """``fit_transform`` is another thing than `fit`, then `transform`."""

    def fit(self, X: Any, y: Any) -> Any:
        """Find the encodings: two passes.

        Parameters
        ----------
        X : array-like, table, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.TargetEncoder.fit(self, X, y)
        self._validate_params()
        run, outputs = self._begin(rows(X), y)
        columns, whole = self._moments(run, outputs, 1, None)
        self._learn(columns, whole, 1)
        return self

    def fit_transform(self: Any, X: Any, y: Any, **params: Any) -> Any:
        """Find the encodings, and encode each row by those of other folds.

        Parameters
        ----------
        X : array-like, table, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        **params
            For the splitter, where metadata routing is on.

        Returns
        -------
        Array or Rows
            As X; an array of data in memory.
        """
        if not is_distributed(X):
            return sk.TargetEncoder.fit_transform(self, X, y, **params)
        self._validate_params()
        _raise_for_params(params, self, "fit_transform")
        data = rows(X)
        run, outputs = self._begin(data, y)
        count, numbers = self._folds(run, outputs, params)
        edges = np.cumsum([0, *run.x.lengths])
        own = [numbers[a:b] for a, b in itertools.pairwise(edges)]
        columns, whole = self._moments(run, outputs, count, own)
        self._learn(columns, whole, count)
        others = [[f for f in range(count) if f != fold] for fold in range(count)]
        found = [encodings_of(columns, whole, self.smooth, part) for part in others]
        step = CrossEncoded(
            self._for_steps(), tuple([one for one, _ in found]), tuple([mean for _, mean in found])
        )
        made = together([data, numbered_rows(numbers, data.lengths)]).then(step)
        if not isinstance(X, Array):
            return made
        if isinstance(data.source, OfArray) and not made.is_here:
            width = len(found[0][0])
            folds = xp.asarray(numbers[:, None], chunks=(data.lengths, (1,)))
            return xp.map_blocks(
                step, data.source.array, folds, dtype=np.float64, chunks=(data.lengths, (width,))
            )
        return made.array()

    def _begin(self: Any, data: Rows, y: Any) -> tuple[Passes, int]:
        """Find categories and the kind of the targets; the passes over both, and the number of
        columns that each column is encoded as."""
        if y is None:
            raise ValueError(
                "This TargetEncoder estimator requires y to be passed, but the target y is None."
            )
        if not is_distributed(y):
            y = column_or_1d(y, warn=True)
        data = without_empty(data)
        targets = aligned(y, data.lengths, "y")
        if targets.ndim > 1:
            targets = targets.then(_one_column)
        check = Check(dtype=None, as_table=True, name="TargetEncoder")
        run = Passes(data, targets, None, check, None, Progress("TargetEncoder"))
        kind = self.target_type
        if kind == "auto":
            only = Passes(targets, targets, None, check, None, run.progress)
            kind, _ = only.run(kinds_of_targets, combine=merged_kinds)
            if kind not in _KINDS:
                raise ValueError(
                    f"Unknown label type: Target type was inferred to be {kind!r}. Only {_KINDS} "
                    "are supported."
                )
        self.target_type_ = kind
        found = run.run(categories, False, combine=merged_categories)
        small = table_of([values for values, _ in found], data.columns)
        self._fit(small, handle_unknown="ignore", ensure_all_finite="allow-nan")
        self.classes_ = None
        outputs = 1
        if kind == "continuous":
            run.check = Check(dtype=None, as_table=True, y="numeric", name="TargetEncoder")
        else:
            only = Passes(targets, targets, None, check, None, run.progress)
            self.classes_ = only.run(labels_of_targets, combine=np.union1d)
            run.y = targets.then(Codes(self.classes_))
            outputs = len(self.classes_) if kind == "multiclass" else 1
        return run, outputs

    def _moments(self: Any, run: Passes, outputs: int, count: int, own: Any) -> Any:
        numbered = [None] * len(run.x.lengths) if own is None else own
        return run.run(
            target_moments, self._for_steps(), outputs, count, combine=merged_targets,
            numbered=numbered,
        )  # fmt: skip

    def _learn(self: Any, columns: Any, whole: Any, count: int) -> None:
        self.encodings_, mean = encodings_of(columns, whole, self.smooth, list(range(count)))
        self.target_mean_ = mean if self.target_type_ == "multiclass" else mean[0]

    def _folds(self: Any, run: Passes, outputs: int, params: Any) -> tuple[int, Any]:
        """The number of folds, and the fold of each row."""
        if self.shuffle != "deprecated" or self.random_state != "deprecated":
            warnings.warn(
                "`TargetEncoder.shuffle` and `TargetEncoder.random_state` are deprecated in "
                "version 1.9 and will be removed in version 1.11. Pass a cross-validation "
                "generator as `cv` argument to specify the shuffling behaviour instead.",
                FutureWarning,
                stacklevel=3,
            )
        options = {"shuffle": True if self.shuffle == "deprecated" else self.shuffle}
        if self.random_state != "deprecated":
            options["random_state"] = self.random_state
        assert run.y is not None
        y = np.asarray(run.y.compute()).ravel()
        if self.target_type_ != "continuous":
            y = self.classes_[y.astype(np.int64)]
        splitter = check_cv(self.cv, y, classifier=self.target_type_ != "continuous", **options)
        to_splitter: dict[str, Any] = {}
        if _routing_enabled():
            to_splitter = process_routing(self, "fit_transform", **params).splitter.split
        numbers = np.full(run.n, -1, dtype=np.int32)
        shown = np.broadcast_to(np.zeros((1, 1)), (run.n, 1))
        count = 0
        for _, test in splitter.split(shown, y, **to_splitter):
            if (numbers[test] >= 0).any():
                count = -1
                break
            numbers[test] = count
            count += 1
        if count < 0 or (numbers < 0).any():
            raise ValueError(
                "Validation indices from `cv` must cover each sample index exactly once with no "
                "overlap. Pass a splitter with non-overlapping validation folds as `cv` or refer "
                "to the docs for other options."
            )
        return count, numbers


def _one_column(block: Any) -> Any:
    return column_or_1d(np.asarray(block), warn=True)


def labels_of_targets(x: Any, y: Any, w: Any) -> Any:
    """The distinct labels of a chunk."""
    return np.unique(np.asarray(y))
