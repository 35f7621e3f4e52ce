"""Bisecting k-means: scikit-learn's tree from the same starts, however rows are cut."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.cluster

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml import passes

RNG = np.random.default_rng(3)
X = np.concatenate([RNG.normal(centre, 1, (60, 4)) for centre in RNG.normal(0, 8, (9, 4))]) + 100
RNG.shuffle(X)
W = RNG.random(len(X)) + 0.1
CUTS: dict[str, Any] = {
    "in memory": X,
    "an array": xp.asarray(X, chunks=(90, 2)),
    "chunks of one row and more": xp.asarray(X, chunks=((1, 2, 3, 200, len(X) - 206), 4)),
    "sparse rows": ml.rows(sp.csr_matrix(X), chunk_rows=77),
}


def ends(rows: Any, count: int, random_state: Any) -> Any:
    """The first and the last row."""
    found = rows[[0, -1]]
    return found.toarray() if sp.issparse(found) else found


@pytest.mark.parametrize("weight", [None, W], ids=["", "weights"])
@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
@pytest.mark.parametrize("data", CUTS.values(), ids=CUTS)
def test_clusters_are_theirs_from_the_same_starts(data: Any, strategy: str, weight: Any) -> None:
    model = ml.BisectingKMeans(9, init=ends, bisecting_strategy=strategy)
    wanted = model.to_sklearn().fit(X, sample_weight=weight)
    model.fit(data, sample_weight=weight)
    np.testing.assert_array_equal(np.asarray(model.labels_), wanted.labels_)
    np.testing.assert_allclose(model.cluster_centers_, wanted.cluster_centers_, rtol=1e-12)
    assert model.inertia_ == pytest.approx(wanted.inertia_, rel=1e-9)
    for fitted in (model, model.to_sklearn(), pickle.loads(pickle.dumps(model.to_sklearn()))):
        np.testing.assert_array_equal(fitted.predict(X), wanted.labels_)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_own_starts_are_as_good_as_theirs(init: str) -> None:
    ours, theirs = (
        [kind(9, init=init, n_init=3, random_state=seed).fit(data).inertia_ for seed in range(8)]
        for kind, data in (
            (ml.BisectingKMeans, CUTS["an array"]),
            (sklearn.cluster.BisectingKMeans, X),
        )
    )
    assert np.mean(ours) < 1.1 * np.mean(theirs)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_the_cluster_gives_the_same_bits(
    init: str, ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ml.BisectingKMeans(7, init=init, random_state=0)
    here = model.fit(CUTS["an array"]).cluster_centers_
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    there = model.fit(CUTS["an array"])
    np.testing.assert_array_equal(there.cluster_centers_, here)
    labels = there.labels_
    assert isinstance(labels, xp.Array)
    np.testing.assert_array_equal(labels.compute(), there.to_sklearn().labels_)
    model = ml.BisectingKMeans(3, init=ends)
    with pytest.raises(InvalidArgumentError, match="which is in chunks here"):
        model.fit(CUTS["an array"])


def test_a_leaf_is_cut_the_same_whatever_is_cut_beside_it() -> None:
    """A tree of more clusters has all cuts of one with fewer."""
    few, more = (
        np.asarray(ml.BisectingKMeans(n, random_state=5).fit(CUTS["an array"]).labels_)
        for n in (4, 12)
    )
    for label in range(12):
        assert len(set(few[more == label])) == 1


def test_passes_are_as_many_as_the_tree_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves are cut side by side."""
    names: list[str] = []
    original = passes.Passes._run

    def counted(self: Any, kernel: Any, *rest: Any) -> Any:
        names.append(kernel.__name__)
        return original(self, kernel, *rest)

    monkeypatch.setattr(passes.Passes, "_run", counted)
    line = np.arange(256.0)[:, None]
    ml.BisectingKMeans(64, random_state=0).fit(line)
    assert 6 <= names.count("draw") <= 12
    assert len(names) < 63 * 3


def test_rows_that_are_equal_and_few() -> None:
    model = ml.BisectingKMeans(4, random_state=0)
    equal = np.array([[0.0], [0.0], [0.0], [5.0]])
    for data in (equal, xp.asarray(equal, chunks=(1, 1))):
        labels = np.asarray(model.fit(data).labels_)
        assert labels[0] == labels[1] == labels[2] != labels[3]
        assert model.inertia_ == 0
        assert len(model.cluster_centers_) == 4
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_clusters=4"):
        model.fit(equal[:3])
    weighted = ml.BisectingKMeans(1).fit(X, sample_weight=W)
    wanted = weighted.to_sklearn().fit(X, sample_weight=W)
    assert weighted.inertia_ == pytest.approx(wanted.inertia_, rel=1e-12)


def test_what_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="algorithm='elkan' is not taken"):
        ml.BisectingKMeans(2, algorithm="elkan").fit(X)
    with pytest.raises(ValueError, match="shape of the initial centers"):
        ml.BisectingKMeans(2, init=lambda rows, count, random_state: rows[:1]).fit(X)
