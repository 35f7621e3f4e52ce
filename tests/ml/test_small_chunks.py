"""Chunks of fewer rows than a selection wants, and other data that are easily got wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as theirs
from ml_cases import COUNTS, THREE, TWO, X, Y
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.feature_selection import f_regression

import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.ml import metrics

SMALL = X[:60]


def chunked(data: Any, rows: int = 1) -> Any:
    data = np.asarray(data)
    return xp.asarray(data, chunks=(rows, *data.shape[1:]))


# --- as many rows as are wanted, however small chunks are ------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_neighbours_are_found_in_chunks_of_fewer_rows(rows: int) -> None:
    model = ml.NearestNeighbors(n_neighbors=5)
    found = model.fit(chunked(SMALL, rows)).kneighbors(X[60:80])
    wanted = clone(model).fit(SMALL).kneighbors(X[60:80])
    np.testing.assert_allclose(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    for kind, y in ((ml.KNeighborsClassifier, TWO), (ml.KNeighborsRegressor, Y)):
        for weights in ("uniform", "distance", None):
            one, all_ = kind(5, weights=weights), kind(5, weights=weights)
            one.fit(chunked(SMALL, rows), y[:60])
            all_.fit(SMALL, y[:60])
            if y is TWO:
                np.testing.assert_array_equal(one.predict(X), all_.predict(X))
            else:
                np.testing.assert_allclose(one.predict(X), all_.predict(X))


@pytest.mark.parametrize("rows", [1, 3])
def test_k_means_has_all_its_clusters_in_chunks_of_fewer_rows(rows: int) -> None:
    wanted = ml.KMeans(4, init=SMALL[:4], n_init=1).fit(SMALL)
    found = ml.KMeans(4, init=SMALL[:4], n_init=1).fit(chunked(SMALL, rows))
    np.testing.assert_allclose(found.cluster_centers_, wanted.cluster_centers_)
    np.testing.assert_array_equal(np.asarray(found.labels_), wanted.labels_)
    for init in ("random", "k-means++"):
        model = ml.KMeans(9, init=init, n_init=2, random_state=0).fit(chunked(SMALL, rows))
        assert model.cluster_centers_.shape == (9, 6)
        assert len(set(np.asarray(model.labels_).tolist())) == 9
    # Centres that are nearest to no row are moved to rows: all of them, from chunks of one.
    far = np.vstack([SMALL[:1], SMALL[:3] + 1e3])
    assert len(set(np.asarray(ml.KMeans(4, init=far).fit(chunked(SMALL)).labels_).tolist())) == 4


def test_random_rows_are_as_many_as_are_wanted() -> None:
    model = ml.QuantileTransformer(n_quantiles=30, subsample=30, random_state=0)
    assert len(np.unique(model.fit(chunked(SMALL, 5)).quantiles_[:, 0])) == 30
    forest = ml.IsolationForest(random_state=0, max_samples=40).fit(chunked(SMALL, 5))
    assert {len(rows) for rows in forest.estimators_samples_} == {40}


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        ml.LogisticRegression(solver="newton-cholesky", max_iter=500),
        ml.PoissonRegressor(solver="newton-cholesky", max_iter=500, alpha=0.1),
        ml.GammaRegressor(solver="newton-cholesky", max_iter=500, alpha=0.1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_newton_on_columns_far_from_zero_and_of_other_scales(model: Any) -> None:
    """Columns that are nearly the intercept take the digits from the Hessian matrix."""
    y: Any = TWO if isinstance(model, ml.LogisticRegression) else COUNTS + 0.5
    far = X + 1e4
    for data in (far, chunked(far, 90)):
        found = clone(model).fit(data, y)
        near = clone(model).fit(X, y)
        np.testing.assert_allclose(found.coef_, near.coef_, atol=2e-2)
        assert abs(found.score(data, y) - near.score(X, y)) < 1e-2
    scaled = clone(model).set_params(**({"C": np.inf} if y is TWO else {"alpha": 0.0}))
    factors = np.array([1e6, 1e-6, 1, 1e3, 1, 1e-3])
    one, two = clone(scaled).fit(X, y), clone(scaled).fit(X * factors, y)
    np.testing.assert_allclose(np.ravel(two.coef_) * factors, np.ravel(one.coef_), rtol=1e-3)


@pytest.mark.parametrize("kind", [ml.LogisticRegression, ml.PoissonRegressor])
def test_values_that_overflow_are_refused(kind: Any) -> None:
    y: Any = TWO if kind is ml.LogisticRegression else COUNTS
    with pytest.raises(ValueError, match="too large for sums of their squares"):
        kind(solver="newton-cholesky").fit(X * 1e200, y)


def test_powers_of_columns_that_rounding_would_choose() -> None:
    data = np.column_stack([X[:, 0] + 1e6, np.full(len(X), 3.0), X[:, 1]])
    model = ml.PowerTransformer().fit(chunked(data, 90))
    made = np.asarray(model.transform(data))
    assert model.lambdas_[1] == 1.0
    assert np.corrcoef(made[:, 0], X[:, 0])[0, 1] > 0.999
    assert made[:, 0].std() == pytest.approx(1.0, rel=1e-3)


def test_dependent_columns_without_a_penalty() -> None:
    data = np.column_stack([X[:, 0], X[:, 1], 2 * X[:, 0]])
    wanted = ml.LinearRegression().fit(data, Y).coef_
    for given in (data, chunked(data, 7)):
        np.testing.assert_allclose(ml.Ridge(alpha=0.0).fit(given, Y).coef_, wanted, rtol=1e-6)


def test_weights_that_are_all_zero() -> None:
    none = np.zeros(60)
    data = chunked(SMALL, 20)
    fits: list[tuple[Any, Any]] = [
        (ml.LinearRegression(), Y), (ml.LogisticRegression(), TWO), (ml.GaussianNB(), TWO),
        (ml.PoissonRegressor(), COUNTS), (ml.StandardScaler(), None), (ml.KMeans(2), None),
    ]  # fmt: skip
    for model, y in fits:
        for weight in (none, chunked(none, 20)):
            if isinstance(model, ml.KMeans) and weight is not none:
                continue
            with pytest.raises(ValueError, match="at least one non-zero"):
                clone(model).fit(data, None if y is None else y[:60], sample_weight=weight)


def test_a_class_whose_rows_weigh_nothing() -> None:
    weight = np.where(THREE == 1, 0.0, 1.0)
    found = ml.GaussianNB().fit(chunked(X, 90), THREE, sample_weight=weight)
    wanted = ml.GaussianNB().to_sklearn().fit(X, THREE, sample_weight=weight)
    np.testing.assert_array_equal(found.predict(X), wanted.predict(X))


def test_a_column_that_overflows_is_not_left_as_it_is() -> None:
    made = ml.StandardScaler().fit(chunked(X * 1e200, 90))
    assert np.isnan(made.scale_).all()


def test_scores_of_constant_columns() -> None:
    data = np.column_stack([X, np.ones(len(X)), Y])
    found = ml.SelectKBest(f_regression, k=2).fit(chunked(data, 90), Y)
    wanted = f_regression(data, Y)
    np.testing.assert_allclose(found.scores_[:-1], wanted[0][:-1], rtol=1e-6)
    np.testing.assert_allclose(found.pvalues_, wanted[1], rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (ml.PoissonRegressor(), COUNTS),
        (ml.GammaRegressor(), COUNTS + 0.5),
        (ml.TweedieRegressor(power=1.5), COUNTS),
        (ml.TweedieRegressor(power=0), Y),
    ],
    ids=lambda part: type(part).__name__,
)
def test_the_score_of_generalised_models_is_of_their_deviance(model: Any, y: Any) -> None:
    found = clone(model).fit(X, y)
    weight = np.arange(len(y)) % 3
    for own in (None, weight):
        wanted = found.to_sklearn().score(X, y, own)
        assert found.score(chunked(X, 90), y, own) == pytest.approx(wanted, rel=1e-9)


# --- metrics ---------------------------------------------------------------------------------

THIRDS = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
NUMBERS = np.array([0.5, 1.0, 2.0, 0.25])
BAD: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("log_loss", [0, 2, 0, 2], THIRDS, {}),
    ("log_loss", [0, 2, 0, 1], THIRDS, {"labels": [0, 2]}),
    ("log_loss", [0, 3, 0, 1], THIRDS, {"labels": [0, 1, 2]}),
    ("log_loss", [0, 1, 0, 1], NUMBERS, {}),
    ("log_loss", [0, 1, 0, 1], -NUMBERS / 2, {}),
    ("roc_auc_score", [0, 1, 0, 1], [0.1, np.nan, 0.3, 0.4], {}),
    ("mean_squared_error", NUMBERS, [0.1, np.nan, 0.3, 0.4], {}),
    ("r2_score", [0.1, np.inf, 0.3, 0.4], NUMBERS, {}),
    ("mean_absolute_error", NUMBERS, NUMBERS, {"sample_weight": [0.0, 0, 0, 0]}),
    ("mean_absolute_error", NUMBERS, NUMBERS, {"sample_weight": [0.0, 1, np.nan, 0]}),
    ("accuracy_score", [1, 2, 1, 2], [1, 1, 1, 2], {"sample_weight": [0.0, 0, 0, 0]}),
    ("accuracy_score", [1, 2, 1, 2], ["1", "1", "1", "2"], {}),
    ("confusion_matrix", [1, 2, 1, 2], [1, 1, 1, 2], {"labels": [7]}),
]


@pytest.mark.parametrize(("name", "y", "p", "options"), BAD)
def test_metrics_refuse_what_scikit_learns_refuse(name: str, y: Any, p: Any, options: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        getattr(theirs, name)(y, p, **options)
    given = ml.rows(np.asarray(p, object), chunk_rows=2) if isinstance(p[0], str) else chunked(p, 2)
    with pytest.raises(ValueError, match=r"\w"):
        getattr(metrics, name)(chunked(y, 2), given, **options)


def test_metrics_of_several_columns_of_labels_are_refused() -> None:
    table = chunked([[0, 1], [1, 1], [0, 0], [1, 0]], 2)
    with pytest.raises(ValueError, match="several columns"):
        metrics.accuracy_score(table, table)


def test_probabilities_of_short_floats_are_cut_as_theirs() -> None:
    short = np.array([0.0, 0.0, 0.5, 1.0], np.float32)
    found = metrics.log_loss(chunked([0, 1, 0, 1], 2), chunked(short, 2))
    assert found == pytest.approx(theirs.log_loss([0, 1, 0, 1], short), rel=1e-6)


def test_a_single_row_explains_nothing() -> None:
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metrics.r2_score(chunked([1.0]), chunked([2.0])))


# --- arguments -------------------------------------------------------------------------------


def test_a_checkpoint_is_of_the_values_of_the_data(tmp_path: Any) -> None:
    """Other values of the same shape are other data."""
    ml.KMeans(3, random_state=0).fit(chunked(X, 90), checkpoint=tmp_path / "array")
    ml.GaussianNB().fit(X, TWO, checkpoint=tmp_path / "labels")
    again = ml.KMeans(3, random_state=0).fit(chunked(X, 90), checkpoint=tmp_path / "array")
    assert again.n_iter_ > 0
    with pytest.raises(InvalidArgumentError, match="another fit"):
        ml.KMeans(3, random_state=0).fit(chunked(X + 1, 90), checkpoint=tmp_path / "array")
    with pytest.raises(InvalidArgumentError, match="another fit"):
        ml.GaussianNB().fit(X, TWO[::-1], checkpoint=tmp_path / "labels")
    with pytest.raises(InvalidArgumentError, match="another fit"):
        ml.GaussianNB().fit(X, TWO, sample_weight=np.ones(len(X)), checkpoint=tmp_path / "labels")


def test_a_warm_start_goes_on_where_the_fit_before_ended() -> None:
    for y in (TWO, THREE):
        model = ml.LogisticRegression(warm_start=True, tol=1e-8, max_iter=1000)
        first = model.fit(chunked(X, 90), y).n_iter_[0]
        assert model.fit(chunked(X, 90), y).n_iter_[0] < first
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(chunked(X[:, :3], 90), THREE)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (ml.SGDClassifier(warm_start=True), TWO),
        (ml.SGDRegressor(learning_rate="adaptive"), Y),
        (ml.IsolationForest(warm_start=True), None),
    ],
    ids=lambda part: type(part).__name__,
)
def test_arguments_that_chunks_cannot_honour_are_refused(model: Any, y: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="not taken"):
        model.fit(chunked(X, 90), y)


def test_a_search_by_radius_is_refused() -> None:
    model = ml.NearestNeighbors().fit(chunked(SMALL, 7))
    for call in (model.radius_neighbors, model.radius_neighbors_graph):
        with pytest.raises(InvalidArgumentError, match="radius"):
            call(SMALL)
    assert len(ml.NearestNeighbors().fit(SMALL).radius_neighbors(SMALL, 1.0)) == 2
    with pytest.raises(ValueError, match="n_neighbors > 0"):
        model.kneighbors(SMALL, 0)


def test_chunks_that_grow_no_tree_are_told() -> None:
    with pytest.warns(UserWarning, match="grow no tree"):
        ml.RandomForestClassifier(3).fit(chunked(SMALL, 10), TWO[:60])


def test_several_starts_of_mini_batches() -> None:
    one = ml.MiniBatchKMeans(6, init="random", n_init=1, random_state=0).fit(chunked(X, 90))
    more = ml.MiniBatchKMeans(6, init="random", n_init=20, random_state=0, compute_labels=False)
    assert more.fit(chunked(X, 90)).inertia_ <= one.inertia_ * 1.2
    assert not hasattr(more, "labels_")


def test_an_imputed_constant_keeps_integers() -> None:
    data = chunked((X * 3).astype(np.int64), 90)
    model = ml.SimpleImputer(strategy="constant", fill_value=1, keep_empty_features=True)
    np.testing.assert_array_equal(np.asarray(model.fit(data).transform(data)), (X * 3).astype(int))


def test_a_row_by_its_number_is_refused_with_what_to_write() -> None:
    data = ml.rows(SMALL)
    assert repr(data) == "<Rows of shape (60, 6) in 1 chunk>"
    assert np.asarray(data[[3]].compute()).shape == (1, 6)
    with pytest.raises(InvalidTypeError, match=r"\[\[3\]\]"):
        data[3]
    with pytest.raises(InvalidTypeError, match="of type int"):
        ml.rows(3)
