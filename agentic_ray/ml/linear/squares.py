"""Linear models with a squared loss: everything they need is in a matrix of p + 1 rows.

The sum of squares ``|y - X w|²`` depends on X and y by the triangular factor R of ``[X y]`` alone.
So one pass makes R, and scikit-learn's own solver is given its rows in place of the data: each
option of a solver means what it means there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.linear_model as sk

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin
from agentic_ray.ml.moments import MOST_SPARSE_COLUMNS, summary
from agentic_ray.ml.passes import Passes


def check_width(run: Passes) -> None:
    """Refuse sparse data whose scatter matrix would not be small."""
    if run.is_sparse and run.p > MOST_SPARSE_COLUMNS:
        raise InvalidArgumentError(
            f"sparse X of {run.p} columns: at most {MOST_SPARSE_COLUMNS} are taken here, since "
            "their products with each other are added up; use SGDRegressor"
        )


class _Squares(Distributed):
    """`fit` of a linear model with a squared loss.

    Attributes
    ----------
    _per_sample : bool
        The loss is a mean over samples, not a sum.
    """

    _per_sample = False
    _multi_output = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model; one pass over the rows, two where columns are nearly dependent.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, checkpoint)

    def _fit(self: Any, X: Any, y: Any, sample_weight: Any, checkpoint: Any) -> Any:
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=self._takes_sparse(),
            target="numeric", multi_output=self._multi_output, non_negative_weight=True,
        )  # fmt: skip
        check_width(run)
        solve_squares(self, run, self._per_sample)
        return self

    def _takes_sparse(self: Any) -> bool:
        return not getattr(self, "positive", False)


def solve_squares(self: Any, run: Passes, per_sample: bool) -> None:
    """Fit scikit-learn's class on the summary of a run, and take over what it learnt."""
    assert run.y is not None
    weight, mean, factor = summary(run, centred=self.fit_intercept)
    p, single = run.p, run.y.ndim == 1
    rows = max(len(factor), 2)  # scikit-learn refuses a single row in places
    short = np.zeros((rows, factor.shape[1]))
    short[: len(factor)] = factor
    scale = np.sqrt(rows / weight) if per_sample and weight else 1.0
    short *= scale
    params = self.get_params(deep=False)
    twin = self._sklearn_class(**{**params, "fit_intercept": False})
    if params.get("solver") == "auto" and not np.any(self.alpha) and not self.positive:
        # Without a penalty columns may be dependent: the shortest solution, as LinearRegression's.
        twin = sk.LinearRegression(fit_intercept=False)
        self.solver_, self.n_iter_ = "svd", None
    twin.fit(np.asfortranarray(short[:, :p]), short[:, p] if single else short[:, p:])
    for name, value in vars(twin).items():
        if name.endswith("_") and name not in (
            "n_features_in_", "feature_names_in_", "rank_", "singular_"
        ):  # fmt: skip
            setattr(self, name, value)
    if type(twin) is self._sklearn_class and hasattr(twin, "singular_"):
        self.rank_, self.singular_ = twin.rank_, twin.singular_[: min(run.n, p)]
    dtype = _result_dtype(run)
    self.coef_ = np.asarray(twin.coef_, dtype=dtype)
    if self.fit_intercept:
        centre = mean[p] if single else mean[p:]
        self.intercept_ = np.asarray(centre - np.asarray(twin.coef_) @ mean[:p], dtype=dtype)[()]
    else:
        self.intercept_ = 0.0


def _result_dtype(run: Passes) -> Any:
    found = run.x.dtype
    return np.dtype(np.float32) if found == np.float32 else np.dtype(np.float64)


class LinearRegression(_Squares, sk.LinearRegression):
    """Ordinary least squares over rows in chunks; parameters as `sklearn.linear_model`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 3.0]])
    >>> model = ml.LinearRegression().fit(X, X @ np.array([1.0, 2.0]) + 3)
    >>> np.round(model.coef_, 6), round(float(model.intercept_), 6)
    (array([1., 2.]), 3.0)
    """


class Ridge(_Squares, sk.Ridge):
    """Least squares with an l2 penalty over rows in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> float(ml.Ridge(alpha=2.0).fit(X, [0.0, 1.0, 2.0]).coef_[0])
    0.5
    """


class ElasticNet(_Squares, sk.ElasticNet):
    """Least squares with l1 and l2 penalties over rows in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    >>> float(ml.ElasticNet(alpha=0.1).fit(X, [0.0, 1.0, 2.0, 3.0]).coef_[0].round(2))
    0.92
    """

    _per_sample = True

    def _fit(self: Any, X: Any, y: Any, sample_weight: Any, checkpoint: Any) -> Any:
        if self.warm_start or not isinstance(self.precompute, bool):
            raise InvalidArgumentError(
                "warm_start and a Gram matrix as precompute are not taken here: the Gram matrix is "
                "made of the chunks"
            )
        return super()._fit(X, y, sample_weight, checkpoint)


class Lasso(ElasticNet, sk.Lasso):
    """Least squares with an l1 penalty over rows in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    >>> float(ml.Lasso(alpha=0.1).fit(X, [0.0, 1.0, 2.0, 3.0]).coef_[0].round(2))
    0.92
    """


class MultiTaskElasticNet(ElasticNet, sk.MultiTaskElasticNet):
    """The elastic net of several targets that have their columns in common.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    >>> ml.MultiTaskElasticNet(alpha=0.1).fit(X, X[:, :1] * [[1.0, 2.0]]).coef_.shape
    (2, 2)
    """

    precompute = False

    def fit(  # type: ignore[override]  # scikit-learn's takes no weights either
        self, X: Any, y: Any, *, checkpoint: Any = None
    ) -> Any:
        """Fit the model; as `ElasticNet.fit`, without weights."""
        return self._fit(X, y, None, checkpoint)


class MultiTaskLasso(MultiTaskElasticNet, sk.MultiTaskLasso):
    """The lasso of several targets that have their columns in common.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    >>> ml.MultiTaskLasso(alpha=0.1).fit(X, X[:, :1] * [[1.0, 2.0]]).coef_.shape
    (2, 2)
    """
