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
    assert job.metrics.recovery == 1.0
    assert [event.kind for event in job.events()].count("failed: user") == 2


def test_the_budget_of_the_user_is_spent_then_the_own_exception_is_raised(tmp_path: Path) -> None:
    with pytest.raises(Busy) as raised:
        ar.map_reduce(
            raiser(tmp_path, 99, Busy), range(20), operator.add, chunk_size=5, retry_on=Busy
        )
    assert len(list(tmp_path.iterdir())) == 4, "once, and max_user_retries times again"
    assert raised.value.element_index == 7  # type: ignore[attr-defined]


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
