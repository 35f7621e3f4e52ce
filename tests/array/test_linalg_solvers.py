"""Cholesky by tiles, least squares and the randomised SVD against LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp

EPS = float(np.finfo(np.float64).eps)


def spectrum(m: int, n: int, values: Any) -> Any:
    rng = np.random.default_rng(3)
    k = len(values)
    left = np.linalg.qr(rng.standard_normal((m, k)))[0]
    right = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return (left * values) @ right.T


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10, 1e14])
@pytest.mark.parametrize("chunks", [(10, 10), (30, 7), (60, 13)])
def test_cholesky(condition: float, chunks: tuple[int, int]) -> None:
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 60)))[0]
    a = (q * np.geomspace(1, 1 / condition, 60)) @ q.T
    a = (a + a.T) / 2
    x = xp.asarray(a, chunks=chunks)
    lower = np.asarray(xp.linalg.cholesky(x))
    assert np.array_equal(lower, np.tril(lower))
    assert np.linalg.norm(lower @ lower.T - a) < 100 * EPS
    upper = np.asarray(xp.linalg.cholesky(x, upper=True))
    np.testing.assert_array_equal(upper, lower.T)


def test_cholesky_of_complex_and_of_indefinite_matrices() -> None:
    rng = np.random.default_rng(0)
    b = rng.standard_normal((30, 30)) + 1j * rng.standard_normal((30, 30))
    a = b @ b.conj().T + np.eye(30)
    lower = np.asarray(xp.linalg.cholesky(xp.asarray(a, chunks=8)))
    np.testing.assert_allclose(lower, np.linalg.cholesky(a), atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        xp.linalg.cholesky(xp.asarray(-np.eye(20), chunks=5)).compute()


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("columns", [None, 3])
def test_lstsq(condition: float, columns: int | None) -> None:
    rng = np.random.default_rng(1)
    a = spectrum(500, 6, np.geomspace(1, 1 / condition, 6))
    b = rng.standard_normal(500 if columns is None else (500, columns))
    found = xp.linalg.lstsq(xp.asarray(a, chunks=(90, 6)), xp.asarray(b))
    wanted = np.linalg.lstsq(a, b)
    scale = np.linalg.norm(wanted[0])
    assert np.linalg.norm(np.asarray(found[0]) - wanted[0]) <= 100 * EPS * condition**2 * scale
    # Rounding turns the space that the columns span by about the condition times EPS.
    residuals = np.atleast_1d(wanted[1])
    np.testing.assert_allclose(np.asarray(found[1]), residuals, rtol=100 * EPS * condition)
    assert found[2] == wanted[2] == 6
    np.testing.assert_allclose(np.asarray(found[3]), wanted[3], atol=200 * EPS)


def test_lstsq_without_full_rank() -> None:
    a = spectrum(300, 5, [1.0, 0.5, 0.1])
    b = np.random.default_rng(1).standard_normal(300)
    x, residuals, rank, _ = xp.linalg.lstsq(xp.asarray(a, chunks=(70, 5)), xp.asarray(b))
    assert rank == 3
    assert residuals.shape == (0,)
    np.testing.assert_allclose(np.asarray(x), np.linalg.lstsq(a, b)[0], atol=1e-11)
    with pytest.raises(np.linalg.LinAlgError, match="300 rows but right-hand sides of 4"):
        xp.linalg.lstsq(xp.asarray(a), xp.zeros((4,)))


@pytest.mark.parametrize("chunks", [(50, 80), (300, 20), (300, 80)])
def test_svd_compressed(chunks: tuple[int, int]) -> None:
    values = 2.0 ** -np.arange(30)
    a = spectrum(300, 80, values)
    u, s, vh = xp.linalg.svd_compressed(xp.asarray(a, chunks=chunks), 5)
    assert (u.shape, s.shape, vh.shape) == ((300, 5), (5,), (5, 80))
    np.testing.assert_allclose(np.asarray(s), values[:5], rtol=1e-8)
    rest = a - (np.asarray(u) * np.asarray(s)) @ np.asarray(vh)
    assert np.linalg.norm(rest, 2) < 1.01 * values[5]
    with pytest.raises(ValueError, match="k=81"):
        xp.linalg.svd_compressed(xp.asarray(a), 81)


def test_through_the_cluster(ray_session: ar.Session) -> None:
    b = np.random.default_rng(0).standard_normal((2100, 2100))
    a = b @ b.T / 2100 + np.eye(2100)
    lower = np.asarray(xp.linalg.cholesky(xp.asarray(a, chunks=600)))
    np.testing.assert_allclose(lower, np.linalg.cholesky(a), atol=1e-11)
