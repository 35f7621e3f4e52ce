"""The bandwidth estimate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.telemetry.bandwidth import BandwidthMeter


def test_unknown_is_none_and_directions_differ() -> None:
    meter = BandwidthMeter()
    assert meter.bytes_per_second("a", "b") is None
    meter.record("a", "b", 1000, 2.0)
    assert meter.bytes_per_second("a", "b") == 500
    assert meter.bytes_per_second("b", "a") is None
    assert meter.pairs() == (("a", "b"),)


def test_outliers_and_small_transfers_do_not_move_it() -> None:
    meter = BandwidthMeter()
    for _ in range(9):
        meter.record("a", "b", 10**8, 0.1)
    meter.record("a", "b", 10**8, 60.0)  # waited for something else
    for _ in range(10):
        meter.record("a", "b", 100, 0.01)  # latency, not bandwidth
    assert meter.bytes_per_second("a", "b") == pytest.approx(1e9)


def test_it_follows_a_change() -> None:
    meter = BandwidthMeter()
    for _ in range(32):
        meter.record("a", "b", 10**8, 0.1)
    for _ in range(8):
        meter.record("a", "b", 10**8, 1.0)
    assert meter.bytes_per_second("a", "b") == pytest.approx(1e8)


@pytest.mark.parametrize(("size", "seconds"), [(0, 1.0), (5, 0.0)])
def test_what_tells_nothing_is_dropped(size: int, seconds: float) -> None:
    meter = BandwidthMeter()
    meter.record("a", "b", size, seconds)
    assert meter.bytes_per_second("a", "b") is None


@pytest.mark.parametrize(("size", "seconds"), [(-1, 1.0), (1, -1.0), (1, math.nan), (1, math.inf)])
def test_impossible_figures(size: int, seconds: float) -> None:
    with pytest.raises(InvalidArgumentError):
        BandwidthMeter().record("a", "b", size, seconds)


@pytest.mark.parametrize("arguments", [{"window": 0}, {"decay": 0.0}, {"max_pairs": 0}])
def test_impossible_settings(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        BandwidthMeter(**arguments)


def test_it_stays_bounded_and_forgets() -> None:
    meter = BandwidthMeter(max_pairs=2)
    for name in "bcd":
        meter.record("a", name, 1, 1.0)
    assert meter.pairs() == (("a", "c"), ("a", "d"))
    meter.forget("d")
    assert meter.pairs() == (("a", "c"),)


@given(st.lists(st.tuples(st.integers(1, 10**12), st.floats(1e-6, 1e6)), min_size=1))
def test_the_estimate_is_one_of_the_last_rates(transfers: list[tuple[int, float]]) -> None:
    meter = BandwidthMeter()
    for size, seconds in transfers:
        meter.record("a", "b", size, seconds)
    rates = [size / seconds for size, seconds in transfers[-32:]]
    assert meter.bytes_per_second("a", "b") in rates
