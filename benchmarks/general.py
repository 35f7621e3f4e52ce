"""Everyday array workloads against NumPy, Dask's threads and the machine's own limit, in one run.

    python benchmarks/general.py [--json] [--runs N] [--case NAME ...] [--unseen] [--no-dask]
                                 [--cpu]

In every round each library computes once, one after the other, on data in memory; figures are
medians of the rounds after a warm time that compiles kernels. The limit of a case is the longer of
what reading its inputs once takes and what its products take, at the rates of this machine, which
are measured in the same run with all its CPUs. ``--unseen`` runs the workloads that were written
when the code was done. Results are compared with NumPy's.

``--cpu`` takes the CPU seconds of this process in place of elapsed ones, with one thread for NumPy
and for us: a figure that other work on the machine disturbs less. What several threads gain is not
in it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

import agentic_ray.array as axp
from agentic_ray.array.core import evaluate, placing, sizing
from agentic_ray.array.core.rules import optimize
from agentic_ray.blas import one_thread

WARM_SECONDS = 2.0
WARM_RUNS = 20
LARGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Case:
    """One workload: its data, the work in any namespace, and flops of its products."""

    name: str
    make: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    work: Callable[..., Any]
    flops: float = 0.0


CASES: list[Case] = []
UNSEEN: list[Case] = []


def _case(
    name: str,
    make: Callable[[np.random.Generator], tuple[np.ndarray, ...]],
    flops: float = 0.0,
    into: list[Case] = CASES,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(work: Callable[..., Any]) -> Callable[..., Any]:
        into.append(Case(name, make, work, flops))
        return work

    return add


def _normal(*shape: int) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    return lambda rng: (rng.standard_normal(shape),)


# --- the workloads -----------------------------------------------------------------------


@_case("min-max and Gram, 3M × 40", _normal(3_000_000, 40), 3e6 * 40 * 40)
def _(xp: Any, x: Any) -> Any:
    low, high = x.min(axis=0), x.max(axis=0)
    z = (x - low) / (high - low)
    return z.T @ z


@_case(
    "centred x.T @ y, 3M × 40",
    lambda rng: (rng.standard_normal((3_000_000, 40)), rng.standard_normal(3_000_000)),
)
def _(xp: Any, x: Any, y: Any) -> Any:
    return (x - x.mean(axis=0)).T @ (y - y.mean())


@_case("logistic gradient, 2M × 30",
       lambda rng: (rng.standard_normal((2_000_000, 30)), rng.integers(0, 2, 2_000_000) * 1.0,
                    rng.standard_normal(30)))  # fmt: skip
def _(xp: Any, x: Any, y: Any, w: Any) -> Any:
    return x.T @ (1 / (1 + xp.exp(-(x @ w))) - y)


@_case(
    "k-means assignment, 1M × 16",
    lambda rng: (rng.standard_normal((1_000_000, 16)), rng.standard_normal((10, 16))),
)
def _(xp: Any, x: Any, c: Any) -> Any:
    d = (x * x).sum(axis=1)[:, None] - 2 * (x @ c.T) + (c * c).sum(axis=1)[None, :]
    return xp.argmin(d, axis=1)


@_case("softmax by rows, 1M × 32", _normal(1_000_000, 32))
def _(xp: Any, x: Any) -> Any:
    e = xp.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).sum(axis=0)


@_case("z-score and count, 40M", _normal(40_000_000))
def _(xp: Any, x: Any) -> Any:
    return (xp.abs((x - x.mean()) / x.std()) > 3).sum()


@_case("where and masked mean, 40M", _normal(40_000_000))
def _(xp: Any, x: Any) -> Any:
    m = x > 0
    return xp.where(m, x, 0.0).sum() / m.sum()


@_case("Horner polynomial, 40M", _normal(40_000_000))
def _(xp: Any, x: Any) -> Any:
    return ((((0.1 * x + 0.2) * x - 0.3) * x + 0.4) * x - 0.5).max()


@_case("sin² and cos, 20M", _normal(20_000_000))
def _(xp: Any, x: Any) -> Any:
    return (xp.sin(x) ** 2 + xp.cos(2 * x)).mean()


@_case("histogram of 100 bins, 30M", _normal(30_000_000))
def _(xp: Any, x: Any) -> Any:
    return xp.histogram(x, bins=100, range=(-4.0, 4.0))[0]


@_case(
    "bincount with weights, 20M",
    lambda rng: (rng.integers(0, 1000, 20_000_000), rng.standard_normal(20_000_000)),
)
def _(xp: Any, k: Any, w: Any) -> Any:
    return xp.bincount(k, weights=w, minlength=1000)


@_case("cumulative sum, 40M", _normal(40_000_000))
def _(xp: Any, x: Any) -> Any:
    return xp.cumsum(x)[-1]


@_case("mean of a uint8 image stack",
       lambda rng: (rng.integers(0, 255, (400, 512, 512), dtype=np.uint8),))  # fmt: skip
def _(xp: Any, s: Any) -> Any:
    return s.mean(axis=0).max()


@_case("five-point stencil, 6000²", _normal(6000, 6000))
def _(xp: Any, u: Any) -> Any:
    middle = u[1:-1, 1:-1] * -4
    return (middle + u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]).std()


@_case("transpose and add, 5000²", _normal(5000, 5000))
def _(xp: Any, x: Any) -> Any:
    return (x + x.T).sum(axis=0)


@_case("a @ (a.T @ v), 6000²", _normal(6000, 6000))
def _(xp: Any, a: Any) -> Any:
    return a @ (a.T @ a[:, 0])


@_case("R of a tall QR, 2M × 32", _normal(2_000_000, 32), 2 * 2e6 * 32 * 32)
def _(xp: Any, x: Any) -> Any:
    return abs(xp.linalg.qr(x)[1])


@_case("normal equations, 2M × 40",
       lambda rng: (rng.standard_normal((2_000_000, 40)), rng.standard_normal(2_000_000)),
       2e6 * 40 * 40)  # fmt: skip
def _(xp: Any, x: Any, y: Any) -> Any:
    return xp.linalg.solve(x.T @ x, x.T @ y)


@_case("pairwise distances, float32",
       lambda rng: (rng.standard_normal((20_000, 64)).astype(np.float32),
                    rng.standard_normal((2_000, 64)).astype(np.float32)))  # fmt: skip
def _(xp: Any, a: Any, b: Any) -> Any:
    return ((a[:, None, :] - b[None, :200, :]) ** 2).sum(axis=2).min(axis=1)


@_case("argmax along columns, 4M × 10", _normal(4_000_000, 10))
def _(xp: Any, x: Any) -> Any:
    return xp.argmax(x, axis=0)


@_case("reshape and mean, 36M", _normal(36_000_000))
def _(xp: Any, x: Any) -> Any:
    return x.reshape(-1, 3600).mean(axis=1)


@_case("power spectrum by FFT, 4000 × 8192", _normal(4000, 8192))
def _(xp: Any, x: Any) -> Any:
    return (xp.abs(xp.fft.fft(x, axis=1)) ** 2).mean(axis=0)


@_case("median of rows, 300,000 × 101", _normal(300_000, 101))
def _(xp: Any, x: Any) -> Any:
    return xp.median(x, axis=1)


@_case("unique with counts, 20M", lambda rng: (rng.integers(0, 100_000, 20_000_000),))
def _(xp: Any, x: Any) -> Any:
    return xp.unique(x, return_counts=True)[1]


# --- written when the code was done ------------------------------------------------------


@_case("cosine similarity of rows, 1M × 24",
       lambda rng: (rng.standard_normal((1_000_000, 24)), rng.standard_normal((24, 8))),
       into=UNSEEN)  # fmt: skip
def _(xp: Any, x: Any, c: Any) -> Any:
    return ((x / xp.sqrt((x * x).sum(axis=1))[:, None]) @ c).max(axis=1)


@_case("moving average and steps, 30M", _normal(30_000_000), into=UNSEEN)
def _(xp: Any, x: Any) -> Any:
    smooth = (x[2:] + x[1:-1] + x[:-2]) / 3
    return xp.abs(smooth[1:] - smooth[:-1]).mean()


@_case("colour images to grey means",
       lambda rng: (rng.integers(0, 255, (48, 720, 1080, 3), dtype=np.uint8),),
       into=UNSEEN)  # fmt: skip
def _(xp: Any, s: Any) -> Any:
    return (s[..., 0] * 0.299 + s[..., 1] * 0.587 + s[..., 2] * 0.114).mean(axis=(1, 2))


@_case("trimmed means of sorted rows, 400,000 × 40", _normal(400_000, 40), into=UNSEEN)
def _(xp: Any, x: Any) -> Any:
    return xp.sort(x, axis=1)[:, 10:30].mean(axis=1) if xp.__name__ != "dask.array" else (
        x.map_blocks(np.sort, axis=1)[:, 10:30].mean(axis=1))  # fmt: skip


@_case("seven-point stencil in space, 240 × 320 × 400", _normal(240, 320, 400), into=UNSEEN)
def _(xp: Any, u: Any) -> Any:
    core = u[1:-1, 1:-1, 1:-1] * -6
    core = core + u[:-2, 1:-1, 1:-1] + u[2:, 1:-1, 1:-1]
    core = core + u[1:-1, :-2, 1:-1] + u[1:-1, 2:, 1:-1]
    return xp.abs(core + u[1:-1, 1:-1, :-2] + u[1:-1, 1:-1, 2:]).max()


# --- measuring ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What all CPUs of this machine do a second: bytes read, flops of products in float64."""

    bytes_per_second: float
    flops_per_second: float


def measured_rates() -> Rates:
    slots = sizing.slots_of_host()
    parts = np.ones((slots, 32_000_000))
    a = np.random.default_rng(0).random((1500, 1500))
    with ThreadPoolExecutor(slots) as pool:
        read = min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(5))
    product = min(_seconds(lambda: a @ a) for _ in range(5))
    return Rates(parts.nbytes / read, 2 * 1500.0**3 / product)


def _seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    gc.collect()
    began = clock()
    work()
    return clock() - began


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """NumPy and ours in one thread of this process each."""
    with (
        one_thread,
        axp.config(seconds_here=math.inf),
        mock.patch.object(sizing, "slots_of_host", return_value=1),
        mock.patch.object(placing, "STARTING_SECONDS", math.inf),
    ):
        yield


def _on_dask(data: Iterable[np.ndarray]) -> list[Any]:
    import dask.array as da

    found = []
    for array in data:
        rows = -(-array.shape[0] // 8) if array.nbytes >= LARGE_BYTES else -1
        found.append(da.from_array(array, chunks=(rows, *(-1,) * (array.ndim - 1))).persist())
    return found


def _known(result: Any) -> Any:
    return result.compute(scheduler="threads") if hasattr(result, "dask") else result


def measure(
    case: Case, runs: int, rates: Rates, *, dask: bool, clock: Callable[[], float]
) -> dict[str, Any]:
    """Medians of all libraries for one case."""
    data = case.make(np.random.default_rng(1))
    ours = [axp.asarray(array).persist() for array in data]
    expected = np.asarray(case.work(np, *data))
    works: dict[str, Callable[[], Any]] = {
        "numpy": lambda: case.work(np, *data),
        "ours": lambda: np.asarray(case.work(axp, *ours)),
    }
    found: dict[str, Any] = {"case": case.name}
    if dask:
        import dask.array as da

        theirs = _on_dask(data)
        works["dask"] = lambda: _known(case.work(da, *theirs))
        try:
            works["dask"]()
        except Exception as error:  # a function that Dask lacks
            found["dask_lacks"] = f"{type(error).__name__}: {error}"
            del works["dask"]
    np.testing.assert_allclose(works["ours"](), expected, rtol=1e-6, atol=1e-8)
    for work in works.values():
        began, count = time.perf_counter(), 0
        while count < 2 or (time.perf_counter() - began < WARM_SECONDS and count < WARM_RUNS):
            work()
            count += 1
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            seconds[name].append(_seconds(work, clock))
    found |= {f"{name}_seconds": statistics.median(some) for name, some in seconds.items()}
    limit = max(
        sum(array.nbytes for array in data) / rates.bytes_per_second,
        case.flops / rates.flops_per_second,
    )
    found["limit_seconds"] = limit
    found["of_limit"] = limit / found["ours_seconds"]
    for other in ("numpy", "dask"):
        if other in works:
            found[f"over_{other}"] = found[f"{other}_seconds"] / found["ours_seconds"]
    made = case.work(axp, *ours)
    if made._node.value is None:
        found["where"] = str(evaluate.prospect(optimize([made._node])))
    return found


def _line(found: dict[str, Any]) -> str:
    parts = [f"{found['case']:46s} ours {found['ours_seconds'] * 1e3:8.1f} ms"]
    parts += [
        f"{other} {found[f'{other}_seconds'] * 1e3:8.1f} ms = {found[f'over_{other}']:5.2f}×"
        for other in ("numpy", "dask")
        if f"over_{other}" in found
    ]
    parts.append(f"limit {found['limit_seconds'] * 1e3:6.1f} ms ({found['of_limit']:.2f})")
    return "  ".join(parts)


def summary(rows: list[dict[str, Any]]) -> str:
    """Geometric means, and what is slower than the better of the others."""
    lines = []
    for other in ("numpy", "dask"):
        known = [row[f"over_{other}"] for row in rows if f"over_{other}" in row]
        if known:
            mean = math.exp(statistics.fmean(map(math.log, known)))
            lines.append(f"geometric mean over {other} {mean:.2f}")
    slower = [
        f"{row['case']} {least:.2f}"
        for row in rows
        if (least := min(row["over_numpy"], row.get("over_dask", math.inf))) < 0.95
    ]
    lines.append(f"below 0.95 of the better of the two: {'; '.join(slower) or 'none'}")
    lines.append(f"mean share of the limit {statistics.fmean(r['of_limit'] for r in rows):.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", nargs="*", help="only cases whose name contains one of these")
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    dask = not (arguments.no_dask or arguments.cpu)
    rates = measured_rates()
    print(f"this machine: {rates.bytes_per_second / 1e9:.1f} GB/s, "
          f"{rates.flops_per_second / 1e9:.0f} GFLOP/s", file=sys.stderr)  # fmt: skip
    rows = []
    for case in UNSEEN if arguments.unseen else CASES:
        if arguments.case and not any(part in case.name for part in arguments.case):
            continue
        with in_one_thread() if arguments.cpu else contextlib.nullcontext():
            rows.append(measure(case, arguments.runs, rates, dask=dask, clock=clock))
        print(json.dumps(rows[-1]) if arguments.json else _line(rows[-1]), flush=True)
    print(summary(rows), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
