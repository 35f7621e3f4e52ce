"""Estimators with scikit-learn's of the same name, and what they must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray import ml

RNG = np.random.default_rng(7)
N, P = 700, 6
X = RNG.standard_normal((N, P)) * [1, 2, 0.5, 1, 3, 1] + [0, 5, -3, 0, 1, 2]
Y = X @ RNG.standard_normal(P) + RNG.standard_normal(N)
TWO = np.where(Y + RNG.standard_normal(N) > Y.mean(), "yes", "no")
THREE = np.digitize(Y + RNG.standard_normal(N), np.quantile(Y, [0.3, 0.6]))
COUNTS = RNG.poisson(np.exp(np.clip(Y / 8, -2, 2)))
W = RNG.random(N) + 0.1


@dataclass(frozen=True)
class Case:
    """An estimator, its targets, and the attributes that are compared."""

    estimator: Any
    y: Any
    names: tuple[str, ...]
    rtol: float = 1e-6
    weights: bool = True
    x: Any = None

    def __str__(self) -> str:
        return repr(self.estimator)

    def fit(self, data: Any, weight: Any = None) -> Any:
        from sklearn.base import clone

        options = {} if weight is None else {"sample_weight": weight}
        return clone(self.estimator).fit(data, self.y, **options)


COEF = ("coef_", "intercept_")
CASES = [
    Case(ml.LinearRegression(), Y, (*COEF, "rank_", "singular_")),
    Case(ml.LinearRegression(fit_intercept=False), np.column_stack([Y, -2 * Y]), ("coef_",)),
    Case(ml.LinearRegression(positive=True), Y, COEF),
    Case(ml.Ridge(alpha=2.0), Y, COEF),
    Case(ml.Ridge(solver="lsqr", tol=1e-12), Y, COEF),
    Case(ml.Lasso(alpha=0.1, tol=1e-10), Y, COEF),
    Case(ml.ElasticNet(alpha=0.1, l1_ratio=0.3, tol=1e-10), Y, COEF),
    Case(ml.LogisticRegression(tol=1e-9, max_iter=3000), TWO, COEF),
    Case(ml.LogisticRegression(tol=1e-9, max_iter=3000, fit_intercept=False), TWO, ("coef_",)),
    Case(ml.LogisticRegression(solver="newton-cholesky", tol=1e-10), TWO, COEF),
    Case(ml.LogisticRegression(solver="newton-cholesky", tol=1e-10), THREE, COEF),
    Case(
        ml.LogisticRegression(tol=1e-9, max_iter=3000, class_weight="balanced", C=0.01),
        THREE,
        COEF,
        1e-5,
    ),
    Case(
        ml.LogisticRegression(l1_ratio=1, C=0.02, solver="saga", tol=1e-10, max_iter=9000),
        TWO,
        COEF,
        1e-4,
    ),
    Case(ml.GaussianNB(), THREE, ("theta_", "var_", "class_prior_", "epsilon_")),
    Case(ml.StandardScaler(), None, ("mean_", "var_", "scale_", "n_samples_seen_")),
    Case(ml.MinMaxScaler(), None, ("min_", "scale_"), weights=False),
    Case(ml.MaxAbsScaler(), None, ("scale_",), weights=False),
    Case(
        ml.PCA(3),
        None,
        ("components_", "mean_", "explained_variance_", "noise_variance_", "singular_values_"),
        weights=False,
    ),
    Case(ml.PCA(3, svd_solver="full"), None, ("components_", "explained_variance_"), weights=False),
    Case(ml.PCA(0.8), None, ("components_", "explained_variance_"), weights=False),
    Case(
        ml.TruncatedSVD(3, algorithm="arpack"),
        None,
        ("components_", "explained_variance_", "explained_variance_ratio_"),
        weights=False,
    ),
    Case(
        ml.KMeans(4, init=X[:4], n_init=1), None, ("cluster_centers_", "inertia_", "labels_"), 1e-9
    ),
]
