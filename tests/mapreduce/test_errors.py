"""User code that fails: its own exception comes home, the rest of the work stops."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    ExecutorLostError,
    InvalidArgumentError,
    SerializationError,
    TaskError,
)

pytestmark = pytest.mark.usefixtures("ray_session")


class OwnError(Exception):
    """Defined beside the test, with arguments that unpickling must supply."""

    def __init__(self, code: int, *, hint: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.hint = hint


class Slotted(Exception):
    __slots__ = ("detail",)


class TwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")  # so it cannot be unpickled


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Fatal(BaseException):
    """Not an Exception."""


def raising(make: Callable[[], BaseException], at: int = 3) -> Callable[[int], int]:
    def function(x: int) -> int:
        if x == at:
            raise make()
        return x

    return function


def catch(function: Callable[..., Any], reduce_fn: Any = operator.add, **options: Any) -> Any:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        ar.map_reduce(function, range(8), reduce_fn, **options)
    return caught.value


# --- the exception itself ----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("plain"),
        lambda: OwnError(7, hint="look"),
        lambda: KeyError("missing"),
        lambda: OSError(2, "none", "file"),
        lambda: StopIteration("mine"),
        lambda: StopAsyncIteration("mine"),
        lambda: MemoryError("much"),
        lambda: RecursionError("deep"),
        lambda: TimeoutError("late"),
        lambda: AssertionError("wrong"),
        lambda: Slotted("s"),
        lambda: Fatal("base"),
        lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    ],
)
def test_its_type_arguments_and_place_come_home(make: Callable[[], BaseException]) -> None:
    error = catch(raising(make), chunk_size=2)
    expected = make()
    assert type(error) is type(expected)
    assert error.args == expected.args
    assert error.chunk_index == 1
    assert error.element_index == 3
    assert any("chunk 1" in note and "element 3" in note for note in error.__notes__)
    assert "in function" in error.remote_traceback
    assert type(expected).__name__ in error.remote_traceback
    assert _functions(error)[-1] == "function"


def test_attributes_and_groups_survive() -> None:
    assert catch(raising(lambda: OwnError(7, hint="look"))).hint == "look"
    group = catch(raising(lambda: ExceptionGroup("several", [OwnError(1), KeyError("k")])))
    assert type(group) is ExceptionGroup
    assert [type(inner) for inner in group.exceptions] == [OwnError, KeyError]
    with pytest.raises(ExceptionGroup) as caught:
        ar.map_reduce(raising(lambda: ExceptionGroup("g", [ValueError("v")])), range(8))
    assert caught.group_contains(ValueError)


def test_what_led_to_it_comes_home_too() -> None:
    def chained(x: int) -> int:
        try:
            return {}[x]  # type: ignore[index]
        except KeyError as error:
            raise OwnError(x) from error

    error = catch(chained)
    assert isinstance(error, OwnError)
    assert isinstance(error.__cause__, KeyError)
    assert _functions(error.__cause__) == ["chained"]
    assert "direct cause" in error.remote_traceback


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SystemExit(3), "SystemExit: 3"),
        (lambda: KeyboardInterrupt("remote"), "KeyboardInterrupt"),
        (lambda: GeneratorExit("remote"), "GeneratorExit"),
    ],
)
def test_what_cannot_come_home_is_told_of(make: Callable[[], BaseException], text: str) -> None:
    error = catch(raising(make))
    assert type(error) is TaskError
    assert text in str(error)
    assert "in function" in error.remote_traceback


def test_an_exception_is_made_again_without_its_init() -> None:
    error = catch(raising(lambda: TwoArguments(1, 2)))
    assert type(error) is TwoArguments
    assert str(error) == "1 and 2"


def test_what_cannot_be_sent_of_an_exception_is_told() -> None:
    error = catch(raising(lambda: OwnError(threading.Lock())))  # type: ignore[arg-type]
    assert type(error) is OwnError
    assert "lock" in error.args[0]
    assert any("'code' cannot be sent" in note for note in error.__notes__)


def test_a_traceback_has_the_lines_of_the_user_only() -> None:
    error = catch(raising(lambda: OwnError(7)))
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert set(files) == {__file__}
    assert _functions(error)[-1] == "function"
    with pytest.raises(InvalidArgumentError) as caught:
        ar.map_reduce(abs, [1], chunk_size=0)
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert set(files) == {__file__}


def _functions(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_an_exception_without_a_text_still_arrives() -> None:
    assert isinstance(catch(raising(Unprintable)), Unprintable)


@pytest.mark.parametrize("chunk_size", ["auto", 4])
@pytest.mark.parametrize("error_type", [OwnError, StopIteration, Fatal])
def test_an_exception_of_the_reduce_function_comes_home(chunk_size: Any, error_type: Any) -> None:
    def reduce_fn(left: int, right: int) -> int:
        if right >= 3:
            raise error_type(right)
        return left + right

    error = catch(lambda x: x, reduce_fn, chunk_size=chunk_size)
    assert type(error) is error_type
    assert _functions(error)[-1] == "reduce_fn"


def test_an_exception_when_initial_is_combined_is_raised() -> None:
    with pytest.raises(TypeError):
        ar.map_reduce(abs, [1, 2], operator.add, initial="text")


def test_a_class_of_the_main_script_keeps_its_identity(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import operator, agentic_ray as ar\n"
        "class Mine(Exception):\n"
        "    def __init__(self, code, text):\n"
        "        super().__init__(code, text)\n"
        "        self.code = code\n"
        "def fail(x):\n"
        "    raise Mine(x, 'text')\n"
        "ar.init(num_cpus=1)\n"
        "try:\n"
        "    ar.map_reduce(fail, [41], operator.add)\n"
        "except Mine as error:\n"
        "    print('own', type(error) is Mine, error.code, error.element_index)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "own True 41 0" in done.stdout, done.stderr


# --- what cannot be sent -----------------------------------------------------------------


class _Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("never pickled")


class _Bomb:
    """Pickles well; unpickling raises."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return int, ("x" * self.size,)


def test_unpicklable_functions_and_captures_are_named_at_once() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        ar.map_reduce(lambda x: lock, [1, 2])
    with pytest.raises(SerializationError, match="generator"):
        ar.map_reduce(lambda x, g=(i for i in range(3)): g, [1, 2])
    with pytest.raises(SerializationError, match="never pickled"):
        ar.map_reduce(lambda x, u=_Unpicklable(): u, [1, 2])  # noqa: B008
    with pytest.raises(SerializationError):
        ar.map_reduce(abs, [1, 2], lambda a, b: lock)


@pytest.mark.parametrize("data", [[1, threading.Lock()], iter([_Unpicklable()]), (_Unpicklable(),)])
def test_unpicklable_elements_are_named(data: Any) -> None:
    with pytest.raises(SerializationError, match=r"lock|never pickled"):
        ar.map_reduce(id, data)


@pytest.mark.parametrize("reduce_fn", [None, operator.add])
def test_unpicklable_results_are_named(reduce_fn: Any) -> None:
    with pytest.raises(SerializationError, match="generator"):
        ar.map_reduce(lambda x: (i for i in range(x)), [1], reduce_fn)


def test_elements_and_functions_whose_unpickling_fails() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ar.map_reduce(id, [_Bomb()])
    with pytest.raises(ValueError, match="invalid literal"):
        ar.map_reduce(lambda x, bomb=_Bomb(): bomb, [1])  # noqa: B008


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_results_whose_unpickling_fails(size: int) -> None:
    with pytest.raises(SerializationError, match="invalid literal"):
        ar.map_reduce(lambda x: _Bomb(size), [1])


# --- the rest stops ----------------------------------------------------------------------


def test_after_a_failure_little_more_is_started(tmp_path: Path) -> None:
    def work(i: int) -> int:
        (tmp_path / str(i)).touch()
        if i == 5:
            raise OwnError(5)
        time.sleep(0.02)
        return i

    started = time.monotonic()
    error = catch_over(work, range(5000))
    assert type(error) is OwnError
    assert time.monotonic() - started < 40
    after = len(list(tmp_path.iterdir()))
    assert after < 4000  # of 5000, on a machine so busy that stopping takes seconds
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == after  # nothing goes on behind our back


def catch_over(function: Any, data: Any) -> Any:
    with pytest.raises(OwnError) as caught:
        ar.map_reduce(function, data, operator.add)
    return caught.value


def test_work_in_flight_is_stopped(tmp_path: Path) -> None:
    def work(i: int) -> int:
        if i == 1:
            raise OwnError(1)
        for step in range(600):
            (tmp_path / f"{i}-{step}").touch()
            time.sleep(0.1)
        return i

    started = time.monotonic()
    assert type(catch_over(work, range(2))) is OwnError
    assert time.monotonic() - started < 40
    before = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == before


def test_a_failing_job_does_not_wait_for_another_job() -> None:
    slow = threading.Thread(
        target=ar.map_reduce, args=(lambda x: time.sleep(8), [1], lambda a, b: a)
    )
    slow.start()
    time.sleep(0.5)
    catch(raising(lambda: OwnError(0)))  # the processes are there now
    started = time.monotonic()
    assert type(catch(raising(lambda: OwnError(1)))) is OwnError
    elapsed = time.monotonic() - started
    slow.join()
    assert elapsed < 4


def test_a_generator_that_raises_midway_raises_here() -> None:
    def numbers() -> Iterator[int]:
        yield from range(50)
        raise OwnError(50)

    with pytest.raises(OwnError) as caught:
        ar.map_reduce(lambda x: x, numbers(), operator.add)
    assert caught.value.code == 50
    assert not hasattr(caught.value, "chunk_index")
    assert ar.map_reduce(abs, [-1], operator.add) == 1


def test_a_failed_job_leaves_nothing_behind(ray_session: ar.Session) -> None:
    loop = ray_session._loop
    before = set(loop.runs)  # other tests may keep runs
    for _ in range(3):
        catch(raising(lambda: OwnError(1)), chunk_size=1)

    def left() -> list[str]:
        graphs = [graph_id for graph_id, _ in list(loop.sender.values)]
        graphs += [call.graph_id for call in list(loop.calls.values())]
        return [one for one in (*graphs, *list(loop.runs)) if one not in before]

    deadline = time.monotonic() + 60
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left()


# --- processes that end ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", [lambda: os.kill(os.getpid(), 9), lambda: os._exit(0)], ids=["SIGKILL", "os._exit"]
)
def test_a_function_that_always_ends_its_process_is_named(end: Callable[[], None]) -> None:
    def lethal_step(x: int) -> int:
        end()
        return x

    other: list[Any] = []
    beside = threading.Thread(
        target=lambda: other.append(
            ar.map_reduce(lambda x: (time.sleep(0.05), x)[1], range(40), operator.add)
        )
    )
    beside.start()
    with pytest.raises(ExecutorLostError, match="lethal_step"):
        ar.map_reduce(lethal_step, [1, 2], operator.add)
    beside.join(60)
    assert other == [sum(range(40))]
    assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
