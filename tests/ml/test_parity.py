"""Fits give what scikit-learn's give, in one chunk and in several, here and on the cluster."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from ml_cases import CASES, Case, W, X

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate


def theirs(case: Case, weight: Any = None) -> Any:
    twin = case.estimator.to_sklearn()
    options = {} if weight is None else {"sample_weight": weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return twin.fit(X if case.x is None else case.x, case.y, **options)


def same(case: Case, ours: Any, wanted: Any) -> None:
    for name in case.names:
        found, expected = np.asarray(getattr(ours, name)), np.asarray(getattr(wanted, name))
        assert found.shape == expected.shape, name
        scale = np.abs(expected).max() if expected.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.rtol * scale)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_in_one_chunk_and_in_several(case: Case, weighted: bool) -> None:
    if weighted and not case.weights:
        pytest.skip("it takes no weights")
    data = X if case.x is None else case.x
    weight = W if weighted else None
    wanted = theirs(case, weight)
    same(case, case.fit(data, weight), wanted)
    chunked = xp.asarray(data, chunks=(90, 4))
    same(case, case.fit(chunked, weight), wanted)
    if weighted:
        same(case, case.fit(chunked, xp.asarray(W, chunks=33)), wanted)


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_the_cluster_gives_the_same_bits(
    case: Case, ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = X if case.x is None else case.x
    chunked = xp.asarray(data, chunks=(90, 4))
    here = case.fit(chunked)
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    for again in (chunked, xp.asarray(data, chunks=(90, 6)).persist()):
        there = case.fit(again)
        for name in case.names:
            np.testing.assert_array_equal(
                np.asarray(getattr(there, name)), np.asarray(getattr(here, name))
            )


def test_predictions_of_chunks_are_scikit_learns(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    chunked = xp.asarray(X, chunks=(90, 4))
    for case in CASES[::3]:
        model = case.fit(X if case.x is None else case.x)
        for name in ("predict", "predict_proba", "transform"):
            if hasattr(model, name):
                found = getattr(model, name)(chunked)
                found = found.compute()
                wanted = getattr(model.to_sklearn(), name)(X)
                np.testing.assert_array_equal(found, wanted)
    assert isinstance(ml.StandardScaler().fit_transform(chunked), xp.Array)
