"""Exceptions keep their type, arguments, attributes, text and lines on the way home."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray import tracebacks
from agentic_ray.errors import TaskError
from agentic_ray.runtime.failures import ElementFailure, PackedError


class TwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first = first


class Prefixed(Exception):
    """Pickle calls it with its text, and would prefix that again."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class Keywords(Exception):
    def __init__(self, *, a: int, b: int) -> None:
        self.a, self.b = a, b

    def __str__(self) -> str:
        return f"{self.a}-{self.b}"


class BrokenReduce(ValueError):
    def __reduce__(self) -> Any:
        return int, ("3",)


class RaisingReduce(LookupError):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class Slots(Exception):
    __slots__ = ("detail",)

    def __init__(self, detail: int) -> None:
        self.detail = detail

    def __str__(self) -> str:
        return f"slot {self.detail}"


class OwnOS(OSError):
    def __init__(self, code: int, path: str, extra: str) -> None:
        super().__init__(code, "message", path)
        self.extra = extra


class OwnGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> OwnGroup:
        return OwnGroup(self.message, excs)


@dataclass(frozen=True)
class Frozen(Exception):
    first: int


class Locked(Exception):
    def __init__(self, lock: Any) -> None:
        super().__init__("locked", lock)
        self.lock = lock
        self.code = 5


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def home(error: BaseException, chunk: int = 1, element: int | None = 3) -> BaseException:
    """What arrives of an exception raised in a task."""
    try:
        try:
            raise error
        except BaseException as raised:
            raise ElementFailure(chunk, element) from raised
    except ElementFailure as failure:
        packed = PackedError.pack(failure, "map[f]-0123456789ab")
    arrived: PackedError = pickle.loads(pickle.dumps(packed))
    return arrived.rebuild()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("plain"),
        lambda: TwoArguments(1, 2),
        lambda: Prefixed(7),
        lambda: Keywords(a=1, b=2),
        lambda: BrokenReduce("r"),
        lambda: RaisingReduce("r", 2),
        lambda: Slots(4),
        lambda: OwnOS(2, "path", "x"),
        lambda: OSError(2, "none", "file"),
        lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        lambda: SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
        lambda: ImportError("none", name="n", path="p"),
        lambda: StopIteration(4),
        lambda: Frozen(4),
        lambda: ExceptionGroup("g", [TwoArguments(1, 2), KeyError("k")]),
        lambda: OwnGroup("g", [OwnGroup("h", [Prefixed(3)])]),
        lambda: ValueError("m" * 1_000_000),
    ],
)
def test_an_exception_is_the_same_at_home(make: Callable[[], BaseException]) -> None:
    expected, error = make(), home(make())
    assert type(error) is type(expected)
    assert str(error) == str(expected)
    assert repr(error.args) == repr(expected.args)
    for name in ("first", "a", "b", "detail", "extra", "errno", "filename", "name", "value"):
        assert getattr(error, name, None) == getattr(expected, name, None)
    assert error.__notes__ == ["while running 'map[f]' on chunk 1 (element 3 of the input)"]
    assert (error.chunk_index, error.element_index) == (1, 3)  # type: ignore[attr-defined]
    assert type(expected).__name__ in error.remote_traceback  # type: ignore[attr-defined]


@given(st.lists(st.integers() | st.text() | st.none(), max_size=4), st.booleans())
def test_any_arguments_arrive(args: list[Any], keep: bool) -> None:
    class Any_(Exception):
        def __init__(self, *given: Any) -> None:
            super().__init__(*(given if keep else given[1:]))
            self.given = given

    error = home(Any_(*args))
    assert error.args == tuple(args if keep else args[1:])
    assert error.given == tuple(args)  # type: ignore[attr-defined]


def test_exceptions_in_a_group_keep_theirs() -> None:
    group = home(OwnGroup("g", [TwoArguments(1, 2), OwnGroup("h", [Prefixed(3)])]))
    assert isinstance(group, OwnGroup)
    first, inner = group.exceptions
    assert (type(first), str(first)) == (TwoArguments, "1 and 2")
    assert isinstance(inner, OwnGroup)
    assert [str(error) for error in inner.exceptions] == ["code 3"]


def test_what_cannot_be_sent_of_it_is_told() -> None:
    error = home(Locked(threading.Lock()))
    assert isinstance(error, Locked)
    assert error.args[0] == "locked"
    assert "lock" in error.args[1]
    assert error.code == 5
    assert not hasattr(error, "lock")
    notes = "\n".join(error.__notes__)
    assert "its argument 1 is the text of an object that cannot be sent" in notes
    assert "its attribute 'lock' cannot be sent" in notes


def test_an_exception_without_a_text_arrives() -> None:
    assert isinstance(home(Unprintable("x")), Unprintable)


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt("k"), GeneratorExit("g"), asyncio.CancelledError("c")],
)
def test_what_would_end_the_caller_is_a_task_error(error: BaseException) -> None:
    arrived = home(error)
    assert type(arrived) is TaskError
    assert type(error).__name__ in str(arrived)


def test_a_class_that_cannot_be_sent_is_caught_as_its_base() -> None:
    class ClassThatStays(KeyError):
        held = threading.Lock()

    arrived = home(ClassThatStays("k"))
    assert isinstance(arrived, TaskError)
    assert isinstance(arrived, KeyError)
    assert str(arrived).endswith("ClassThatStays: 'k'")
    again = pickle.loads(pickle.dumps(arrived))
    assert type(again) is type(arrived)
    assert str(again) == str(arrived)


def test_a_class_whose_module_is_not_here_is_caught_as_its_base(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("class Base(KeyError): pass\nclass There(Base): pass\n")
    program = (
        "import pickle, sys; sys.path.insert(0, sys.argv[1])\n"
        "import only_there\n"
        "from agentic_ray.runtime.failures import PackedError\n"
        "sys.stdout.buffer.write(pickle.dumps(PackedError.pack(only_there.There('k'), 'f')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True, timeout=120
    )
    arrived = pickle.loads(done.stdout).rebuild()
    assert isinstance(arrived, TaskError)
    assert isinstance(arrived, KeyError)
    assert "only_there.There: 'k'" in str(arrived)


# --- its lines, and what led to it --------------------------------------------------------------


def _deeper(x: int) -> None:
    try:
        {}[x]
    except KeyError as error:
        raise TwoArguments(x, 2) from error


def _beside(x: int) -> None:
    try:
        {}[x]
    except KeyError:
        raise TwoArguments(x, 2)  # noqa: B904


def caught(function: Callable[[int], None]) -> BaseException:
    with pytest.raises(TwoArguments) as raised:
        function(5)
    return PackedError.pack(raised.value, "f").rebuild()


def test_its_lines_are_those_of_the_user() -> None:
    error = caught(_deeper)
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[-1].name == "_deeper"
    assert frames[-1].line == "raise TwoArguments(x, 2) from error"
    assert not any("agentic_ray/" in frame.filename for frame in frames)


def test_what_led_to_it_comes_along() -> None:
    cause = caught(_deeper).__cause__
    assert isinstance(cause, KeyError)
    assert traceback.extract_tb(cause.__traceback__)[-1].line == "{}[x]"
    context = caught(_beside).__context__
    assert isinstance(context, KeyError)
    assert caught(_beside).__cause__ is None


def test_exceptions_that_led_to_each_other_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    error = PackedError.pack(first, "f").rebuild()
    assert str(error.__cause__) == "2"
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is None


def test_a_deep_recursion_is_cut() -> None:
    def deep(n: int) -> int:
        return deep(n + 1)

    with pytest.raises(RecursionError) as raised:
        deep(0)
    error = PackedError.pack(raised.value, "f").rebuild()
    assert isinstance(error, RecursionError)
    assert len(traceback.extract_tb(error.__traceback__)) <= 100


def test_all_lines_are_there_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "_show_all", None)  # a session says how it is to be
    monkeypatch.setenv("AGENTIC_RAY_FULL_TRACEBACKS", "1")
    assert tracebacks.shows_all()

    @tracebacks.entry
    def entered() -> None:
        raise TwoArguments(1, 2)

    with pytest.raises(TwoArguments) as raised:
        entered()
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names.count("call") == 1
    monkeypatch.setenv("AGENTIC_RAY_FULL_TRACEBACKS", "0")
    assert not tracebacks.shows_all()
