"""Sizes of batches: they climb while it pays, and fall when memory is short."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agentic_ray.schedule.batches import BatchSizer, best_known


def climbed(
    seconds: Callable[[int], float], *, fits: int = 1 << 20, rounds: int = 60, first: int = 8
) -> BatchSizer:
    sizer = BatchSizer(first, 4096, grows=True)
    for _ in range(rounds):
        if sizer.size > fits:
            sizer.short(sizer.size)
        else:
            sizer.observe(sizer.size, seconds(sizer.size))
    return sizer


@pytest.mark.parametrize(("knee", "best"), [(8, 8), (64, 64), (512, 512)])
def test_it_climbs_to_where_a_larger_batch_is_no_quicker(knee: int, best: int) -> None:
    noise = random.Random(0)
    sizer = climbed(lambda n: max(1.0, n / knee) * noise.uniform(0.99, 1.01))
    assert sizer.size == best


def test_it_climbs_as_far_as_memory_goes() -> None:
    assert climbed(lambda n: 1.0, fits=100).size == 64
    assert climbed(lambda n: 1.0, fits=3).size == 2
    assert climbed(lambda n: 1.0, fits=0).size == 1


def test_a_fixed_size_falls_only() -> None:
    sizer = BatchSizer(100, 100, grows=False)
    sizer.observe(100, 1e-6)
    assert sizer.size == 100
    sizer.short(100)
    assert sizer.size == 50
    sizer.short(25)
    assert sizer.size == 12


def test_parcels_of_single_items_grow_until_they_take_long_enough() -> None:
    sizer = BatchSizer(1, 4096, grows=True, until_seconds=0.1)
    for _ in range(60):
        sizer.observe(sizer.size, sizer.size * 1e-3)
    assert sizer.size == 128


def test_figures_that_are_none_are_ignored() -> None:
    sizer = BatchSizer(8, 64, grows=True)
    for _ in range(9):
        sizer.observe(8, 0.0)
        sizer.observe(0, 1.0)
    assert sizer.size == 8


def test_what_is_known_is_where_it_begins() -> None:
    assert best_known(lambda n: None, 4096) is None
    assert best_known(lambda n: max(1.0, n / 64), 4096) == 64
    assert best_known(lambda n: float(n), 4096) == 1
