"""The same tasks through real Ray: values, persisted chunks, bits equal to the local run's."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate


@pytest.fixture
def _distributed(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is not one small chunk goes through Ray."""
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)


@pytest.mark.usefixtures("_distributed")
def test_a_chain_and_a_reduction() -> None:
    values = np.random.default_rng(0).random((300, 200))
    x = xp.asarray(values, chunks=(64, 96))
    np.testing.assert_allclose(np.asarray((x + 1) * 2), (values + 1) * 2)
    np.testing.assert_allclose(
        float(((x + 1) * 2 - x.mean(axis=0)).sum()), ((values + 1) * 2 - values.mean(0)).sum()
    )


@pytest.mark.usefixtures("_distributed")
def test_persisted_chunks_are_inputs_of_what_follows() -> None:
    values = np.random.default_rng(1).random((1000, 60))
    x = xp.from_numpy(values, chunks=(170, 60)).persist()
    assert x.explain().startswith("nothing to compute")
    np.testing.assert_array_equal(np.asarray(x), values)
    y = (x * 2).persist()
    np.testing.assert_allclose(np.asarray(y.T @ x), (values * 2).T @ values)
    np.testing.assert_array_equal(np.asarray(y[5:500:7, ::-1]), (values * 2)[5:500:7, ::-1])
    np.testing.assert_array_equal(np.asarray(xp.reshape(x, (60, 1000))), values.reshape(60, 1000))


@pytest.mark.usefixtures("_distributed")
def test_a_small_persisted_array_is_used_like_any_other() -> None:
    values = np.random.default_rng(1).random((1000, 60))
    total = xp.from_numpy(values, chunks=(170, 60)).sum(axis=0).persist()
    np.testing.assert_allclose(np.asarray(total + 1), values.sum(axis=0) + 1)
    np.testing.assert_allclose(np.asarray(total), values.sum(axis=0))


def test_the_bits_do_not_depend_on_where_it_runs(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(2).normal(size=(500, 400)).astype(np.float32)
    results = []
    for limit in (1 << 40, -1):
        monkeypatch.setattr(evaluate, "LOCAL_BYTES", limit)
        x = xp.asarray(values, chunks=(77, 130))
        found = (xp.exp(x).sum(axis=1), xp.var(x), xp.argmax(x), x @ xp.matrix_transpose(x))
        results.append([np.asarray(array) for array in found])
    for local, remote in zip(*results, strict=True):
        assert local.tobytes() == remote.tobytes()


@pytest.mark.usefixtures("_distributed")
def test_shapes_that_depend_on_data() -> None:
    values = np.random.default_rng(3).integers(0, 50, 40_000)
    x = xp.asarray(values, chunks=7_000)
    np.testing.assert_array_equal(np.asarray(x[x > 25]), values[values > 25])
    found, counts = xp.unique_counts(x)
    expected = np.unique_counts(values)
    np.testing.assert_array_equal(np.asarray(found), expected.values)
    np.testing.assert_array_equal(np.asarray(counts), expected.counts)


@pytest.mark.usefixtures("_distributed")
def test_an_error_in_a_kernel_is_numpys_own() -> None:
    x = xp.zeros((200, 200), chunks=200)
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        np.asarray(xp.linalg.inv(x))


def test_blocks_of_a_users_function_are_spread_from_the_first_run_on(
    ray_session: ar.Session,
) -> None:
    def where(block: np.ndarray) -> np.ndarray:
        time.sleep(0.2)
        return np.full(block.shape, os.getpid() + threading.get_native_id() / 2**32)

    x = xp.ones((80,), chunks=10)
    found = np.asarray(xp.map_blocks(where, x, dtype="float64"))
    assert os.getpid() not in set(found.astype(int).tolist())
    assert len(set(found.tolist())) >= 2  # threads, or processes


def test_what_is_made_from_nothing_is_spread_from_the_first_run_on(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    submit = ray_session.submit

    def noted(*args: Any, **options: Any) -> Any:
        runs.append(submit(*args, **options))
        return runs[-1]

    monkeypatch.setattr(ray_session, "submit", noted)
    x = xp.random.default_rng(0).random((20_000_000,), chunks=1_000_000)
    with xp.config(seconds_here=0):
        float(xp.tanh(xp.sin(x) ** 2).sum())  # a program that no other test has
    (run,) = runs
    assert len([p for p in run.placements() if p.device == "cpu" and p.tasks > 1]) >= 2
    assert "e-" not in x.sum().explain().split(" s of one CPU")[0].rsplit("about", 1)[1]
