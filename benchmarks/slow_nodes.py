"""Four raylets on this machine, two of them slow: our placement against plain Ray's.

    python benchmarks/slow_nodes.py [--json] [--cpus 4] [--tasks 400] [--seconds 0.5] [--factor 40]

Every task sleeps, longer on a slow node, as a stand-in for slow hardware; so two cores are enough
for four nodes. The same function runs as plain Ray tasks and through map_reduce (one element a
task), in turn. Plain Ray gives a task to whatever CPU comes free, also to a slow one near the end,
for which everybody then waits: that is what predicting saves. It shows where a task on a slow node
takes as long as a good part of the whole. By default a slow node is 40 times slower, as one with
failing hardware is (Gunawi et al., "Fail-slow at scale", FAST 2018); with --factor 10 the last
task is a small part of the whole, and there is little to gain.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.cluster_utils import Cluster

import agentic_ray as ar

GOAL = 0.65


def slowed(slow_nodes: frozenset[str], seconds: float, factor: float) -> Callable[[Any], int]:
    """A task that takes ``seconds`` on a fast node and ``factor`` times that on a slow one."""

    def task(_: Any) -> int:
        node = ray.get_runtime_context().get_node_id()
        time.sleep(seconds * (factor if node in slow_nodes else 1.0))
        return 1

    return task


def least_seconds(tasks: int, cpus: int, seconds: float, factor: float) -> float:
    """The shortest makespan there is: each task where it ends first, as tasks are equal."""
    ends = [(seconds * pace, seconds * pace) for pace in (1.0, factor) for _ in range(2 * cpus)]
    heapq.heapify(ends)
    last = 0.0
    for _ in range(tasks):
        last, own = ends[0]
        heapq.heapreplace(ends, (last + own, own))
    return last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpus", type=int, default=4, help="of each raylet")
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--factor", type=float, default=40.0)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    # Neither is to pay for starting worker processes, which Ray ends when they idle.
    keep = {"idle_worker_killing_time_threshold_ms": 3_600_000, "num_workers_soft_limit": 1000}
    head = {"num_cpus": options.cpus, "_system_config": keep}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=options.cpus) for _ in range(3))]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    slow = frozenset(node.node_id for node in nodes[2:])
    task = slowed(slow, options.seconds, options.factor)
    remote = ray.remote(task)

    def plain(tasks: int) -> None:
        assert sum(ray.get([remote.remote(i) for i in range(tasks)])) == tasks

    session = ar.init(idle_release_seconds=0.5, keep_costs=False)

    def ours(tasks: int) -> None:
        total = ar.map_reduce(task, range(tasks), lambda a, b: a + b, chunk_size=1)
        assert total == tasks

    times: dict[str, list[float]] = {"plain_ray": [], "ours": []}
    for run in range(options.runs + 1):
        for name, function in (("plain_ray", plain), ("ours", ours)):
            time.sleep(2.5)  # CPUs held by one go back to Ray before the other starts
            before = time.perf_counter()
            function(options.tasks if run else 8 * options.cpus)
            if run:  # the first starts the workers
                times[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **medians,
        "ratio": medians["ours"] / medians["plain_ray"],
        "goal": GOAL,
        "least_possible": least_seconds(
            options.tasks, options.cpus, options.seconds, options.factor
        ),
        "slots": session.slots,
        "times": times,
    }
    ar.shutdown()
    ray.shutdown()
    cluster.shutdown()
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"plain Ray          {result['plain_ray']:.2f} s")
        print(f"agentic_ray        {result['ours']:.2f} s")
        print(f"ratio              {result['ratio']:.2f}   goal <= {GOAL}")
        print(f"least possible     {result['least_possible']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
