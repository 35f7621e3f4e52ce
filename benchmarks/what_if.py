"""Compares what `explain --what-if` predicts for 2, 4 and 8 nodes with what it takes there.

    python benchmarks/what_if.py [--runs 3] [--nodes 2 4 8]

A run on this machine is recorded; from that alone the makespan on so many raylets of one CPU is
predicted. Then the raylets are started, all on this machine, and the same work runs on them. Its
tasks wait instead of computing, so that eight raylets can run side by side on few cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

NODES = (2, 4, 8)
GOAL = 0.2
TRIES = 4


def nap(milliseconds: float) -> float:
    """Wait, and compute a little."""
    time.sleep(milliseconds / 1e3)
    return milliseconds * 0.5


def mapped() -> Any:
    """A map-reduce of 600 elements of 10 to 50 ms, in chunks of the session's choice."""
    import operator

    import agentic_ray as ar

    return ar.map_reduce(nap, [10 + (i * 7) % 41 for i in range(600)], operator.add)


def called() -> Any:
    """200 calls of 20 to 90 ms through `Executor.map`."""
    import agentic_ray as ar

    with ar.Executor() as executor:
        return sum(executor.map(nap, [20 + (i * 13) % 71 for i in range(200)]))


def layered() -> Any:
    """A graph of 12 layers of 16 tasks of 20 to 200 ms, each with two inputs."""
    import agentic_ray as ar
    from agentic_ray.graph import Ref, Task, TaskGraph

    step = ar.Codelet("what_if.step", lambda milliseconds, *inputs: nap(milliseconds))
    tasks: list[Task] = []
    before: list[Ref] = []
    for layer in range(12):
        now = []
        for i in range(16):
            inputs = [before[i], before[(i * 5 + 3) % 16]] if before else []
            waits = 20.0 + (layer * 31 + i * 17) % 181
            tasks.append(Task.of(step, waits, *inputs, key=f"{layer}/{i}"))
            now.append(Ref(tasks[-1].key))
        before = now
    graph = TaskGraph(tasks, [one.key for one in before])
    return ar.get_session().submit(graph).result()


def blocks() -> Any:
    """An array of 48 blocks, each made by a function of 60 ms, then its sum over the rows."""
    import numpy as np

    import agentic_ray.array as xp

    def slow(block: Any) -> Any:
        time.sleep(0.06)
        return block + 1.0

    x = xp.zeros((48 * 4, 1000), chunks=(4, 1000))
    return np.asarray(xp.map_blocks(slow, x).sum(axis=0))


WORK: dict[str, Callable[[], Any]] = {
    "map_reduce": mapped,
    "Executor.map": called,
    "graph in layers": layered,
    "array of blocks": blocks,
}


def child(nodes: int, runs: int, folder: str) -> dict[str, float]:
    """Run all work on so many raylets; 0: on an embedded Ray of two CPUs, recorded in a folder."""
    import agentic_ray as ar

    if nodes:
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        session = ar.init(share=1.0)
    else:
        session = ar.init("local", num_cpus=2)
    while session.slots < max(nodes, 2):
        time.sleep(0.1)
    took = {}
    for name, work in WORK.items():
        work()  # starts processes, and tells what the tasks cost
        seconds = []
        for _ in range(1 if folder else runs):
            began = time.monotonic()
            if folder:
                with session.record(Path(folder) / f"{name}.jsonl"):
                    work()
            else:
                work()
            seconds.append(time.monotonic() - began)
        took[name] = median(seconds)
    ar.shutdown()
    return took


def predicted(path: Path, nodes: int) -> float:
    """Predict from a recording."""
    from agentic_ray.schedule.described import describe_cluster
    from agentic_ray.schedule.forecast import forecast, recorded_work
    from agentic_ray.schedule.replaying import Replay

    with path.open(encoding="utf-8") as lines:
        work = recorded_work(Replay(lines))
    rate = work.calibration.store_bytes_per_second
    return forecast(work, describe_cluster(f"nodes={nodes},cpus=1").cluster(rate)).seconds


def apart(nodes: int, runs: int, folder: str) -> dict[str, float]:
    """Call `child` in a process of its own."""
    command = [sys.executable, __file__, "--child", str(nodes), "--runs", str(runs)]
    environment = {
        **os.environ,
        "AGENTIC_RAY_KEEP_COSTS": "0",
        # Processes are started by the first run of each work, and stay: starting is not predicted.
        "RAY_idle_worker_killing_time_threshold_ms": "600000",
    }
    environment.pop("RAY_ADDRESS", None)
    for _ in range(TRIES):  # a raylet that does not come up in 30 s on a busy machine fails
        done = subprocess.run(
            [*command, "--folder", folder], env=environment, stdout=subprocess.PIPE
        )
        if not done.returncode:
            break
    done.check_returncode()
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=3, help="Runs on each cluster; the median counts."
    )
    parser.add_argument("--nodes", type=int, nargs="*", default=NODES)
    parser.add_argument("--keep", metavar="FOLDER", help="Folder for the recordings, to keep them.")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(child(options.child, options.runs, options.folder)))
        return
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        here = apart(0, 1, folder)
        print("| work | here, 2 CPUs | raylets | predicted | measured | off by |")
        print("| --- | --- | --- | --- | --- | --- |")
        for nodes in options.nodes:
            measured = apart(nodes, options.runs, "")
            for name in WORK:
                expected = predicted(Path(folder) / f"{name}.jsonl", nodes)
                off = expected / measured[name] - 1
                worst = max(worst, abs(off))
                print(
                    f"| {name} | {here[name]:.2f} s | {nodes} | {expected:.2f} s "
                    f"| {measured[name]:.2f} s | {off:+.1%} |",
                    flush=True,
                )
    print(f"\nworst {worst:.1%}, goal {GOAL:.0%}")


if __name__ == "__main__":
    main()
