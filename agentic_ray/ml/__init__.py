"""scikit-learn's estimators over data in chunks, on all cores and nodes.

Each estimator is scikit-learn's of the same name with another way to fit: over the chunks of an
`agentic_ray.array` array, of files or of tables, where they are. Small data are gone through in
the caller's process.
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "data": ("Rows", "rows"),
    "progress": ("Iteration", "watching"),
    "linear.squares": ("ElasticNet", "Lasso", "LinearRegression", "Ridge"),
    "linear.logistic": ("LogisticRegression",),
    "cluster.kmeans": ("KMeans",),
    "decomposition.components": ("PCA", "TruncatedSVD"),
    "preprocessing.scalers": ("MaxAbsScaler", "MinMaxScaler", "StandardScaler"),
    "metrics": ("metrics",),
    "bayes": ("BernoulliNB", "GaussianNB", "MultinomialNB"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any = importlib.import_module(f"{__name__}.{_HOME[name]}")
    if name != _HOME[name]:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
