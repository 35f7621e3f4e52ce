"""A mixed load for some minutes, and whether memory and file descriptors grow meanwhile.

    python benchmarks/soak.py [--minutes M] [--json]

A master with a journal runs map-reduces, array reductions, cached, failing, cancelled and timed-out
jobs on an embedded Ray with two CPUs. Of the master's process and of the executor, memory (private
bytes) and open files are sampled. Growth is the Theil-Sen slope (median of the slopes between all
pairs of samples; Sen, JASA 63, 1968) of the second half of the run times its length, for the first
half fills caches, such as the list of the last 1,000 jobs. It counts as noise while it is below
2 %, or below the range of the middle 80 % of the samples once the slope is taken away.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import operator
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.errors import AgenticRayError
from agentic_ray.runtime.processes import processes_of, session_name

SAMPLE_SECONDS = 2.0
UNDER_WAY = 8


@ar.workload("map_reduce", cache=False)
def map_reduce(seed: int) -> int:
    total: int = ar.map_reduce(lambda x: x % 7, range(seed, seed + 50_000), operator.add)
    return total


@ar.workload("array", cache=False)
def array(seed: int) -> float:
    x = xp.random.default_rng(seed).random((5_000_000,), chunks=1_000_000)
    return float(xp.mean(xp.sqrt(x)))


@ar.workload("cached")
def cached(seed: int) -> list[int]:
    return list(range(seed % 50))


@ar.workload("stages", cache=False)
def stages(seed: int) -> int:
    rows = ar.stage("load", lambda: list(range(seed % 1000)))
    return int(ar.stage("sum", sum, rows))


@ar.workload("large", cache=False)
def large(seed: int) -> list[int]:
    return [seed] * 30_000


@ar.workload("fails", cache=False)
def fails(seed: int) -> None:
    raise ValueError(f"on purpose {seed}")


@ar.workload("slow", cache=False)
def slow(seed: int) -> int:
    def nap(x: int) -> int:
        time.sleep(0.05)
        return x

    total: int = ar.map_reduce(nap, range(40), operator.add)
    return total


WORKLOADS = ("map_reduce", "array", "cached", "cached", "stages", "large", "fails", "slow")


def sample() -> dict[str, float]:
    """Private bytes and open files of the master's process and of the executor."""
    found: dict[str, float] = {}
    pids = {"master": os.getpid()}
    for process in processes_of(session_name()):
        if process.role == "executor":
            pids["executor"] = process.pid
    for name, pid in pids.items():
        process = psutil.Process(pid)
        found[f"{name}_bytes"] = float(process.memory_full_info().uss)
        found[f"{name}_files"] = float(process.num_fds())
        found[f"{name}_threads"] = float(process.num_threads())
    return found


def growth(times: Sequence[float], values: Sequence[float]) -> dict[str, float | bool]:
    """What a series grew by in its second half, and whether that is noise."""
    half = len(values) // 2
    at, late = times[half:], values[half:]
    slopes = [
        (late[j] - late[i]) / (at[j] - at[i]) for i, j in itertools.combinations(range(len(at)), 2)
    ]
    slope = statistics.median(slopes)
    grown = slope * (at[-1] - at[0])
    tenths = statistics.quantiles([v - slope * t for t, v in zip(at, late, strict=True)], n=10)
    noise = max(tenths[-1] - tenths[0], 0.02 * statistics.median(late))
    return {
        "first": values[0],
        "median": statistics.median(late),
        "last": values[-1],
        "grown": grown,
        "noise": noise,
        "within_noise": grown <= noise,
    }


def load(master: ar.Master, until: float) -> tuple[Counter[str], list[float], list[dict[str, Any]]]:
    """Keep jobs under way until then; how they ended, and the samples."""
    draw = random.Random(0)
    ends: Counter[str] = Counter()
    under_way: deque[ar.Job] = deque()
    times: list[float] = []
    samples: list[dict[str, Any]] = []
    while (now := time.monotonic()) < until:
        name = draw.choice(WORKLOADS)
        limit = 0.3 if name == "slow" and draw.random() < 0.3 else None
        job = master.submit(name, draw.randrange(10_000), timeout_seconds=limit)
        under_way.append(job)
        if name == "slow" and draw.random() < 0.3:
            job.cancel()
        if len(under_way) >= UNDER_WAY:
            oldest = under_way.popleft()
            with contextlib.suppress(AgenticRayError, ValueError):
                oldest.result(120)
            ends[oldest.status().value] += 1
        if not times or now - times[-1] >= SAMPLE_SECONDS:
            times.append(now)
            samples.append(sample())
    return ends, times, samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("agentic_ray").setLevel(logging.ERROR)  # some jobs are meant to fail
    ar.init(num_cpus=2)
    ar.map_reduce(abs, range(1000), operator.add)
    with (
        tempfile.TemporaryDirectory() as folder,
        ar.Master(journal=Path(folder) / "journal", cache_bytes=1 << 20) as master,
    ):
        ends, times, samples = load(master, time.monotonic() + 60 * options.minutes)
    ar.shutdown()
    found = {}
    for name in samples[-1]:
        there = [(at, one[name]) for at, one in zip(times, samples, strict=True) if name in one]
        found[name] = growth(*map(list, zip(*there, strict=True)))
    well = all(one["within_noise"] for one in found.values())
    if options.json:
        print(json.dumps({"ends": ends, "samples": len(samples), "growth": found, "ok": well}))
        return 0 if well else 1
    print(f"{ends.total()} jobs in {options.minutes:g} minutes: {dict(ends)}")
    print(f"{'':18} {'first':>10} {'median':>10} {'last':>10} {'grown':>10} {'noise':>10}")
    for name, one in found.items():
        scale = 1e-6 if name.endswith("bytes") else 1
        cells = [
            f"{one[key] * scale:10.1f}" for key in ("first", "median", "last", "grown", "noise")
        ]
        told = "" if one["within_noise"] else "  GROWS"
        print(f"{name.replace('bytes', 'MB'):18} {' '.join(cells)}{told}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
