"""`ar.Executor`, after what CPython's own tests of executors describe."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    BrokenExecutorError,
    InvalidArgumentError,
    JobTimeoutError,
    PoisonTaskError,
    SerializationError,
    SessionError,
)

_WAIT = 120


@pytest.fixture
def executor(ray_session: ar.Session) -> Iterator[ar.Executor]:
    with ar.Executor() as made:
        yield made


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_submit(executor: ar.Executor) -> None:
    assert executor.submit(pow, 2, 8).result(_WAIT) == 256
    keywords = executor.submit(lambda *args, fn, self: (args, fn, self), 16, fn=1, self=2)
    assert keywords.result(_WAIT) == ((16,), 1, 2)
    with pytest.raises(TypeError):
        executor.submit(arg=1)  # type: ignore[call-arg]


def test_calls_run_in_other_processes(executor: ar.Executor) -> None:
    assert executor.submit(os.getpid).result(_WAIT) != os.getpid()


def test_map(executor: ar.Executor) -> None:
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    for chunksize in (1, 3, 40):
        found = list(executor.map(pow, range(40), range(40), chunksize=chunksize))
        assert found == list(map(pow, range(40), range(40)))
    assert list(executor.map(pow, [], [])) == []
    with pytest.raises(InvalidArgumentError):
        executor.map(pow, [1], [1], chunksize=0)
    with pytest.raises(InvalidArgumentError):
        executor.map(pow, [1], [1], buffersize=0)


def test_map_raises_where_the_exception_was_raised(executor: ar.Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_takes_its_elements_at_once_unless_there_is_a_buffer(executor: ar.Executor) -> None:
    elements = iter(range(50))
    results = executor.map(str, elements)
    assert next(elements, None) is None
    assert list(results) == [str(i) for i in range(50)]

    taken: list[int] = []

    def endless() -> Iterator[int]:
        i = 0
        while True:
            taken.append(i)
            yield i
            i += 1

    some = executor.map(str, endless(), buffersize=4)
    assert len(taken) == 4
    assert [next(some) for _ in range(10)] == [str(i) for i in range(10)]
    assert len(taken) <= 14
    some.close()  # type: ignore[attr-defined]


def test_map_ends_at_its_time(executor: ar.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results = executor.map(lambda wait: wait and _wait_for(gate), [False, True], timeout=2)
    try:
        with pytest.raises(futures.TimeoutError) as caught:
            list(results)
        assert isinstance(caught.value, JobTimeoutError)
    finally:
        gate.touch()


def test_an_exception_keeps_its_cause_and_lines(executor: ar.Executor) -> None:
    def fails() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError(123) from error

    error = executor.submit(fails).exception(_WAIT)
    assert type(error) is RuntimeError
    assert error.args == (123,)
    assert isinstance(error.__cause__, KeyError)
    assert "raise RuntimeError(123) from error" in error.remote_traceback  # type: ignore[attr-defined]


def test_what_cannot_be_sent_fails_its_own_future_only(executor: ar.Executor) -> None:
    function = executor.submit(lambda lock: lock, threading.Lock())
    closed_over = threading.Lock()
    closure = executor.submit(lambda: closed_over)
    result = executor.submit(lambda: __import__("threading").Lock())
    fine = executor.submit(abs, -1)
    for future in (function, closure, result):
        assert isinstance(future.exception(_WAIT), SerializationError)
        assert isinstance(future.exception(), TypeError)
    assert fine.result(_WAIT) == 1


def test_a_result_that_cannot_be_read_fails_its_own_future_only(executor: ar.Executor) -> None:
    class Sour:
        def __reduce__(self) -> object:
            return (_sour, ())

    def _sour() -> None:
        raise ArithmeticError("sour")

    results = [executor.submit(lambda i: Sour() if i == 3 else i, i) for i in range(6)]
    assert [f.exception(_WAIT) is None for f in results] == [True] * 3 + [False] + [True] * 2
    assert isinstance(results[3].exception(), ArithmeticError)


def test_arguments_are_taken_when_the_call_is_submitted(executor: ar.Executor) -> None:
    rows = np.zeros(4)
    calls = []
    for i in range(20):
        rows[:] = i
        calls.append(executor.submit(np.sum, rows))
    assert [call.result(_WAIT) for call in calls] == [4.0 * i for i in range(20)]


def test_large_arrays_come_and_go_and_can_be_written_to(executor: ar.Executor) -> None:
    def doubled(array: np.ndarray) -> np.ndarray:
        array *= 2
        return array

    big = np.arange(300_000.0)
    found = executor.submit(doubled, big).result(_WAIT)
    np.testing.assert_array_equal(found, 2 * np.arange(300_000.0))
    assert found.flags.writeable
    found[0] = 1


def test_a_call_that_waits_in_the_queue_can_be_cancelled(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with ar.Executor(1) as one:
        first = one.submit(_wait_for, gate)
        others = [one.submit(abs, -i) for i in range(50)]
        assert all(other.cancel() for other in others)
        assert not any(other.running() for other in others)
        gate.touch()
        assert first.result(_WAIT) is None
        assert not first.cancel()
        assert one.submit(abs, -3).result(_WAIT) == 3
    for other in others:
        with pytest.raises(futures.CancelledError):
            other.result(_WAIT)


def test_shutdown(ray_session: ar.Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor = ar.Executor(1)
    first = executor.submit(_wait_for, gate)
    others = [executor.submit(abs, -i) for i in range(20)]
    while not first.running():
        time.sleep(0.01)
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(SessionError, match="after shutdown"):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError):
        executor.map(abs, [1])
    assert all(other.cancelled() for other in others)
    gate.touch()
    executor.shutdown()
    assert first.result(0) is None

    with ar.Executor() as executor:
        calls = [executor.submit(abs, -i) for i in range(20)]
    assert [call.result(0) for call in calls] == list(range(20))


def test_as_completed_and_wait(executor: ar.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    late = executor.submit(_wait_for, gate)
    early = executor.submit(abs, -2)
    done, pending = futures.wait([late, early], _WAIT, futures.FIRST_COMPLETED)
    assert (done, pending) == ({early}, {late})
    failing = executor.submit(divmod, 1, 0)
    done, pending = futures.wait([late, failing], _WAIT, futures.FIRST_EXCEPTION)
    assert (done, pending) == ({failing}, {late})
    gate.touch()
    assert set(futures.as_completed([late, early, failing], _WAIT)) == {late, early, failing}


def test_callbacks_and_calls_from_them(executor: ar.Executor) -> None:
    second: futures.Future[int] = futures.Future()
    first = executor.submit(abs, -1)
    first.add_done_callback(
        lambda done: executor.submit(abs, -5).add_done_callback(
            lambda again: second.set_result(done.result() + again.result())
        )
    )
    assert second.result(_WAIT) == 6


def test_in_asyncio(executor: ar.Executor) -> None:
    async def main() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        one = await loop.run_in_executor(executor, pow, 2, 5)
        many = await asyncio.gather(
            *(loop.run_in_executor(executor, functools.partial(int, str(i))) for i in range(30))
        )
        return one, many

    assert asyncio.run(main()) == (32, list(range(30)))


def test_each_process_is_initialised_before_its_calls(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    def begin(folder: str, name: str) -> None:
        os.environ["INITIALISED"] = name
        Path(folder, f"{os.getpid()}-{time.monotonic_ns()}").touch()

    with ar.Executor(initializer=begin, initargs=(str(tmp_path), "yes")) as executor:
        found = list(executor.map(lambda _: (os.environ["INITIALISED"], os.getpid()), range(200)))
    assert {name for name, _ in found} == {"yes"}
    begun = [entry.name.partition("-")[0] for entry in tmp_path.iterdir()]
    assert len(begun) == len(set(begun))
    assert {str(pid) for _, pid in found} <= set(begun)


def test_an_initializer_that_raises_breaks_the_executor(ray_session: ar.Session) -> None:
    def begin() -> None:
        raise ValueError("no licence")

    with ar.Executor(initializer=begin) as executor:
        calls = [executor.submit(abs, -1) for _ in range(5)]
        for call in calls:
            assert isinstance(call.exception(_WAIT), futures.BrokenExecutor)
        with pytest.raises(BrokenExecutorError, match="no licence") as caught:
            executor.submit(abs, 1)
        assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(TypeError):
        ar.Executor(initializer=123)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_are_checked(workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        ar.Executor(workers)


def test_a_call_that_ends_its_process_costs_no_other(
    ray_session: ar.Session, executor: ar.Executor
) -> None:
    def fate(i: int) -> int:
        if i == 37:
            os._exit(3)
        return -i

    calls = [executor.submit(fate, i) for i in range(60)]
    assert isinstance(calls[37].exception(_WAIT), BrokenExecutorError)
    assert isinstance(calls[37].exception(), futures.BrokenExecutor)
    assert isinstance(calls[37].exception().__cause__, PoisonTaskError)  # type: ignore[union-attr]
    assert [c.result(_WAIT) for i, c in enumerate(calls) if i != 37] == [
        -i for i in range(60) if i != 37
    ]
    assert executor.submit(fate, 1).result(_WAIT) == -1


def test_calls_with_effects_run_at_most_once(ray_session: ar.Session, tmp_path: Path) -> None:
    def once(i: int) -> int:
        with Path(tmp_path, str(i)).open("a") as file:
            file.write("x")
        if i == 2:
            os._exit(1)
        return i

    with ar.Executor(has_effects=True) as executor:
        calls = [executor.submit(once, i) for i in range(6)]
        assert isinstance(calls[2].exception(_WAIT), BrokenExecutorError)
        assert [c.result(_WAIT) for i, c in enumerate(calls) if i != 2] == [0, 1, 3, 4, 5]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {str(i): "x" for i in range(6)}


def test_very_many_short_calls_travel_together(executor: ar.Executor) -> None:
    found = list(executor.map(lambda i: (i, os.getpid()), range(3000)))
    assert [i for i, _ in found] == list(range(3000))
    calls = [executor.submit(abs, -i) for i in range(500)]
    assert [call.result(_WAIT) for call in calls] == list(range(500))


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(BrokenExecutorError("x")))
    assert isinstance(error, RuntimeError)
    assert str(error) == "x"
