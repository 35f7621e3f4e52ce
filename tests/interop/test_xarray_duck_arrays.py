"""xarray's own tests of arrays that it wraps, run over ours."""

from __future__ import annotations

import pytest

pytest.importorskip("xarray")

from xarray.tests import test_duck_array_wrapping as theirs

theirs.NAMESPACE_ARRAYS["agentic_ray.array"] = {
    "attrs": {"array": "Array", "constructor": "asarray"},
    "xfails": {},
}
theirs.NAMESPACES[:] = ["agentic_ray.array"]  # the list that their classes are parametrized by

from xarray.tests.test_duck_array_wrapping import (  # noqa: E402
    TestDataArrayMethods,
    TestTopLevelMethods,
)

__all__ = ["TestDataArrayMethods", "TestTopLevelMethods"]
