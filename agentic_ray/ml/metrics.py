"""Metrics of predictions in chunks; what is in memory goes to scikit-learn.

Each metric is one pass over targets and predictions, which give counts and sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import sklearn.metrics as sk
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import UndefinedMetricWarning

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import as_floats, is_distributed, positive_weight
from agentic_ray.ml.data import aligned, rows
from agentic_ray.ml.passes import Check, Passes
from agentic_ray.ml.progress import Progress


def pairs(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Passes:
    """Targets and predictions, cut alike, to be gone through."""
    first = y_pred if is_distributed(y_pred) else y_true
    lengths = rows(first).lengths
    predicted = aligned(y_pred, lengths, "y_pred")
    true = aligned(y_true, lengths, "y_true")
    weight = None
    if sample_weight is not None:
        weight = aligned(sample_weight, lengths, "sample_weight").then(as_floats)
    check = Check(dtype=None, as_table=True)
    return Passes(predicted, true, weight, check, None, Progress("metric"))


def one_column(block: Any, what: str) -> Any:
    """A chunk of labels or scores as a vector.

    Raises
    ------
    ValueError
        It has several columns: what a metric of pairs of labels would give then is no metric of
        rows.
    """
    found = np.asarray(block)
    if found.ndim > 1 and found.size != len(found):
        raise ValueError(
            f"{what} should be a 1d array, got an array of shape {found.shape} instead; several "
            "columns of data in chunks are not taken here"
        )
    return found.ravel()


def _finite(block: Any) -> Any:
    found = np.asarray(block, np.float64)
    if not np.isfinite(found).all():
        raise ValueError("Input contains NaN or infinity.")
    return found


def _any_distributed(*values: Any) -> bool:
    return any(is_distributed(value) for value in values)


# --- regression ------------------------------------------------------------------------------


def residual_sums(p: Any, y: Any, w: Any) -> Any:
    """Weight, sums of squared and absolute residuals, mean and scatter of the targets, sums of
    residuals and of logarithmic ones, and the largest."""
    p, y = _finite(p), _finite(y)
    own = np.ones(len(y)) if w is None else np.asarray(w, np.float64)
    shape = (-1, *([1] * (y.ndim - 1)))
    own = own.reshape(shape)
    total = float(own.sum())
    apart = y - p.reshape(y.shape)
    mean = (own * y).sum(axis=0) / (total or 1.0)
    rest = (own * apart).sum(axis=0) / (total or 1.0)
    scatter = (own * (y - mean) ** 2).sum(axis=0)
    spread = (own * (apart - rest) ** 2).sum(axis=0)
    squares, absolute = (own * apart**2).sum(axis=0), (own * np.abs(apart)).sum(axis=0)
    return total, squares, absolute, mean, scatter, rest, spread, np.abs(apart).max(initial=0.0)


def merged_residuals(left: Any, right: Any) -> Any:
    """Merge the residuals' sums of two lots of rows."""
    w1, s1, a1, m1, c1, r1, d1, x1 = left
    w2, s2, a2, m2, c2, r2, d2, x2 = right
    total = w1 + w2
    share, cross = w2 / (total or 1.0), w1 * w2 / (total or 1.0)
    mean, rest = m1 + (m2 - m1) * share, r1 + (r2 - r1) * share
    scatter, spread = c1 + c2 + (m2 - m1) ** 2 * cross, d1 + d2 + (r2 - r1) ** 2 * cross
    return total, s1 + s2, a1 + a2, mean, scatter, rest, spread, max(x1, x2)


def _residuals(y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
    run = pairs(y_true, y_pred, sample_weight)
    if not run.n:
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required: a metric of no rows"
        )
    found = run.run(residual_sums, combine=merged_residuals)
    positive_weight(found[0])
    return run.n, *found


def mean_squared_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The mean of squared residuals, over targets too.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> ml.metrics.mean_squared_error([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    if not _any_distributed(y_true, y_pred):
        return float(sk.mean_squared_error(y_true, y_pred, sample_weight=sample_weight))
    _, total, squares, *_ = _residuals(y_true, y_pred, sample_weight)
    return float(np.mean(squares / total))


def root_mean_squared_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The root of the mean of squared residuals, averaged over targets."""
    if not _any_distributed(y_true, y_pred):
        return float(sk.root_mean_squared_error(y_true, y_pred, sample_weight=sample_weight))
    _, total, squares, *_ = _residuals(y_true, y_pred, sample_weight)
    return float(np.mean(np.sqrt(squares / total)))


def mean_absolute_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The mean of absolute residuals."""
    if not _any_distributed(y_true, y_pred):
        return float(sk.mean_absolute_error(y_true, y_pred, sample_weight=sample_weight))
    _, total, _, absolute, *_ = _residuals(y_true, y_pred, sample_weight)
    return float(np.mean(absolute / total))


def max_error(y_true: Any, y_pred: Any) -> float:
    """The largest absolute residual."""
    if not _any_distributed(y_true, y_pred):
        return float(sk.max_error(y_true, y_pred))
    return float(_residuals(y_true, y_pred, None)[-1])


def r2_score(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The share of the targets' scatter that is explained, averaged over targets."""
    if not _any_distributed(y_true, y_pred):
        return float(sk.r2_score(y_true, y_pred, sample_weight=sample_weight))
    n, _, squares, _, _, scatter, *_ = _residuals(y_true, y_pred, sample_weight)
    if n < 2:
        warnings.warn(
            "R^2 score is not well-defined with less than two samples.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return float("nan")
    return _explained(squares, scatter)


def explained_variance_score(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Return the part of the variance that the predictions explain, about the mean residual."""
    if not _any_distributed(y_true, y_pred):
        return float(sk.explained_variance_score(y_true, y_pred, sample_weight=sample_weight))
    _, _, _, _, _, scatter, _, spread, _ = _residuals(y_true, y_pred, sample_weight)
    return _explained(spread, scatter)


def _explained(rest: Any, scatter: Any) -> float:
    safe = np.where(scatter > 0, scatter, 1.0)
    found = np.where(scatter > 0, 1.0 - rest / safe, np.where(rest > 0, 0.0, 1.0))
    return float(np.mean(found))


# --- classification --------------------------------------------------------------------------


def label_table(p: Any, y: Any, w: Any) -> Any:
    """The labels of a chunk, and the weight of each pair of a target and a prediction."""
    p, y = one_column(p, "y_pred"), one_column(y, "y_true")
    kinds = {"text" if a.dtype.kind in "UST" else "numbers" for a in (p, y) if a.dtype.kind != "O"}
    if len(kinds) > 1:  # together they would be made texts
        raise ValueError("Mix of label input types (string and number)")
    try:
        labels, codes = np.unique(np.concatenate([y, p]), return_inverse=True)
    except TypeError as error:  # they have no order
        raise ValueError("Mix of label input types (string and number)") from error
    n, count = len(y), len(labels)
    at = codes[:n] * count + codes[n:]
    table = np.bincount(at, w, count * count).reshape(count, count)
    return labels, table.astype(np.float64)


def merged_tables(left: Any, right: Any) -> Any:
    """Merge the tables of counts of two lots of rows."""
    labels = np.union1d(left[0], right[0])
    table = np.zeros((len(labels), len(labels)))
    for own, part in (left, right):
        at = np.searchsorted(labels, own)
        table[np.ix_(at, at)] += part
    return labels, table


def _table(y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
    run = pairs(y_true, y_pred, sample_weight)
    labels, table = run.run(label_table, combine=merged_tables)
    if run.n:
        positive_weight(float(np.abs(table).sum()))
    return labels, table


def confusion_matrix(
    y_true: Any, y_pred: Any, *, labels: Any = None, sample_weight: Any = None
) -> Any:
    """Count how often each label was predicted for each.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> ml.metrics.confusion_matrix([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    if not _any_distributed(y_true, y_pred):
        return sk.confusion_matrix(y_true, y_pred, labels=labels, sample_weight=sample_weight)
    found, table = _table(y_true, y_pred, sample_weight)
    if labels is not None:
        if not np.isin(labels, found[table.sum(axis=1) > 0]).any():
            raise ValueError("At least one label specified must be in y_true")
        empty = np.zeros((len(labels), len(labels)))
        every, table = merged_tables((np.sort(np.asarray(labels)), empty), (found, table))
        at = np.searchsorted(every, labels)
        table = table[np.ix_(at, at)]
    return table.astype(np.int64) if sample_weight is None else table


def _of_table(function: Callable[..., Any]) -> Callable[..., Any]:
    """A metric of scikit-learn of labels, from the table of pairs."""

    def metric(y_true: Any, y_pred: Any, *, sample_weight: Any = None, **options: Any) -> Any:
        if not _any_distributed(y_true, y_pred):
            if sample_weight is not None:
                options["sample_weight"] = sample_weight
            return function(y_true, y_pred, **options)
        labels, table = _table(y_true, y_pred, sample_weight)
        at_true, at_pred = np.nonzero(table)
        return function(
            labels[at_true], labels[at_pred], sample_weight=table[at_true, at_pred], **options
        )

    metric.__name__ = function.__name__
    metric.__doc__ = (
        f"`sklearn.metrics.{function.__name__}`, also of labels in chunks: it is made of the table "
        "of pairs."
    )
    return metric


accuracy_score = _of_table(sk.accuracy_score)
balanced_accuracy_score = _of_table(sk.balanced_accuracy_score)
precision_score = _of_table(sk.precision_score)
recall_score = _of_table(sk.recall_score)
f1_score = _of_table(sk.f1_score)
matthews_corrcoef = _of_table(sk.matthews_corrcoef)
cohen_kappa_score = _of_table(sk.cohen_kappa_score)


def score_table(p: Any, y: Any, w: Any) -> Any:
    """Distinct scores with the weight of each label that has them."""
    p, y = _finite(one_column(p, "y_score")), one_column(y, "y_true")
    labels, codes = np.unique(y, return_inverse=True)
    scores, at = np.unique(p, return_inverse=True)
    table = np.bincount(at * len(labels) + codes, w, len(scores) * len(labels))
    return labels, scores, table.reshape(len(scores), len(labels)).astype(np.float64)


def merged_scores(left: Any, right: Any) -> Any:
    """Merge the scores of two lots of rows."""
    labels, scores = np.union1d(left[0], right[0]), np.union1d(left[1], right[1])
    table = np.zeros((len(scores), len(labels)))
    for own, part, weights in (left, right):
        table[np.ix_(np.searchsorted(scores, part), np.searchsorted(labels, own))] += weights
    return labels, scores, table


def roc_auc_score(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    """The area under the ROC curve of two labels: exact, by the table of distinct scores.

    Raises
    ------
    ValueError
        There are not two labels.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> ml.metrics.roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    if not _any_distributed(y_true, y_score):
        return float(sk.roc_auc_score(y_true, y_score, sample_weight=sample_weight))
    labels, _, table = pairs(y_true, y_score, sample_weight).run(score_table, combine=merged_scores)
    if len(labels) != 2:
        raise ValueError(
            "Only one class is present in y_true. ROC AUC score is not defined in that case."
            if len(labels) < 2
            else "multi_class must be in ('ovo', 'ovr'); of chunks only two labels are taken"
        )
    negative, positive = table.T
    before = np.cumsum(negative) - negative
    return float(positive @ (before + negative / 2) / (negative.sum() * positive.sum()))


def log_losses(p: Any, y: Any, w: Any, labels: Any) -> Any:
    """Sums of weights and of minus the logarithm of the probability of the targets."""
    given = np.asarray(p)
    tiny = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    p = _finite(given)
    if p.size and (p.min() < 0 or p.max() > 1):
        over = p.max() > 1
        raise ValueError(
            f"y_prob contains values {'greater' if over else 'lower'} than {int(over)}: "
            f"{p.max() if over else p.min()}"
        )
    if p.ndim == 1:
        p = np.column_stack([1.0 - p, p])
    if p.shape[1] == 1:
        p = np.hstack([1.0 - p, p])
    if p.shape[1] != len(labels):
        raise ValueError(
            f"y_true and y_pred contain different number of classes: {len(labels)} vs "
            f"{p.shape[1]}. Please provide the true labels explicitly through the labels argument."
        )
    y = one_column(y, "y_true")
    at = np.minimum(np.searchsorted(labels, y), len(labels) - 1)
    if (labels[at] != y).any():
        raise ValueError(
            f"y_true contains values {sorted(set(y[labels[at] != y].tolist()))} not belonging to "
            f"the passed labels {labels.tolist()}."
        )
    chosen = np.clip(p, tiny, 1.0 - tiny)[np.arange(len(at)), at]
    losses = -np.log(chosen)
    return float(len(at) if w is None else np.sum(w)), float(
        losses.sum() if w is None else losses @ w
    )


def targets(p: Any, y: Any, w: Any) -> Any:
    """The labels of a chunk."""
    return np.unique(np.asarray(y))


def log_loss(y_true: Any, y_pred: Any, *, sample_weight: Any = None, labels: Any = None) -> float:
    """The mean of minus the logarithm of the probability of the targets.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> round(ml.metrics.log_loss([0, 1], [[0.5, 0.5], [0.25, 0.75]]), 4)
    0.4904
    """
    if not _any_distributed(y_true, y_pred):
        return float(sk.log_loss(y_true, y_pred, sample_weight=sample_weight, labels=labels))
    run = pairs(y_true, y_pred, sample_weight)
    found = run.run(targets, combine=np.union1d) if labels is None else np.sort(np.asarray(labels))
    if len(found) < 2:
        raise ValueError(
            "y_true contains only one label. Please provide the list of all expected class labels "
            "explicitly through the labels argument."
        )
    total, losses = run.run(log_losses, found)
    return float(losses / positive_weight(total))


# --- clusters --------------------------------------------------------------------------------


def _of_contingency(function: Callable[..., Any]) -> Callable[..., Any]:
    def metric(labels_true: Any, labels_pred: Any) -> float:
        if not _any_distributed(labels_true, labels_pred):
            return float(function(labels_true, labels_pred))
        _, table = _table(labels_true, labels_pred, None)
        return _clustering(function.__name__, table)

    metric.__name__ = function.__name__
    metric.__doc__ = f"`sklearn.metrics.{function.__name__}`, also of labels in chunks."
    return metric


def _clustering(name: str, table: Any) -> float:
    rows_, columns = table.sum(axis=1), table.sum(axis=0)
    n = table.sum()
    if name == "adjusted_rand_score":
        squares = (table**2).sum()
        c_squares, k_squares = (rows_**2).sum(), (columns**2).sum()
        false_pos, false_neg = c_squares - squares, k_squares - squares
        true_pos = squares - n
        true_neg = n**2 - false_pos - false_neg - squares
        if not false_pos and not false_neg:
            return 1.0
        return float(
            2.0
            * (true_pos * true_neg - false_neg * false_pos)
            / (
                (true_pos + false_neg) * (false_neg + true_neg)
                + (true_pos + false_pos) * (false_pos + true_neg)
            )
        )
    joint = table[table > 0] / n
    mutual = float((joint * np.log(joint)).sum()) + _entropy(rows_) + _entropy(columns)
    of_true, of_pred = _entropy(rows_), _entropy(columns)
    homogeneity = mutual / of_true if of_true else 1.0
    completeness = mutual / of_pred if of_pred else 1.0
    if name == "homogeneity_score":
        return homogeneity
    if name == "completeness_score":
        return completeness
    both = homogeneity + completeness
    return 2.0 * homogeneity * completeness / both if both else 0.0


def _entropy(counts: Any) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


adjusted_rand_score = _of_contingency(sk.adjusted_rand_score)
homogeneity_score = _of_contingency(sk.homogeneity_score)
completeness_score = _of_contingency(sk.completeness_score)
v_measure_score = _of_contingency(sk.v_measure_score)


# --- scores of estimators --------------------------------------------------------------------


def score_of(estimator: Any, X: Any, y: Any, sample_weight: Any) -> float:
    """Return the `score` of an estimator for data in chunks."""
    if is_classifier(estimator):
        return float(accuracy_score(y, estimator.predict(X), sample_weight=sample_weight))
    if is_regressor(estimator):
        return r2_score(y, estimator.predict(X), sample_weight=sample_weight)
    if hasattr(estimator, "cluster_centers_"):
        distances = estimator.transform(X)
        _, sums = _row_sums(distances, sample_weight, nearest_squares)
        return -float(sums)
    if hasattr(estimator, "score_samples"):
        total, sums = _row_sums(estimator.score_samples(X), sample_weight, row_values)
        return float(sums / positive_weight(total))
    raise InvalidArgumentError(f"{type(estimator).__name__} has no score of data in chunks")


def _row_sums(values: Any, sample_weight: Any, kernel: Any) -> Any:
    data = rows(values)
    weight = None if sample_weight is None else aligned(sample_weight, data.lengths, "weight")
    run = Passes(
        data, None, weight, Check(dtype=None, as_table=True), None, Progress("score")
    )  # fmt: skip
    return run.run(kernel)


def nearest_squares(x: Any, y: Any, w: Any) -> Any:
    """Weight, and the sum of the squared least distance of each row."""
    return row_values(x.min(axis=1) ** 2, y, w)


def row_values(x: Any, y: Any, w: Any) -> Any:
    """Weight, and the weighted sum of a column."""
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    return float(len(x) if w is None else np.sum(w)), float(x.sum() if w is None else x @ w)
