"""Functions of numbers have NumPy's signatures: names, order and defaults of every parameter."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp

MODULES = str.split(
    """
    comparing describing differences distribution dtypes elementwise histograms nanfunctions
    quantiles scans selecting signals special statistics ufuncs vectors
    """
)
REFUSED = {(f, p) for f in ("matmul", "matvec", "vecmat") for p in ("axis", "keepdims")}
"""Parameters that NumPy lists, and refuses whatever they are."""
OTHER_DEFAULTS = {np._NoValue: (None, False, True, np._NoValue)}
"""NumPy's mark for "not given" stands for what it does then."""
DIFFERENT = {
    "clip": "the standard's names come first: either bound may be missing",
    "finfo": "a class in NumPy",
    "iinfo": "a class in NumPy",
}


def _numbers() -> dict[str, Any]:
    found = {}
    for name in xp.__all__:
        ours, numpys = getattr(xp, name), getattr(np, name, None)
        module = getattr(inspect.unwrap(ours), "__module__", "") or ""
        mine = module.rpartition(".")[2] in MODULES or type(ours).__module__.endswith("ufuncs")
        if callable(numpys) and mine and not isinstance(ours, type):
            found[name] = (ours, numpys)
    return found


NUMBERS = _numbers()


def test_the_table_is_long() -> None:
    assert len(NUMBERS) > 170


@pytest.mark.parametrize("name", NUMBERS)
def test_as_numpys(name: str) -> None:
    if name in DIFFERENT:
        pytest.skip(DIFFERENT[name])
    ours, numpys = (inspect.signature(one).parameters for one in NUMBERS[name])
    kinds = inspect.Parameter
    by_name = {p.name: p for p in ours.values() if p.kind is kinds.KEYWORD_ONLY}
    for number, (own, wanted) in enumerate(zip(ours.values(), numpys.values(), strict=False)):
        if (name, wanted.name) in REFUSED:
            continue
        if wanted.kind is kinds.KEYWORD_ONLY:  # their order means nothing
            own = by_name.get(wanted.name, own)
        if wanted.kind is not kinds.POSITIONAL_ONLY:
            assert own.name == wanted.name, f"{name}: {own} is not {wanted}"
            assert own.kind == wanted.kind
        if wanted.default is not kinds.empty and own.default != wanted.default:
            assert own.default in OTHER_DEFAULTS.get(wanted.default, ()), f"{name}: {own}"
        assert number < len(numpys)
    taken = [p for p in numpys if (name, p) not in REFUSED]
    assert len(ours) >= len(taken), f"{name} lacks {taken[len(ours) :]}"
    more = list(ours.values())[len(taken) :]
    assert all(p.kind in (kinds.KEYWORD_ONLY, kinds.VAR_KEYWORD) for p in more)
