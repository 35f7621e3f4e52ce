"""The watch over the processes of an embedded Ray, here over a process that stands for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from agentic_ray.runtime import keeper as module
from agentic_ray.runtime.keeper import Keeper
from tests.support.waiting import until

WAIT_SECONDS = 60


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes, the newest of which is watched as the raylet."""
    made: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(module, "_parts", lambda: [module.Part("raylet", made[-1])])
    yield made
    for process in made:
        process.kill()
        process.wait()


def start(parts: list[subprocess.Popen[bytes]], code: str = "import time; time.sleep(600)") -> bool:
    parts.append(subprocess.Popen([sys.executable, "-c", code]))
    return True


@pytest.mark.parametrize("by_the_kernel", [True, False])
def test_a_death_is_told_and_the_next_one_too(
    parts: list[Any], monkeypatch: pytest.MonkeyPatch, by_the_kernel: bool
) -> None:
    if not by_the_kernel:
        monkeypatch.delattr("os.pidfd_open", raising=False)
    told: list[str] = []
    threads: list[str] = []

    def died(what: str) -> bool:
        threads.append(threading.current_thread().name)
        start(parts)
        told.append(what)  # last: the test goes on at it
        return True

    keeper = Keeper(lambda: start(parts), died)
    assert keeper.started
    parts[0].kill()  # before anybody is to be told
    time.sleep(0.1)
    assert told == []
    keeper.watch()
    until(lambda: len(told) == 1)
    assert f"raylet of the embedded Ray (process {parts[0].pid}) has ended" in told[0]
    parts[1].kill()
    until(lambda: len(told) == 2)
    assert "SIGKILL" in told[1]
    assert set(threads) == {"agentic-ray-keeper"}
    keeper.close()
    parts[2].kill()
    time.sleep(0.5)
    assert len(told) == 2


def test_a_raylet_is_killed_when_its_agent_dies(
    parts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(parts)
    agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    both = [module.Part("raylet", parts[0]), module.Part("agent", psutil.Process(agent.pid), True)]
    monkeypatch.setattr(module, "_parts", lambda: both)
    told: list[str] = []
    keeper = Keeper(lambda: True, told.append)
    keeper.watch()
    agent.kill()
    until(lambda: told)
    assert "agent of the embedded Ray" in told[0]
    assert parts[0].wait(WAIT_SECONDS) == -signal.SIGKILL
    agent.wait()
    assert not keeper.sees_dead, "nothing new was started, so nothing is watched"
    keeper.close()


def test_one_that_ends_by_itself(parts: list[Any]) -> None:
    told: list[str] = []
    keeper = Keeper(
        lambda: start(parts, "import time; time.sleep(0.2); raise SystemExit(3)"), told.append
    )
    keeper.watch()
    until(lambda: told)
    assert "with exit code 3" in told[0]
    time.sleep(0.5)
    assert len(told) == 1, "nothing new was started, so nothing is watched"
    assert keeper._thread.is_alive()
    keeper.close()


def test_the_thread_lasts_while_it_is_not_closed_and_ends_then(parts: list[Any]) -> None:
    """Ray's processes end with the thread that started them."""
    found: list[Keeper] = []
    caller = threading.Thread(target=lambda: found.append(Keeper(lambda: start(parts), bool)))
    caller.start()
    caller.join()
    keeper = found[0]
    assert keeper._thread.is_alive()
    keeper.watch()
    time.sleep(0.2)
    assert keeper._thread.is_alive()
    keeper.close()
    keeper._thread.join(WAIT_SECONDS)
    assert not keeper._thread.is_alive()


@pytest.mark.parametrize("in_main", [True, False])
def test_what_hinders_the_start_is_raised_in_the_caller(in_main: bool) -> None:
    def fail() -> bool:
        raise ZeroDivisionError("no Ray")

    found: list[BaseException] = []

    def call() -> None:
        try:
            Keeper(fail, bool)
        except ZeroDivisionError as error:
            found.append(error)

    if in_main:
        call()
    else:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(WAIT_SECONDS)
    assert [str(error) for error in found] == ["no Ray"]


def test_a_joined_cluster_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_parts", lambda: pytest.fail("looked at"))
    keeper = Keeper(lambda: False, bool)
    keeper.watch()
    time.sleep(0.1)
    assert keeper._thread.is_alive()
    keeper.close()
    keeper._thread.join(WAIT_SECONDS)
    assert not keeper._thread.is_alive()
