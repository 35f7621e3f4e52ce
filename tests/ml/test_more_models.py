"""Estimators of folds, categories, densities and boosting: as scikit-learn's, however data are
cut."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.cluster
import sklearn.ensemble
import sklearn.linear_model
import sklearn.neighbors
import sklearn.preprocessing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_cases import THREE, TWO, X, Y
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit
from sklearn.svm import LinearSVC

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import begin
from agentic_ray.ml.boosting import machines
from agentic_ray.ml.boosting.histograms import _need_lightgbm
from agentic_ray.ml.boosting.meeting import Meeting, NotAllCameError, come
from agentic_ray.ml.data import aligned

QUICK = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def cuts(draw: Any, rows: int) -> tuple[int, ...]:
    """Lengths of chunks, some of which may be empty."""
    edges = sorted(draw(st.lists(st.integers(0, rows), max_size=6)))
    return tuple(np.diff([0, *edges, rows]).tolist())


def cut(data: Any, lengths: tuple[int, ...]) -> Any:
    return xp.asarray(data, chunks=(lengths, *[(n,) for n in data.shape[1:]]))


def rows_cut(table: Any, lengths: tuple[int, ...]) -> ml.Rows:
    """A table in chunks of these lengths."""
    whole = ml.rows(table, chunk_rows=max(len(table), 1))
    return aligned(whole, lengths, "table")


# --- logistic regression by folds ------------------------------------------------------------

ODD = np.column_stack([X[:90, :2], X[:90, 0] + X[:90, 1], np.full(90, 3.0)])
"""A column that is the sum of others, and one that is constant."""


@QUICK
@given(cuts(90), st.sampled_from([3, KFold(3), ShuffleSplit(2, random_state=0)]), st.booleans())
def test_penalties_by_folds(lengths: tuple[int, ...], cv: Any, two: bool) -> None:
    y = (TWO if two else THREE)[:90]
    options: dict[str, Any] = {
        "Cs": [0.01, 1.0], "cv": cv, "l1_ratios": (0,), "scoring": "neg_log_loss",
        "use_legacy_attributes": False, "tol": 1e-9, "max_iter": 2000,
    }  # fmt: skip
    wanted = sklearn.linear_model.LogisticRegressionCV(**options).fit(ODD, y)
    found = ml.LogisticRegressionCV(**options).fit(cut(ODD, lengths), y)
    assert found.C_ == wanted.C_
    np.testing.assert_allclose(found.scores_, wanted.scores_, rtol=1e-5)
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.score(cut(ODD, lengths), y), wanted.score(ODD, y), rtol=1e-5)
    again = pickle.loads(pickle.dumps(found)).to_sklearn()
    np.testing.assert_array_equal(again.predict(ODD), found.predict(ODD))


def test_folds_that_are_not_taken_are_told() -> None:
    quiet: dict[str, Any] = {
        "l1_ratios": (0,), "scoring": "accuracy", "use_legacy_attributes": False
    }  # fmt: skip
    with pytest.raises(ValueError, match="at least 2 classes"):
        ml.LogisticRegressionCV(**quiet).fit(cut(ODD, (90,)), np.zeros(90))
    with pytest.raises(InvalidArgumentError, match="liblinear"):
        ml.LogisticRegressionCV(**quiet, solver="liblinear").fit(cut(ODD, (90,)), TWO[:90])
    with pytest.raises(ValueError, match="class_weight dict must have"):
        ml.LogisticRegressionCV(**quiet, class_weight={"maybe": 2}).fit(ODD, TWO[:90])
    with pytest.warns(FutureWarning, match="use_legacy_attributes"):
        ml.LogisticRegressionCV(l1_ratios=(0,), scoring="accuracy", cv=2).fit(ODD, TWO[:90])


def test_solvers_of_vectors_have_scikit_learns_messages() -> None:
    for options in ({"loss": "hinge", "dual": False}, {"loss": "hinge", "penalty": "l1"}):
        with pytest.raises(ValueError, match="Unsupported set of arguments") as wanted:
            LinearSVC(**options).fit(X, TWO)
        with pytest.raises(ValueError, match="Unsupported set of arguments") as found:
            ml.LinearSVC(**options).fit(cut(X, (200, 200)), TWO)
        assert str(found.value) == str(wanted.value)
    with pytest.raises(InvalidArgumentError, match="crammer_singer"):
        ml.LinearSVC(multi_class="crammer_singer").fit(X, TWO)


# --- categories by targets -------------------------------------------------------------------

RNG = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {
        "letter": RNG.choice(list("abcde"), 120),
        "number": RNG.choice([1.0, 2.0, np.nan], 120),
        "blank": RNG.choice(np.array(["x", None], dtype=object), 120),
    }
)


@QUICK
@given(
    cuts(120),
    st.sampled_from(["numbers", "two", "three", "one"]),
    st.sampled_from(["auto", 0.0, 5.0]),
    st.sampled_from([2, KFold(3), KFold(4, shuffle=True, random_state=1)]),
)
def test_categories_by_targets(lengths: tuple[int, ...], kind: str, smooth: Any, cv: Any) -> None:
    y = {"numbers": Y, "two": TWO, "three": THREE, "one": np.ones(len(Y)) * 0.5}[kind][:120]
    options = {"smooth": smooth, "cv": cv}
    if cv == 2:
        options["random_state"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sklearn.preprocessing.TargetEncoder(**options)
        crossed = theirs.fit_transform(TABLE, y)
        found = ml.TargetEncoder(**options)
        made = found.fit_transform(rows_cut(TABLE, lengths), y)
    np.testing.assert_allclose(made.compute(), crossed, rtol=1e-9)
    assert found.target_type_ == theirs.target_type_
    for one, other in zip(found.encodings_, theirs.encodings_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    np.testing.assert_allclose(found.target_mean_, theirs.target_mean_)
    alone = ml.TargetEncoder(**options).fit(rows_cut(TABLE, lengths), y)
    np.testing.assert_allclose(
        alone.transform(rows_cut(TABLE, lengths)).compute(), theirs.transform(TABLE), rtol=1e-9
    )
    np.testing.assert_allclose(alone.to_sklearn().transform(TABLE), theirs.transform(TABLE))


def test_columns_that_encode_each_row_by_others() -> None:
    """Beside other transformers too, and at the end of a pipeline of an `Array`."""

    def both(module: Any, kind: Any) -> Any:
        return kind(
            [
                ("mean", module.TargetEncoder(cv=KFold(3)), ["letter", "blank"]),
                ("code", module.OneHotEncoder(), ["number"]),
            ]
        )

    wanted = both(sklearn.preprocessing, ColumnTransformer).fit_transform(TABLE, Y[:120])
    found = both(ml, ml.ColumnTransformer)
    made = found.fit_transform(ml.rows(TABLE, chunk_rows=50), Y[:120])
    np.testing.assert_allclose(made.compute(), wanted)
    leaks = found.transform(ml.rows(TABLE, chunk_rows=50)).compute()
    assert not np.allclose(leaks, wanted)
    codes = RNG.integers(0, 4, (120, 2)).astype(float)
    groups = KFold(3)
    array = ml.TargetEncoder(cv=groups).fit_transform(cut(codes, (50, 70)), THREE[:120])
    assert isinstance(array, xp.Array)
    np.testing.assert_allclose(
        array, sklearn.preprocessing.TargetEncoder(cv=groups).fit_transform(codes, THREE[:120])
    )
    union = ml.FeatureUnion([("a", ml.TargetEncoder(cv=groups)), ("b", ml.StandardScaler())])
    made = union.fit_transform(ml.rows(codes, chunk_rows=50), Y[:120])
    np.testing.assert_allclose(
        made.compute()[:, :2],
        sklearn.preprocessing.TargetEncoder(cv=groups).fit_transform(codes, Y[:120]),
    )


def test_folds_that_overlap_are_refused() -> None:
    data = ml.rows(TABLE, chunk_rows=50)
    with pytest.raises(ValueError, match="exactly once"):
        ml.TargetEncoder(cv=ShuffleSplit(2, random_state=0)).fit_transform(data, Y[:120])
    with pytest.raises(ValueError, match="groups"):
        ml.TargetEncoder(cv=GroupKFold(2)).fit_transform(data, Y[:120])


# --- densities -------------------------------------------------------------------------------


@QUICK
@given(
    cuts(60),
    st.sampled_from([0.2, 0.6, 2.0]),
    st.sampled_from([1, 3, 30]),
    st.sampled_from(["euclidean", "manhattan", "cosine"]),
    st.booleans(),
)
def test_clusters_of_density(
    lengths: tuple[int, ...], eps: float, least: int, metric: str, weighted: bool
) -> None:
    data = np.round(np.column_stack([X[:60, :2] * 2, np.ones(60)]))  # many rows are the same
    weight = RNG.random(60) if weighted else None
    options: dict[str, Any] = {"eps": eps, "min_samples": least, "metric": metric}
    wanted = sklearn.cluster.DBSCAN(**options).fit(data, sample_weight=weight)
    found = ml.DBSCAN(**options).fit(cut(data, lengths), sample_weight=weight)
    np.testing.assert_array_equal(np.asarray(found.labels_), wanted.labels_)
    np.testing.assert_array_equal(found.core_sample_indices_, wanted.core_sample_indices_)
    np.testing.assert_array_equal(np.asarray(found.components_), wanted.components_)
    np.testing.assert_array_equal(found.to_sklearn().labels_, wanted.labels_)
    others = ml.DBSCAN(**options).fit_predict(rows_cut(pd.DataFrame(data), lengths), None, weight)
    np.testing.assert_array_equal(np.asarray(others), wanted.labels_)


def test_distances_that_are_given_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="precomputed"):
        ml.DBSCAN(metric="precomputed").fit(cut(np.ones((4, 4)), (2, 2)))


def test_chunks_that_are_far_apart_are_not_compared() -> None:
    data = np.concatenate([X[:50], X[50:100] + 1e3])
    model = ml.DBSCAN(1.0)
    assert model._near_chunks(begin(model, cut(data, (50, 50)))) == [[0], [1]]
    assert model._near_chunks(begin(model, cut(X[:100], (50, 50)))) == [[0, 1], [0, 1]]


# --- several columns of targets --------------------------------------------------------------


@QUICK
@given(cuts(60), st.sampled_from(["uniform", "distance"]))
def test_neighbours_of_several_targets(lengths: tuple[int, ...], weights: Any) -> None:
    labels = np.column_stack([TWO[:60], THREE[:60].astype(str)])
    numbers = np.column_stack([Y[:60], -Y[:60], Y[:60] ** 2])
    asked = X[60:90]
    for kind, y in (("KNeighborsClassifier", labels), ("KNeighborsRegressor", numbers)):
        for targets in (y, y[:, :1], y[:, 0]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = getattr(sklearn.neighbors, kind)(4, weights=weights).fit(X[:60], targets)
                found = getattr(ml, kind)(4, weights=weights).fit(cut(X[:60], lengths), targets)
            one, other = found.predict(asked), wanted.predict(asked)
            assert one.shape == other.shape
            if y is numbers:
                np.testing.assert_allclose(one, other)
            else:
                np.testing.assert_array_equal(one, other)
                shares, others = found.predict_proba(asked), wanted.predict_proba(asked)
                assert type(shares) is type(others)
                for share, other_share in zip(shares, others, strict=True):
                    np.testing.assert_allclose(share, other_share)
                np.testing.assert_array_equal(found.to_sklearn().predict(asked), other)


# --- boosting --------------------------------------------------------------------------------

WIDE = np.random.default_rng(1).standard_normal((900, 4))
WIDE[::17, 1] = np.nan
SMOOTH = 2 * WIDE[:, 0] + np.nan_to_num(WIDE[:, 1]) ** 2
CHUNKS = (300, 1, 0, 299, 300)


def why_no_lightgbm() -> str:
    """The reason why LightGBM cannot be used here; empty if it can."""
    try:
        _need_lightgbm()
    except ModuleNotFoundError as error:
        return str(error)
    return ""


needs_lightgbm = pytest.mark.skipif(bool(why_no_lightgbm()), reason=why_no_lightgbm())


@needs_lightgbm
@pytest.mark.parametrize(
    ("options", "y"),
    [
        ({}, SMOOTH),
        ({"loss": "absolute_error"}, SMOOTH),
        ({"loss": "quantile", "quantile": 0.8}, SMOOTH),
        ({"loss": "poisson"}, np.round(np.exp(SMOOTH / 4))),
        ({"loss": "gamma"}, np.exp(SMOOTH / 4)),
        ({"max_depth": 3, "max_leaf_nodes": None, "l2_regularization": 3.0}, SMOOTH),
        ({"monotonic_cst": [1, 0, 0, 0], "interaction_cst": "no_interactions"}, SMOOTH),
    ],
    ids=lambda part: str(part) if isinstance(part, dict) else "",
)
def test_boosted_numbers_are_as_good(options: dict[str, Any], y: Any) -> None:
    both = {"early_stopping": False, "max_iter": 40, "random_state": 0, **options}
    wanted = sklearn.ensemble.HistGradientBoostingRegressor(**both).fit(WIDE, y)
    found = ml.HistGradientBoostingRegressor(**both).fit(cut(WIDE, CHUNKS), y)
    assert found.n_iter_ == 40
    # Trees of other bins differ, most of all where a few large targets decide.
    assert np.corrcoef(found.predict(WIDE), wanted.predict(WIDE))[0, 1] > 0.95
    assert found.score(cut(WIDE, CHUNKS), y) > wanted.score(WIDE, y) - 0.05
    twin = pickle.loads(pickle.dumps(found.to_sklearn()))
    assert type(twin) is sklearn.ensemble.HistGradientBoostingRegressor
    np.testing.assert_array_equal(twin.predict(WIDE), found.predict(WIDE))


@needs_lightgbm
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_boosted_labels_are_as_good(count: int, class_weight: Any) -> None:
    y = np.array(["a", "b", "c"])[np.digitize(SMOOTH, [0.0, 2.0][: count - 1])]
    both = {
        "early_stopping": False, "max_iter": 40, "random_state": 0, "class_weight": class_weight
    }  # fmt: skip
    wanted = sklearn.ensemble.HistGradientBoostingClassifier(**both).fit(WIDE, y)
    found = ml.HistGradientBoostingClassifier(**both).fit(cut(WIDE, CHUNKS), y)
    assert (found.predict(WIDE) == wanted.predict(WIDE)).mean() > 0.97
    assert np.abs(found.predict_proba(WIDE) - wanted.predict_proba(WIDE)).mean() < 0.03
    assert found.score(cut(WIDE, CHUNKS), y) > 0.97


@needs_lightgbm
def test_boosting_stops_where_nothing_gets_better() -> None:
    noise = np.random.default_rng(0).standard_normal(900)
    model = ml.HistGradientBoostingRegressor(
        early_stopping=True, max_iter=60, random_state=0, n_iter_no_change=3
    ).fit(cut(WIDE, CHUNKS), noise)
    assert model.do_early_stopping_
    assert model.n_iter_ < 60
    assert len(model.validation_score_) == model.n_iter_ + 1
    recent = model.validation_score_[-3:]
    assert not (recent > model.validation_score_[-4] + model.tol).any()


@needs_lightgbm
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": True}, "warm_start"),
        ({"categorical_features": [0]}, "categorical_features"),
        ({"scoring": "r2"}, "scoring"),
    ],
    ids=str,
)
def test_what_boosting_of_chunks_does_not_take(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ml.HistGradientBoostingRegressor(**options).fit(cut(WIDE, CHUNKS), SMOOTH)
    with pytest.raises(ValueError, match="strictly positive"):
        ml.HistGradientBoostingRegressor(loss="gamma").fit(cut(WIDE, CHUNKS), SMOOTH)


@needs_lightgbm
def test_machines_in_processes_give_the_bits_of_machines_in_one(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "MACHINE_BYTES", 1)
    model = ml.HistGradientBoostingRegressor(max_iter=3, random_state=0)
    two = (450, 450)
    here = model.fit(cut(WIDE, two), SMOOTH).predict(WIDE)
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    there = model.fit(cut(WIDE, two), SMOOTH).predict(WIDE)
    np.testing.assert_array_equal(there, here)


def test_densities_and_categories_on_the_cluster(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.round(np.nan_to_num(WIDE[:200, :2]))
    labels = sklearn.cluster.DBSCAN(0.5).fit_predict(data)
    theirs = sklearn.preprocessing.TargetEncoder(cv=KFold(2)).fit_transform(data, SMOOTH[:200])
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    found = ml.DBSCAN(0.5).fit_predict(cut(data, (90, 110)))
    np.testing.assert_array_equal(np.asarray(found), labels)
    made = ml.TargetEncoder(cv=KFold(2)).fit_transform(cut(data, (90, 110)), SMOOTH[:200])
    np.testing.assert_allclose(np.asarray(made), theirs)
    made = ml.TargetEncoder(cv=KFold(2)).fit_transform(
        ml.rows(pd.DataFrame(data), chunk_rows=90), SMOOTH[:200]
    )
    np.testing.assert_allclose(made.compute(), theirs)


def test_rows_taken_of_an_array_that_other_tasks_make(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    some = np.arange(0, 400, 3)
    found = ml.LinearRegression().fit(ml.rows(cut(X, (90, 310)) + 1.0).take(some), Y[some])
    wanted = ml.LinearRegression().fit(X[some] + 1.0, Y[some])
    np.testing.assert_allclose(found.coef_, wanted.coef_)


def test_a_meeting_that_not_all_come_to_is_called_off() -> None:
    with Meeting("127.0.0.1", 2, wait=0.2) as place, pytest.raises(NotAllCameError):
        come(place, 0, ["127.0.0.1:1"], 60.0)
    with pytest.raises(NotAllCameError):
        come(place, 1, ["127.0.0.1:1"], 60.0)


def test_chunks_without_rows_are_encoded_too() -> None:
    table = rows_cut(TABLE, (0, 50, 0, 70))
    encoders = [
        ml.OneHotEncoder(sparse_output=False),
        ml.TargetEncoder(cv=KFold(2)),
        ml.ColumnTransformer(
            [
                ("mean", ml.TargetEncoder(cv=KFold(2)), ["letter"]),
                ("code", ml.OneHotEncoder(sparse_output=False), ["blank"]),
            ]
        ),
        ml.SimpleImputer(strategy="most_frequent"),
    ]
    for encoder in encoders:
        for made, wanted in (
            (encoder.fit_transform(table, Y[:120]), encoder.fit_transform(TABLE, Y[:120])),
            (encoder.transform(table), encoder.transform(TABLE)),
        ):
            found = np.asarray(made.compute())
            if np.asarray(wanted).dtype.kind == "f":
                np.testing.assert_allclose(found, wanted)
            else:
                np.testing.assert_array_equal(found.astype(str), np.asarray(wanted).astype(str))


@pytest.mark.parametrize("method", ["fit", "fit_transform", "transform"])
@pytest.mark.parametrize("kind", ["columns", "union"])
def test_metadata_that_transformers_over_chunks_would_not_be_given_is_refused(
    method: str, kind: str
) -> None:
    values = np.arange(12.0).reshape(6, 2)
    data = xp.asarray(values, chunks=(3, 2))
    made = {
        "columns": ml.ColumnTransformer([("a", ml.StandardScaler(), [0, 1])]),
        "union": ml.FeatureUnion([("a", ml.StandardScaler())]),
    }[kind].fit(data)
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        getattr(made, method)(data, sample_weight=np.ones(6))


def test_an_option_that_a_score_over_chunks_would_not_honour_is_refused() -> None:
    X = xp.asarray(np.arange(12.0).reshape(6, 2), chunks=(3, 2))
    y = xp.asarray(np.arange(6.0), chunks=3)
    model = ml.LinearRegression().fit(X, y)
    with pytest.raises(TypeError, match="normalize"):
        model.score(X, y, normalize=True)
