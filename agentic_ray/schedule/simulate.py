"""Simulates made-up workloads: the real Dispatcher and policies over a made-up cluster.

The events are in ``virtual``, workloads in ``workloads``, lower bounds in ``bounds``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle, Task
from agentic_ray.pictures import Span, Timeline
from agentic_ray.schedule.baselines import baseline
from agentic_ray.schedule.bounds import imbalance, lower_bound_seconds
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel, size_of
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.virtual import (
    NoOverhead,
    SentGraph,
    SimCluster,
    SimNode,
    Stage,
    VirtualRun,
)
from agentic_ray.schedule.workloads import Workload, get_workload

__all__ = ["SimCluster", "SimNode", "SimulationResult", "mixed_cluster", "simulate"]

Costs = Literal["given", "learnt"]


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
    truth = _Truth(workload, cluster)
    run = VirtualRun(
        (_sent(workload),),
        truth,
        cluster,
        get_policy(policy),
        model or _begun_model(truth, workload, cluster, costs),
        told=costs == "given",
        factor=_noise(workload, noise, seed),
        keeps_timeline=timeline,
    )
    run.run()
    return _result(workload, cluster, run)


class _Truth(NoOverhead):
    """The truth of a workload: every task is a bundle of its own."""

    def __init__(self, workload: Workload, cluster: SimCluster) -> None:
        self._workload = workload
        self._cluster = cluster

    def times(self, bundle: Bundle, kind: str) -> tuple[float, ...]:
        return tuple([self.task_seconds(task, kind) for task in bundle.tasks])

    def task_seconds(self, task: Task, kind: str) -> float:
        """Return the seconds of a task on a CPU of speed 1, or on a GPU."""
        speed = 1.0
        if kind == "gpu":
            accelerated = task.codelet.name in self._workload.accelerated
            speed = self._cluster.gpu_speed if accelerated else self._cluster.gpu_other_speed
        return self._workload.seconds_of(task) / speed

    def size(self, graph_id: str, key: str) -> int:
        return self._workload.bytes_of(self._workload.graph[key])


def _begun_model(truth: _Truth, workload: Workload, cluster: SimCluster, costs: Costs) -> CostModel:
    """Return a cost model that knows nothing, or all that is true on a device of speed 1."""
    if costs == "learnt":
        return CostModel(Calibration())
    model = CostModel(
        Calibration(
            store_bytes_per_second=cluster.bytes_per_second,
            transfer_latency_seconds=cluster.latency_seconds,
        )
    )
    told: set[tuple[str, float]] = set()
    for task in workload.graph:
        size = size_of(task)
        if (task.codelet.name, size) in told:
            continue
        told.add((task.codelet.name, size))
        for kind in ("cpu", "gpu"):
            seconds = truth.task_seconds(task, kind)
            model.observe_size(task.codelet.name, kind, size, seconds)
        model.observe_bytes(task.codelet.name, workload.bytes_of(task))
    return model


def _noise(workload: Workload, noise: float, seed: int) -> Callable[[Bundle], float]:
    """Return the factor of each bundle's seconds; their mean is 1."""
    if not noise:
        return lambda bundle: 1.0
    rng = random.Random(seed)
    sigma = math.sqrt(math.log1p(noise * noise))
    factors = {task.key: rng.lognormvariate(-sigma * sigma / 2, sigma) for task in workload.graph}
    return lambda bundle: factors[bundle.key]


def _sent(workload: Workload) -> Stage:
    graph = workload.graph
    used = {*graph.outputs, *(key for task in graph for key in task.dependencies)}
    bundles = tuple(
        Bundle(t.key, (t,), t.dependencies, (t.key,) if t.key in used else ()) for t in graph
    )
    return Stage((SentGraph("g", bundles, graph.outputs),))


def _result(workload: Workload, cluster: SimCluster, run: VirtualRun) -> SimulationResult:
    tasks = len(workload.graph)
    makespan = run.now
    nodes = cluster.nodes
    return SimulationResult(
        workload.name,
        run.dispatcher.policy.name,
        tasks,
        makespan,
        lower_bound_seconds(
            workload,
            cpu_speed=sum(node.speed * node.slots for node in nodes),
            fastest_cpu=max(node.speed for node in nodes),
            gpus=sum(node.gpus for node in nodes),
            gpu_speed=cluster.gpu_speed,
            gpu_other_speed=cluster.gpu_other_speed,
        ),
        sum(run.busy) / (makespan * run.slots) if makespan else 0.0,
        imbalance(run.busy),
        run.deciding_seconds * 1e6 / max(tasks, 1),
        run.dispatcher.model.error_report().median_relative_error,
        tuple(run.spans),
        tuple(run.held.levels),
    )
