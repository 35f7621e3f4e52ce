"""Plans that are kept give the very bits that planning anew gives, over any values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, prepared
from agentic_ray.watching import watching

pytestmark = pytest.mark.usefixtures("no_plans")


@pytest.fixture
def no_plans() -> Iterator[None]:
    prepared.forget()
    yield
    prepared.forget()


def _numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _cut(array: np.ndarray, chunks: Any = "auto") -> Any:
    return xp.asarray(array, chunks=chunks)


ROWS = 40_000
EXPRESSIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "elementwise": lambda x, y, a: xp.exp(-x * a) + y / (a + 3.0),
    "sum": lambda x, y, a: (x * a).sum(),
    "two sums": lambda x, y, a: (x.mean(0) - y.mean(0)) * x.std(0),
    "product": lambda x, y, a: x.T @ (y * a),
    "views": lambda x, y, a: x[::2, ::-1].T[:, 5:] * a,
    "stencil": lambda x, y, a: x[1:-1] + a * (x[2:] + x[:-2] - 2 * x[1:-1]),
    "argmax": lambda x, y, a: xp.argmax(x * a, axis=0),
    "position of the extreme": lambda x, y, a: xp.argmin(xp.reshape(y, (-1,))),
    "sort": lambda x, y, a: xp.sort(x * a, axis=0),
    "scan": lambda x, y, a: xp.cumulative_sum(x[:, 0] * a),
    "mask": lambda x, y, a: xp.where(x > a, x, y),
    "made from position": lambda x, y, a: xp.arange(x.shape[0])[:, None] * x + a,
    "quantile": lambda x, y, a: xp.quantile(x[:, 0], [0.1, 0.5]),
    "concatenated": lambda x, y, a: xp.concat([x * a, y]),
    "rolled": lambda x, y, a: xp.roll(x, 7, 0) + a,
    "assigned": lambda x, y, a: _assigned(x, a),
    "reshaped": lambda x, y, a: (xp.reshape(x, (-1,)) * a).sum(),
    "several steps": lambda x, y, a: _descent(x, y[:, 0], a),
}


def _assigned(x: Any, a: float) -> Any:
    z = x * 2.0
    z[3] = a
    z[10:20, 1] = x[0:10, 2]
    return z


def _descent(x: Any, y: Any, a: float) -> Any:
    w = xp.zeros(x.shape[1])
    for _ in range(4):
        w = w - a * 1e-4 * (x.T @ (x @ w - y))
    return w


@pytest.mark.parametrize("chunks", ["auto", (9_000, 5), (10_000, 3)], ids=str)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_bits_are_those_of_a_new_plan(name: str, chunks: Any) -> None:
    def made(seed: int, scale: float) -> bytes:
        x, y = (_cut(_numbers(seed + i, ROWS, 5), chunks) for i in (0, 1))
        result = EXPRESSIONS[name](x, y, scale)
        return bytes(np.asarray(result).tobytes())

    inputs = [(1, 0.5), (2, -0.25), (3, 2.0), (4, 0.0), (5, -0.0)]
    expected = []
    for each in inputs:
        prepared.forget()
        expected.append(made(*each))
    prepared.forget()
    assert [made(*each) for each in inputs] == expected


def _kept() -> list[prepared.Prepared]:
    return [plan for plan in prepared._plans.values() if plan is not None]


@pytest.mark.parametrize("name", ["elementwise", "sum", "product", "stencil", "several steps"])
def test_the_third_time_a_plan_is_not_made_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        x, y = (_cut(_numbers(seed + i, ROWS, 5), (10_000, 5)) for i in (0, 1))
        np.asarray(EXPRESSIONS[name](x, y, 0.5 + seed))
    assert _kept()
    monkeypatch.setattr(evaluate, "optimize", _fail)
    x, y = (_cut(_numbers(7 + i, ROWS, 5), (10_000, 5)) for i in (0, 1))
    np.asarray(EXPRESSIONS[name](x, y, 3.5))
    assert sum(plan.runs for plan in _kept()) == 1


def _fail(*_: Any) -> Any:
    raise AssertionError("it was planned again")


def test_what_decides_the_result_is_part_of_the_form() -> None:
    x = _cut(_numbers(1, 100_000))
    expressions: list[Callable[[], Any]] = [
        lambda: x + 1,
        lambda: x + 1.0,
        lambda: x + True,
        lambda: x + 1j,
        lambda: x.astype(np.float32) + 1,
        lambda: x[:-1] + 1,
        lambda: x[1:] + 1,
        lambda: x + x,
        lambda: x + _cut(_numbers(1, 100_000)),
        lambda: _cut(_numbers(1, 100_000), 30_000) + 1,
        lambda: xp.sum(x, keepdims=True),
        lambda: xp.sum(x),
    ]
    forms = [prepared.form_of([make()._node], 0) for make in expressions]
    keys = {form.key for form in forms if form is not None}
    assert len(keys) == len(expressions)


def test_scalars_are_no_part_of_the_form() -> None:
    x = _cut(_numbers(1, 100_000))
    keys = [prepared.form_of([(x * a)._node], 0) for a in (0.5, 2.5, -0.0, float("nan"))]
    assert len({form.key for form in keys if form is not None}) == 1


def test_known_values_are_read_and_not_computed_again() -> None:
    for seed in range(4):
        x = _numbers(seed, 20_000, 4)
        ours = _cut(x)
        means = ours.mean(0)
        for _ in range(2):
            np.testing.assert_array_equal(
                np.asarray(ours - means).tobytes(), np.asarray(_cut(x) - _cut(x).mean(0)).tobytes()
            )
            means.persist()  # from now on it is known


def test_errors_are_raised_by_kept_plans_too() -> None:
    def solved(array: np.ndarray) -> np.ndarray:
        return np.asarray(xp.linalg.solve(_cut(array) * 1.0, xp.ones(300)))

    for seed in range(3):
        assert np.isfinite(solved(_numbers(seed, 300, 300))).all()
    for _ in range(2):
        with pytest.raises(np.linalg.LinAlgError):
            solved(np.zeros((300, 300)))
    assert np.isfinite(solved(_numbers(9, 300, 300))).all()


def test_warnings_are_given_by_kept_plans_too() -> None:
    for seed in range(3):
        np.asarray(1.0 / _cut(_numbers(seed, 100_000)))
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        np.asarray(1.0 / _cut(np.zeros(100_000)))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        np.asarray(1.0 / _cut(np.zeros(100_000)))


def test_functions_of_the_user_are_planned_each_time() -> None:
    x = _cut(_numbers(1, 100_000))
    assert prepared.form_of([xp.map_blocks(np.sin, x)._node], 0) is None


def test_large_indices_are_not_kept() -> None:
    x = _cut(_numbers(1, 100_000))
    index = np.random.default_rng(0).permutation(100_000)
    assert prepared.form_of([x[index]._node], 0) is None


def test_the_table_is_bounded() -> None:
    x = _cut(_numbers(1, 70_000))
    for length in range(1, prepared.MOST_PLANS + 20):
        for _ in range(2):
            np.asarray(x[length:] + 1.0)
    assert len(prepared._plans) <= prepared.MOST_PLANS


def test_plans_hold_none_of_the_callers_arrays() -> None:
    for seed in range(3):
        np.asarray(_cut(_numbers(seed, 100_000)) * 2.0 + 1.0)
    plans = _kept()
    assert plans
    for plan in plans:
        for task in plan.tasks:
            assert not any(isinstance(arg, np.ndarray) for arg in task.args)


def test_results_of_one_plan_do_not_share_memory() -> None:
    x, y = _numbers(1, 300_000), _numbers(2, 300_000)
    results = [np.asarray(_cut(each) + 1.0) for each in (x, y, x, y)]
    for result, each in zip(results, (x, y, x, y), strict=True):
        np.testing.assert_array_equal(result, each + 1.0)
    results[2][:] = 0
    np.testing.assert_array_equal(np.asarray(_cut(x) + 1.0), x + 1.0)


def test_several_threads_may_run_one_plan() -> None:
    inputs = [_numbers(seed, 50_000, 4) for seed in range(4)]
    expected = [np.tanh(x).sum(0) for x in inputs]
    wrong: list[int] = []

    def work(at: int) -> None:
        for _ in range(20):
            found = np.asarray(xp.tanh(_cut(inputs[at], (10_000, 4))).sum(0))
            if not np.allclose(found, expected[at], rtol=1e-12):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.usefixtures("ray_session")
def test_a_plan_that_is_kept_still_runs_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    array = _numbers(1, 100_000)
    x = _cut(array, 30_000)
    for scale in (1.0, 2.0, 3.0):
        np.asarray(x * scale)
    monkeypatch.setattr(evaluate, "LOCAL_BYTES", -1)
    with watching() as watch:
        np.testing.assert_array_equal(np.asarray(x * 4.0), array * 4.0)
    assert watch.runs
