"""``ray job submit --working-dir . -- python examples/….py`` against a local ``ray start --head``.

The cluster is the test's own: free ports, a temporary directory of its own, and only its own
processes are ended (never ``ray stop``, which ends those of every cluster on the machine).
"""

from __future__ import annotations

import contextlib
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
STARTS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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
    """A head node that takes jobs. On a busy machine a part of it may be too late for another,
    which then ends; so it is started up to three times."""
    with contextlib.ExitStack() as stack:
        for _ in range(STARTS):
            found = stack.enter_context(started())
            if found is not None:
                break
        assert found is not None, "no head took a job"
        yield found


@contextlib.contextmanager
def started() -> Iterator[Head | None]:
    """A new head node; None if it does not take jobs."""
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
            made = Head(f"http://127.0.0.1:{dashboard}", environment)
            deadline = time.monotonic() + START_SECONDS
            ready = False
            while not ready and process.poll() is None and time.monotonic() < deadline:
                ready = answers(f"{made.dashboard}/api/jobs/", token) and takes_jobs(made)
                time.sleep(0.5)
            if not ready:
                print(Path(log.name).read_text())
            yield made if ready else None
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


def takes_jobs(head: Head) -> bool:
    """Whether a job that does nothing ends well: the agent that runs jobs comes last."""
    command = [RAY, "job", "submit", "--address", head.dashboard, "--", "true"]
    try:
        done = subprocess.run(
            command, env=head.environment, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


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
