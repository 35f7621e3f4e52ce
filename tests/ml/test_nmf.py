"""Non-negative factorisation: scikit-learn's from the same start, and never a whole W."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.decomposition
from sklearn.exceptions import ConvergenceWarning

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import ml
from agentic_ray.array.core import evaluate
from agentic_ray.errors import LostDataError
from agentic_ray.ml import passes

RNG = np.random.default_rng(0)
N, P, K = 300, 12, 4
X = RNG.random((N, K)) @ RNG.random((K, P)) + 0.1 * RNG.random((N, P))
SPARSE = sp.random(N, P, 0.4, random_state=0, format="csr") + sp.csr_matrix(np.eye(N, P))
ROWS, COMPONENTS = RNG.random((N, K)) + 0.1, RNG.random((K, P)) + 0.1

OPTIONS: list[dict[str, Any]] = [
    {},
    {"shuffle": True, "random_state": 3},
    {"alpha_W": 0.01, "l1_ratio": 0.3},
    {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.3, "tol": 0},
    {"solver": "mu"},
    {"solver": "mu", "beta_loss": "kullback-leibler", "alpha_W": 0.001},
    {"solver": "mu", "beta_loss": "itakura-saito"},
    {"solver": "mu", "beta_loss": 0.5, "alpha_W": 0.001, "l1_ratio": 0.5},
    {"solver": "mu", "beta_loss": 1.5},
    {"solver": "mu", "beta_loss": 3, "tol": 0},
]


@pytest.fixture(autouse=True)
def no_warning_of_convergence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def chunked(data: Any) -> Any:
    return ml.rows(data, chunk_rows=90) if sp.issparse(data) else xp.asarray(data, chunks=(90, 5))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("data", [X, SPARSE], ids=["dense", "sparse"])
def test_factors_are_theirs_from_the_same_start(data: Any, options: dict[str, Any]) -> None:
    if data is SPARSE and options.get("beta_loss") == "itakura-saito":
        pytest.skip("it takes no zeros")
    model = ml.NMF(K, init="custom", max_iter=60, **options)
    theirs = model.to_sklearn()
    wanted = theirs.fit_transform(data, W=ROWS.copy(), H=COMPONENTS.copy())
    found = model.fit_transform(chunked(data), W=chunked(ROWS), H=COMPONENTS)
    assert model.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(model.components_, theirs.components_, rtol=1e-8, atol=1e-10)
    assert isinstance(found, ml.Rows if sp.issparse(data) else xp.Array)
    np.testing.assert_allclose(np.asarray(found.compute()), wanted, rtol=1e-8, atol=1e-10)
    assert model.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=1e-8)


@pytest.mark.parametrize("solver", ["cd", "mu"])
@pytest.mark.parametrize("init", [None, "nndsvda", "nndsvd", "nndsvdar", "random"])
def test_starts(init: Any, solver: str) -> None:
    """By singular vectors the start is theirs; others have other random numbers."""
    model = ml.NMF(K, init=init, solver=solver, max_iter=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        wanted = model.to_sklearn().fit(X)
        model.fit(chunked(X))
    if init in (None, "nndsvda", "nndsvd"):
        assert abs(model.n_iter_ - wanted.n_iter_) <= 10
        assert model.reconstruction_err_ == pytest.approx(wanted.reconstruction_err_, rel=1e-4)
    else:
        assert model.reconstruction_err_ < 0.1 * np.linalg.norm(X)
    assert ml.NMF(init=init, max_iter=3, solver=solver).fit(chunked(X)).components_.shape == (P, P)


def test_more_components_than_rank_and_columns() -> None:
    low = np.outer(np.arange(20.0), np.arange(1.0, 6.0))
    model = ml.NMF(4, max_iter=50).fit(chunked(low))
    assert np.isfinite(model.components_).all()
    assert model.reconstruction_err_ < 0.1
    assert ml.NMF(7, max_iter=5, random_state=0).fit(chunked(low)).components_.shape == (7, 5)
    with pytest.raises(ValueError, match="can only be used when n_components <= min"):
        ml.NMF(7, init="nndsvd").fit(chunked(low))


@pytest.mark.parametrize("options", [{}, {"solver": "mu", "beta_loss": 1}], ids=str)
def test_the_cluster_gives_the_same_bits(
    options: dict[str, Any], ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (X, SPARSE):
        model = ml.NMF(K, max_iter=12, random_state=0, **options)
        here = model.fit_transform(chunked(data)).compute()
        components = model.components_
        with monkeypatch.context() as patch:
            patch.setattr(evaluate, "LOCAL_BYTES", 0)
            there = model.fit_transform(chunked(data))
            np.testing.assert_array_equal(model.components_, components)
            np.testing.assert_array_equal(there.compute(), here)
            made = model.transform(chunked(data)).compute()
        pieces = [
            model.to_sklearn().transform(data[at : at + 90]) for at in range(0, data.shape[0], 90)
        ]
        np.testing.assert_array_equal(made, np.concatenate(pieces))


def test_the_caller_never_has_all_rows_of_w(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentic_ray.runtime import Stored

    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 0)
    tall = xp.random.default_rng(0).random((60_000, 6), chunks=(20_000, 6))
    seen: list[Any] = []
    original = passes.Passes.keep

    def kept(self: Any, *given: Any, **options: Any) -> Any:
        held, sums = original(self, *given, **options)
        seen.extend(held)
        return held, sums

    monkeypatch.setattr(passes.Passes, "keep", kept)
    ml.NMF(3, max_iter=3).fit(tall)
    assert len(seen) == 3 * (1 + 3 + 1)  # chunks: the start, iterations, the error
    assert all(isinstance(one, Stored) for one in seen)


@pytest.mark.parametrize("options", [{}, {"solver": "mu", "tol": 1e-9}], ids=str)
def test_a_fit_goes_on_at_its_checkpoint(options: dict[str, Any], tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(step: ml.Iteration) -> None:
        if step.number == 12:
            raise Interrupted

    model = ml.NMF(K, init="custom", max_iter=25, **options)
    starts = {"W": chunked(ROWS), "H": COMPONENTS}
    folder = tmp_path / "fit"
    with pytest.raises(Interrupted), ml.watching(interrupt):
        model.fit(chunked(X), **starts, checkpoint=folder)
    done = len(list(folder.glob("*.npz")))
    assert done >= 12
    rows = model.fit_transform(chunked(X), **starts, checkpoint=folder)
    fresh = ml.NMF(K, init="custom", max_iter=25, **options)
    wanted = fresh.fit_transform(chunked(X), **starts)
    np.testing.assert_array_equal(model.components_, fresh.components_)
    np.testing.assert_array_equal(rows.compute(), wanted.compute())
    # From another W the sums that are kept are not used.
    other = model.fit(chunked(X), W=chunked(ROWS[::-1]), H=COMPONENTS, checkpoint=folder)
    assert not np.array_equal(other.components_, fresh.components_)


def test_rows_that_are_lost_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ml.NMF(K, max_iter=20).fit(chunked(X)).components_
    original = passes.Passes.keep
    count = 0

    def losing(self: Any, kernel: Any, *given: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count in (7, 13):
            raise LostDataError("gone")
        return original(self, kernel, *given, **options)

    monkeypatch.setattr(passes.Passes, "keep", losing)
    np.testing.assert_array_equal(ml.NMF(K, max_iter=20).fit(chunked(X)).components_, wanted)
    assert count > 20 + 2 * 2


def test_losses_fall() -> None:
    for options in ({}, {"solver": "mu"}, {"solver": "mu", "beta_loss": 1}):
        losses: list[float] = []
        with ml.watching(lambda step: losses.append(step.loss)):  # noqa: B023
            model = ml.NMF(K, max_iter=40, **options).fit(chunked(X))
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] >= model.reconstruction_err_**2 / 2 * (1 - 1e-9)


def test_kinds_and_copies() -> None:
    single = X.astype(np.float32)
    model = ml.NMF(K, max_iter=10, random_state=0).fit(chunked(single))
    assert model.components_.dtype == np.float32
    found = model.transform(chunked(single))
    assert found.dtype == np.float32
    twin = pickle.loads(pickle.dumps(model.to_sklearn()))
    assert type(twin) is sklearn.decomposition.NMF
    back = ml.NMF.from_sklearn(twin)
    np.testing.assert_array_equal(back.transform(single[:90]), found.compute()[:90])
    frame = ml.NMF(2, max_iter=5).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["nmf0", "nmf1"]


def test_what_is_refused() -> None:
    bad = X.copy()
    bad[250, 3] = -1
    with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
        ml.NMF(2).fit(chunked(bad))
    with pytest.raises(ValueError, match="the solver may diverge"):
        ml.NMF(2, solver="mu", beta_loss=0).fit(chunked(SPARSE))
    custom = ml.NMF(K, init="custom")
    with pytest.raises(ValueError, match="wrong second dimension passed to NMF"):
        custom.fit(chunked(X), W=ROWS[:, :2], H=COMPONENTS)
    with pytest.raises(ValueError, match="wrong first dimension passed to NMF"):
        custom.fit(chunked(X), W=ROWS, H=COMPONENTS[:2])
    with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
        custom.fit(chunked(X), W=-ROWS, H=COMPONENTS)
    with pytest.raises(TypeError, match="should have the same dtype as X"):
        custom.fit(chunked(X), W=ROWS.astype(np.float32), H=COMPONENTS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        custom.fit(chunked(X), W=ROWS[:-1], H=COMPONENTS)
    with pytest.warns(RuntimeWarning, match="provided W or H are ignored"):
        ml.NMF(K, max_iter=2).fit(chunked(X), W=ROWS, H=COMPONENTS)
