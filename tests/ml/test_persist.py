"""Rows that are persisted: read once, kept where they were made, made again when they are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import scipy.sparse as sp
from ml_cases import TWO, X

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.ml import chunks


def table(folder: Path) -> str:
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(label=TWO)
    path = folder / "rows.parquet"
    frame.to_parquet(path, row_group_size=90)
    return str(path)


@pytest.mark.parametrize("local", [True, False], ids=["here", "cluster"])
def test_a_fit_of_many_passes_reads_files_once(
    local: bool, ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not local:
        monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    path = table(tmp_path)
    data = ml.rows(path)
    wanted = ml.LogisticRegression().fit(data.drop("label"), data["label"])
    kept = data.persist()
    assert kept.lengths == data.lengths
    assert kept.columns == data.columns
    assert kept.is_here is local
    assert all(isinstance(one, chunks.Part) for one in data.source.chunks)  # as they were
    Path(path).unlink()
    found = ml.LogisticRegression().fit(kept.drop("label"), kept["label"])
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    part = kept[["a", "b"]][100:200]
    pd.testing.assert_frame_equal(
        part.compute().reset_index(drop=True), pd.DataFrame(X[100:200, :2], columns=["a", "b"])
    )
    np.testing.assert_array_equal(kept[["c", "a"]].array().compute(), X[:, [2, 0]])
    made = kept[["a"]].map(np.exp).persist().map(np.log)
    np.testing.assert_allclose(made.compute()["a"], X[:, 0], rtol=1e-12)
    with pytest.raises(FileNotFoundError):
        data.compute()


@pytest.mark.parametrize("local", [True, False], ids=["here", "cluster"])
def test_all_kinds_of_rows(
    local: bool, ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not local:
        monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    kinds: list[Any] = [
        ml.rows(xp.asarray(X, chunks=(90, 4))),
        ml.rows(xp.asarray(X, chunks=(90, 4))).map(np.exp),
        ml.rows(sp.csr_matrix(X), chunk_rows=70),
        ml.rows(["a text", "another", "and more"], chunk_rows=2),
        ml.rows(xp.asarray(X, chunks=(90, 4)))[5:300],
        ml.rows(X, chunk_rows=90)[np.arange(0)],
    ]
    for data in kinds:
        kept = data.persist()
        assert kept.shape == data.shape
        found, wanted = kept.compute(), data.compute()
        if sp.issparse(wanted):
            found, wanted = found.toarray(), wanted.toarray()
        np.testing.assert_array_equal(found, wanted)
        assert not kept.steps


class Blocks:
    """What is used of a Ray Dataset: its blocks as Arrow tables in the object store."""

    def __init__(self, tables: list[Any]) -> None:
        self._refs = [ray.put(table) for table in tables]

    def to_arrow_refs(self) -> list[Any]:
        return self._refs


def test_an_array_of_what_is_in_the_object_store(ray_session: ar.Session) -> None:
    tables = [pa.table({"a": X[i::3, 0], "b": X[i::3, 1]}) for i in range(3)]
    data = ml.rows(Blocks(tables))
    wanted = np.concatenate([X[i::3, :2] for i in range(3)])
    np.testing.assert_array_equal(data.array().compute(), wanted)
    np.testing.assert_array_equal(data.persist().array().compute(), wanted)


def test_chunks_that_are_lost_are_made_again(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    kept = ml.rows(xp.asarray(X, chunks=(90, 4))).map(np.exp).persist()
    part = kept.take_chunks([1, 3])
    calls: list[int] = []
    seen = chunks._is_lost

    def lost(chunk: Any) -> bool:
        calls.append(1)
        return len(calls) in (2, 7) or seen(chunk)

    monkeypatch.setattr(chunks, "_is_lost", lost)
    np.testing.assert_array_equal(kept.compute(), np.exp(X))
    np.testing.assert_array_equal(part.compute(), np.exp(np.concatenate([X[90:180], X[270:360]])))
    assert len(calls) == 5 + 2
