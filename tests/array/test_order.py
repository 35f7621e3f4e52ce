"""Blocks are brought in C order, whatever the order they come in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agentic_ray.array.core.order import TILED_LENGTH, in_c_order

SIDE = TILED_LENGTH + 37
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": lambda x: x.T,
    "rows backwards": lambda x: x.T[::-1],
    "columns backwards": lambda x: x.T[:, ::-1],
    "every second": lambda x: x.T[::2, 1:],
    "backwards": lambda x: x[::-1, ::-1],
    "as it is": lambda x: x,
}


@pytest.mark.parametrize("dtype", ["f8", "c16", "u1", "M8[s]", "i4, f8"])
@pytest.mark.parametrize("name", VIEWS)
def test_large_matrices(name: str, dtype: str) -> None:
    numbers = np.random.default_rng(0).integers(0, 1000, (SIDE, SIDE))
    x = np.zeros((SIDE, SIDE), dtype)
    if x.dtype.names:
        x["f0"], x["f1"] = numbers, -numbers
    else:
        x[...] = numbers.astype(dtype)
    view = VIEWS[name](x)
    found = in_c_order(view)
    assert found.flags.c_contiguous
    assert found.dtype == x.dtype
    assert found.tobytes() == view.tobytes()


def test_what_is_so_already_is_not_copied() -> None:
    x = np.zeros((3, 4))
    assert in_c_order(x) is x
    assert in_c_order((x, [x]))[1][0] is x
