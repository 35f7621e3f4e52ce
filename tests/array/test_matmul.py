"""Products of matrices in blocks that fit together in every way, or in none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate


def _cuts(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    def lengths(ends: set[int]) -> tuple[int, ...]:
        edges = sorted({0, length, *ends})
        return tuple(b - a for a, b in itertools.pairwise(edges))

    return st.sets(st.integers(0, length), max_size=4).map(lengths)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(["float64", "int64", "complex128"]))
def test_any_cut(data: st.DataObject, dtype: str) -> None:
    m, k, n = (data.draw(st.integers(1, 9)) for _ in range(3))
    loop = data.draw(st.sampled_from([(), (3,)]))
    rng = np.random.default_rng(0)
    a = rng.integers(-9, 9, (*loop, m, k)).astype(dtype)
    b = rng.integers(-9, 9, (k, n)).astype(dtype)
    head = tuple(data.draw(_cuts(length)) for length in loop)
    x = xp.asarray(a, chunks=(*head, data.draw(_cuts(m)), data.draw(_cuts(k))))
    y = xp.asarray(b, chunks=(data.draw(_cuts(k)), data.draw(_cuts(n))))
    np.testing.assert_array_equal(np.asarray(x @ y), a @ b)


def test_an_inner_axis_without_elements() -> None:
    x, y = xp.zeros((6, 0), chunks=(2, 1)), xp.zeros((0, 8), chunks=(1, 2))
    np.testing.assert_array_equal(np.asarray(x @ y), np.zeros((6, 8)))


@pytest.mark.parametrize("chunks", [(256, 1024), (1024, 256), (400, 300)])
def test_through_the_cluster(ray_session: ar.Session, chunks: tuple[int, int]) -> None:
    a = np.random.default_rng(1).random((1500, 1500))
    x = xp.asarray(a, chunks=chunks)
    np.testing.assert_allclose(np.asarray(x @ x), a @ a, rtol=1e-12)


@pytest.mark.parametrize(
    "chunks", [((25,) * 8, (200,)), ((25,) * 8, (50,) * 4)], ids=["cut", "alike"]
)
def test_products_of_a_task_are_added_from_left_to_right(
    chunks: tuple[tuple[int, ...], ...],
) -> None:
    a = np.random.default_rng(1).random((200, 200))
    x, y = xp.asarray(a, chunks=chunks), xp.asarray(a, chunks=(50, 100))
    found = np.asarray(x @ y)
    for i, j in itertools.product(range(0, 200, 25), range(0, 200, 100)):
        total = np.zeros((25, 100))
        for k in range(0, 200, 50):
            total += a[i : i + 25, k : k + 50] @ a[k : k + 50, j : j + 100]
        np.testing.assert_array_equal(found[i : i + 25, j : j + 100], total)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["float64", "float32", "complex128"]))
def test_transpose_times_itself(data: st.DataObject, dtype: str) -> None:
    n, p = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 9))
    a = np.random.default_rng(0).integers(-9, 9, (n, p)).astype(dtype)
    x = xp.asarray(a, chunks=(data.draw(_cuts(n)), data.draw(_cuts(p))))
    np.testing.assert_array_equal(np.asarray(x.T @ x), a.T @ a)
    np.testing.assert_array_equal(np.asarray((x + 1).T @ (x + 1)), (a + 1).T @ (a + 1))


def test_transpose_times_itself_is_one_pass_over_the_rows(ray_session: ar.Session) -> None:
    a = np.random.default_rng(0).random((50_000, 30))
    x = xp.asarray(a, chunks=(9_000, 30))
    z = (x + 1 - x.mean(axis=0)) / x.std(axis=0)
    tasks, _ = evaluate.plan([(z.T @ z)._node])
    blocks = [task for task in tasks if task.cost.items]
    assert len(blocks) == 2 * 6  # one of them for mean and deviation
    theirs = (a + 1 - a.mean(0)) / a.std(0)
    np.testing.assert_allclose(np.asarray(z.T @ z), theirs.T @ theirs, rtol=1e-9, atol=1e-8)
    a[77, 5] = np.nan
    found = np.asarray(xp.asarray(a, chunks=(9_000, 30)).T @ xp.asarray(a, chunks=(9_000, 30)))
    assert (np.isnan(found) == np.isnan(a.T @ a)).all()


def _columns(kind: str) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(9_000, 20))
    made[:, 1] += made[:, 0]
    if kind == "shifted":
        return made + 1e8
    if kind == "sorted":
        return np.sort(made, axis=0) * np.logspace(-60, 60, 20)
    if kind == "first rows apart":
        made[:1_000] += 1e6
        made[2_000:2_064] += 1e4  # within a chunk
    return made


def _gram_of_standardised(x: xp.Array, correction: float = 0.0) -> xp.Array:
    z = (x - x.mean(axis=0)) / x.std(axis=0, correction=correction)
    return z.T @ z


@pytest.mark.parametrize("correction", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["centred", "shifted", "sorted", "first rows apart"])
def test_standardised_columns_times_themselves(kind: str, correction: float) -> None:
    a = _columns(kind)
    found = np.asarray(_gram_of_standardised(xp.asarray(a, chunks=(1_000, 20)), correction))
    exact = a.astype(np.longdouble)
    exact -= exact.mean(axis=0)
    exact /= exact.std(axis=0, ddof=correction)
    # Means of 1e8 are rounded to 1.5e-8, a share of the deviation that large.
    near = (1e-8 if kind == "shifted" else 1e-13) * len(a)
    np.testing.assert_allclose(found, (exact.T @ exact).astype(float), rtol=0, atol=near)
    np.testing.assert_array_equal(found, found.T)


def test_standardised_columns_that_are_not_finite() -> None:
    a = _columns("centred")
    a[70, 3], a[4_000, 5] = np.nan, np.inf
    a[:, 7] = 0
    with np.errstate(all="ignore"):
        theirs = (a - a.mean(0)) / a.std(0)
        theirs = theirs.T @ theirs
    for dtype, near in (("float64", 1e-9), ("float32", 1e-1)):
        x = xp.asarray(a.astype(dtype), chunks=(1_000, 20))
        np.testing.assert_allclose(
            np.asarray(_gram_of_standardised(x)), theirs, rtol=near, atol=10 * near
        )


def test_standardised_columns_through_the_cluster(ray_session: ar.Session) -> None:
    here = xp.asarray(_columns("first rows apart"), chunks=(1_000, 20))
    there = here.persist()
    assert (
        np.asarray(_gram_of_standardised(there)) == np.asarray(_gram_of_standardised(here))
    ).all()
