"""Stable order by a sort that is not stable: the positions of NumPy's own, whatever ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.array.core import ties


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    different=st.sampled_from([1, 3, 50, 5000, 10**9]),
    size=st.sampled_from([0, 1, 4095, 4096, 5000, 20_011]),
    dtype=st.sampled_from(["f8", "f4", "i8", "u2", "i4"]),
    special=st.booleans(),
)
def test_positions_are_those_of_a_stable_sort(
    seed: int, different: int, size: int, dtype: str, special: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.integers(0, different, size) - different // 2).astype(dtype)
    if special and x.dtype.kind == "f" and size:
        for value in (np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf):
            x[rng.integers(0, size, 1 + size // 50)] = value
    assert np.array_equal(ties.stable_order(x), np.argsort(x, kind="stable"))


@pytest.mark.parametrize("special", [np.nan, 0.0, 7.0])
def test_few_ties_among_many_elements(special: float) -> None:
    x = np.random.default_rng(1).normal(size=300_000)
    x[::601] = special
    x[1::1203] = -0.0 if special == 0 else special
    assert np.array_equal(ties.stable_order(x), np.argsort(x, kind="stable"))
