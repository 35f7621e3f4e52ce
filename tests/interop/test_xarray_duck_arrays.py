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

BROKEN = {
    "test_ffill": "is called without the dim that it needs",
    "test_bfill": "is called without the dim that it needs",
    "test_interpolate_na": "is called without the dim that it needs",
    "test_rank": "is called without the dim that it needs",
    "test_polyfit": "xarray puts coefficients in an array of NumPy's",
    "test_rolling_exp_reduce": "needs numbagg",
}
"""Tests that cannot pass, whatever the arrays, and why. xarray expects more to fail: those pass
here, and so have to. What the broken ones are about is in test_xarray.py."""


def _expect(kind: type) -> None:
    for name, test in vars(kind).items():
        marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name != "xfail"]
        if name in BROKEN:
            marks.append(pytest.mark.xfail(reason=BROKEN[name], strict=False).mark)
        if name.startswith("test_"):
            test.pytestmark = marks


_expect(TestDataArrayMethods)
_expect(TestTopLevelMethods)

__all__ = ["TestDataArrayMethods", "TestTopLevelMethods"]
