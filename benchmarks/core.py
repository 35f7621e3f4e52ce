"""The core against plain Ray, Dask and NumPy, side by side in one run.

    python benchmarks/core.py [--json] [--runs N]

Cases: no-op logical tasks a second; sum of (x+1)*2 over 512 MB in the object store; the
overhead of a small call; the time that importing the package adds. Each figure is the median of
the runs; goals are ratios or bounds from the project's issues, printed beside them.
"""

from __future__ import annotations

import argparse
import json
import operator
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

import agentic_ray as ar

TASKS = 100_000
PLAIN_TASKS = 5_000  # the slow ones are measured on fewer tasks; the rate is what counts
ARRAY_BYTES = 512_000_000


def noop(_: Any) -> None:
    return None


def one_millisecond(value: int) -> int:
    time.sleep(0.001)
    return value


@ar.codelet
def shifted_sum(block: Any, *, xp: Any) -> Any:
    """Sum of (x+1)*2 over one block."""
    return xp.sum((block + 1) * 2)


def median_seconds(function: Callable[[], Any], runs: int, warm_up: int = 1) -> float:
    for _ in range(warm_up):
        function()
    times = []
    for _ in range(runs):
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def logical_tasks(runs: int) -> dict[str, float]:
    """Tasks a second: ours, plain ray.remote per element, Dask client.map."""
    ours = TASKS / median_seconds(lambda: ar.map_reduce(noop, range(TASKS)), runs)
    time.sleep(3)  # our CPUs go back to Ray before plain Ray is measured
    remote = ray.remote(noop)
    plain = PLAIN_TASKS / median_seconds(
        lambda: ray.get([remote.remote(i) for i in range(PLAIN_TASKS)]), runs
    )
    return {"ours": ours, "plain_ray": plain, "dask": _dask_tasks(runs)}


def _dask_tasks(runs: int) -> float:
    from dask.distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:

        def run() -> None:
            client.gather(client.map(noop, range(PLAIN_TASKS), pure=False))

        return PLAIN_TASKS / median_seconds(run, runs)


def numeric(runs: int) -> dict[str, float]:
    """Seconds for the sum of (x+1)*2 over an array that is in the object store."""
    array = np.random.default_rng(0).random(ARRAY_BYTES // 8)
    ref = ray.put(array)
    ours, numpy = [], []
    expected = float(((array + 1) * 2).sum())
    for i in range(runs + 2):  # in turn, so that both see the machine in the same state
        before = time.perf_counter()
        value = ar.map_reduce(shifted_sum, ref, operator.add)
        between = time.perf_counter()
        ((array + 1) * 2).sum()
        after = time.perf_counter()
        if i >= 2:
            ours.append(between - before)
            numpy.append(after - between)
    if not np.isclose(value, expected, rtol=1e-12):
        raise SystemExit(f"wrong result: {value} instead of {expected}")
    return {"ours": statistics.median(ours), "numpy": statistics.median(numpy)}


def small_call(runs: int) -> float:
    """Seconds of a warm call over 8 items of 1 ms each."""
    return median_seconds(lambda: ar.map_reduce(one_millisecond, range(8)), 5 * runs, warm_up=5)


def import_seconds(runs: int) -> dict[str, float]:
    """Seconds that importing the package adds to importing Ray, and what loading the names of a
    first line (with NumPy, which Ray does not load) adds to that."""

    def once() -> tuple[float, float]:
        script = """
import time
import ray  # noqa: E402
first = time.perf_counter()
import agentic_ray as ar  # noqa: E402
second = time.perf_counter()
ar.map_reduce, ar.init, ar.codelet
print(second - first, time.perf_counter() - second)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        added, names = done.stdout.split()
        return float(added), float(names)

    times = [once() for _ in range(runs + 1)][1:]
    return {
        "added": statistics.median(added for added, _ in times),
        "first_names": statistics.median(names for _, names in times),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--runs", type=int, default=5, help="runs of each case (default 5)")
    options = parser.parse_args()
    imports = import_seconds(options.runs)
    ar.init(num_cpus=2)
    numbers = numeric(options.runs)
    call = small_call(options.runs)
    tasks = logical_tasks(options.runs)
    rows = [
        ("no-op logical tasks, 1/s", f"{tasks['ours']:,.0f}", ">= 30,000"),
        ("  plain ray.remote per element, 1/s", f"{tasks['plain_ray']:,.0f}", ""),
        ("  Dask client.map, 1/s", f"{tasks['dask']:,.0f}", ""),
        (
            "sum of (x+1)*2 over 512 MB, time / NumPy's",
            f"{numbers['ours'] / numbers['numpy']:.2f}",
            "<= 0.50",
        ),
        ("  ours / NumPy, ms", f"{numbers['ours'] * 1e3:.0f} / {numbers['numpy'] * 1e3:.0f}", ""),
        ("map_reduce over 8 items of 1 ms, ms", f"{call * 1e3:.1f}", "< 25"),
        ("import, added to import ray, s", f"{imports['added']:.3f}", "<= 0.15"),
        ("  then loading map_reduce, init, codelet, s", f"{imports['first_names']:.3f}", ""),
    ]
    ar.shutdown()
    if options.json:
        figures = {"tasks": tasks, "numeric": numbers, "small_call": call, "import": imports}
        print(json.dumps(figures, indent=2))
        return 0
    for label, figure, goal in rows:
        print(f"{label:44} {figure:>16}   {goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
