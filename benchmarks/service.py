"""Small jobs over HTTP by many clients at once, with a journal: rates, latencies, none lost.

    python benchmarks/service.py [--json] [--jobs N] [--clients N] [--without-ray]

Starts ``agentic-ray serve`` and talks to it over loopback, so client, service, jobs and Ray share
the processors of this machine. Each client submits, asks for a status now and then, and in the end
all jobs are asked for: each must have come to its right result once. While the clients work another
one sends large bodies that are refused and asks for ``/healthz``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOALS = {"accepted_a_second": 250.0, "submit_p99_ms": 300.0, "status_p99_ms": 50.0}
_WORKLOADS = """
import agentic_ray as ar

@ar.workload("small", cache=False)
def small(params: dict[str, list[int]]) -> int:
    return sum(x * x for x in params["data"])
"""
_STATUS_EVERY = 5
_WITHOUT_RAY = """
from agentic_ray.cli import main
from agentic_ray.service import hosting

hosting.SessionHost.start = lambda self: self._become("ok")
main()
"""


class Connection:
    """One connection that is kept, with no more of HTTP than the service speaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of an answer."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        if body:
            head += "Content-Type: application/json\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        told = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        found = re.search(r"content-length: (\d+)", told)
        content = await self._reader.readexactly(int(found.group(1)) if found else 0)
        if "connection: close" in told:
            self.close()
        return int(told.split(" ", 2)[1]), content

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def measured(port: int, jobs: int, clients: int) -> dict[str, Any]:
    """Latencies and rates of many clients at once."""
    submits: list[float] = []
    statuses: list[float] = []
    health: list[float] = []
    made: dict[int, str] = {}
    refused = 0
    left = iter(range(jobs))

    async def client() -> None:
        nonlocal refused
        connection = Connection(port)
        for i in left:
            body = json.dumps({"workload": "small", "params": {"data": [i, 1]}}).encode()
            while True:
                before = time.perf_counter()
                status, content = await connection.ask("POST", "/submit", body)
                if status == 202:
                    break
                refused += 1
                await asyncio.sleep(0.2)
            submits.append(time.perf_counter() - before)
            made[i] = json.loads(content)["task_id"]
            if i % _STATUS_EVERY == 0:
                before = time.perf_counter()
                status, _ = await connection.ask("GET", f"/status/{made[i]}")
                statuses.append(time.perf_counter() - before)
                assert status == 200
        connection.close()

    async def ask_health() -> None:
        connection = Connection(port)
        while True:
            before = time.perf_counter()
            await connection.ask("GET", "/healthz")
            health.append(time.perf_counter() - before)
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask_health())
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    accepted = time.perf_counter() - began
    connection = Connection(port)
    wrong = 0
    for i, task_id in made.items():
        while True:
            _, content = await connection.ask("GET", f"/status/{task_id}")
            told = json.loads(content)
            if told["state"] not in ("queued", "running"):
                break
            await asyncio.sleep(0.01)
        wrong += told["state"] != "succeeded" or told["result"] != i * i + 1
    finished = time.perf_counter() - began
    asking.cancel()
    return {
        "jobs": jobs,
        "clients": clients,
        "accepted_a_second": jobs / accepted,
        "finished_a_second": jobs / finished,
        "submit_p50_ms": 1e3 * statistics.median(submits),
        "submit_p99_ms": 1e3 * _late(submits),
        "status_p99_ms": 1e3 * _late(statuses),
        "healthz_worst_ms": 1e3 * max(health),
        "refused_and_sent_again": refused,
        "doubled": len(made) - len(set(made.values())),
        "lost_or_wrong": wrong,
    }


async def with_large_bodies(port: int) -> dict[str, Any]:
    """How long others wait while bodies of 12 MB are refused."""
    body = ("{" + ",".join(f'"n{i}": 1' for i in range(1_000_000)) + "}").encode()
    waits: list[float] = []

    async def refuse() -> float:
        connection = Connection(port)
        before = time.perf_counter()
        status, _ = await connection.ask("POST", "/submit", body)
        assert status == 422, status
        return time.perf_counter() - before

    async def ask() -> None:
        connection = Connection(port)
        while True:
            before = time.perf_counter()
            await connection.ask("GET", "/healthz")
            waits.append(time.perf_counter() - before)
            await asyncio.sleep(0.01)

    await refuse()  # starts the process that reads
    asking = asyncio.create_task(ask())
    took = await asyncio.gather(*(refuse() for _ in range(4)))
    asking.cancel()
    return {
        "large_body_mb": len(body) / 1e6,
        "four_refused_s": max(took),
        "healthz_meanwhile_worst_ms": 1e3 * max(waits),
    }


def _late(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--without-ray", action="store_true", help="(these jobs do not use it)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workloads = Path(folder, "small_jobs.py")
        workloads.write_text(_WORKLOADS)
        how = ["-c", _WITHOUT_RAY] if options.without_ray else ["-m", "agentic_ray.cli"]
        command = [sys.executable, *how, "serve", "--port", "0"]
        command += ["--journal", f"{folder}/journal.sqlite3", "--workloads", str(workloads)]
        command += ["--max-queued", "100000", "--num-cpus", "2"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert service.stdout is not None
        try:
            found = None
            while found is None:
                line = service.stdout.readline()
                if not line:
                    raise SystemExit("the service did not start")
                found = re.search(r"serving on http://[^:]+:(\d+)", line)
            port = int(found.group(1))
            result = asyncio.run(_run(port, options.jobs, options.clients))
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            goal = f"   (goal {GOALS[name]:g})" if name in GOALS else ""
            print(f"{name:28} {value:12,.1f}{goal}")
    return int(bool(result["lost_or_wrong"] or result["doubled"]))


async def _run(port: int, jobs: int, clients: int) -> dict[str, Any]:
    connection = Connection(port)
    while json.loads((await connection.ask("GET", "/healthz"))[1])["status"] != "ok":
        await asyncio.sleep(0.2)
    connection.close()
    await measured(port, 100, 4)  # warm
    return await measured(port, jobs, clients) | await with_large_bodies(port)


if __name__ == "__main__":
    sys.exit(main())
