"""Code that is there already, run by us and by what it was written for: ratios of seconds.

    python benchmarks/interop.py [--json] [--case NAME]... [--repeat N]

Ours and the peers take turns on the same work with two workers each, which are up and have
imported what they need; a figure is the least seconds of the repeats. Goals, from issue 22, are
how many times as quick as the peer we must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import agentic_ray as ar

WORKERS = 2
Ways = dict[str, Callable[[], object]]
"""The same work by name of who does it; the first is ours."""


def square(x: int) -> int:
    return x * x


def megabyte(i: int) -> Any:
    return np.full(125_000, float(i))


def plus_one(x: int) -> int:
    return x + 1


@contextlib.contextmanager
def executor_map() -> Iterator[Ways]:
    calls = range(20_000)
    with ar.Executor() as ours, ProcessPoolExecutor(WORKERS) as theirs:
        yield {
            "ours": lambda: list(ours.map(square, calls)),
            "processes": lambda: list(theirs.map(square, calls, chunksize=1)),
        }


@contextlib.contextmanager
def client_map() -> Iterator[Ways]:
    calls = range(20_000)
    with ar.Executor() as ours, distributed() as client:
        yield {
            "ours": lambda: list(ours.map(square, calls)),
            "distributed": lambda: client.gather(client.map(square, calls, pure=False)),
        }


@contextlib.contextmanager
def pool_map() -> Iterator[Ways]:
    calls = range(100_000)
    with ar.Pool() as ours, Pool(WORKERS) as theirs:
        yield {
            "ours": lambda: ours.map(square, calls),
            "multiprocessing": lambda: theirs.map(square, calls),
        }


@contextlib.contextmanager
def megabytes() -> Iterator[Ways]:
    work = [joblib.delayed(megabyte)(i) for i in range(200)]
    with ar.Executor() as ours:
        yield {
            "ours": lambda: list(ours.map(megabyte, range(200))),
            "loky": lambda: joblib.Parallel(WORKERS, backend="loky")(work),
        }


@contextlib.contextmanager
def grid_search() -> Iterator[Ways]:
    x, y = make_classification(400, 10, random_state=0)
    grid = {"C": np.logspace(-3, 3, 40).tolist()}
    ar.interop.register_joblib()

    def search(backend: str) -> object:
        with joblib.parallel_config(backend, n_jobs=WORKERS):
            return GridSearchCV(LogisticRegression(), grid, cv=5).fit(x, y).best_score_

    yield {"ours": lambda: search("agentic_ray"), "loky": lambda: search("loky")}


@contextlib.contextmanager
def distributed() -> Iterator[Any]:
    from dask.distributed import Client, LocalCluster  # of the extra `bench` only

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextlib.contextmanager
def under_dask(make: Callable[[], Any]) -> Iterator[Ways]:
    with distributed() as client:
        yield {
            "ours": lambda: make().compute(scheduler=ar.interop.dask.get),
            "distributed": lambda: make().compute(scheduler=client),
        }


def reduction() -> Any:
    import dask.array as da  # of the extra `bench` only, here and below

    return (da.random.default_rng(0).random((4000, 8000), chunks=1000) ** 2).sum()


def matmul() -> Any:
    import dask.array as da

    x = da.ones((4096, 4096), chunks=1024)
    return (x @ x).sum()


def climatology() -> Any:
    import dask.array as da
    import xarray as xr

    days = np.datetime64("2000-01-01") + np.arange(1600)
    cube = da.random.default_rng(0).random((1600, 100, 200), chunks=(100, 100, 200))
    return xr.DataArray(cube, dims=("time", "y", "x"), coords={"time": days}).groupby(
        "time.month"
    ).mean()  # fmt: skip


def delayed_graph() -> Any:
    import dask

    step = dask.delayed(plus_one, pure=False)
    return dask.delayed(sum)([step(step(i)) for i in range(10_000)])


CASES: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[Ways]], float]] = {
    "executor_map": (executor_map, 5.0),
    "client_map": (client_map, 10.0),
    "pool_map": (pool_map, 0.8),
    "megabytes": (megabytes, 1.0),
    "grid_search": (grid_search, 1.0),
    "dask_reduction": (lambda: under_dask(reduction), 1.0),
    "dask_matmul": (lambda: under_dask(matmul), 1.0),
    "dask_climatology": (lambda: under_dask(climatology), 1.0),
    "dask_delayed": (lambda: under_dask(delayed_graph), 1.0),
}
"""Each case with its goal."""


def measure(ways: Ways, repeat: int) -> dict[str, float]:
    """Return the least seconds of each way; all begin with a run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeat + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case")
    parser.add_argument("--repeat", type=int, default=3, help="counted runs of each")
    options = parser.parse_args()
    ar.init(num_cpus=WORKERS, idle_release_seconds=600)
    for name in options.case or CASES:
        case, goal = CASES[name]
        with case() as ways:
            seconds = measure(ways, options.repeat)
        ours, *others = seconds
        for other in others:
            ratio = seconds[other] / seconds[ours]
            row = {"case": name, "peer": other, "ratio": ratio, "goal": goal, "seconds": seconds}
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                verdict = "reached" if ratio >= goal else "MISSED"
                print(
                    f"{name:18} {seconds[ours]:8.3f} s, {other} {seconds[other]:8.3f} s: "
                    f"{ratio:6.2f} times as quick, goal {goal:g}, {verdict}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
