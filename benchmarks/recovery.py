"""How much a lost node and a slow node cost, on real raylets of this machine.

    python benchmarks/recovery.py [--json] [--part lost] [--part slow] [--runs 2]

lost: chunks are made, then each is worked on, then all are combined. When all are made, the node
      that holds the only copy of half of them is killed, and a new node takes its place, as a
      cluster manager sees to. Counted is how many chunks are made again. Side by side with the
      same job without the kill.
slow: one node in four is ten times slower; side by side with a cluster that has not got it.

Tasks sleep, as a stand-in for work, so that few cores are enough for several nodes.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

import agentic_ray as ar
from agentic_ray.graph.task import Codelet, Ref, Task, TaskGraph

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
CHUNKS = 20
ROWS = 50_000


def make_cluster(nodes: int) -> tuple[Cluster, list[Any]]:
    """A cluster whose head only holds the driver's things; nodes of one CPU each."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": HEALTH}
    )
    added = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    return cluster, added


def end(cluster: Cluster) -> None:
    ar.shutdown()
    ray.shutdown()
    cluster.shutdown()


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster is not as it should be")
        time.sleep(0.05)


def lost(seconds: float) -> dict[str, float]:
    """One run without and one with the kill, on a fresh cluster each."""
    plain, _, _ = _chunked(seconds, kill=False)
    killed, recomputed, missing = _chunked(seconds, kill=True)
    return {
        "without_seconds": plain,
        "with_seconds": killed,
        "ratio": killed / plain,
        "chunks": CHUNKS,
        "lost_and_still_needed": missing,
        "made_again": recomputed,
    }


def _chunked(seconds: float, *, kill: bool) -> tuple[float, int, int]:
    """Seconds of a job of CHUNKS chunks; how many were made anew; how many had to be."""
    folder = Path(tempfile.mkdtemp())

    def chunk(i: int, folder: str, seconds: float) -> Any:
        time.sleep(seconds)
        (Path(folder) / f"{i}-{os.getpid()}-{time.monotonic_ns()}").touch()
        return np.full(ROWS, float(i))  # too large to travel in the report: it stays on its node

    def work(chunk: Any, seconds: float) -> float:
        time.sleep(seconds)
        return float(chunk.sum())

    def total(*sums: float) -> float:
        return sum(sums)

    cluster, nodes = make_cluster(2)
    session = ar.init(poll_seconds=0.3)
    wait_until(lambda: session.slots == 2)
    make = Codelet("make_chunk", chunk)
    use = Codelet("work_on_chunk", work)
    warm = [Task.of(make, i, str(folder), 0.05, key=f"warm/{i}") for i in range(4)]
    session.submit(TaskGraph(warm, [t.key for t in warm]), target_seconds=0.0).result(60)
    for file in folder.iterdir():
        file.unlink()
    tasks = [Task.of(make, i, str(folder), seconds, key=f"chunk/{i}") for i in range(CHUNKS)]
    works = [Task.of(use, Ref(task.key), seconds, key=f"work/{task.key}") for task in tasks]
    combine = Task.of(Codelet("total", total), *(Ref(task.key) for task in works), key="total")
    begun = time.perf_counter()
    run = session.submit(TaskGraph([*tasks, *works, combine], ["total"]), target_seconds=0.0)

    def done(kind: str) -> dict[str, str]:
        """Chunks that are made, or worked on, and the nodes that did it."""
        found = [p for p in run.placements() if p.bundle.startswith(kind)]
        return {p.bundle.removeprefix("work/"): p.node_id for p in found}

    missing = 0
    if kill:
        wait_until(lambda: len(done("chunk/")) == CHUNKS, 120)
        victim = nodes[1]
        needed = done("chunk/").keys() - done("work/").keys()
        missing = sum(done("chunk/")[key] == victim.node_id for key in needed)
        cluster.remove_node(victim, allow_graceful=False)
        cluster.add_node(num_cpus=1)
    value = run.result(timeout=240)[0]
    took = time.perf_counter() - begun
    assert value == sum(range(CHUNKS)) * ROWS
    made = [int(file.name.split("-")[0]) for file in folder.iterdir()]
    end(cluster)
    return took, len(made) - len(set(made)), missing


def slow(tasks: int, seconds: float, factor: float) -> dict[str, float]:
    """Makespans of the same job on three nodes, and on these and a slow one."""
    three, _ = _napping(3, tasks, seconds, 1.0)
    four, copies = _napping(4, tasks, seconds, factor)
    return {
        "without_it_seconds": three,
        "with_it_seconds": four,
        "ratio": four / three,
        "second_copies": copies,
    }


def _napping(nodes: int, tasks: int, seconds: float, factor: float) -> tuple[float, int]:
    cluster, added = make_cluster(nodes)
    slowed = added[-1].node_id if factor != 1.0 else ""

    def nap(x: int) -> int:
        node = ray.get_runtime_context().get_node_id()
        time.sleep(seconds * (factor if node == slowed else 1.0))
        return x

    session = ar.init(poll_seconds=0.3, keep_costs=False)
    wait_until(lambda: session.slots == nodes)
    ar.map_reduce(len, ["warm"] * nodes, operator.add, chunk_size=1)  # starts the workers
    begun = time.perf_counter()
    job = ar.map_reduce_job(nap, range(tasks), operator.add)
    assert job.result(timeout=240) == sum(range(tasks))
    took = time.perf_counter() - begun
    copies = sum(event.kind == "second copy" for event in job.events())
    end(cluster)
    return took, copies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", action="append", choices=("lost", "slow"))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a step in part lost")
    parser.add_argument("--tasks", type=int, default=400, help="in part slow")
    parser.add_argument("--nap", type=float, default=0.15, help="seconds of a task in part slow")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for part in options.part or ("lost", "slow"):
        for _ in range(options.runs):
            if part == "lost":
                one = lost(options.seconds)
            else:
                one = slow(options.tasks, options.nap, 10.0)
            results.setdefault(part, []).append(one)
            if not options.json:
                print(part, *(f"{name} {value:.2f}" for name, value in one.items()), sep="  ")
    for part, goal in (("lost", 1.6), ("slow", 1.3)):
        if part in results and not options.json:
            ratio = statistics.median(one["ratio"] for one in results[part])
            print(f"{part}: median ratio {ratio:.2f}, goal <= {goal}")
    if options.json:
        print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
