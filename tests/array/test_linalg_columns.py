"""LU, QR and what is solved with them over blocks of columns, against LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.array.linalg import columns

EPS = float(np.finfo(np.float64).eps)
CONDITIONS = [1e2, 1e6, 1e10, 1e14]
CHUNKS = [(10, 10), (70, 13), (30, 70)]


@pytest.fixture(autouse=True)
def _narrow_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several panels, halved several times, of small matrices."""
    monkeypatch.setattr(columns, "LEAST_COLUMNS", 5)
    monkeypatch.setattr(columns, "LEAF_COLUMNS", 3)


def conditioned(m: int, n: int, condition: float, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(11)
    k = min(m, n)

    def orthonormal(rows: int) -> Any:
        a = rng.standard_normal((rows, k))
        if np.dtype(dtype).kind == "c":
            a = a + 1j * rng.standard_normal((rows, k))
        return np.linalg.qr(a)[0]

    return ((orthonormal(m) * np.geomspace(1, 1 / condition, k)) @ orthonormal(n).conj().T).astype(
        dtype
    )


def backward_error(a: Any, x: Any, b: Any) -> float:
    """Of how much of ``a`` the rounding errors of ``x`` are worth (Rigal and Gaches 1967)."""
    return float(np.linalg.norm(a @ x - b) / (np.linalg.norm(a) * np.linalg.norm(x)))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_solve_and_inv(condition: float, chunks: tuple[int, int], dtype: str) -> None:
    a = conditioned(70, 70, condition, dtype)
    b = np.random.default_rng(1).standard_normal((70, 9)).astype(dtype)
    x = xp.asarray(a, chunks=chunks)
    for right in (b, b[:, 0]):
        found = np.asarray(xp.linalg.solve(x, xp.asarray(right, chunks=4)))
        assert found.shape == right.shape
        wanted = np.linalg.solve(a, right)
        limit = 4 * backward_error(a, wanted, right) + 20 * EPS
        assert backward_error(a, found, right) < limit
    inverse = np.asarray(xp.linalg.inv(x))
    wanted = np.linalg.inv(a)
    assert backward_error(a, inverse, np.eye(70)) < (
        4 * backward_error(a, wanted, np.eye(70)) + 20 * EPS
    )


@pytest.mark.parametrize("chunks", CHUNKS)
def test_det_and_slogdet(chunks: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    for a in (rng.standard_normal((70, 70)), 1j * rng.standard_normal((70, 70))):
        x = xp.asarray(a, chunks=chunks)
        np.testing.assert_allclose(np.asarray(xp.linalg.det(x)), np.linalg.det(a), rtol=1e-11)
        sign, log = map(np.asarray, xp.linalg.slogdet(x))
        wanted = np.linalg.slogdet(a)
        np.testing.assert_allclose(sign, wanted.sign, rtol=1e-12)
        np.testing.assert_allclose(log, wanted.logabsdet, rtol=1e-12)


def test_exchanges_of_rows_and_singular_matrices() -> None:
    order = np.random.default_rng(3).permutation(40)
    a = np.eye(40)[order] * np.arange(1, 41)
    x = xp.asarray(a, chunks=7)
    np.testing.assert_array_equal(np.asarray(xp.linalg.inv(x)), np.linalg.inv(a))
    assert float(xp.linalg.slogdet(x).sign) == np.linalg.slogdet(a).sign
    a[:, 11] = 0
    x = xp.asarray(a, chunks=7)
    assert float(xp.linalg.det(x)) == 0
    assert float(xp.linalg.slogdet(x).logabsdet) == -np.inf
    for call in (lambda: xp.linalg.inv(x), lambda: xp.linalg.solve(x, xp.ones(40))):
        with pytest.raises(np.linalg.LinAlgError, match="Singular"):
            call().compute()


def test_elements_grow_no_more_than_with_lapack() -> None:
    """Wilkinson's matrix, whose last column doubles with every pivot."""
    a = np.eye(50) - np.tril(np.ones((50, 50)), -1)
    a[:, -1] = 1
    b = np.random.default_rng(0).standard_normal(50)
    found = np.asarray(xp.linalg.solve(xp.asarray(a, chunks=12), xp.asarray(b)))
    lapack = backward_error(a, np.linalg.solve(a, b), b)
    assert backward_error(a, found, b) < 10 * lapack + 20 * EPS


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", [(70, 70), (70, 40), (40, 70)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_qr(condition: float, shape: tuple[int, int], dtype: str) -> None:
    a = conditioned(*shape, condition, dtype)
    for mode in ("reduced", "complete"):
        for chunks in (11, (shape[0], 17)):
            q, r = map(np.asarray, xp.linalg.qr(xp.asarray(a, chunks=chunks), mode=mode))
            wanted = np.linalg.qr(a, mode=mode)
            assert (q.shape, r.shape) == (wanted.Q.shape, wanted.R.shape)
            assert np.linalg.norm(q.conj().T @ q - np.eye(q.shape[1])) < 200 * EPS
            assert np.linalg.norm(q @ r - a) < 100 * EPS
            np.testing.assert_array_equal(r, np.triu(r))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", [(120, 40), (40, 120), (60, 50)])
def test_svd_pinv_and_lstsq(condition: float, shape: tuple[int, int]) -> None:
    a = conditioned(*shape, condition)
    x = xp.asarray(a, chunks=(35, 9))
    u, s, vh = map(np.asarray, xp.linalg.svd(x, full_matrices=False))
    assert np.abs(s - np.linalg.svd(a, compute_uv=False)).max() < 100 * EPS
    assert np.linalg.norm((u * s) @ vh - a) < 200 * EPS
    assert np.linalg.norm(u.T @ u - np.eye(40 if 40 in shape else 50)) < 200 * EPS
    np.testing.assert_allclose(np.asarray(xp.linalg.svdvals(x)), s, atol=100 * EPS)
    rtol = 1e-8
    inverse = np.asarray(xp.linalg.pinv(x, rtol=rtol))
    wanted = np.linalg.pinv(a, rtol=rtol)
    scale = np.linalg.norm(wanted)
    # Perturbations are magnified by the square of the inverse (Wedin 1973).
    assert np.linalg.norm(inverse - wanted) < 500 * EPS * scale * scale
    b = np.random.default_rng(4).standard_normal(shape[0])
    solution = np.asarray(xp.linalg.lstsq(x, xp.asarray(b), rcond=rtol)[0])
    assert np.linalg.norm(solution - wanted @ b) < 1000 * EPS * scale * scale * np.linalg.norm(b)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_solve_triangular(lower: bool, unit: bool, dtype: str) -> None:
    rng = np.random.default_rng(5)
    full = (rng.standard_normal((50, 50)) / 25).astype(dtype)  # what is not read, too
    full[np.arange(50), np.arange(50)] += 1
    a = np.tril(full) if lower else np.triu(full)
    if unit:
        np.fill_diagonal(a, 1)
    b = rng.standard_normal((50, 6)).astype(dtype)
    options = {"lower": lower, "unit_diagonal": unit}
    for chunks in (50, 9, (50, 20)):
        x = xp.linalg.solve_triangular(xp.asarray(full, chunks=chunks), xp.asarray(b), **options)
        assert x.dtype == b.dtype
        assert backward_error(a, np.asarray(x), b) < 20 * np.finfo(dtype).eps
    stack = xp.linalg.solve_triangular(
        xp.asarray(np.stack([full, full])), xp.asarray(b[:, 0:1]), **options
    )
    np.testing.assert_allclose(np.asarray(stack)[1], np.asarray(x)[:, :1], rtol=1e-4)
    vector = xp.linalg.solve_triangular(xp.asarray(full, chunks=9), xp.asarray(b[:, 0]), **options)
    np.testing.assert_allclose(np.asarray(vector), np.asarray(x)[:, 0], rtol=1e-4)


def test_bad_triangular_systems() -> None:
    with pytest.raises(ValueError, match="4 unknowns"):
        xp.linalg.solve_triangular(xp.eye(4), xp.ones(5))
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        xp.linalg.solve_triangular(xp.ones((4, 3)), xp.ones(4))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        xp.linalg.solve_triangular(xp.zeros((20, 20), chunks=6), xp.ones(20)).compute()


def test_integers_and_nan_take_their_course() -> None:
    a = np.random.default_rng(6).integers(-5, 5, (30, 30))
    found = np.asarray(xp.linalg.solve(xp.asarray(a, chunks=8), xp.ones(30)))
    np.testing.assert_allclose(found, np.linalg.solve(a, np.ones(30)), rtol=1e-9)
    b = a.astype(np.float64)
    b[3, 4] = np.nan
    assert np.isnan(float(xp.linalg.det(xp.asarray(b, chunks=8))))


def test_solving_in_several_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    a = conditioned(60, 60, 1e3)
    b = np.random.default_rng(7).standard_normal((60, 3))

    def results() -> list[Any]:
        x = xp.asarray(a, chunks=10)
        return [np.asarray(xp.linalg.solve(x, xp.asarray(b))), np.asarray(xp.linalg.qr(x).Q)]

    one = results()
    monkeypatch.setattr(columns, "SWEEP_BYTES", 1)
    for found, wanted in zip(results(), one, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_no_task_gathers_the_matrix() -> None:
    x = xp.asarray(np.eye(400), chunks=(50, 400))
    tasks, _ = evaluate.plan([xp.linalg.inv(x)._node])
    updates = [task for task in tasks if ".update" in task.codelet.name]
    assert len(updates) > 20
    assert max(task.resources.memory_bytes for task in updates) < 400 * 400 * 8


def test_through_the_cluster(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    monkeypatch.setattr(columns, "LEAST_COLUMNS", 100)
    a = np.random.default_rng(0).standard_normal((600, 600))
    x = xp.asarray(a, chunks=150)
    found = np.asarray(xp.linalg.inv(x))
    np.testing.assert_allclose(found, np.linalg.inv(a), rtol=1e-8, atol=1e-10)
    q, r = xp.linalg.qr(x)
    np.testing.assert_allclose(np.asarray(q @ r), a, atol=1e-12)
