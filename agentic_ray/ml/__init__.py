"""scikit-learn's estimators over data in chunks, on all cores and nodes.

Each estimator is scikit-learn's of the same name with another way to fit: over the chunks of an
`agentic_ray.array` array, of files or of tables, where they are. Small data are gone through in
the caller's process.

>>> import agentic_ray as ar
>>> import agentic_ray.array as xp
>>> X = xp.random.default_rng(0).standard_normal((1000, 3))
>>> model = ar.ml.LinearRegression().fit(X, X[:, 0] * 2)
>>> round(float(model.coef_[0]), 6)
2.0
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "data": ("Rows", "rows"),
    "predicting": ("predict",),
    "training": ("Training", "train"),
    "progress": ("Iteration", "watching"),
    "metrics": ("metrics",),
    "bayes": ("BernoulliNB", "GaussianNB", "MultinomialNB"),
    "boosting.histograms": (
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
    ),
    "cluster.bisecting": ("BisectingKMeans",),
    "cluster.density": ("DBSCAN",),
    "cluster.kmeans": ("KMeans",),
    "compose": ("ColumnTransformer", "FeatureUnion"),
    "decomposition.components": ("PCA", "FactorAnalysis", "TruncatedSVD"),
    "decomposition.nmf": ("NMF",),
    "ensemble": (
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "IsolationForest",
        "RandomForestClassifier",
        "RandomForestRegressor",
    ),
    "incremental": ("IncrementalPCA", "MiniBatchKMeans", "SGDClassifier", "SGDRegressor"),
    "linear.folds": ("ElasticNetCV", "LassoCV", "RidgeCV"),
    "linear.generalised": ("GammaRegressor", "PoissonRegressor", "TweedieRegressor"),
    "linear.logistic": ("LogisticRegression",),
    "linear.logistic_folds": ("LogisticRegressionCV",),
    "linear.squares": (
        "ElasticNet",
        "Lasso",
        "LinearRegression",
        "MultiTaskElasticNet",
        "MultiTaskLasso",
        "Ridge",
    ),
    "linear.vectors": ("LinearSVC", "LinearSVR"),
    "mixture": ("GaussianMixture",),
    "neighbors": ("KNeighborsClassifier", "KNeighborsRegressor", "NearestNeighbors"),
    "onnx": ("to_onnx",),
    "onnx_model": ("OnnxModel",),
    "preprocessing.ranks": (
        "KBinsDiscretizer",
        "PowerTransformer",
        "QuantileTransformer",
        "RobustScaler",
    ),
    "preprocessing.scalers": ("MaxAbsScaler", "MinMaxScaler", "StandardScaler"),
    "preprocessing.tables": (
        "Binarizer",
        "LabelEncoder",
        "Normalizer",
        "OneHotEncoder",
        "OrdinalEncoder",
        "PolynomialFeatures",
        "SimpleImputer",
    ),
    "preprocessing.targets": ("TargetEncoder",),
    "search": (
        "GridSearchCV",
        "HalvingGridSearchCV",
        "RandomizedSearchCV",
        "parallel",
        "train_test_split",
    ),
    "selection": ("SelectKBest", "SelectPercentile", "VarianceThreshold"),
    "text": ("FeatureHasher", "HashingVectorizer", "TfidfTransformer"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value: Any = importlib.import_module(f"{__name__}.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name not in ("sklearn", "scipy", "pandas", "threadpoolctl", "joblib"):
            raise
        raise ModuleNotFoundError(
            f"agentic_ray.ml needs {error.name}: pip install 'agentic-ray[ml]'", name=error.name
        ) from error
    if name != _HOME[name]:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
