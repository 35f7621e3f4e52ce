"""Small calls: everyday functions on 1,000 elements, ours beside NumPy's, in microseconds.

    python benchmarks/small.py [--json] [--cpu] [--case NAME ...] [--slowest N]

Each figure is the median of batches of calls, ours and NumPy's in turn; a call makes the
expression and its value. ``--cpu`` gives the least CPU time of a batch instead, for machines that
do other work at the same time. Goals, from issue 13: ``float(((x + 1) * 2).sum())``
takes at most 35 µs, and no everyday function more than 100 µs (or what NumPy takes beside that).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import agentic_ray.array as xp

GOAL_MICROSECONDS = 100.0
GOALS = {"float(((x + 1) * 2).sum())": 35.0}
BATCHES = 15
BATCH_SECONDS = 2e-3

RNG = np.random.default_rng(0)
VALUES = {
    "x": RNG.random(1000),
    "y": RNG.random(1000) + 0.5,
    "i": RNG.integers(0, 50, 1000),
    "b": RNG.random(1000) < 0.5,
    "t": RNG.random((25, 40)),
    "s": RNG.random((30, 30)) + 30 * np.eye(30),
    "h": (lambda m: m + m.T)(RNG.random((30, 30))),
    "d": (lambda m: m @ m.T + 30 * np.eye(30))(RNG.random((30, 30))),
    "v": RNG.random(30),
    "at": RNG.integers(0, 1000, 100),
    "z": RNG.random(1000) + 1j * RNG.random(1000),
    "holes": np.where(RNG.random(1000) < 0.1, np.nan, RNG.random(1000)),
}
"""The operands by name: expressions below are evaluated with them, as arrays of either library."""

CASES = """
float(((x + 1) * 2).sum())
x + 1
x + y
x * 2.5 - y
-x
x ** 2
x / y
i // 3
i % 7
x > 0.5
(x > 0.2) & (x < 0.8)
abs(x)
m.exp(x)
m.sqrt(x)
m.sin(x)
m.log(y)
m.maximum(x, y)
m.where(b, x, y)
m.where(x > 0.5, x, 0.0)
m.clip(x, 0.2, 0.8)
m.round(x, 2)
m.isnan(x)
m.isclose(x, y)
m.astype(x, m.float32)
x.sum()
t.sum(axis=0)
x.mean()
t.mean(axis=1)
x.std()
x.var()
x.min()
x.max()
x.prod()
m.any(b)
m.all(b)
m.count_nonzero(b)
m.argmax(x)
m.argmin(t, axis=1)
m.nanmean(holes)
m.nansum(holes)
m.nanmax(holes)
m.cumsum(x)
m.diff(x)
m.median(x)
m.quantile(x, 0.3)
m.percentile(t, 90, axis=0)
m.nanmedian(holes)
m.average(x)
m.cov(t)
m.histogram(x, bins=10)
m.bincount(i)
m.sort(x)
m.sort(t, axis=0)
m.argsort(x)
m.searchsorted(m.sort(x), y)
m.unique_values(i)
m.unique_counts(i)
m.isin(i, i[:20])
m.nonzero(b)
m.take(x, at)
x[10]
x[10:500]
x[::-1]
x[::7]
t[3]
t[:, 5]
t[2:20, 5:30]
x[at]
x[b]
x[None, :]
assigned(x, 3, 1.0)
assigned(x, slice(10, 500), 0.0)
assigned(x, b, 0.0)
assigned(t, 2, 1.0)
t.T
m.reshape(t, (40, 25))
m.ravel(t)
m.concatenate([x, y])
m.stack([x, y])
m.vstack([x, y])
m.hstack([x, y])
m.split(x, 4)
m.expand_dims(x, axis=0)
m.squeeze(x[None])
m.flip(x)
m.roll(x, 5)
m.tile(x, 2)
m.repeat(x, 2)
m.pad(x, 3)
m.broadcast_to(x, (4, 1000))
m.tril(s)
m.eye(30)
m.zeros(1000)
m.ones((25, 40))
m.full(1000, 2.5)
m.arange(1000)
m.linspace(0.0, 1.0, 1000)
m.asarray(raw)
m.meshgrid(v, v)
s @ s
s @ v
x @ y
m.dot(s, v)
m.outer(v, v)
m.tensordot(s, s, axes=1)
m.einsum("ij,jk->ik", s, s)
m.trace(s)
m.diagonal(s)
m.linalg.norm(x)
m.linalg.solve(s, v)
m.linalg.inv(s)
m.linalg.det(s)
m.linalg.eigh(h)
m.linalg.qr(s)
m.linalg.svd(s)
m.linalg.cholesky(d)
m.linalg.pinv(s)
m.fft.fft(x)
m.fft.rfft(x)
m.fft.ifft(z)
""".strip().splitlines()

_NUMPYS = {
    "m.astype(x, m.float32)": "x.astype(m.float32)",
    "m.unique_values(i)": "m.unique(i)",
    "m.unique_counts(i)": "m.unique(i, return_counts=True)",
    "m.split(x, 4)": "m.split(x, 4)",
}
"""What NumPy calls it, where that differs."""


def _ours_assigned(array: Any, key: Any, value: Any) -> Any:
    other = array.copy()
    other[key] = value
    return other


def _computed(result: Any) -> Any:
    """The values of everything in ``result``."""
    if isinstance(result, xp.Array):
        return np.asarray(result)
    if isinstance(result, tuple | list):
        return [_computed(part) for part in result]
    return result


def calls(case: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The case as a call of ours, and of NumPy's."""
    ours = {name: xp.asarray(value) for name, value in VALUES.items()}
    common = {"raw": VALUES["x"], "assigned": _ours_assigned}
    mine = eval(f"lambda: {case}", {**ours, **common, "m": xp})
    theirs = eval(f"lambda: {_NUMPYS.get(case, case)}", {**VALUES, **common, "m": np})
    return lambda: _computed(mine()), theirs


def measure(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, cpu: bool
) -> tuple[float, float]:
    """Microseconds of a call of each, which take turns."""
    clock, middle = (time.thread_time, min) if cpu else (time.perf_counter, median)
    count = []
    for call in (ours, theirs):
        for _ in range(20):
            call()
        started = time.perf_counter()
        for _ in range(20):
            call()
        each = (time.perf_counter() - started) / 20
        count.append(max(1, int(BATCH_SECONDS / each)))
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(BATCHES):
        for call, repeats, found in zip((ours, theirs), count, taken, strict=True):
            started = clock()
            for _ in range(repeats):
                call()
            found.append((clock() - started) / repeats * 1e6)
    return middle(taken[0]), middle(taken[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="the least CPU time of a batch")
    parser.add_argument("--case", nargs="*", help="only cases that contain one of these texts")
    parser.add_argument("--slowest", type=int, help="print only so many, the slowest of ours")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        if options.case and not any(text in case for text in options.case):
            continue
        ours, theirs = measure(*calls(case), cpu=options.cpu)
        goal = max(GOALS.get(case, GOAL_MICROSECONDS), theirs)
        rows.append({"case": case, "ours": ours, "numpy": theirs, "goal": goal})
    over = [row for row in rows if row["ours"] > row["goal"]]
    if options.slowest:
        rows = sorted(rows, key=lambda row: -row["ours"])[: options.slowest]
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'':34}{'ours µs':>10}{'NumPy µs':>10}{'ratio':>8}")
    for row in rows:
        late = "  over" if row["ours"] > row["goal"] else ""
        ratio = row["ours"] / row["numpy"]
        print(f"{row['case']:34}{row['ours']:10.1f}{row['numpy']:10.1f}{ratio:8.1f}{late}")
    print(f"{len(over)} of {len(rows)} over their goal")


if __name__ == "__main__":
    main()
