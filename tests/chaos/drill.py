"""Jobs on four raylets while their processes are killed at random: all finish, same bits.

A program of its own, for it starts a cluster and lets it be torn down:
``python tests/chaos/drill.py --jobs 200``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import operator
import os
import queue
import sys
import tempfile
import time
from collections import Counter
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.runtime.embedded import fewer_processes
from agentic_ray.runtime.processes import processes_of, session_name
from agentic_ray.testing import Chaos, Kill

NODES = 3  # besides the head
SEEDS = 5
FAST_DETECTION = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


def digest(*values: Any) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def wave(x: float) -> float:
    time.sleep(0.02)
    return math.sin(x) * 0.1


@ar.workload("map_reduce", cache=False)
def map_reduce(seed: int) -> str:
    data = [float(seed + i) for i in range(150)]
    return digest(ar.map_reduce(wave, data, operator.add, chunk_size=5))


@ar.workload("reduction", cache=False)
def reduction(seed: int) -> str:
    x = xp.random.default_rng(seed).random((2_000_000,), chunks=100_000)
    total, spread = ar.compute(xp.sum(xp.sin(x) * 0.1), xp.std(x))
    return digest(total, spread)


@ar.workload("tsqr", cache=False)
def tsqr(seed: int) -> str:
    x = xp.random.default_rng(seed).standard_normal((200_000, 12), chunks=(10_000, 12))
    q, r = xp.linalg.qr(x)
    return digest(*ar.compute(xp.sum(q, axis=0), r))


@ar.workload("kmeans", cache=False)
def kmeans(seed: int) -> str:
    """Lloyd's algorithm, each pass one map_reduce over blocks of rows."""
    rows = np.random.default_rng(seed).standard_normal((40_000, 4))
    centres = rows[:3].copy()
    for _ in range(4):

        def sums(block: Any, *, xp: Any, centres: Any = centres) -> Any:
            time.sleep(0.03)
            distances = ((block[:, None, :] - centres[None]) ** 2).sum(axis=2)
            nearest = distances.argmin(axis=1)
            one_hot = (nearest[:, None] == np.arange(len(centres))).astype(float)
            return np.column_stack([one_hot.T @ block, one_hot.sum(axis=0)])

        found = ar.map_reduce(ar.codelet(sums), rows, operator.add, chunk_size=2_500)
        centres = found[:, :-1] / found[:, -1:]
    return digest(centres)


WORKLOADS = ("map_reduce", "reduction", "tsqr", "kmeans")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--age", type=float, default=10.0, help="seconds that all live at least")
    parser.add_argument("--most-kills", type=int, help="after so many there are no more")
    parser.add_argument(
        "--kinds",
        default="worker,executor,node",
        help="what dies; with 'master' the jobs belong to one in an actor on the head",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 unless all is well")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    os.environ["AGENTIC_RAY_POLL_SECONDS"] = "0.3"  # here and, inherited, on the nodes
    with fewer_processes():
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": FAST_DETECTION}
        )
    for _ in range(NODES):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    ar.init()
    session = session_name()

    dead: queue.SimpleQueue[Kill] = queue.SimpleQueue()

    distinct = [(name, seed) for seed in range(SEEDS) for name in WORKLOADS]
    distinct = distinct[: max(4, options.jobs // 3)]
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"cache_bytes": 0, "max_running": 4}
        master: Any = None
        if "master" in kinds:
            master = ar.start_master("chaos", journal=f"{folder}/journal", **settings)
        else:
            master = ar.Master(**settings)
        expected = {}
        for job, key in [(master.submit(*key), key) for key in distinct]:
            expected[key] = job.result(timeout=120)
        print(f"{len(expected)} jobs without faults", flush=True)
        began = time.monotonic()
        jobs = []
        with Chaos(
            options.seed,
            every_seconds=options.every,
            kinds=kinds,
            least_age_seconds=options.age,
            most_kills=options.most_kills,
            on_kill=dead.put,
        ) as chaos:
            for n in range(options.jobs):
                key = distinct[n % len(distinct)]
                jobs.append((master.submit(*key), key))
            told = began
            while True:
                left = sum(not record.state.finished for record in master.jobs())
                if not left:
                    break
                if time.monotonic() - told >= 20:
                    told = time.monotonic()
                    print(f"{left} jobs left after {len(chaos.kills)} kills", flush=True)
                if time.monotonic() - began > options.jobs * 20:
                    break
                try:
                    kill = dead.get(timeout=0.5)
                except queue.Empty:
                    continue
                if kill.kind == "node":  # (only the main thread may add one)
                    try:
                        cluster.add_node(wait=False, num_cpus=1)
                    except Exception as error:  # Ray's own plain one: it was too slow to start
                        print(f"a node did not start: {error}", flush=True)
                        dead.put(kill)
        wrong, failed = [], []
        for job, key in jobs:
            try:
                if job.result(timeout=1) != expected[key]:
                    wrong.append(key)
            except Exception as error:
                failed.append(f"{key}: {error!r}")
        seconds = time.monotonic() - began
        figures = [job.metrics for job, _ in jobs if job.metrics is not None]
        faults = [entry for entry in figures if entry["failed"]]
        summary = {
            "jobs": len(jobs),
            "failed": failed,
            "wrong": wrong,
            "seconds": round(seconds, 1),
            "kills": dict(Counter(kill.kind for kill in chaos.kills)),
            "bundles_failed": sum(entry["failed"] for entry in figures),
            "recovery": min((entry["recovery"] for entry in faults), default=1.0),
            "attempts": sum(job.record.attempts for job, _ in jobs),
        }
        master.close(drain=False)
    ar.shutdown()
    ray.shutdown()
    cluster.shutdown()
    deadline = time.monotonic() + 60
    while (left := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.2)
    summary["left"] = [process.title for process in left]
    print(json.dumps(summary), flush=True)
    well = not (failed or wrong or summary["left"]) and summary["recovery"] == 1.0
    if options.check and not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
