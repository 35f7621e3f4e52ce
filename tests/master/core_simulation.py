"""Random schedules of the master's core and a model of its journal, in virtual time.

One seed is one schedule. The journal keeps what was committed, in order; a crash loses what was
not, and every notice that was under way. Answers of commits get lost, the store stands still, the
wall clock is set, and a second master takes over from one that is still there.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from agentic_ray.errors import QueueFullError
from agentic_ray.master.clock import Moment
from agentic_ray.master.core import Command, MasterCore, Show, Start, Stop, Write
from agentic_ray.master.jobs import JobRecord, JobState
from agentic_ray.master.queue import QueueLimits

USERS = ("ada", "bob", "eve")


class BrokenPromiseError(AssertionError):
    """An invariant does not hold; the message has the seed."""


@dataclass
class Deposed:
    """A master that does not know yet that another has its journal."""

    core: MasterCore
    notices: deque[JobRecord]


@dataclass
class World:
    """The machine: journal, notices under way, workloads that run, and what was promised."""

    seed: int
    random: random.Random = field(init=False)
    steady: float = 50.0
    wall: float = 1000.0
    frozen: bool = False
    doubt: tuple[list[Write], bool] | None = None
    withdrawn: set[str] = field(default_factory=set)
    deadlines: dict[str, float] = field(default_factory=dict)
    deposed: list[Deposed] = field(default_factory=list)
    lost_answers: int = 0
    takeovers: int = 0
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

    @property
    def now(self) -> Moment:
        return Moment(self.steady, self.wall)

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
            (self.take_over, 1),
            (self.withdraw, 1),
            (self.submit_again, 1),
            (self.settle, 3),
            (self.freeze, 1),
            (self.jump, 1),
        ]
        for _ in range(steps):
            self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]()
            self.check()
        self.frozen = False
        for deposed in self.deposed:
            self.learn(deposed)
        while not self.core.idle:
            self.require(
                bool(self.pending or self.notices or self.running or self.doubt),
                "nothing moves any more",
            )
            for action in (self.settle, self.commit, self.notify, self.end):
                action()
                self.check()
        for job_id in self.accepted:
            self.require(self.journal[job_id].state.finished, f"{job_id} never ended")
        self.require(len(self.journal) >= len(self.accepted), "jobs are lost")

    def submit(self) -> None:
        self.submitted += 1
        user = self.random.choice(USERS)
        key = f"key{self.random.randint(0, 99)}" if self.random.random() < 0.3 else ""
        if key and self.of_key(user, key) is not None:
            return  # `submit_again` does that
        record = JobRecord(
            id=f"j{self.submitted}",
            workload="w",
            version="1",
            params=None,
            priority=self.random.randint(-2, 2),
            sequence=self.submitted,
            created_at=self.wall,
            user=user,
            idempotency_key=key,
            effects=self.random.random() < 0.3,
            deadline_at=self.wall + self.random.uniform(0, 20)
            if self.random.random() < 0.1
            else None,
        )
        try:
            self.carry_out(self.core.submit(record, self.now))
            if record.deadline_at is not None:
                self.deadlines[record.id] = self.steady + record.deadline_at - self.wall
        except QueueFullError:
            under_way = len(self.pending) + len(self.notices) + bool(self.doubt)
            self.require(self.core.queued + under_way > 0, "not full")

    def of_key(self, user: str, key: str) -> JobRecord | None:
        """What a submit with this key finds: a live job first, then one in the journal."""
        live = self.core.job_of_key(user, key)
        if live is not None:
            return live
        for record in self.journal.values():
            known = self.core.live_record(record.id) or record
            if (known.user, known.idempotency_key) == (user, key):
                return known
        return None

    def submit_again(self) -> None:
        """A caller repeats a submit with its key: it is the same job, which must then end."""
        keyed = [r for r in map(self.core.live_record, self.core.live_ids()) if r is not None]
        keyed = [record for record in keyed if record.idempotency_key]
        if keyed:
            record = self.random.choice(keyed)
            self.core.reclaim(record.id)
            self.withdrawn.discard(record.id)

    def withdraw(self) -> None:
        """The submitter of a job has waited long enough for the journal."""
        waiting = [write.record.id for write in self.pending if write.first]
        waiting += [w.record.id for w in (self.doubt[0] if self.doubt else []) if w.first]
        if waiting:
            job_id = self.random.choice(waiting)
            self.core.withdraw(job_id)
            self.withdrawn.add(job_id)

    def freeze(self) -> None:
        self.frozen = not self.frozen

    def commit(self) -> None:
        """One transaction: some of what waits becomes durable together, its answer may be lost."""
        if self.frozen or self.doubt is not None:
            return
        count = min(self.random.randint(1, 4), len(self.pending))
        batch = [self.pending.popleft() for _ in range(count)]
        if batch and self.random.random() < 0.15:
            self.lost_answers += 1
            happened = self.random.random() < 0.5
            if happened:
                self.keep(batch)
            self.doubt = batch, happened
            return
        self.keep(batch)
        self.notices.extend(write.record for write in batch)

    def keep(self, batch: list[Write]) -> None:
        for write in batch:
            record = write.record
            earlier = self.journal.get(record.id)
            self.require(earlier is None or not earlier.state.finished, f"{record.id} ended twice")
            self.require(earlier is None or not write.first, f"{record.id} is written twice")
            self.journal[record.id] = record
            self.ends[record.id] += record.state.finished

    def settle(self) -> None:
        """The journal answers again and tells what became of the transaction in doubt."""
        if self.doubt is None or self.frozen:
            return
        (batch, happened), self.doubt = self.doubt, None
        if happened:
            self.notices.extend(write.record for write in batch)
        else:
            self.pending.extendleft(reversed(batch))

    def notify(self) -> None:
        """The master learns that its next write is durable, and may tell."""
        if not self.notices:
            return
        record = self.notices.popleft()
        self.carry_out(self.core.written(record, self.now))
        if record.id not in self.withdrawn:
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
        if self.doubt is None and self.pending and self.pending[0].first:
            self.core.refused(self.pending.popleft().record.id)

    def crash(self) -> None:
        """Kill the master, some writes perhaps just committed, and start another."""
        self.crashes += 1
        if self.random.random() < 0.5:
            self.commit()
        self.running.clear()
        self.notices.clear()
        self.start_another()

    def take_over(self) -> None:
        """Another master takes the lease while this one is only slow."""
        self.takeovers += 1
        # What runs goes on there; what was committed may still be learned there, and started.
        self.deposed.append(Deposed(self.core, self.notices))
        self.notices = deque()
        self.running.clear()
        self.start_another()
        if self.random.random() < 0.5:
            self.learn(self.deposed[-1])

    def learn(self, deposed: Deposed) -> None:
        """A deposed master gets its last notices, then its next write is refused."""
        while deposed.notices:
            for command in deposed.core.written(deposed.notices.popleft(), self.now):
                if isinstance(command, Start):
                    self.starts[command.record.id] += 1
                    self.require(
                        not command.record.effects or self.starts[command.record.id] == 1,
                        f"{command.record.id} has effects, started by two masters",
                    )
        deposed.core.halt()
        self.require(not deposed.core.begin(self.now), "a master that was deposed goes on")

    def start_another(self) -> None:
        self.pending.clear()
        self.doubt = None
        # Who was told that the journal does not answer may have his job after all now.
        self.withdrawn -= set(self.journal)
        self.core = MasterCore(self.places, self.limits)
        for record in self.journal.values():
            if record.deadline_at is not None:
                left = min(record.deadline_at - self.wall, record.deadline_at - record.created_at)
                self.deadlines[record.id] = self.steady + left
        unfinished = [r for r in self.journal.values() if not r.state.finished]
        unfinished.sort(key=lambda record: record.sequence)
        self.carry_out(self.core.recover(unfinished, self.now))

    def jump(self) -> None:
        """Time goes on; somebody may set the wall clock meanwhile."""
        passed = self.random.choice([0.0, 1.0, 10.0, 100.0])
        self.steady += passed
        self.wall += passed + self.random.choice([0.0, 0.0, -3600.0, 86400.0])

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
        self.require(job_id not in self.withdrawn, f"{job_id} starts though it was refused")
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
            if record.error is not None and record.error.message.endswith("while it waited"):
                late = record.error.type != "JobTimeoutError" or (
                    self.steady >= self.deadlines[record.id]
                )
                self.require(late, f"{record.id} misses its deadline before it is there")

    def check(self) -> None:
        self.require(self.core.running <= self.places, "more places taken than there are")
        self.require(len(self.running) <= self.core.running, "a workload runs without a place")
        for job_id in self.accepted:
            self.require(job_id in self.journal, f"{job_id} was accepted and is lost")
        for job_id, state in self.shown_finished.items():
            self.require(self.journal[job_id].state is state, f"{job_id} changed its end")
            self.require(self.ends[job_id] == 1, f"{job_id} ended {self.ends[job_id]} times")
