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
    ml.BernoulliNB(),
    ml.Binarizer(),
    ml.BisectingKMeans(n_clusters=3),
    ml.DBSCAN(),
    ml.ElasticNet(),
    ml.ElasticNetCV(cv=3, alphas=5, max_iter=20),
    ml.FactorAnalysis(max_iter=5),
    ml.GammaRegressor(),
    ml.GaussianMixture(),
    ml.GaussianNB(),
    ml.HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5, random_state=0),
    ml.HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=5, random_state=0),
    ml.IncrementalPCA(batch_size=10),
    ml.KBinsDiscretizer(),
    ml.KMeans(n_clusters=3),
    ml.KNeighborsClassifier(),
    ml.KNeighborsRegressor(),
    ml.Lasso(),
    ml.LassoCV(cv=3, alphas=5, max_iter=20),
    ml.LinearRegression(),
    ml.LinearSVC(max_iter=20),
    ml.LinearSVC(loss="hinge", max_iter=20),
    ml.LinearSVR(max_iter=20),
    ml.LinearSVR(loss="squared_epsilon_insensitive", max_iter=20),
    ml.LogisticRegression(),
    ml.LogisticRegression(solver="newton-cholesky"),
    ml.LogisticRegressionCV(
        Cs=3, cv=3, l1_ratios=(0,), scoring="accuracy", use_legacy_attributes=False
    ),
    ml.MaxAbsScaler(),
    ml.MinMaxScaler(),
    ml.MiniBatchKMeans(n_clusters=3, n_init=2),
    ml.MultiTaskElasticNet(max_iter=20),
    ml.MultinomialNB(),
    ml.NMF(max_iter=500),
    ml.NearestNeighbors(),
    ml.Normalizer(),
    ml.OneHotEncoder(handle_unknown="ignore"),
    ml.OrdinalEncoder(),
    ml.PCA(),
    ml.PoissonRegressor(),
    ml.PolynomialFeatures(),
    ml.PowerTransformer(),
    ml.QuantileTransformer(n_quantiles=10),
    ml.RandomForestClassifier(n_estimators=3),
    ml.RandomForestRegressor(n_estimators=3),
    ml.IsolationForest(n_estimators=5),
    ml.Ridge(),
    ml.RidgeCV(),
    ml.RobustScaler(),
    ml.SGDClassifier(max_iter=20),
    ml.SGDRegressor(max_iter=20),
    ml.SelectKBest(k=1),
    ml.SimpleImputer(),
    ml.StandardScaler(),
    ml.TargetEncoder(random_state=0),
    ml.TfidfTransformer(),
    ml.TruncatedSVD(),
    ml.TweedieRegressor(power=1.5),
    ml.VarianceThreshold(),
]


_BY_POSITION = "random numbers go by positions of rows, so rows that are repeated get other ones"
_WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": _BY_POSITION,
    "check_sample_weight_equivalence_on_sparse_data": _BY_POSITION,
}
_BINS = "rows that are repeated are counted when bins and leaves are made, as by theirs"
FAILS = {
    "BisectingKMeans": _WEIGHTS,
    "HistGradientBoostingClassifier": dict.fromkeys(_WEIGHTS, _BINS),
    "HistGradientBoostingRegressor": dict.fromkeys(_WEIGHTS, _BINS),
    "IsolationForest": _WEIGHTS,
    "KMeans": _WEIGHTS,
    "MiniBatchKMeans": _WEIGHTS,
    "RandomForestClassifier": _WEIGHTS,
    "RandomForestRegressor": _WEIGHTS,
    "SGDClassifier": _WEIGHTS,
    "SGDRegressor": _WEIGHTS,
    "Ridge": {
        "check_non_transformer_estimators_n_iter": "n_iter_ of a direct solver is None, as theirs",
    },
}
"""Checks that estimators fail, and why."""


def expected(estimator: Any) -> dict[str, str]:
    return FAILS.get(type(estimator).__name__, {})


def is_in_spread(estimator: Any, check: Any) -> bool:
    """One check in twelve, another one for each estimator."""
    name = getattr(check, "func", check).__name__
    return zlib.crc32(f"{estimator}{name}".encode()) % 12 == 0


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    if not EVERY_CHECK and not is_in_spread(estimator, check):
        pytest.skip("set AGENTIC_RAY_LONG=1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
