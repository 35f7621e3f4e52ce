"""Webhooks tell of each end at least once, also of those that the service was not there for."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master import Journal, Master, Registry
from agentic_ray.master.distant import DistantMaster
from agentic_ray.service.missed import MissedEnds
from agentic_ray.service.told import MARGIN_SECONDS, Told
from agentic_ray.service.webhooks import Webhooks

from .test_distant_master import Machine, machine, until

__all__ = ["machine"]

URL = "http://a.example/"


class Hook:
    """Who is told; refuses to be while ``broken``."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.broken = False
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.broken:
            return httpx.Response(503)
        with self._lock:
            self.told[json.loads(request.content)["task_id"]] += 1
        return httpx.Response(204)

    def webhooks(self, state: Path) -> Webhooks:
        return Webhooks([URL], "s3cret", state=state, transport=httpx.MockTransport(self))


@contextmanager
def telling(hook: Hook, state: Path, master: DistantMaster) -> Iterator[None]:
    webhooks = hook.webhooks(state)
    missed = MissedEnds(webhooks, master)
    try:
        yield
    finally:
        missed.close()
        webhooks.close(0.1)


def ended(master: DistantMaster, number: int) -> str:
    job_id = master.submit("double", number).id
    until(lambda: master.outline(job_id).state.finished)
    return job_id


def test_ends_while_the_service_was_away_are_told_when_it_is_back(
    machine: Machine, tmp_path: Path
) -> None:
    hook, state = Hook(), tmp_path / "told.json"
    with machine.service() as (_, master):
        until(lambda: not master.reason)
        before = ended(master, 1)
        with telling(hook, state, master):
            first = ended(master, 2)
            until(lambda: hook.told[first])
            hook.broken = True  # and the service ends before it could be told
            refused = ended(master, 3)
        hook.broken = False
        away = [ended(master, number) for number in (4, 5)]
    machine.kill()
    machine.start()  # what is to be told is in the journal
    with machine.service() as (_, master):
        until(lambda: not master.reason)
        with telling(hook, state, master):
            until(lambda: {refused, *away} <= set(hook.told))
            last = ended(master, 6)
            until(lambda: hook.told[last])
        with telling(hook, state, master):
            last = ended(master, 7)
            until(lambda: hook.told[last])
    assert set(hook.told.values()) == {1}
    assert before not in hook.told


def test_ends_of_a_master_of_this_process_that_was_killed_are_told(tmp_path: Path) -> None:
    hook, state = Hook(), tmp_path / "told.json"
    registry = Registry()
    registry.register("echo", lambda params: params)
    hook.webhooks(state).close()
    hook.broken = True
    webhooks = hook.webhooks(state)
    with Master(
        workloads=registry, store=Journal(tmp_path / "journal"), on_end=webhooks.ended
    ) as master:
        ids = {master.wait(master.submit("echo", i).id).id for i in range(5)}
    # (killed: what waits to be sent is lost with the process)
    hook.broken = False
    again = hook.webhooks(state)
    with Master(
        workloads=registry, store=Journal(tmp_path / "journal"), on_end=again.ended
    ) as master:
        missed = MissedEnds(again, master)
        until(lambda: ids <= set(hook.told))
        missed.close()
    again.close()
    webhooks.close(0.1)


def test_the_time_stays_before_ends_that_are_not_told(tmp_path: Path) -> None:
    file = tmp_path / "told.json"
    told = Told(file)
    start = json.loads(file.read_text())["told_until"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert told.begin("a", start + 100, 1)
    assert told.begin("b", start + 200, 2)
    assert not told.begin("b", start + 200, 2)
    told.done("b")
    told.done("b")
    told.write()
    assert Told(file).missed() == start + 100 - MARGIN_SECONDS
    told.done("a")
    told.write()
    again = Told(file)
    assert again.missed() == start + 200 - MARGIN_SECONDS
    assert not again.begin("b", start + 200, 1)  # was told, within the margin
    assert again.begin("c", start + 300, 1)
    again.done("c")
    again.write()
    assert Told(file).missed() == start + 200 - MARGIN_SECONDS  # until what was missed is found
    again.caught_up()
    assert Told(file).missed() == start + 300 - MARGIN_SECONDS
    assert Told(tmp_path / "new.json").missed() >= start  # what ended before is nobody's to tell


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"told_until": "x", "recent": {}}', "\xff"])
def test_other_files_are_not_taken_for_the_state(tmp_path: Path, content: str) -> None:
    file = tmp_path / "told.json"
    file.write_text(content, "latin-1")
    with pytest.raises(InvalidArgumentError, match=r"told\.json"):
        Told(file)
