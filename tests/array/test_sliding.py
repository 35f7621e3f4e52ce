"""Windows that slide over an array, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp

SLIDE = np.lib.stride_tricks.sliding_window_view
CASES = [
    (1, 0), (2, -1), (3, 0), ((2, 3), (0, 1)), ((2, 2), (0, 0)), (0, 0), (8, 0), (-1, 0),
    ((1, 2), 0), (2, None), ((2, 2), None), (2, 5),
]  # fmt: skip


def _outcome(slide: Callable[..., Any], *args: Any) -> Any:
    try:
        return slide(*args)
    except ValueError as error:
        return type(error).__name__


@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 5, 3), (1,), (0, 3)])
@pytest.mark.parametrize("chunks", [1, 2, 3, 100])
def test_as_numpy(shape: tuple[int, ...], chunks: int) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    x = xp.asarray(array, chunks=chunks)
    for window, axis in CASES:
        for slide in SLIDE, xp.lib.stride_tricks.sliding_window_view:
            wanted, found = _outcome(SLIDE, array, window, axis), _outcome(slide, x, window, axis)
            if isinstance(wanted, str):
                assert found == wanted
                continue
            assert isinstance(found, xp.Array)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            np.testing.assert_array_equal(found, wanted)


def test_a_view_that_cannot_be_assigned_to() -> None:
    x = xp.arange(10.0, chunks=3)
    windows = SLIDE(x, 3)
    x[2] = 50
    assert windows[0].compute().tolist() == [0, 1, 50]
    assert windows.base is x
    with pytest.raises(ValueError, match="read-only"):
        windows[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        SLIDE(x, 3, writeable=True)


def test_chunks_do_not_grow_with_the_window() -> None:
    with xp.config(chunk_bytes=80_000):
        x = xp.zeros((10_000, 2))
        windows = xp.lib.stride_tricks.sliding_window_view(x, 500, axis=0)
    assert windows.shape == (9501, 2, 500)
    assert max(windows.chunks[0]) * 2 * 500 * 8 <= 80_000
    assert sum(windows.chunks[0]) == 9501


def test_names() -> None:
    with pytest.raises(AttributeError, match="chunks have no strides"):
        xp.lib.stride_tricks.as_strided
    with pytest.raises(AttributeError, match="sliding_window_view"):
        xp.lib.stride_tricks.sliding_window
