"""A discrete-event simulator: the real Dispatcher and policies over a made-up cluster.

Time is virtual; the processor clock is read only to tell the cost of deciding. Workloads are in
``workloads``, lower bounds in ``bounds``.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from time import thread_time
from typing import Any, Literal

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle, Task
from agentic_ray.pictures import HeldBytes, Span, Timeline
from agentic_ray.schedule.baselines import baseline
from agentic_ray.schedule.bounds import imbalance, lower_bound_seconds
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel, size_of
from agentic_ray.schedule.dispatcher import Dispatcher, RetryRules
from agentic_ray.schedule.events import (
    BundleFinished,
    DeviceSlots,
    Event,
    FailGraph,
    FinishGraph,
    GraphSubmitted,
    NodeLost,
    NodeUp,
    Release,
    Start,
    Tick,
    Transfer,
    ValueInfo,
)
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.workloads import BYTES_PER_SECOND, Workload, get_workload
from agentic_ray.telemetry.state import NodeState

Costs = Literal["given", "learnt"]


@dataclass(frozen=True, slots=True)
class SimNode:
    """A node. ``speed`` is that of each of its CPU slots. The node joins at ``from_seconds`` and
    dies at ``until_seconds``; tasks that begin there from ``slow_from_seconds`` on take
    ``slow_factor`` times as long."""

    node_id: str
    speed: float = 1.0
    slots: int = 1
    gpus: int = 0
    from_seconds: float = 0.0
    until_seconds: float = math.inf
    slow_from_seconds: float = math.inf
    slow_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class SimCluster:
    """Nodes and the properties that they share.

    Parameters
    ----------
    gpu_speed, gpu_other_speed : float
        Speed of a GPU on accelerated codelets and on the others.
    bytes_per_second, latency_seconds : float
        Rates of moving a value between nodes. Transfers do not slow each other down.
    moves_ahead : bool
        Whether values set out as soon as they are made, as HEFT's model has it, or only when a
        task that needs them was placed, as on Ray.
    """

    nodes: tuple[SimNode, ...]
    gpu_speed: float = 20.0
    gpu_other_speed: float = 1.0
    bytes_per_second: float = BYTES_PER_SECOND
    latency_seconds: float = 0.0
    moves_ahead: bool = False


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Outcome of a simulated run.

    Parameters
    ----------
    lower_bound_seconds : float
        Lower bound on the makespan without noise, transfers and faults.
    utilization : float
        Busy seconds of all slots over makespan times slots.
    imbalance : float
        L = (max - mean) / max of the busy seconds per device.
    decision_microseconds_per_task : float
        Processor time in the Dispatcher and the policy, less that of reading the clock, over tasks.
    prediction_error : float or None
        Median relative error of the cost model, each prediction made before its observation.
    timeline : tuple of Span
        Tasks in the order in which they ended, without those lost with their node.
    memory : tuple of tuple
        Seconds, and the bytes of values held from then on.
    """

    workload: str
    policy: str
    tasks: int
    makespan_seconds: float
    lower_bound_seconds: float
    utilization: float
    imbalance: float
    decision_microseconds_per_task: float
    prediction_error: float | None
    timeline: tuple[Span, ...] = field(repr=False)
    memory: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON types, without the timeline and the memory."""
        left_out = ("timeline", "memory")
        names = (name for name in self.__dataclass_fields__ if name not in left_out)
        return {name: getattr(self, name) for name in names}

    def picture(self) -> Timeline:
        """Return the run as a picture, which can be shown and saved."""
        title = (
            f"{self.workload}, {self.policy}: {self.makespan_seconds:.4g} s, "
            f"lower bound {self.lower_bound_seconds:.4g} s"
        )
        return Timeline(title, self.timeline, self.memory)


def mixed_cluster(nodes: int = 64, *, seed: int = 0, gpu_every: int = 4) -> SimCluster:
    """Make nodes of one slot with speeds drawn uniformly from 1 to 8, every fourth with a GPU too.

    Raises
    ------
    InvalidArgumentError
        Fewer than one node.
    """
    if nodes < 1:
        raise InvalidArgumentError(f"a cluster needs at least one node, not {nodes}")
    rng = random.Random(seed)
    return SimCluster(
        tuple(
            SimNode(f"n{i}", rng.uniform(1, 8), gpus=int(gpu_every > 0 and i % gpu_every == 0))
            for i in range(nodes)
        )
    )


def simulate(
    workload: Workload | str,
    cluster: SimCluster | int = 64,
    policy: str | Policy = "predictive",
    *,
    seed: int = 0,
    noise: float = 0.0,
    costs: Costs = "given",
    model: CostModel | None = None,
    timeline: bool = True,
) -> SimulationResult:
    """Run a workload on a cluster in virtual time.

    Parameters
    ----------
    workload : Workload or str
        A workload, or the name of a ready-made one.
    cluster : SimCluster or int
        A cluster, or the number of nodes of a `mixed_cluster` of this seed.
    policy : str or Policy
        A policy; also ``"ray_hybrid"``, ``"first_free"`` and ``"round_robin"``, for comparison.
    seed : int
        Seed of the noise, and of the cluster if only its size is given.
    noise : float
        Standard deviation of every duration, relative; the mean stays.
    costs : {"given", "learnt"}
        Whether the scheduler is told seconds, sizes, speeds and the network's rate, or starts with
        nothing.
    model : CostModel, optional
        A model to go on learning with; costs are not given then.
    timeline : bool
        Whether to keep the device and the times of every task, and the bytes held over time;
        False saves memory.

    Raises
    ------
    InvalidArgumentError
        An argument cannot be used.
    AgenticRayError
        The Dispatcher failed the graph with this error.
    """
    if isinstance(workload, str):
        workload = get_workload(workload)
    if isinstance(cluster, int):
        cluster = mixed_cluster(cluster, seed=seed)
    if isinstance(policy, str):
        policy = baseline(policy, workload.accelerated) or policy
    if costs not in ("given", "learnt"):
        raise InvalidArgumentError(f"costs are 'given' or 'learnt', not {costs!r}")
    if not 0 <= noise < math.inf:
        raise InvalidArgumentError(f"noise must be >= 0, not {noise}")
    if model is not None:
        costs = "learnt"
    return _Run(workload, cluster, get_policy(policy), seed, noise, costs, model, timeline).run()


@dataclass(slots=True)
class _Call:
    device: _Device
    bundle_id: int
    attempt: int
    bundle: Bundle
    sent: float
    arrival: float
    transfers: tuple[Transfer, ...] = ()
    moved_bytes: int = 0
    predicted: float | None = None
    reason: str = ""
    began: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class _Device:
    node: SimNode
    name: str
    kind: Literal["cpu", "gpu", "card"]
    free: int
    waiting: deque[_Call] = field(default_factory=deque)
    busy: float = 0.0
    alive: bool = True


def _clock_seconds() -> float:
    """Measure the seconds that reading the clock adds to every time that is taken with it."""
    reads = [thread_time() for _ in range(1001)]
    return median(later - earlier for earlier, later in pairwise(reads))


class _Run:
    """A simulated run: an adapter of the Dispatcher in virtual time."""

    def __init__(
        self,
        workload: Workload,
        cluster: SimCluster,
        policy: Policy,
        seed: int,
        noise: float,
        costs: Costs,
        model: CostModel | None,
        timeline: bool,
    ) -> None:
        self._workload = workload
        self._cluster = cluster
        self._costs = costs
        calibration = Calibration()
        if costs == "given":
            calibration = Calibration(
                store_bytes_per_second=cluster.bytes_per_second,
                transfer_latency_seconds=cluster.latency_seconds,
            )
        forever = RetryRules(no_node_seconds=math.inf)  # no node at all is an error at once
        self.dispatcher = Dispatcher(policy, model or CostModel(calibration), forever)
        # Times of the coming events. The events themselves are kept apart, so that the collector
        # need not look at the times of all.
        self._agenda: list[tuple[float, int]] = []
        self._due: dict[int, _Call | SimNode | NodeLost] = {}
        self._sequence = 0
        self._now = 0.0
        self._deciding = 0.0
        self._clock_seconds = _clock_seconds()
        self._devices: dict[tuple[str, str], _Device] = {}
        self._all_devices: list[_Device] = []
        self._homes: dict[str, str] = {}
        self._made: dict[str, float] = {}
        self._timeline: list[Span] = []
        self._held = HeldBytes()
        self._keeps_timeline = timeline
        self._finished_at: float | None = None
        self._error: BaseException | None = None
        rng = random.Random(seed)
        self._factors: dict[str, float] = {}
        if noise:
            sigma = math.sqrt(math.log1p(noise * noise))
            for task in workload.graph:
                self._factors[task.key] = rng.lognormvariate(-sigma * sigma / 2, sigma)

    def run(self) -> SimulationResult:
        graph = self._workload.graph
        if self._costs == "given":
            self._tell_costs()
        for node in self._cluster.nodes:
            self._at(node.from_seconds, node)
            if node.until_seconds < math.inf:
                self._at(node.until_seconds, NodeLost(0.0, node.node_id, "it died"))
        uses = dict.fromkeys(graph.outputs, 0)
        for task in graph:
            for key in task.dependencies:
                uses[key] = uses.get(key, 0) + 1
        bundles = tuple(
            Bundle(t.key, (t,), t.dependencies, (t.key,) if t.key in uses else ()) for t in graph
        )
        while self._agenda and self._agenda[0][0] <= 0:
            self._happen()
        self._send(GraphSubmitted(0.0, "g", bundles, graph.outputs))
        while self._finished_at is None:
            wakeup = self.dispatcher.next_wakeup_seconds
            if wakeup is not None and (not self._agenda or wakeup <= self._agenda[0][0]):
                self._now = max(self._now, wakeup)
                self._send(Tick(self._now))
            elif self._agenda:
                self._happen()
            else:
                raise InvalidArgumentError("no node is left and none comes: the run cannot end")
        if self._error is not None:
            raise self._error
        return self._result()

    def _tell_costs(self) -> None:
        """Prime the cost model with the truth on a device of speed 1."""
        told: set[tuple[str, float]] = set()
        for task in self._workload.graph:
            size = size_of(task)
            if (task.codelet.name, size) in told:
                continue
            told.add((task.codelet.name, size))
            model = self.dispatcher.model
            for kind in ("cpu", "gpu"):
                speed = self._speed(task, kind)
                seconds = self._workload.seconds_of(task) / speed
                model.observe_size(task.codelet.name, kind, size, seconds)
            model.observe_bytes(task.codelet.name, self._workload.bytes_of(task))

    def _speed(self, task: Task, kind: str, node: SimNode | None = None) -> float:
        if kind == "cpu":
            return node.speed if node else 1.0
        accelerated = task.codelet.name in self._workload.accelerated
        return self._cluster.gpu_speed if accelerated else self._cluster.gpu_other_speed

    # --- events ------------------------------------------------------------------------

    def _at(self, time: float, what: _Call | SimNode | NodeLost) -> None:
        self._sequence += 1
        self._due[self._sequence] = what
        heapq.heappush(self._agenda, (time, self._sequence))

    def _happen(self) -> None:
        """Process the next event: a call ends, a node comes or goes."""
        time, number = heapq.heappop(self._agenda)
        self._now = max(self._now, time)
        what = self._due.pop(number)
        if isinstance(what, _Call):
            self._ended(what)
        elif isinstance(what, SimNode):
            self._node_up(what)
        else:
            self._node_down(what)

    def _send(self, event: Event) -> None:
        before = thread_time()
        commands = self.dispatcher.handle(event)
        self._deciding += thread_time() - before - self._clock_seconds
        for command in commands:
            if isinstance(command, Start):
                self._start(command)
            elif isinstance(command, Release):
                for key in command.keys:
                    self._homes.pop(key, None)
                self._held.drop(self._now, command.keys)
            elif isinstance(command, FinishGraph):
                self._finished_at = self._now
            elif isinstance(command, FailGraph):
                self._finished_at = self._now
                self._error = command.error

    def _node_up(self, node: SimNode) -> None:
        told = node.speed if self._costs == "given" else 1.0
        offers = [DeviceSlots("cpu", "cpu", node.slots, told)]
        offers += [DeviceSlots(f"{node.node_id}-gpu{i}", "gpu", 1) for i in range(node.gpus)]
        for offer in offers:
            device = _Device(node, offer.device, offer.kind, offer.slots)
            self._devices[node.node_id, offer.device] = device
            self._all_devices.append(device)
        cpus = float(node.slots)
        state = NodeState(node.node_id, node.node_id, cpus, cpus)
        self._send(NodeUp(self._now, state, tuple(offers)))

    def _node_down(self, lost: NodeLost) -> None:
        for key in [key for key in self._devices if key[0] == lost.node_id]:
            self._devices.pop(key).alive = False
        self._held.drop(self._now, [k for k, home in self._homes.items() if home == lost.node_id])
        self._homes = {k: home for k, home in self._homes.items() if home != lost.node_id}
        self._send(NodeLost(self._now, lost.node_id, lost.reason))

    def _start(self, command: Start) -> None:
        place = command.placement
        device = self._devices[place.node_id, place.device]
        arrival = self._now
        transfers: list[Transfer] = []
        moved = 0
        for key in command.bundle.inputs:
            if self._homes[key] != place.node_id:
                size = self._workload.bytes_of(self._workload.graph[key])
                moved += size
                seconds = self._cluster.latency_seconds + size / self._cluster.bytes_per_second
                departure = self._made[key] if self._cluster.moves_ahead else self._now
                arrival = max(arrival, departure + seconds)
                if self._costs == "learnt":
                    transfers.append(Transfer(self._homes[key], place.node_id, size, seconds))
        ids = (command.bundle_id, command.attempt)
        call = _Call(
            *(device, *ids, command.bundle, self._now, arrival, tuple(transfers)),
            *(moved, place.predicted_seconds, place.reason),
        )
        device.waiting.append(call)
        self._begin(device)

    def _begin(self, device: _Device) -> None:
        """Let a device begin the bundles that it can, in the order in which they were sent."""
        while device.free and device.waiting:
            call = device.waiting.popleft()
            device.free -= 1
            call.began = max(self._now, call.arrival)
            task = call.bundle.tasks[0]
            seconds = self._workload.seconds_of(task) / self._speed(task, device.kind, device.node)
            seconds *= self._factors.get(task.key, 1.0)
            if call.began >= device.node.slow_from_seconds:
                seconds *= device.node.slow_factor
            call.seconds = seconds
            self._at(call.began + seconds, call)

    def _ended(self, call: _Call) -> None:
        device, seconds = call.device, call.seconds
        if not device.alive:
            return
        device.free += 1
        device.busy += seconds
        task = call.bundle.tasks[0]
        node_id = device.node.node_id
        if self._keeps_timeline:
            self._keep_span(call)
        values: tuple[ValueInfo, ...] = ()
        # Of two copies of a bundle the values of the first are kept, as by the Dispatcher.
        if call.bundle.outputs and self.dispatcher.expects(call.bundle_id, call.attempt):
            self._homes[task.key] = node_id
            sent = self._now if self._cluster.moves_ahead else None
            if sent is not None:
                self._made[task.key] = sent
            size = self._workload.bytes_of(task)
            values = (ValueInfo(task.key, size, node_id, sent_seconds=sent),)
            if self._keeps_timeline:
                self._held.keep(self._now, task.key, size)
        self._begin(device)
        ids = (call.bundle_id, call.attempt)
        done = BundleFinished(self._now, *ids, seconds, (seconds,), values, call.transfers)
        self._send(done)

    def _keep_span(self, call: _Call) -> None:
        task = call.bundle.tasks[0]
        self._timeline.append(
            Span(
                *(task.key, task.codelet.name, call.device.node.node_id, call.device.name),
                *(call.sent, call.began, self._now),
                predicted_seconds=call.predicted,
                made_bytes=self._workload.bytes_of(task) if call.bundle.outputs else 0,
                moved_bytes=call.moved_bytes,
                note=call.reason,
                retried=call.attempt > 0,
            )
        )

    # --- outcome -----------------------------------------------------------------------

    def _result(self) -> SimulationResult:
        tasks = len(self._workload.graph)
        slots = sum(
            device.node.slots if device.kind == "cpu" else 1 for device in self._all_devices
        )
        makespan = self._now
        busy = [device.busy for device in self._all_devices]
        nodes = self._cluster.nodes
        return SimulationResult(
            self._workload.name,
            self.dispatcher.policy.name,
            tasks,
            makespan,
            lower_bound_seconds(
                self._workload,
                cpu_speed=sum(node.speed * node.slots for node in nodes),
                fastest_cpu=max(node.speed for node in nodes),
                gpus=sum(node.gpus for node in nodes),
                gpu_speed=self._cluster.gpu_speed,
                gpu_other_speed=self._cluster.gpu_other_speed,
            ),
            sum(busy) / (makespan * slots) if makespan else 0.0,
            imbalance(busy),
            self._deciding * 1e6 / max(tasks, 1),
            self.dispatcher.model.error_report().median_relative_error,
            tuple(self._timeline),
            tuple(self._held.levels),
        )
