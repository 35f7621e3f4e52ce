"""How many calls travel together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.interop.calls.batches import MOST_CALLS, Pace

_SECONDS = st.floats(1e-7, 100)


def test_calls_travel_alone_until_their_seconds_are_known() -> None:
    pace = Pace()
    assert pace.size(10_000, 0.1) == 1
    pace.learn(2, 0.002)
    assert pace.size(10_000, 0.1) == 100
    assert pace.size(7, 0.1) == 7


@given(_SECONDS, st.integers(1, 10**6), st.floats(1e-3, 1))
def test_a_batch_is_not_longer_than_wanted(seconds: float, pending: int, target: float) -> None:
    pace = Pace()
    pace.learn(1, seconds)
    size = pace.size(pending, target)
    assert 1 <= size <= min(pending, MOST_CALLS)
    assert size == 1 or (size - 1) * seconds <= target


@given(st.lists(st.tuples(st.integers(1, 1000), _SECONDS), min_size=1))
def test_the_mean_stays_among_what_was_seen(seen: list[tuple[int, float]]) -> None:
    pace = Pace()
    for calls, seconds in seen:
        pace.learn(calls, calls * seconds)
    each = [seconds for _, seconds in seen]
    assert pace.seconds is not None
    assert min(each) * 0.999 <= pace.seconds <= max(each) * 1.001
    pace.learn(0, 5.0)
    assert pace.patience_seconds(10) >= 0.05


def test_a_small_batch_that_had_to_wait_says_little() -> None:
    pace = Pace()
    pace.learn(4000, 0.004)
    pace.learn(10, 0.1)
    assert pace.seconds is not None
    assert pace.seconds < 1e-4
