"""Arrays against NumPy in one process and Dask distributed, side by side in one run.

    python benchmarks/arrays.py [--json] [--runs N] [--case NAME ...] [--scale F] [--no-dask]

Each figure is the best of as many runs for every library, once warm (which compiles kernels);
goals are ratios from the project's issues, printed beside them. Dask has 2 workers of 1 thread
each; its cases come first and its cluster ends before ours starts, so that neither has the
other's processes beside it on two cores.
``--scale`` multiplies the lengths of the long axes, for machines with less memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate

Work = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One comparison: makers of the work for each library, from a NumPy array."""

    name: str
    make: Callable[[float], np.ndarray]
    numpy: Callable[[np.ndarray], Any]
    ours: Callable[[Any], Any]
    dask: Callable[[Any], Any] | None
    over_numpy: float
    over_dask: float | None


def _random(*shape: float) -> np.ndarray:
    return np.random.default_rng(0).random(tuple(int(n) for n in shape))


def _dask_svd(x: Any) -> Any:
    import dask
    import dask.array as da

    _, s, vh = da.linalg.svd(x)
    return dask.compute(s, vh)


def _our_svd(x: Any) -> Any:
    _, s, vh = xp.linalg.svd(x, full_matrices=False)
    return evaluate.values([s._node, vh._node])


def _standardised(x: Any) -> Any:
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return z.T @ z


CASES = [
    Case("sum of (x+1)*2, 512 MB", lambda f: _random(64e6 * f), lambda x: ((x + 1) * 2).sum(),
         lambda x: float(((x + 1) * 2).sum()), lambda x: ((x + 1) * 2).sum().compute(), 4, 6),
    Case("minus column means, 4096²", lambda f: _random(4096, 4096),
         lambda x: ((x + 1) * 2 - x.mean(axis=0)).sum(),
         lambda x: float(((x + 1) * 2 - x.mean(axis=0)).sum()),
         lambda x: ((x + 1) * 2 - x.mean(axis=0)).sum().compute(), 2, 5),
    Case("x @ x, 4096²", lambda f: _random(4096, 4096), lambda x: x @ x,
         lambda x: (x @ x).persist(), lambda x: (x @ x).persist(), 0.9, 1.5),
    Case("singular values and Vh, 2,000,000 × 50", lambda f: _random(2e6 * f, 50),
         lambda x: np.linalg.svd(x, compute_uv=False), _our_svd, _dask_svd, 3, 4),
    Case("x @ x, 8192²", lambda f: _random(8192, 8192), lambda x: x @ x,
         lambda x: (x @ x).persist(), lambda x: (x @ x).persist(), 0.9, 1.5),
    Case("standardise and Gram, 4,000,000 × 50", lambda f: _random(4e6 * f, 50), _standardised,
         lambda x: np.asarray(_standardised(x)), lambda x: _standardised(x).compute(), 6, 4),
    Case("sort, 5·10⁷", lambda f: _random(5e7 * f), np.sort, lambda x: xp.sort(x).persist(),
         None, 1.3, None),
]  # fmt: skip


WARM_SECONDS = 3.0


def best(work: Work, runs: int, between: Work = lambda: None) -> float:
    """Seconds of the quickest of ``runs``, after `WARM_SECONDS` of them that do not count."""
    began = time.perf_counter()
    while True:
        work()
        between()
        if time.perf_counter() - began >= WARM_SECONDS:
            break
    found = math.inf
    for _ in range(runs):
        gc.collect()  # drops the last value, so that it is not remembered
        between()
        started = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - started)
    return found


def _on_dask(work: Callable[[Any], Any], array: np.ndarray, runs: int) -> float:
    import dask.array as da
    from distributed import default_client, futures_of, wait

    client = default_client()

    def known() -> int:
        return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))

    def once(x: Any) -> None:
        result = work(x)
        if hasattr(result, "dask"):
            wait(result)
            failed = [future for future in futures_of(result) if future.status != "finished"]
            if failed:
                raise RuntimeError(f"Dask failed: {failed[0].exception()!r}")

    chunks: Any = (math.ceil(array.shape[0] / 16), *array.shape[1:])
    x = da.from_array(array, chunks=chunks).persist()
    wait(x)
    inputs = known()

    def forgotten() -> None:  # or the next run is given what this one has made
        while known() > inputs:
            time.sleep(0.02)

    return best(lambda: once(x), runs, forgotten)


def on_dask(cases: list[Case], scale: float, runs: int) -> dict[str, float]:
    """Seconds of each case on Dask, by its name."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        return {
            case.name: _on_dask(case.dask, case.make(scale), runs) for case in cases if case.dask
        }


def run(case: Case, scale: float, runs: int, dask_seconds: float | None) -> dict[str, Any]:
    """Measure one case."""
    array = case.make(scale)
    found: dict[str, Any] = {"case": case.name}
    found["numpy_seconds"] = best(lambda: case.numpy(array), runs)
    if dask_seconds is not None:
        found["dask_seconds"] = dask_seconds
    x = xp.from_numpy(array).persist()
    found["ours_seconds"] = best(lambda: case.ours(x), runs)
    for other, goal in (("numpy", case.over_numpy), ("dask", case.over_dask)):
        if f"{other}_seconds" in found:
            found[f"over_{other}"] = found[f"{other}_seconds"] / found["ours_seconds"]
            found[f"goal_over_{other}"] = goal
    if case is CASES[0]:
        found["two_threads_seconds"] = two_threads(array, runs)
    return found


def two_threads(array: np.ndarray, runs: int) -> float:
    """Seconds of two threads of this process running the same compiled kernel over ``array``."""
    tasks, _ = evaluate.plan([((xp.from_numpy(array) + 1) * 2).sum()._node])
    parts = [task for task in tasks if not task.dependencies]

    def run_one(task: Any) -> Any:
        return task.codelet.cpu(*task.args, xp=np)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_one, parts))
        for thread in threading.enumerate():
            if thread.name == "compile-kernel":
                thread.join()
        return best(lambda: list(pool.map(run_one, parts)), runs)


def small(runs: int) -> dict[str, Any]:
    """``(x + 1).sum()`` on 1,000 elements, warm."""
    x = xp.asarray(np.arange(1000.0))
    seconds = best(lambda: [float((x + 1).sum()) for _ in range(100)], runs) / 100
    return {"case": "(x + 1).sum(), 1,000 elements", "ours_seconds": seconds, "goal_seconds": 1e-3}


def plan(tasks: int = 100_000) -> dict[str, Any]:
    """Optimise and lower a reduction of 10⁵ chunks."""
    x = xp.zeros((tasks * 8,), chunks=8)
    y = ((x + 1) * 2).sum()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    made, _ = evaluate.plan([y._node])
    seconds = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "case": f"plan of {len(made):,} chunk tasks", "ours_seconds": seconds, "goal_seconds": 3.0,
        "microseconds_a_task": 1e6 * seconds / len(made), "grown_bytes": grown * 1024,
    }  # fmt: skip


def _line(found: dict[str, Any]) -> str:
    parts = [f"{found['case']:42s} ours {found['ours_seconds'] * 1e3:9.2f} ms"]
    parts += [
        f"{other} {found[f'{other}_seconds'] * 1e3:9.1f} ms = {found[f'over_{other}']:.2f}× "
        f"(goal {found[f'goal_over_{other}']}×)"
        for other in ("numpy", "dask")
        if f"over_{other}" in found
    ]
    if "two_threads_seconds" in found:
        share = found["two_threads_seconds"] / found["ours_seconds"]
        parts.append(f"{share:.2f} of two threads over plain memory (goal 0.5)")
    if "goal_seconds" in found:
        parts.append(f"(goal {found['goal_seconds'] * 1e3:g} ms)")
    return "  ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--case", nargs="*", help="only cases whose name contains one of these")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--no-dask", action="store_true")
    arguments = parser.parse_args()
    chosen = [
        case for case in CASES
        if not arguments.case or any(part in case.name for part in arguments.case)
    ]  # fmt: skip
    scale, runs = arguments.scale, arguments.runs
    dask = {} if arguments.no_dask else on_dask(chosen, scale, runs)
    ar.init(num_cpus=2)
    works: list[Callable[[], dict[str, Any]]] = [lambda: small(runs), plan]
    works += [lambda c=case: run(c, scale, runs, dask.get(c.name)) for case in chosen]
    for work in works:
        found = work()
        print(json.dumps(found) if arguments.json else _line(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
