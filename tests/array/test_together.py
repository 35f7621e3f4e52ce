"""ar.compute and ar.persist over several arrays."""

from __future__ import annotations

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp


def test_compute_gives_numpy_arrays_in_order() -> None:
    x = xp.asarray(np.arange(12.0).reshape(3, 4))
    total, doubled = ar.compute(xp.sum(x), x * 2)
    assert total == 66.0
    assert isinstance(doubled, np.ndarray)
    assert (doubled == np.arange(12.0).reshape(3, 4) * 2).all()
    doubled[0, 0] = 5.0  # the caller's own
    assert ar.compute() == ()


def test_persist_keeps_the_values(ray_session: ar.Session) -> None:
    x = xp.random.default_rng(1).random((400_000,), chunks=100_000)
    y, z = ar.persist(x + 1, x * 2)
    assert float(xp.sum(y)) == float(xp.sum(x + 1))
    assert np.array_equal(z.compute(), x.compute() * 2)


@pytest.mark.parametrize("function", [ar.compute, ar.persist])
def test_other_things_are_refused(function: object) -> None:
    with pytest.raises(TypeError, match="not list"):
        function([1, 2])  # type: ignore[operator]
