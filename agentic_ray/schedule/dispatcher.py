"""The Dispatcher: every decision of a run in one deterministic state machine.

Events in, commands out. No Ray, no clock, no threads, no I/O: the runtime and the simulator
are its two adapters. An adapter must report every started attempt exactly once, as finished or
failed, also after a Cancel; late reports are recognised and ignored.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agentic_ray.errors import (
    ExecutorLostError,
    ImpossibleResourcesError,
    JobCancelledError,
    NoSuitableDeviceError,
    PolicyError,
)
from agentic_ray.graph.task import Bundle, Resources
from agentic_ray.schedule.admission import admit, can_split, working_set_bytes
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.events import (
    BundleFailed,
    BundleFinished,
    BundleStarted,
    Cancel,
    CancelRequested,
    Command,
    Event,
    FailGraph,
    FinishGraph,
    GpuLost,
    GraphReleased,
    GraphSubmitted,
    NodeLost,
    NodeUp,
    Quarantine,
    Recompute,
    Release,
    RequestResources,
    Start,
    Telemetry,
    Tick,
    ValueInfo,
    ValueLost,
)
from agentic_ray.schedule.placement import Placement, Policy
from agentic_ray.schedule.view import ClusterView, Executor
from agentic_ray.telemetry.collector import DEFAULT_INTERVAL_SECONDS
from agentic_ray.telemetry.health import is_silent

MAX_WINDOW = 1024
"""Most ready bundles offered to a policy at once."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how soon a bundle is tried again.

    Parameters
    ----------
    max_failures : int
        Deaths of the bundle's own executor that it may survive.
    max_losses : int
        Losses it had no part in (node gone, input gone).
    base_seconds, cap_seconds : float
        Back-off: ``base * 2**(n - 1)`` up to the cap, plus up to half of it as jitter that
        depends on the bundle and the count only.
    patience_seconds : float
        How long ready work waits for a kind of device that the cluster has not got (any more)
        before its graph fails. With no node at all it waits for the first.
    """

    max_failures: int = 4
    max_losses: int = 32
    base_seconds: float = 0.05
    cap_seconds: float = 10.0
    patience_seconds: float = 30.0

    def delay_seconds(self, key: str, failures: int) -> float:
        plain = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 64))
        jitter = zlib.crc32(f"{key}/{failures}".encode()) / 2**32
        return plain * (1 + jitter / 2)


@dataclass(slots=True, eq=False)
class _Record:
    """A bundle's state. Ready when nothing is missing and it is neither done nor running.

    ``missing`` counts the inputs that are not in the graph's values, also after they were
    released. ``again``: it was done and is to be done again because values were lost.
    """

    bundle: Bundle
    graph: _Graph
    bundle_id: int
    lane: tuple[tuple[str, ...], bool]
    resources: Resources
    missing: int = 0
    done: bool = False
    again: bool = False
    queued: bool = False
    running: int = 0
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    note: str = ""


@dataclass(slots=True, eq=False)
class _Graph:
    graph_id: str
    outputs: frozenset[str]
    priority: int
    first_id: int
    count: int
    home: dict[str, _Record] = field(default_factory=dict)
    consumers: dict[str, list[_Record]] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    values: dict[str, ValueInfo] = field(default_factory=dict)
    outputs_missing: int = 0
    finished: bool = False
    over: bool = False


@dataclass(slots=True, eq=False)
class _Attempt:
    record: _Record
    executor: Executor
    resources: Resources
    predicted_seconds: float
    started: bool = False
    cancelled: bool = False


def _codelet_names(bundle: Bundle) -> str:
    return ", ".join(dict.fromkeys(task.codelet.name for task in bundle.tasks))


class Dispatcher:
    """See the module. ``handle`` is the whole interface; the rest are read-only questions."""

    def __init__(
        self,
        policy: Policy,
        model: CostModel | None = None,
        retry: RetryRules | None = None,
        *,
        report_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        self.policy = policy
        self.model = model or CostModel()
        self.retry = retry or RetryRules()
        self.report_seconds = report_seconds
        self.view = ClusterView()
        self.next_bundle_id = 0
        self._graphs: dict[str, _Graph] = {}
        self._records: dict[int, _Record] = {}
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._ready: dict[tuple[tuple[str, ...], bool], list[tuple[int, int, _Record]]] = {}
        self._delayed: list[tuple[float, int, _Record]] = []
        self._stranded: dict[tuple[str, ...], float] = {}
        self._executor_count = 0
        self._requested = (0, 0)
        self._commands: list[Command] = []

    # --- questions ---------------------------------------------------------------------

    def expects(self, bundle_id: int, attempt: int) -> bool:
        """Whether a report about this attempt still counts."""
        known = self._attempts.get((bundle_id, attempt))
        return known is not None and not known.record.done and not known.record.graph.over

    @property
    def next_wakeup_seconds(self) -> float | None:
        """When a Tick is needed for a delayed retry or a lost patience, on the adapter's clock."""
        due = [since + self.retry.patience_seconds for since in self._stranded.values()]
        return min([*due, *(entry[0] for entry in self._delayed[:1])], default=None)

    @property
    def idle(self) -> bool:
        """No graph is unfinished and nothing runs."""
        return not self._attempts and all(g.finished or g.over for g in self._graphs.values())

    # --- the state machine -------------------------------------------------------------

    def handle(self, event: Event) -> list[Command]:
        """Take one event in, give the commands it leads to, in order."""
        self._commands = []
        self.view.now_seconds = event.time
        if isinstance(event, BundleFinished):
            self._finished(event)
        elif isinstance(event, BundleStarted):
            attempt = self._attempts.get((event.bundle_id, event.attempt))
            if attempt is not None:
                attempt.started = True
            return self._commands
        elif isinstance(event, GraphSubmitted):
            self._submitted(event)
        elif isinstance(event, BundleFailed):
            self._failed(event)
        elif isinstance(event, ValueLost):
            graph = self._graphs.get(event.graph_id)
            if graph is not None:
                self._lose(graph, [event.key])
        elif isinstance(event, NodeUp):
            self._node_up(event)
        elif isinstance(event, NodeLost):
            self._node_lost(event)
        elif isinstance(event, GpuLost):
            self._gpu_lost(event)
        elif isinstance(event, Telemetry):
            self._observed(event)
        elif isinstance(event, CancelRequested):
            graph = self._graphs.get(event.graph_id)
            if graph is not None and not graph.over and not graph.finished:
                error = JobCancelledError(f"job {event.graph_id} was cancelled")
                self._fail_graph(graph, error, None)
        elif isinstance(event, GraphReleased):
            self._released(event)
        self._wake_delayed()
        self._schedule()
        self._give_up_stranded()
        if isinstance(event, Tick):
            self._request_resources()
        return self._commands

    def _observed(self, event: Telemetry) -> None:
        """Keep the newest figures; a node that went silent gets no new work until it reports.

        What it is running is left to it: it may only be slow to answer, and if it is dead Ray
        will say so.
        """
        self.view.state = event.cluster
        silent = {
            node.node_id
            for node in event.cluster.nodes
            if is_silent(node.heartbeat_age_seconds, self.report_seconds)
        }
        for executor in self.view.executors.values():
            executor.silent = executor.node_id in silent

    def _submitted(self, event: GraphSubmitted) -> None:
        graph = _Graph(
            event.graph_id,
            frozenset(event.outputs),
            event.priority,
            self.next_bundle_id,
            len(event.bundles),
        )
        self._graphs[event.graph_id] = graph
        for bundle in event.bundles:
            record = _Record(
                bundle,
                graph,
                self.next_bundle_id,
                (bundle.kinds(), bundle.opaque),
                bundle.resources,
                missing=len(bundle.inputs),
            )
            self.next_bundle_id += 1
            self._records[record.bundle_id] = record
            for key in bundle.outputs:
                graph.home[key] = record
            for key in bundle.inputs:
                graph.consumers.setdefault(key, []).append(record)
                graph.uses[key] = graph.uses.get(key, 0) + 1
        for key in graph.outputs:
            graph.uses[key] = graph.uses.get(key, 0) + 1
            graph.outputs_missing += 1
        refusal = self._refusal(event.bundles)
        if refusal is not None:
            self._fail_graph(graph, refusal[0], refusal[1])
            return
        for record in self._of(graph):
            self._offer(record)
        self._maybe_finish(graph)

    def _finished(self, event: BundleFinished) -> None:
        attempt = self._end_attempt(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record, graph = attempt.record, attempt.record.graph
        executor = attempt.executor
        for task, seconds in zip(record.bundle.tasks, event.task_seconds, strict=False):
            self.model.observe(task, executor.kind, seconds * executor.speed)
        if record.done or graph.over:
            return
        record.done = True
        self._cancel_attempts(record)
        unwanted = []
        for info in event.values:
            if info.key in graph.values:
                continue  # another attempt's copy, still good
            if not graph.uses.get(info.key):
                unwanted.append(info.key)
                continue
            graph.values[info.key] = info
            if info.key in graph.outputs:
                graph.outputs_missing -= 1
            for consumer in graph.consumers.get(info.key, ()):
                consumer.missing -= 1
                self._offer(consumer)
        unwanted += self._drop_uses(graph, record.bundle.inputs)
        if unwanted:
            self._commands.append(Release(graph.graph_id, tuple(unwanted)))
        self._maybe_finish(graph)

    def _drop_uses(self, graph: _Graph, keys: Iterable[str]) -> list[str]:
        """One use less of each of ``keys``; gives the values that nobody needs any more.

        A bundle that was to make lost values again, has not started, and of which nobody needs
        a value any more counts as done, and so on up the graph.
        """
        released: list[str] = []
        pending = list(keys)
        while pending:
            key = pending.pop()
            graph.uses[key] -= 1
            if graph.uses[key]:
                continue
            if graph.values.pop(key, None) is not None:
                released.append(key)
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            producer = graph.home.get(key)
            if producer is not None and not producer.running and self._is_spare(producer):
                producer.done = True
                pending += producer.bundle.inputs
        return released

    def _is_spare(self, record: _Record) -> bool:
        """Whether it is to run again although nobody needs any more what was lost."""
        if not record.again or record.done:
            return False
        graph = record.graph
        return not any(
            graph.uses.get(key) and key not in graph.values for key in record.bundle.outputs
        )

    def _failed(self, event: BundleFailed) -> None:
        attempt = self._end_attempt(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record = attempt.record
        if event.cause == "memory" and "cpu" in record.lane[0]:
            self._send_to_cpu(record, f"its GPU had too little memory: {event.error}")
        if event.cause == "input_lost":
            record.losses += 1
        else:
            record.failures += 1
        self._retry(record, event.error, final=event.cause == "user")

    def _retry(self, record: _Record, error: BaseException, *, final: bool = False) -> None:
        """Try a bundle again after a while, or fail its graph if its budget is spent.

        Nothing of the kind if nobody waits for it any more.
        """
        if record.running or record.done or record.graph.over:
            return
        if self._is_spare(record):
            record.done = True
            released = self._drop_uses(record.graph, record.bundle.inputs)
            if released:
                self._commands.append(Release(record.graph.graph_id, tuple(released)))
            return
        if record.graph.finished:
            return
        if final:
            self._fail_graph(record.graph, error, record.bundle)
            return
        rules = self.retry
        if record.failures > rules.max_failures or record.losses > rules.max_losses:
            lost = ExecutorLostError(
                f"bundle {record.bundle.key} ({_codelet_names(record.bundle)}) lost its executor "
                f"{record.failures + record.losses} times; last: {error}"
            )
            lost.__cause__ = error
            self._fail_graph(record.graph, lost, record.bundle)
            return
        failures = record.failures + record.losses
        due = self.view.now_seconds + rules.delay_seconds(record.bundle.key, failures)
        record.queued = True  # not to be offered before it is due
        heapq.heappush(self._delayed, (due, record.bundle_id, record))

    def _node_up(self, event: NodeUp) -> None:
        node_id = event.node.node_id
        fresh = {devices.device for devices in event.devices}
        for key in [k for k in self.view.executors if k[0] == node_id and k[1] not in fresh]:
            self._drop_executor(self.view.executors[key], f"{key[1]} is gone from its node")
        for devices in event.devices:
            executor = self.view.executors.get((node_id, devices.device))
            if executor is None:
                executor = Executor(
                    node_id, devices.device, devices.kind, 0, order=self._executor_count
                )
                self._executor_count += 1
                self.view.executors[node_id, devices.device] = executor
            executor.slots = devices.slots
            executor.speed = devices.speed
            executor.memory_bytes = devices.memory_bytes
            executor.memory_total_bytes = devices.memory_total_bytes
            executor.healthy = True
            executor.reason = ""

    def _node_lost(self, event: NodeLost) -> None:
        for key in [key for key in self.view.executors if key[0] == event.node_id]:
            self._drop_executor(self.view.executors[key], event.reason)
        for graph in self._graphs.values():
            lost = [k for k, info in graph.values.items() if info.node_id == event.node_id]
            if lost:
                self._lose(graph, lost)

    def _gpu_lost(self, event: GpuLost) -> None:
        executor = self.view.executors.get((event.node_id, event.device))
        if executor is not None:
            self._drop_executor(executor, event.reason)
            self._commands.append(Quarantine(event.node_id, event.device, event.reason))
        place = (event.node_id, event.device)
        for graph in self._graphs.values():
            there = [k for k, info in graph.values.items() if (info.node_id, info.device) == place]
            lost = [key for key in there if (graph.graph_id, key) not in event.copied]
            for key in set(there).difference(lost):
                graph.values[key] = replace(graph.values[key], device=None)
            if lost:
                self._lose(graph, lost)

    def _drop_executor(self, executor: Executor, reason: str) -> None:
        """Forget an executor; what ran there goes elsewhere at once."""
        del self.view.executors[executor.node_id, executor.device]
        executor.healthy = False
        for key, attempt in list(self._attempts.items()):
            if attempt.executor is executor:
                self._cancel(key, attempt)
                self._end_attempt(*key)
                attempt.record.losses += 1
                self._retry(attempt.record, ExecutorLostError(reason))

    def _lose(self, graph: _Graph, keys: Iterable[str]) -> None:
        """Values are gone: make again what is still needed, recursively up the graph."""
        gone: list[str] = []
        seen: set[str] = set()
        pending = [] if graph.over else list(keys)
        while pending:
            key = pending.pop()
            producer = graph.home.get(key)
            if producer is None or key in seen:
                continue
            seen.add(key)
            if graph.values.pop(key, None) is not None:
                gone.append(key)
                if key in graph.outputs:
                    graph.outputs_missing += 1
                    graph.finished = False
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            if not graph.uses.get(key):
                continue
            if producer.done:
                producer.done = False
                producer.again = True
                for name in producer.bundle.inputs:
                    graph.uses[name] += 1
            pending += (name for name in producer.bundle.inputs if name not in graph.values)
            self._offer(producer)
        if gone:
            self._commands.append(Recompute(graph.graph_id, tuple(gone)))

    def _released(self, event: GraphReleased) -> None:
        graph = self._graphs.pop(event.graph_id, None)
        if graph is None:
            return
        graph.over = True
        waiting = False
        for record in self._of(graph):
            self._cancel_attempts(record)
            waiting = waiting or record.queued
            del self._records[record.bundle_id]
        if waiting:  # do not keep it alive in the queues
            for heap in self._ready.values():
                heap[:] = [entry for entry in heap if entry[2].graph is not graph]
                heapq.heapify(heap)
            self._delayed = [entry for entry in self._delayed if entry[2].graph is not graph]
            heapq.heapify(self._delayed)
        if graph.values:
            self._commands.append(Release(graph.graph_id, tuple(graph.values)))

    # --- helpers -----------------------------------------------------------------------

    def _of(self, graph: _Graph) -> Iterable[_Record]:
        for bundle_id in range(graph.first_id, graph.first_id + graph.count):
            record = self._records.get(bundle_id)
            if record is not None:
                yield record

    def _end_attempt(self, bundle_id: int, attempt: int) -> _Attempt | None:
        found = self._attempts.pop((bundle_id, attempt), None)
        if found is not None:
            found.record.running -= 1
            executor = found.executor
            executor.give_back(found.resources)
            executor.backlog_seconds = max(0.0, executor.backlog_seconds - found.predicted_seconds)
            if not executor.in_flight:
                executor.backlog_seconds = 0.0  # no drift from rounding
        return found

    def _cancel_attempts(self, record: _Record) -> None:
        if record.running:
            for key, attempt in self._attempts.items():
                if attempt.record is record:
                    self._cancel(key, attempt)

    def _cancel(self, key: tuple[int, int], attempt: _Attempt) -> None:
        if not attempt.cancelled:
            attempt.cancelled = True
            self._commands.append(Cancel(*key))

    def _fail_graph(self, graph: _Graph, error: BaseException, bundle: Bundle | None) -> None:
        graph.over = True
        for record in self._of(graph):
            self._cancel_attempts(record)
        self._commands.append(FailGraph(graph.graph_id, error, bundle))

    def _maybe_finish(self, graph: _Graph) -> None:
        if not graph.outputs_missing and not graph.finished and not graph.over:
            graph.finished = True
            self._commands.append(FinishGraph(graph.graph_id))

    def _offer(self, record: _Record) -> None:
        """Put a bundle among the ready ones if it is."""
        if record.missing or record.done or record.queued or record.running:
            return
        record.queued = True
        urgency = -(record.graph.priority + record.bundle.priority)
        heap = self._ready.setdefault(record.lane, [])
        heapq.heappush(heap, (urgency, record.bundle_id, record))

    def _wake_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= self.view.now_seconds:
            record = heapq.heappop(self._delayed)[2]
            record.queued = False
            if not record.graph.over:
                self._offer(record)

    def _refusal(self, bundles: Iterable[Bundle]) -> tuple[BaseException, Bundle] | None:
        """Why this cluster can never run one of these bundles, checked at submit."""
        executors = self.view.executors.values()
        for bundle in bundles:
            if not bundle.kinds():
                return self._no_device(bundle), bundle
        if not executors:
            return None  # nothing known yet: wait for the first node
        kinds_here = {executor.kind for executor in executors}
        states = self.view.state.alive_nodes
        cpus = max((s.cpus_total for s in states), default=max(e.slots for e in executors))
        memories = [s.memory_total_bytes for s in states if s.memory_total_bytes is not None]
        for bundle in bundles:
            if not kinds_here.intersection(bundle.kinds()):
                return self._no_device(bundle), bundle
            names = _codelet_names(bundle)
            need = bundle.resources
            if need.cpus > max(cpus, 1):
                return ImpossibleResourcesError(
                    f"{names} asks for {need.cpus:g} CPUs, the largest node has {cpus:g}"
                ), bundle
            if memories and need.memory_bytes > max(memories):
                return ImpossibleResourcesError(
                    f"{names} asks for {need.memory_bytes} bytes of memory, the largest node "
                    f"has {max(memories)}"
                ), bundle
            largest = self._largest_gpu_bytes()
            gpu_only = bundle.kinds() == ("gpu",) and not can_split(bundle)
            if gpu_only and largest is not None and need.gpu_memory_bytes > largest:
                return ImpossibleResourcesError(
                    f"{names} asks for {need.gpu_memory_bytes} bytes of GPU memory, the largest "
                    f"GPU has {largest}, and it can neither be split nor run on a CPU"
                ), bundle
        return None

    def _largest_gpu_bytes(self) -> int | None:
        """Memory of the largest GPU; None when there is none or one's memory is unknown."""
        totals = [gpu.memory_total_bytes for gpu in self.view.of_kinds(("gpu",))]
        known = [total for total in totals if total is not None]
        return max(known) if known and len(known) == len(totals) else None

    def _no_device(self, bundle: Bundle) -> NoSuitableDeviceError:
        wanted = " or ".join(bundle.kinds()) or "no device at all (its tag excludes every version)"
        return NoSuitableDeviceError(
            f"{_codelet_names(bundle)} can only run on {wanted}, and this cluster has "
            f"{self._described()}; give the codelet a cpu implementation or add a GPU node"
        )

    def _described(self) -> str:
        executors = self.view.executors.values()
        cpus = sum(e.slots for e in executors if e.kind == "cpu")
        gpus = sum(1 for e in executors if e.kind == "gpu")
        nodes = len({e.node_id for e in executors})
        return f"{nodes} node(s) with {cpus} CPU slots and {gpus or 'no'} GPU(s)"

    def _request_resources(self) -> None:
        """Tell the adapter what waiting work could use, when that has changed."""
        cpus = gpus = 0
        for (kinds, _), heap in self._ready.items():
            waiting = sum(1 for entry in heap if not entry[2].graph.over)
            if kinds == ("gpu",):
                gpus += waiting
            else:
                cpus += waiting
        if cpus:
            cpus += sum(e.slots for e in self.view.executors.values() if e.kind == "cpu")
        if gpus:
            gpus += sum(e.slots for e in self.view.executors.values() if e.kind == "gpu")
        if (cpus, gpus) != self._requested:
            self._requested = (cpus, gpus)
            self._commands.append(RequestResources(cpus, gpus))

    def _give_up_stranded(self) -> None:
        """Fail what has waited too long for a kind of device that is not there."""
        kinds_here = {executor.kind for executor in self.view.executors.values()}
        waiting: dict[tuple[str, ...], float] = {}
        for (kinds, _), heap in self._ready.items():
            if heap and kinds_here and not kinds_here.intersection(kinds):
                since = self._stranded.get(kinds, self.view.now_seconds)
                if self.view.now_seconds < since + self.retry.patience_seconds:
                    waiting[kinds] = since
                    continue
                for _, _, record in heap:
                    record.queued = False
                    if not record.graph.over and not record.graph.finished:
                        error = self._no_device(record.bundle)
                        self._fail_graph(record.graph, error, record.bundle)
                heap.clear()
        self._stranded = waiting

    # --- placing -----------------------------------------------------------------------

    def _schedule(self) -> None:
        while True:
            window = self._window()
            if not window or not self._place(window):
                return

    def _window(self) -> list[_Record]:
        """The most urgent ready bundles that some executor has room for, most urgent first."""
        window: list[tuple[int, int, _Record]] = []
        keys: set[str] = set()
        for (kinds, opaque), heap in self._ready.items():
            if not heap:
                continue
            room = sum(
                executor.room(opaque)
                for executor in self.view.executors.values()
                if executor.kind in kinds
            )
            taken: list[tuple[int, int, _Record]] = []
            while heap and len(taken) < min(room, MAX_WINDOW):
                entry = heap[0]
                record = entry[2]
                if record.graph.over or record.missing or record.done:
                    heapq.heappop(heap)
                    record.queued = False
                elif record.bundle.key in keys:
                    break  # the same work for another graph: next round
                else:
                    keys.add(record.bundle.key)
                    taken.append(heapq.heappop(heap))
            window += taken
        window.sort(key=lambda entry: entry[:2])
        return [record for _, _, record in window]

    def _place(self, window: list[_Record]) -> bool:
        """Start what the policy places of ``window``; the rest stays ready.

        False: nothing changed. An error of the policy fails the graph it happens with.
        """
        lanes = [record.lane for record in window]
        error = self._try_place(window)
        graphs = list(dict.fromkeys(record.graph for record in window))
        if error is not None and len(graphs) > 1:
            errors = {
                graph: self._try_place([record for record in window if record.graph is graph])
                for graph in graphs
            }
        else:
            errors = dict.fromkeys(graphs, error)
        for graph, blamed in errors.items():
            if blamed is not None and not graph.finished:
                self._fail_graph(graph, blamed, None)
        for record in window:
            if not record.running:
                record.queued = False
                if errors[record.graph] is None:
                    self._offer(record)
        return any(errors.values()) or any(
            record.running or record.lane is not lane
            for record, lane in zip(window, lanes, strict=True)
        )

    def _try_place(self, window: list[_Record]) -> PolicyError | None:
        by_key = {record.bundle.key: record for record in window}
        self.view.values = {
            key: record.graph.values[key] for record in window for key in record.bundle.inputs
        }
        try:
            placements = list(
                self.policy.place([record.bundle for record in window], self.view, self.model)
            )
            self._check(placements, by_key)
        except PolicyError as error:
            return error
        except Exception as error:  # a policy is user code
            raised = PolicyError(f"policy {self.policy.name!r} raised {error!r}")
            raised.__cause__ = error
            return raised
        full: set[Executor] = set()
        waits_for_memory = False
        for placement in placements:
            record = by_key[placement.bundle]
            executor = self.view.executors[placement.node_id, placement.device]
            if executor not in full and executor.kind == "gpu":
                waits_for_memory |= not self._start_on_gpu(record, placement, executor, full)
            elif executor not in full and executor.admits(record.resources, record.lane[1]):
                self._start(record, placement, record.resources)
            else:
                full.add(executor)  # nothing less urgent overtakes what waits for room here
        if self._attempts or waits_for_memory:
            return None
        return PolicyError(
            f"policy {self.policy.name!r} places none of {len(window)} ready bundles where there "
            "is room although nothing is running"
        )

    def _check(self, placements: Iterable[Placement], offered: dict[str, _Record]) -> None:
        name = self.policy.name
        placed: set[str] = set()
        for placement in placements:
            record = offered.get(placement.bundle)
            if record is None:
                raise PolicyError(
                    f"policy {name!r} placed {placement.bundle!r}, which was not offered"
                )
            if placement.bundle in placed:
                raise PolicyError(f"policy {name!r} placed {placement.bundle!r} twice")
            placed.add(placement.bundle)
            executor = self.view.executors.get((placement.node_id, placement.device))
            if executor is None:
                raise PolicyError(
                    f"policy {name!r} placed {placement.bundle!r} on unknown device "
                    f"{placement.device!r} of node {placement.node_id!r}"
                )
            if executor.kind not in record.lane[0]:
                raise PolicyError(
                    f"policy {name!r} placed {placement.bundle!r} on a {executor.kind}, it runs "
                    f"on {' or '.join(record.lane[0])} only"
                )

    def _start_on_gpu(
        self, record: _Record, placement: Placement, wanted: Executor, full: set[Executor]
    ) -> bool:
        """Start a bundle on a GPU if memory admits it; False: it waits or goes to a CPU."""
        bundle = record.bundle
        need = working_set_bytes(
            bundle, {key: self.view.values[key].size_bytes for key in bundle.inputs}
        )
        answer = admit(
            need,
            wanted,
            [gpu for gpu in self.view.of_kinds(("gpu",)) if gpu not in full],
            split=can_split(bundle),
            cpu="cpu" in record.lane[0] and bool(self.view.of_kinds(("cpu",))),
        )
        chosen = answer.executor
        if answer.to_cpu:
            self._send_to_cpu(record, answer.reason)
            return False
        if chosen is None or not chosen.room(record.lane[1]):
            full.add(wanted)
            return False
        if answer.reason:
            reason = f"{placement.reason}; {answer.reason}"
            placement = replace(
                placement, node_id=chosen.node_id, device=chosen.device, reason=reason
            )
        share = replace(record.resources, gpu_memory_bytes=-(-need // answer.parts))
        self._start(record, placement, share, answer.parts)
        return True

    def _send_to_cpu(self, record: _Record, why: str) -> None:
        record.bundle = record.bundle.on_cpu()
        record.lane = (record.bundle.kinds(), record.lane[1])
        record.note = f"not on a GPU: {why}"

    def _start(
        self, record: _Record, placement: Placement, resources: Resources, parts: int = 1
    ) -> None:
        executor = self.view.executors[placement.node_id, placement.device]
        attempt = record.attempts
        record.attempts += 1
        record.running += 1
        record.queued = False
        predicted = placement.predicted_seconds or 0.0
        executor.take(resources)
        executor.backlog_seconds += predicted
        if record.note:
            placement = replace(placement, reason=f"{placement.reason}; {record.note}")
        self._attempts[record.bundle_id, attempt] = _Attempt(record, executor, resources, predicted)
        need = resources.gpu_memory_bytes if executor.kind == "gpu" else 0
        self._commands.append(
            Start(
                record.graph.graph_id,
                record.bundle_id,
                attempt,
                record.bundle,
                placement,
                need,
                parts,
            )
        )
