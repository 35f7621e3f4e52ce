"""Scores of estimators on data in chunks, by scikit-learn's scorers.

A scorer whose metric `agentic_ray.ml.metrics` has is computed where the chunks are. For any other
the predictions and the targets, some numbers a row, come to the calling process; the data never do.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
from sklearn.metrics._scorer import _Scorer
from sklearn.utils.validation import _check_response_method

from agentic_ray.array import Array
from agentic_ray.ml import metrics
from agentic_ray.ml.base import BLOCKWISE, is_distributed
from agentic_ray.ml.data import Rows


def brought_here(values: Any) -> Any:
    """Predictions, targets or weights as a NumPy array in this process."""
    return np.asarray(values.compute() if isinstance(values, Array | Rows) else values)


class Answers:
    """Stands for an estimator: what it predicts of data in chunks comes as NumPy arrays."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._estimator, name)
        if name not in BLOCKWISE:
            return found

        @functools.wraps(found)
        def answer(X: Any) -> Any:
            return brought_here(found(X))

        return answer


class ChunkScorer(_Scorer):
    """A scorer of scikit-learn's that takes data in chunks too.

    Parameters
    ----------
    scorer : _Scorer
        For data in memory this one does what it does.
    """

    def __init__(self, scorer: Any) -> None:
        self.__dict__.update(vars(scorer))

    def _score(self, method_caller: Any, estimator: Any, X: Any, y_true: Any, **kwargs: Any) -> Any:
        if not is_distributed(X):
            return super()._score(method_caller, estimator, X, y_true, **kwargs)
        options = {**self._kwargs, **{k: v for k, v in kwargs.items() if v is not None}}
        twin = _twin(self._score_func, options)
        if twin is not None:
            method = _check_response_method(estimator, self._response_method).__name__
            values = getattr(estimator, method)(X)
            if method == "predict_proba" and twin is metrics.roc_auc_score:
                values = _last_column(values)
            return self._sign * twin(y_true, values, **options)
        kwargs = {k: brought_here(v) if is_distributed(v) else v for k, v in kwargs.items()}
        return super()._score(
            method_caller, Answers(estimator), X, brought_here(y_true), **kwargs
        )  # fmt: skip


def _twin(function: Any, options: dict[str, Any]) -> Any:
    """The metric over chunks with the meaning of scikit-learn's, if it takes these options."""
    twin = getattr(metrics, getattr(function, "__name__", ""), None)
    if twin is None or getattr(function, "__module__", "").split(".")[0] != "sklearn":
        return None
    taken = inspect.signature(twin).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()) or set(options) <= set(taken):
        return twin
    return None


def _last_column(values: Any) -> Any:
    """The probability of the second of two classes."""
    if values.shape[1] != 2:  # scikit-learn has the same text
        raise ValueError("multi_class must be in ('ovo', 'ovr')")
    return values[:, 1] if isinstance(values, Array) else values.then(second_column)


def second_column(block: Any) -> Any:
    """A step: the second column of a matrix."""
    return np.asarray(block)[:, 1]


def for_chunks(scorer: Any) -> Any:
    """The scorer, so that it takes data in chunks; callables of users stay as they are."""
    if type(scorer) is _Scorer:
        return ChunkScorer(scorer)
    return scorer
