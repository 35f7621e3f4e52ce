"""Eigenvalues and singular values of matrices of several chunks, by blocks, against LAPACK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import chunks, evaluate, prepared
from agentic_ray.array.linalg import columns, spectral
from agentic_ray.array.linalg.polar import polar_unitary, weights
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Task, replace_refs

DTYPES = ["float32", "float64", "complex64", "complex128"]
CONDITIONS = [1e2, 1e6, 1e10, 1e14]


@pytest.fixture(autouse=True)
def _by_blocks() -> Iterator[None]:
    with xp.config(whole_matrix_bytes=0):
        yield


def orthonormal(rng: np.random.Generator, n: int, dtype: Any) -> Any:
    a = rng.standard_normal((n, n))
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.standard_normal((n, n))
    return np.linalg.qr(a)[0]


def hermitian(values: Any, dtype: str = "float64") -> Any:
    v = orthonormal(np.random.default_rng(1), len(values), dtype)
    a = (v * values) @ v.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


def general(values: Any, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(2)
    n = len(values)
    return ((orthonormal(rng, n, dtype) * values) @ orthonormal(rng, n, dtype)).astype(dtype)


def unit_of(a: Any) -> float:
    """The bound that residuals are measured in: n eps ||A||."""
    return float(max(a.shape) * np.finfo(a.dtype).eps * (np.linalg.norm(a, 2) or 1.0))


def deviation(v: Any) -> float:
    """How far columns are from orthonormal, in n eps."""
    off = np.linalg.norm(v.conj().T @ v - np.eye(v.shape[1]))
    return float(off / (max(v.shape) * np.finfo(v.dtype).eps))


def check_eigh(a: Any, cut: Any) -> None:
    w, v = map(np.asarray, xp.linalg.eigh(xp.asarray(a, chunks=cut)))
    wanted = np.linalg.eigvalsh(a)
    assert (w.dtype, v.dtype) == (wanted.dtype, a.dtype)
    assert (np.diff(w) >= 0).all()
    unit = unit_of(a)
    assert np.linalg.norm(a @ v - v * w) < 2 * unit
    assert deviation(v) < 2
    assert np.abs(w - wanted).max() < unit
    values = np.asarray(xp.linalg.eigvalsh(xp.asarray(a, chunks=cut)))
    assert values.dtype == wanted.dtype
    assert np.abs(values - wanted).max() < unit


def check_svd(a: Any, cut: Any, full: bool = False) -> None:
    u, s, vh = map(np.asarray, xp.linalg.svd(xp.asarray(a, chunks=cut), full_matrices=full))
    wanted = np.linalg.svd(a, full_matrices=full)
    assert [x.dtype for x in (u, s, vh)] == [x.dtype for x in wanted]
    assert [x.shape for x in (u, s, vh)] == [x.shape for x in wanted]
    assert (s >= 0).all()
    assert (np.diff(s) <= 0).all()
    unit, k = unit_of(a), len(s)
    assert np.linalg.norm((u[:, :k] * s) @ vh[:k] - a) < 2 * unit
    assert max(deviation(u), deviation(vh.conj().T)) < 2
    assert np.abs(s - wanted.S).max() < unit
    values = np.asarray(xp.linalg.svdvals(xp.asarray(a, chunks=cut)))
    assert np.abs(values - wanted.S).max() < unit


SPECTRA = {
    "random": np.random.default_rng(0).standard_normal(80),
    "three values": np.repeat([1.0, 2.0, 3.0], [30, 30, 20]),
    "two signs": np.where(np.arange(80) % 3, 1.0, -1.0),
    "one and two outliers": np.r_[np.ones(78), 3, -1],
    "rank two": np.r_[np.zeros(78), 1, -1],
    "one cluster": 1 + 1e-13 * np.random.default_rng(0).standard_normal(80),
    "two clusters": np.repeat([1.0, -1], 40) + 1e-9 * np.arange(80),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_eigh(name: str, dtype: str) -> None:
    check_eigh(hermitian(SPECTRA[name], dtype), 25)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("alternating", [False, True])
def test_eigh_whatever_the_condition(condition: float, alternating: bool) -> None:
    sign = np.where(np.arange(70) % 2, -1, 1) if alternating else 1
    values = np.geomspace(1, 1 / condition, 70) * sign
    check_eigh(hermitian(values), 24)
    check_eigh(hermitian(values, "complex128"), 40)


def test_matrices_that_are_diagonal() -> None:
    for values in (np.zeros(60), np.ones(60), np.arange(61.0), np.repeat([2.0, 1.0, 5.0], 20)):
        check_eigh(np.diag(values), 16)
    w, v = xp.linalg.eigh(xp.eye(60, chunks=25) * 3)
    np.testing.assert_array_equal(np.asarray(w), np.full(60, 3.0))
    np.testing.assert_array_equal(np.asarray(v), np.eye(60))


def test_shifts_that_divide_nothing_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One above all eigenvalues, and one that is an eigenvalue to the last bit."""
    a = np.diag(np.repeat([2.0, 1.0, 5.0], 20))
    a[:2, :2] = [[2, 1], [1, 2]]
    kept = spectral._shifts
    bad = [1e3, -1e3, 2.0, 1.0]
    monkeypatch.setattr(spectral, "_shifts", lambda *args: iter([*bad, *kept(*args)]))
    check_eigh(a, 25)
    monkeypatch.setattr(spectral, "_shifts", lambda *args: iter(bad[:2]))
    with pytest.raises(np.linalg.LinAlgError, match="Eigenvalues did not converge"):
        xp.linalg.eigh(xp.asarray(a, chunks=25))


@pytest.mark.parametrize("cut", [(16, 16), (60, 11), (20, 60), ((50, 10), (7, 53)), 59])
def test_whatever_the_chunks(cut: Any) -> None:
    a = np.random.default_rng(4).standard_normal((60, 60))
    check_eigh(a + a.T, cut)
    check_svd(a, cut)


def test_only_the_lower_triangle_is_read() -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((60, 60)) + 1j * rng.standard_normal((60, 60))
    a[np.triu_indices(60, 1)] = np.nan
    found = np.asarray(xp.linalg.eigvalsh(xp.asarray(a, chunks=20)))
    np.testing.assert_allclose(found, np.linalg.eigvalsh(a), atol=1e-12)


@pytest.mark.parametrize("scale", [1e300, 1e-290])
def test_neither_overflow_nor_underflow(scale: float) -> None:
    a = hermitian(SPECTRA["random"])
    for call in (xp.linalg.eigvalsh, xp.linalg.svdvals):
        found = np.asarray(call(xp.asarray(a * scale, chunks=30))) / scale
        np.testing.assert_allclose(found, getattr(np.linalg, call.__name__)(a), atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_infinities_and_nan_are_errors_as_in_numpy(bad: float) -> None:
    a = np.eye(50)
    a[40, 3] = bad
    x = xp.asarray(a, chunks=20)
    for call in (xp.linalg.eigh, xp.linalg.eigvalsh):
        with pytest.raises(np.linalg.LinAlgError, match="Eigenvalues did not converge"):
            call(x)
    for call in (xp.linalg.svd, xp.linalg.svdvals):
        with pytest.raises(np.linalg.LinAlgError, match="SVD did not converge"):
            call(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_svd(dtype: str) -> None:
    check_svd(general(np.abs(SPECTRA["random"]), dtype), 25)
    check_svd(general(np.r_[np.linspace(1, 2, 30), np.zeros(30)], dtype), 25)


@pytest.mark.parametrize("condition", [*CONDITIONS, 1e18])
def test_svd_whatever_the_condition(condition: float) -> None:
    check_svd(general(np.geomspace(1, 1 / condition, 70)), 24)


def test_svd_without_full_rank() -> None:
    for a in (
        np.zeros((60, 60)),
        np.eye(60),
        np.ones((60, 60)),
        np.diag(np.r_[np.arange(30.0), np.zeros(30)]),
        np.triu(np.ones((60, 60)), 1),
    ):
        check_svd(a, 25)


@pytest.mark.parametrize("shape", [(75, 60), (60, 75), (130, 50), (50, 130)])
@pytest.mark.parametrize("full", [False, True])
def test_svd_of_matrices_that_are_not_square(shape: tuple[int, int], full: bool) -> None:
    check_svd(np.random.default_rng(6).standard_normal(shape), (21, 17), full)


def test_what_is_built_on_it() -> None:
    a = general(np.r_[np.linspace(1, 2, 40), np.zeros(20)])
    b = np.random.default_rng(7).standard_normal(60)
    x = xp.asarray(a, chunks=22)
    assert int(xp.linalg.matrix_rank(x)) == 40
    np.testing.assert_allclose(float(xp.linalg.matrix_norm(x, ord=2)), 2, rtol=1e-13)
    inverse = np.linalg.pinv(a, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(xp.linalg.pinv(x, rtol=1e-12)), inverse, atol=1e-13)
    solution, _, rank, _ = xp.linalg.lstsq(x, xp.asarray(b), rcond=1e-12)
    assert rank == 40
    np.testing.assert_allclose(np.asarray(solution), inverse @ b, atol=1e-12)


def test_the_polar_factor() -> None:
    a = general(np.geomspace(1, 1e-8, 60), "complex128")
    u = np.asarray(polar_unitary(xp.asarray(a, chunks=16), 16))
    left, _, right = np.linalg.svd(a)
    assert deviation(u) < 2
    # Perturbations are magnified by the inverse of the smallest singular value.
    np.testing.assert_allclose(u, left @ right, atol=1e-6)
    factor = u.conj().T @ a
    assert np.linalg.norm(factor - factor.conj().T) < 2 * unit_of(a)


@pytest.mark.parametrize(("precision", "steps"), [(2.0**-52, 6), (2.0**-23, 4)])
def test_few_steps_take_every_singular_value_to_one(precision: float, steps: int) -> None:
    lowest = precision / 100
    x = np.geomspace(lowest, 1, 1000)
    used = list(weights(lowest, precision))
    for a, b, c in used:
        x = x * (a + b * x * x) / (1 + c * x * x)
    assert len(used) == steps
    assert np.abs(x - 1).max() < 20 * precision


def test_equal_calls_have_equal_bits() -> None:
    a = np.random.default_rng(8).standard_normal((70, 70))
    first, second = (
        [*xp.linalg.eigh(xp.asarray(a, chunks=30)), *xp.linalg.svd(xp.asarray(a, chunks=30))]
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_the_limit() -> None:
    a = np.random.default_rng(9).standard_normal((60, 60))
    x = xp.asarray(a, chunks=20)
    with xp.config(whole_matrix_bytes=60 * 60 * 8):
        w, v = xp.linalg.eigh(x)
        np.testing.assert_array_equal(np.asarray(w), np.linalg.eigh(a).eigenvalues)
        np.testing.assert_array_equal(np.asarray(v), np.linalg.eigh(a).eigenvectors)
        assert chunks.rules().whole_matrix_bytes == 28800
    with pytest.raises(InvalidArgumentError), xp.config(whole_matrix_bytes=-1):
        pass


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (35, 35)])
def test_diagonals_piece_by_piece(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(12).standard_normal(shape)
    x = xp.asarray(a, chunks=(9, 13))
    for offset in (0, 1, 12, 29, 30, 60, -1, -9, -29, -60):
        found = np.asarray(xp.linalg.diagonal(x, offset=offset))
        np.testing.assert_array_equal(found, np.diagonal(a, offset=offset))


def test_no_task_is_given_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 200
    largest = [0]

    def elements(value: Any) -> int:
        if isinstance(value, np.ndarray):
            return value.size
        return sum(map(elements, value)) if isinstance(value, tuple | list) else 0

    def watched(tasks: list[Task], outputs: list[str], **_: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for task in tasks:
            args = replace_refs(task.args, made.__getitem__)
            function: Any = task.codelet.cpu
            made[task.key] = function(*args, **task.kwargs, xp=np)
            largest[0] = max(largest[0], elements(args), elements(made[task.key]))
        return made

    # Sweeps of so many bytes are given to a task, which here would be all there is.
    monkeypatch.setattr(columns, "SWEEP_BYTES", 1)
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", 1 << 40)
    monkeypatch.setattr(evaluate, "run_here", watched)
    monkeypatch.setattr(prepared, "MOST_TASKS_EACH", -1)
    a = np.random.default_rng(10).standard_normal((n, n))
    x = xp.asarray(a, chunks=25)
    for result in (*xp.linalg.eigh(x), *xp.linalg.svd(x), xp.trace(x)):
        result.persist()
    assert 0 < largest[0] < 0.6 * n * n


def test_through_the_cluster(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.random.default_rng(11).standard_normal((90, 90))
    x = xp.asarray(a, chunks=50)
    here = [np.asarray(part) for part in (*xp.linalg.eigh(x), *xp.linalg.svd(x))]
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    there = [np.asarray(part) for part in (*xp.linalg.eigh(x), *xp.linalg.svd(x))]
    for one, other in zip(here, there, strict=True):
        assert one.tobytes() == other.tobytes()
