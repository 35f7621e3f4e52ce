"""`agentic-ray serve`: killed in the midst of bad jobs, and with its session killed under it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agentic_ray import Client
from agentic_ray.errors import TaskError

WITHOUT_RAY = """
import sys
from agentic_ray.cli import main
from agentic_ray.service import hosting

hosting.SessionHost.start = lambda self: self._become("ok")
main(sys.argv[1:])
"""

WORKLOADS = """
import ctypes, operator, os, sys, time
import agentic_ray as ar

class Bad(Exception):
    def __str__(self):
        raise ValueError("no text")

@ar.workload("echo", cache=False)
def echo(params):
    time.sleep(0.05)
    return params

@ar.workload("crash")
def crash(params):
    ctypes.string_at(0)

@ar.workload("hang")
def hang(params):
    time.sleep(600)

@ar.workload("leak", memory_bytes=100 << 20)
def leak(params):
    held = []
    while True:
        held.append(b"x" * (1 << 20))

@ar.workload("bad")
def bad(params):
    raise Bad

def nap(x):
    time.sleep(0.1)
    return x

@ar.workload("spread", cache=False)
def spread(params: int) -> int:
    print("it begins", flush=True)
    return ar.map_reduce(nap, range(params), operator.add)

def seen(name):
    return os.environ.get(name)

@ar.workload("environment", cache=False)
def environment(params: str):
    print("looking", file=sys.stderr)
    return [os.environ.get(params), *ar.map_reduce(seen, [params] * 2)]
"""

EXPECTED = {
    "crash": "PoisonJobError: .*SIGSEGV",
    "hang": "longer than its",
    "leak": "JobMemoryError",
    "bad": "Bad: ",
}


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


class Server:
    """A service that is started and killed."""

    def __init__(self, folder: Path, *arguments: str, ray: bool) -> None:
        (folder / "mine.py").write_text(WORKLOADS)
        (folder / "server.py").write_text(WITHOUT_RAY)
        program = ["-m", "agentic_ray.cli"] if ray else [str(folder / "server.py")]
        self.process = subprocess.Popen(
            [
                *(sys.executable, *program, "serve", "--port", "0", "--num-cpus", "2"),
                *("--workloads", str(folder / "mine.py"), *arguments),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "AGENTIC_RAY_TOKEN": "s3cret"},
        )
        assert self.process.stdout is not None
        found = re.fullmatch(r"serving on (\S+)\n", self.process.stdout.readline())
        assert found
        self.url = found[1]

    def health(self) -> str:
        return str(httpx.get(f"{self.url}/healthz", timeout=10).json()["status"])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["unharmed", "killed in their midst"])
def test_two_hundred_jobs_of_which_eighty_are_bad(tmp_path: Path, killed: bool) -> None:
    plan = ["crash", "hang", "leak", "bad", *["echo"] * 6] * 20
    journal = ["--journal", str(tmp_path / "journal"), "--max-running", "4"]
    server = Server(tmp_path, *journal, ray=False)
    try:
        with Client(server.url, "s3cret") as client:
            ids = [
                client.submit(i, workload=name, timeout_seconds=1.0 if name == "hang" else None)
                for i, name in enumerate(plan)
            ]
            if killed:
                until(lambda: sum(job["state"] == "succeeded" for job in client.jobs()) >= 40)
        if killed:
            below = psutil.Process(server.process.pid).children(recursive=True)
            assert below
            server.end()
            _, alive = psutil.wait_procs(below, timeout=60)
            assert not alive
            server = Server(tmp_path, *journal, ray=False)
        with Client(server.url, "s3cret") as client:
            for i, (name, task_id) in enumerate(zip(plan, ids, strict=True)):
                if name == "echo":
                    assert client.result(task_id, 120) == i
                else:
                    with pytest.raises(TaskError, match=EXPECTED[name]):
                        client.result(task_id, 120)
            until(lambda: 'agentic_ray_jobs{state="running"} 0' in metrics(server))
            assert client.result(client.submit("after", workload="echo"), 60) == "after"
        assert server.process.poll() is None
    finally:
        server.end()


def metrics(server: Server) -> str:
    headers = {"Authorization": "Bearer s3cret"}
    return httpx.get(f"{server.url}/metrics", headers=headers, timeout=10).text


@pytest.mark.slow
def test_the_session_is_killed_under_its_jobs(tmp_path: Path) -> None:
    server = Server(tmp_path, ray=True)
    try:
        with Client(server.url, "s3cret") as client:
            assert client.result(
                client.submit("AGENTIC_RAY_TOKEN", workload="environment"), 90
            ) == [
                None,
                None,
                None,
            ]
            until(lambda: server.health() == "ok")
            ready = httpx.get(f"{server.url}/readyz", timeout=10)
            assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
            task_id = client.submit(80, workload="spread")
            until(lambda: client.logs(task_id)[0])
            time.sleep(1)
            os.kill(host_of(server), signal.SIGKILL)
            until(lambda: server.health() == "degraded", 30)
            ready = httpx.get(f"{server.url}/readyz", timeout=10)
            assert (ready.status_code, ready.json()["status"]) == (503, "degraded")
            later = client.submit(3, workload="spread")
            assert client.result(task_id, 120) == sum(range(80))
            assert client.result(later, 120) == 3
            assert client.status(task_id)["attempts"] == 1
            assert server.health() == "ok"
            lines, following, finished = client.logs(task_id)
            assert [line["text"] for line in lines] == ["it begins"]
            assert (following, finished) == (1, True)
            assert client.logs(task_id, 1) == ([], 1, True)
        shown = subprocess.run(
            [sys.executable, "-m", "agentic_ray.cli", "logs", "-f", task_id, "--url", server.url],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "AGENTIC_RAY_TOKEN": "s3cret"},
        ).stdout
        assert re.fullmatch(rf"\S+ \S+ \S+ {task_id[:8]} it begins\n", shown)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    finally:
        server.end()


def host_of(server: Server) -> int:
    below = psutil.Process(server.process.pid).children()
    return next(one.pid for one in below if "agentic_ray.runtime.host" in one.cmdline())
