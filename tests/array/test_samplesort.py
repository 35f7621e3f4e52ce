"""Sorting over chunks gives what NumPy's stable sort gives, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import samplesort

DTYPES = ["float64", "float32", "int64", "uint8", "int16", "bool", "complex128"]


def check(values: np.ndarray[Any, Any], chunks: Any) -> None:
    x = xp.asarray(values, chunks=chunks)
    wanted = np.sort(values, kind="stable")
    found = np.asarray(xp.sort(x))
    assert found.tobytes() == wanted.tobytes()
    order = np.argsort(values, kind="stable")
    np.testing.assert_array_equal(np.asarray(xp.argsort(x)), order)
    down = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
    np.testing.assert_array_equal(np.asarray(xp.argsort(x, descending=True)), down)
    np.testing.assert_array_equal(np.asarray(xp.sort(x, descending=True)), wanted[::-1])
    assert xp.sort(x).chunks == x.chunks


@st.composite
def _cases(draw: Any) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    lengths = tuple(draw(st.lists(st.integers(1, 12), min_size=2, max_size=6)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    elements = None
    if dtype.kind == "f":
        elements = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 2.5])
    if dtype.kind == "c":
        elements = st.sampled_from([0j, 1j, complex(np.nan, 1), complex(1, np.nan), 1 + 0j, -1j])
    return draw(hnp.arrays(dtype, sum(lengths), elements=elements)), lengths


@settings(max_examples=60, deadline=None)
@given(_cases(), st.integers(2, 5), st.booleans())
@example((np.array([0.0] + [-0.0] * 9), (9, 1)), 2, False)
def test_few_samples_many_ties(case: Any, samples: int, direct: bool) -> None:
    values, lengths = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplesort, "SAMPLES", samples)
        patch.setattr(samplesort, "SAMPLES_PER_RUN", 0)
        patch.setattr(samplesort, "DIRECT_RUNS", 64 if direct else 0)
        check(values, (lengths,))


@pytest.mark.parametrize("kind", ["random", "equal", "sorted", "reversed", "few", "one outlier"])
def test_distributions(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "random": rng.random(30_000),
        "equal": np.zeros(30_000),
        "sorted": np.arange(30_000.0),
        "reversed": np.arange(30_000.0)[::-1].copy(),
        "few": rng.integers(0, 3, 30_000).astype(np.float64),
        "one outlier": np.r_[np.ones(29_999), -1.0],
    }[kind]
    check(values, ((7_000, 1, 12_999, 10_000),))


def test_through_the_cluster(ray_session: ar.Session) -> None:
    values = np.random.default_rng(2).integers(-1000, 1000, 3_000_000).astype(np.float64)
    values[::1001] = np.nan
    x = xp.asarray(values, chunks=700_000)
    np.testing.assert_array_equal(np.asarray(xp.sort(x)), np.sort(values))
    np.testing.assert_array_equal(np.asarray(xp.argsort(x)), np.argsort(values, kind="stable"))
