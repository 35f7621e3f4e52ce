"""Estimators on persisted data beside scikit-learn, and Intel's extension of it if it is installed.

    python benchmarks/ml.py [--json] [--case NAME ...] [--runs N] [--scale F]

Each library fits in a process of its own, in turn, N times; figures are the least seconds of a
fit. Data are made before, and for ours persisted. Goals, from issue 19: at most 1 / 0.9 of the
better of the two.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

GOAL = 1 / 0.9


@dataclass(frozen=True)
class Case:
    """A fit: how many rows and columns, and the estimator with its options."""

    rows: int
    columns: int
    module: str
    name: str
    options: dict[str, Any]
    target: str = ""


CASES = {
    "k-means": Case(2_000_000, 20, "cluster", "KMeans", {"max_iter": 20, "tol": 0.0, "n_init": 1}),
    "logistic": Case(1_000_000, 50, "linear_model", "LogisticRegression", {"tol": 1e-6}, "labels"),
    "linear": Case(3_000_000, 50, "linear_model", "LinearRegression", {}, "numbers"),
    "ridge": Case(3_000_000, 50, "linear_model", "Ridge", {}, "numbers"),
    "pca": Case(1_000_000, 100, "decomposition", "PCA", {"n_components": 10}),
    "standard": Case(3_000_000, 50, "preprocessing", "StandardScaler", {}),
    "bayes": Case(1_000_000, 50, "naive_bayes", "GaussianNB", {}, "labels"),
}


def data(case: Case, scale: float) -> tuple[Any, Any]:
    """X and y of a case."""
    rng = np.random.default_rng(0)
    n = int(case.rows * scale)
    x = rng.standard_normal((n, case.columns))
    if case.name == "KMeans":
        x += rng.integers(0, 8, (n, 1))
    y = x @ rng.standard_normal(case.columns) + rng.standard_normal(n)
    return x, {"": None, "numbers": y, "labels": (y > 0).astype(np.int64)}[case.target]


def fits(library: str, case: Case, scale: float) -> Callable[[], Any]:
    """A call that fits, with the data where the library wants them."""
    x, y = data(case, scale)
    options = dict(case.options)
    if case.name == "KMeans":
        options["n_clusters"] = 20
        options["init"] = x[:20].copy()
    if library == "ours":
        import agentic_ray as ar
        import agentic_ray.array as xp
        from agentic_ray import ml

        ar.init(num_cpus=2)
        given = xp.asarray(x).persist()
        kind = getattr(ml, case.name)
        target = y if y is None else xp.asarray(y, chunks=(given.chunks[0],)).persist()
        return lambda: kind(**options).fit(given, target)
    if library == "intelex":
        from sklearnex import patch_sklearn

        patch_sklearn(verbose=False)
    kind = getattr(importlib.import_module(f"sklearn.{case.module}"), case.name)
    return lambda: kind(**options).fit(x, y)


def worker(library: str, case: str, runs: int, scale: float) -> None:
    """Print the seconds of each fit."""
    warnings.simplefilter("ignore")
    fit = fits(library, CASES[case], scale)
    seconds = []
    for _ in range(runs + (library == "ours")):  # ours learns on the first what chunks cost
        started = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


def measured(library: str, case: str, runs: int, scale: float) -> list[float]:
    command = [sys.executable, __file__, "--worker", library, "--case", case]
    command += ["--runs", str(runs), "--scale", str(scale)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{library}, {case}: {done.stderr[-2000:]}")
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", nargs="*", choices=CASES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.case[0], options.runs, options.scale)
        return
    libraries = ["ours", "sklearn"]
    if importlib.util.find_spec("sklearnex"):
        libraries.append("intelex")
    rows = []
    if not options.json:
        print(f"{'':10}" + "".join(f"{name + ' s':>12}" for name in libraries) + f"{'ratio':>8}")
    for case in options.case or CASES:
        taken = {name: min(measured(name, case, options.runs, options.scale)) for name in libraries}
        best = min(value for name, value in taken.items() if name != "ours")
        rows.append({"case": case, **taken, "ratio": taken["ours"] / best})
        if not options.json:
            late = "  over" if taken["ours"] > GOAL * best else ""
            shown = "".join(f"{taken[name]:12.3f}" for name in libraries)
            print(f"{case:10}{shown}{taken['ours'] / best:8.2f}{late}", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
