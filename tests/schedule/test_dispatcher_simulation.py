"""The Dispatcher under thousands of seeded random schedules of work and faults.

``AGENTIC_RAY_SIMULATIONS=100000`` sets how many seeds the slow test runs.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import simulation

from agentic_ray.schedule import events as ev
from agentic_ray.schedule.demand import Demand
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.recovery import Recovery
from agentic_ray.schedule.restraint import Restraint
from agentic_ray.schedule.speculation import Speculator

QUICK_SEEDS = 300
SLOW_SEEDS = int(os.environ.get("AGENTIC_RAY_SIMULATIONS", "5000"))
_BATCH = 250


def test_invariants_hold_for_the_quick_seeds() -> None:
    executions = simulation.run_seeds(range(QUICK_SEEDS))
    assert executions > 10 * QUICK_SEEDS, "the simulated cluster hardly runs anything"


@pytest.mark.slow
@pytest.mark.timeout(max(180, SLOW_SEEDS // 50))
def test_invariants_hold_for_many_seeds() -> None:
    batches = [
        range(first, min(first + _BATCH, SLOW_SEEDS)) for first in range(0, SLOW_SEEDS, _BATCH)
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        executions = sum(pool.imap_unordered(simulation.run_seeds, batches))
    assert executions > 10 * SLOW_SEEDS


LEASES = (ev.LeaseRequested, ev.LeaseReleased, ev.LeaseGranted, ev.LeaseEnded)
"""Messages that the simulation of ``test_leases`` meets."""


def test_the_seeds_meet_every_event_command_and_kind_of_fault() -> None:
    text = "\n".join(line for seed in range(QUICK_SEEDS) for line in simulation.replay(seed).log)
    for message in {*ev.Event.__args__, *ev.Command.__args__} - {*LEASES}:
        assert f" {message.__name__} " in text
    assert any(" Start " in line and " True " in line for line in text.splitlines())
    for told in (
        "memory",
        "system",
        "crash",
        " watched",
        "input_lost",
        "user",
        "JobCancelledError",
        "PolicyError",
    ):
        assert told in text
    for error in ("ExecutorLostError", "NoSuitableDeviceError", "ImpossibleResourcesError"):
        assert error in text


@pytest.mark.parametrize("seed", [1, 7, 42, 23140, 52606])
def test_a_seed_replays_exactly(seed: int) -> None:
    """23140: a node whose memory shrank. 52606: a graph released with bundles split and waiting."""
    assert simulation.replay(seed).log == simulation.replay(seed).log


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_replays_exactly_in_another_process(hash_seed: str) -> None:
    here = simulation.replay(42)
    there = subprocess.run(
        [sys.executable, Path(simulation.__file__), "42"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.splitlines() == [*here.log, here.digest()]


def test_another_seed_is_another_schedule() -> None:
    assert simulation.replay(1).digest() != simulation.replay(2).digest()


def _first_failure() -> tuple[int, str]:
    for seed in range(QUICK_SEEDS):
        try:
            simulation.replay(seed)
        except simulation.SimulationFailure as failure:
            return seed, str(failure)
    pytest.fail("no seed notices the defect")


def test_a_failure_names_its_seed_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demand, "lose", lambda *_: None)  # nothing is ever recomputed
    seed, message = _first_failure()
    assert message.startswith(f"seed {seed}, at ")
    assert message.endswith(f"replay({seed}) repeats it")
    with pytest.raises(simulation.SimulationFailure) as again:
        simulation.replay(seed)
    assert str(again.value) == message


@pytest.mark.parametrize(
    ("part", "method"),
    [
        (Graphs, "maybe_finish"),
        (Graphs, "cancel"),
        (Graphs, "forget"),
        (Graphs, "withdraw"),
        (Recovery, "wake_delayed"),
        (Plans, "take_back"),
        (Restraint, "wake_rested"),
        (Speculator, "speculate"),
    ],
)
def test_a_dispatcher_that_forgets_something_is_found(
    monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    monkeypatch.setattr(part, method, lambda *_: None)
    _first_failure()
