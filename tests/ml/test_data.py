"""Rows of tables, files, texts and sparse matrices, and estimators over them."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import sklearn.compose
import sklearn.feature_extraction.text
import sklearn.impute
import sklearn.linear_model
import sklearn.metrics
import sklearn.model_selection
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
from ml_cases import THREE, TWO, W, X, Y

import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources import Part


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 300
    table = pd.DataFrame(
        {
            "size": rng.normal(5, 2, n),
            "age": rng.integers(0, 90, n).astype(float),
            "colour": rng.choice(["red", "green", "blue"], n),
            "shape": rng.choice(["round", "square"], n),
        }
    )
    table.loc[rng.integers(0, n, 20), "age"] = np.nan
    table["label"] = np.where(table["size"] + (table["colour"] == "red") > 5.5, "big", "small")
    return table


@pytest.fixture
def files(frame: pd.DataFrame, tmp_path: Path) -> str:
    for part in range(3):
        own = frame.iloc[part * 100 : part * 100 + 100]
        pq.write_table(
            pa.Table.from_pandas(own, preserve_index=False), tmp_path / f"{part}.parquet"
        )
    return str(tmp_path / "*.parquet")


def model(kind: Any) -> Any:
    """The same pipeline of this package and of scikit-learn."""
    theirs = kind is not ml
    compose = sklearn.compose if theirs else ml
    preprocessing = sklearn.preprocessing if theirs else ml
    impute = sklearn.impute if theirs else ml
    linear = sklearn.linear_model if theirs else ml
    numbers = sklearn.pipeline.make_pipeline(
        impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler()
    )
    columns = compose.ColumnTransformer(
        [
            ("numbers", numbers, ["size", "age"]),
            ("words", preprocessing.OneHotEncoder(), ["colour", "shape"]),
        ]
    )
    return sklearn.pipeline.make_pipeline(
        columns, linear.LogisticRegression(tol=1e-8, max_iter=500)
    )


def test_a_pipeline_over_parquet_files(frame: pd.DataFrame, files: str) -> None:
    table = ml.rows(files)
    assert table.shape == (300, 5)
    assert table.columns == tuple(frame.columns)
    wanted = model(sklearn).fit(frame.drop(columns="label"), frame["label"])
    ours = model(ml).fit(table.drop("label"), table["label"])
    np.testing.assert_allclose(ours[-1].coef_, wanted[-1].coef_, rtol=1e-6)
    assert list(ours[0].get_feature_names_out()) == list(wanted[0].get_feature_names_out())
    predicted = ours.predict(table.drop("label"))
    assert isinstance(predicted, ml.Rows)
    np.testing.assert_array_equal(predicted.compute(), wanted.predict(frame.drop(columns="label")))
    score = ours.score(table.drop("label"), table["label"])
    assert score == wanted.score(frame.drop(columns="label"), frame["label"])
    # It learnt names, and serves a table in memory, as scikit-learn's own classes too.
    np.testing.assert_array_equal(ours.predict(frame.drop(columns="label")), predicted.compute())
    with pytest.raises(ValueError, match="columns are missing"):
        ours[0].transform(frame[["age", "colour"]].rename(columns={"age": "size"}))


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_tables_of_any_kind(frame: pd.DataFrame, kind: str) -> None:
    numbers = frame[["size", "age"]].fillna(1.0)
    made = {
        "pandas": numbers,
        "polars": pl.from_pandas(numbers),
        "arrow": pa.Table.from_pandas(numbers),
    }[kind]
    data = ml.rows(made, chunk_rows=70)
    assert data.lengths == (70, 70, 70, 70, 20)
    ours = ml.StandardScaler().fit(data)
    wanted = sklearn.preprocessing.StandardScaler().fit(numbers)
    np.testing.assert_allclose(ours.mean_, wanted.mean_, rtol=1e-12)
    assert list(ours.feature_names_in_) == ["size", "age"]
    np.testing.assert_allclose(
        np.asarray(ours.transform(data).array()), wanted.transform(numbers), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop": "first"},
        {"min_frequency": 105},
        {"max_categories": 2},
        {"handle_unknown": "ignore", "sparse_output": False},
    ],
)
def test_one_hot_over_chunks(frame: pd.DataFrame, options: dict[str, Any]) -> None:
    words = frame[["colour", "shape"]].copy()
    words.loc[3, "shape"] = None
    wanted = sklearn.preprocessing.OneHotEncoder(**options).fit(words)
    ours = ml.OneHotEncoder(**options).fit(ml.rows(words, chunk_rows=64))
    assert [list(map(str, c)) for c in ours.categories_] == [
        list(map(str, c)) for c in wanted.categories_
    ]
    assert list(ours.get_feature_names_out()) == list(wanted.get_feature_names_out())
    found = ours.transform(ml.rows(words, chunk_rows=64)).compute()
    theirs = wanted.transform(words)
    dense = [m.toarray() if sp.issparse(m) else m for m in (found, theirs)]
    np.testing.assert_array_equal(*dense)
    if "handle_unknown" not in options and "drop" not in options and len(options) == 0:
        with pytest.raises(ValueError, match="Found unknown categories"):
            ours.transform(ml.rows(words.replace("red", "mauve"), chunk_rows=64)).compute()


def test_encoders_of_numbers_in_an_array() -> None:
    codes = np.random.default_rng(0).integers(3, 7, (50, 2)).astype(float)
    array = xp.asarray(codes, chunks=(13, 2))
    ours = ml.OrdinalEncoder().fit(array)
    wanted = sklearn.preprocessing.OrdinalEncoder().fit_transform(codes)
    np.testing.assert_array_equal(np.asarray(ours.transform(array)), wanted)
    one_hot = ml.OneHotEncoder().fit(array).transform(array)
    assert isinstance(one_hot, ml.Rows)  # its chunks are sparse
    assert one_hot.compute().shape == (50, 8)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_imputers_over_chunks(strategy: str) -> None:
    data = np.random.default_rng(0).integers(0, 9, (90, 3)).astype(float)
    data[::7, 0] = np.nan
    data[::5, 2] = np.nan
    options = {"strategy": strategy, "add_indicator": True}
    wanted = sklearn.impute.SimpleImputer(**options).fit(data)
    array = xp.asarray(data, chunks=(20, 2))
    ours = ml.SimpleImputer(**options).fit(array)
    np.testing.assert_allclose(
        np.asarray(ours.transform(array)), wanted.transform(data), rtol=1e-12
    )


def test_texts_end_to_end() -> None:
    texts = ["good fine day", "bad awful rain", "fine sun", "awful storm and rain", "good sun"] * 8
    labels = ["up", "down", "up", "down", "up"] * 8
    hashing = {"n_features": 64, "alternate_sign": False}
    vectors = sklearn.feature_extraction.text.HashingVectorizer(**hashing).transform(texts)
    tfidf = sklearn.feature_extraction.text.TfidfTransformer().fit(vectors)
    wanted = sklearn.linear_model.LogisticRegression(tol=1e-9).fit(tfidf.transform(vectors), labels)
    ours = sklearn.pipeline.make_pipeline(
        ml.HashingVectorizer(**hashing), ml.TfidfTransformer(), ml.LogisticRegression(tol=1e-9)
    ).fit(ml.rows(texts, chunk_rows=7), labels)
    np.testing.assert_allclose(ours[-1].coef_, wanted.coef_, rtol=1e-6, atol=1e-9)
    assert ours.predict(ml.rows(["fine good", "rain"], chunk_rows=1)).compute().tolist() == [
        "up",
        "down",
    ]


def test_sparse_matrices_in_chunks() -> None:
    matrix = sp.random(200, 12, 0.3, format="csr", random_state=0)
    target = matrix @ np.arange(12.0) + 1.0
    data = ml.rows(matrix, chunk_rows=60)
    ours = ml.Ridge().fit(data, target)
    wanted = sklearn.linear_model.Ridge(solver="sparse_cg", tol=1e-12).fit(matrix, target)
    np.testing.assert_allclose(ours.coef_, wanted.coef_, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(ours.predict(data).compute()), wanted.predict(matrix))
    labels = (target > target.mean()).astype(int)
    for one in (ml.MultinomialNB(), ml.LogisticRegression(), ml.LinearSVC()):
        theirs = one.to_sklearn().fit(matrix, labels)
        assert (one.fit(data, labels).predict(matrix) == theirs.predict(matrix)).all()
    centres = ml.KMeans(3, random_state=0).fit(data)
    assert centres.inertia_ < ml.KMeans(1).fit(data).inertia_


def test_neighbours_are_exact() -> None:
    array = xp.asarray(X, chunks=(90, 6))
    wanted = sklearn.neighbors.NearestNeighbors(n_neighbors=4).fit(X)
    ours = ml.NearestNeighbors(n_neighbors=4).fit(array)
    for queries in (X[:30], xp.asarray(X[:30], chunks=(11, 6))):
        for found, theirs in zip(ours.kneighbors(queries), wanted.kneighbors(X[:30]), strict=True):
            np.testing.assert_allclose(found, theirs, rtol=1e-6, atol=1e-6)
    for weights in ("uniform", "distance"):
        label = ml.KNeighborsClassifier(5, weights=weights).fit(array, TWO)
        theirs = sklearn.neighbors.KNeighborsClassifier(5, weights=weights).fit(X, TWO)
        np.testing.assert_array_equal(label.predict(X[:50]), theirs.predict(X[:50]))
        np.testing.assert_array_equal(label.to_sklearn().predict(X[:50]), theirs.predict(X[:50]))
        number = ml.KNeighborsRegressor(5, weights=weights).fit(array, Y)
        wanted_numbers = sklearn.neighbors.KNeighborsRegressor(5, weights=weights).fit(X, Y)
        np.testing.assert_allclose(number.predict(X[:50]), wanted_numbers.predict(X[:50]))
    with pytest.raises(InvalidArgumentError, match="cannot be pickled"):
        pickle.dumps(label)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
        ours.kneighbors(X[:2], n_neighbors=9999)


def test_forests_of_chunks_are_as_good() -> None:
    array = xp.asarray(X, chunks=(90, 6))
    for kind in (ml.RandomForestClassifier, ml.ExtraTreesClassifier):
        ours = kind(20, random_state=0).fit(array, THREE)
        again = kind(20, random_state=0).fit(array, THREE)
        assert len(ours.estimators_) == 20
        np.testing.assert_array_equal(ours.predict_proba(X), again.predict_proba(X))
        assert ours.score(X, THREE) > 0.65
        np.testing.assert_array_equal(np.asarray(ours.predict(array)), ours.predict(X))
        np.testing.assert_array_equal(ours.to_sklearn().predict(X), ours.predict(X))
    assert ml.RandomForestRegressor(20, random_state=0).fit(array, Y).score(X, Y) > 0.7
    odd = np.vstack([X, 100 + X[:3]])
    alone = ml.IsolationForest(random_state=0).fit(xp.asarray(odd, chunks=(100, 6)))
    assert (alone.predict(odd[-3:]) == -1).all()


def test_what_learns_in_turn() -> None:
    array = xp.asarray(X, chunks=(90, 6))
    scaled = ml.StandardScaler().fit_transform(array)
    model = ml.SGDClassifier(random_state=0, loss="log_loss").fit(scaled, TWO)
    assert model.score(scaled, TWO) > 0.75
    assert ml.SGDRegressor(random_state=0).fit(scaled, Y).score(scaled, Y) > 0.8
    ours = ml.IncrementalPCA(3, batch_size=90).fit(array)
    wanted = sklearn.decomposition.IncrementalPCA(3, batch_size=90).fit(X)
    np.testing.assert_allclose(ours.components_, wanted.components_, rtol=1e-9)
    centres = ml.MiniBatchKMeans(3, random_state=0).fit(array)
    assert centres.inertia_ < 1.3 * ml.KMeans(3, random_state=0).fit(array).inertia_


@pytest.mark.parametrize("weights", [None, W])
def test_metrics_are_scikit_learns(weights: Any) -> None:
    def cut(values: Any) -> Any:
        return ml.rows(np.asarray(values), chunk_rows=70)

    noisy = Y + np.random.default_rng(0).standard_normal(len(Y))
    own = {} if weights is None else {"sample_weight": weights}
    for name in (
        "mean_squared_error",
        "root_mean_squared_error",
        "mean_absolute_error",
        "r2_score",
        "explained_variance_score",
    ):
        found = getattr(ml.metrics, name)(cut(Y), cut(noisy), **own)
        assert found == pytest.approx(getattr(sklearn.metrics, name)(Y, noisy, **own), rel=1e-9)
    other = np.roll(THREE, 1)
    for name in (
        "accuracy_score",
        "balanced_accuracy_score",
        "matthews_corrcoef",
        "cohen_kappa_score",
    ):
        found = getattr(ml.metrics, name)(cut(THREE), cut(other), **own)
        wanted = getattr(sklearn.metrics, name)(THREE, other, **own)
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    for name in ("precision_score", "recall_score", "f1_score"):
        options = {**own, "average": "macro"}
        found = getattr(ml.metrics, name)(cut(THREE), cut(other), **options)
        wanted = getattr(sklearn.metrics, name)(THREE, other, **options)
        assert found == pytest.approx(wanted, rel=1e-9)
    rounded = noisy.round(1)  # with ties
    assert ml.metrics.roc_auc_score(cut(TWO == "yes"), cut(rounded), **own) == pytest.approx(
        sklearn.metrics.roc_auc_score(TWO == "yes", rounded, **own), rel=1e-9
    )
    shares = 1 / (1 + np.exp(-noisy))
    assert ml.metrics.log_loss(cut(TWO == "yes"), cut(shares), **own) == pytest.approx(
        sklearn.metrics.log_loss(TWO == "yes", shares, **own), rel=1e-9
    )
    np.testing.assert_allclose(
        ml.metrics.confusion_matrix(cut(THREE), cut(other), **own),
        sklearn.metrics.confusion_matrix(THREE, other, **own),
    )


def test_metrics_of_clusters() -> None:
    one, two = ml.rows(THREE, chunk_rows=60), ml.rows(np.roll(THREE, 3) * 2, chunk_rows=60)
    for name in (
        "adjusted_rand_score",
        "homogeneity_score",
        "completeness_score",
        "v_measure_score",
    ):
        found = getattr(ml.metrics, name)(one, two)
        wanted = getattr(sklearn.metrics, name)(THREE, np.roll(THREE, 3) * 2)
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_splits_keep_rows_together(frame: pd.DataFrame) -> None:
    table = ml.rows(frame, chunk_rows=64)
    array = xp.asarray(np.arange(300.0), chunks=50)
    parts = ml.train_test_split(
        table, array, test_size=0.25, random_state=1, stratify=table["label"]
    )
    train, test, train_at, test_at = parts
    assert (len(train), len(test)) == (225, 75)
    for part, at in ((train, train_at), (test, test_at)):
        positions = np.asarray(at).astype(int)
        pd.testing.assert_frame_equal(
            part.compute().reset_index(drop=True), frame.iloc[positions].reset_index(drop=True)
        )
    assert np.array_equal(np.sort(np.concatenate([train_at, test_at])), np.arange(300))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ml.train_test_split(table, xp.arange(7))


def test_folds_of_data_in_chunks(frame: pd.DataFrame) -> None:
    data = ml.rows(X, chunk_rows=64)
    wanted = sklearn.model_selection.cross_val_score(sklearn.linear_model.Ridge(), X, Y, cv=4)
    found = sklearn.model_selection.cross_val_score(ml.Ridge(), data, Y, cv=4)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    grid = {"alpha": [0.1, 10.0, 1000.0]}
    ours = ml.GridSearchCV(ml.Ridge(), grid, cv=4).fit(data, ml.rows(Y))
    theirs = sklearn.model_selection.GridSearchCV(sklearn.linear_model.Ridge(), grid, cv=4)
    theirs.fit(X, Y)
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-9
    )
    np.testing.assert_allclose(ours.best_estimator_.coef_, theirs.best_estimator_.coef_)
    with pytest.raises(InvalidArgumentError, match="sort the positions"):
        data.take([3, 1])


def test_bad_files_and_bad_input(files: str, tmp_path: Path) -> None:
    (tmp_path / "1.parquet").write_bytes(b"PAR1 this is no parquet file")
    with pytest.raises(SourceError, match=r"1\.parquet"):
        ml.rows(files)
    with pytest.raises(FileNotFoundError):
        ml.rows(str(tmp_path / "none" / "*.parquet"))
    with pytest.raises(InvalidTypeError, match="has no rows"):
        ml.rows(5)
    with pytest.raises(InvalidArgumentError, match="on_error"):
        ml.rows([1.0], on_error="ignore")
    array = xp.asarray(X, chunks=(90, 6))
    bad = X.copy()
    bad[333, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        ml.LinearRegression().fit(xp.asarray(bad, chunks=(90, 6)), Y)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        ml.KMeans(2).fit(xp.asarray(np.where(np.isnan(bad), np.inf, bad), chunks=(90, 6)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ml.Ridge().fit(array, Y[:-1])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        ml.StandardScaler().fit(xp.asarray(Y))
    with pytest.raises(ValueError, match="contains only one class"):
        ml.LogisticRegression().fit(array, np.ones(len(Y)))
    with pytest.raises(ValueError, match="n_samples=400 should be >= n_clusters=401"):
        ml.KMeans(401).fit(array)
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        ml.StandardScaler().fit(xp.zeros((0, 3)))
    with pytest.raises(ValueError, match="must be an int in the range"):
        ml.KMeans(n_clusters=0).fit(array)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        ml.Ridge().predict(array)
    with pytest.raises(ValueError, match="expecting 6 features"):
        ml.Ridge().fit(array, Y).predict(array[:, :3])
    with pytest.raises(InvalidArgumentError, match="liblinear"):
        ml.LogisticRegression(solver="liblinear").fit(array, TWO)


def test_parts_that_cannot_be_read_are_counted(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    frame.to_parquet(path, row_group_size=100)
    readers = _groups(path)
    metadata = pq.ParquetFile(path).metadata
    middle = metadata.row_group(1).column(0)
    start = middle.dictionary_page_offset or middle.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"x" * 40
    path.write_bytes(bytes(content))
    groups = [
        Part(f"one.parquet[row groups {i}:{i + 1}]", 1000, 100, "block", read)
        for i, read in enumerate(readers)
    ]
    with pytest.raises(SourceError, match=r"one\.parquet\[row groups 1:2\]"):
        ml.StandardScaler().fit(ml.rows(Listed(groups))[["size"]])
    with pytest.warns(UserWarning, match=r"1 parts of files cannot be read and are left out"):
        rest = ml.rows(Listed(groups), on_error="skip")
    assert rest.skipped == ("one.parquet[row groups 1:2]",)
    assert len(rest) == 200
    kept = frame["size"].drop(range(100, 200))
    assert ml.StandardScaler().fit(rest[["size"]]).mean_[0] == pytest.approx(kept.mean())


def _groups(path: Path) -> list[Any]:
    whole = ml.rows(str(path)).source.chunks[0].read
    return [dataclasses.replace(whole, first=i, end=i + 1) for i in range(3)]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A source of parts."""

    own: list[Part]

    def parts(self) -> list[Part]:
        return self.own


def test_csv_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    for part in range(2):
        frame.iloc[part * 150 : part * 150 + 150].to_csv(tmp_path / f"{part}.csv", index=False)
    table = ml.rows(str(tmp_path / "*.csv"))
    assert len(table) == 300
    ours = ml.StandardScaler().fit(table[["size"]])
    assert ours.mean_[0] == pytest.approx(frame["size"].mean())


def test_what_would_gather_is_refused() -> None:
    array = xp.asarray(X, chunks=(90, 6))
    model = ml.GaussianNB().fit(array, THREE)
    with pytest.raises(InvalidTypeError, match="partial_fit is not there for data in chunks"):
        model.partial_fit(array, THREE)
    model.partial_fit(X, THREE)  # in memory it is scikit-learn's
    forest = ml.RandomForestClassifier(3).fit(array, THREE)
    with pytest.raises(InvalidTypeError, match="decision_path"):
        forest.decision_path(array)
    for weight in (-W, xp.asarray(-W, chunks=90)):
        with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
            ml.Ridge().fit(array, Y, sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight contains NaN"):
        ml.LogisticRegression().fit(array, TWO, sample_weight=np.where(W > 1, np.nan, W))


def test_what_is_known_of_rows_goes_along() -> None:
    model = ml.KMeans(3, random_state=0).fit(xp.asarray(X, chunks=(90, 6)))
    assert isinstance(model.labels_, xp.Array)
    assert type(model.to_sklearn().labels_) is np.ndarray
    np.testing.assert_array_equal(model.to_sklearn().labels_, model.predict(X))
    rows = ml.rows(X, chunk_rows=90).map(lambda block: block * 2.0)
    found = ml.KMeans(3, random_state=0).fit(rows)
    assert isinstance(found.labels_, ml.Rows)
    assert found.fit_predict(rows).compute().shape == (400,)


def test_what_scikit_learn_does_with_odd_data() -> None:
    collinear = np.column_stack([X[:, 0], 2 * X[:, 0], X[:, 1], np.ones(len(X))])
    array = xp.asarray(collinear, chunks=(90, 4))
    wanted = sklearn.linear_model.LinearRegression().fit(collinear, Y)
    ours = ml.LinearRegression().fit(array, Y)
    np.testing.assert_allclose(ours.coef_, wanted.coef_, rtol=1e-6, atol=1e-9)
    assert ours.rank_ == wanted.rank_
    wide = X[:5]
    np.testing.assert_allclose(
        ml.LinearRegression().fit(xp.asarray(wide, chunks=(2, 6)), Y[:5]).coef_,
        sklearn.linear_model.LinearRegression().fit(wide, Y[:5]).coef_,
        rtol=1e-6,
        atol=1e-9,
    )
    far = X + 1e7
    np.testing.assert_allclose(
        ml.LinearRegression().fit(xp.asarray(far, chunks=(90, 6)), Y).coef_,
        sklearn.linear_model.LinearRegression().fit(far, Y).coef_,
        rtol=1e-6,
    )
    empty = ml.rows(X, chunk_rows=90)
    with_empty = ml.Rows(
        type(empty.source)(empty.source.array) if hasattr(empty.source, "array") else empty.source,
        empty.lengths,
        empty.sample,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(
            ml.StandardScaler().fit(with_empty).mean_, ml.StandardScaler().fit(empty).mean_
        )
    chunks = ((0, 200, 0, 200), (6,))
    np.testing.assert_allclose(
        ml.StandardScaler().fit(xp.asarray(X, chunks=chunks)).mean_, X.mean(axis=0), rtol=1e-12
    )
