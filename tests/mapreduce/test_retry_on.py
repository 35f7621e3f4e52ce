"""Exceptions that the user asks to be tried again; all others stay final."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar

pytestmark = pytest.mark.usefixtures("ray_session")


class Busy(Exception):
    """A class of this module, which workers get by value or by import."""


def raiser(folder: Path, times: int, error: Callable[[], BaseException]) -> Callable[[int], int]:
    """The identity, but element 7 raises the first ``times`` times."""

    def function(x: int) -> int:
        if x == 7:
            before = len(list(folder.iterdir()))
            (folder / str(before)).touch()
            if before < times:
                raise error()
        return x

    return function


@pytest.mark.parametrize("retry_on", [Busy, (OSError, Busy)])
def test_what_was_asked_for_is_tried_again(tmp_path: Path, retry_on: Any) -> None:
    job = ar.map_reduce_job(
        raiser(tmp_path, 2, Busy), range(20), operator.add, chunk_size=5, retry_on=retry_on
    )
    assert job.result() == sum(range(20))
    assert len(list(tmp_path.iterdir())) == 3
    assert [event.kind for event in job.events()].count("failed: user") == 2


def test_the_budget_of_the_user_is_spent_then_the_own_exception_is_raised(tmp_path: Path) -> None:
    with pytest.raises(Busy) as raised:
        ar.map_reduce(
            raiser(tmp_path, 99, Busy), range(20), operator.add, chunk_size=5, retry_on=Busy
        )
    assert len(list(tmp_path.iterdir())) == 4, "once, and max_user_retries times again"
    assert raised.value.element_index == 7  # type: ignore[attr-defined]


def test_retries_count_for_each_element_and_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    """A thousand elements of which one in twenty calls fails."""

    def work(x: int) -> int:
        calls = tmp_path / str(x)
        with calls.open("a") as file:
            file.write("x")
        number = calls.stat().st_size
        if (x * 7919 + number * 104_729) % 20 == 0:
            raise Busy
        with (tmp_path / f"done{x}").open("a") as file:
            file.write("x")
        return x

    job = ar.map_reduce_job(work, range(1000), operator.add, retry_on=Busy)
    assert job.result() == sum(range(1000))
    assert {path.stat().st_size for path in tmp_path.glob("done*")} == {1}
    again = [p for p in tmp_path.iterdir() if p.name.isdecimal() and p.stat().st_size > 1]
    assert len(again) > 20


def test_a_call_that_is_made_again_has_its_element_as_it_was(tmp_path: Path) -> None:
    def work(x: list[int]) -> int:
        x.append(1)
        if not (tmp_path / str(x[0])).exists():
            (tmp_path / str(x[0])).touch()
            raise Busy
        return len(x)

    assert ar.map_reduce(work, [[i] for i in range(10)], retry_on=Busy) == [2] * 10


def test_a_reduction_is_made_again_too(tmp_path: Path) -> None:
    def add(left: int, right: int) -> int:
        if not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise Busy
        return left + right

    assert ar.map_reduce(abs, range(100), add, chunk_size=10, retry_on=Busy) == 4950


def test_other_exceptions_stay_final(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        ar.map_reduce(
            raiser(tmp_path, 99, ZeroDivisionError), range(20), operator.add, retry_on=Busy
        )
    assert len(list(tmp_path.iterdir())) == 1


def test_a_codelet_says_it_itself(tmp_path: Path) -> None:
    @ar.codelet(retry_on=Busy)
    def work(block: Any, *, xp: Any) -> float:
        if block[0] == 0 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise Busy
        return float(xp.sum(block))

    assert ar.map_reduce(work, np.arange(100.0), operator.add, chunk_size=10) == 4950.0


def test_only_exception_types_are_taken() -> None:
    with pytest.raises(ar.errors.InvalidTypeError, match="retry_on"):
        ar.map_reduce(abs, [1], retry_on=("OSError",))  # type: ignore[arg-type]
