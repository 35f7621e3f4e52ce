"""Everyday scripts of data scientists: each gives with our estimators, over data in chunks, what
it gives with scikit-learn's in memory, or raises what theirs raise."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import sklearn.metrics
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import StackingRegressor, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (it makes the class known)
from sklearn.model_selection import (
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import all_estimators

import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.ml.base import is_distributed

RNG = np.random.default_rng(0)
N = 180
X = RNG.standard_normal((N, 5))
Y = X @ [1, 2, -1, 0, 0.5] + RNG.standard_normal(N) * 0.5
TWO = np.where(Y + RNG.standard_normal(N) > 0, "yes", "no")
THREE = np.array(["a", "b", "c"])[np.digitize(Y, [-1, 1])]
W = RNG.random(N) + 0.1
GROUPS = np.repeat(np.arange(12), 15)
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
SPARSE = sp.random(N, 20, 0.2, format="csr", random_state=0)
WORDS = np.array(["cat", "dog", "fish", "bird", "tree", "house", "car", "road", "blue", "red"])
TEXT = [" ".join(RNG.choice(WORDS, 6)) for _ in range(N)]
TABLE = pd.DataFrame(
    {
        "size": X[:, 0],
        "age": HOLES[:, 1],
        "colour": RNG.choice(["red", "blue", "green"], N),
        "shape": RNG.choice(np.array(["round", "square", None], dtype=object), N),
        "count": RNG.integers(0, 9, N),
    }
)
EXACT: dict[str, Any] = {"tol": 1e-9, "max_iter": 2000}
THEIRS = {**dict(all_estimators()), "HalvingGridSearchCV": HalvingGridSearchCV}

Names = Any
"""Where estimators are taken from, by their names: ours, or scikit-learn's."""
Given = Callable[[Any], Any]
"""Puts data where the script is to have them."""


class Library:
    """The estimators of a library by their names; what ours lacks is scikit-learn's."""

    def __init__(self, ours: bool) -> None:
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(ml, name) if self._ours and name in ml.__all__ else THEIRS[name]


SCRIPTS: list[Callable[[Names, Given], Any]] = []


def script(function: Callable[[Names, Given], Any]) -> Callable[[Names, Given], Any]:
    SCRIPTS.append(function)
    return function


def columns(m: Names) -> Any:
    numbers = make_pipeline(m.SimpleImputer(), m.StandardScaler())
    return m.ColumnTransformer(
        [
            ("numbers", numbers, ["size", "age"]),
            ("words", m.OneHotEncoder(handle_unknown="ignore"), ["colour", "shape"]),
        ],
        remainder="passthrough",
    )


def mixed(m: Names) -> Any:
    return make_pipeline(columns(m), m.LogisticRegression(**EXACT))


# --- tables ----------------------------------------------------------------------------------


@script
def mixed_columns(m: Names, d: Given) -> Any:
    model = mixed(m).fit(d(TABLE), TWO)
    shares = model.predict_proba(d(TABLE))
    return model[-1].coef_, model.predict(d(TABLE)), shares, model.score(d(TABLE), TWO)


@script
def names_of_columns(m: Names, d: Given) -> Any:
    return columns(m).fit(d(TABLE)).get_feature_names_out()


@script
def columns_by_type(m: Names, d: Given) -> Any:
    chosen = [
        ("numbers", m.StandardScaler(), make_column_selector(dtype_include="number")),
        ("dropped", "drop", ["colour"]),
        ("kept", "passthrough", ["count"]),
    ]
    return m.ColumnTransformer(chosen).fit_transform(d(TABLE))


def framed(m: Names) -> Any:
    return m.ColumnTransformer(
        [("size", m.StandardScaler(), ["size"]), ("colour", m.OrdinalEncoder(), ["colour"])]
    )


@script
def pandas_tables_come_out(m: Names, d: Given) -> Any:
    return framed(m).set_output(transform="pandas").fit_transform(d(TABLE))


@script
def polars_tables_come_out(m: Names, d: Given) -> Any:
    return framed(m).set_output(transform="polars").fit_transform(d(TABLE))


@script
def a_pipeline_of_pandas_tables(m: Names, d: Given) -> Any:
    steps = make_pipeline(m.SimpleImputer(), m.StandardScaler(), m.PCA(2))
    return steps.set_output(transform="pandas").fit_transform(d(TABLE[["size", "age", "count"]]))


@script
def transformers_beside_each_other(m: Names, d: Given) -> Any:
    return m.FeatureUnion([("a", m.StandardScaler()), ("b", m.PCA(2))]).fit_transform(d(X))


# --- folds and searches ----------------------------------------------------------------------


@script
def scores_of_folds(m: Names, d: Given) -> Any:
    logistic = m.LogisticRegression(**EXACT)
    return [
        cross_val_score(logistic, d(X), TWO, cv=3),
        cross_val_score(logistic, d(X), TWO, cv=3, scoring="roc_auc"),
        cross_val_score(logistic, d(X), THREE, cv=3, scoring="f1_macro"),
        cross_val_score(logistic, d(X), THREE, cv=3, scoring="neg_log_loss"),
        cross_val_score(m.Ridge(), d(X), Y, cv=GroupKFold(4), groups=GROUPS),
        cross_val_score(
            m.Ridge(), d(X), Y, cv=KFold(3, shuffle=True, random_state=0),
            scoring="neg_root_mean_squared_error",
        ),
    ]  # fmt: skip


@script
def several_scores_of_folds(m: Names, d: Given) -> Any:
    scoring = ["accuracy", "roc_auc", "neg_brier_score"]
    found = cross_validate(
        m.LogisticRegression(**EXACT), d(X), TWO, cv=3, scoring=scoring, return_train_score=True
    )
    return [found[name] for name in sorted(found) if "time" not in name]


@script
def predictions_of_folds(m: Names, d: Given) -> Any:
    logistic = m.LogisticRegression(**EXACT)
    shares = cross_val_predict(logistic, d(X), TWO, cv=3, method="predict_proba")
    return cross_val_predict(m.Ridge(), d(X), Y, cv=3), shares


@script
def folds_of_a_pipeline(m: Names, d: Given) -> Any:
    return cross_val_score(mixed(m), d(TABLE), TWO, cv=2, scoring="roc_auc")


@script
def a_curve_of_a_parameter(m: Names, d: Given) -> Any:
    return validation_curve(
        m.Ridge(), d(X), Y, param_name="alpha", param_range=[0.1, 10], cv=3
    )  # fmt: skip


@script
def a_grid_with_several_scores(m: Names, d: Given) -> Any:
    search = m.GridSearchCV(
        m.LogisticRegression(**EXACT), {"C": [0.01, 1]}, cv=3, scoring=["accuracy", "roc_auc"],
        refit="roc_auc", n_jobs=1,
    ).fit(d(X), TWO)  # fmt: skip
    found = search.cv_results_
    both = found["mean_test_roc_auc"], found["mean_test_accuracy"]
    return search.best_params_["C"], both, search.score(d(X), TWO), search.predict(d(X))


@script
def a_grid_over_a_pipeline(m: Names, d: Given) -> Any:
    grid = {"logisticregression__C": [0.1, 10]}
    search = m.GridSearchCV(mixed(m), grid, cv=2, scoring="f1_macro", n_jobs=1)
    search.fit(d(TABLE), TWO)
    return search.cv_results_["mean_test_score"], search.predict(d(TABLE))


@script
def a_grid_with_weights_and_a_score_of_ones_own(m: Names, d: Given) -> Any:
    scorer = sklearn.metrics.make_scorer(
        sklearn.metrics.mean_pinball_loss, greater_is_better=False, alpha=0.3
    )
    search = m.GridSearchCV(m.Ridge(), {"alpha": [0.1, 100]}, cv=3, scoring=scorer, n_jobs=1)
    search.fit(d(X), Y, sample_weight=W)
    return search.cv_results_["mean_test_score"], search.best_estimator_.coef_


@script
def fewer_and_fewer_candidates(m: Names, d: Given) -> Any:
    search = m.HalvingGridSearchCV(
        m.Ridge(), {"alpha": [0.1, 1, 10, 100]}, cv=3, random_state=0, n_jobs=1
    )
    return search.fit(d(X), Y).best_params_["alpha"], search.cv_results_["mean_test_score"]


# --- around models ---------------------------------------------------------------------------


@script
def weights_everywhere(m: Names, d: Given) -> Any:
    line = m.LinearRegression().fit(d(X), Y, sample_weight=W)
    logistic = m.LogisticRegression(**EXACT).fit(d(X), TWO, sample_weight=W)
    bayes = m.GaussianNB().fit(d(X), THREE, sample_weight=W)
    steps = make_pipeline(m.StandardScaler(), m.Ridge()).fit(d(X), Y, ridge__sample_weight=W)
    scores = line.score(d(X), Y, W), logistic.score(d(X), TWO, W)
    return line.coef_, logistic.coef_, bayes.theta_, steps[-1].coef_, scores


@script
def weights_by_routing(m: Names, d: Given) -> Any:
    with sklearn.config_context(enable_metadata_routing=True):
        ridge = m.Ridge().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = m.StandardScaler().set_fit_request(sample_weight=True)
        model = make_pipeline(scaler, ridge).fit(d(X), Y, sample_weight=W)
        given = {"sample_weight": W}
        scores = cross_validate(model, d(X), Y, params=given, cv=3)["test_score"]
        scorer = sklearn.metrics.get_scorer("roc_auc").set_score_request(sample_weight=True)
        search = m.GridSearchCV(
            m.LogisticRegression(**EXACT).set_fit_request(sample_weight=True), {"C": [0.1, 1]},
            scoring=scorer, cv=3, n_jobs=1,
        ).fit(d(X), TWO, sample_weight=W)  # fmt: skip
        return model[-1].coef_, scores, search.cv_results_["mean_test_score"]


@script
def calibrated(m: Names, d: Given) -> Any:
    model = CalibratedClassifierCV(m.LogisticRegression(**EXACT), cv=3)
    return model.fit(d(X), TWO).predict_proba(d(X))


@script
def votes_and_stacks(m: Names, d: Given) -> Any:
    votes = VotingClassifier(
        [("a", m.LogisticRegression(**EXACT)), ("b", m.GaussianNB())], voting="soft"
    )
    parts = [("a", m.Ridge()), ("b", m.LinearRegression())]
    stack = StackingRegressor(parts, final_estimator=m.Ridge(), cv=3)
    return votes.fit(d(X), TWO).predict(d(X)), stack.fit(d(X), Y).predict(d(X))


@script
def targets_that_are_transformed(m: Names, d: Given) -> Any:
    model = TransformedTargetRegressor(m.Ridge(), func=np.arcsinh, inverse_func=np.sinh)
    one = OneVsRestClassifier(m.LogisticRegression(**EXACT))
    return model.fit(d(X), Y).predict(d(X)), one.fit(d(X), THREE).predict(d(X))


@script
def batches_in_turn(m: Names, d: Given) -> Any:
    descent = m.SGDClassifier(random_state=0, loss="log_loss")
    scaler, bayes = m.StandardScaler(), m.GaussianNB()
    for at in range(0, N, 60):
        part = slice(at, at + 60)
        descent.partial_fit(X[part], TWO[part], classes=["no", "yes"])
        bayes.partial_fit(X[part], THREE[part], classes=["a", "b", "c"])
        scaler.partial_fit(X[part])
    return descent.predict(d(X)), bayes.predict(d(X)), scaler.transform(d(X))


@script
def pickled_and_cloned(m: Names, d: Given) -> Any:
    model = make_pipeline(m.StandardScaler(), m.LogisticRegression(**EXACT)).fit(d(X), TWO)
    again = pickle.loads(pickle.dumps(model))
    return again.predict(d(X)), again.predict_proba(X), clone(model).fit(d(X), TWO)[-1].coef_


@script
def texts(m: Names, d: Given) -> Any:
    hashing = m.HashingVectorizer(n_features=64, alternate_sign=False)
    logistic = make_pipeline(hashing, m.TfidfTransformer(), m.LogisticRegression(**EXACT))
    logistic.fit(d(TEXT), TWO)
    bayes = make_pipeline(hashing, m.MultinomialNB()).fit(d(TEXT), THREE)
    return logistic[-1].coef_, logistic.predict(d(TEXT)), bayes.predict_proba(d(TEXT))


@script
def sparse_rows(m: Names, d: Given) -> Any:
    return [
        m.LogisticRegression(**EXACT).fit(d(SPARSE), TWO).predict(d(SPARSE)),
        m.Ridge(solver="sparse_cg", tol=1e-10).fit(d(SPARSE), Y).predict(d(SPARSE)),
        m.BernoulliNB().fit(d(SPARSE), TWO).predict(d(SPARSE)),
        m.MaxAbsScaler().fit_transform(d(SPARSE)),
    ]


@script
def criteria_of_a_mixture(m: Names, d: Given) -> Any:
    start = {"means_init": X[:2], "weights_init": [0.5, 0.5]}
    model = m.GaussianMixture(2, precisions_init=np.array([np.eye(5)] * 2), max_iter=9, **start)
    model.fit(d(X))
    return model.means_, model.bic(d(X)), model.aic(d(X))


@script
def columns_of_predictions(m: Names, d: Given) -> Any:
    model = m.LogisticRegression(**EXACT).fit(d(X), TWO)
    positive = model.predict_proba(d(X))[:, 1]
    report = sklearn.metrics.classification_report(TWO, model.predict(d(X)))
    return sklearn.metrics.roc_auc_score(TWO, np.asarray(positive)), list(report)


@script
def targets_of_any_kind(m: Names, d: Given) -> Any:
    return [
        m.LogisticRegression(**EXACT).fit(d(X), pd.Series(TWO)).coef_,
        m.Ridge().fit(d(X), pd.DataFrame({"y": Y})).coef_,
        m.GaussianNB().fit(d(X), THREE.astype(object)).predict(d(X)),
        m.LogisticRegression(**EXACT).fit(d(X), Y > 0).predict(d(X)),
        m.LinearRegression().fit(d(X > 0), np.column_stack([Y, -Y])).coef_,
    ]


# --- bad input -------------------------------------------------------------------------------


@script
def missing_values(m: Names, d: Given) -> Any:
    return m.LinearRegression().fit(d(HOLES), Y)


@script
def missing_values_to_predict(m: Names, d: Given) -> Any:
    return together(m.LinearRegression().fit(d(X), Y).predict(d(HOLES)))


@script
def infinite_values(m: Names, d: Given) -> Any:
    return m.LogisticRegression().fit(d(np.where(X > 2, np.inf, X)), TWO)


@script
def a_missing_target(m: Names, d: Given) -> Any:
    return m.Ridge().fit(d(X), np.where(np.arange(N) == 5, np.nan, Y))


@script
def too_few_columns(m: Names, d: Given) -> Any:
    return together(m.Ridge().fit(d(X), Y).predict(d(X[:, :3])))


@script
def columns_in_another_order(m: Names, d: Given) -> Any:
    scaler = m.StandardScaler().fit(d(TABLE[["size", "count"]]))
    return together(scaler.transform(d(TABLE[["count", "size"]])))


@script
def too_few_targets(m: Names, d: Given) -> Any:
    return m.Ridge().fit(d(X), Y[:-1])


@script
def no_fit(m: Names, d: Given) -> Any:
    return m.LogisticRegression().predict(d(X))


@script
def an_unknown_word(m: Names, d: Given) -> Any:
    encoder = m.OneHotEncoder().fit(d(TABLE[["colour"]]))
    return together(encoder.transform(d(pd.DataFrame({"colour": ["pink"] * 5}))))


@script
def labels_that_are_none(m: Names, d: Given) -> Any:
    return m.LogisticRegression().fit(d(X), Y)


@script
def words_to_scale(m: Names, d: Given) -> Any:
    return m.StandardScaler().fit(d(TABLE[["colour"]]))


@script
def a_vector(m: Names, d: Given) -> Any:
    return m.StandardScaler().fit(d(X[:, 0]))


# --- running them ----------------------------------------------------------------------------


def together(value: Any) -> Any:
    """What chunks hold, here and dense."""
    if is_distributed(value):
        value = value.compute()
    return value.toarray() if sp.issparse(value) else value


def outcome(function: Callable[[Names, Given], Any], m: Names, d: Given) -> Any:
    """What a script gives, or the error that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = function(m, d)
        except Exception as error:
            return error
        return [together(v) for v in found] if isinstance(found, list | tuple) else together(found)


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
        return
    if hasattr(wanted, "columns"):
        assert type(found) is type(wanted)
        assert list(found.columns) == list(wanted.columns)
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    if wanted.dtype.kind == "f":
        scale = max(1.0, float(np.nanmax(np.abs(wanted), initial=0)))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    else:
        assert found.tolist() == wanted.tolist()


def in_chunks(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        return xp.asarray(data, chunks=(70, *data.shape[1:]))
    return ml.rows(data, chunk_rows=70)


def in_rows(data: Any) -> Any:
    return ml.rows(data, chunk_rows=70)


@pytest.mark.parametrize("function", SCRIPTS, ids=lambda function: function.__name__)
def test_a_script_gives_what_it_gives_with_scikit_learn(
    function: Callable[[Names, Given], Any],
) -> None:
    wanted = outcome(function, Library(False), lambda data: data)
    for given in (lambda data: data, in_chunks, in_rows):
        found = outcome(function, Library(True), given)
        if not isinstance(wanted, Exception):
            if isinstance(found, Exception):
                raise found
            same(found, wanted)
            continue
        assert isinstance(found, type(wanted) | ValueError), found
        begins = str(wanted).split("\n", 1)[0][:60]
        assert str(found).startswith(begins)
