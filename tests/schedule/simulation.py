"""Deterministic simulation of the Dispatcher: a seeded random cluster in virtual time.

A second, much simpler model of what is going on checks every command and, after every event,
the invariants. ``python tests/schedule/simulation.py SEED`` replays one seed and prints it.
"""

from __future__ import annotations

import gc
import hashlib
import heapq
import math
import random
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType, ModuleType
from typing import Any

from agentic_ray.errors import (
    ExecutorLostError,
    ImpossibleResourcesError,
    InterruptedJobError,
    JobCancelledError,
    NoNodeError,
    NoSuitableDeviceError,
    OutOfHostMemoryError,
    PolicyError,
)
from agentic_ray.graph import Bundle, Codelet, Ref, Resources, Task, TaskGraph, bundle
from agentic_ray.schedule import ClusterView, CostModel, Dispatcher, Placement, Policy, RetryRules
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.dispatcher import SpeculationRules
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.pressure import halves
from agentic_ray.schedule.records import Graph
from agentic_ray.schedule.scarcity import FIRST_TRY_SECONDS, STALE_SECONDS
from agentic_ray.schedule.view import GPU_AHEAD_PER_SLOT, SHORT_AHEAD_PER_SLOT, Executor
from agentic_ray.telemetry.state import ClusterState, NodeState

HORIZON_SECONDS = 10.0
"""Graphs are submitted and faults happen before this; afterwards everything must drain."""

MAX_LINES = 20_000
"""Length of a log at which a run that never ends is given up; normal ones have hundreds."""

POLICIES = ("load_balance", "predictive", "priority")


def _nothing(*_: Any) -> None: ...


class SimulationFailure(AssertionError):
    """An invariant does not hold; the message carries the seed."""


class UserError(Exception):
    """What the user's code raises in the simulation."""


class Flaky(UserError):
    """The same, where it is asked for that it be tried again."""


_CPU = Codelet("on_cpu", _nothing)
_BOTH = Codelet("on_both", _nothing, _nothing)
_GPU = Codelet("on_gpu", None, _nothing)


def _halve(task: Task) -> tuple[Task, ...] | None:
    """Two halves without inputs of their own in common, and their combination."""
    if task.key.count("/") > 1:
        return None
    parts = [replace(task, key=f"{task.key}/{i}") for i in range(2)]
    return (*parts, Task.of(_CPU, *(Ref(part.key) for part in parts), key=task.key))


_OPAQUE = Codelet("opaque", _nothing, opaque=True, halve=_halve)
_FLAKY = Codelet("flaky", _nothing, retry_on=(Flaky,))
_EFFECTS = Codelet("effects", _nothing, has_effects=True)


class RandomPolicy:
    """Any placement the contract allows, also onto full executors, which the Dispatcher defers."""

    name = "random"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        placements = []
        for offered in ready:
            suiting = cluster.suiting(offered.kinds(), offered.resources.where)
            executors = [e for e in suiting if not e.silent]
            admitting = [e for e in executors if e.admits(offered.resources, offered.opaque)]
            if executors and self._rng.random() < 0.3:
                placements.append(self._placed(offered, self._rng.choice(executors)))
            elif admitting and (not placements or self._rng.random() < 0.7):
                placements.append(self._placed(offered, self._rng.choice(admitting)))
        return placements

    def _placed(self, offered: Bundle, executor: Executor) -> Placement:
        return Placement(offered.key, executor.node_id, executor.device, None, None, "random")


class BrokenPolicy(RandomPolicy):
    """Raises, or answers with nonsense, now and then."""

    name = "broken"

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        placements = list(super().place(ready, cluster, model))
        fault = self._rng.randrange(40)
        if fault == 0:
            raise ZeroDivisionError("broken policy")
        if fault == 1 and placements:
            return [*placements, placements[0]]
        if fault == 2:
            return [*placements, Placement("nobody", "nowhere", "cpu", None, None, "")]
        if fault == 3:
            return [Placement(ready[0].key, "nowhere", "cpu", None, None, "")]
        return [] if fault == 4 else placements


@dataclass(slots=True)
class _Device:
    slots: ev.DeviceSlots
    attempts: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    node_id: str
    devices: dict[str, _Device]
    slowness: float = 1.0


@dataclass(slots=True)
class _Part:
    """A bundle as the model sees it. ``running`` counts its attempts under way, ``live`` those
    whose values are awaited."""

    bundle: Bundle
    bundle_id: int
    starts: int = 0
    completed: int = 0
    failures: int = 0
    losses: int = 0
    user_failures: int = 0
    too_large: int = 0
    starved_at: float | None = None
    poison: bool = False
    suspect: bool = False
    crashed: bool = False
    watched: bool = False
    running: int = 0
    live: int = 0
    cpu_only: bool = False
    begun: bool = False


@dataclass(slots=True)
class _Job:
    graph_id: str
    outputs: tuple[str, ...]
    parts: list[_Part]
    first_id: int
    state: str = "open"
    values: dict[str, str | None] = field(default_factory=dict)
    home: dict[str, _Part] = field(default_factory=dict)
    users: dict[str, list[_Part]] = field(default_factory=dict)
    cancel_asked: bool = False

    def part(self, bundle_id: int) -> _Part:
        return next(part for part in self.parts if part.bundle_id == bundle_id)

    def demanded(self, key: str) -> bool:
        """Whether anybody needs the value of ``key``, be it there or not."""
        return key in self.outputs or any(self.wanted(part) for part in self.users.get(key, ()))

    def wanted(self, part: _Part) -> bool:
        """Whether ``part`` is still to be run, or to be run again."""
        if part.bundle.has_effects and (part.begun or part.completed):
            return False
        if not part.completed or part.live:
            return True
        return any(key not in self.values and self.demanded(key) for key in part.bundle.outputs)


@dataclass(slots=True)
class _Attempt:
    job: _Job
    part: _Part
    place: tuple[str, str]
    memory_bytes: int
    sent: float
    cancelled: bool = False
    process: str = "shared"
    beside: bool = False
    superseded: bool = False
    awaited: bool = True

    def supersede(self) -> None:
        """Another attempt of the same bundle was quicker."""
        self.superseded = True
        if self.awaited:
            self.awaited = False
            self.part.live -= 1

    def end(self) -> None:
        self.part.running -= 1
        self.part.live -= self.awaited


def _traits_of(node_id: str) -> tuple[dict[str, str], dict[str, float]]:
    """Labels and custom resources of a node of this name."""
    number = zlib.crc32(node_id.encode())
    return {"site": "ab"[number % 2]}, ({"licence": 1.5} if number % 3 else {})


def _suits(node_id: str, bundle: Bundle) -> bool:
    labels, custom = _traits_of(node_id)
    wanted = bundle.resources
    return all(labels.get(k) == v for k, v in wanted.labels.items()) and all(
        amount <= custom.get(name, 0.0) for name, amount in wanted.custom.items()
    )


class Simulation:
    """One seeded run; ``log`` is every event and command in order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.log: list[str] = []
        self.now = 0.0
        self.retry = RetryRules(
            max_failures=rng.choice((0, 2, 4)),
            max_losses=rng.choice((1, 8, 32)),
            max_user_retries=rng.choice((0, 1, 3)),
            max_too_large=rng.choice((0, 1)),
            base_seconds=0.05,
            cap_seconds=1.0,
            patience_seconds=3.0,
            no_node_seconds=rng.choice((2.0, 300.0)),
            memory_wait_seconds=rng.choice((0.0, 4.0, 100.0)),
        )
        self.policy = self._pick_policy()
        self.speculation = SpeculationRules(
            floor_seconds=rng.choice((0.5, 2.0)),
            factor=rng.choice((1.0, 2.0)),
            deviations=rng.choice((0.0, 3.0)),
            enabled=rng.random() < 0.8,
        )
        self.dispatcher = Dispatcher(self.policy, retry=self.retry, speculation=self.speculation)
        self.fault_rate = rng.choice((0.0, 0.02, 0.1, 0.3))
        self.inline_rate = rng.choice((0.0, 0.3, 1.0))
        self.poison_rate = rng.choice((0.0, 0.0, 0.05))
        self.gpu_rate = rng.choice((0.0, 0.5))
        self.plain = rng.random() < 0.4  # nothing needs memory or several CPUs
        self.where_rate = 0.0 if self.plain else rng.choice((0.0, 0.0, 0.3))
        if self.plain:  # and costs are known beforehand, so that graphs are planned as a whole
            for codelet in (_CPU, _BOTH, _GPU, _OPAQUE):
                for kind in ("cpu", "gpu"):
                    self.dispatcher.model.observe_size(codelet.name, kind, 1.0, 0.5)
        self.nodes: dict[str, _Node] = {}
        self.jobs: dict[str, _Job] = {}
        self.attempts: dict[tuple[int, int], _Attempt] = {}
        self.executions = 0
        self._agenda: list[tuple[float, int, str, Any]] = []
        self._sequence = 0
        self._nodeless_since: float | None = None
        self._resting: dict[str, tuple[float, float]] = {}
        """Nodes whose memory others hold: since when, and how much is to come free."""
        self._just_lost: set[tuple[str, str]] = set()
        self._doomed: list[_Job] = []
        self._to_split: _Part | None = None
        self._event: ev.Event = ev.Tick(0.0)

    def _pick_policy(self) -> Policy:
        choice = self.rng.random()
        if choice < 0.1:
            return BrokenPolicy(self.rng)
        if choice < 0.5:
            return RandomPolicy(self.rng)
        return get_policy(self.rng.choice(POLICIES))

    # --- the run -----------------------------------------------------------------------

    def run(self) -> Simulation:
        try:
            self._plan()
            self._drain()
            self._finish()
        except SimulationFailure:
            raise
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}", error)
        return self

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()

    def _plan(self) -> None:
        rng = self.rng
        for i in range(rng.randint(0, 3)):
            self._at(rng.choice((0.0, rng.uniform(0, 3))), "node_up", f"n{i}")
        shapes = [self._random_graph(i) for i in range(rng.randint(1, 3))]
        for i in range(rng.randint(1, 4)):
            graph = rng.choice(shapes)
            self._at(rng.uniform(0, HORIZON_SECONDS / 2), "submit", (f"g{i}", graph))
        faults = ("node_down", "node_up", "gpu_lost", "value_lost", "slow", "cancel", "release")
        for _ in range(rng.choice((0, 2, 8, 20))):
            self._at(rng.uniform(0, HORIZON_SECONDS), rng.choice(faults), None)
        for _ in range(rng.randint(0, 3)):
            self._at(rng.uniform(0, HORIZON_SECONDS), rng.choice(("tick", "telemetry")), None)
        self._at(HORIZON_SECONDS, "node_up", "last")

    def _random_graph(self, index: int) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
        rng = self.rng
        tasks: list[Task] = []
        small = self.plain or rng.random() < 0.7
        for i in range(rng.randint(1, 14)):
            known = [task.key for task in tasks]
            inputs = rng.sample(known, min(len(known), rng.choice((0, 1, 1, 2, 3))))
            codelet = rng.choice((_CPU, _CPU, _FLAKY, _OPAQUE, _EFFECTS, _BOTH, _BOTH, _GPU))
            if codelet is _GPU and rng.random() > self.gpu_rate:
                codelet = _BOTH
            resources = Resources(
                cpus=1 if small else rng.choice((0.5, 1, 1, 1.5, 2, 3)),
                memory_bytes=0 if self.plain else rng.choice((0, 0, 40, 70)),
                gpu_memory_bytes=rng.choice((0, 0, 60)),
                custom={"licence": rng.choice((0.7, 1.0))}
                if rng.random() < self.where_rate
                else {},
                labels={"site": rng.choice("ab")} if rng.random() < self.where_rate else {},
            )
            tasks.append(
                Task.of(
                    codelet,
                    *map(Ref, inputs),
                    key=f"t{index}.{i}",
                    tag=rng.choice(("any", "gpu")) if codelet.gpu else "any",
                    resources=resources,
                    priority=rng.choice((0, 0, 0, 5)),
                )
            )
        used = {key for task in tasks for key in task.dependencies}
        outputs = [t.key for t in tasks if t.key not in used or rng.random() < 0.1]
        graph = TaskGraph(tasks, outputs[: rng.choice((1, len(outputs)))])
        target = rng.choice((0.0, 2.0, 4.0))
        return bundle(graph, seconds=lambda _: 1.0, target_seconds=lambda _: target), graph.outputs

    def _drain(self) -> None:
        while True:
            wakeup = self.dispatcher.next_wakeup_seconds
            if wakeup is not None and (not self._agenda or wakeup <= self._agenda[0][0]):
                self._send(ev.Tick(max(self.now, wakeup + self.rng.choice((0.0, 0.01)))))
            elif self._agenda:
                time, _, kind, detail = heapq.heappop(self._agenda)
                self.now = max(self.now, time)
                getattr(self, f"_do_{kind}")(detail)
            else:
                return

    def _finish(self) -> None:
        for job in self.jobs.values():
            self._check(job.state != "open", f"{job.graph_id} never ends")
            if job.state != "released":
                self._send(ev.GraphReleased(self.now, job.graph_id))
        self._drain()
        self._check(self.dispatcher.idle, "something is under way after everything was released")
        self._check(not self.dispatcher.lease_books(), "leases are held that nobody asked for")
        kept = kept_by(self.dispatcher)
        self._check(not kept, f"{kept!r} is kept after everything was released")

    def _at(self, time: float, kind: str, detail: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._agenda, (time, self._sequence, kind, detail))

    # --- what happens to the cluster ---------------------------------------------------

    def _do_tick(self, _: None) -> None:
        self._send(ev.Tick(self.now))

    def _do_telemetry(self, _: None) -> None:
        states = tuple(self._state(node) for node in self.nodes.values())
        self._send(ev.Telemetry(self.now, ClusterState(states, self.now)))

    def _do_node_up(self, node_id: str | None) -> None:
        """A node comes, or one that is there comes with other devices."""
        rng = self.rng
        node_id = node_id or f"n{rng.randrange(4)}"
        offers = [ev.DeviceSlots("cpu", "cpu", rng.choice((1, 2, 4)), rng.choice((0.5, 1.0)))]
        if rng.random() < 0.3:
            offers[0] = ev.DeviceSlots("cpu", "cpu", offers[0].slots, 1.0, 100)
        for i in range(rng.choice((0, 0, 1, 2))):
            memory = rng.choice((None, 100))
            offers.append(ev.DeviceSlots(f"GPU-{node_id}-{i}", "gpu", 1, 2.0, memory))
        node = self.nodes.setdefault(node_id, _Node(node_id, {}))
        for name in [name for name in node.devices if name not in {o.device for o in offers}]:
            self._drop_device(node, name)
        for offer in offers:
            node.devices.setdefault(offer.device, _Device(offer)).slots = offer
        self._send(ev.NodeUp(self.now, self._state(node), tuple(offers)))

    def _do_node_down(self, _: None) -> None:
        if not self.nodes:
            return
        node = self.nodes.pop(self.rng.choice(list(self.nodes)))
        for name in list(node.devices):
            self._drop_device(node, name)
        self._resting.pop(node.node_id, None)
        self._just_lost = {
            (job.graph_id, key)
            for job in self.jobs.values()
            for key, place in job.values.items()
            if place == node.node_id
        }
        self._send(ev.NodeLost(self.now, node.node_id, "unplugged"))

    def _do_gpu_lost(self, _: None) -> None:
        gpus = [(n, d) for n in self.nodes.values() for d in n.devices if d != "cpu"]
        if gpus:
            node, name = self.rng.choice(gpus)
            self._drop_device(node, name)
            self._send(ev.GpuLost(self.now, node.node_id, name, "fell off the bus"))

    def _do_value_lost(self, _: None) -> None:
        known = [(job.graph_id, key) for job in self.jobs.values() for key in job.home]
        if known:
            self._lose(*self.rng.choice(known))

    def _lose(self, graph_id: str, key: str) -> None:
        self._just_lost = {(graph_id, key)}
        self._send(ev.ValueLost(self.now, graph_id, key))

    def _do_slow(self, _: None) -> None:
        if self.nodes:
            self.nodes[self.rng.choice(list(self.nodes))].slowness = self.rng.choice((1.0, 10.0))

    def _do_cancel(self, _: None) -> None:
        if self.jobs:
            job = self.jobs[self.rng.choice(list(self.jobs))]
            job.cancel_asked = True
            self._send(ev.CancelRequested(self.now, job.graph_id))

    def _do_release(self, _: None) -> None:
        if self.jobs:
            self._send(ev.GraphReleased(self.now, self.rng.choice(list(self.jobs))))

    def _do_submit(self, detail: Any) -> None:
        graph_id, (bundles, outputs) = detail
        first = self.dispatcher.next_bundle_id
        parts = [_Part(b, first + i) for i, b in enumerate(bundles)]
        for part in parts:
            part.poison = self.rng.random() < self.poison_rate
        job = self.jobs[graph_id] = _Job(graph_id, outputs, parts, first)
        for part in parts:
            for key in part.bundle.outputs:
                job.home[key] = part
            for key in part.bundle.inputs:
                job.users.setdefault(key, []).append(part)
        priority = self.rng.choice((0, 0, 10))
        self._send(ev.GraphSubmitted(self.now, graph_id, bundles, outputs, priority))

    def _do_report(self, event: ev.BundleFinished | ev.BundleFailed) -> None:
        """Deliver a report: in time, late (its device is gone), or a second time."""
        lost_input = None
        known = self.attempts.get((event.bundle_id, event.attempt))
        if isinstance(event, ev.BundleFailed) and event.cause == "input_lost" and known:
            lost_input = self.rng.choice(known.part.bundle.inputs)
            self._lose(known.job.graph_id, lost_input)
        if self.rng.random() < 0.1:
            self._at(self.now + self.rng.uniform(0, 2), "report", event)
        self._send(self._dated(event))

    def _dated(self, event: Any) -> Any:
        fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
        return type(event)(**{**fields, "time": self.now})

    def _do_started(self, event: ev.BundleStarted) -> None:
        self._send(self._dated(event))

    def _state(self, node: _Node) -> NodeState:
        cpus = float(node.devices["cpu"].slots.slots)
        free = self.rng.choice((0, 1000))
        labels, custom = _traits_of(node.node_id)
        return NodeState(
            node.node_id, node.node_id, cpus, cpus, 1000, free, labels=labels, custom=custom
        )

    def _drop_device(self, node: _Node, name: str) -> None:
        for key in node.devices.pop(name).attempts:
            attempt = self.attempts.pop(key)
            attempt.end()
            attempt.part.losses += not attempt.cancelled
            attempt.part.begun = True
            self._note_spent(attempt)

    def _is_spent(self, part: _Part) -> bool:
        if self._is_interrupted(part):
            return True
        if part.too_large > self.retry.max_too_large:
            return True
        if part.failures > self.retry.max_failures:
            return not self._is_to_be_watched(part)
        return part.losses > self.retry.max_losses

    def _is_interrupted(self, part: _Part) -> bool:
        return part.begun and part.bundle.has_effects

    def _is_to_be_watched(self, part: _Part) -> bool:
        watchable = part.crashed and not part.watched and "cpu" in part.bundle.kinds()
        return part.failures > self.retry.max_failures and watchable

    def _process(self, part: _Part, device: _Device) -> str:
        if device.slots.kind != "cpu":
            return "shared"
        if part.crashed and part.failures > self.retry.max_failures:
            return "watched"
        return "own" if part.bundle.opaque or part.suspect else "shared"

    def _note_pressure(self, attempt: _Attempt, use: ev.MemoryUse | None) -> None:
        part, job = attempt.part, attempt.job
        if use is not None and use.others_bytes > (use.own_bytes or 1000 - use.others_bytes):
            part.starved_at = self.now if part.starved_at is None else part.starved_at
            wanted = use.free_bytes + max(use.own_bytes / 2, 20)
            self._resting[attempt.place[0]] = (self.now, wanted)
            return
        part.starved_at = None
        held = [key for d in self.nodes[attempt.place[0]].devices.values() for key in d.attempts]
        first_time = not part.running and not part.completed and job.state == "open"
        self._to_split = part if first_time and halves(part.bundle) else None
        if self._to_split is None:
            part.too_large += not held
            part.losses += bool(held)

    def _on_split(self, command: ev.Split) -> None:
        job = self.jobs[command.graph_id]
        part = job.part(command.bundle_id)
        self._check(part is self._to_split, "split of what was not to be split")
        whole = [task.key for task in part.bundle.tasks]
        both = [task.key for half in (command.first, command.second) for task in half.tasks]
        halved = len(whole) == 1 and both[-1] == whole[0]
        self._check(halved or whole == both, "the halves are not the whole")
        part.suspect = part.suspect or part.bundle.opaque  # its halves stay where it was
        part.bundle = command.second
        first = replace(part, bundle=command.first, bundle_id=command.first_id, starts=0)
        job.parts.append(first)
        for key in command.first.outputs:
            job.home[key] = first
        for users in job.users.values():
            users[:] = [user for user in users if user is not part]
        for half in (first, part):
            for key in half.bundle.inputs:
                job.users.setdefault(key, []).append(half)

    def _note_crash(self, attempt: _Attempt, event: ev.BundleFailed) -> None:
        """Charge what was alone in its process; what was with others is only suspected."""
        part = attempt.part
        part.crashed = True
        node_id, name = attempt.place
        device = self.nodes[node_id].devices[name]
        others = [self.attempts[key] for key in device.attempts]
        company = [other for other in others if other.process == "shared"]
        alone = attempt.process != "shared" or not (company or attempt.beside)
        if attempt.process == "shared":
            for other in company:
                other.beside = True
        if alone:
            part.failures += 1
        elif device.slots.kind != "cpu":
            part.losses += 1
        part.suspect = part.suspect or device.slots.kind == "cpu"

    def _note_raised(self, attempt: _Attempt, error: BaseException) -> None:
        part = attempt.part
        part.user_failures += 1
        spent = part.user_failures > self.retry.max_user_retries
        final = spent or not isinstance(error, part.bundle.retry_on)
        if final and attempt.job.state == "open" and not part.completed:
            self._doomed.append(attempt.job)

    def _note_spent(self, attempt: _Attempt) -> None:
        part = attempt.part
        needed = attempt.job.wanted(part) or self._is_interrupted(part)
        wanted = attempt.job.state == "open" and not part.running and needed
        if wanted and not attempt.cancelled and self._is_spent(attempt.part):
            self._doomed.append(attempt.job)

    # --- one event ---------------------------------------------------------------------

    def _send(self, event: ev.Event) -> None:
        self._check(len(self.log) < MAX_LINES, "this goes on for ever")
        self.now = event.time
        self._event = event
        self._write(event)
        self._before(event)
        for command in self.dispatcher.handle(event):
            self._write(command)
            getattr(self, f"_on_{type(command).__name__.lower()}")(command)
        for graph_id, key in self._just_lost:
            job = self.jobs[graph_id]
            known = job.state in ("open", "finished") and key in job.values
            self._check(not known, f"{key} is lost and still counted as there")
        for job in self._doomed:
            self._check(job.state != "open", f"{job.graph_id} goes on with its budget spent")
        self._just_lost = set()
        self._doomed = []
        self._check_invariants()

    def _before(self, event: ev.Event) -> None:
        """What the model knows from the event alone."""
        if self.nodes:
            self._nodeless_since = None
        if isinstance(event, ev.Telemetry):
            for node in event.cluster.nodes:
                since, wanted = self._resting.get(node.node_id, (math.inf, math.inf))
                if self.now >= since + STALE_SECONDS and (node.memory_free_bytes or 0) >= wanted:
                    del self._resting[node.node_id]
        if isinstance(event, ev.GraphReleased):
            self.jobs[event.graph_id].state = "released"
        if not isinstance(event, ev.BundleFinished | ev.BundleFailed):
            return
        attempt = self.attempts.pop((event.bundle_id, event.attempt), None)
        expected = self.dispatcher.expects(event.bundle_id, event.attempt)
        self._check(
            expected
            == (
                attempt is not None
                and attempt.awaited
                and attempt.job.state in ("open", "finished")
            ),
            f"expects() says {expected} of {event}",
        )
        if attempt is None:
            return
        node_id, name = attempt.place
        self.nodes[node_id].devices[name].attempts.remove((event.bundle_id, event.attempt))
        attempt.end()
        if isinstance(event, ev.BundleFailed):
            if attempt.cancelled:
                return
            attempt.part.begun |= event.begun and event.cause not in ("user", "input_lost")
            if self._is_interrupted(attempt.part):
                self._note_spent(attempt)
                return
            if event.cause == "pressure" or event.memory is not None:
                self._note_pressure(attempt, event.memory)
            elif attempt.process == "watched" and event.cause in ("crash", "user"):
                attempt.part.watched = True
            elif event.cause == "crash":
                self._note_crash(attempt, event)
            elif event.cause == "input_lost":
                attempt.part.losses += 1
            elif event.cause == "user":
                self._note_raised(attempt, event.error)
            else:
                attempt.part.failures += 1
            self._note_spent(attempt)
            if event.cause == "memory" and "cpu" in attempt.part.bundle.kinds():
                attempt.part.cpu_only = True
        elif attempt.awaited and attempt.job.state in ("open", "finished"):
            attempt.part.completed += 1
            for other in self.attempts.values():
                if other.part is attempt.part:
                    other.supersede()
            for info in event.values:
                attempt.job.values.setdefault(info.key, info.node_id)

    def _on_start(self, command: ev.Start) -> None:
        job = self.jobs[command.graph_id]
        part = job.part(command.bundle_id)
        offered = part.bundle
        place = (command.placement.node_id, command.placement.device)
        self._check(job.state in ("open", "finished"), f"start for a graph that is {job.state}")
        part.bundle = command.bundle  # another one after a GPU was too small: on the CPU
        self._check(_same_work(part.bundle, offered), "start of another bundle than submitted")
        self._check(command.attempt == part.starts, "attempts are not counted one by one")
        if command.copy:
            self._check_copy(part, place)
        else:
            self._check(not part.running, "started while an attempt of it runs")
        missing = [key for key in offered.inputs if key not in job.values]
        self._check(not missing, f"started without its inputs {missing}")
        again = part.begun or part.completed
        self._check(not (again and part.bundle.has_effects), "has effects and is run again")
        self._check(job.wanted(part), "started again although nothing of it is needed")
        node = self.nodes.get(place[0])
        device = node.devices.get(place[1]) if node else None
        if node is None or device is None:
            self._fail(f"started on {place}, which is not there")
        kinds = ("cpu",) if part.cpu_only else offered.kinds()
        self._check(device.slots.kind in kinds, f"started on a {device.slots.kind}, not {kinds}")
        self._check(_suits(node.node_id, offered), "started on a node that does not suit")
        licences = sum(
            self.attempts[key].part.bundle.resources.custom.get("licence", 0.0)
            for held in node.devices.values()
            for key in held.attempts
        )
        licences += offered.resources.custom.get("licence", 0.0)
        self._check(licences <= 1.5 + 1e-6, f"{licences} licences in use on one node")
        self._check_rested(node.node_id)
        self._check_room(place, device, offered, _memory_bytes(device, command))
        key = (command.bundle_id, command.attempt)
        device.attempts.append(key)
        memory_bytes = _memory_bytes(device, command)
        process = self._process(part, device)
        self._check(command.process == process, f"in a process that is {command.process}")
        self.attempts[key] = _Attempt(job, part, place, memory_bytes, self.now, process=process)
        part.starts += 1
        part.running += 1
        part.live += 1
        self.executions += 1
        self._execute(command, node, device)

    def _check_rested(self, node_id: str) -> None:
        """Nothing goes where others hold the memory, before some is free or time has passed."""
        if node_id not in self._resting:
            return
        since, _ = self._resting[node_id]
        rested = self.now >= since + FIRST_TRY_SECONDS - 1e-6
        self._check(rested, f"started on {node_id} although others hold its memory")

    def _check_copy(self, part: _Part, place: tuple[str, str]) -> None:
        """A second attempt: the first is late, awaited, elsewhere or in a process of its own, and
        may run twice."""
        others = [attempt for attempt in self.attempts.values() if attempt.part is part]
        self._check(len(others) == 1, f"a copy beside {len(others)} attempts")
        self._check(others[0].awaited, "a copy of what nobody waits for")
        same = others[0].place == place
        self._check(not same or others[0].process != "shared", "a copy in the same process")
        self._check(part.bundle.speculative, "two copies of what must not have them")
        age = self.now - others[0].sent
        least = self.speculation.floor_seconds
        least *= self.speculation.same_device_factor if same else 1.0
        self._check(age >= least, f"a copy after {age} s")
        self._check(self.speculation.enabled, "a copy although there are to be none")

    def _check_room(
        self, place: tuple[str, str], device: _Device, offered: Bundle, memory_bytes: int
    ) -> None:
        others = [self.attempts[key] for key in device.attempts]
        if not others:
            return  # alone, it may be larger than the device
        widths = [_width(device, part) for part in [*(o.part.bundle for o in others), offered]]
        alone = offered.opaque or max(widths) > 1
        most = GPU_AHEAD_PER_SLOT if device.slots.kind == "gpu" else SHORT_AHEAD_PER_SLOT
        ahead = 0 if alone else most
        slots = self.dispatcher.view.executors[place].slots
        self._check(1 <= slots <= device.slots.slots, f"{slots} of {device.slots.slots} slots")
        self._check(sum(widths) <= slots * (1 + ahead), f"{widths} started on {slots} slots")
        memory = device.slots.memory_bytes
        held = memory_bytes + sum(other.memory_bytes for other in others)
        self._check(memory is None or held <= memory, f"{held} of {memory} bytes in use")

    def _execute(self, command: ev.Start, node: _Node, device: _Device) -> None:
        """Decide now what will come of an attempt and when it is reported."""
        rng = self.rng
        ids = (command.bundle_id, command.attempt)
        seconds = rng.uniform(0.05, 1.0) * node.slowness / device.slots.speed
        if rng.random() < 0.5:
            self._at(self.now + seconds / 2, "started", ev.BundleStarted(0.0, *ids))
        done = self.now + seconds
        part = self.attempts[ids].part
        if part.poison and rng.random() < 0.9:
            self._at(done, "crash", ev.BundleFailed(0.0, *ids, "crash", UserError("crash")))
            return
        if rng.random() >= self.fault_rate:
            values = []
            for key in command.bundle.outputs:
                where = rng.random()
                place = None if where < self.inline_rate else node.node_id
                values.append(ev.ValueInfo(key, rng.randrange(1000), place))
            times = tuple(seconds for _ in command.bundle.tasks)
            report: Any = ev.BundleFinished(0.0, *ids, seconds, times, tuple(values))
        else:
            causes = ["system", "crash", "pressure"]
            causes += ["user"] if rng.random() < 0.2 else []
            causes += ["memory"] if device.slots.kind == "gpu" else []
            causes += ["input_lost"] * 2 if command.bundle.inputs else []
            cause: Any = rng.choice(causes)
            kind = rng.choice((UserError, Flaky)) if command.bundle.retry_on else UserError
            use = None
            if cause == "pressure" and rng.random() < 0.7:
                others = rng.choice((0, 300, 900))
                use = ev.MemoryUse(1000, 1000 - others, rng.choice((0, 100, 600)), others)
            elif cause == "crash" and rng.random() < 0.2:  # by the kernel's OOM killer
                use = ev.MemoryUse(1000, 50, 0, 900)
            report = ev.BundleFailed(0.0, *ids, cause, kind(cause), use)
        crash = isinstance(report, ev.BundleFailed) and report.cause == "crash"
        self._at(done, "crash" if crash else "report", report)

    def _do_crash(self, event: ev.BundleFailed) -> None:
        """A process dies; most of what was in it with the guilty one dies too."""
        attempt = self.attempts.get((event.bundle_id, event.attempt))
        beside: list[tuple[int, int]] = []
        if attempt is not None and attempt.process == "shared":
            device = self.nodes[attempt.place[0]].devices[attempt.place[1]]
            beside = [key for key in device.attempts if self.attempts[key].process == "shared"]
        self._do_report(event)
        for key in beside:
            if key in self.attempts and self.rng.random() < 0.7:
                self._at(self.now, "report", ev.BundleFailed(0.0, *key, "crash", event.error))

    def _on_cancel(self, command: ev.Cancel) -> None:
        """The report comes at its time all the same: a cancelled bundle may still finish."""
        attempt = self.attempts.get((command.bundle_id, command.attempt))
        if attempt is not None:
            self._check(not attempt.cancelled, "cancelled twice")
            attempt.cancelled = True
        else:
            dropped = isinstance(self._event, ev.NodeLost | ev.NodeUp | ev.GpuLost)
            self._check(dropped, "cancel of an attempt that is over")

    def _on_recompute(self, command: ev.Recompute) -> None:
        job = self.jobs[command.graph_id]
        for key in command.keys:
            self._check((job.graph_id, key) in self._just_lost, f"{key} was not lost")
            self._check(key in job.values, f"{key} was not there")
            del job.values[key]
            if key in job.outputs and job.state == "finished":
                job.state = "open"

    def _on_release(self, command: ev.Release) -> None:
        job = self.jobs[command.graph_id]
        for key in command.keys:
            self._check(key in job.values, f"release of {key}, which is not there")
            if job.state != "released":
                self._check(not job.demanded(key), f"release of {key}, which is still needed")
            del job.values[key]

    def _on_quarantine(self, command: ev.Quarantine) -> None:
        lost = self._event
        self._check(
            isinstance(lost, ev.GpuLost) and lost.device == command.device, "quarantine of nothing"
        )

    def _on_requestresources(self, command: ev.RequestResources) -> None:
        self._check(command.cpus >= 0 and command.gpus >= 0, "negative resources")
        self._check(isinstance(self._event, ev.Tick), "resources are asked for on a Tick")

    def _on_finishgraph(self, command: ev.FinishGraph) -> None:
        job = self.jobs[command.graph_id]
        self._check(job.state == "open", f"finished although {job.state}")
        absent = [key for key in job.outputs if key not in job.values]
        self._check(not absent, f"finished without {absent}")
        job.state = "finished"

    def _on_failgraph(self, command: ev.FailGraph) -> None:
        job = self.jobs[command.graph_id]
        error = command.error
        self._check(job.state == "open", f"failed although {job.state}")
        job.state = "failed"
        key = command.bundle.key if command.bundle else None
        part = next((p for p in job.parts if p.bundle.key == key), None)
        if isinstance(error, InterruptedJobError):
            assert part is not None
            lost = part.completed and any(key not in job.values for key in part.bundle.outputs)
            self._check(part.bundle.has_effects, "interrupted, and yet without effects")
            self._check(lost or part.begun, "interrupted before it had begun")
        elif isinstance(error, ExecutorLostError):
            spent = part is not None and self._is_spent(part)
            self._check(spent, f"gave up with budget left: {error}")
            if part is not None and part.losses <= self.retry.max_losses:
                guilty = part.poison or self.fault_rate
                self._check(guilty, "blamed for the death of another")
        elif isinstance(error, OutOfHostMemoryError):
            spent = part is not None and part.too_large > self.retry.max_too_large
            since = None if part is None else part.starved_at
            waited = since is not None and self.now >= since + self.retry.memory_wait_seconds
            self._check(spent or waited, "too large, and yet not")
            blamed = "other programs" in str(error)
            self._check(blamed == (waited and not spent), f"blames the wrong one: {error}")
        elif isinstance(error, NoNodeError):
            since = self._nodeless_since
            self._check(not self.nodes, "no node, and yet there is one")
            waited = since is not None and self.now >= since + self.retry.no_node_seconds
            self._check(waited, "gave up waiting for a node too soon")
        elif isinstance(error, UserError):
            same = isinstance(self._event, ev.BundleFailed) and self._event.error is error
            self._check(same and self._event.cause == "user", "fails for an error of no user")
            spent = part is not None and part.user_failures > self.retry.max_user_retries
            again = part is not None and isinstance(error, part.bundle.retry_on)
            self._check(spent or not again, "a user's error is final though it was to be retried")
        elif isinstance(error, JobCancelledError):
            self._check(job.cancel_asked, "cancelled although nobody asked")
        elif isinstance(error, NoSuitableDeviceError):
            kinds = {
                d.slots.kind
                for n in self.nodes.values()
                for d in n.devices.values()
                if part is None or _suits(n.node_id, part.bundle)
            }
            here = part is not None and kinds.intersection(part.bundle.kinds())
            self._check(not here, "no suitable device although there is one")
        elif isinstance(error, PolicyError):
            self._check(isinstance(self.policy, BrokenPolicy), f"a good policy is blamed: {error}")
        else:
            self._check(isinstance(error, ImpossibleResourcesError), f"unexpected {error!r}")

    # --- invariants --------------------------------------------------------------------

    def _revive(self) -> None:
        """An attempt that was too late counts again if the values of the quicker one were lost."""
        for key, attempt in self.attempts.items():
            known = self.dispatcher.attempt(*key)
            released = attempt.job.state == "released"
            if known is None or released or known.record.done or attempt.awaited:
                continue
            attempt.awaited = True
            attempt.part.live += 1
            lost = any(key not in attempt.job.values for key in attempt.part.bundle.outputs)
            self._check(lost, "a late attempt counts although nothing is lost")

    def _check_invariants(self) -> None:
        self._revive()
        known = self.dispatcher.under_way
        self._check(known == self.attempts.keys(), "other attempts than started")
        executors = self.dispatcher.view.executors
        places = [(n.node_id, d) for n in self.nodes.values() for d in n.devices]
        self._check(set(executors) == set(places), "other executors than there are")
        for node in self.nodes.values():
            for name, device in node.devices.items():
                attempts = [self.attempts[key] for key in device.attempts]
                running = [attempt.part.bundle for attempt in attempts]
                executor = executors[node.node_id, name]
                width = sum(_width(device, part) for part in running)
                self._check(executor.in_flight == width, f"{name}: in_flight is off")
                held = sum(attempt.memory_bytes for attempt in attempts)
                self._check(executor.held.memory_bytes == held, f"{name}: memory is off")
        waiting = not self.nodes and any(job.state == "open" for job in self.jobs.values())
        if not waiting:
            self._nodeless_since = None
        elif self._nodeless_since is None:
            self._nodeless_since = self.now
        for job in self.jobs.values():
            if job.state in ("open", "finished"):
                self._check_job(job)
        for attempt in self.attempts.values():
            useless = attempt.job.state in ("failed", "released") or attempt.superseded
            self._check(attempt.cancelled == useless, f"cancelled: {attempt.cancelled}")
        if isinstance(self._event, ev.GraphReleased):
            graph_id = self._event.graph_id
            under_way = any(one.job.graph_id == graph_id for one in self.attempts.values())
            waits = any(graph.graph_id == graph_id for graph in kept_by(self.dispatcher))
            self._check(under_way or not waits, "a released graph waits somewhere")
        if not self.attempts and self.dispatcher.next_wakeup_seconds is None:
            stuck = [job.graph_id for job in self.jobs.values() if job.state == "open"]
            self._check(not stuck, f"nothing is under way and {stuck} are not finished")

    def _check_job(self, job: _Job) -> None:
        made = {key for part in job.parts for key in part.bundle.outputs}
        kept = {k for k in made if self.dispatcher.value_info(job.graph_id, k) is not None}
        self._check(kept == job.values.keys(), "other values than there are")
        complete = all(key in job.values for key in job.outputs)
        self._check(complete == (job.state == "finished"), f"{job.state}, complete: {complete}")
        unneeded = [key for key in job.values if not job.demanded(key)]
        self._check(not unneeded, f"{unneeded} are kept although nobody needs them")

    def _check(self, holds: object, message: str) -> None:
        if not holds:
            self._fail(message)

    def _fail(self, message: str, cause: BaseException | None = None) -> Any:
        recent = "\n  ".join(self.log[-12:])
        raise SimulationFailure(
            f"seed {self.seed}, at {self.now:.6f} s: {message}\n  {recent}\n"
            f"replay({self.seed}) repeats it"
        ) from cause

    def _write(self, message: ev.Event | ev.Command) -> None:
        self.log.append(f"{self.now:.6f} {_line(message)}")


def kept_by(dispatcher: Dispatcher) -> list[Graph]:
    """Return the graphs that can be reached from a Dispatcher, wherever it keeps them."""
    found: list[Graph] = []
    seen: set[int] = set()
    pending: list[Any] = [dispatcher]
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType | Task):
            continue
        seen.add(id(one))
        if isinstance(one, Graph):
            found.append(one)
        pending += gc.get_referents(one)
    return found


def _same_work(one: Bundle, other: Bundle) -> bool:
    keys = [[task.key for task in either.tasks] for either in (one, other)]
    return keys[0] == keys[1] and one.key == other.key and one.outputs == other.outputs


def _width(device: _Device, held: Bundle) -> int:
    return max(1, math.ceil(held.resources.cpus)) if device.slots.kind == "cpu" else 1


def _memory_bytes(device: _Device, command: ev.Start) -> int:
    """On a GPU what the Dispatcher predicts, which is at least what the bundle declares."""
    is_cpu = device.slots.kind == "cpu"
    return command.bundle.resources.memory_bytes if is_cpu else command.gpu_memory_bytes


def _line(message: Any) -> str:
    """One readable line, the same in every process."""
    shown = []
    for name in getattr(message, "_fields", None) or message.__dataclass_fields__:
        value = getattr(message, name)
        if isinstance(value, Bundle):
            value = value.key
        elif isinstance(value, Placement):
            value = f"{value.node_id}/{value.device}"
        elif isinstance(value, NodeState):
            value = value.node_id
        elif name == "bundles":
            value = len(value)
        elif isinstance(value, BaseException):
            value = f"{type(value).__name__}: {value}"
        elif name in ("time", "cluster", "task_seconds"):
            continue
        shown.append(str(value))
    return f"{type(message).__name__} {' '.join(shown)}"


def replay(seed: int) -> Simulation:
    """Run one seed; raises SimulationFailure if an invariant does not hold."""
    return Simulation(seed).run()


def run_seeds(seeds: Sequence[int]) -> int:
    """Run many seeds; gives how many bundle executions that were."""
    return sum(replay(seed).executions for seed in seeds)


if __name__ == "__main__":
    simulation = replay(int(sys.argv[1]))
    print(*simulation.log, sep="\n")
    print(simulation.digest())
