"""Quantiles over several chunks have NumPy's bits, and nothing is brought into one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import INTEGERS, REALS, chunkings

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array import quantiles, ranks
from agentic_ray.array.core import evaluate
from agentic_ray.array.quantiles import METHODS
from agentic_ray.graph import Ref, replace_refs

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def check(ours: xp.Array, theirs: Any) -> None:
    """The same value to the bit; NaN has no payload and zero no sign that NumPy promises."""
    found, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == found.shape == theirs.shape
    assert ours.dtype == found.dtype
    if np.isnan(theirs).any() or not theirs.size:
        # One quantile that is NaN has the array's own dtype in NumPy, also of no levels; the first
        # of several lanes gives all of them its dtype.
        found = found.astype(theirs.dtype)
    assert found.dtype == theirs.dtype
    np.testing.assert_array_equal(found, theirs)


@st.composite
def _levels(draw: Any, top: int) -> Any:
    """A number or a vector, of several types."""
    fraction = st.sampled_from([0.0, 1.0, 0.5, 0.25, 1 / 3, 0.1]) | st.floats(0, 1)
    one = fraction.map(lambda q: q * top)
    whole = st.integers(0, top)
    dtype = draw(st.sampled_from(["float64", "float32", "float16"]))
    many = st.lists(one, max_size=6).map(lambda q: np.asarray(q, dtype))
    return draw(one | whole | one.map(np.dtype(dtype).type) | many | st.lists(one, max_size=6)
                | st.lists(whole, min_size=1, max_size=4))  # fmt: skip


@st.composite
def _arrays(draw: Any, shape: tuple[int, ...]) -> tuple[xp.Array, Any]:
    dtype = np.dtype(draw(st.sampled_from(["bool", "float16", *INTEGERS, *REALS])))
    elements: Any = hnp.from_dtype(dtype)
    if dtype.kind == "f":
        few = st.sampled_from([1.0, -2.5, 3.0, np.nan, np.inf])
        clean = hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
        elements = draw(st.sampled_from([elements, clean, few]))
    values = draw(hnp.arrays(dtype, shape, elements=elements))
    return xp.asarray(values, chunks=draw(chunkings(shape))), values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("selecting", [True, False])
@settings(max_examples=40)
@given(data=st.data())
def test_as_in_numpy(method: str, selecting: bool, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=12))
    ours, theirs = data.draw(_arrays(shape))
    axis = data.draw(st.none() | st.integers(0, theirs.ndim - 1))
    options: Any = {"axis": axis, "method": method, "keepdims": data.draw(st.booleans())}
    name, top = data.draw(st.sampled_from([("quantile", 1), ("percentile", 100)]))
    name = data.draw(st.sampled_from(["", "nan"])) + name
    q = data.draw(_levels(top))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "SAMPLES", 3)
        patch.setattr(ranks, "SAMPLES_PER_RUN", 0)
        if not selecting:
            patch.setattr(quantiles, "MOST_SELECTED", 0)
        try:
            expected = getattr(np, name)(theirs, q, **options)
        except TypeError:  # booleans cannot be interpolated
            with pytest.raises(TypeError, match="boolean"):
                getattr(xp, name)(ours, q, **options)
        else:
            check(getattr(xp, name)(ours, q, **options), expected)


@pytest.mark.parametrize("shape", [(30_000,), (300, 100), (1, 30_000)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
def test_many_elements_and_levels(shape: tuple[int, ...], dtype: str) -> None:
    values = (np.random.default_rng(0).standard_normal(shape) * 1000).astype(dtype)
    x = xp.asarray(values, chunks=(7_000,) if len(shape) == 1 else (70, 4_000))
    for q in (0.5, np.linspace(0, 1, 7), np.linspace(0, 1, 200)):
        check(xp.quantile(x, q), np.quantile(values, q))
        last = len(shape) - 1 if shape[0] == 1 else None
        check(xp.quantile(x, q, last), np.quantile(values, q, axis=last))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int16", "uint8", "bool"])
@pytest.mark.parametrize("length", [1, 2, 29_998, 29_999])
def test_medians(length: int, dtype: str) -> None:
    values = (np.random.default_rng(0).standard_normal(length) * 1000).astype(dtype)
    for chunks in (7_000, -1):
        x = xp.asarray(values, chunks=chunks)
        check(xp.median(x), np.median(values))
        check(xp.nanmedian(x, keepdims=True), np.nanmedian(values, keepdims=True))
    y = xp.asarray(np.stack([values, values[::-1], values]), chunks=(2, 7_000))
    rows = np.asarray(y)
    check(xp.median(y, axis=1), np.median(rows, axis=1))
    check(xp.median(y, axis=0, keepdims=True), np.median(rows, axis=0, keepdims=True))
    check(xp.median(y), np.median(rows))


def test_medians_of_nan() -> None:
    values = np.arange(100.0)
    values[[3, 50]] = np.nan
    for chunks in (7, -1):
        x = xp.asarray(values, chunks=chunks)
        assert np.isnan(float(xp.median(x)))
        assert float(xp.nanmedian(x)) == np.nanmedian(values)


def test_nan_is_all_or_nothing() -> None:
    values = np.arange(100.0)
    values[[3, 50, 99]] = np.nan
    x = xp.asarray(values, chunks=7)
    assert np.isnan(np.asarray(xp.percentile(x, [0, 50, 100]))).all()
    check(xp.nanpercentile(x, [0, 50, 100]), np.nanpercentile(values, [0, 50, 100]))
    assert float(xp.nanmedian(x)) == np.nanmedian(values)
    assert np.isnan(float(xp.nanmedian(x * np.nan)))


def test_nothing_is_computed_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    x = xp.asarray(np.arange(1000.0), chunks=100)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_compute", None)
        found = xp.quantile(x, [0.1, 0.5]) + xp.median(x)
    check(found, np.quantile(np.arange(1000.0), [0.1, 0.5]) + 499.5)


@pytest.mark.parametrize("chunks", [(1_000,), (20, 500)])
def test_no_task_reads_more_than_a_few_chunks(
    chunks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "SAMPLES", 50)
    monkeypatch.setattr(ranks, "SAMPLES_PER_RUN", 0)
    values = np.random.default_rng(1).random((40_000,) if len(chunks) == 1 else (400, 100))
    x = xp.asarray(values, chunks=chunks)
    tasks, blocks = evaluate.plan([xp.quantile(x, [0.1, 0.5, 0.9])._node])
    assert len(tasks) > 60
    made: dict[str, Any] = {}
    largest = 0
    for task in tasks:
        read: list[Any] = []
        args = replace_refs(task.args, made.__getitem__)
        _arrays_in(args, read)
        largest = max(largest, sum(array.nbytes for array in read))
        function: Any = task.codelet.cpu
        made[task.key] = function(*args, **task.kwargs, xp=np)
    assert largest <= 3 * max(values[:1_000].nbytes, 20 * 500 * 8)
    (only,) = blocks[0]
    assert isinstance(only, Ref)
    np.testing.assert_array_equal(made[only.key], np.quantile(values, [0.1, 0.5, 0.9]))


def _arrays_in(value: Any, found: list[Any]) -> None:
    if isinstance(value, np.ndarray):
        found.append(value)
    elif isinstance(value, list | tuple):
        for element in value:
            _arrays_in(element, found)


def test_what_is_no_quantile() -> None:
    x = xp.asarray(np.arange(10.0), chunks=4)
    for q in (-0.1, [0.5, 1.5], np.nan):
        with pytest.raises(ValueError, match=r"range \[0, 1\]"):
            xp.quantile(x, q)
    with pytest.raises(ValueError, match=r"\[0, 100\]"):
        xp.nanpercentile(x, 101)
    with pytest.raises(ValueError, match=r"'middle'.*inverted_cdf.*hazen.*linear.*nearest"):
        xp.quantile(x, 0.5, method="middle")
    with pytest.raises(ValueError, match="scalar or 1d"):
        xp.quantile(x, [[[0.5]]])
    for shape in ((0,), (0, 3)):
        with pytest.warns(RuntimeWarning, match="Mean of empty slice|invalid value"):
            assert np.isnan(xp.median(xp.zeros(shape)))
    with pytest.raises(TypeError, match="real"):
        xp.quantile(x + 1j, 0.5)
    with pytest.raises(np.exceptions.AxisError):
        xp.quantile(x, 0.5, 1)


def test_through_the_cluster(ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    values = np.random.default_rng(2).random((400, 50))
    values[3, 4] = np.nan
    x = xp.asarray(values, chunks=(70, 20))
    check(xp.nanpercentile(x, [5, 50, 95]), np.nanpercentile(values, [5, 50, 95]))
    check(xp.quantile(x[10:], 0.3), np.quantile(values[10:], 0.3))
