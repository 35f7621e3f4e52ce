"""Durable submits a second through the Python API, beside plain SQLite inserts, in one run.

    python benchmarks/journal.py [--json] [--jobs N]

Also: how long a restart with 10,000 journalled jobs takes, of a master and of a whole
``agentic-ray serve``, and jobs a second from submit to a durable end. All on one file system,
with `synchronous=FULL`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agentic_ray import Client
from agentic_ray.master import Master, Registry

ROW = "x" * 500
GOALS = {
    "submits_1": 300.0,
    "submits_16": 1000.0,
    "restart_seconds": 3.0,
    "serve_restart_seconds": 3.0,
}
WORKLOADS = """
import time
import agentic_ray as ar

@ar.workload("wait", cache=False)
def wait(params):
    time.sleep(600)
"""


def plain_inserts(path: Path, count: int) -> float:
    """Inserts a second of 500 bytes, one a transaction, by one thread."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)")
    before = time.perf_counter()
    for _ in range(count):
        connection.execute("INSERT INTO t (value) VALUES (?)", (ROW,))
    rate = count / (time.perf_counter() - before)
    connection.close()
    return rate


def threads_rate(threads: int, count: int, call: Callable[[int], None]) -> float:
    """Calls a second by so many threads together."""

    def work(first: int) -> None:
        for number in range(first, count, threads):
            call(number)

    started = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    before = time.perf_counter()
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return count / (time.perf_counter() - before)


def submits(path: Path, threads: int, count: int) -> float:
    """Submits a second, each in the journal when it returns; the jobs wait meanwhile."""
    registry, gate = Registry(), threading.Event()
    registry.register("wait", lambda params: gate.wait(600), cache=False)
    master = Master(journal=path, workloads=registry, max_running=1, max_queued=10**6)
    master.submit("wait", "holds the only place")
    text = "x" * 200
    rate = threads_rate(threads, count, lambda i: void(master.submit("wait", [i, text])))
    gate.set()
    master.close(drain=False)
    return rate


def whole_jobs(path: Path, count: int) -> float:
    """Jobs a second from submit to an end that is in the journal."""
    registry = Registry()
    registry.register("echo", lambda params: params, cache=False)
    before = time.perf_counter()
    with Master(journal=path, workloads=registry, max_queued=10**6) as master:
        threads_rate(16, count, lambda i: void(master.submit("echo", i)))
    return count / (time.perf_counter() - before)


def restart(path: Path, count: int) -> float:
    """Seconds until a master takes jobs whose journal has ``count`` that wait."""
    submits(path, 16, count)
    registry, gate = Registry(), threading.Event()
    registry.register("wait", lambda params: gate.wait(600), cache=False)
    before = time.perf_counter()
    master = Master(journal=path, workloads=registry, max_running=1, max_queued=10**6)
    took = time.perf_counter() - before
    gate.set()
    master.close(drain=False)
    return took


def serve_restart(path: Path, count: int) -> tuple[float, float]:
    """Seconds from the start of ``agentic-ray serve`` to an acknowledged submit, and until Ray
    runs jobs, where the journal has ``count`` jobs that wait."""
    submits(path, 16, count)
    file = path.with_name("workloads.py")
    file.write_text(WORKLOADS)
    command = [sys.executable, "-m", "agentic_ray.cli", "serve", "--port", "0"]
    options = ["--journal", str(path), "--workloads", str(file), "--drain-seconds", "0"]
    limits = ["--max-queued", "1000000", "--max-running", "1", "--num-cpus", "2"]
    before = time.perf_counter()
    server = subprocess.Popen([*command, *options, *limits], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().removeprefix("serving on ").strip()
    with Client(url) as client:
        client.submit("one more", workload="wait")
        acknowledged = time.perf_counter() - before
        while not client.jobs(state="running"):
            time.sleep(0.05)
        running = time.perf_counter() - before
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    return acknowledged, running


def void(_: object) -> None:
    """What a submit returns is not needed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=3000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        results = {
            "plain_sqlite_inserts": plain_inserts(root / "plain.sqlite3", arguments.jobs),
            "submits_1": submits(root / "one.sqlite3", 1, arguments.jobs),
            "submits_16": submits(root / "many.sqlite3", 16, arguments.jobs),
            "whole_jobs": whole_jobs(root / "whole.sqlite3", arguments.jobs),
            "restart_seconds": restart(root / "restart.sqlite3", 10_000),
        }
        acknowledged, running = serve_restart(root / "serve.sqlite3", 10_000)
        results["serve_restart_seconds"] = acknowledged
        results["serve_ray_ready_seconds"] = running
    missed = [
        name
        for name, goal in GOALS.items()
        if (results[name] > goal if name.endswith("seconds") else results[name] < goal)
    ]
    if arguments.json:
        print(json.dumps({"results": results, "goals": GOALS, "missed": missed}))
        return 1 if missed else 0
    for name, value in results.items():
        goal = f"   goal {GOALS[name]:g}" if name in GOALS else ""
        print(f"{name:24} {value:10.2f} {'s' if name.endswith('seconds') else 'a second'}{goal}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
