"""``ray job submit --working-dir . -- python examples/….py`` against a local ``ray start --head``.

The cluster is the test's own: free ports, a temporary directory of its own, and only its own
processes are ended (never ``ray stop``, which ends those of every cluster on the machine).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 90

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Head:
    dashboard: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Short, because Ray's sockets have long names inside and the limit is 107 characters.
    folder = tempfile.mkdtemp(prefix="rayjob", dir="/tmp")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    token = secrets.token_hex(32)
    environment |= {"RAY_TMPDIR": folder, "HOME": folder}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # The job's `python` must be this one.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    port, dashboard, client = free_ports(3)
    with (
        open(Path(folder) / "head.log", "w+b") as log,
        subprocess.Popen(
            [
                *(RAY, "start", "--head", "--block", "--num-cpus=2"),
                *(f"--port={port}", f"--temp-dir={folder}", "--object-store-memory=200000000"),
                *("--include-dashboard=true", f"--dashboard-port={dashboard}"),
                *("--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}"),
                "--disable-usage-stats",
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{dashboard}"
            deadline = time.monotonic() + START_SECONDS
            while not answers(f"{url}/api/jobs/", token):
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.5)
            yield Head(url, environment)
        finally:
            process.terminate()  # `ray start --block` then ends the processes it started
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def answers(url: str, token: str) -> bool:
    try:
        return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=5).is_success
    except httpx.HTTPError:
        return False


def submit(head: Head, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAY, "job", "submit", "--address", head.dashboard, "--working-dir", ".", "--", *command],
        cwd=ROOT,
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_an_example_runs_as_a_job(head: Head) -> None:
    done = submit(head, "python", "examples/option_price.py", "--paths", "2000000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,097,152 paths: " in done.stdout
    assert "succeeded" in done.stdout


def test_a_failing_script_is_a_failed_job(head: Head) -> None:
    done = submit(head, "python", "examples/word_count.py", "no-such-file.txt")
    assert done.returncode != 0
    assert "no-such-file.txt does not exist" in done.stdout + done.stderr
