"""The examples in the docstrings of pictures give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import agentic_ray as ar
import agentic_ray.pictures
from agentic_ray.mapreduce import MapReduce
from agentic_ray.notebook import live

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_MODULES = [module.name for module in pkgutil.iter_modules(agentic_ray.pictures.__path__)]


@pytest.mark.parametrize("name", _MODULES)
def test_examples_of_a_module(name: str) -> None:
    module = importlib.import_module(f"agentic_ray.pictures.{name}")
    assert doctest.testmod(module, optionflags=_FLAGS).failed == 0


def test_examples_of_what_draws_work(ray_session: ar.Session) -> None:
    for value in (ar.TaskGraph.visualize, MapReduce.timeline, live):
        found = doctest.DocTestFinder().find(value, value.__name__)
        assert sum(len(test.examples) for test in found) > 1
        for test in found:
            runner = doctest.DocTestRunner(optionflags=_FLAGS)
            assert runner.run(test).failed == 0
