"""Runs graphs in virtual time: an adapter between the real Dispatcher and nodes that are made up.

Time is virtual; the processor clock is read only to tell the cost of deciding. ``simulate`` runs
made-up workloads with it, ``forecast`` real ones.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from time import thread_time
from typing import Any, Final, Literal, Protocol

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle
from agentic_ray.pictures import HeldBytes, Span
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.dispatcher import Dispatcher, RetryRules
from agentic_ray.schedule.events import (
    BundleFinished,
    DeviceSlots,
    Event,
    FailGraph,
    FinishGraph,
    GraphReleased,
    GraphSubmitted,
    NodeLost,
    NodeUp,
    Release,
    Start,
    Telemetry,
    Tick,
    Transfer,
    ValueInfo,
)
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState

TYPICAL_BYTES_PER_SECOND: Final = 1e9


@dataclass(frozen=True, slots=True)
class SimNode:
    """A node. ``speed`` is that of each of its CPU slots. The node joins at ``from_seconds`` and
    dies at ``until_seconds``; tasks that begin there from ``slow_from_seconds`` on take
    ``slow_factor`` times as long. ``memory_bytes`` and ``gpu_memory_bytes`` are its memory and
    that of each GPU, None where tasks are not to be held back by it; ``bytes_per_second`` limits
    what it sends and receives; ``labels`` and ``custom`` are as in `NodeState`."""

    node_id: str
    speed: float = 1.0
    slots: int = 1
    gpus: int = 0
    from_seconds: float = 0.0
    until_seconds: float = math.inf
    slow_from_seconds: float = math.inf
    slow_factor: float = 1.0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    bytes_per_second: float = math.inf
    labels: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)


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
    bytes_per_second: float = TYPICAL_BYTES_PER_SECOND
    latency_seconds: float = 0.0
    moves_ahead: bool = False

    def move_seconds(self, size: int, *ends: SimNode) -> float:
        """Return the seconds to move a value from one node to another."""
        rate = min([self.bytes_per_second, *(node.bytes_per_second for node in ends)])
        return self.latency_seconds + size / rate


@dataclass(frozen=True, slots=True)
class SentGraph:
    """A graph as a session would send it: its bundles, in topological order."""

    graph_id: str
    bundles: tuple[Bundle, ...]
    outputs: tuple[str, ...]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """Graphs that do not wait for each other. They are sent ``after_seconds`` after the end of
    the stage before."""

    graphs: tuple[SentGraph, ...]
    after_seconds: float = 0.0


class Truth(Protocol):
    """All that a virtual run has to know of the graphs that go through it."""

    def times(self, bundle: Bundle, kind: str) -> tuple[float, ...]:
        """Return the seconds of each task of a bundle on a CPU slot of speed 1, or on a GPU."""
        ...

    def size(self, graph_id: str, key: str) -> int:
        """Return the bytes of a value."""
        ...

    def travels_inside(self, size: int) -> bool:
        """Whether a value of this size goes to the caller in the report, and on from there."""
        ...

    def call_seconds(self, bundle: Bundle) -> float:
        """Return the seconds of a call there and back, beside its work."""
        ...


@dataclass(slots=True)
class _Call:
    device: _Device
    graph_id: str
    bundle_id: int
    attempt: int
    bundle: Bundle
    sent: float
    arrival: float
    width: int = 1
    transfers: tuple[Transfer, ...] = ()
    moved_bytes: int = 0
    predicted: float | None = None
    reason: str = ""
    began: float = 0.0
    times: tuple[float, ...] = ()
    seconds: float = 0.0
    ended: bool = False


@dataclass(slots=True)
class _Device:
    node: SimNode
    name: str
    kind: Literal["cpu", "gpu", "card"]
    slots: int
    free: int
    waiting: deque[_Call] = field(default_factory=deque)
    busy: float = 0.0
    alive: bool = True


def _clock_seconds() -> float:
    """Measure the seconds that reading the clock adds to every time that is taken with it."""
    reads = [thread_time() for _ in range(1001)]
    return median(later - earlier for earlier, later in pairwise(reads))


_Place = tuple[str, str]


class VirtualRun:
    """A run of graphs on nodes that are made up; `run` goes through it.

    Parameters
    ----------
    told : bool
        Whether the Dispatcher is told how fast nodes are, or learns it from transfers and tasks.
    factor : callable
        Factor of a bundle's seconds, for noise.
    keeps_timeline : bool
        Whether to keep ``spans`` and ``held``.

    Attributes
    ----------
    now : float
        Virtual time; after the run, that of its end.
    ends : dict of str to float
        Time at which each graph was finished.
    begins : dict of str to float
        Time at which each graph was sent.
    busy : list of float
        Busy seconds of each device.
    slots : int
        Slots of all devices that were there.
    moved_bytes : int
        Bytes that went from one node to another.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        truth: Truth,
        cluster: SimCluster,
        policy: Policy,
        model: CostModel,
        *,
        told: bool = True,
        factor: Callable[[Bundle], float] = lambda bundle: 1.0,
        keeps_timeline: bool = True,
    ) -> None:
        self._stages = deque(stages)
        self._truth = truth
        self._cluster = cluster
        self._told = told
        self._factor = factor
        self._keeps_timeline = keeps_timeline
        forever = RetryRules(no_node_seconds=math.inf)  # no node at all is an error at once
        self.dispatcher = Dispatcher(policy, model, forever)
        # Times of the coming events. The events themselves are kept apart, so that the collector
        # need not look at the times of all.
        self._agenda: list[tuple[float, int]] = []
        self._due: dict[int, _Call | SimNode | NodeLost | Stage] = {}
        self._sequence = 0
        self._open: set[str] = set()
        self._sent: list[str] = []
        self._over = False
        self._error: BaseException | None = None
        self._clock_seconds = _clock_seconds()
        self._devices: dict[_Place, _Device] = {}
        self._all_devices: list[_Device] = []
        self._states: list[NodeState] = []
        self._homes: dict[_Place, str] = {}
        self._made: dict[_Place, float] = {}
        self.now = 0.0
        self.deciding_seconds = 0.0
        self.spans: list[Span] = []
        self.held = HeldBytes()
        self.begins: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.moved_bytes = 0

    @property
    def busy(self) -> list[float]:
        return [device.busy for device in self._all_devices]

    @property
    def slots(self) -> int:
        return sum(device.slots for device in self._all_devices)

    def run(self) -> None:
        """Go through all stages.

        Raises
        ------
        InvalidArgumentError
            No node is left and none comes.
        AgenticRayError
            The Dispatcher failed a graph with this error.
        """
        for node in self._cluster.nodes:
            self._at(node.from_seconds, node)
            if node.until_seconds < math.inf:
                self._at(node.until_seconds, NodeLost(0.0, node.node_id, "it died"))
        while self._agenda and self._agenda[0][0] <= 0:
            self._happen()
        if any(node.memory_bytes is not None for node in self._cluster.nodes):
            # By this it refuses at once what no node is large enough for.
            self._send(Telemetry(self.now, ClusterState(tuple(self._states), self.now)))
        self._next_stage()
        while not self._over:
            wakeup = self.dispatcher.next_wakeup_seconds
            if wakeup is not None and (not self._agenda or wakeup <= self._agenda[0][0]):
                self.now = max(self.now, wakeup)
                self._send(Tick(self.now))
            elif self._agenda:
                self._happen()
            else:
                raise InvalidArgumentError("no node is left and none comes: the run cannot end")
        if self._error is not None:
            raise self._error

    # --- events ------------------------------------------------------------------------

    def _at(self, time: float, what: _Call | SimNode | NodeLost | Stage) -> None:
        self._sequence += 1
        self._due[self._sequence] = what
        heapq.heappush(self._agenda, (time, self._sequence))

    def _happen(self) -> None:
        """Process the next event: a call ends, a node comes or goes, graphs are sent."""
        time, number = heapq.heappop(self._agenda)
        self.now = max(self.now, time)
        what = self._due.pop(number)
        if isinstance(what, _Call):
            self._report(what) if what.ended else self._ended(what)
        elif isinstance(what, SimNode):
            self._node_up(what)
        elif isinstance(what, Stage):
            self._begin_stage(what)
        else:
            self._node_down(what)

    def _next_stage(self) -> None:
        if not self._stages:
            self._over = True
            return
        stage = self._stages.popleft()
        if stage.after_seconds > 0:
            self._at(self.now + stage.after_seconds, stage)
        else:
            self._begin_stage(stage)

    def _begin_stage(self, stage: Stage) -> None:
        # The caller has the values of the stage before, and gives those that nobody needs up.
        for graph_id in self._sent:
            self._send(GraphReleased(self.now, graph_id))
        self._sent = [graph.graph_id for graph in stage.graphs]
        self._open = set(self._sent)
        for graph in stage.graphs:
            self.begins[graph.graph_id] = self.now
            self._send(
                GraphSubmitted(
                    self.now, graph.graph_id, graph.bundles, graph.outputs, graph.priority
                )
            )
        if not stage.graphs:
            self._next_stage()

    def _send(self, event: Event) -> None:
        before = thread_time()
        commands = self.dispatcher.handle(event)
        self.deciding_seconds += thread_time() - before - self._clock_seconds
        finished = False
        for command in commands:
            if isinstance(command, Start):
                self._start(command)
            elif isinstance(command, Release):
                keys = [(command.graph_id, key) for key in command.keys]
                for key in keys:
                    self._homes.pop(key, None)
                self.held.drop(self.now, keys)
            elif isinstance(command, FinishGraph):
                self.ends[command.graph_id] = self.now
                self._open.discard(command.graph_id)
                finished = True
            elif isinstance(command, FailGraph):
                self._over = True
                self._error = command.error
        if finished and not self._open and not self._over:
            self._next_stage()

    def _node_up(self, node: SimNode) -> None:
        speed = node.speed if self._told else 1.0
        offers = [DeviceSlots("cpu", "cpu", node.slots, speed, node.memory_bytes)]
        memory = node.gpu_memory_bytes
        names = [f"{node.node_id}-gpu{i}" for i in range(node.gpus)]
        offers += [
            DeviceSlots(name, "gpu", 1, memory_bytes=memory, memory_total_bytes=memory)
            for name in names
        ]
        for offer in offers:
            device = _Device(node, offer.device, offer.kind, offer.slots, offer.slots)
            self._devices[node.node_id, offer.device] = device
            self._all_devices.append(device)
        cpus = float(node.slots)
        state = NodeState(
            *(node.node_id, node.node_id, cpus, cpus, node.memory_bytes, node.memory_bytes),
            gpus=tuple(
                GpuState(name, i, "described", memory, memory) for i, name in enumerate(names)
            ),
            labels=node.labels,
            custom=node.custom,
        )
        self._states.append(state)
        self._send(NodeUp(self.now, state, tuple(offers)))

    def _node_down(self, lost: NodeLost) -> None:
        for key in [key for key in self._devices if key[0] == lost.node_id]:
            self._devices.pop(key).alive = False
        self.held.drop(self.now, [k for k, home in self._homes.items() if home == lost.node_id])
        self._homes = {k: home for k, home in self._homes.items() if home != lost.node_id}
        self._send(NodeLost(self.now, lost.node_id, lost.reason))

    def _start(self, command: Start) -> None:
        place = command.placement
        device = self._devices[place.node_id, place.device]
        arrival = sent = self.now + self._truth.call_seconds(command.bundle) / 2
        transfers: list[Transfer] = []
        moved = 0
        for name in command.bundle.inputs:
            key = (command.graph_id, name)
            home = self._homes.get(key, place.node_id)  # elsewhere: it is in the caller's memory
            if home == place.node_id:
                continue
            size = self._truth.size(*key)
            moved += size
            seconds = self._cluster.move_seconds(size, self._node(home), device.node)
            departure = self._made[key] if self._cluster.moves_ahead else sent
            arrival = max(arrival, departure + seconds)
            if not self._told:
                transfers.append(Transfer(home, place.node_id, size, seconds))
        self.moved_bytes += moved
        width = 1
        if device.kind == "cpu":
            width = min(max(1, math.ceil(command.bundle.resources.cpus)), device.slots)
        call = _Call(
            *(device, command.graph_id, command.bundle_id, command.attempt, command.bundle),
            *(self.now, arrival, width, tuple(transfers), moved),
            *(place.predicted_seconds, place.reason),
        )
        if command.process == "function":  # it runs beside the others on its card
            call.width = 0
            self._begin_call(call)
            return
        device.waiting.append(call)
        self._begin(device)

    def _node(self, node_id: str) -> SimNode:
        return self._devices[node_id, "cpu"].node

    def _begin(self, device: _Device) -> None:
        """Let a device begin the bundles that it can, in the order in which they were sent."""
        while device.waiting and device.free >= device.waiting[0].width:
            call = device.waiting.popleft()
            device.free -= call.width
            self._begin_call(call)

    def _begin_call(self, call: _Call) -> None:
        device = call.device
        call.began = max(self.now, call.arrival)
        on_cpu = device.kind == "cpu"
        speed = device.node.speed if on_cpu else 1.0
        factor = self._factor(call.bundle)
        if call.began >= device.node.slow_from_seconds:
            factor *= device.node.slow_factor
        times = self._truth.times(call.bundle, "cpu" if on_cpu else "gpu")
        call.times = tuple([seconds / speed * factor for seconds in times])
        call.seconds = sum(call.times)
        self._at(call.began + call.seconds, call)

    def _ended(self, call: _Call) -> None:
        device = call.device
        if not device.alive:
            return
        device.free += call.width
        device.busy += call.seconds
        if self._keeps_timeline:
            self._keep_span(call)
        self._begin(device)
        call.ended = True
        after = self._truth.call_seconds(call.bundle) / 2
        if after > 0:
            self._at(self.now + after, call)
        else:
            self._report(call)

    def _report(self, call: _Call) -> None:
        """Tell the Dispatcher of a call that has ended, and of the values that it made."""
        if not call.device.alive:
            return
        values = []
        node_id = call.device.node.node_id
        sent = self.now if self._cluster.moves_ahead else None
        # Of two copies of a bundle the values of the first are kept, as by the Dispatcher.
        counts = self.dispatcher.expects(call.bundle_id, call.attempt)
        for name in call.bundle.outputs if counts else ():
            key = (call.graph_id, name)
            size = self._truth.size(*key)
            if self._truth.travels_inside(size):
                values.append(ValueInfo(name, size, None))
                continue
            self._homes[key] = node_id
            if sent is not None:
                self._made[key] = sent
            values.append(ValueInfo(name, size, node_id, sent_seconds=sent))
            if self._keeps_timeline:
                self.held.keep(self.now, key, size)
        ids = (call.bundle_id, call.attempt)
        done = BundleFinished(
            *(self.now, *ids, call.seconds, call.times, tuple(values), call.transfers)
        )
        self._send(done)

    def _keep_span(self, call: _Call) -> None:
        made = sum(self._truth.size(call.graph_id, key) for key in call.bundle.outputs)
        tasks = call.bundle.tasks
        self.spans.append(
            Span(
                *(call.bundle.key, tasks[-1].codelet.name),
                *(call.device.node.node_id, call.device.name),
                *(call.sent, call.began, self.now),
                predicted_seconds=call.predicted,
                made_bytes=made,
                moved_bytes=call.moved_bytes,
                note=call.reason,
                retried=call.attempt > 0,
            )
        )


class NoOverhead:
    """Calls that take no time by themselves, and values that always stay where they were made."""

    def travels_inside(self, size: int) -> bool:
        return False

    def call_seconds(self, bundle: Any) -> float:
        return 0.0
