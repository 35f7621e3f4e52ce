"""Searches over data in chunks cut each fold once, and give what they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_cases import X, Y

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.graph import Codelet, Task, TaskGraph
from agentic_ray.ml import shared_folds
from agentic_ray.ml.chunks import Taken
from agentic_ray.ml.data import Rows
from agentic_ray.runtime import Stored, get_session, put

GRID = {"alpha": [0.1, 1.0, 100.0]}


def searched(data: Any) -> Any:
    return ml.GridSearchCV(ml.Ridge(), GRID, cv=4).fit(data, Y)


@pytest.mark.parametrize("fits", [True, False], ids=["kept", "no room"])
@pytest.mark.parametrize("kind", ["array", "files"])
def test_folds_are_cut_once(
    kind: str, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frame = pd.DataFrame(X)
    frame.columns = [f"c{i}" for i in frame.columns]
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=90)
    data = (
        xp.asarray(X, chunks=(90, 4)) if kind == "array" else ml.rows(str(tmp_path / "x.parquet"))
    )
    cuts: list[Rows] = []
    kept: list[Rows] = []
    take, persist = Rows.take, Rows.persist
    monkeypatch.setattr(Rows, "take", lambda self, at: cuts.append(self) or take(self, at))
    monkeypatch.setattr(Rows, "persist", lambda self: kept.append(self) or persist(self))
    if not fits:
        monkeypatch.setattr(shared_folds, "_SHARE", 0.0)
    search = searched(data)
    assert len(kept) == (8 if fits else 0)  # rows to train and to test on, of four folds
    assert len(cuts) == (8 if fits else 8 * 3)
    wanted = searched(X)
    assert search.best_params_ == wanted.best_params_
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], wanted.cv_results_["mean_test_score"], rtol=1e-9
    )
    np.testing.assert_allclose(search.predict(X), wanted.predict(X), rtol=1e-9)


def test_folds_of_files_on_the_cluster(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Positions of many rows are in the object store themselves."""
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    many = pd.DataFrame({"a": np.arange(400_000.0), "b": np.arange(400_000.0) % 7})
    many.to_parquet(tmp_path / "x.parquet", row_group_size=100_000)
    data = ml.rows(str(tmp_path / "x.parquet"))
    even = data.take(np.arange(0, 400_000, 2))
    for found in (even.compute(), even.persist().compute()):
        np.testing.assert_array_equal(found.to_numpy(), many.iloc[::2].to_numpy())
    half = ml.rows(many, chunk_rows=100_000).take(np.arange(200_000)).compute()
    np.testing.assert_array_equal(half.to_numpy(), many.iloc[:200_000].to_numpy())
    y = (2 * many["a"] - many["b"]).to_numpy()
    search = ml.GridSearchCV(ml.Ridge(), {"alpha": [1e-3, 1e9]}, cv=3).fit(data, y)
    assert search.best_params_ == {"alpha": 1e-3}


def test_what_is_stored_may_be_in_a_named_tuple(ray_session: ar.Session) -> None:
    held = put(np.arange(200_000.0))
    assert isinstance(held, Stored)
    code = Codelet("total", lambda pair: float(pair.chunk.sum()) + pair.positions["x"][0])
    task = Task.of(code, Taken(held, {"x": [1.0]}), key="total")
    (found,) = get_session().submit(TaskGraph([task], ["total"])).result()
    assert found == np.arange(200_000.0).sum() + 1.0
