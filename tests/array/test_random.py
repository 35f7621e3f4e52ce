"""Random numbers: how they are distributed, and that they depend on seed and position alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from surface.forms_random import _ARGS

import agentic_ray.array as xp

SINGLE = {
    name: tuple(float(arg) if "." in arg else int(arg) for arg in args.split(", ")) if args else ()
    for name, args in _ARGS.items()
}
HEAVY = {"standard_cauchy", "zipf", "f", "noncentral_f", "pareto"}
"""Distributions whose moments are slow to settle: their quantiles are compared."""
COUNT = 60_000


@pytest.mark.parametrize("name", SINGLE)
def test_distributed_as_numpys(name: str) -> None:
    ours = getattr(xp.random.default_rng(5), name)(*SINGLE[name], size=COUNT).compute()
    wanted = getattr(np.random.default_rng(6), name)(*SINGLE[name], size=COUNT)
    assert ours.dtype == wanted.dtype
    levels = np.linspace(0.05, 0.95, 10)
    # A quantile's error is at most about one in sqrt(n) of the share of elements below it.
    below = [(ours <= edge).mean() for edge in np.quantile(wanted, levels)]
    exact = [(wanted <= edge).mean() for edge in np.quantile(wanted, levels)]
    np.testing.assert_allclose(below, exact, atol=6 / np.sqrt(COUNT))
    if name not in HEAVY:
        error = wanted.std() / np.sqrt(COUNT)
        assert abs(ours.mean() - wanted.mean()) < 7 * error + 1e-12
        np.testing.assert_allclose(ours.std(), wanted.std(), rtol=0.1)


def _draws(chunks: Any) -> list[Any]:
    rng = xp.random.default_rng(11)
    loc = xp.arange(300, chunks=chunks[0]) * 1.0
    return [
        rng.normal(size=(300, 200), chunks=chunks),
        rng.normal(loc[:, None], xp.ones(200), chunks=chunks),
        rng.poisson(xp.asarray(np.linspace(0, 9, 40_000), chunks=chunks[0] * 9)),
        rng.integers(0, loc + 1, dtype="int32"),
        rng.multinomial(9, [0.2, 0.3, 0.5], size=(300, 30), chunks=chunks),
        rng.multinomial(xp.asarray(np.arange(30_000) % 9, chunks=chunks[1]), [0.2, 0.8]),
        rng.dirichlet([1.0, 2.0], size=20_000, chunks=chunks[0]),
        rng.multivariate_normal([0, 1], [[2, 1], [1, 2]], size=700, chunks=chunks[1]),
        rng.permutation(500, chunks=chunks[0]),
        rng.choice(50, 400, p=np.arange(50) / np.arange(50).sum(), chunks=chunks[0]),
        rng.choice(50, 20, replace=False, p=np.arange(50) / np.arange(50).sum()),
        rng.permuted(xp.asarray(np.arange(600).reshape(30, 20), chunks=chunks[1] // 10), axis=1),
        rng.standard_gamma(2.0, size=(300, 200), dtype="f4", chunks=chunks),
    ]


def test_numbers_do_not_depend_on_chunks() -> None:
    for one, other in zip(_draws((300, 200)), _draws((77, 50)), strict=True):
        np.testing.assert_array_equal(one.compute(), other.compute())


def test_parameters_of_each_element() -> None:
    rng = xp.random.default_rng(0)
    loc = np.repeat([0.0, 100.0, -50.0], 20_000)
    found = rng.normal(xp.asarray(loc, chunks=7_000), 2.0).compute().reshape(3, -1)
    np.testing.assert_allclose(found.mean(axis=1), [0, 100, -50], atol=0.1)
    np.testing.assert_allclose(found.std(axis=1), 2, rtol=0.05)


def test_several_numbers_each() -> None:
    rng = xp.random.default_rng(1)
    shares = rng.multinomial(20, [0.2, 0.3, 0.5], size=20_000).compute()
    np.testing.assert_allclose(shares.mean(axis=0), [4, 6, 10], rtol=0.02)
    vectors = rng.multivariate_normal([1, -1], [[2, 0.8], [0.8, 1]], size=40_000).compute()
    np.testing.assert_allclose(vectors.mean(axis=0), [1, -1], atol=0.05)
    np.testing.assert_allclose(np.cov(vectors.T), [[2, 0.8], [0.8, 1]], atol=0.06)
    parts = rng.dirichlet([1.0, 2.0, 3.0], size=20_000).compute()
    np.testing.assert_allclose(parts.mean(axis=0), [1 / 6, 2 / 6, 3 / 6], atol=0.01)
    colors = rng.multivariate_hypergeometric([5, 10, 5], 8, size=20_000).compute()
    np.testing.assert_allclose(colors.mean(axis=0), [2, 4, 2], rtol=0.03)


def test_choices_have_their_probabilities() -> None:
    rng = xp.random.default_rng(2)
    p = np.asarray([0.1, 0.0, 0.6, 0.3])
    drawn = rng.choice(4, 40_000, p=p).compute()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 40_000, p, atol=0.015)
    firsts = [rng.choice(4, 2, replace=False, p=p).compute() for _ in range(600)]
    assert all(one != other for one, other in firsts)
    share = np.bincount([one for one, _ in firsts], minlength=4) / 600
    np.testing.assert_allclose(share, p, atol=0.08)


def test_orders_are_of_equal_probability() -> None:
    rng = xp.random.default_rng(3)
    rows = rng.permuted(np.tile(np.arange(3), (6_000, 1)), axis=1).compute()
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 6
    np.testing.assert_allclose(counts / 6_000, 1 / 6, atol=0.03)


def test_calls_and_children_differ() -> None:
    rng = xp.random.default_rng(4)
    first, second = rng.random(100).compute(), rng.random(100).compute()
    children = [child.random(100).compute() for child in rng.spawn(2)]
    for i, one in enumerate([first, second, *children]):
        for other in [first, second, *children][:i]:
            assert not np.array_equal(one, other)
    assert xp.random.default_rng(4).bytes(9) == xp.random.default_rng(4).bytes(9)


@pytest.mark.parametrize(
    ("name", "instead"), [("rand", "random"), ("randn", "standard_normal"), ("seed", "default_rng")]
)
def test_numpys_hidden_generator_is_not_here(name: str, instead: str) -> None:
    with pytest.raises(AttributeError, match=instead):
        getattr(xp.random, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        xp.random.nonsense


def test_errors_in_parameters_of_each_element_come_at_the_call() -> None:
    with pytest.raises(ValueError, match="scale < 0"):
        xp.random.default_rng(0).normal(0, xp.asarray([1.0, -1.0], chunks=1))
