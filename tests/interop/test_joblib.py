"""The backend of joblib: results as under loky, and the contract that joblib has with backends."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import agentic_ray as ar
from agentic_ray.interop.calls import parcels


@pytest.fixture(autouse=True)
def backend(ray_session: ar.Session) -> Iterator[None]:
    ar.interop.register_joblib()
    with joblib.parallel_config("agentic_ray"):
        yield


def _squares(**options: object) -> joblib.Parallel:
    return joblib.Parallel(**options)(joblib.delayed(pow)(i, 2) for i in range(30))


@pytest.mark.parametrize("n_jobs", [-1, 1, 2, 7])
def test_calls_in_order(n_jobs: int) -> None:
    assert _squares(n_jobs=n_jobs) == [i * i for i in range(30)]
    assert joblib.Parallel(n_jobs=n_jobs)([]) == []


def test_calls_run_in_other_processes() -> None:
    pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20))
    assert os.getpid() not in pids


def test_n_jobs() -> None:
    slots = ar.get_session().slots
    assert joblib.effective_n_jobs(-1) == slots
    assert joblib.effective_n_jobs(3) == 3
    with pytest.raises(ValueError, match="n_jobs == 0"):
        _squares(n_jobs=0)


def test_generators() -> None:
    found = _squares(return_as="generator")
    assert next(found) == 0
    assert list(found) == [i * i for i in range(1, 30)]
    assert sorted(_squares(return_as="generator_unordered")) == [i * i for i in range(30)]


def test_pre_dispatch_bounds_what_is_taken_from_an_iterator(tmp_path: Path) -> None:
    taken: list[int] = []

    def calls() -> Iterator[object]:
        for i in range(40):
            taken.append(i)
            yield joblib.delayed(_wait_for)(tmp_path / "gate")

    found = joblib.Parallel(n_jobs=2, pre_dispatch=4, batch_size=1, return_as="generator")(calls())
    assert len(taken) <= 5
    (tmp_path / "gate").touch()
    assert list(found) == [None] * 40


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_an_exception_ends_the_call_and_the_next_one_works() -> None:
    def fails(i: int) -> int:
        if i == 3:
            raise KeyError("three")
        return i

    with joblib.Parallel(n_jobs=2) as parallel:
        with pytest.raises(KeyError, match="three"):
            parallel(joblib.delayed(fails)(i) for i in range(10))
        assert parallel(joblib.delayed(fails)(i) for i in range(3)) == [0, 1, 2]


def test_batches_that_a_failed_call_has_not_sent_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """joblib cuts two batches at a time: after the failure of a call the second may be left."""
    sizes: Iterator[int]

    def batch_size(_: object) -> int:
        if next(sizes) == 2:  # before the third and the fourth batch are cut
            while not parallel._aborting:
                time.sleep(0.01)
        return 1

    with joblib.Parallel(n_jobs=2, pre_dispatch="all") as parallel:
        monkeypatch.setattr(type(parallel._backend), "compute_batch_size", batch_size)
        for _ in range(2):
            sizes = itertools.count()
            with pytest.raises(KeyError):
                parallel(joblib.delayed({}.__getitem__)(i) for i in range(4))
            sizes = itertools.count(10)
            assert parallel(joblib.delayed(abs)(i) for i in range(3)) == [0, 1, 2]


def test_a_time_out(tmp_path: Path) -> None:
    try:
        with pytest.raises(multiprocessing.TimeoutError):  # joblib's
            joblib.Parallel(n_jobs=2, timeout=0.5)(
                joblib.delayed(_wait_for)(tmp_path / "gate") for _ in range(2)
            )
    finally:
        (tmp_path / "gate").touch()
    assert _squares() == [i * i for i in range(30)]


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        joblib.Parallel()(joblib.delayed(id)(threading.Lock()) for _ in range(2))
    with pytest.raises(TypeError, match="no option"), joblib.parallel_config("agentic_ray", x=1):
        _squares()
    with pytest.raises(TypeError, match="no option idle_worker_timeout"):
        joblib.Parallel(n_jobs=2, idle_worker_timeout=3)(joblib.delayed(abs)(i) for i in (1, 2))


def test_an_initializer_is_called_before_the_first_batch_of_each_process() -> None:
    def begin(value: int) -> None:
        os.environ["AGENTIC_RAY_TEST_BEGUN"] = str(value)

    def begun(_: int) -> str | None:
        return os.environ.get("AGENTIC_RAY_TEST_BEGUN")

    for value in (1, 2):
        parallel = joblib.Parallel(n_jobs=2, initializer=begin, initargs=(value,))
        assert set(parallel(joblib.delayed(begun)(i) for i in range(20))) == {str(value)}
    with joblib.parallel_config("agentic_ray", n_jobs=2, initializer=begin, initargs=(3,)):
        assert set(joblib.Parallel()(joblib.delayed(begun)(i) for i in range(20))) == {"3"}


def test_calls_inside_calls_run_in_threads_of_the_process() -> None:
    def inner() -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    def outer() -> tuple[int, str, list[tuple[int, int]]]:
        with joblib.Parallel(n_jobs=2) as parallel:
            name = type(parallel._backend).__name__
            return os.getpid(), name, parallel(joblib.delayed(inner)() for _ in range(4))

    for pid, name, pids in joblib.Parallel()(joblib.delayed(outer)() for _ in range(3)):
        assert name == "ThreadingBackend"
        assert {found for found, _ in pids} == {pid}


def test_a_large_array_is_put_in_the_object_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.arange(400_000.0)
    puts: list[int] = []
    put = parcels.put

    def counted(value: object) -> object:
        if isinstance(value, np.ndarray):
            puts.append(value.nbytes)
        return put(value)

    monkeypatch.setattr(parcels, "put", counted)

    def total(array: np.ndarray, pair: dict[str, np.ndarray]) -> tuple[float, bool]:
        return float(array.sum() + pair["also"].sum()), array.flags.writeable

    def run() -> list[tuple[float, bool]]:
        return joblib.Parallel()(joblib.delayed(total)(big, {"also": big}) for _ in range(8))

    with joblib.Parallel():
        assert run() == [(2 * big.sum(), False)] * 8
        assert puts == [big.nbytes]
        big[:] = 1  # another call sees the array as it is then
        assert run() == [(800_000.0, False)] * 8


def test_scikit_learn_finds_what_it_finds_under_loky() -> None:
    x, y = make_classification(100, 8, random_state=0)

    def fitted() -> tuple[object, ...]:
        search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=2, n_jobs=2)
        search.fit(x, y)
        scores = cross_val_score(LogisticRegression(), x, y, cv=2, n_jobs=2)
        forest = RandomForestClassifier(4, random_state=0, n_jobs=2).fit(x, y)
        return (
            search.best_params_,
            search.cv_results_["mean_test_score"].tolist(),
            scores.tolist(),
            forest.predict_proba(x).tolist(),
        )

    ours = fitted()
    with joblib.parallel_config("loky"):
        assert fitted() == ours
