"""What a node's collector costs: CPU seconds per second of wall clock at the default interval.

Run it on a node with GPUs to include what reading NVML costs there.
"""

from __future__ import annotations

import argparse
import json
import time

from agentic_ray.telemetry import DEFAULT_INTERVAL_SECONDS, Collector, NodeReport

LIMIT = 0.005


def measure(seconds: float, interval_seconds: float) -> dict[str, float | int]:
    """Run a collector alone in this process and take its CPU time."""
    reports: list[NodeReport] = []
    collector = Collector("benchmark", interval_seconds, push=reports.append)
    collector.sample()  # loading libraries is paid once per process, not per second
    cpu, wall = time.process_time(), time.perf_counter()
    collector.start()
    time.sleep(seconds)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    collector.stop()
    return {
        "interval_seconds": interval_seconds,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "cpu_seconds_per_second": cpu / wall,
        "limit": LIMIT,
        "reports": len(reports),
        "gpus": len(reports[-1].gpus),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--interval", type=float, default=DEFAULT_INTERVAL_SECONDS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.seconds, arguments.interval)
    if arguments.json:
        print(json.dumps(result))
        return
    share = result["cpu_seconds_per_second"]
    print(
        f"{share:.4%} of one core at an interval of {result['interval_seconds']:g} s "
        f"({result['reports']} reports, {result['gpus']} GPUs; limit {LIMIT:.1%})"
    )


if __name__ == "__main__":
    main()
