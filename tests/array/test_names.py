"""Names that are not there: what is said of them, and that the documentation lists them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array import names

DOCS = Path(__file__).parents[2] / "docs" / "arrays.md"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aranje", "Did you mean 'arange'"),
        ("Zeros", "Did you mean 'zeros'"),
        ("concatenat", "Did you mean 'concatenate'"),
        ("trapz", "it is called 'trapezoid'"),
        ("matrix", "arrays of two axes"),
        ("memmap", "from_npy"),
        ("busday_count", "numpy.busday_count"),
    ],
)
def test_an_unknown_name_says_what_to_use(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=name) as caught:
        getattr(xp, name)
    assert hint in str(caught.value)
    assert caught.value.name == name


def test_a_name_that_resembles_none() -> None:
    with pytest.raises(AttributeError) as caught:
        xp.qqqqqq
    assert "Did you mean" not in str(caught.value)
    assert not hasattr(xp, "__wrapped__")


def test_linalg_and_fft_suggest_too() -> None:
    with pytest.raises(AttributeError, match="'solve'"):
        xp.linalg.solv
    with pytest.raises(AttributeError, match="'fftshift'"):
        xp.fft.fftshif
    with pytest.raises(AttributeError, match="about NumPy itself"):
        xp.linalg.test


def test_what_is_left_out_is_numpys_and_not_here() -> None:
    for name in names.LEFT_OUT:
        space, own = np, xp
        *parts, last = name.split(".")
        for part in parts:
            space, own = getattr(space, part), getattr(own, part)
        assert hasattr(space, last), name
        assert not hasattr(own, last), name


def test_former_names_are_called_what_is_said() -> None:
    for former, now in names._FORMER.items():
        assert not hasattr(np, former)
        assert hasattr(xp, now)


def test_the_documentation_has_the_table() -> None:
    assert names.as_markdown() in DOCS.read_text(), "paste names.as_markdown() into docs/arrays.md"
