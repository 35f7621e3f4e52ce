"""The image's steps, in empty folders instead of a container, and what its entry point starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deploy_manifests import ROOT
from deploy_parts import Part, free_port, surroundings, until
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODE = ROOT / "deploy" / "docker" / "node.sh"
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
# On a loaded machine Ray may not start within the 30 seconds that it gives itself; an engine would
# start the container again. So these are part of `make chaos`.
ALONE = pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1")
HTTP_TOKEN, RAY_TOKEN = "of-the-service", "of-the-cluster-0123456789"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment made by the steps of the Dockerfile's first stage."""
    folder = tmp_path_factory.mktemp("image")
    source, wheels, made = folder / "src", folder / "dist", folder / "opt"
    build = DOCKERFILE[: DOCKERFILE.rindex("\nFROM ")]
    for words in re.findall(r"^COPY (.*)$", build, re.MULTILINE):
        *names, target = words.split()
        for name in names:
            for path in ROOT.glob(name):
                place = source / target
                if path.is_dir():
                    shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, place)
    script = str(source / "deploy" / "docker" / "image.sh")
    for step in (
        ("wheel", str(source), str(wheels)),
        ("install", str(made), "cpu", str(wheels)),
        ("check", str(made)),
    ):
        done = subprocess.run(
            [script, *step],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
            cwd=folder,
            env=surroundings() | {"PYTHON": sys.executable},
        )
        if done.returncode == 3:
            pytest.skip(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_exactly_the_locked_versions_are_installed(prefix: Path) -> None:
    listed = subprocess.run(
        [
            str(prefix / "bin" / "python"),
            "-c",
            "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {canonicalize_name(line.split()[0]): line.split()[1] for line in listed.splitlines()}
    assert found.pop("agentic-ray")
    locked: dict[str, set[str]] = {}
    for line in (ROOT / "deploy" / "docker" / "constraints-cpu.txt").read_text().splitlines():
        if not line.startswith("#"):
            one = Requirement(line)
            (specifier,) = one.specifier
            locked.setdefault(canonicalize_name(one.name), set()).add(specifier.version)
    assert [name for name, version in found.items() if version not in locked.get(name, ())] == []
    assert not (prefix / "lib").is_symlink()
    assert str(ROOT) not in listed


@dataclass(frozen=True)
class Service:
    """A running `agentic-ray-node master` or `serve`."""

    part: Part
    port: int

    def ask(self, path: str, body: Any = None, token: str | None = HTTP_TOKEN) -> Any:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=20
        ) as answer:
            text = answer.read().decode()
        return text if path == "/metrics" else json.loads(text)

    def answers(self) -> bool:
        assert self.part.process.poll() is None, self.part.told()
        try:
            return bool(self.ask("/healthz", token=None))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def result(self, body: Any, seconds: float = 120) -> Any:
        job = self.ask("/submit", body)["task_id"]
        status: dict[str, Any] = {}

        def ended() -> bool:
            assert self.part.process.poll() is None, self.part.told()
            status.update(self.ask(f"/status/{job}"))
            return status["state"] not in ("queued", "running")

        until(ended, f"job {job}", seconds)
        assert status["state"] == "succeeded", status
        return status["result"]


@ALONE
def test_a_master_and_a_worker_start_compute_and_end(
    prefix: Path, start: Callable[..., Part], tmp_path: Path, short_folder: Path
) -> None:
    head_port, http_port, agent_port, worker_port = (free_port() for _ in range(4))
    path = {"PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    common = {
        **path,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": RAY_TOKEN,
        "AGENTIC_RAY_HTTP_PORT": f"{http_port}",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
    }
    any_ports = "--min-worker-port=0 --max-worker-port=0"
    in_master, in_worker = tmp_path / "of-master", tmp_path / "of-worker"
    in_master.mkdir()
    in_worker.mkdir()
    of_master = common | {
        "TMPDIR": str(in_master),
        "AGENTIC_RAY_TOKEN": HTTP_TOKEN,
        "AGENTIC_RAY_HEAD_PORT": f"{head_port}",
        "AGENTIC_RAY_AGENT_PORT": f"{agent_port}",
        "AGENTIC_RAY_JOURNAL": str(tmp_path / "jobs.sqlite3"),
        "AGENTIC_RAY_RAY_OPTIONS": f"{any_ports} --temp-dir={short_folder} "
        f"--dashboard-port={free_port()} --ray-client-server-port={free_port()}",
    }
    of_worker = common | {
        "TMPDIR": str(in_worker),
        "AGENTIC_RAY_HEAD": f"127.0.0.1:{head_port}",
        "AGENTIC_RAY_AGENT_PORT": f"{worker_port}",
        "AGENTIC_RAY_RAY_OPTIONS": f"{any_ports} --num-cpus=2",
    }

    def healthy(environment: dict[str, str]) -> bool:
        asked = subprocess.run(
            ["bash", str(NODE), "healthy"],
            env=surroundings() | environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return asked.returncode == 0

    # In any order: the worker waits for its head.
    worker = start("worker", "bash", str(NODE), "worker", **of_worker)
    assert not healthy(of_worker)
    master = start("master", "bash", str(NODE), "master", **of_master)
    service = Service(master, http_port)
    until(service.answers, "the service", 180)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        service.ask("/jobs", token=None)
    # The head takes no work: the worker does.
    assert service.result({"data": [1, 2, 3, 4, 5]}, 180) == 55
    until(lambda: healthy(of_master) and healthy(of_worker), "both to be healthy", 60)
    nodes = service.ask("/cluster")["nodes"]
    assert sorted(node["cpus_total"] for node in nodes if node["alive"]) == [0, 2]
    assert "agentic_ray_jobs_submitted_total 1" in service.ask("/metrics")

    # Whoever has no token of the cluster cannot join it.
    stranger = subprocess.run(
        [str(prefix / "bin" / "ray"), "health-check", "--address", f"127.0.0.1:{head_port}"],
        env=surroundings() | path | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-wrong-token"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert stranger.returncode != 0

    # The end of a container: each ends by itself, in its time, and leaves nothing.
    for part in (worker, master):
        part.process.send_signal(signal.SIGTERM)
        assert part.process.wait(90) == 0, part.told()
        part.wait_for_the_end()
    assert (tmp_path / "jobs.sqlite3").exists()


@ALONE
def test_a_part_that_dies_ends_its_container(
    prefix: Path, start: Callable[..., Part], tmp_path: Path, short_folder: Path
) -> None:
    head_port = free_port()
    head = start(
        "head",
        "bash",
        str(NODE),
        "head",
        TMPDIR=str(tmp_path),
        PATH=f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        RAY_AUTH_MODE="disabled",
        AGENTIC_RAY_HEAD_PORT=f"{head_port}",
        AGENTIC_RAY_AGENT_PORT=f"{free_port()}",
        AGENTIC_RAY_RAY_OPTIONS=f"--min-worker-port=0 --max-worker-port=0 "
        f"--temp-dir={short_folder} --include-dashboard=false "
        f"--ray-client-server-port={free_port()}",
    )

    def named(text: str) -> list[Any]:
        return [one for one in head.processes() if text in " ".join(one.cmdline())]

    until(lambda: named("raylet/raylet"), f"the raylet of {head.told()}", 120)
    time.sleep(1)
    for one in named("raylet/raylet"):
        one.kill()
    assert head.process.wait(90) != 0
    head.wait_for_the_end()
