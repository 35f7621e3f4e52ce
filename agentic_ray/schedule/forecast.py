"""Predicts how long graphs take on another cluster: the very Dispatcher on described nodes.

The graphs are those of a recording, with measured seconds, or planned ones with predicted seconds.
They are cut anew for the other cluster first, as the session there would cut them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from agentic_ray.graph.task import Bundle, Resources, Task, TaskGraph
from agentic_ray.pictures import Span, Timeline
from agentic_ray.pictures.wording import counted, seconds_text, short_name
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel, size_of
from agentic_ray.schedule.cutting import bundle_seconds, bundled
from agentic_ray.schedule.events import INLINE_BYTES
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.recutting import Costs, Part, recut
from agentic_ray.schedule.replaying import RecordedGraph, Replay, Summary
from agentic_ray.schedule.virtual import SentGraph, SimCluster, Stage, VirtualRun


class Together(NamedTuple):
    """Graphs that were under way at the same time, so that none of them waited for the end of
    another. They were sent ``after_seconds`` after the end of all graphs before."""

    graphs: tuple[Part, ...]
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Work:
    """Graphs, and what they cost here.

    Parameters
    ----------
    stages : tuple of Together
        In the order in which they ran.
    calibration : Calibration
        Rates of a node here.
    call_seconds, process_seconds : float
        Seconds of a call beside its work: to an executor, and to a worker process.
    typical_seconds : float
        Seconds taken for a task of which nothing is known.
    left_out : int
        Graphs that failed, or had not ended.
    """

    stages: tuple[Together, ...]
    calibration: Calibration = field(default_factory=Calibration)
    call_seconds: float = 3e-3
    process_seconds: float = 3e-3
    typical_seconds: float = 5e-2
    left_out: int = 0

    @property
    def graphs(self) -> list[Part]:
        return [graph for stage in self.stages for graph in stage.graphs]


@dataclass(frozen=True)
class Forecast:
    """A run that never was.

    Parameters
    ----------
    seconds : float
        From the first graph's being sent to the end of the last; ``caller_seconds`` of these the
        caller's program did something else.
    work_seconds : float
        Seconds that all tasks take, one after the other.
    devices : mapping
        Bundles by kind of device.
    utilization : float
        Busy seconds of all slots over makespan times slots.
    moved_bytes, held_bytes : int
        Bytes that went from one node to another; most bytes of values that were held at a time.
    graphs : mapping
        Beginning and end of each graph.
    notes : tuple of str
        Everything that was taken for granted, as sentences.
    """

    seconds: float
    caller_seconds: float
    work_seconds: float
    tasks: int
    bundles: int
    slots: int
    devices: Mapping[str, int]
    utilization: float
    moved_bytes: int
    held_bytes: int
    graphs: Mapping[str, tuple[float, float]] = field(repr=False)
    notes: tuple[str, ...] = ()
    spans: tuple[Span, ...] = field(default=(), repr=False)
    memory: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON types, without the spans and the memory."""
        left_out = ("graphs", "spans", "memory")
        names = [name for name in self.__dataclass_fields__ if name not in left_out]
        found = {name: getattr(self, name) for name in names}
        return {**found, "devices": dict(self.devices), "notes": list(self.notes)}

    def picture(self, title: str) -> Timeline:
        """Return the run as a picture, which can be shown and saved."""
        return Timeline(f"{title}: predicted {seconds_text(self.seconds)}", self.spans, self.memory)


def recorded_work(replay: Replay) -> Work:
    """Read a recording to its end; return its graphs with the seconds that their tasks took.

    Raises
    ------
    InvalidArgumentError
        It is damaged.
    """
    return summed_work(replay, read(replay))


def read(replay: Replay) -> Summary:
    """Read a recording to its end."""
    summary = Summary()
    for step in replay:
        summary.add(step)
    return summary


def summed_work(replay: Replay, summary: Summary) -> Work:
    """Return the graphs of a recording that was read, with the seconds that their tasks took."""
    known = [graph for graph in summary.graphs.values() if _is_whole(graph)]
    known.sort(key=lambda graph: graph.submitted.time)
    call = replay.model.call_overhead_seconds
    processes = [seconds for seconds in summary.process_calls if seconds > 0]
    return Work(
        tuple(_together(known)),
        replay.model.calibration,
        call,
        median(processes) if processes else call,
        replay.model.typical_seconds,
        len(summary.graphs) - len(known),
    )


def _is_whole(graph: RecordedGraph) -> bool:
    return graph.finished_seconds is not None and not graph.failed


def _together(graphs: Sequence[RecordedGraph]) -> Iterable[Together]:
    """Put graphs that overlapped in time in one stage."""
    stage: list[RecordedGraph] = []
    end: float | None = None
    after = 0.0
    for graph in graphs:
        begin = graph.submitted.time
        if end is None or begin >= end:
            if stage and end is not None:
                yield Together(tuple(map(_part, stage)), after)
                after = begin - end
            stage = []
        stage.append(graph)
        finish = begin + (graph.finished_seconds or 0.0)
        end = finish if end is None else max(end, finish)
    if stage:
        yield Together(tuple(map(_part, stage)), after)


def _part(graph: RecordedGraph) -> Part:
    costs: dict[str, Costs] = {}
    sizes: dict[str, int] = {}
    for key, ran in graph.ran.items():
        sizes |= ran.sizes
        tasks = graph.bundles[key].tasks
        measured = sum(ran.task_seconds)
        # (What a bundle takes beside its tasks, to unpack its inputs, is theirs too.)
        factor = ran.seconds / measured if measured > 0 else 0.0
        for number, task in enumerate(tasks):
            seconds = ran.seconds / len(tasks)
            if factor and number < len(ran.task_seconds):
                seconds = ran.task_seconds[number] * factor
            costs[task.key] = Costs(*((seconds, None) if ran.device == "cpu" else (None, seconds)))
    submitted = graph.submitted
    bundles = submitted.bundles
    return Part(
        submitted.graph_id,
        tuple(task for bundle in bundles for task in bundle.tasks),
        submitted.outputs,
        costs,
        sizes,
        submitted.priority,
        alone=all(len(bundle.tasks) == 1 for bundle in bundles),
    )


def planned_part(
    graph_id: str, graph: TaskGraph, model: CostModel, *, alone: bool = False, priority: int = 0
) -> Part:
    """Return a graph that has not run, with the seconds that earlier runs of its operations let
    expect."""
    costs = {}
    for task in graph:
        name, size = task.codelet.name, size_of(task)
        seen = [model.predict_size(name, kind, size) for kind in ("cpu", "gpu")]
        costs[task.key] = Costs(*(None if one is None else one.seconds for one in seen))
    return Part(graph_id, tuple(graph), graph.outputs, costs, {}, priority, alone=alone)


def forecast(
    work: Work, cluster: SimCluster, policy: str | Policy = "predictive", *, timeline: bool = True
) -> Forecast:
    """Predict the run of some work on a cluster.

    Transfers do not slow each other down there, and the caller sends any number of bundles at
    once.

    Raises
    ------
    AgenticRayError
        The work cannot run there: a task needs a GPU, or more memory than there is.
    """
    planner = _Planner(work, cluster)
    stages = planner.stages()
    run = VirtualRun(
        stages,
        planner,
        cluster,
        get_policy(policy),
        planner.model,
        keeps_timeline=timeline,
    )
    run.run()
    bundles = [bundle for stage in stages for graph in stage.graphs for bundle in graph.bundles]
    times = {
        graph_id: (run.begins[sent], run.ends[sent]) for graph_id, sent in planner.sent_as.items()
    }
    return Forecast(
        run.now,
        sum(stage.after_seconds for stage in stages),
        sum(sum(planner.times(bundle, bundle.kinds()[-1])) for bundle in bundles),
        sum(len(bundle.tasks) for bundle in bundles),
        len(bundles),
        run.slots,
        dict(Counter("cpu" if span.device == "cpu" else "gpu" for span in run.spans)),
        sum(run.busy) / (run.now * run.slots) if run.now else 0.0,
        run.moved_bytes,
        max((size for _, size in run.held.levels), default=0),
        times,
        tuple(planner.notes()),
        tuple(replace(s, task=_named(s.task), codelet=short_name(s.codelet)) for s in run.spans),
        tuple(run.held.levels),
    )


def _named(key: str) -> str:
    return key.partition(":")[2] or key


class _Planner:
    """Cuts work for a cluster, and knows what each task takes there."""

    def __init__(self, work: Work, cluster: SimCluster) -> None:
        self._work = work
        self._cluster = cluster
        self._slots = sum(node.slots + node.gpus for node in cluster.nodes)
        self._has_gpus = any(node.gpus for node in cluster.nodes)
        self._times: dict[str, tuple[float, float]] = {}
        self._sizes: dict[str, int] = {}
        self._all_tasks: list[Task] = []
        self._unknown: Counter[str] = Counter()
        self._hinted: Counter[str] = Counter()
        self._rated: Counter[str] = Counter()
        self._as_cpu: Counter[str] = Counter()
        self._elsewhere = 0
        self.sent_as: dict[str, str] = {}
        """Name of the graph that took the place of each graph."""
        rate = min(node.bytes_per_second for node in cluster.nodes)
        self.model = CostModel(
            replace(
                work.calibration,
                store_bytes_per_second=min(rate, cluster.bytes_per_second, 1e15),
                transfer_latency_seconds=cluster.latency_seconds,
                call_overhead_seconds=work.call_seconds,
            )
        )

    # --- what a virtual run asks -------------------------------------------------------

    def times(self, bundle: Bundle, kind: str) -> tuple[float, ...]:
        at = 0 if kind == "cpu" else 1
        return tuple([self._times[task.key][at] for task in bundle.tasks])

    def size(self, graph_id: str, key: str) -> int:
        return self._sizes.get(key, 0)

    def travels_inside(self, size: int) -> bool:
        return size <= INLINE_BYTES

    def call_seconds(self, bundle: Bundle) -> float:
        return self._work.process_seconds if bundle.opaque else self._work.call_seconds

    # --- cutting -----------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """Return all graphs as a session on the cluster would send them."""
        cut = [(stage, self._cut(stage.graphs)) for stage in self._work.stages]
        for _, parts in cut:
            for part in parts:
                self._learn(part)
        self._teach()
        return [
            Stage(tuple(map(self._bundled, parts)), stage.after_seconds) for stage, parts in cut
        ]

    def _cut(self, graphs: Sequence[Part]) -> list[Part]:
        numbered = [self._numbered(len(self.sent_as) + i, part) for i, part in enumerate(graphs)]
        cut, joined = recut(numbered, self._slots, self._work.call_seconds)
        for part in numbered:
            self.sent_as[part.graph_id] = joined.get(part.graph_id, part.graph_id)
        return cut

    def _numbered(self, number: int, part: Part) -> Part:
        """Return a graph with keys that no other graph has. Its tasks ask for no certain nodes."""

        def name(key: str) -> str:
            return f"{number}:{key}"

        tasks = []
        for task in part.tasks:
            resources = task.resources
            if resources.where:
                self._elsewhere += 1
                resources = Resources(
                    resources.cpus, resources.memory_bytes, resources.gpus,
                    resources.gpu_memory_bytes,
                )  # fmt: skip
            tasks.append(
                Task(
                    name(task.key),
                    task.codelet,
                    dependencies=tuple(map(name, task.dependencies)),
                    tag=task.tag,
                    resources=resources,
                    cost=task.cost,
                    priority=task.priority,
                )
            )
        return replace(
            part,
            tasks=tuple(tasks),
            outputs=tuple(map(name, part.outputs)),
            costs={name(key): costs for key, costs in part.costs.items()},
            sizes={name(key): size for key, size in part.sizes.items()},
        )

    def _learn(self, part: Part) -> None:
        """Take in what a graph's tasks take on each kind of device, and their values' sizes."""
        self._all_tasks += part.tasks
        for task in part.tasks:
            self._times[task.key] = self._both(task, part.costs.get(task.key, Costs()))
            self._sizes[task.key] = part.sizes.get(task.key, task.cost.written_bytes)

    def _both(self, task: Task, costs: Costs) -> tuple[float, float]:
        """Return the seconds of a task on a CPU and on a GPU."""
        cpu, gpu = costs
        name = short_name(task.codelet.name)
        if cpu is None and gpu is None:
            cpu = self._work.calibration.seconds(task.cost, "cpu")
            self._hinted[name] += cpu is not None
        if cpu is None and gpu is None:
            self._unknown[name] += bool(task.cost.items)
            count = task.cost.items if task.codelet.pieces else min(task.cost.items, 1)
            typical = self._work.typical_seconds * count
            return typical, typical
        ratio = self._ratio(task)
        if cpu is None:
            assert gpu is not None
            if not self._has_gpus:
                (self._as_cpu if ratio is None else self._rated)[name] += 1
            return gpu / (ratio or 1.0), gpu
        if gpu is None:
            if self._has_gpus and task.codelet.gpu is not None and task.tag != "cpu":
                (self._as_cpu if ratio is None else self._rated)[name] += 1
            gpu = cpu * (ratio or 1.0)
        return cpu, gpu

    def _ratio(self, task: Task) -> float | None:
        """Return the seconds on a GPU for a second on a CPU, by the rates of both; None if the
        cost of the task is not told."""
        rates = self._work.calibration
        on_cpu, on_gpu = rates.seconds(task.cost, "cpu"), rates.seconds(task.cost, "gpu")
        return on_gpu / on_cpu if on_cpu and on_gpu else None

    def _teach(self) -> None:
        """Tell the cost model the mean seconds of alike tasks, as if it had seen them."""
        sums: dict[tuple[str, float], list[float]] = {}
        for task in self._all_tasks:
            known = sums.setdefault((task.codelet.name, size_of(task)), [0.0, 0.0, 0.0])
            cpu, gpu = self._times[task.key]
            known[0] += 1
            known[1] += cpu
            known[2] += gpu
        for (name, size), (count, cpu, gpu) in sums.items():
            self.model.observe_size(name, "cpu", size, cpu / count)
            self.model.observe_size(name, "gpu", size, gpu / count)

    def _bundled(self, part: Part) -> SentGraph:
        graph = TaskGraph(part.tasks, part.outputs)

        def target(total: float) -> float:
            return bundle_seconds(total, self._slots, self._work.call_seconds)

        bundles = bundled(graph, self.model, (lambda _: 0.0) if part.alone else target)
        return SentGraph(part.graph_id, bundles, part.outputs, part.priority)

    def notes(self) -> list[str]:
        """Return a sentence for each assumption that the forecast makes."""
        found = []
        for names, text in (
            (
                self._unknown,
                f"never ran here: {seconds_text(self._work.typical_seconds)} are taken for an item",
            ),
            (self._hinted, "never ran here: by the bytes and operations that they declare"),
            (self._rated, "by the rates of a typical GPU and of a CPU here, not measured"),
            (self._as_cpu, "taken to be as fast on a GPU as on a CPU: nothing else is known"),
        ):
            for name, count in names.most_common(5):
                if count:
                    found.append(f"{counted(count, 'task')} of {name}: {text}")
        if self._elsewhere:
            found.append(
                f"{counted(self._elsewhere, 'task')} ask for nodes with labels or custom "
                "resources: every node is taken to have them"
            )
        if self._work.left_out:
            found.append(f"{counted(self._work.left_out, 'graph')} that did not end well left out")
        return found
