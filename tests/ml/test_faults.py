"""Fits that are interrupted, watched, converted; that lose a node; that never see all data."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import sklearn.linear_model
from ml_cases import TWO, X, Y
from sklearn.base import clone

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.ml import passes

LONG = "AGENTIC_RAY_LONG" in os.environ


class Interrupted(Exception):
    """Ends a fit in the middle."""


FITS: list[tuple[Any, Any, tuple[str, ...]]] = [
    (ml.LogisticRegression(max_iter=500), TWO, ("coef_", "intercept_", "n_iter_")),
    (ml.PoissonRegressor(), np.abs(Y).round(), ("coef_", "intercept_", "n_iter_")),
    (ml.KMeans(4, tol=0), None, ("cluster_centers_", "inertia_", "n_iter_")),  # no seed is given
    (ml.BisectingKMeans(12, tol=0), None, ("cluster_centers_", "inertia_")),
    (
        ml.GaussianMixture(2, tol=0, max_iter=6, init_params="random_from_data"),
        None,
        ("means_", "covariances_"),
    ),
]


@pytest.mark.parametrize(("estimator", "y", "names"), FITS, ids=lambda part: type(part).__name__)
def test_a_fit_goes_on_at_its_checkpoint(
    estimator: Any, y: Any, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = xp.asarray(X, chunks=(90, 4))

    def interrupt(step: ml.Iteration) -> None:
        if step.number == 3:
            raise Interrupted

    model = clone(estimator)
    with pytest.raises(Interrupted), ml.watching(interrupt):
        model.fit(array, y, checkpoint=tmp_path / "fit")
    done = len(list((tmp_path / "fit").glob("*.npz")))
    assert done >= 3
    run: list[str] = []
    original = passes.Passes._run

    def counted(self: Any, kernel: Any, *rest: Any) -> Any:
        if kernel.__name__ != "fingerprint":  # it looks whether the data are the same
            run.append(kernel.__name__)
        return original(self, kernel, *rest)

    monkeypatch.setattr(passes.Passes, "_run", counted)
    resumed = clone(estimator).fit(array, y, checkpoint=tmp_path / "fit")
    again = len(run)
    run.clear()
    whole = clone(estimator).fit(array, y, checkpoint=tmp_path / "fit")
    assert not run
    assert again <= len(list((tmp_path / "fit").glob("*.npz"))) - done
    for name in names:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    if y is not None:
        fresh = clone(estimator).fit(array, y)
        for name in names:
            np.testing.assert_array_equal(getattr(resumed, name), getattr(fresh, name))
    with pytest.raises(InvalidArgumentError, match="another fit"):
        clone(estimator).set_params(max_iter=7).fit(array, y, checkpoint=tmp_path / "fit")
    with pytest.raises(InvalidArgumentError, match="another fit"):
        clone(estimator).fit(
            array[:200], None if y is None else y[:200], checkpoint=tmp_path / "fit"
        )


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    array = xp.asarray(X, chunks=(90, 4))
    ml.LinearRegression().fit(array, Y, checkpoint=str(tmp_path))
    (tmp_path / "000000.npz").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"000000\.npz of the checkpoint is damaged"):
        ml.LinearRegression().fit(array, Y, checkpoint=str(tmp_path))


def test_a_checkpoint_at_a_url() -> None:
    pytest.importorskip("fsspec")
    array = xp.asarray(X, chunks=(90, 4))
    one = ml.Ridge().fit(array, Y, checkpoint="memory://ml/ridge")
    two = ml.Ridge().fit(array, Y, checkpoint="memory://ml/ridge")
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_the_loss_of_each_iteration_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[ml.Iteration] = []
    with ml.watching(steps.append):
        model = ml.KMeans(4, random_state=0, verbose=1).fit(xp.asarray(X, chunks=(90, 4)))
    assert [step.number for step in steps] == list(range(1, model.n_iter_ + 1))
    losses = [step.loss for step in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(model.inertia_, rel=1e-2)
    assert "[KMeans] iteration 1: loss" in capsys.readouterr().out


def test_models_become_scikit_learns_and_back() -> None:
    ours = ml.LogisticRegression().fit(xp.asarray(X, chunks=(90, 4)), TWO)
    theirs = ours.to_sklearn()
    assert type(theirs) is sklearn.linear_model.LogisticRegression
    program = "import pickle, sys; m = pickle.load(sys.stdin.buffer); assert not any("
    program += "n.startswith('agentic_ray') for n in sys.modules); print(m.n_features_in_)"
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(theirs), capture_output=True, check=True
    )
    assert done.stdout.strip() == b"6"
    np.testing.assert_array_equal(theirs.predict(X), ours.predict(X))
    back = ml.LogisticRegression.from_sklearn(theirs)
    np.testing.assert_array_equal(back.predict(X), ours.predict(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(X), ours.predict(X))
    with pytest.raises(InvalidTypeError, match="not from Ridge"):
        ml.LogisticRegression.from_sklearn(sklearn.linear_model.Ridge())


def test_the_same_bits_here_and_in_other_places(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = xp.random.default_rng(0).standard_normal((4000, 5), chunks=(500, 5))
    y = (array @ np.arange(5.0) > 0).astype(xp.int64)
    here = ml.LogisticRegression().fit(array, y)
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    for data, target in ((array, y), (array * 1.0, y.persist())):
        there = ml.LogisticRegression().fit(data, target)
        np.testing.assert_array_equal(there.coef_, here.coef_)
        there = ml.KMeans(3, random_state=5).fit(data)
    np.testing.assert_array_equal(
        there.cluster_centers_, ml.KMeans(3, random_state=5).fit(array).cluster_centers_
    )


def test_fits_are_searched_beside_each_other(ray_session: ar.Session) -> None:
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    x, y = make_classification(600, 20, random_state=0)  # large enough to be put in the store
    grid = {"max_depth": [1, 2, 3, 4], "random_state": [0]}
    ours = ml.GridSearchCV(DecisionTreeClassifier(), grid, cv=3).fit(x, y)
    theirs = GridSearchCV(DecisionTreeClassifier(), grid, cv=3).fit(x, y)
    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )
    search = ml.GridSearchCV(ml.Ridge(), {"alpha": [1.0, -1.0]}, cv=3, error_score="raise")
    with pytest.raises(ValueError, match="alpha"):
        search.fit(x, y.astype(float))


PROGRAM = """
import numpy as np
import agentic_ray as ar, agentic_ray.array as xp
from agentic_ray import ml
"""


def run_program(source: str, timeout: float = 280) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**inherited, "RAY_ADDRESS": "local", "RAY_worker_niceness": "0"},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="it takes minutes on a busy machine: set AGENTIC_RAY_LONG=1")
@pytest.mark.parametrize(("rows", "store"), [(400_000, 100), (50_000_000, 1000)])
@pytest.mark.timeout(1300)
def test_data_larger_than_the_store_are_gone_through(rows: int, store: int) -> None:
    """160 MB under a store of 100 MB, and 20 GB under one of 1 GB."""
    found = run_program(
        f"""
        ar.init(num_cpus=2, object_store_memory_bytes={store << 20})
        n = {rows}
        x = xp.random.default_rng(1).standard_normal((n, 50), chunks=(20_000, 50))
        model = ml.StandardScaler().fit(x)
        assert abs(model.mean_).max() < 0.01 and abs(model.scale_ - 1).max() < 0.01
        y = x[:, 0] * 2.0 + 1.0
        line = ml.Ridge(alpha=1e-3).fit(x, y)
        assert abs(line.coef_[0] - 2) < 1e-6 and abs(line.intercept_ - 1) < 1e-6
        import resource
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        """,
        timeout=1200,
    )
    assert int(found.split()[-1]) < 900  # MB of the caller's memory


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="it starts a cluster: set AGENTIC_RAY_LONG=1")
def test_a_node_that_dies_during_a_fit_changes_no_bit() -> None:
    found = run_program(
        """
        import os, signal
        import ray
        from ray.cluster_utils import Cluster
        health = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 1000,
            "health_check_failure_threshold": 8,
        }
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": health}
        )
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        ar.init(poll_seconds=0.3)
        from agentic_ray.array.core import evaluate
        evaluate.LOCAL_BYTES = 0
        x = xp.random.default_rng(0).standard_normal((60_000, 10), chunks=(4_000, 10))
        x.persist()
        y = (x @ np.arange(10.0) > 0).astype(xp.int64).persist()
        wanted = ml.LogisticRegression(tol=1e-6).fit(x, y)

        def kill(step):
            if step.number == 2:
                os.kill(second.all_processes["raylet"][0].process.pid, signal.SIGKILL)

        with ml.watching(kill):
            found = ml.LogisticRegression(tol=1e-6).fit(x, y)
        assert found.n_iter_[0] > 2
        assert len([n for n in ray.nodes() if n["Alive"]]) == 1
        np.testing.assert_array_equal(found.coef_, wanted.coef_)
        print("same")
        """
    )
    assert found.split()[-1] == "same"


class Blocks:
    """What is used of a Ray Dataset: its blocks as Arrow tables in the object store."""

    def __init__(self, tables: list[Any]) -> None:
        self._refs = [ray.put(table) for table in tables]

    def to_arrow_refs(self) -> list[Any]:
        return self._refs


def test_blocks_of_a_ray_dataset_are_used_where_they_are(ray_session: ar.Session) -> None:
    tables = [pa.table({"a": X[i::3, 0], "b": X[i::3, 1]}) for i in range(3)]
    dataset = Blocks([*tables, tables[0].slice(0, 0)])
    data = ml.rows(dataset)
    assert data.columns == ("a", "b")
    assert len(data) == len(X)
    model = ml.StandardScaler().fit(dataset)
    np.testing.assert_allclose(model.mean_, X[:, :2].mean(axis=0), rtol=1e-12)
    assert list(model.feature_names_in_) == ["a", "b"]
    assert model.transform(dataset).compute().shape == (len(X), 2)
