"""A real GPU against this machine's CPU: where the crossover lies, and how copies overlap.

Without a usable GPU it says so, measures nothing and ends well. ``--json`` prints one object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices import CupyDevice

REPEATS = 5


def elementwise(x: Any, xp: Any) -> Any:
    return xp.sum((x + 1.0) * 2.0)


def polynomial(x: Any, xp: Any) -> Any:
    y = x
    for _ in range(30):
        y = y * x + 1.0
    return xp.sum(y)


def product(x: Any, xp: Any) -> Any:
    side = int(x.shape[0] ** 0.5)
    square = x[: side * side].reshape(side, side)
    return xp.sum(square @ square)


KERNELS = {"elementwise": elementwise, "polynomial": polynomial, "product": product}


def median_seconds(work: Callable[[], object]) -> float:
    work()  # compiles kernels, fills pools
    times = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def crossover(device: CupyDevice) -> list[dict[str, Any]]:
    """Seconds of each kernel on the CPU, on the GPU, and on the GPU with its copies."""
    rows = []
    for name, kernel in KERNELS.items():
        for size in [2**n for n in range(10, 27, 2)]:
            host = np.random.default_rng(0).random(size) * 0.5

            def with_copies(kernel: Any = kernel, host: Any = host) -> object:
                x = device.to_device(host)
                result = device.to_host(kernel(x, device.xp))
                device.synchronize()
                return result

            with device.computing():
                there = device.to_device(host)

                def alone(kernel: Any = kernel, there: Any = there) -> None:
                    kernel(there, device.xp)
                    device.synchronize()

                row = {
                    "kernel": name,
                    "bytes": size * 8,
                    "cpu_seconds": median_seconds(lambda k=kernel, h=host: k(h, np)),
                    "gpu_seconds": median_seconds(alone),
                    "gpu_with_copies_seconds": median_seconds(with_copies),
                }
            rows.append(row)
            del there
            device.free_pool()
    return rows


def first_where_faster(rows: list[dict[str, Any]], column: str) -> dict[str, int | None]:
    """Per kernel, the smallest size from which on the GPU is quicker than the CPU."""
    found: dict[str, int | None] = {}
    for name in KERNELS:
        wins = None
        for row in reversed([row for row in rows if row["kernel"] == name]):
            if row[column] >= row["cpu_seconds"]:
                break
            wins = row["bytes"]
        found[name] = wins
    return found


def overlap(device: CupyDevice, mebibytes: int = 256, pieces: int = 8) -> dict[str, float]:
    """Pieces copied and computed on one after the other, and with the next copy beside."""
    host = [np.random.default_rng(i).random(mebibytes * 2**17) for i in range(pieces)]

    def compute(x: Any) -> None:
        polynomial(x, device.xp)
        device.synchronize()

    with device.computing():
        one = device.to_device(host[0])
        device.synchronize()
        compute_seconds = median_seconds(lambda: compute(one))

        def copy() -> None:
            device.to_device(host[0])
            device.synchronize()

        copy_seconds = median_seconds(copy)

        def serial() -> None:
            for piece in host:
                compute(device.to_device(piece))

        serial_seconds = median_seconds(serial)
        with ThreadPoolExecutor(1) as copier:

            def beside() -> None:
                coming = copier.submit(device.upload, host[0])
                for i in range(pieces):
                    x = device.arrived(coming.result())
                    if i + 1 < pieces:
                        coming = copier.submit(device.upload, host[i + 1])
                    compute(x)

            overlapped_seconds = median_seconds(beside)
    best = max(copy_seconds, compute_seconds) * pieces + min(copy_seconds, compute_seconds)
    return {
        "piece_mebibytes": mebibytes,
        "pieces": pieces,
        "copy_seconds": copy_seconds,
        "copy_bytes_per_second": mebibytes * 2**20 / copy_seconds,
        "compute_seconds": compute_seconds,
        "serial_seconds": serial_seconds,
        "overlapped_seconds": overlapped_seconds,
        "ideal_seconds": best,
        "hidden_fraction": (serial_seconds - overlapped_seconds) / max(serial_seconds - best, 1e-9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        device = CupyDevice()
    except NoSuitableDeviceError as error:
        if options.json:
            print(json.dumps({"gpu": None, "reason": str(error)}))
        else:
            print(f"no GPU here, nothing measured: {error}")
        return
    rows = crossover(device)
    result = {
        "gpu": device.name,
        "memory_bytes": device.memory().total_bytes,
        "crossover": rows,
        "gpu_wins_from_bytes": first_where_faster(rows, "gpu_seconds"),
        "gpu_with_copies_wins_from_bytes": first_where_faster(rows, "gpu_with_copies_seconds"),
        "overlap": overlap(device),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'kernel':12} {'MiB':>9} {'CPU ms':>9} {'GPU ms':>9} {'with copies':>12}")
    for row in rows:
        times = [row[f"{name}_seconds"] * 1e3 for name in ("cpu", "gpu", "gpu_with_copies")]
        print(
            f"{row['kernel']:12} {row['bytes'] / 2**20:9.3f} "
            f"{times[0]:9.3f} {times[1]:9.3f} {times[2]:12.3f}"
        )
    print(json.dumps({key: value for key, value in result.items() if key != "crossover"}, indent=1))


if __name__ == "__main__":
    main()
