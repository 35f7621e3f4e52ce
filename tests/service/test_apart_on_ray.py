"""`agentic-ray serve --master` and the master in a real cluster: each is killed while jobs run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentic_ray import Client
from agentic_ray.errors import AgenticRayError
from tests.support.clusters import FAST_DETECTION, start_head
from tests.support.ports import free_ports
from tests.support.programs import Program
from tests.support.waiting import until

JOBS = 60
WORKLOADS = """
import os, time
import agentic_ray as ar

@ar.workload("double", cache=False)
def double(params: int) -> int:
    time.sleep(4)
    return 2 * params
"""


class Apart:
    """A cluster of one node, a master in it, and a service in front of the master."""

    def __init__(self, folder: Path, address: str) -> None:
        (folder / "workloads.py").write_text(WORKLOADS)
        self._folder = folder
        self._address = address
        self._program = Program(folder / "unused")  # marks all processes that are started
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._serving: subprocess.Popen[str] | None = None
        self._port = str(port)

    def ask(self, *arguments: str) -> str:
        """Run a command of the command line; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "agentic_ray.cli", *arguments, "--address", self._address],
            capture_output=True, text=True, timeout=280, check=False,
            env=self._program.environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def start_master(self) -> int:
        """Start the master; return the pid of its process."""
        said = self.ask(
            "master", "start", "apart", "--journal", str(self._folder / "journal.db"),
            "--workloads", str(self._folder / "workloads.py"),
        )  # fmt: skip
        return int(said.split("process")[1].split()[0])

    def serve(self) -> None:
        self._serving = subprocess.Popen(
            [sys.executable, "-m", "agentic_ray.cli", "serve", "--master", "apart",
             "--address", self._address, "--port", self._port],
            env=self._program.environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers, about="the service")

    def _answers(self) -> bool:
        try:
            with Client(self.url) as client:
                client.jobs()
        except (AgenticRayError, OSError):
            return False
        return True

    def kill_service(self) -> None:
        assert self._serving is not None
        self._serving.send_signal(signal.SIGKILL)
        self._serving.wait()

    def close(self) -> None:
        self._program.end()


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apart]:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    cluster = start_head(2, FAST_DETECTION)
    found = Apart(tmp_path, cluster.address)
    try:
        yield found
    finally:
        found.close()
        cluster.shutdown()


@pytest.mark.timeout(900)
def test_service_and_master_are_killed_and_each_job_ends_once(apart: Apart) -> None:
    pid = apart.start_master()
    apart.serve()
    with Client(apart.url) as client:
        ids = [client.submit(workload="double", params=number) for number in range(JOBS)]
    apart.kill_service()
    apart.serve()
    with Client(apart.url) as client:

        def states() -> Counter[str]:
            try:
                return Counter(client.status(job)["state"] for job in ids)
            except (AgenticRayError, OSError):
                return Counter()

        assert states()["queued"]
        psutil.Process(pid).kill()  # Ray starts it again
        until(lambda: states() == {"succeeded": JOBS}, about=f"{JOBS} jobs")
        assert [client.result(job) for job in ids] == [2 * number for number in range(JOBS)]
