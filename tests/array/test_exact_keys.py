"""Parameters that Python takes for equal (1, 1.0 and True; 0.0 and -0.0) make other expressions,
other programs and other results."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray.array as xp
from agentic_ray.array.core.node import exact

VALUES: list[Any] = [
    0.0,
    -0.0,
    0,
    False,
    1,
    1.0,
    True,
    1 + 0j,
    np.float32(1),
    np.float64(1),
    np.nan,
]
NANS = np.array([np.nan, 2.0, -0.0])


def test_only_the_same_parameters_are_equal() -> None:
    for one, other in itertools.combinations(VALUES, 2):
        assert exact((one,)) != exact((other,))
        assert exact(("a", (one, None))) != exact(("a", (other, None)))
    for value in VALUES:
        assert exact((value,)) == exact((value,))


FUNCTIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "full": (lambda n, v: xp.full((n,), v), lambda n, v: np.full((n,), v)),
    "linspace": (lambda n, v: xp.linspace(v, 3.0, n), lambda n, v: np.linspace(v, 3.0, n)),
    "nan_to_num": (
        lambda n, v: xp.nan_to_num(xp.asarray(np.resize(NANS, n)), nan=v),
        lambda n, v: np.nan_to_num(np.resize(NANS, n), nan=v),
    ),
    "pad": (
        lambda n, v: xp.pad(xp.asarray(np.resize(NANS, n)), 1, constant_values=v),
        lambda n, v: np.pad(np.resize(NANS, n), 1, constant_values=v),
    ),
    "multiply": (
        lambda n, v: xp.asarray(np.resize(NANS, n)) * v,
        lambda n, v: np.resize(NANS, n) * v,
    ),
}


@pytest.mark.parametrize("size", [3, 40_000])
@pytest.mark.parametrize("name", list(FUNCTIONS))
@given(st.permutations([0.0, -0.0, 0, 1, 1.0, True]))
def test_results_do_not_depend_on_what_was_made_before(
    name: str, size: int, values: list[Any]
) -> None:
    ours, theirs = FUNCTIONS[name]
    made = [ours(size, value) for value in values]
    for array, value in zip(made, values, strict=True):
        found, wanted = array.compute(), theirs(size, value)
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes()
