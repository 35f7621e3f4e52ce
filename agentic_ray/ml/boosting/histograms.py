"""Histogram gradient boosting over rows in chunks: grown by LightGBM, kept as scikit-learn's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.ensemble as sk
from sklearn.base import is_classifier
from sklearn.utils.validation import _check_monotonic_cst

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, is_distributed, seed_of
from agentic_ray.ml.boosting.machines import Growing, grown, kept_outside, own_weights
from agentic_ray.ml.boosting.trees import predictors_of
from agentic_ray.ml.data import Rows
from agentic_ray.ml.linear.logistic import balanced
from agentic_ray.ml.linear.losses import label_weights
from agentic_ray.ml.passes import Passes

_OBJECTIVES = {
    "squared_error": "regression",
    "absolute_error": "regression_l1",
    "gamma": "gamma",
    "poisson": "poisson",
    "quantile": "quantile",
}
_BY_ORDER = ("absolute_error", "quantile")
"""Losses whose leaves need all their rows in order: one machine grows them."""


def target_sums(x: Any, y: Any, w: Any) -> Any:
    """Weight and weighted sum of the targets, and how many are negative and how many are 0."""
    total = float(len(y) if w is None else np.sum(w))
    own = float(y.sum() if w is None else y @ w)
    return total, own, int((y < 0).sum()), int((y == 0).sum())


def staged_losses(
    x: Any, y: Any, w: Any, model: Any, class_weight: Any, share: float, seed: int, inside: bool,
    number: int,
) -> Any:  # fmt: skip
    """Weight, and the sums of losses before the first and after each iteration, of the rows that
    are kept outside or of the others."""
    chosen = kept_outside(len(y), share, seed, number)
    chosen = ~chosen if inside else chosen
    weight = own_weights(y, w, class_weight)
    sums = np.zeros(len(model._predictors) + 1)
    if not chosen.any():
        return 0.0, sums
    block, targets = x[chosen], np.ascontiguousarray(y[chosen], np.float64)
    own = None if weight is None else np.ascontiguousarray(weight[chosen], np.float64)
    raw = np.tile(model._baseline_prediction, (len(targets), 1))
    for at, found in enumerate([raw, *model._staged_raw_predict(block)]):
        shown = found[:, 0] if found.shape[1] == 1 else found
        losses = model._loss.loss(targets, np.ascontiguousarray(shown), own)
        sums[at] = float(losses.sum())
    return float(len(targets) if own is None else own.sum()), sums


class _Boosting(Distributed):
    """`fit` of histogram gradient boosting. Data in memory are scikit-learn's own to fit."""

    def fit(
        self: Any, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None,
        y_val: Any = None, sample_weight_val: Any = None,
    ) -> Any:  # fmt: skip
        """Fit the model.

        Of data in chunks LightGBM grows the trees, each of its machines on the rows of some chunks;
        it needs the extra ``agentic-ray[boosting]``.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
            Missing values may be among them.
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        X_val, y_val, sample_weight_val : array-like, optional
            Of data in memory only.

        Returns
        -------
        self

        Raises
        ------
        ModuleNotFoundError
            LightGBM is not installed, and the data are in chunks.
        """
        if not is_distributed(X):
            return self._sklearn_class.fit(
                self, X, y, sample_weight, X_val=X_val, y_val=y_val,
                sample_weight_val=sample_weight_val,
            )  # fmt: skip
        self._refuse(X_val, y_val, sample_weight_val)
        _need_lightgbm()
        classifier = is_classifier(self)
        run = begin(
            self, X, y, sample_weight, target="labels" if classifier else "numeric",
            dtype=("float64",), allow_nan=True, non_negative_weight=False,
        )  # fmt: skip
        self._refuse_categories(run.x)
        class_weight = None
        if classifier:
            self.classes_ = encode_labels(run)
            if self.class_weight is not None:
                totals = run.run(label_weights, len(self.classes_))
                class_weight = balanced(self.class_weight, self.classes_, totals)[1]
        assert run.y is not None
        only = Passes(
            run.y, run.y, run.weight, replace(run.check, as_table=True), None, run.progress
        )
        sums = only.run(target_sums)
        self._check_targets(sums)
        # Infinite values are numbers like others here, as scikit-learn's are.
        run.check = replace(run.check, finite=False)
        seed = seed_of(run, self.random_state)
        model = self._small(run)
        baseline = self._baseline(run, model, sums, class_weight)
        stops = self.early_stopping
        stops = run.n > 10000 if stops == "auto" else bool(stops)
        share = self.validation_fraction if stops else None
        share = 0.0 if share is None else (share if share < 1 else share / run.n)
        growing = Growing(
            self._lightgbm(run, seed, model), self.max_iter, baseline, class_weight, share, seed
        )
        text = grown(run, growing, self.loss in _BY_ORDER)
        model._baseline_prediction = baseline.reshape(1, -1)
        model._predictors = predictors_of(text, len(baseline))
        if stops:
            self._stop_early(run, model, class_weight, share, seed)
        model.do_early_stopping_ = stops
        names = self.get_params(deep=False)
        kept = {"n_features_in_", "feature_names_in_", "classes_", *names}
        self.__dict__.update({k: v for k, v in vars(model).items() if k not in kept})
        return self

    # --- refusing parameters ----------------------------------------------------------------

    def _refuse(self: Any, *validation: Any) -> None:
        if any(value is not None for value in validation):
            raise InvalidArgumentError(
                "X_val, y_val and sample_weight_val are not taken for data in chunks; use "
                "validation_fraction"
            )
        if self.warm_start:
            raise InvalidArgumentError("warm_start is not taken for data in chunks")
        if self.early_stopping is not False and self.scoring != "loss":
            raise InvalidArgumentError(
                "early stopping of data in chunks goes by scoring='loss'; given is "
                f"{self.scoring!r}"
            )
        if not isinstance(self.loss, str):
            raise InvalidArgumentError("a loss of your own is not taken for data in chunks")

    def _refuse_categories(self: Any, data: Rows) -> None:
        """Categories are not taken; that a table has columns of them is known from one row."""
        given = self.categorical_features
        if isinstance(given, str):
            kinds = getattr(data.sample, "dtypes", ())
            found = [str(kind) == "category" for kind in kinds]
        else:
            named = [] if given is None else np.ravel(np.asarray(given, dtype=object)).tolist()
            found = [not isinstance(one, bool | np.bool_) or bool(one) for one in named]
        if any(found):
            raise InvalidArgumentError(
                "categorical_features are not taken for data in chunks; encode them first "
                "(OrdinalEncoder, TargetEncoder)"
            )

    def _check_targets(self: Any, sums: Any) -> None:
        _total, own, negative, zero = sums
        if self.loss == "gamma" and (negative or zero):
            raise ValueError("loss='gamma' requires strictly positive y.")
        if self.loss == "poisson" and (negative or own <= 0):
            raise ValueError("loss='poisson' requires non-negative y and sum(y) > 0.")

    def _small(self: Any, run: Passes) -> Any:
        """scikit-learn's estimator, fitted on a few rows with as many columns: it has all that is
        not a tree."""
        options = {
            **self.get_params(deep=False), "max_iter": 1, "early_stopping": False,
            "categorical_features": None, "verbose": 0, "random_state": 0,
        }  # fmt: skip
        labels = np.repeat(self.classes_, 2) if is_classifier(self) else np.ones(2)
        options.pop("class_weight", None)
        names = getattr(self, "feature_names_in_", None)
        rows: Any = np.zeros((len(labels), run.p))
        if names is not None:
            import pandas as pd

            rows = pd.DataFrame(rows, columns=names)
        return self._sklearn_class(**options).fit(rows, labels)

    def _baseline(self: Any, run: Passes, model: Any, sums: Any, class_weight: Any) -> Any:
        """Return the prediction before the first tree."""
        if is_classifier(self):
            weights = run.run(label_weights, len(self.classes_))
            weights = weights if class_weight is None else weights * class_weight
            shares = weights / weights.sum()
            if len(shares) <= 2:
                with np.errstate(divide="ignore"):
                    return np.array([np.log(shares[-1] / (1.0 - shares[-1]))])
            logs = np.log(shares)
            return logs - logs.mean()
        if self.loss in _BY_ORDER:
            assert run.y is not None
            y = np.asarray(run.y.compute(), np.float64).ravel()
            weight = None if run.weight is None else np.asarray(run.weight.compute(), np.float64)
            return np.reshape(model._loss.fit_intercept_only(y, weight), (1,)).astype(np.float64)
        mean = sums[1] / sums[0]
        return np.array([mean if self.loss == "squared_error" else np.log(mean)])

    def _lightgbm(self: Any, run: Passes, seed: int, model: Any) -> dict[str, Any]:
        """LightGBM's parameters with the meaning of scikit-learn's."""
        count = len(self.classes_) if is_classifier(self) else 0
        # LightGBM's second derivatives of several classes are larger by this factor.
        factor = count / (count - 1.0) if count > 2 else 1.0
        options: dict[str, Any] = {
            "objective": _OBJECTIVES.get(self.loss, "multiclass" if count > 2 else "binary"),
            "learning_rate": self.learning_rate * factor,
            "num_leaves": 131072 if self.max_leaf_nodes is None else self.max_leaf_nodes,
            "max_depth": -1 if self.max_depth is None else self.max_depth,
            "min_data_in_leaf": self.min_samples_leaf,
            "min_sum_hessian_in_leaf": 1e-3 * factor,
            "lambda_l2": self.l2_regularization * factor,
            "feature_fraction_bynode": self.max_features,
            "max_bin": self.max_bins,
            "min_data_in_bin": 1,
            "bin_construct_sample_cnt": 200_000,
            "boost_from_average": False,
            "feature_pre_filter": False,
            "poisson_max_delta_step": 1e-12,
            "deterministic": True,
            "force_col_wise": True,
            "seed": seed % (1 << 30),
            "num_threads": 1,
            "verbosity": -1,
        }
        if self.loss == "quantile":
            options["alpha"] = self.quantile
        if count > 2:
            options["num_class"] = count
        signs = _check_monotonic_cst(self, self.monotonic_cst)
        if np.any(signs):
            options["monotone_constraints"] = [int(sign) for sign in signs]
        groups = model._check_interaction_cst(run.p)
        if groups is not None:
            options["interaction_constraints"] = [sorted(map(int, group)) for group in groups]
        return options

    def _stop_early(
        self: Any, run: Passes, model: Any, class_weight: Any, share: float, seed: int
    ) -> None:
        """Leave out the trees that scikit-learn would not have grown."""
        numbers = range(len(run.x.lengths))
        options = (model, class_weight, share, seed)
        found = {}
        for inside in (True, False) if share else (True,):
            weight, losses = run.run(staged_losses, *options, inside, numbered=numbers)
            found[inside] = -losses / weight if weight else None
        model.train_score_ = found[True]
        model.validation_score_ = found.get(False, np.array([]))
        if share and found[False] is None:  # no row is outside
            model.validation_score_ = np.array([])
        guide = model.validation_score_ if len(model.validation_score_) else model.train_score_
        last = len(model._predictors)
        for count in range(1, last + 1):
            if self._should_stop(guide[: count + 1].tolist()):
                last = count
                break
        model._predictors = model._predictors[:last]
        model.train_score_ = model.train_score_[: last + 1]
        model.validation_score_ = model.validation_score_[: last + 1]


def _need_lightgbm() -> None:
    try:
        import lightgbm  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "histogram gradient boosting of data in chunks needs LightGBM: pip install "
            "'agentic-ray[boosting]'",
            name="lightgbm",
        ) from error
    except OSError as error:
        raise ModuleNotFoundError(
            f"LightGBM cannot be loaded ({error}); on Debian: apt-get install libgomp1",
            name="lightgbm",
        ) from error


class HistGradientBoostingRegressor(_Boosting, sk.HistGradientBoostingRegressor):
    """Gradient boosting by histograms over rows in chunks; parameters as `sklearn.ensemble`'s.

    Of data in chunks LightGBM grows the trees in its distributed mode, by the parameters given
    here, and they are kept as scikit-learn's: prediction and `to_sklearn` need no LightGBM.
    Trees are as good as scikit-learn's, not the same. With early stopping all ``max_iter``
    iterations are grown, and those after the stop are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.linspace(0, 1, 100)[:, None]
    >>> model = ml.HistGradientBoostingRegressor(max_iter=50).fit(X, X[:, 0] > 0.5)
    >>> model.predict([[0.2], [0.8]]).round(1)
    array([0., 1.])
    """


class HistGradientBoostingClassifier(_Boosting, sk.HistGradientBoostingClassifier):
    """Gradient boosting by histograms over rows in chunks; parameters as `sklearn.ensemble`'s.

    As `HistGradientBoostingRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.linspace(0, 1, 100)[:, None]
    >>> model = ml.HistGradientBoostingClassifier(max_iter=20).fit(X, X[:, 0] > 0.5)
    >>> model.predict([[0.2], [0.8]])
    array([False,  True])
    """
