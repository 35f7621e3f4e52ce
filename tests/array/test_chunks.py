"""Grids of blocks."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.array.core.chunks import blocks_under


@given(st.lists(st.integers(1, 4), max_size=4), st.data())
def test_blocks_that_broadcast_are_found_as_numpy_finds_elements(
    wanted: list[int], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(wanted)))
    counts = [data.draw(st.sampled_from([1, n])) for n in wanted[kept:]]
    numbers = np.arange(math.prod(counts)).reshape(counts)
    expected = np.broadcast_to(numbers, wanted).ravel().tolist()
    assert blocks_under(tuple(counts), tuple(wanted)) == expected
