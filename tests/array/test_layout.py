"""How products are cut in blocks: what the prediction prefers, and that values do not suffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.chunks import auto, block_count
from agentic_ray.array.linalg import layout as layouts
from agentic_ray.array.linalg.layout import Layout, chosen, own, seconds
from agentic_ray.schedule.calibration import Calibration

ITEM, LIMIT, RATES = 8, (32 << 20) // 8, Calibration()


def _found(left: tuple[int, int], right: tuple[int, int]) -> tuple[Layout, Layout]:
    """The operands' own layout, and the one that is chosen."""
    a, b = auto(left, np.dtype(float)), auto(right, np.dtype(float))
    blocks = len(a[0]) * len(b[1])
    usual = own(a, b, left[0] * left[1], right[0] * right[1], blocks)
    found = chosen(a, b, ITEM, LIMIT, RATES)
    assert seconds(found, a, b, ITEM, RATES) <= seconds(usual, a, b, ITEM, RATES)
    return usual, found


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((4096, 4096), (4096, 4096)),
        ((8192, 8192), (8192, 8192)),
        ((1_000_000, 1000), (1000, 1000)),
        ((50, 10_000_000), (10_000_000, 50)),
        ((100, 100), (100, 100)),
    ],
)
def test_operands_that_are_cut_well_stay_as_they_are(
    left: tuple[int, int], right: tuple[int, int]
) -> None:
    usual, found = _found(left, right)
    assert found == usual


def test_a_long_inner_axis_is_cut_and_summed_instead_of_read_by_every_row() -> None:
    usual, found = _found((1000, 1_000_000), (1_000_000, 1000))
    assert len(usual.left[0]) == 250  # each of which would read the whole right operand
    assert (len(found.left[0]), len(found.right[1])) == (1, 1)
    assert found.left[1] == found.right[0]
    assert len(found.left[1]) > 100


def test_a_wide_result_is_cut_in_columns_instead_of_summed_whole() -> None:
    usual, found = _found((1000, 1000), (1000, 1_000_000))
    assert len(usual.left[1]) == 250  # as many partial results of 8 GB
    assert found.left == ((1000,), (1000,))
    assert len(found.right[1]) > 100


@given(
    *[st.integers(1, 30_000)] * 3, st.integers(10_000, 1_000_000)
)  # fmt: skip
def test_any_layout_is_whole_and_fits(m: int, k: int, n: int, limit: int) -> None:
    with xp.config(chunk_elements=limit):
        a, b = auto((m, k), np.dtype(float)), auto((k, n), np.dtype(float))
    found = chosen(a, b, ITEM, limit, RATES)
    assert (sum(found.left[0]), sum(found.left[1])) == (m, k)
    assert (sum(found.right[0]), sum(found.right[1])) == (k, n)
    usual = own(a, b, m * k, k * n, len(a[0]) * len(b[1]))
    if found != usual:
        assert layouts._task_elements(found, k) <= layouts.MOST_CHUNKS_A_TASK * limit
        assert block_count((found.left[0], found.left[1])) <= 4 * block_count(a) * block_count(b)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([(40, 30_000, 50), (30, 300, 20_000), (20_000, 300, 30), (300, 400, 500)]))
def test_values_are_those_of_numpy(lengths: tuple[int, int, int]) -> None:
    m, k, n = lengths
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, k)).astype(float), rng.integers(-9, 9, (k, n)).astype(float)
    with xp.config(chunk_elements=2_000):
        x, y = xp.asarray(a), xp.asarray(b)
        np.testing.assert_array_equal(np.asarray(x @ y), a @ b)


def test_no_task_of_a_long_product_reads_a_whole_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "WORTH_SECONDS", 0.0)
    with xp.config(chunk_elements=1_000):
        x = xp.ones((20, 50_000)) + 1
        y = xp.ones((50_000, 20)) + 1
        tasks, _ = evaluate.plan([(x @ y)._node])
    products = [task for task in tasks if ".product" in task.key]
    assert len(products) >= 500
    assert max(task.cost.read_bytes for task in products) <= 4 * 8 * 1_000
