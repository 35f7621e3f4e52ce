"""Tables in chunks: each estimator, and pandas' kinds of columns."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_cases import COUNTS, THREE, X, Y
from sklearn.base import clone, is_classifier
from test_checks import ESTIMATORS

from agentic_ray import ml

FRAME = pd.DataFrame(X, columns=list("abcdef"))
FRAME["c"] = (FRAME["c"] * 3).round().astype(int)
FRAME["d"] = FRAME["d"].astype(np.float32)
FRAME["e"] = FRAME["e"] > 0
METHODS = (
    "predict",
    "predict_proba",
    "transform",
    "decision_function",
    "score_samples",
    "kneighbors",
)


def plain(found: Any, name: str = "") -> Any:
    """What a method gives as an array; of neighbours their positions."""
    if name == "kneighbors":
        found = found[1]
    found = found.compute() if hasattr(found, "compute") else found
    return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: " ".join(repr(one).split())[:80])
def test_methods_of_tables_in_chunks(estimator: Any) -> None:
    model, name = clone(estimator), type(estimator).__name__
    positive = estimator.__sklearn_tags__().input_tags.positive_only or name == "MultinomialNB"
    frame = FRAME.abs() if positive else FRAME
    if name in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        frame = frame.round()
    y: Any = THREE if is_classifier(model) else COUNTS + 1.0
    if name.startswith("MultiTask"):
        y = np.column_stack([Y, Y])
    rows = ml.rows(frame, chunk_rows=90)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, y)
        assert list(model.feature_names_in_) == list(frame.columns)
        twin = model.to_sklearn()
        for method in METHODS:
            if hasattr(model, method):
                found = plain(getattr(model, method)(rows), method)
                wanted = plain(getattr(twin, method)(frame), method)
                assert found.shape == wanted.shape
                if found.dtype.kind == "f":
                    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
                else:
                    assert np.mean(found == wanted) > 0.99


NULLABLE = pd.DataFrame(
    {
        "a": pd.array([1, 2, None, 4] * 75, dtype="Int64"),
        "b": pd.array([0.5, None, 2.0, 1.0] * 75, dtype="Float64"),
        "c": pd.array([True, False, None, True] * 75, dtype="boolean"),
        "s": pd.array(["u", None, "v", "u"] * 75, dtype="string"),
        "k": pd.Categorical(["p", "q", None, "p"] * 75),
    }
)
CASES: list[tuple[Any, list[str]]] = [
    (ml.SimpleImputer(), ["a", "b"]),
    (ml.SimpleImputer(strategy="median", add_indicator=True), ["a", "b"]),
    (ml.SimpleImputer(strategy="most_frequent"), ["a"]),
    (ml.SimpleImputer(strategy="most_frequent"), ["k"]),
    (ml.SimpleImputer(strategy="most_frequent", missing_values=pd.NA), ["s"]),
    (ml.SimpleImputer(strategy="constant", fill_value=0), ["a"]),
    (ml.StandardScaler(), ["a", "b", "c"]),
    (ml.MinMaxScaler(), ["a"]),
    (ml.RobustScaler(), ["a"]),
    (ml.OneHotEncoder(sparse_output=False), ["a", "k"]),
    (ml.OrdinalEncoder(), ["a", "k", "c"]),
]


@pytest.mark.parametrize(("estimator", "columns"), CASES, ids=str)
def test_nullable_columns(estimator: Any, columns: list[str]) -> None:
    wanted = estimator.to_sklearn().fit(NULLABLE[columns])
    model = clone(estimator).fit(ml.rows(NULLABLE[columns], chunk_rows=70))
    found = plain(model.transform(ml.rows(NULLABLE[columns], chunk_rows=70)))
    expected = plain(wanted.transform(NULLABLE[columns]))
    assert found.dtype.kind == expected.dtype.kind
    pd.testing.assert_frame_equal(
        pd.DataFrame(found), pd.DataFrame(expected), check_dtype=False, rtol=1e-3
    )


@pytest.mark.parametrize("encoder", [ml.OneHotEncoder(), ml.OrdinalEncoder(), ml.TargetEncoder()])
def test_encoders_refuse_na_among_texts_as_theirs(encoder: Any) -> None:
    y = np.arange(300) % 2
    for data in (NULLABLE[["s"]], ml.rows(NULLABLE[["s"]], chunk_rows=70)):
        with pytest.raises(TypeError, match="must be uniformly strings or numbers"):
            clone(encoder).fit(data, y)
