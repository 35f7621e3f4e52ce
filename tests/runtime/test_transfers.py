"""Which transfers are timed, and what is taken for their time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentic_ray.runtime.outcomes import Finished, Report
from agentic_ray.runtime.transfers import LEAST_BYTES, Copies, Moved, timed
from agentic_ray.schedule.events import Location, Transfer

BIG = LEAST_BYTES
REPORT = Report("b", 1, 2.0, (2.0,), Finished())
MOVED = Moved("a", "b", BIG)


def value(key: str, node: str | None, size: int = BIG) -> tuple[tuple[str, str], Location]:
    return ("g", key), Location(size, node)


def test_what_comes_from_one_other_node_can_be_timed() -> None:
    copies = Copies()
    inputs = [value("x", "a"), value("y", "a", 10), value("here", "b"), value("inline", None)]
    assert copies.send("b", inputs) == Moved("a", "b", BIG + 10)


def test_a_value_is_moved_to_a_node_once_until_it_is_made_anew() -> None:
    copies = Copies()
    assert copies.send("b", [value("x", "a")]) is not None
    assert copies.send("b", [value("x", "a")]) is None
    assert copies.send("c", [value("x", "a")]) == Moved("a", "c", BIG)
    copies.forget(("g", "x"))
    assert copies.send("b", [value("x", "d")]) == Moved("d", "b", BIG)


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [value("x", "b")],
        [value("x", None)],
        [value("x", "a", BIG - 1)],
        [value("x", "a"), value("y", "c")],
    ],
    ids=["none", "local", "with the caller", "small", "from two nodes"],
)
def test_what_says_nothing_of_a_link_is_not_timed(inputs: list) -> None:
    assert Copies().send("b", inputs) is None


def test_the_time_is_what_is_left_of_the_round_trip() -> None:
    assert timed(MOVED, REPORT, 5.0, 0.5) == (Transfer("a", "b", BIG, 2.5),)


@pytest.mark.parametrize(
    ("moved", "report", "round_trip"),
    [
        (None, REPORT, 5.0),
        (MOVED, REPORT, 2.4),
        (MOVED, replace(REPORT, waited_seconds=0.1), 5.0),
        (MOVED, replace(REPORT, ray_attempt=1), 5.0),
        (MOVED, replace(REPORT, node_id="elsewhere"), 5.0),
    ],
    ids=["nothing moved", "no time left", "waited", "ran twice", "moved by Ray"],
)
def test_a_round_trip_with_anything_else_in_it_says_nothing(
    moved: Moved | None, report: Report, round_trip: float
) -> None:
    assert timed(moved, report, round_trip, 0.5) == ()
