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
from agentic_ray.array import exchange, merging, ranks

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
        patch.setattr(ranks, "SAMPLES", samples)
        patch.setattr(ranks, "FAN_IN", 2)
        patch.setattr(ranks, "WINDOW_BYTES", 64)
        patch.setattr(exchange, "WIDTH", 2)
        patch.setattr(exchange, "MOST_RUNS", 64 if direct else 1)
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


def test_in_stages_through_the_cluster(ray_session: ar.Session) -> None:
    values = np.random.default_rng(3).integers(-1000, 1000, 40_000).astype(np.float64)
    values[::101] = np.nan
    x = xp.asarray(values, chunks=400).persist()
    assert np.asarray(xp.sort(x)).tobytes() == np.sort(values, kind="stable").tobytes()
    np.testing.assert_array_equal(np.asarray(xp.argsort(x)), np.argsort(values, kind="stable"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=60),
    st.integers(2, 4),
    st.sampled_from(["random", "sorted", "reversed", "few", "waves"]),
    st.booleans(),
    st.sampled_from([0, 2, 99]),
)
def test_many_chunks_of_any_lengths(
    lengths: list[int], width: int, kind: str, sorts_quickly: bool, long: int
) -> None:
    n = sum(lengths)
    rng = np.random.default_rng(n)
    values = {
        "random": rng.random(n),
        "sorted": np.arange(float(n)),
        "reversed": -np.arange(float(n)),
        "few": rng.choice([0.0, -0.0, np.nan, 1.0], n),
        "waves": np.sin(np.arange(n)),
    }[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "SAMPLES", 2)
        patch.setattr(ranks, "FAN_IN", width)
        patch.setattr(exchange, "WIDTH", width)
        patch.setattr(exchange, "MOST_RUNS", 1)
        patch.setattr(exchange, "LONG_PIECES", long)
        patch.setattr(merging, "_sorts_quickly", lambda: sorts_quickly)
        check(values, (tuple(lengths),))


def test_no_task_gets_much_more_than_a_chunk() -> None:
    """Whatever the order of the values over the chunks."""
    chunks, each = 256, 64
    n = chunks * each
    orders = {
        "sorted": np.arange(n),
        "reversed": np.arange(n)[::-1],
        "periodic": np.arange(n) % (16 * each),
        "interleaved": np.arange(n).reshape(16, -1).T.reshape(-1),
        "equal": np.zeros(n),
    }
    sent = exchange._sent_on
    for name, values in orders.items():
        sizes: list[int] = []

        def counting(*args: Any, sizes: list[int] = sizes) -> Any:
            made = sent(*args)
            sizes.append(len(made[0]))
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchange, "_sent_on", counting)
            x = xp.asarray(values.astype(float), chunks=each)
            np.testing.assert_array_equal(np.asarray(xp.sort(x)), np.sort(values))
        assert 0 < max(sizes) <= 8 * each, name
