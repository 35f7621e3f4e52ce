"""`apply_gufunc`, `vectorize` and functions along axes, against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError

ARRAY = np.random.default_rng(3).normal(size=(4, 5, 6))


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ray_session" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "runs_locally", lambda roots: True)


def cut(array: Any = ARRAY) -> xp.Array:
    return xp.asarray(array, chunks=tuple(max(1, -(-n // 2)) for n in array.shape))


def same(found: xp.Array, wanted: Any) -> None:
    value = found.compute()
    wanted = np.asarray(wanted)
    assert found.dtype == value.dtype == wanted.dtype
    assert found.shape == value.shape == wanted.shape
    np.testing.assert_allclose(value, wanted)


# --- apply_gufunc ------------------------------------------------------------------------------


@given(st.integers(-3, 2), st.booleans(), st.booleans())
def test_one_core_axis_anywhere(axis: int, keepdims: bool, vectorize: bool) -> None:
    def spread(a: Any) -> Any:
        return a.max() - a.min() if vectorize else a.max(-1) - a.min(-1)

    found = xp.apply_gufunc(
        spread, "(i)->()", cut(), axis=axis, keepdims=keepdims, vectorize=vectorize
    )
    same(found, np.ptp(ARRAY, axis=axis, keepdims=keepdims))


@given(st.permutations([0, 1, 2]), st.permutations([0, 1, 2]))
def test_core_axes_anywhere(where: list[int], back: list[int]) -> None:
    def turned(a: Any) -> Any:
        return np.swapaxes(a, -1, -2) * 2

    found = xp.apply_gufunc(turned, "(i,j)->(j,i)", cut(), axes=[tuple(where[:2]), tuple(back[:2])])
    moved = np.moveaxis(ARRAY, where[:2], (-2, -1))
    same(found, np.moveaxis(turned(moved), (-2, -1), back[:2]))


def test_several_outputs_and_new_core_axes() -> None:
    x = cut()
    low, high = xp.apply_gufunc(lambda a: (a.min(-1), (a > 0).sum(-1)), "(i)->(),()", x)
    same(low, ARRAY.min(-1))
    same(high, (ARRAY > 0).sum(-1))
    found = xp.apply_gufunc(
        lambda a: np.percentile(a, [10, 90], axis=-1).transpose(1, 2, 0), "(i)->(q)", x,
        output_dtypes=float, output_sizes={"q": 2},
    )  # fmt: skip
    same(found, np.percentile(ARRAY, [10, 90], axis=-1).transpose(1, 2, 0))
    dots = xp.apply_gufunc(np.matmul, "(i,j),(j,k)->(i,k)", x, np.swapaxes(ARRAY, 1, 2))
    same(dots, ARRAY @ np.swapaxes(ARRAY, 1, 2))
    same(xp.apply_gufunc(lambda a, b: a * b, "(),()->()", x, 3.0), ARRAY * 3)


def test_outputs_that_do_not_fit_are_refused_by_name(ray_session: ar.Session) -> None:
    x = cut()

    def pair(a: Any) -> Any:
        return a.min(-1), a.max(-1)

    cases: list[tuple[Any, str, Any, str]] = [
        (pair, "(i)->()", float, "pair.*2 values, expected 1"),
        (pair, "(i)->(),(),()", [float] * 3, "pair.*2 values, expected 3"),
        (lambda a: a.min(-1), "(i)->(),()", [float] * 2, "one value, expected 2"),
        (lambda a: a, "(i)->()", float, r"\(2, 3, 6\), expected \(2, 3\)"),
        (lambda a: a.min(0), "(i)->()", float, "expected"),
        (lambda a: a.min(-1), "(i)->()", int, "float64, expected int64"),
        (lambda a: (a.min(-1), a), "(i)->(),()", [float, float], "for output 1"),
    ]
    for function, signature, dtype, text in cases:
        found = xp.apply_gufunc(function, signature, x, output_dtypes=dtype)
        with pytest.raises(BlockResultError, match=text):
            ar.compute(*(found if isinstance(found, tuple) else (found,)))


def test_bad_gufuncs_are_refused_at_the_call() -> None:
    x = cut()

    def f(a: Any) -> Any:
        return a

    bad: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        (("i->i", x), {}, "signature"),
        (("(i)->(i)", x, x), {}, "takes 1"),
        (("(i)->(j)", x), {}, "output_sizes"),
        (("(i,j,k,l)->()", x), {}, "does not fit"),
        (("(i)->()", x), {"axis": 0, "axes": [(0,), ()]}, "not both"),
        (("(i,j)->()", x), {"axis": 0}, "use axes"),
        (("(i,j)->()", x), {"axes": [(0, 0), ()]}, "twice"),
        (("(i)->(i)", x), {"axes": [(0,)]}, "entries"),
        (("(i)->(i)", x), {"keepdims": True}, "keepdims"),
        (("(i)->()", x), {"allow_rechunk": False}, "several chunks"),
        (("(i)->(),()", x), {"output_dtypes": [float]}, "1 dtypes for 2"),
        (("(i)->(q)", x), {"output_sizes": {"q": -1}}, "length"),
    ]
    for args, options, text in bad:
        with pytest.raises(InvalidArgumentError, match=text):
            xp.apply_gufunc(f, *args, **options)
    with pytest.raises(np.exceptions.AxisError):
        xp.apply_gufunc(f, "(i)->()", x, axis=3)
    with pytest.raises(InvalidTypeError, match="'k'"):
        xp.apply_gufunc(f, "(i)->()", x, k=1)
    with pytest.raises(InvalidTypeError, match="string"):
        xp.apply_gufunc(f, x, x)  # type: ignore[arg-type]


# --- element by element ------------------------------------------------------------------------


def test_functions_of_elements() -> None:
    x = cut()

    def gap(a: float, b: float, sign: int = 1) -> float:
        return sign * (a - b if a > b else 0.5)

    plain = np.vectorize(gap)
    ours = xp.vectorize(gap)
    assert ours.__name__ == plain.__name__ == "gap"
    same(ours(x, 0.1), plain(ARRAY, 0.1))
    same(ours(x, ARRAY[0, 0]), plain(ARRAY, ARRAY[0, 0]))
    same(ours(x, b=cut(ARRAY[:1]), sign=-1), plain(ARRAY, ARRAY[:1], sign=-1))
    same(ours(ARRAY[0, 0, 0], x), plain(ARRAY[0, 0, 0], ARRAY))
    np.testing.assert_array_equal(ours([1, 2], 1.5), plain([1, 2], 1.5))
    both = xp.vectorize(divmod)
    for found, wanted in zip(both(x, 0.3), np.vectorize(divmod)(ARRAY, 0.3), strict=True):
        same(found, wanted)
    same(xp.vectorize(math.floor, otypes=[np.int32])(x), np.floor(ARRAY).astype(np.int32))

    def poly(p: Any, a: float) -> float:
        return float(sum(c * a**i for i, c in enumerate(p)))

    same(xp.vectorize(poly, excluded=[0])([1, 2], x), 1 + 2 * ARRAY)
    same(xp.vectorize(poly, excluded={"p"})(a=x, p=[1, 2]), 1 + 2 * ARRAY)
    same(xp.vectorize(np.mean, signature="(n)->()")(x), ARRAY.mean(-1))

    @xp.vectorize(otypes="d")
    def half(a: float) -> float:
        """Half of it."""
        return a / 2

    same(half(x), ARRAY / 2)
    assert half.__doc__ == "Half of it."


def test_functions_of_elements_lose_nothing() -> None:
    x = xp.asarray([1, 2, 3], chunks=2)
    with pytest.raises(BlockResultError, match="otypes="):
        xp.vectorize(lambda a: a if a < 3 else 0.5)(x).compute()
    with pytest.raises(ValueError, match="size 0"):
        xp.vectorize(abs)(xp.zeros((0,)))
    assert xp.vectorize(abs, otypes="d")(xp.zeros((0, 2))).compute().shape == (0, 2)
    with pytest.raises(InvalidTypeError):
        xp.vectorize(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="otypes"):
        xp.vectorize(abs, otypes="?!")


def test_functions_with_so_many_arguments() -> None:
    x = cut()
    same(xp.frompyfunc(math.hypot, 2, 1)(x, 2.0), np.hypot(ARRAY, 2.0))
    low, high = xp.frompyfunc(lambda a: (a - 1, a + 1), 1, 2)(x)
    same(low, ARRAY - 1)
    same(high, ARRAY + 1)
    assert xp.frompyfunc(math.hypot, 2, 1)(3, 4) == 5
    with pytest.raises(InvalidTypeError, match="2 arguments"):
        xp.frompyfunc(math.hypot, 2, 1)(x)
    with pytest.raises(BlockResultError, match="expected 2"):
        xp.frompyfunc(abs, 1, 2)(x)


# --- along axes ----------------------------------------------------------------------------------


@given(st.integers(-3, 2))
def test_functions_along_an_axis(axis: int) -> None:
    x = cut()
    functions: list[Any] = [
        np.sort,
        np.sum,
        lambda a: a[::2],
        lambda a: np.outer(a[:2], a[:3]),
        lambda a: int((a > 0).sum()),
    ]
    for function in functions:
        same(xp.apply_along_axis(function, axis, x), np.apply_along_axis(function, axis, ARRAY))
    same(
        xp.apply_along_axis(lambda a, k, *, m: a * k + m, axis, x, 2, m=1),
        np.apply_along_axis(lambda a, k, *, m: a * k + m, axis, ARRAY, 2, m=1),
    )
    same(np.apply_along_axis(np.sort, axis, x), np.apply_along_axis(np.sort, axis, ARRAY))


def test_what_a_function_along_an_axis_may_not_do() -> None:
    x = cut()
    with pytest.raises(ValueError, match="broadcast"):  # NumPy's own, within a block
        xp.apply_along_axis(lambda a: a[a > 0], 0, x).compute()
    with pytest.raises(BlockResultError, match="<lambda>"):
        xp.apply_along_axis(lambda a: a[:2], 0, x, dtype=float, shape=(3,)).compute()
    with pytest.raises(InvalidArgumentError, match="dtype= and shape="):
        xp.apply_along_axis(lambda a: a[10], 0, x)
    with pytest.raises(ValueError, match="empty"):
        xp.apply_along_axis(np.sum, 0, xp.zeros((3, 0)))
    found = xp.apply_along_axis(lambda a: a[a > 5][:0], 0, x, dtype=float, shape=(0,))
    assert found.compute().shape == (0, 5, 6)


def test_functions_over_axes() -> None:
    x = cut()

    def total(a: Any, axis: int) -> Any:
        return a.sum(axis=axis)

    def largest(a: Any, axis: int) -> Any:
        return xp.max(a, axis=axis, keepdims=True)

    same(xp.apply_over_axes(total, x, [0, 2]), np.apply_over_axes(np.sum, ARRAY, [0, 2]))
    same(xp.apply_over_axes(largest, x, -1), np.apply_over_axes(np.max, ARRAY, -1))
    same(xp.apply_over_axes(lambda a, axis: 3.0, xp.asarray(1.0), []), 1.0)
    with pytest.raises(ValueError, match="correct shape"):
        xp.apply_over_axes(lambda a, axis: a[0, 0], x, 0)


def test_pieces() -> None:
    x = cut()
    cases: list[tuple[Any, Any]] = [
        ([ARRAY < 0, ARRAY >= 0], [lambda v: -v, lambda v: v**2]),
        ([ARRAY < 0], [0, 1]),
        ([ARRAY < 0], [lambda v: v - v.mean(), np.exp]),
        ([ARRAY < -1, ARRAY > 1], [-1.0, 1.0]),
    ]
    for conditions, functions in cases:
        wanted = np.piecewise(ARRAY, conditions, functions)
        ours = [cut(c) for c in conditions] if isinstance(conditions, list) else cut(conditions)
        same(xp.piecewise(x, ours, functions), wanted)
        same(xp.piecewise(x, conditions, functions), wanted)
    same(xp.piecewise(x, x < 0, [np.negative]), np.where(ARRAY < 0, -ARRAY, 0))
    assert xp.piecewise(x, [x < 0], [0, 1]).numblocks == x.numblocks
    with pytest.raises(ValueError, match="functions are expected"):
        xp.piecewise(x, [x < 0], [1, 2, 3])
    same(xp.piecewise(x, [x < 0], [lambda v, k: v * k, 0], 3), np.where(ARRAY < 0, ARRAY * 3, 0))
