"""Cache blocks of one task, shared out among idle threads: same bits, each once, no lost error."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, sharing, threads
from agentic_ray.graph import Codelet, Task

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(30_000, 40))
COUNTS = RNG.integers(0, 9, (30_000, 40))


def _one_chunk(values: np.ndarray) -> xp.Array:
    return xp.asarray(values, chunks=values.shape)


CASES: dict[str, Callable[[xp.Array, xp.Array], xp.Array]] = {
    "values": lambda x, n: xp.exp(x) * n - 1,
    "stencil": lambda x, n: x[1:-1] - (x[:-2] + x[2:]) / 2,
    "total": lambda x, n: (x * x + 1).sum(),
    "rows": lambda x, n: (x - 1).sum(axis=0),
    "columns": lambda x, n: (x * n).sum(axis=1),
    "spread": lambda x, n: (x + 1).std(axis=0),
    "wide": lambda x, n: x.reshape(30, 40_000).min(axis=0),
    "first": lambda x, n: n.argmax(axis=0),
    "normal equations": lambda x, n: x.T @ (1 / (1 + xp.exp(-x[:, 0]))),
    "gram": lambda x, n: x.T @ x,
    "product": lambda x, n: x @ x[:700].T,
    "product of integers": lambda x, n: n @ n[:50].T,
    "matrix and vector": lambda x, n: x.reshape(3_000, 400) @ x[0, :1].repeat(400),
}


@pytest.mark.parametrize("name", CASES)
def test_threads_that_share_one_chunk_change_no_bit(name: str) -> None:
    expression = CASES[name](_one_chunk(ROWS), _one_chunk(COUNTS))
    tasks, (blocks,) = evaluate.plan([expression._node])
    key = blocks[0].key
    found = {
        threads.run(tasks, [key], count).values[key].tobytes()
        for count in (1, 2, 3, 2, 1)
        for _ in range(3)  # the kernel is compiled aside meanwhile
    }
    assert len(found) == 1


def _in_crew(count: int, work: Callable[[], object]) -> object:
    """Return what ``work`` returns in one of ``count`` threads that run tasks."""

    def task(*, xp: object) -> object:
        return work()

    tasks = [Task.of(Codelet("work", task), key="only")]
    return threads.run(tasks, ["only"], count).values["only"]


def test_idle_threads_take_parts_and_results_keep_their_order() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def part(number: int) -> int:
        if number < 3:
            meeting.wait()  # three threads are needed to get beyond
        return number * number

    assert _in_crew(3, lambda: sharing.each(part, 50)) == [n * n for n in range(50)]


def test_parts_run_one_after_the_other_where_there_is_no_other_thread() -> None:
    seen: list[int] = []
    assert sharing.each(lambda number: seen.append(number), 5) == [None] * 5
    assert seen == [0, 1, 2, 3, 4]
    assert sharing.threads() == 1
    assert list(sharing.in_order(lambda number: -number, 4)) == [0, -1, -2, -3]


@pytest.mark.parametrize("count", [1, 4])
def test_results_in_order_however_many_there_are(count: int) -> None:
    many = 7 * sharing.BATCH_PARTS + 3
    assert _in_crew(count, lambda: list(sharing.in_order(lambda n: n, many))) == list(range(many))


@pytest.mark.parametrize("count", [1, 4])
def test_the_error_of_a_part_is_raised_by_the_task(count: int) -> None:
    def part(number: int) -> int:
        if number % 10 == 7:
            raise ZeroDivisionError(f"part {number}")
        return number

    with pytest.raises(ZeroDivisionError, match=r"part \d?7"):
        _in_crew(count, lambda: sharing.each(part, 40))


def test_numpys_error_settings_hold_in_each_thread() -> None:
    expression = 1 / _one_chunk(np.zeros((40, 65_536)))
    tasks, (blocks,) = evaluate.plan([expression._node])
    for _ in range(5):
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            threads.run(tasks, [blocks[0].key], 3)


@pytest.mark.parametrize(("size", "least"), [(1, 1), (10, 3), (1000, 1), (131_072, 65_536)])
def test_runs_cover_everything_once(size: int, least: int) -> None:
    found = _in_crew(4, lambda: sharing.runs(size, least))
    assert isinstance(found, list)
    assert [at for low, high in found for at in range(low, high)] == list(range(size))
    assert all(low % least == 0 for low, _ in found)
    assert sharing.runs(size, least) == [(0, size)]
