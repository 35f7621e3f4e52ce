"""Estimators with scikit-learn's of the same name, and what they must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray import ml

RNG = np.random.default_rng(7)
N, P = 400, 6
X = RNG.standard_normal((N, P)) * [1, 2, 0.5, 1, 1.5, 1] + [0, 1, -1, 0, 1, 0]
Y = X @ RNG.standard_normal(P) + RNG.standard_normal(N)
TWO = np.where(Y + RNG.standard_normal(N) > Y.mean(), "yes", "no")
THREE = np.digitize(Y + RNG.standard_normal(N), np.quantile(Y, [0.3, 0.6]))
COUNTS = RNG.poisson(np.exp(np.clip(Y / 4, -2, 2)))
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
        shown = " ".join(repr(self.estimator).split())
        return shown if len(shown) < 90 else f"{shown[:90]}..."

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
    Case(ml.RidgeCV(alphas=[0.1, 1.0, 30.0]), Y, (*COEF, "alpha_", "best_score_")),
    Case(
        ml.RidgeCV(alphas=[0.1, 1.0, 30.0], cv=4),
        Y,
        (*COEF, "alpha_", "best_score_"),
        weights=False,
    ),
    Case(ml.LassoCV(cv=4, alphas=12, tol=1e-9), Y, (*COEF, "alpha_", "mse_path_")),
    Case(
        ml.ElasticNetCV(cv=4, alphas=7, l1_ratio=[0.3, 0.9], tol=1e-9),
        Y,
        (*COEF, "alpha_", "mse_path_", "l1_ratio_"),
    ),
    Case(
        ml.MultiTaskLasso(alpha=0.1, tol=1e-10),
        np.column_stack([Y, X[:, 0] - Y]),
        COEF,
        weights=False,
    ),
    Case(ml.PoissonRegressor(tol=1e-9, max_iter=2000), COUNTS, COEF),
    Case(ml.PoissonRegressor(solver="newton-cholesky", tol=1e-9), COUNTS, COEF),
    Case(ml.GammaRegressor(tol=1e-9, max_iter=2000), COUNTS + 0.5, COEF),
    Case(ml.TweedieRegressor(power=1.5, tol=1e-9, max_iter=2000), COUNTS, COEF),
    Case(ml.LinearSVC(tol=1e-10, max_iter=100_000, dual=False), TWO, COEF, 1e-5),
    Case(ml.LinearSVC(tol=1e-10, max_iter=100_000, dual=False, C=0.1), THREE, COEF, 1e-5),
    Case(
        ml.LinearSVR(
            loss="squared_epsilon_insensitive", epsilon=0.1, tol=1e-10, max_iter=100_000, dual=False
        ),
        Y,
        COEF,
        1e-5,
    ),
    Case(ml.LinearSVC(loss="hinge", tol=1e-9, max_iter=1_000_000, C=0.3), TWO, COEF, 3e-6),
    Case(ml.LinearSVC(loss="hinge", tol=1e-9, max_iter=1_000_000, C=0.3), THREE, COEF, 3e-6),
    Case(
        ml.LinearSVC(
            penalty="l1", dual=False, tol=1e-9, max_iter=100_000, C=0.5, intercept_scaling=2
        ),
        THREE,
        COEF,
        3e-6,
    ),
    # Its intercept is a thousandth of the targets: LIBLINEAR has no more digits of it than these.
    Case(ml.LinearSVR(tol=1e-9, max_iter=1_000_000, epsilon=0.3, C=0.2), Y, ("coef_",), 3e-6),
    Case(
        ml.LogisticRegressionCV(
            Cs=3,
            cv=3,
            l1_ratios=(0,),
            scoring="neg_log_loss",
            use_legacy_attributes=False,
            tol=1e-9,
            max_iter=3000,
        ),
        TWO,
        (*COEF, "C_", "Cs_", "l1_ratio_", "l1_ratios_", "scores_", "coefs_paths_"),
        1e-5,
    ),
    Case(
        ml.LogisticRegressionCV(
            Cs=[0.01, 1.0],
            cv=3,
            l1_ratios=None,
            scoring="roc_auc_ovr",
            refit=False,
            use_legacy_attributes=True,
            tol=1e-9,
            max_iter=3000,
            class_weight="balanced",
        ),
        THREE,
        (*COEF, "C_", "Cs_"),
        1e-5,
    ),
    Case(ml.MultinomialNB(), THREE, ("feature_log_prob_", "class_log_prior_"), x=np.abs(X)),
    Case(ml.BernoulliNB(binarize=0.5), THREE, ("feature_log_prob_", "class_log_prior_")),
    Case(
        ml.FactorAnalysis(2, svd_method="lapack", tol=1e-8),
        None,
        ("noise_variance_", "mean_", "loglike_"),
        1e-5,
        weights=False,
    ),
    Case(
        ml.GaussianMixture(
            2,
            means_init=X[:2],
            weights_init=[0.5, 0.5],
            precisions_init=np.array([np.eye(P)] * 2),
            max_iter=20,
            tol=0,
        ),
        None,
        ("means_", "covariances_", "weights_", "lower_bound_"),
        weights=False,
    ),
    Case(ml.RobustScaler(), None, ("center_", "scale_"), 1e-12, weights=False),
    Case(
        ml.RobustScaler(quantile_range=(5, 90), unit_variance=True),
        None,
        ("center_", "scale_"),
        1e-12,
        weights=False,
    ),
    Case(ml.PowerTransformer(), None, ("lambdas_",), 1e-5, weights=False),
    Case(
        ml.PowerTransformer(method="box-cox"),
        None,
        ("lambdas_",),
        1e-5,
        weights=False,
        x=np.abs(X) + 0.1,
    ),
    Case(ml.VarianceThreshold(0.5), None, ("variances_",), weights=False),
    Case(ml.SelectKBest(k=2), THREE, ("scores_", "pvalues_"), weights=False),
    Case(ml.TfidfTransformer(), None, ("idf_",), weights=False, x=np.maximum(X, 0)),
]
