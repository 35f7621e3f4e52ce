"""Single calls on middle-sized arrays, and loops of many steps, against NumPy, in one run.

    python benchmarks/middle.py [--json] [--runs N] [--calls | --loops]

Each call and each loop is computed by both libraries in turn, and brought into NumPy's arrays.
Figures are the best of the runs, after as many that warm up, and NumPy's time over ours: other work
on the machine only ever adds to a time. BLAS has one thread on either side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import agentic_ray.array as axp
from agentic_ray.blas import one_thread

SIZES = (40_000, 100_000, 400_000, 1_000_000)
Work = Callable[..., Any]

CALLS: dict[str, Work] = {
    "x + 1": lambda xp, x, y: x + 1,
    "x * y + x": lambda xp, x, y: x * y + x,
    "exp": lambda xp, x, y: xp.exp(x),
    "sum": lambda xp, x, y: xp.sum(x),
    "mean": lambda xp, x, y: xp.mean(x),
    "argmax": lambda xp, x, y: xp.argmax(x),
    "sqrt(x*x + y*y).max": lambda xp, x, y: xp.sqrt(x * x + y * y).max(),
    "dot": lambda xp, x, y: x @ y,
    "where": lambda xp, x, y: xp.where(x > 0, x, y),
    "x[x > 0]": lambda xp, x, y: x[x > 0],
    "x[::2] + 1": lambda xp, x, y: x[::2] + 1,
    "diff": lambda xp, x, y: xp.diff(x),
    "cumsum": lambda xp, x, y: xp.cumsum(x),
    "sort": lambda xp, x, y: xp.sort(x),
    "var over rows": lambda xp, x, y: xp.var(xp.reshape(x, (-1, 100)), axis=0),
    "transpose + 1": lambda xp, x, y: xp.reshape(x, (-1, 100)).T + 1,
}


def _gradient(xp: Any, x: Any, y: Any) -> Any:
    w = xp.zeros(20)
    for _ in range(100):
        p = 1 / (1 + xp.exp(-(x @ w)))
        w = w - 0.1 * (x.T @ (p - y)) / 20_000
    return w


def _life(xp: Any, cells: Any) -> Any:
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    for _ in range(20):
        near = sum(xp.roll(xp.roll(cells, i, 0), j, 1) for i, j in steps)
        cells = ((near == 3) | ((cells == 1) & (near == 2))).astype(np.uint8)
    return cells


def _heat(xp: Any, u: Any) -> Any:
    for _ in range(50):
        inner = u[1:-1, 1:-1]
        near = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
        u = xp.pad(inner + 0.1 * (near - 4 * inner), 1)
    return u


def _power(xp: Any, a: Any) -> Any:
    v = xp.ones(len(a))
    for _ in range(50):
        v = a @ v
        v = v / xp.sqrt((v * v).sum())
    return v


def _jacobi(xp: Any, a: Any) -> Any:
    a = a + xp.eye(len(a)) * 2000
    x = xp.zeros(len(a))
    for _ in range(30):
        x = x + (xp.ones(len(a)) - a @ x) / xp.diagonal(a)
    return x


def _kmeans(xp: Any, points: Any) -> Any:
    centres = points[:8]
    for _ in range(10):
        near = xp.argmin(((points[:, None, :] - centres[None, :, :]) ** 2).sum(2), 1)
        centres = xp.stack(
            [xp.where((near == k)[:, None], points, 0.0).sum(0) / (near == k).sum()
             for k in range(8)]
        )  # fmt: skip
    return centres


def _pyramid(xp: Any, x: Any) -> Any:
    for step in (1, 2, 4, 8, 16):
        x = 0.5 * (x[step:] + x[:-step])
    return x


def _window(xp: Any, x: Any) -> Any:
    total = xp.cumsum(x)
    return (total[50:] - total[:-50]) / 50


_rng = np.random.default_rng(0)
_square = _rng.standard_normal((700, 700))
LOOPS: dict[str, tuple[Work, tuple[np.ndarray, ...]]] = {
    "100 logistic gradients, 20,000 × 20": (
        _gradient, (_rng.standard_normal((20_000, 20)), _rng.random(20_000).round()),
    ),
    "20 steps of life, 600²": (_life, ((_rng.random((600, 600)) > 0.7).astype(np.uint8),)),
    "50 heat steps, 500²": (_heat, (_rng.standard_normal((500, 500)),)),
    "50 power iterations, 700²": (_power, (_square + _square.T,)),
    "30 Jacobi steps, 700²": (_jacobi, (_square,)),
    "10 k-means steps, 50,000 × 3": (_kmeans, (_rng.standard_normal((50_000, 3)),)),
    "5 smoothing steps, 300,000": (_pyramid, (_rng.standard_normal(300_000),)),
    "rolling mean, 300,000": (_window, (_rng.standard_normal(300_000),)),
}  # fmt: skip


def compare(work: Work, data: tuple[np.ndarray, ...], runs: int) -> tuple[float, float]:
    """Return NumPy's best seconds and ours.

    Raises
    ------
    AssertionError
        The results differ.
    """
    ours = tuple(axp.asarray(array) for array in data)
    best = [float("inf"), float("inf")]
    for run in range(2 * runs):
        results = []
        for at, (xp, operands) in enumerate(((np, data), (axp, ours))):
            began = time.perf_counter()
            with one_thread:
                results.append(np.asarray(work(xp, *operands)))
            if run >= runs:
                best[at] = min(best[at], time.perf_counter() - began)
        if not run:
            np.testing.assert_allclose(results[1], results[0], rtol=1e-7, atol=1e-9)
    return best[0], best[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--calls", action="store_true", help="only these")
    parser.add_argument("--loops", action="store_true", help="only these")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    if not options.loops:
        for name, work in CALLS.items():
            row = found[name] = {}
            for size in SIZES:
                data = tuple(np.random.default_rng(s).standard_normal(size) for s in (0, 1))
                theirs, ours = compare(work, data, options.runs)
                row[f"{size:,}"] = theirs / ours
            _show(name, row, options.json)
    if not options.calls:
        for name, (work, arrays) in LOOPS.items():
            theirs, ours = compare(work, arrays, max(options.runs // 4, 4))
            row = found[name] = {"ms of NumPy": theirs * 1e3, "NumPy / ours": theirs / ours}
            _show(name, row, options.json)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    return 0


def _show(name: str, row: dict[str, float], quiet: bool) -> None:
    if not quiet:
        figures = "  ".join(f"{key} {value:.2f}" for key, value in row.items())
        print(f"{name:36} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
