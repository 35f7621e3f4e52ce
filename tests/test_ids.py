"""Ids of requests, and lines of the log: what is taken, carried, cut and hidden. No processes."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray import logged
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ids import Ids, current_ids, ids_of_request, marked, traceparent
from agentic_ray.shown import KEPT_CHARACTERS

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_any_headers_give_an_id_that_fits_a_line(ids: list[str], parents: list[str]) -> None:
    found = ids_of_request(ids, parents)
    assert 1 <= len(found.request) <= 128
    assert found.request.isascii()
    assert found.request.isprintable()
    assert " " not in found.request
    assert found.trace == "" or len(found.trace) == 55


def test_valid_ids_of_callers_are_taken_and_others_are_not() -> None:
    assert ids_of_request(["deploy-7/a:b"], [PARENT]) == Ids("deploy-7/a:b", "", "", PARENT)
    assert ids_of_request([], [PARENT]).request == TRACE
    made = {ids_of_request([bad], []).request for bad in ("", "a b", "é", "x" * 129, "a\nb", "-a")}
    assert len(made) == 6
    assert all(len(each) == 32 for each in made)
    assert ids_of_request(["a", "b"], []).request not in ("a", "b")
    assert ids_of_request([], [PARENT, PARENT]).trace == ""


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (PARENT, PARENT),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"01-{TRACE}-{SPAN}-01-more", PARENT),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (PARENT.upper(), ""),
        (PARENT + "\n", ""),
        (f"01-{TRACE}-{SPAN}-01-{'x' * 300}", ""),
    ],
)
def test_traceparents(text: str, taken: str) -> None:
    assert traceparent(text) == taken


def test_ids_are_those_of_the_work_inside() -> None:
    with marked(request="r"), marked(job="j"):
        assert current_ids() == Ids("r", "j")
    assert current_ids() == Ids()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], io.StringIO]]:
    """Set the log up in a format; the state of logging is put back at the end."""
    root, ours, jobs = (logging.getLogger(name) for name in ("", "agentic_ray", logged.PRINTED))
    before = root.handlers[:], ours.level, jobs.level
    monkeypatch.setenv(logged.VARIABLE, "")
    monkeypatch.setenv("AGENTIC_RAY_TOKEN", "quite-secret")

    def set_up(form: str) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        logged.set_up(form, ["also-secret", ""])
        return stream

    yield set_up
    root.handlers[:] = before[0]
    ours.setLevel(before[1])
    jobs.setLevel(before[2])


def test_a_json_line_has_ids_and_no_secret(written: Callable[[str], io.StringIO]) -> None:
    stream, logger = written("json"), logging.getLogger("agentic_ray")
    with marked(Ids("r", "j", "b", PARENT)):
        logger.warning("token quite-secret and %s", "also-secret\nnext")
    try:
        raise ValueError("quite-secret too")
    except ValueError:
        logger.exception("x" * 1_000_000)
    logging.getLogger("other").warning("plain")
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "WARNING",
        "logger": "agentic_ray",
        "message": "token [secret] and [secret]\nnext",
        "request_id": "r",
        "job_id": "j",
        "bundle_id": "b",
        "trace_id": TRACE,
    }
    assert len(second["message"]) <= KEPT_CHARACTERS
    assert "ValueError: [secret] too" in second["exception"]
    assert set(third) == {"time", "level", "logger", "message"}


def test_no_text_can_look_like_a_line_of_its_own(written: Callable[[str], io.StringIO]) -> None:
    stream = written("text")
    with marked(job="j"):
        logging.getLogger("agentic_ray").info("a\n2026 ERROR forged\x1b[2J\r\x00")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("INFO agentic_ray: a [job_id=j]")
    assert second == "  2026 ERROR forged\\x1b[2J\\x0d\\x00"


def test_formats_that_are_not_there_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="json or text"):
        logged.set_up("xml")
