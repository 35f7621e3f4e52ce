"""Small jobs through `Master.submit`, in threads of the master and in runners, in one run.

    python benchmarks/jobs.py [--json] [--jobs N] [--no-cluster]

``plain`` sums the squares of five numbers itself; ``cluster`` is the default workload, which goes
the whole way of a map-reduce. With a journal (`synchronous=FULL`). Latency is the median of warm
jobs, one after the other; the rate is that of 16 threads that submit and wait.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from agentic_ray.master import Master, Registry, registry

DATA = {"data": [1, 2, 3, 4, 5]}
GOALS = {"latency_ms": 12.0, "jobs_a_second": 300.0}


def plain(params: Any) -> int:
    """Sum of squares, without the cluster."""
    return sum(x * x for x in params["data"])


def measured(master: Master, workload: str, jobs: int) -> dict[str, float]:
    """Latency and rate of one workload."""
    for _ in range(10):
        assert master.submit(workload, DATA).result(60) == 55
    took = []
    for _ in range(max(jobs // 10, 10)):
        before = time.perf_counter()
        master.submit(workload, DATA).result(60)
        took.append(time.perf_counter() - before)

    def use(first: int) -> None:
        for _ in range(first, jobs, 16):
            assert master.submit(workload, DATA).result(60) == 55

    threads = [threading.Thread(target=use, args=(i,)) for i in range(16)]
    before = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = jobs / (time.perf_counter() - before)
    return {"latency_ms": 1e3 * statistics.median(took), "jobs_a_second": rate}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--no-cluster", action="store_true")
    arguments = parser.parse_args()
    workloads = Registry()
    workloads.register("plain", plain, cache=False)
    default = registry.get("default")
    workloads.register("cluster", default.function, builtin=False, cache=False)
    results: dict[str, dict[str, float]] = {}
    for runners in (0, 4):
        with (
            tempfile.TemporaryDirectory() as folder,
            Master(journal=Path(folder, "journal"), workloads=workloads, runners=runners) as master,
        ):
            where = "runners" if runners else "threads"
            results[f"plain in {where}"] = measured(master, "plain", arguments.jobs)
            if not arguments.no_cluster:
                results[f"cluster in {where}"] = measured(master, "cluster", arguments.jobs // 4)
    if arguments.json:
        print(json.dumps({"results": results, "goals": GOALS}))
        return 0
    for name, figures in results.items():
        print(f"{name:20} {figures['latency_ms']:8.2f} ms {figures['jobs_a_second']:8.0f} jobs/s")
    print(f"{'goal':20} {GOALS['latency_ms']:8.2f} ms {GOALS['jobs_a_second']:8.0f} jobs/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
