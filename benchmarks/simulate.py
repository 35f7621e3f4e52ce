"""Our placing in the simulator: against lower bounds, other policies, and HEFT of anrg-saga.

    python benchmarks/simulate.py [--json] [--seeds 3] [--ready 1000000] [--part NAME ...]

Parts: bounds, policies, heft (needs `pip install anrg-saga`), deciding, prediction. Makespans are
virtual and repeat exactly; the cost of deciding is processor time of this machine, and memory what
Python allocates. Every figure that has a goal is printed with it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from agentic_ray.graph import Task, TaskGraph
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.simulate import SimCluster, SimNode, mixed_cluster, simulate
from agentic_ray.schedule.workloads import (
    BYTES_PER_SECOND,
    FLOPS_PER_SECOND,
    WORKLOADS,
    Workload,
    codelet,
    random_layered,
)

OTHERS = ("ray_hybrid", "first_free", "round_robin", "load_balance")
Row = dict[str, Any]


def bounds(arguments: argparse.Namespace) -> list[Row]:
    """`predictive` over the lower bound, on the mixed cluster of 64 nodes."""
    cases: list[tuple[str, dict[str, Any], float | None]] = [
        ("map_reduce", {}, 1.05),
        ("tiled_cholesky", {}, 1.10),
        ("tsqr", {}, 1.25),
        ("tiled_cholesky", {"noise": 0.2, "costs": "learnt"}, 1.20),
        ("kmeans", {}, None),
    ]
    rows: list[Row] = []
    for name, options, goal in cases:
        results = [simulate(name, 64, seed=seed, **options) for seed in range(arguments.seeds)]
        ratios = [one.makespan_seconds / one.lower_bound_seconds for one in results]
        how = ", 20 % noise, learnt" if options else ""
        rows.append(
            {
                "case": f"{name}{how}: makespan / lower bound",
                "value": statistics.mean(ratios),
                "worst": max(ratios),
                "goal": goal,
            }
        )
    return rows


def policies(arguments: argparse.Namespace) -> list[Row]:
    """`predictive` over each other policy, mean of the ratio over all workloads and seeds."""
    rows: list[Row] = []
    ours = {
        (name, seed): simulate(name, 64, seed=seed).makespan_seconds
        for name in WORKLOADS
        for seed in range(arguments.seeds)
    }
    for other in OTHERS:
        ratios = {
            name: statistics.mean(
                ours[name, seed] / simulate(name, 64, other, seed=seed).makespan_seconds
                for seed in range(arguments.seeds)
            )
            for name in WORKLOADS
        }
        rows.append(
            {
                "case": f"makespan / that of {other}, mean over the workloads",
                "value": statistics.mean(ratios.values()),
                "worst": max(ratios.values()),
                "goal": None if other == "first_free" else 0.75,
            }
            | ratios
        )
    return rows


def heft(arguments: argparse.Namespace) -> list[Row]:
    """`predictive` over HEFT of anrg-saga on the same random graphs and networks.

    Both are told the exact seconds and bytes, links have the same rate between any two nodes, and
    values set out as soon as they are made, which is HEFT's model of a network.
    """
    rows: list[Row] = []
    for ccr in (0.0, 0.1, 0.5, 1.0):
        ratios = []
        for seed in range(8 * arguments.seeds):
            rng = random.Random(seed)
            nodes = tuple(SimNode(f"n{i}", rng.uniform(1, 8)) for i in range(rng.randint(3, 10)))
            speed = statistics.mean(node.speed for node in nodes)
            tasks, layers = rng.randint(40, 200), rng.randint(4, 14)
            workload = _rooted(random_layered(tasks, layers, ccr / speed, 3, seed, seconds=10.0))
            ours = simulate(workload, SimCluster(nodes, moves_ahead=True))
            ratios.append(ours.makespan_seconds / _saga_makespan(workload, nodes))
        rows.append(
            {
                "case": f"random graphs, CCR {ccr}: makespan / that of anrg-saga's HEFT",
                "value": statistics.mean(ratios),
                "worst": max(ratios),
                "goal": None,
            }
        )
    mean = statistics.mean(row["value"] for row in rows)
    worst = max(row["worst"] for row in rows)
    row = {"case": "random graphs: mean of all", "value": mean, "worst": worst, "goal": 1.0}
    return [*rows, row]


def _rooted(workload: Workload) -> Workload:
    """The same graph with one last task, as saga wants it."""
    last = Task.of(codelet("dense"), key="last", cost=_cost(1e-6))
    last = Task(last.key, last.codelet, dependencies=workload.graph.outputs, cost=last.cost)
    return Workload(workload.name, TaskGraph([*workload.graph, last], ["last"]))


def _cost(seconds: float) -> Any:
    from agentic_ray.graph import CostHint

    return CostHint(flops=seconds * FLOPS_PER_SECOND)


def _saga_makespan(workload: Workload, nodes: tuple[SimNode, ...]) -> float:
    from saga import Network
    from saga import TaskGraph as SagaGraph
    from saga.schedulers.heft import HeftScheduler

    tasks = [(task.key, workload.seconds_of(task)) for task in workload.graph]
    edges = [
        (key, task.key, workload.bytes_of(workload.graph[key]) / BYTES_PER_SECOND)
        for task in workload.graph
        for key in task.dependencies
    ]
    sources = [task.key for task in workload.graph if not task.dependencies]
    if len(sources) > 1:
        tasks.append(("first", 0.0))
        edges += [("first", key, 0.0) for key in sources]
    links = [(a.node_id, b.node_id, 1.0 if a is not b else math.inf) for a in nodes for b in nodes]
    network = Network.create([(node.node_id, node.speed) for node in nodes], links)
    schedule = HeftScheduler().schedule(network, SagaGraph.create(tasks, edges))
    return float(schedule.makespan)


def deciding(arguments: argparse.Namespace) -> list[Row]:
    """Processor time and memory a task, of very many tasks ready at once.

    Each size runs in a process of its own, so that one does not warm or burden the other.
    """
    rows: list[Row] = []
    ready = arguments.ready
    costs: dict[int, float] = {}
    for nodes in (100, 1000, 10_000):
        found = _apart("--cost", nodes, ready)
        costs[nodes] = found["microseconds"]
        rows.append(
            {
                "case": f"deciding, {nodes} nodes, {ready} ready tasks: µs a task",
                "value": found["microseconds"],
                "goal": 20.0 if nodes == 1000 else None,
            }
        )
    growth = (costs[10_000] / costs[100]) / (math.log(10_000) / math.log(100))
    rows.append(
        {
            "case": "deciding, 10,000 over 100 nodes: growth / that of log(nodes)",
            "value": growth,
            "goal": 1.0,
        }
    )
    found = _apart("--memory", 1000, min(ready, 200_000))
    row = {"case": "memory of the Dispatcher and the graph: bytes a task", "goal": 2048.0}
    return [*rows, row | {"value": found["bytes"]}]


def _apart(*arguments: Any) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def independent(count: int) -> Workload:
    work = codelet("work")
    graph = TaskGraph((Task(f"t{i}", work) for i in range(count)), [])
    return Workload(
        "independent",
        TaskGraph(graph.tasks, [task.key for task in graph]),
        {"work": 1.0},
        accelerated=frozenset({"work"}),
    )


def cost(nodes: int, count: int) -> dict[str, float]:
    result = simulate(independent(count), mixed_cluster(nodes), timeline=False)
    ratio = result.makespan_seconds / result.lower_bound_seconds
    return {"microseconds": result.decision_microseconds_per_task, "ratio": ratio}


def memory(nodes: int, count: int) -> dict[str, float]:
    """Bytes allocated at most, of which the graph itself is counted too."""
    cluster = mixed_cluster(nodes)
    tracemalloc.start()
    simulate(independent(count), cluster, timeline=False)
    return {"bytes": tracemalloc.get_traced_memory()[1] / count}


def prediction(arguments: argparse.Namespace) -> list[Row]:
    """Median error of the cost model over the tasks of a run, the last of three, of every
    workload with 20 % noise; nothing was told of costs or devices before the first."""
    rows: list[Row] = []
    for name in WORKLOADS:
        model = CostModel()
        for seed in range(3):
            result = simulate(name, mixed_cluster(64), seed=seed, noise=0.2, model=model)
        rows.append(
            {
                "case": f"{name}, 20 % noise, learnt: median error of the third run",
                "value": model.error_report(result.tasks).median_relative_error,
                "goal": 0.25,
            }
        )
    return rows


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "bounds": bounds,
    "policies": policies,
    "heft": heft,
    "deciding": deciding,
    "prediction": prediction,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ready", type=int, default=1_000_000)
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    for hidden in ("--cost", "--memory"):
        parser.add_argument(hidden, type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cost or arguments.memory:
        found = cost(*arguments.cost) if arguments.cost else memory(*arguments.memory)
        print(json.dumps(found))
        return 0
    rows = [row for name in arguments.part or PARTS for row in PARTS[name](arguments)]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        goal = "" if row["goal"] is None else f"   goal {row['goal']:g}"
        worst = f"   worst {row['worst']:.3f}" if "worst" in row else ""
        print(f"{row['case']:<76}{row['value']:>10.3f}{worst}{goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
