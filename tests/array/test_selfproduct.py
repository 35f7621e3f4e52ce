"""Products of tall matrices with themselves: in panels, compiled or not, and by `syrk`."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.array.linalg import selfproduct
from agentic_ray.array.linalg.selfproduct import cut, product_and_sums, self_product


@pytest.fixture(params=["panels", "syrk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way, whatever processor this is."""
    monkeypatch.setattr(selfproduct, "_small_products_are_quick", lambda: request.param == "panels")
    name: str = request.param
    return name


def _matrix(rows: int, columns: int, dtype: str = "f8") -> np.ndarray:
    return np.random.default_rng(rows * columns).standard_normal((rows, columns)).astype(dtype)


@given(st.sampled_from(list(selfproduct._COLUMNS)))
def test_panels_cover_the_upper_half_and_none_is_its_own_transpose(columns: int) -> None:
    panels = cut(columns)
    seen = np.zeros((columns, columns), dtype=bool)
    for panel in panels:
        assert panel.end - panel.begin < columns - panel.start
        assert panel.size == (panel.end - panel.begin) * (columns - panel.start)
        seen[panel.begin : panel.end, panel.start :] = True
    assert len(panels) >= 2
    assert seen[np.triu_indices(columns)].all()


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("columns", [1, 11, 12, 17, 31, 32, 50, 64, 65])
@pytest.mark.parametrize("rows", [0, 1, 700, 20_000])
@pytest.mark.parametrize("shifted", [False, True])
def test_products_and_sums_are_numpys(
    way: str, rows: int, columns: int, dtype: str, shifted: bool
) -> None:
    x = _matrix(rows, columns, dtype)
    shift = np.linspace(-1, 1, columns).astype(dtype) if shifted else None
    wide = x.astype("f8") - (0 if shift is None else shift.astype("f8"))
    product, sums = product_and_sums(np, x, shift)
    assert (product.dtype, sums.dtype) == (x.dtype, x.dtype)
    near = 8 * np.finfo(dtype).eps * max(rows, 1) ** 0.5
    scale = float(np.max(np.sum(wide * wide, axis=0), initial=1.0))
    assert np.max(np.abs(product - wide.T @ wide), initial=0.0) <= near * scale
    assert np.max(np.abs(sums - wide.sum(axis=0)), initial=0.0) <= near * scale
    assert np.array_equal(product, product.T)
    if not shifted and way == "panels" and columns in selfproduct._COLUMNS:
        assert np.array_equal(self_product(np, x), product)


def test_panels_are_only_for_what_blas_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfproduct, "_small_products_are_quick", lambda: True)
    x = _matrix(100, 40)
    for other in (x.astype(int), x.astype("c16"), np.asfortranarray(x), x[:, ::2]):
        assert not selfproduct._in_panels(np, other)
        expected = other.conj().T @ other
        assert np.allclose(self_product(np, other), expected)
    assert selfproduct._in_panels(np, x)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_stays_in_its_column(way: str, bad: float) -> None:
    x = _matrix(9000, 50)
    x[8000, 20] = bad
    product, sums = product_and_sums(np, x, None)
    rest = np.arange(50) != 20
    assert not np.isfinite(product[20]).any()
    assert not np.isfinite(product[:, 20]).any()
    assert np.isfinite(product[np.ix_(rest, rest)]).all()
    assert (np.isfinite(sums) == rest).all()


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("columns", [12, 33, 50, 64])
@pytest.mark.parametrize("shifted", [False, True])
def test_compiled_or_not_the_bits_are_the_same(
    dtype: str, columns: int, shifted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = selfproduct._started(np.dtype(dtype).str)
    deadline = time.monotonic() + 60
    while not ready and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ready:
        pytest.skip("NumPy has another BLAS here")
    monkeypatch.setattr(selfproduct, "_small_products_are_quick", lambda: True)
    monkeypatch.setattr(selfproduct, "_WORTH_ELEMENTS", 0)
    x = _matrix(30_011, columns, dtype)
    shift = x[5].copy() if shifted else None
    compiled = product_and_sums(np, x, shift), self_product(np, x)
    monkeypatch.setattr(selfproduct, "_compiled", lambda x: None)
    plain = product_and_sums(np, x, shift), self_product(np, x)
    for left, right in zip([*compiled[0], compiled[1]], [*plain[0], plain[1]], strict=True):
        assert left.tobytes() == right.tobytes()


def test_a_kernel_with_other_bits_is_not_used() -> None:
    def right(blocks, shift, panels, total):  # type: ignore[no-untyped-def]
        selfproduct.summed(blocks, shift, panels, total)

    assert selfproduct._alike(right, "<f8")

    def off(blocks, shift, panels, total):  # type: ignore[no-untyped-def]
        selfproduct.summed(blocks, shift, panels, total)
        total[-1] = np.nextafter(total[-1], np.inf)

    assert not selfproduct._alike(off, "<f8")
