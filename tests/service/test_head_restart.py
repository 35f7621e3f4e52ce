"""The head of the service's cluster goes away and another comes: jobs wait, and end right."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agentic_ray import Client

RAY = str(Path(sys.executable).with_name("ray"))
AWAY_SECONDS = 8

WORKLOADS = """
import operator, time
import agentic_ray as ar

def nap(x):
    time.sleep(0.1)
    return x

@ar.workload("spread", cache=False)
def spread(params: int) -> int:
    return ar.map_reduce(nap, range(params), operator.add)
"""


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    folder = tempfile.mkdtemp(prefix="rayhead", dir="/tmp")
    found = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    found |= {"RAY_TMPDIR": folder, "HOME": folder, "AGENTIC_RAY_KEEP_COSTS": "0"}
    found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    yield found
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def head(port: int, environment: dict[str, str]) -> Iterator[None]:
    """A cluster of one node, which ends at the end. (Only its own processes are ended.)"""
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}"),
            *(f"--temp-dir={environment['HOME']}", "--object-store-memory=200000000"),
            *("--include-dashboard=false", "--disable-usage-stats"),
            *("--dashboard-agent-listen-port=0", f"--ray-client-server-port={free_port()}"),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, "the head did not start"
        yield
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        for one in (process, *below):  # as when its machine is gone
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(60)
        psutil.wait_procs(below, timeout=30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    "AGENTIC_RAY_LONG" not in os.environ, reason="takes minutes; set AGENTIC_RAY_LONG=1"
)
def test_jobs_outlive_the_head_of_their_cluster(
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    (tmp_path / "mine.py").write_text(WORKLOADS)
    with head(port, environment):
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "agentic_ray.cli", "serve", "--port", "0"),
                *("--address", f"127.0.0.1:{port}", "--workloads", str(tmp_path / "mine.py")),
                *("--journal", str(tmp_path / "journal"), "--max-running", "4"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("serving on ").strip()

        def health() -> str:
            return str(httpx.get(f"{url}/healthz", timeout=10).json()["status"])

        try:
            until(lambda: health() == "ok")
            client = Client(url, "")
            jobs = [client.submit(60 + i, workload="spread") for i in range(4)]
            until(lambda: len(client.jobs(state="running")) == 4)
            time.sleep(2)
        except BaseException:
            server.kill()
            raise
    try:
        until(lambda: health() == "degraded")
        jobs += [client.submit(64 + i, workload="spread") for i in range(4)]
        time.sleep(AWAY_SECONDS)
        with head(port, environment):
            for i, task_id in enumerate(jobs):
                assert client.result(task_id, 150) == sum(range(60 + i))
            assert health() == "ok"
            assert {job["attempts"] for job in client.jobs()} == {1}
            assert server.poll() is None
            server.terminate()
            assert server.wait(60) == 0
    finally:
        client.close()
        if server.poll() is None:
            server.kill()
        server.communicate()
