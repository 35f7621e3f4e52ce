"""Models as ONNX: what ONNX Runtime predicts is what the model does, or there is no model."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_cases import COUNTS, THREE, TWO, X, Y
from sklearn.base import BaseEstimator, RegressorMixin, clone, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

MODELS: list[Any] = [
    ml.BernoulliNB(),
    ml.ElasticNet(),
    ml.ElasticNetCV(cv=3, alphas=5),
    ml.GammaRegressor(),
    ml.GaussianMixture(2, random_state=0),
    ml.GaussianNB(),
    ml.IncrementalPCA(2, batch_size=100),
    ml.IsolationForest(n_estimators=5, random_state=0),
    ml.KBinsDiscretizer(encode="ordinal"),
    ml.KMeans(3, random_state=0),
    ml.KNeighborsClassifier(),
    ml.KNeighborsRegressor(),
    ml.Lasso(alpha=0.1),
    ml.LassoCV(cv=3, alphas=5),
    ml.LinearRegression(),
    ml.LinearSVC(),
    ml.LinearSVR(),
    ml.LogisticRegression(),
    ml.MaxAbsScaler(),
    ml.MinMaxScaler(),
    ml.MiniBatchKMeans(3, random_state=0),
    ml.Normalizer(),
    ml.PCA(3),
    ml.PoissonRegressor(),
    ml.PolynomialFeatures(),
    ml.PowerTransformer(),
    ml.RandomForestClassifier(n_estimators=5, random_state=0),
    ml.RandomForestRegressor(n_estimators=5, random_state=0),
    ml.Ridge(),
    ml.RidgeCV(),
    ml.RobustScaler(),
    ml.SGDClassifier(random_state=0),
    ml.SGDRegressor(random_state=0),
    ml.SelectKBest(k=2),
    ml.SimpleImputer(),
    ml.StandardScaler(),
    ml.TruncatedSVD(3),
    ml.VarianceThreshold(),
    make_pipeline(ml.StandardScaler(), ml.PCA(4), ml.LogisticRegression()),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_predictions_are_the_models_own(model: Any) -> None:
    y: Any = THREE if is_classifier(model) else COUNTS + 1.0
    data = xp.asarray(X, chunks=(90, 4)) if hasattr(model, "to_sklearn") else X
    model = clone(model).fit(data, y)
    twin = ml.OnnxModel(ml.to_onnx(model))
    assert hasattr(twin, "predict")
    rows = X.astype(np.float32).astype(np.float64)
    for name in ("predict", "predict_proba", "transform"):
        if not hasattr(model, name) or (name == "transform" and hasattr(model, "predict")):
            continue
        wanted, found = getattr(model, name)(rows), getattr(twin, name)(rows)
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        else:
            assert np.mean(found == wanted) > 0.99


def test_labels_that_are_texts() -> None:
    model = ml.LogisticRegression().fit(X, TWO)
    twin = ml.OnnxModel(model.to_onnx())
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    np.testing.assert_allclose(twin.predict_proba(X), model.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("local", [True, False], ids=["here", "cluster"])
def test_predict_takes_models_and_files(
    local: bool, ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not local:
        monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    model = ml.Ridge().fit(X, Y)
    made = model.to_onnx()
    path = tmp_path / "ridge.onnx"
    path.write_bytes(made.SerializeToString())
    chunked = xp.asarray(X, chunks=(90, 4))
    for given in (made, path, str(path), ml.OnnxModel(path), pickle.loads(pickle.dumps(made))):
        np.testing.assert_allclose(ml.predict(given, X, batch_size=150), model.predict(X))
        np.testing.assert_allclose(ml.predict(given, chunked), model.predict(X))
        np.testing.assert_allclose(ml.predict(given, ml.rows(chunked)), model.predict(X))
    lazy = ml.rows(chunked).map(ml.OnnxModel(path).predict)
    np.testing.assert_allclose(lazy.compute(), model.predict(X))
    # pickled after it predicted
    twin = pickle.loads(pickle.dumps(ml.OnnxModel(path)))
    twin.predict(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(twin)).predict(X), twin.predict(X))


def test_pipelines_of_tables(tmp_path: Path) -> None:
    table = pd.DataFrame({"size": X[:, 0], "weight": X[:, 1], "colour": np.where(Y > 0, "r", "b")})
    columns = ml.ColumnTransformer(
        [("n", ml.StandardScaler(), ["size", "weight"]), ("c", ml.OneHotEncoder(), ["colour"])]
    )
    model = make_pipeline(columns, ml.LogisticRegression()).fit(table, TWO)
    with pytest.raises(InvalidArgumentError, match="give to_onnx some rows"):
        ml.to_onnx(model)
    for sample in (table, ml.rows(table, chunk_rows=100)):
        made = ml.to_onnx(model, sample)
        assert [one.name for one in made.graph.input] == ["size", "weight", "colour"]
        twin = ml.OnnxModel(made)
        np.testing.assert_array_equal(twin.predict(table), model.predict(table))
        found = ml.predict(made, table, method="predict_proba", batch_size=64)
        np.testing.assert_allclose(found, model.predict_proba(table), rtol=1e-4)
    with pytest.raises(InvalidTypeError, match="give a DataFrame"):
        twin.predict(X)
    with pytest.raises(InvalidArgumentError, match="there is no column colour"):
        twin.predict(table[["size", "weight"]])


@pytest.mark.parametrize(
    "model",
    [ml.BisectingKMeans(2), ml.DBSCAN(), ml.FactorAnalysis(2), ml.NMF(2, max_iter=500)],
    ids=lambda model: type(model).__name__,
)
def test_models_without_a_converter(model: Any) -> None:
    model = clone(model).fit(np.abs(X))
    with pytest.raises(InvalidTypeError, match=f"no converter for this {type(model).__name__}"):
        model.to_onnx()


class Doubled(RegressorMixin, BaseEstimator):
    """A model of the user's own."""

    def fit(self, X: Any, y: Any) -> Doubled:
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return X.sum(axis=1) * 2


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        ml.to_onnx(ml.Ridge())
    with pytest.raises(InvalidTypeError, match="takes a fitted estimator"):
        ml.to_onnx(np.ones(3))
    with pytest.raises(InvalidTypeError, match="no converter for this Doubled"):
        ml.to_onnx(Doubled().fit(X, Y))
    with pytest.raises(InvalidTypeError, match="no converter for this FunctionTransformer"):
        ml.to_onnx(FunctionTransformer(np.sin).fit(X), X)
    with pytest.raises(InvalidArgumentError, match="must be some rows"):
        ml.to_onnx(ml.Ridge().fit(X, Y), np.zeros((0, 6)))
    with pytest.raises(FileNotFoundError):
        ml.predict("nowhere.onnx", X)
    with pytest.raises(InvalidTypeError, match="an ONNX model is"):
        ml.OnnxModel(3)
    with pytest.raises(AttributeError, match="no probabilities"):
        ml.OnnxModel(ml.Ridge().fit(X, Y).to_onnx()).predict_proba(X)
    for name in ("skl2onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ModuleNotFoundError, match=r"'agentic-ray\[onnx\]'"):
                ml.Ridge().fit(X, Y).to_onnx()


def test_a_conversion_that_predicts_something_else_is_no_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import skl2onnx

    other = ml.Ridge().fit(X, Y + X[:, 0]).to_onnx()
    monkeypatch.setattr(skl2onnx, "to_onnx", lambda *given, **options: other)
    with pytest.raises(InvalidTypeError, match="its predict gives other values"):
        ml.Ridge().fit(X, Y).to_onnx()


def test_predict_of_tables(ray_session: ar.Session) -> None:
    table = pd.DataFrame(X, columns=list("abcdef"))
    model = ml.Ridge().fit(table, Y)
    for data in (table, ml.rows(table, chunk_rows=100)):
        np.testing.assert_array_equal(ml.predict(model, data), model.predict(table))
    with pytest.raises(InvalidTypeError, match="a Function is given rows of arrays"):
        ml.predict(ar.function(abs), table)
    with pytest.raises(InvalidArgumentError, match="1 predictions were made of 400 rows"):
        ml.predict(lambda rows: np.ones(1), table)
