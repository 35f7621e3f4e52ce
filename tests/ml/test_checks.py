"""scikit-learn's own checks of estimators."""

from __future__ import annotations

import os
import warnings
import zlib
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from agentic_ray import ml

EVERY_CHECK = "AGENTIC_RAY_LONG" in os.environ
"""Else each estimator has a spread of the checks."""

ESTIMATORS: list[Any] = [
    ml.StandardScaler(),
    ml.MinMaxScaler(),
    ml.MaxAbsScaler(),
    ml.LinearRegression(),
    ml.Ridge(),
    ml.Lasso(),
    ml.ElasticNet(),
    ml.LogisticRegression(),
    ml.KMeans(n_clusters=3),
    ml.PCA(),
    ml.TruncatedSVD(),
    ml.GaussianNB(),
    ml.MultinomialNB(),
    ml.BernoulliNB(),
]


_STARTS = "k-means|| draws rows by their chunk, so rows that are repeated start it elsewhere"
FAILS = {
    "KMeans": {
        "check_sample_weight_equivalence_on_dense_data": _STARTS,
        "check_sample_weight_equivalence_on_sparse_data": _STARTS,
    },
    "Ridge": {
        "check_non_transformer_estimators_n_iter": "n_iter_ of a direct solver is None, as theirs",
    },
}
"""Checks that estimators fail, and why."""


def expected(estimator: Any) -> dict[str, str]:
    return FAILS.get(type(estimator).__name__, {})


def is_in_spread(estimator: Any, check: Any) -> bool:
    """One check in four, another one for each estimator; always those that are known to fail."""
    name = getattr(check, "func", check).__name__
    return zlib.crc32(f"{estimator}{name}".encode()) % 4 == 0 or name in expected(estimator)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    if not EVERY_CHECK and not is_in_spread(estimator, check):
        pytest.skip("set AGENTIC_RAY_LONG=1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
