"""Reductions, scans, ufuncs and histograms of random arrays in random chunks, against NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surface.harness import Outcome, difference, plain

import agentic_ray.array as xp

DTYPES = str.split(
    """
    f8 f4 f2 i8 i4 i1 u1 u8 ? c16 m8[s]
    """
)
REDUCING = (
    "sum prod mean std var max min ptp any all argmax argmin nansum nanmean nanvar nanmax nanmin"
)
SCANS = "cumsum cumprod nancumsum nancumprod"
FOLDING = str.split(
    """
    add multiply maximum minimum fmax fmin logical_and logical_or logical_xor bitwise_xor
    gcd lcm hypot logaddexp subtract divide remainder
    """
)


@st.composite
def arrays(draw: Any, dtypes: list[str] = DTYPES) -> tuple[np.ndarray, Any]:
    """An array, and the chunks that it is cut in."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.integers(-4, 5, shape) / (2 if dtype.kind in "fc" else 1)
    if dtype.kind in "u?":
        values = abs(values)
    array = values.astype(dtype)
    if dtype.kind == "c":
        array = array + 1j * rng.integers(-4, 5, shape)
    if dtype.kind in "fc" and draw(st.booleans()) and array.size:
        array.flat[rng.integers(0, array.size)] = np.nan
    return array, draw(st.integers(1, 4))


def _outcome(call: Callable[[], Any]) -> Outcome:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return Outcome(plain(call()))
        except Exception as error:  # an outcome as well
            return Outcome(error=error)


def _agree(name: str, array: np.ndarray, chunks: Any, *args: Any, **options: Any) -> None:
    wanted = _outcome(lambda: _function(np, name)(array, *args, **options))
    for cut in (chunks, "auto"):
        x = xp.asarray(array, chunks=cut)
        found = _outcome(lambda x=x: _function(xp, name)(x, *args, **options))
        assert not difference(found, wanted), (name, array, cut, args, options)


def _function(space: Any, name: str) -> Any:
    for part in name.split("."):
        space = getattr(space, part)
    return space


def _axis(draw: Any, array: np.ndarray) -> int | None:
    return draw(st.one_of(st.none(), st.integers(-array.ndim, array.ndim - 1)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_reductions(data: Any) -> None:
    array, chunks = data.draw(arrays())
    name = data.draw(st.sampled_from(REDUCING.split()))
    options: dict[str, Any] = {"axis": _axis(data.draw, array)}
    if data.draw(st.booleans()):
        options["keepdims"] = True
    if name in ["std", "var", "nanvar"] and data.draw(st.booleans()):
        options["ddof"] = 1
    starting = name in ["sum", "prod", "max", "min", "nansum", "nanmax"]
    if starting and array.dtype.kind != "m" and data.draw(st.booleans()):
        options["initial"] = 1
    if "arg" not in name and name != "ptp" and data.draw(st.booleans()):
        mask = np.random.default_rng(1).random(array.shape) < 0.6
        if name not in ["max", "min", "nanmax", "nanmin"] or "initial" in options:
            options["where"] = mask
    _agree(name, array, chunks, **options)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_scans(data: Any) -> None:
    array, chunks = data.draw(arrays())
    name = data.draw(st.sampled_from(SCANS.split()))
    _agree(name, array, chunks, axis=_axis(data.draw, array))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_methods_of_ufuncs(data: Any) -> None:
    name = data.draw(st.sampled_from(FOLDING))
    integers = (
        ["i8", "u1", "?"] if name in ("gcd", "lcm", "bitwise_xor") else ["f8", "f4", "i8", "?"]
    )
    array, chunks = data.draw(arrays(integers))
    axis = data.draw(st.integers(0, array.ndim - 1))
    method = data.draw(st.sampled_from(["reduce", "accumulate", "reduceat"]))
    if method == "reduceat":
        length = array.shape[axis]
        places = data.draw(st.lists(st.integers(0, max(length - 1, 0)), max_size=5))
        _agree(f"{name}.reduceat", array, chunks, places, axis)
    elif method == "reduce":
        _agree(f"{name}.reduce", array, chunks, axis=axis,
               keepdims=data.draw(st.booleans()))  # fmt: skip
    else:
        _agree(f"{name}.accumulate", array, chunks, axis)


@pytest.mark.parametrize(
    "bins", ["auto", "doane", "fd", "rice", "scott", "sqrt", "stone", "sturges"]
)
@pytest.mark.parametrize("kind", ["normal", "skewed", "integers", "float32", "constant", "two"])
def test_bins_by_name_count_every_element(bins: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    array = {
        "normal": rng.normal(size=1_000),
        "skewed": rng.exponential(size=700),
        "integers": rng.integers(-30, 90, 900),
        "float32": rng.normal(size=500).astype("f4"),
        "constant": np.full(50, 2.5),
        "two": np.array([1.0, 2.0]),
    }[kind]
    _agree("histogram", array, 130, bins=bins)
    counts, _ = xp.histogram(xp.asarray(array, chunks=130), bins=bins)
    assert int(counts.sum()) == array.size


# --- errors and warnings that are in the data --------------------------------------------


@pytest.mark.parametrize("chunks", ["auto", 1])
def test_errors_in_the_data_come_at_the_call(chunks: Any) -> None:
    rows = xp.asarray([[np.nan, np.nan], [1.0, 2.0]], chunks=chunks)
    for function in (xp.nanargmax, xp.nanargmin):
        with pytest.raises(ValueError, match="All-NaN slice encountered"):
            function(rows, axis=1)
        assert function(rows, axis=0).compute().tolist() == [1, 1]
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
        xp.average(rows, axis=0, weights=xp.asarray([1.0, -1.0], chunks=chunks))
    with pytest.raises(ValueError, match="invalid entry in choice array"):
        xp.choose(xp.asarray([0, 5], chunks=chunks), [[1, 2], [3, 4]])


@pytest.mark.parametrize("chunks", ["auto", 1])
def test_warnings_are_numpys(chunks: Any) -> None:
    def cut(values: Any) -> xp.Array:
        return xp.asarray(values, chunks=chunks)

    cases: list[tuple[str, Callable[[], Any]]] = [
        ("Mean of empty slice", lambda: xp.mean(xp.zeros((0, 2)))),
        ("Mean of empty slice", lambda: xp.nanmean(cut([[np.nan, 1.0]]), axis=0)),
        ("Degrees of freedom <= 0", lambda: xp.std(cut([1.0]), ddof=1)),
        ("Degrees of freedom <= 0", lambda: xp.nanvar(cut([np.nan, 1.0]), ddof=1)),
        ("All-NaN slice", lambda: xp.nanmax(cut([np.nan, np.nan]))),
        ("divide by zero", lambda: xp.log(cut([0.0, 1.0]))),
        ("invalid value", lambda: xp.sqrt(cut([-1.0, 1.0]))),
        ("overflow", lambda: xp.exp(cut([1e4, 1.0]))),
    ]
    for text, call in cases:
        with pytest.warns(RuntimeWarning, match=text):
            call().compute()


def test_errstate_holds_where_values_are_computed() -> None:
    with xp.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xp.log(xp.asarray([0.0])).compute()[0] == -np.inf
    with xp.errstate(divide="raise"), pytest.raises(FloatingPointError):
        xp.log(xp.asarray([0.0])).compute()


@pytest.mark.parametrize("dtype", [object, "U3", "S2", str, bytes])
def test_objects_and_texts_are_refused_everywhere(dtype: Any) -> None:
    x = xp.asarray([1.0, 2.0], chunks=1)
    calls: list[Callable[[], Any]] = [
        lambda: xp.zeros(2, dtype=dtype), lambda: xp.ones(2, dtype=dtype),
        lambda: xp.empty(2, dtype=dtype), lambda: xp.full(2, 1, dtype=dtype),
        lambda: xp.zeros_like(x, dtype=dtype), lambda: xp.full_like(x, 1, dtype=dtype),
        lambda: xp.arange(3, dtype=dtype), lambda: xp.eye(2, dtype=dtype),
        lambda: xp.asarray([1, 2], dtype=dtype), lambda: xp.asarray(x, dtype=dtype),
        lambda: xp.array([1, 2], dtype), lambda: xp.asarray(np.array([1, 2]).astype(dtype)),
        lambda: x.astype(dtype), lambda: xp.astype(x, dtype), lambda: x.view(dtype),
        lambda: xp.sum(x, dtype=dtype), lambda: xp.mean(x, dtype=dtype),
        lambda: xp.cumsum(x, dtype=dtype), lambda: xp.var(x, dtype=dtype),
        lambda: xp.add(x, x, dtype=dtype), lambda: xp.add.reduce(x, dtype=dtype),
        lambda: xp.linspace(0, 1, 3, dtype=dtype), lambda: xp.identity(2, dtype=dtype),
        lambda: xp.random.default_rng(0).random(3, dtype=dtype),
        lambda: xp.random.default_rng(0).integers(3, size=2, dtype=dtype),
        lambda: xp.cov(x, dtype=dtype),
    ]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises((TypeError, ValueError)):
            pytest.fail(f"call {number} gave {call()!r}")


# --- ufuncs as objects -------------------------------------------------------------------


def test_ufuncs_are_pickled_by_name() -> None:
    import pickle

    for ufunc in (xp.add, xp.abs, xp.conj, xp.divmod, xp.arctan2):
        assert pickle.loads(pickle.dumps(ufunc)) is ufunc


def test_masked_operations_do_not_warn_where_they_are_left_out() -> None:
    x = xp.asarray([1.0, 2.0, 3.0], chunks=2)
    zero = xp.asarray([0.0, 1.0, 0.0], chunks=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xp.divide(x, zero, where=zero != 0, out=xp.full(3, -1.0))
        np.testing.assert_array_equal(found.compute(), [-1, 2, -1])


def test_out_is_assigned_and_returned() -> None:
    x, out = xp.asarray([[1.0, 2.0], [3.0, 4.0]], chunks=1), xp.zeros(2, chunks=1)
    for function in (xp.sum, xp.prod, xp.max, xp.mean, xp.median, xp.std, xp.ptp):
        assert function(x, axis=0, out=out) is out
        np.testing.assert_array_equal(out.compute(), getattr(np, function.__name__)(x.compute(), 0))
    whole = xp.zeros((3, 2))
    xp.sum(x, axis=0, out=whole[1])
    np.testing.assert_array_equal(whole.compute(), [[0, 0], [4, 6], [0, 0]])
    memory = np.zeros(2)
    assert xp.sum(x, axis=1, out=memory) is memory
    np.testing.assert_array_equal(memory, [3, 7])


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1e8), st.integers(40, 900), st.sampled_from(["f8", "c16"]))
def test_spreads_do_not_suffer_from_large_means(mean: float, chunk: int, kind: str) -> None:
    """As exactly computed as NumPy's over the whole array, in whatever chunks."""
    values = np.random.default_rng(chunk).normal(mean, 1, (2000, 2))
    exact = []
    for column in values.T:
        numbers = [int(x * 2.0**80) for x in column.tolist()]
        squares = len(numbers) * sum(n * n for n in numbers) - sum(numbers) ** 2
        exact.append(float(Fraction(squares, len(numbers) ** 2 * 2**160)))
    if kind == "c16":  # its variance is that of both parts together
        values, exact = values[:, :1] + 1j * values[:, 1:], [sum(exact)]
    x = xp.asarray(values, chunks=(chunk, 1))
    np.testing.assert_allclose(np.asarray(x.var(0)), exact, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(x.T.std(1)), np.sqrt(exact), rtol=1e-12)
    scores = (x - x.mean(0)) / x.std(0)
    gram = np.asarray(scores.conj().T @ scores)
    np.testing.assert_allclose(gram.diagonal(), 2000, rtol=1e-12)
