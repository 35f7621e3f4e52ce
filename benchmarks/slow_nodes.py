"""Four raylets on this machine, two of them slow: our placement against plain Ray's.

    python benchmarks/slow_nodes.py [--json] [--tasks 400] [--seconds 0.02] [--factor 10]

Every task sleeps, longer on a slow node, as a stand-in for slow hardware; so two cores are
enough for four nodes. The same function runs as plain Ray tasks and through map_reduce, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.cluster_utils import Cluster

import agentic_ray as ar


def slowed(slow_nodes: frozenset[str], seconds: float, factor: float) -> Callable[[Any], int]:
    """A task that takes ``seconds`` on a fast node and ``factor`` times that on a slow one."""

    def task(_: Any) -> int:
        node = ray.get_runtime_context().get_node_id()
        time.sleep(seconds * (factor if node in slow_nodes else 1.0))
        return 1

    return task


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(3))]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    slow = frozenset(node.node_id for node in nodes[2:])
    task = slowed(slow, options.seconds, options.factor)
    remote = ray.remote(task)

    def plain() -> None:
        assert sum(ray.get([remote.remote(i) for i in range(options.tasks)])) == options.tasks

    session = ar.init(idle_release_seconds=0.5)

    def ours() -> None:
        total = ar.map_reduce(task, range(options.tasks), lambda a, b: a + b)
        assert total == options.tasks

    times: dict[str, list[float]] = {"plain_ray": [], "ours": []}
    for run in range(options.runs + 1):
        for name, function in (("plain_ray", plain), ("ours", ours)):
            time.sleep(2.5)  # CPUs held by one go back to Ray before the other starts
            before = time.perf_counter()
            function()
            if run:  # the first starts the workers
                times[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rate = 2 / options.seconds + 2 / (options.seconds * options.factor)
    result = {
        **medians,
        "ratio": medians["ours"] / medians["plain_ray"],
        "lower_bound": options.tasks / rate,
        "slots": session.slots,
    }
    ar.shutdown()
    ray.shutdown()
    cluster.shutdown()
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"plain Ray          {result['plain_ray']:.2f} s")
        print(f"agentic_ray        {result['ours']:.2f} s")
        print(f"ratio              {result['ratio']:.2f}   goal <= 0.65")
        print(f"lower bound        {result['lower_bound']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
