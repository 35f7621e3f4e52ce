"""Random schedules of the master's core and a model of its journal, in virtual time.

One seed is one schedule. The journal keeps what was committed, in order; a crash loses what was
not, and every notice that was under way.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from agentic_ray.errors import QueueFullError
from agentic_ray.master.core import Command, MasterCore, Show, Start, Stop, Write
from agentic_ray.master.jobs import JobRecord, JobState
from agentic_ray.master.queue import QueueLimits

USERS = ("ada", "bob", "eve")


class BrokenPromiseError(AssertionError):
    """An invariant does not hold; the message has the seed."""


@dataclass
class World:
    """The machine: journal, notices under way, workloads that run, and what was promised."""

    seed: int
    random: random.Random = field(init=False)
    now: float = 1000.0
    journal: dict[str, JobRecord] = field(default_factory=dict)
    pending: deque[Write] = field(default_factory=deque)
    notices: deque[JobRecord] = field(default_factory=deque)
    running: set[str] = field(default_factory=set)
    accepted: dict[str, JobRecord] = field(default_factory=dict)
    cancelling: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    shown_finished: dict[str, JobState] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    submitted: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.places = self.random.randint(1, 3)
        self.limits = QueueLimits(
            max_queued=self.random.randint(3, 12),
            max_queued_per_user=self.random.choice([None, 3]),
            max_running_per_user=self.random.choice([None, 1]),
            ageing_seconds=self.random.choice([1.0, 60.0]),
        )
        self.core = MasterCore(self.places, self.limits)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            raise BrokenPromiseError(f"seed {self.seed}: {what}")

    # --- what happens ------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """A random schedule, then a quiet time in which everything ends."""
        actions = [
            (self.submit, 4),
            (self.commit, 5),
            (self.notify, 6),
            (self.end, 4),
            (self.die, 1),
            (self.cancel, 1),
            (self.expire, 1),
            (self.refuse, 1),
            (self.crash, 1),
            (self.jump, 1),
        ]
        for _ in range(steps):
            self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]()
            self.check()
        while not self.core.idle:
            self.require(
                bool(self.pending or self.notices or self.running), "nothing moves any more"
            )
            for action in (self.commit, self.notify, self.end):
                action()
                self.check()
        for job_id in self.accepted:
            self.require(self.journal[job_id].state.finished, f"{job_id} never ended")
        self.require(len(self.journal) >= len(self.accepted), "jobs are lost")

    def submit(self) -> None:
        self.submitted += 1
        record = JobRecord(
            id=f"j{self.submitted}",
            workload="w",
            version="1",
            params=None,
            priority=self.random.randint(-2, 2),
            sequence=self.submitted,
            created_at=self.now,
            user=self.random.choice(USERS),
            effects=self.random.random() < 0.3,
            deadline_at=self.now + self.random.uniform(0, 20)
            if self.random.random() < 0.1
            else None,
        )
        try:
            self.carry_out(self.core.submit(record))
        except QueueFullError:
            self.require(self.core.queued + len(self.pending) + len(self.notices) > 0, "not full")

    def commit(self) -> None:
        """One transaction: some of what waits becomes durable together."""
        for _ in range(self.random.randint(1, 4)):
            if not self.pending:
                return
            record = self.pending.popleft().record
            earlier = self.journal.get(record.id)
            self.require(earlier is None or not earlier.state.finished, f"{record.id} ended twice")
            self.journal[record.id] = record
            self.ends[record.id] += record.state.finished
            self.notices.append(record)

    def notify(self) -> None:
        """The master learns that its next write is durable, and may tell."""
        if not self.notices:
            return
        record = self.notices.popleft()
        self.carry_out(self.core.written(record, self.now))
        self.accepted.setdefault(record.id, record)
        if record.id in self.cancelling and (record.cancel_requested or record.state.finished):
            self.cancelled.add(record.id)

    def end(self) -> None:
        if not self.running:
            return
        job_id = self.random.choice(sorted(self.running))
        self.running.remove(job_id)
        error = ValueError("no") if self.random.random() < 0.2 else None
        self.carry_out(self.core.ended(job_id, self.now, result=1, error=error))

    def die(self) -> None:
        """The process that runs a job ends."""
        if not self.running:
            return
        job_id = self.random.choice(sorted(self.running))
        self.running.remove(job_id)
        self.carry_out(self.core.died(job_id, "its process died", self.now))

    def cancel(self) -> None:
        known = [job_id for job_id in self.accepted if self.core.is_live(job_id)]
        if known:
            job_id = self.random.choice(known)
            commands = self.core.cancel(job_id, self.now)
            if commands:
                self.cancelling.add(job_id)
            self.carry_out(commands)

    def expire(self) -> None:
        known = self.core.live_ids()
        if known:
            self.carry_out(self.core.expire(self.random.choice(known), "too long", self.now))

    def refuse(self) -> None:
        """The disk is full for a submit."""
        if self.pending and self.pending[0].first:
            self.core.refused(self.pending.popleft().record.id)

    def crash(self) -> None:
        """Kill the master, some writes perhaps just committed, and start another."""
        self.crashes += 1
        if self.random.random() < 0.5:
            self.commit()
        self.pending.clear()
        self.notices.clear()
        self.running.clear()
        self.core = MasterCore(self.places, self.limits)
        unfinished = [r for r in self.journal.values() if not r.state.finished]
        unfinished.sort(key=lambda record: record.sequence)
        self.carry_out(self.core.recover(unfinished, self.now))

    def jump(self) -> None:
        self.now = max(0.0, self.now + self.random.choice([1.0, 10.0, 100.0, -500.0]))

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Write():
                    self.pending.append(command)
                case Start(record):
                    self.start(record)
                case Stop(job_id):
                    self.require(job_id in self.running, f"{job_id} is told to stop, but idle")
                case Show(record):
                    self.show(record)

    # --- what must hold ----------------------------------------------------------------

    def start(self, record: JobRecord) -> None:
        job_id = record.id
        durable = self.journal.get(job_id)
        self.require(durable is not None, f"{job_id} starts before it is written")
        assert durable is not None
        self.require(durable.state is JobState.RUNNING, f"{job_id} starts as {durable.state}")
        self.require(job_id not in self.running, f"{job_id} runs twice at once")
        self.require(job_id not in self.cancelled, f"{job_id} starts after its cancel was told")
        self.starts[job_id] += 1
        self.require(
            not record.effects or self.starts[job_id] == 1, f"{job_id} has effects, started twice"
        )
        self.running.add(job_id)

    def show(self, record: JobRecord) -> None:
        if record.state.finished:
            self.require(
                self.journal.get(record.id) == record, f"{record.id} is told to have ended too soon"
            )
            self.require(record.id not in self.shown_finished, f"{record.id} is told twice")
            self.shown_finished[record.id] = record.state

    def check(self) -> None:
        self.require(self.core.running <= self.places, "more places taken than there are")
        self.require(len(self.running) <= self.core.running, "a workload runs without a place")
        for job_id in self.accepted:
            self.require(job_id in self.journal, f"{job_id} was accepted and is lost")
        for job_id, state in self.shown_finished.items():
            self.require(self.journal[job_id].state is state, f"{job_id} changed its end")
            self.require(self.ends[job_id] == 1, f"{job_id} ended {self.ends[job_id]} times")
