"""The examples in docstrings give what they say, and each public name has one."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from agentic_ray import ml

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITHOUT = {
    "Training": "`train` returns it",
    "Iteration": "`watching` gives it",
    "metrics": "its functions have them",
    "parallel": "it needs a session: tests/ml/test_faults.py searches in parallel",
}


def docstring(value: Any) -> str:
    return value.__doc__ or ""


@pytest.mark.parametrize("name", [name for name in ml.__all__ if name not in WITHOUT])
def test_the_example_of_a_public_name(name: str) -> None:
    text = docstring(getattr(ml, name))
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert test.examples
    told: list[str] = []
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append).failed == 0, told


def test_names_are_sorted_and_there() -> None:
    assert ml.__all__ == sorted(ml.__all__)
    assert set(ml.__all__) <= set(dir(ml))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        ml.Nothing
