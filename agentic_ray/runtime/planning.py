"""A session that runs nothing: it keeps the graphs that a program submits, to be looked at.

A program goes on as long as it needs no value. The first line that uses one raises `NeedsValue`.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from agentic_ray.config import Settings
from agentic_ray.graph.passes import cull
from agentic_ray.graph.task import Task, TaskGraph
from agentic_ray.runtime.calibrate import host_calls, unstored_host_rates
from agentic_ray.runtime.connection import Stay
from agentic_ray.runtime.cost_store import CostStore
from agentic_ray.runtime.current import lend_to_this_process
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.session import taken
from agentic_ray.runtime.values import Stored, hold_elsewhere
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel, size_of
from agentic_ray.schedule.cutting import bundle_seconds, bundled, usual_seconds
from agentic_ray.schedule.described import Described
from agentic_ray.schedule.forecast import Together, Work, planned_part
from agentic_ray.schedule.metrics import PlacementRecord
from agentic_ray.schedule.prospects import OnExecutors, on_executors
from agentic_ray.schedule.recutting import Costs, Part
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState
from agentic_ray.unknown import Unknown, needs, set_planned
from agentic_ray.watching import watches

MOST_GRAPHS: Final = 10_000
"""Most graphs that are kept: a program may submit them for ever, as from an endless iterator."""
NODE: Final = "planned"


@dataclass(frozen=True, slots=True)
class PlannedGraph:
    """A graph that was submitted, and the line that did it."""

    part: Part
    bundles: int
    after_others: bool


class PlannedRun(Run):
    """A run that is over at once, without values."""

    def __init__(self, session: PlanningSession, graph: TaskGraph, **rest: Any) -> None:
        super().__init__(session, **rest)
        self._session = session
        self._tasks = {key: graph[key] for key in graph.outputs}

    def wait(self, timeout: float | None = None) -> bool:
        self._session.waited()
        return True

    def result(self, timeout: float | None = None) -> list[Any]:
        self._session.waited()
        if threading.current_thread() is not threading.main_thread():
            needs(_told(next(iter(self._tasks.values()))))
        return [_unknown(task) for task in self._tasks.values()]

    def handles(self) -> list[Any]:
        self._session.waited()
        return [self._session.kept(task.cost.written_bytes) for task in self._tasks.values()]

    def fetch(self, key: str) -> Any:
        needs(_told(self._tasks[key]))


def _told(task: Task) -> str:
    return f"the value of {task.codelet.name.partition('-')[0]}"


def _unknown(task: Task) -> Unknown:
    is_list = task.codelet.pieces == "list"
    return Unknown(_told(task), task.cost.items if is_list else None)


class _Nowhere:
    """Stand-in for the reference to a value that nobody keeps."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def hex(self) -> str:
        return f"{self.number:032x}"

    def get(self) -> NoReturn:
        needs("a value that was kept on the cluster")


class PlanningSession:
    """Session for front ends, with the methods of `Session` that they use, that runs nothing.

    Make it the session of this process with `planning`.

    Parameters
    ----------
    cluster : Described
        Nodes for which front ends cut their work.
    settings : Settings, optional
        Default: those of the environment.
    """

    closed = False
    started_ray = True

    def __init__(self, cluster: Described, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.resolve()
        self.policy = "predictive"
        self.name = uuid.uuid4().hex[:8]
        self.described = cluster
        self.stay = Stay(self.name)
        self.model = CostModel(_calibration())
        if self.settings.keep_costs:
            CostStore().load(self.model)
        self.graphs: list[PlannedGraph] = []
        self._assumed: set[str] = set()
        self._numbers = itertools.count()
        self._after_others = False
        self._lock = threading.RLock()

    # --- methods of a session for front ends -------------------------------------------

    @property
    def slots(self) -> int:
        return self.described.slots

    def bundle_seconds(self, total_seconds: float) -> float:
        """Compute as `Session.bundle_seconds` does."""
        return bundle_seconds(total_seconds, self.slots, self.model.call_overhead_seconds)

    def cluster(self) -> ClusterState:
        """Return the nodes as they were described."""
        nodes: list[NodeState] = []
        for machine in self.described.machines:
            for _ in range(machine.nodes):
                name = f"{NODE}-{len(nodes)}"
                memory = machine.memory_bytes
                cards = tuple(
                    GpuState(
                        *(f"{name}-gpu{i}", i, "described"),
                        *(machine.gpu_memory_bytes, machine.gpu_memory_bytes),
                    )
                    for i in range(machine.gpus)
                )
                cpus = float(machine.cpus)
                nodes.append(NodeState(name, name, cpus, cpus, memory, memory, gpus=cards))
        return ClusterState(tuple(nodes), time.time())

    def adopt(self, settings: Settings, given: Iterable[str], policy: Any) -> None:
        """Go on with the settings that the program gives to `init`."""
        self.settings = settings
        if "num_cpus" in given and settings.num_cpus is not None:
            (machine, *_) = self.described.machines
            self.described = replace(
                self.described, machines=(replace(machine, nodes=1, cpus=settings.num_cpus),)
            )
        if policy is not None:
            self.policy = policy

    def submit(
        self,
        graph: TaskGraph,
        *,
        priority: int = 0,
        asked: int | None = None,
        target_seconds: float | None = None,
    ) -> Run:
        """Keep a graph, and return a run of it that is over, without values.

        Raises
        ------
        SerializationError
            A function of the graph cannot be captured.
        """
        graph = taken(cull(graph))
        with self._lock:
            if len(self.graphs) >= MOST_GRAPHS:
                needs(f"what ends its {MOST_GRAPHS:,} graphs")
            number = next(self._numbers)
            part = planned_part(
                f"{self.name}-{number}",
                graph,
                self.model,
                alone=target_seconds == 0.0,
                priority=priority,
            )
            part.costs.update({t.key: Costs() for t in graph if t.codelet.name in self._assumed})
            bundles = bundled(
                graph,
                self.model,
                self.bundle_seconds if target_seconds is None else lambda _: target_seconds,
            )
            self._assume(graph)
            self.graphs.append(PlannedGraph(part, len(bundles), self._after_others))
            self._after_others = False
        items = sum(task.cost.items for task in graph)
        run = PlannedRun(
            self,
            graph,
            graph_id=part.graph_id,
            outputs=graph.outputs,
            bundles=bundles,
            asked=items if asked is None else asked,
            slots={(NODE, "cpu"): self.slots},
        )
        for bundle in bundles:
            seconds = sum(max(usual_seconds(task, self.model), 0.0) for task in bundle.tasks)
            run.record(
                PlacementRecord(
                    *(bundle.key, NODE, "cpu", seconds, seconds, "planned", 0.0, seconds),
                    items=bundle.items,
                    tasks=len(bundle.tasks),
                )
            )
        for watch in watches():
            watch.sees(run)
        run.settle(None)
        return run

    def _assume(self, graph: TaskGraph) -> None:
        """Take seconds for operations that nothing is known of: a map-reduce cuts its later chunks
        by those of the first."""
        for task in graph:
            name = task.codelet.name
            if usual_seconds(task, self.model) < 0:
                self._assumed.add(name)
                self.model.observe_size(
                    name, "cpu", size_of(task), self.model.typical_seconds * task.cost.items
                )

    def prospect(
        self, tasks: Sequence[Task], moved_bytes: int, in_caller: Sequence[float | None]
    ) -> OnExecutors | None:
        """Predict as `Session.prospect` does."""
        if self.described.gpus:
            return None
        return on_executors(tasks, moved_bytes, in_caller, self.model, self.slots)

    def under_way(self) -> list[Run]:
        """Return nothing: every run is over."""
        return []

    def drain(self, runs: Iterable[Run], timeout_seconds: float) -> bool:
        """Return True: no call is under way."""
        return True

    def close(self) -> None:
        """Do nothing: the program may begin anew."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        needs(f"the session's {name}")

    # --- the backend of its runs -------------------------------------------------------

    def peek(self, graph_id: str, key: str) -> None:
        return None

    def fetch(self, graph_id: str, key: str) -> NoReturn:
        needs(f"value {key}")

    def held(self, graph_id: str, key: str) -> Stored:
        return self.kept(0)

    def request_cancel(self, graph_id: str) -> None:
        """Do nothing: every run is over."""

    def release(self, graph_id: str) -> None:
        """Do nothing: there are no values."""

    # --- for those who made it ---------------------------------------------------------

    def waited(self) -> None:
        """Take in that the program has waited for a run: what comes later, comes after it."""
        self._after_others = True

    def kept(self, size: int) -> Stored:
        """Return a stand-in for a value on the cluster."""
        return Stored(_Nowhere(next(self._numbers)), size, None, self.stay)

    def work(self) -> Work:
        """Return the graphs so far, with predicted seconds."""
        stages: list[list[Part]] = []
        for graph in self.graphs:
            if graph.after_others or not stages:
                stages.append([])
            stages[-1].append(graph.part)
        return Work(
            tuple(Together(tuple(parts)) for parts in stages),
            self.model.calibration,
            self.model.call_overhead_seconds,
            self.model.call_overhead_seconds,
            self.model.typical_seconds,
        )


def _calibration() -> Calibration:
    """Return the rates of this machine, and calls as earlier sessions measured them."""
    rates, calls = unstored_host_rates(), host_calls()
    found = Calibration(
        cpu_flops_per_second=rates.flops_per_second,
        cpu_bytes_per_second=rates.bytes_per_second,
        store_bytes_per_second=rates.store_bytes_per_second,
    )
    return found if calls is None else replace(found, call_overhead_seconds=calls.overhead_seconds)


@contextlib.contextmanager
def planning(session: PlanningSession) -> Iterator[PlanningSession]:
    """Make it the session of this process inside the block."""

    def hold(value: Any) -> Stored:
        return session.kept(int(getattr(value, "nbytes", 0)))

    lent = lend_to_this_process(lambda: session)
    elsewhere = hold_elsewhere(hold)
    before = set_planned(True)
    try:
        yield session
    finally:
        set_planned(before)
        lend_to_this_process(lent)
        hold_elsewhere(elsewhere)
