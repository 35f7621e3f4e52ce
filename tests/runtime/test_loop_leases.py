"""Leases in the loop, without Ray: they end with a Dispatcher that fails; no recording begins."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agentic_ray.errors import SessionError
from agentic_ray.runtime.loop import Loop
from agentic_ray.runtime.recordings import Recording
from agentic_ray.runtime.sending import Switches
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule import Dispatcher, get_policy
from agentic_ray.schedule.events import (
    DeviceSlots,
    LeaseEnded,
    LeaseGranted,
    LeaseReleased,
    LeaseRequested,
    NodeUp,
    Tick,
)
from agentic_ray.telemetry.state import NodeState

WAIT_SECONDS = 90
News = queue.SimpleQueue[LeaseGranted | LeaseEnded]


def unused(*_: Any) -> None:
    """Stand in for what the loop does not need here."""


@pytest.fixture
def news() -> News:
    return queue.SimpleQueue()


@pytest.fixture
def loop(news: News) -> Iterator[Loop]:
    """A loop over one node with one card."""
    made = Loop(
        lambda: Dispatcher(get_policy("predictive")),
        CodeletTable(),
        unused,
        Switches(),
        *(unused, unused, unused, unused),
        leased=news.put,
        kept_events=100,
        went_wrong=lambda last: f"{len(last.notes)} events",
    )
    made.start()
    devices = (DeviceSlots("cpu", "cpu", 4), DeviceSlots("GPU-0", "gpu", 1))
    made.post(NodeUp(time.monotonic(), NodeState("n", "n", 4.0, 4.0), devices))
    yield made
    made.close(SessionError("the test is over"))


def ask(loop: Loop, lease_id: str) -> None:
    loop.post(LeaseRequested(time.monotonic(), lease_id, share=1.0))


def test_leases_end_with_the_dispatcher_also_those_that_are_only_asked_for(
    loop: Loop, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for a card that the new Dispatcher was never asked for."""
    ask(loop, "held")
    ask(loop, "asked")
    granted = news.get(timeout=WAIT_SECONDS)
    assert isinstance(granted, LeaseGranted)
    assert granted.lease_id == "held"

    def boom(_: object) -> NoReturn:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(loop.dispatcher, "handle", boom)
    loop.post(Tick(time.monotonic()))
    ended = [news.get(timeout=WAIT_SECONDS) for _ in range(2)]
    assert all(isinstance(one, LeaseEnded) and one.lost for one in ended)
    assert [one.lease_id for one in ended] == ["held", "asked"]


def test_no_recording_begins_while_a_lease_is_open(loop: Loop, news: News, tmp_path: Path) -> None:
    """The Dispatcher that a recording begins with would know nothing of the lease."""
    ask(loop, "held")
    assert isinstance(news.get(timeout=WAIT_SECONDS), LeaseGranted)
    with Recording(tmp_path / "run.jsonl") as recording:
        with pytest.raises(SessionError, match="1 leases of cards are open"):
            loop.record(recording, {}).result(WAIT_SECONDS)
        loop.post(LeaseReleased(time.monotonic(), "held"))
        assert isinstance(news.get(timeout=WAIT_SECONDS), LeaseEnded)
        assert loop.record(recording, {}).result(WAIT_SECONDS) is None
