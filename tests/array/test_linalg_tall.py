"""Factors of tall matrices against LAPACK's, from well conditioned to nearly singular."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate

EPS = float(np.finfo(np.float64).eps)


def conditioned(m: int, n: int, condition: float, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(5)
    complex_ = np.dtype(dtype).kind == "c"
    left, right = (
        np.linalg.qr(rng.standard_normal(s) + (1j * rng.standard_normal(s) if complex_ else 0))[0]
        for s in ((m, n), (n, n))
    )
    return ((left * np.geomspace(1, 1 / condition, n)) @ right).astype(dtype)


@pytest.mark.parametrize("condition", [1e0, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12, 1e14])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_qr_and_svd_whatever_the_condition(condition: float, dtype: str) -> None:
    a = conditioned(900, 12, condition, dtype)
    x = xp.asarray(a, chunks=(200, 12))
    unit = np.eye(12)
    q, r = map(np.asarray, xp.linalg.qr(x))
    assert np.linalg.norm(q.conj().T @ q - unit) < 40 * EPS
    assert np.linalg.norm(q @ r - a) < 40 * EPS
    assert np.array_equal(r, np.triu(r))
    u, s, vh = map(np.asarray, xp.linalg.svd(x, full_matrices=False))
    wanted = np.linalg.svd(a, compute_uv=False)
    assert np.abs(s - wanted).max() < 200 * EPS
    assert np.linalg.norm(vh @ vh.conj().T - unit) < 40 * EPS
    assert np.linalg.norm(u.conj().T @ u - unit) < 2000 * EPS
    assert np.linalg.norm((u * s) @ vh - a) < 200 * EPS
    np.testing.assert_array_equal(np.asarray(xp.linalg.svdvals(x)), s)


def test_wide_matrices() -> None:
    a = conditioned(700, 9, 50.0, "complex128").T
    u, s, vh = xp.linalg.svd(xp.asarray(a, chunks=(4, 100)), full_matrices=False)
    assert u.shape == (9, 9)
    assert vh.shape == (9, 700)
    np.testing.assert_allclose((np.asarray(u) * np.asarray(s)) @ np.asarray(vh), a, atol=1e-13)


@pytest.mark.parametrize("rows", [(3, 60, 37), (50, 50), (90, 10)])
def test_short_chunks_and_cut_columns(rows: tuple[int, ...]) -> None:
    a = conditioned(100, 8, 3.0)
    x = xp.asarray(a, chunks=(rows, (5, 3)))
    q, r = map(np.asarray, xp.linalg.qr(x))
    np.testing.assert_allclose(q @ r, a, atol=1e-14)
    np.testing.assert_allclose(np.asarray(xp.linalg.svdvals(x)), np.geomspace(1, 1 / 3, 8))


def test_rank_deficient_and_zero() -> None:
    a = np.ones((400, 5))
    s = np.asarray(xp.linalg.svdvals(xp.asarray(a, chunks=(100, 5))))
    np.testing.assert_allclose(s, [np.sqrt(2000), 0, 0, 0, 0], atol=1e-12)
    zero = xp.zeros((400, 5), chunks=(100, 5))
    u, s_, _ = xp.linalg.svd(zero, full_matrices=False)
    assert np.asarray(s_).max() == 0
    assert np.isfinite(np.asarray(u)).all()


def test_gram_of_a_chain_is_one_pass() -> None:
    a = np.random.default_rng(0).random((1000, 6))
    x = xp.asarray(a, chunks=(300, 6))
    z = (x + 1 - xp.mean(x, axis=0)) / xp.std(x, axis=0)
    product = z.T @ z
    tasks, _ = evaluate.plan([product._node])
    made = [task for task in tasks if task.codelet.name.startswith("array.over_rows.self")]
    assert len(made) == x._node.blocks
    assert all("subtract+divide" in task.codelet.name for task in made)
    wanted = (a + 1 - a.mean(0)) / a.std(0)
    np.testing.assert_allclose(np.asarray(product), wanted.T @ wanted, rtol=1e-10, atol=1e-9)
    whole = xp.asarray(np.arange(40).reshape(20, 2), chunks=(6, 2))
    np.testing.assert_array_equal(np.asarray(whole.T @ whole), whole.compute().T @ whole.compute())


def test_through_the_cluster(ray_session: ar.Session) -> None:
    a = np.random.default_rng(0).random((500_000, 10))
    x = xp.asarray(a, chunks=(130_000, 10))
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(np.asarray(s), np.linalg.svd(a, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(np.asarray((u * s) @ vh), a, atol=1e-12)
