"""What gives first on a very large cluster: one Dispatcher, measured and then divided.

    python benchmarks/scale.py [--json] [--nodes 10000] [--tasks 200000] [--jobs 1000]
                               [--part NAME ...]

Parts: deciding (processor time of a decision), telemetry (of taking in a state of all nodes),
graphs (of many small graphs at once), groups (makespan of several Dispatchers, each over a part of
the nodes, against the single one). Makespans are virtual and repeat exactly; processor times are
those of this machine. docs/scale.md says what follows from them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agentic_ray.graph import Bundle, Ref, Task, TaskGraph
from agentic_ray.schedule import Dispatcher
from agentic_ray.schedule.events import DeviceSlots, GraphSubmitted, NodeUp, Telemetry
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.simulate import SimCluster, mixed_cluster, simulate
from agentic_ray.schedule.workloads import Workload, codelet, random_layered
from agentic_ray.telemetry import ClusterState, NodeState

Row = dict[str, Any]


def deciding(arguments: argparse.Namespace) -> list[Row]:
    """Decisions of one Dispatcher: processor time a task, and how many a second that allows."""
    work = codelet("work")
    keys = [f"t{i}" for i in range(arguments.tasks)]
    workload = Workload(
        "independent", TaskGraph((Task(key, work) for key in keys), keys), {"work": 1.0}
    )
    result = simulate(workload, mixed_cluster(arguments.nodes), timeline=False)
    micro = result.decision_microseconds_per_task
    return [
        row("deciding: µs a task", micro),
        row("deciding: tasks a second of one Dispatcher", 1e6 / micro),
    ]


def telemetry(arguments: argparse.Namespace) -> list[Row]:
    """Processor time of taking in one state of all nodes, none of which is busy."""
    dispatcher = Dispatcher(get_policy("predictive"))
    nodes = tuple(NodeState(f"n{i}", f"h{i}", 8.0, 8.0, load=0.5) for i in range(arguments.nodes))
    began = time.process_time()
    for node in nodes:
        dispatcher.handle(NodeUp(0.0, node, (DeviceSlots("cpu", "cpu", 8),)))
    joined = time.process_time() - began
    rounds = 5
    began = time.process_time()
    for number in range(rounds):
        dispatcher.handle(Telemetry(float(number), ClusterState(nodes, float(number))))
    taken = (time.process_time() - began) / rounds
    return [
        row("telemetry: ms for all nodes to join", 1e3 * joined),
        row("telemetry: ms for one state of all nodes", 1e3 * taken),
    ]


def graphs(arguments: argparse.Namespace) -> list[Row]:
    """Processor time of submitting many small graphs at once."""
    dispatcher = Dispatcher(get_policy("predictive"))
    for i in range(arguments.nodes):
        node = NodeState(f"n{i}", f"h{i}", 8.0, 8.0)
        dispatcher.handle(NodeUp(0.0, node, (DeviceSlots("cpu", "cpu", 8),)))
    work = codelet("work")
    bundles = [
        [Bundle(f"g{j}/{i}", (Task(f"g{j}/{i}", work),), (), (f"g{j}/{i}",)) for i in range(10)]
        for j in range(arguments.jobs)
    ]
    began = time.process_time()
    for number, own in enumerate(bundles):
        outputs = tuple(bundle.key for bundle in own)
        dispatcher.handle(GraphSubmitted(0.0, f"g{number}", tuple(own), outputs))
    taken = time.process_time() - began
    return [row("graphs: µs a task, graphs of ten tasks", 1e6 * taken / (10 * arguments.jobs))]


def groups(arguments: argparse.Namespace) -> list[Row]:
    """Makespans of jobs whose work differs ninefold, by one Dispatcher and by several.

    Each group of nodes has a Dispatcher of its own. A job goes whole to the group that is expected
    to be done first (R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969, longest
    first); no task or node changes its group afterwards.
    """
    rng = random.Random(1)
    cluster = mixed_cluster(320, seed=1)
    jobs = [
        prefixed(random_layered(rng.randint(200, 1800), 10, seed=i), f"j{i}/") for i in range(160)
    ]
    alone = simulate(together(jobs), cluster, noise=0.2, timeline=False).makespan_seconds
    rows = [row("groups: makespan of one Dispatcher, virtual s", alone)]
    for count in (2, 4, 8):
        parts = divided(cluster, count)
        shares = dealt(jobs, [speed_of(part) for part in parts])
        makespans = [
            simulate(together(share), part, noise=0.2, seed=i, timeline=False).makespan_seconds
            for i, (share, part) in enumerate(zip(shares, parts, strict=True))
        ]
        rows.append(
            row(
                f"groups: {count} Dispatchers, makespan / that of one", max(makespans) / alone, 1.05
            )
        )
    return rows


def prefixed(workload: Workload, prefix: str) -> Workload:
    """The same workload with other keys, so that several fit into one graph."""
    tasks = [
        replace(
            task,
            key=prefix + task.key,
            args=tuple(Ref(prefix + ref.key) for ref in task.args),
            dependencies=tuple(prefix + key for key in task.dependencies),
        )
        for task in workload.graph
    ]
    graph = TaskGraph(tasks, [prefix + key for key in workload.graph.outputs])
    return replace(workload, graph=graph)


def together(jobs: Sequence[Workload]) -> Workload:
    """Several workloads as one graph."""
    tasks = [task for job in jobs for task in job.graph]
    return replace(
        jobs[0], graph=TaskGraph(tasks, [key for job in jobs for key in job.graph.outputs])
    )


def work_of(job: Workload) -> float:
    return sum(job.seconds_of(task) for task in job.graph)


def speed_of(cluster: SimCluster) -> float:
    """Work a second of all devices; half of the tasks are of the kind that GPUs are fast at."""
    gpu = (cluster.gpu_speed + cluster.gpu_other_speed) / 2
    return sum(node.speed * node.slots + node.gpus * gpu for node in cluster.nodes)


def divided(cluster: SimCluster, count: int) -> list[SimCluster]:
    """Groups of nodes that are alike: nodes with and without GPUs are dealt out by their speed."""
    parts: list[list[Any]] = [[] for _ in range(count)]
    ranked = sorted(cluster.nodes, key=lambda node: (node.gpus, node.speed), reverse=True)
    for number, node in enumerate(ranked):
        turn, place = divmod(number, count)
        parts[place if turn % 2 == 0 else count - 1 - place].append(node)
    return [replace(cluster, nodes=tuple(part)) for part in parts]


def dealt(jobs: Sequence[Workload], speeds: Sequence[float]) -> list[list[Workload]]:
    """The jobs of each group: the longest first, each to the group that would be done first."""
    shares: list[list[Workload]] = [[] for _ in speeds]
    loads = [(0.0, group) for group in range(len(speeds))]
    heapq.heapify(loads)
    for job in sorted(jobs, key=work_of, reverse=True):
        load, group = heapq.heappop(loads)
        shares[group].append(job)
        heapq.heappush(loads, (load + work_of(job) / speeds[group], group))
    return shares


def row(case: str, value: float, goal: float | None = None) -> Row:
    return {"case": case, "value": value, "goal": goal}


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "deciding": deciding,
    "telemetry": telemetry,
    "graphs": graphs,
    "groups": groups,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    arguments = parser.parse_args()
    rows = [one for part in arguments.part or PARTS for one in PARTS[part](arguments)]
    if arguments.json:
        print(json.dumps(rows))
        return
    for one in rows:
        goal = "" if one["goal"] is None else f"   (goal {one['goal']:g})"
        print(f"{one['case']:<60} {one['value']:12,.3f}{goal}")


if __name__ == "__main__":
    main()
