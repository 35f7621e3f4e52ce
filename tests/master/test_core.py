"""The core under thousands of random schedules, and that the simulation would notice."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from agentic_ray.master.clock import Moment
from agentic_ray.master.core import Command, MasterCore, Start
from agentic_ray.master.jobs import JobRecord, JobState, requeued

from .core_simulation import BrokenPromiseError, World

SCHEDULES = int(os.environ.get("AGENTIC_RAY_SCHEDULES", "2000"))


def test_random_schedules_of_submits_crashes_and_cancels_keep_every_promise() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        world = World(seed)
        world.run(steps=120)
        seen["crashes"] += world.crashes
        seen["accepted"] += len(world.accepted)
        seen["again"] += sum(count > 1 for count in world.starts.values())
        seen["cancelled"] += len(world.cancelled)
        seen["withdrawn"] += len(world.withdrawn)
        seen["lost answers"] += world.lost_answers
        seen["takeovers"] += world.takeovers
        for record in world.journal.values():
            seen[record.state.value] += 1
            if record.error is not None:
                seen[record.error.type] += 1
    # Each thing that may happen did, or the schedules would prove little.
    for kind in (
        *("crashes", "accepted", "again", "cancelled", "succeeded", "failed"),
        *("withdrawn", "lost answers", "takeovers"),
        *("InterruptedJobError", "JobTimeoutError", "JobCancelledError", "ValueError"),
    ):
        assert seen[kind] > SCHEDULES / 100, (kind, seen)


def test_a_seed_replays_exactly() -> None:
    first, second = World(7), World(7)
    first.run(200)
    second.run(200)
    assert first.journal == second.journal
    assert first.starts == second.starts


def run_many(schedules: int) -> None:
    for seed in range(schedules):
        World(seed).run(120)


class StartsBeforeItIsWritten(MasterCore):
    def _start_next(self, now: Moment) -> list[Command]:
        commands = super()._start_next(now)
        return commands + [Start(c.record) for c in commands if hasattr(c, "first")]


class RunsEffectsAgain(MasterCore):
    def recover(self, records: Any, now: Moment) -> list[Command]:
        return super().recover([_without_effects(r) for r in records], now)


class ForgetsTheQueue(MasterCore):
    def recover(self, records: Any, now: Moment) -> list[Command]:
        return super().recover([r for r in records if r.state is not JobState.QUEUED], now)


class ForgetsCancels(MasterCore):
    def recover(self, records: Any, now: Moment) -> list[Command]:
        return super().recover([replace(r, cancel_requested=False) for r in records], now)


class RunsWhatWasRefused(MasterCore):
    def withdraw(self, job_id: str) -> None:
        """Forget that nobody waits for it."""


class GoesByTheWallClock(MasterCore):
    def submit(self, record: JobRecord, now: Moment) -> list[Command]:
        return super().submit(record, Moment(now.wall, now.wall))

    def _start_next(self, now: Moment) -> list[Command]:
        return super()._start_next(Moment(now.wall, now.wall))


def _without_effects(record: JobRecord) -> JobRecord:
    # A stand-in for a core that does not look: the record itself keeps its mark.
    if record.state is JobState.RUNNING and record.effects:
        return requeued(record)
    return record


@pytest.mark.parametrize(
    "broken",
    [
        *(StartsBeforeItIsWritten, RunsEffectsAgain, ForgetsTheQueue, ForgetsCancels),
        *(RunsWhatWasRefused, GoesByTheWallClock),
    ],
)
def test_a_core_that_breaks_a_promise_is_caught(
    broken: type[MasterCore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.master.core_simulation.MasterCore", broken)
    with pytest.raises(BrokenPromiseError, match=r"seed \d+"):
        run_many(3000)
