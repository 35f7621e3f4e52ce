"""Chaos kills what it says it kills, and nothing else."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.runtime.processes import processes_of, session_name
from agentic_ray.testing import Chaos, Kill
from agentic_ray.testing.chaos import Kind
from tests.support.waiting import until


def roles() -> set[str]:
    return {process.role for process in processes_of(session_name())}


def running_children() -> set[int]:
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture
def bystander() -> Any:
    """A process of ours that has nothing to do with Ray."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_arguments_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="kinds must be some of"):
        Chaos(kinds=("cat",))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="kinds"):
        Chaos(kinds=())
    with pytest.raises(InvalidArgumentError, match="every_seconds"):
        Chaos(every_seconds=0)


@pytest.mark.usefixtures("ray_session")
def test_after_the_most_kills_there_are_no_more() -> None:
    ar.map_reduce(lambda x: x, range(4), operator.add)  # there are workers
    with Chaos(
        1, every_seconds=0.05, kinds=("worker",), least_age_seconds=0, most_kills=1
    ) as chaos:
        until(lambda: chaos.kills)
        time.sleep(1)
        assert ar.map_reduce(abs, range(-20, 0), operator.add) == 210
    assert len(chaos.kills) == 1


def test_without_a_cluster_there_is_nothing_to_enter() -> None:
    source = "from agentic_ray.testing import Chaos\nwith Chaos(): pass\n"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert SessionError.__name__ in done.stderr


@pytest.mark.usefixtures("ray_session")
def test_workers_and_executors_die_and_the_job_does_not(bystander: Any) -> None:
    data = [float(i) for i in range(200)]
    expected = ar.map_reduce(lambda x: x * 0.1, data, operator.add)

    def slowly(x: float) -> float:
        time.sleep(0.02)
        return x * 0.1

    found: list[float] = []
    job = threading.Thread(target=lambda: found.append(ar.map_reduce(slowly, data, operator.add)))
    kills: list[Kill] = []
    job.start()
    kinds: tuple[Kind, ...] = ("worker", "executor")
    for kind in kinds:
        with Chaos(every_seconds=600, kinds=(kind,), least_age_seconds=0) as chaos:
            until(chaos.kill_one)
        kills += chaos.kills
    job.join(120)
    assert found
    assert found[0].hex() == expected.hex()
    assert [kill.kind for kill in kills] == list(kinds)
    assert all(kill.title.startswith("ray::") for kill in kills)
    until(lambda: not {kill.pid for kill in kills} & running_children())
    assert bystander.poll() is None
    until(lambda: "executor" in roles())


@pytest.mark.usefixtures("ray_session")
def test_the_head_and_the_last_nodes_are_spared() -> None:
    assert "head" in roles()
    with Chaos(kinds=("node", "master")) as chaos:
        assert chaos.kill_one() is None
    assert chaos.kills == []


@pytest.mark.usefixtures("ray_session")
def test_a_master_that_is_named(bystander: Any) -> None:
    young = Chaos(kinds=("master",), masters=lambda: [bystander.pid], least_age_seconds=600)
    with young as chaos:
        assert chaos.kill_one() is None
    with Chaos(kinds=("master",), masters=lambda: [bystander.pid], least_age_seconds=0) as chaos:
        kill = chaos.kill_one()
    assert kill is not None
    assert (kill.kind, kill.pid) == ("master", bystander.pid)
    assert bystander.wait(10) < 0
    with (
        pytest.raises(InvalidArgumentError, match="calling process"),
        Chaos(kinds=("master",), masters=lambda: [os.getpid()], every_seconds=0.01) as chaos,
    ):
        time.sleep(0.5)


def order_of_kills(seed: int) -> list[int]:
    """Which of six processes died, in order."""
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(6)]
    places = {sleeper.pid: place for place, sleeper in enumerate(sleepers)}

    def alive() -> list[int]:
        return [sleeper.pid for sleeper in sleepers if sleeper.poll() is None]

    def buried(kill: Kill) -> None:
        until(lambda: kill.pid not in alive())

    try:
        with Chaos(
            seed,
            kinds=("node", "master"),
            masters=alive,
            every_seconds=0.05,
            least_age_seconds=0.0,
            on_kill=buried,
        ) as chaos:
            until(lambda: len(chaos.kills) >= 5)
        return [places[kill.pid] for kill in chaos.kills[:5]]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


@pytest.mark.usefixtures("ray_session")
def test_the_seed_fixes_the_choices() -> None:
    first = order_of_kills(11)
    assert first == order_of_kills(11)
    assert any(order_of_kills(seed) != first for seed in range(3))
