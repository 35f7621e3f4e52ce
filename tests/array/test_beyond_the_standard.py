"""What users of NumPy expect beside the standard: random, NaN, quantiles, blocks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import REALS, arrays, chunkings, same, shapes

import agentic_ray.array as xp
from agentic_ray.errors import InvalidArgumentError

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@given(st.data())
def test_random_numbers_do_not_depend_on_chunks(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    draws: list[Any] = [
        lambda rng, c: rng.random(shape, chunks=c),
        lambda rng, c: rng.standard_normal(shape, np.float32, chunks=c),
        lambda rng, c: rng.integers(-3, 1000, shape, chunks=c),
        lambda rng, c: rng.poisson(3.0, shape, chunks=c),
    ]
    seed = data.draw(st.integers(0, 5))
    for draw in draws:
        whole = draw(xp.random.default_rng(seed), -1 if shape else "auto")
        cut = draw(xp.random.default_rng(seed), data.draw(chunkings(shape)))
        same(cut, np.asarray(whole))


def test_random_tiles_meet_and_look_random() -> None:
    rng = xp.random.default_rng(7)
    whole = np.asarray(rng.random((400, 300)))
    cut = np.asarray(xp.random.default_rng(7).random((400, 300), chunks=(90, 70)))
    np.testing.assert_array_equal(whole, cut)
    assert abs(whole.mean() - 0.5) < 0.01
    assert np.unique(whole).size == whole.size
    other = np.asarray(rng.random((400, 300)))
    assert abs(np.corrcoef(whole.ravel(), other.ravel())[0, 1]) < 0.02
    order = np.asarray(rng.permutation(1000))
    assert sorted(order) == list(range(1000))
    with pytest.raises(ValueError, match="low >= high"):
        rng.integers(3, 3, 5)


NAN_FUNCTIONS = ["nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"]


@pytest.mark.parametrize("name", NAN_FUNCTIONS)
@given(data=st.data())
def test_nan_functions(name: str, data: st.DataObject) -> None:
    ours, theirs = data.draw(arrays(("float64",), shapes.filter(lambda s: 0 not in s), small=True))
    theirs = np.where(theirs == 2, np.nan, theirs)
    ours = xp.where(ours == 2, np.nan, ours)
    axis = data.draw(st.none() | st.integers(0, theirs.ndim - 1) if theirs.ndim else st.none())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(getattr(xp, name)(ours, axis=axis), getattr(np, name)(theirs, axis=axis), rtol=1e-12)


@given(arrays(REALS, shapes.filter(lambda s: 0 not in s), small=True), st.data())
def test_quantiles(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    axis = data.draw(st.none() | st.integers(0, theirs.ndim - 1) if theirs.ndim else st.none())
    q = data.draw(st.sampled_from([0.5, [0.0, 0.3, 1.0]]))
    same(xp.quantile(ours, q, axis), np.quantile(theirs, q, axis=axis), rtol=1e-6)
    same(xp.median(ours, axis, keepdims=True), np.median(theirs, axis=axis, keepdims=True))


@given(arrays(("int64",), st.tuples(st.integers(0, 30)), small=True))
def test_histograms_and_counts(pair: Any) -> None:
    ours, theirs = pair
    for options in ({"bins": 4}, {"bins": [-3, 0, 1, 4]}, {"bins": 3, "range": (-2, 3)}):
        for found, expected in zip(
            xp.histogram(ours, **options), np.histogram(theirs, **options), strict=True
        ):
            same(found, expected)
    same(xp.bincount(ours + 5, minlength=4), np.bincount(theirs + 5, minlength=4))
    same(
        xp.bincount(ours + 5, weights=ours * 0.5),
        np.bincount(theirs + 5, weights=theirs * 0.5),
    )


def test_maps_over_blocks() -> None:
    array = np.arange(35.0).reshape(5, 7)
    x = xp.asarray(array, chunks=(2, 3))
    same(xp.map_blocks(lambda b: b * 2, x), array * 2)
    same(xp.map_blocks(lambda b, c: b + c, x, xp.asarray(array[0], chunks=2)), array + array[0])
    total = xp.map_blocks(
        lambda b: b.sum(keepdims=True), x, dtype=float, chunks=((1, 1, 1), (1, 1, 1))
    )
    assert total.shape == (3, 3)
    assert float(total.sum()) == array.sum()
    smooth = xp.map_overlap(
        lambda b: b + np.roll(b, 1, axis=1) + np.roll(b, -1, axis=1), x, depth=(0, 1),
        boundary="nearest",
    )  # fmt: skip
    wide = np.pad(array, ((0, 0), (1, 1)), mode="edge")
    same(smooth, array + wide[:, :-2] + wide[:, 2:])
    same(
        xp.apply_gufunc(lambda a, b: (a * b).sum(-1), "(i),(i)->()", x, x, output_dtypes=float),
        (array * array).sum(-1),
    )
    low, high = xp.apply_gufunc(
        lambda a: (a.min(-1), a.max(-1)), "(i)->(),()", x, output_dtypes=[float, float]
    )
    same(low, array.min(-1))
    same(high, array.max(-1))
    with pytest.raises(InvalidArgumentError, match="signature"):
        xp.apply_gufunc(np.sum, "i->()", x)


@given(st.data())
def test_covariance_and_average(data: st.DataObject) -> None:
    ours, theirs = data.draw(arrays(("float64",), (3, 5), small=True))
    same(xp.cov(ours), np.cov(theirs), rtol=1e-12)
    weights = np.arange(1.0, 6.0)
    same(
        xp.average(ours, axis=1, weights=xp.asarray(weights)),
        np.average(theirs, axis=1, weights=weights),
        rtol=1e-12,
    )


def test_as_strided_of_numpys_sees_the_memory_around_a_view() -> None:
    """SciPy's circulant goes backwards from the middle of a vector by it."""
    as_strided = np.lib.stride_tricks.as_strided
    for matrix in np.arange(24.0).reshape(4, 6), np.asfortranarray(np.arange(24.0).reshape(4, 6)):
        x = xp.asarray(matrix, order="K", chunks=3)
        for view in (
            lambda v: as_strided(v[1:, 3:], (2, 3), (-v.strides[0], -v.strides[1])),
            lambda v: as_strided(v.T, (6, 2), v.T.strides),
            lambda v: as_strided(v[2, 3:], (3,), (-v.strides[1],)),
            lambda v: as_strided(v.ravel()[5:], (3, 3), (-8, 8)),
        ):
            np.testing.assert_array_equal(view(x), view(matrix))
