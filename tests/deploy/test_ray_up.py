"""`ray up` of ``cluster.yaml``, as it stands, and every command of its header.

The machines are namespaces in this one (`machines.py`); pip takes what is installed here, and a
wheel of this checkout. The head starts from nothing, the workers have the packages that ours needs
from an earlier time, as machines that were set up before do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from . import header, machines, wheelhouse

ROOT = Path(__file__).parents[2]
PROJECT = ("agentic_ray", "examples", "cluster.yaml", "pyproject.toml", "README.md", "LICENSE")
SECONDS = 400
NODES = ["head", "worker1", "worker2"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Five machines on one: the tests that would run beside it would run out of time.
    pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1"),
]

COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


COMMANDS = header.commands(ROOT / "cluster.yaml")


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster that `ray up` has started."""

    machines: dict[str, machines.Machine]
    said: str
    seconds: float

    def run(self, line: str, stdin: str | None = None) -> CompletedProcess[str]:
        """Run ``line`` on the laptop, in the project."""
        return run(self.machines["laptop"], line, stdin)

    def workers(self) -> list[machines.Machine]:
        return [self.machines["worker1"], self.machines["worker2"]]


def run(laptop: machines.Machine, line: str, stdin: str | None = None) -> CompletedProcess[str]:
    done = laptop.run(f"cd project; {line}", timeout=SECONDS, stdin=stdin)
    done.stdout = COLOURS.sub("", done.stdout)
    return done


def addresses() -> dict[str, str]:
    """The laptop's address, and those that ``cluster.yaml`` has."""
    provider = yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]
    first, second = provider["worker_ips"]
    laptop = provider["head_ip"].rpartition(".")[0] + ".1"
    edge = provider["head_ip"].rpartition(".")[0] + ".99"
    own = {"laptop": laptop, "edge": edge}
    return {**own, "head": provider["head_ip"], "worker1": first, "worker2": second}


def packages() -> Sequence[metadata.Distribution]:
    """What the wheel needs at run time and to be built."""
    try:
        found = wheelhouse.needed(["agentic-ray[demo]", "hatchling", "pip"])
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed here: pip install -e '.[dev,demo]'")
    return [each for each in found if each.name != "agentic-ray"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    reason = machines.missing()
    if reason is not None:
        pytest.skip(reason)
    needed = packages()
    # Outside /tmp, of which every machine has its own.
    with machines.folder() as base:
        wheels = base / "wheels"
        wheels.mkdir()
        wheelhouse.make(wheels, needed)
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "/dev/null"}
        pip |= {"PIP_NO_COMPILE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        # How this processor is to be used is no choice of the machines'.
        pip |= {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS")}
        variables = " ".join(f"{name}={value}" for name, value in pip.items())
        bashrc = {
            "*": f"export {variables}",
            "laptop": f"export PATH={Path(sys.executable).parent}:$PATH",
            # How long a worker waits for a head that is gone; a minute by default.
            **dict.fromkeys(
                ("worker1", "worker2"), "export RAY_gcs_rpc_server_reconnect_timeout_s=5"
            ),
        }
        with machines.made(base, addresses(), bashrc) as made:
            laptop = made["laptop"]
            for name in PROJECT:
                copy(ROOT / name, laptop.home / "project" / name)
            for name in ("worker1", "worker2", "edge"):
                assert made[name].run("python3 -m venv ~/agentic-ray/venv").returncode == 0
                environment = made[name].home / "agentic-ray" / "venv"
                wheelhouse.plant(environment, [each for each in needed if each.name != "pip"])
            began = time.monotonic()
            for line in COMMANDS[:3]:
                done = run(laptop, line)
                assert done.returncode == 0, done.stdout
            seconds = time.monotonic() - began
            print(f"ray up: {seconds:.0f} s, with the wheel")
            yield Running(made, done.stdout, seconds)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def test_the_header_says_what_is_tested_here() -> None:
    assert [line.split(" ", 2)[:2] for line in COMMANDS] == [
        ["python3", "-m"],
        ["(umask", "077;"],
        ["ray", "up"],
        ["ray", "exec"],
        ["ray", "exec"],
        ["ray", "submit"],
        ["ray", "attach"],
        ["ray", "dashboard"],
        ["export", "RAY_AUTH_MODE=token"],
        ["ray", "job"],
        ["ray", "down"],
    ]


def test_a_job_of_ray_is_done_through_the_tunnel(cluster: Running) -> None:
    tunnel, variables, submit = COMMANDS[7:10]
    ready = "until (echo > /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 0.2; done"
    # `set -m`: the tunnel and its ssh are a group of processes, which ends as one.
    lines = ("set -m", tunnel, variables, ready, submit, "code=$?; kill %1; exit $code")
    done = cluster.run("\n".join(lines))
    assert done.returncode == 0, done.stdout
    assert "paths: " in done.stdout
    assert "succeeded" in done.stdout


def test_all_machines_become_nodes(cluster: Running) -> None:
    for worker in cluster.workers():
        deadline = time.monotonic() + SECONDS
        while not worker.processes("raylet/raylet"):
            assert time.monotonic() < deadline, monitor(cluster)
            time.sleep(0.5)


def nodes_in(table: str) -> list[str]:
    """The hosts in what `agentic-ray nodes` prints."""
    return sorted(re.findall(r"^[0-9a-f]{12} +(\S+)", table, re.MULTILINE))


def monitor(cluster: Running) -> str:
    log = "/tmp/ray/session_latest/logs/monitor"
    return cluster.machines["head"].run(f"tail -n 200 {log}.*").stdout


def test_programs_on_the_head_join_the_cluster(cluster: Running) -> None:
    done = cluster.run(COMMANDS[3])
    assert done.returncode == 0, done.stdout
    assert nodes_in(done.stdout) == NODES
    done = cluster.run(COMMANDS[6], stdin="agentic-ray nodes\nexit\n")
    assert nodes_in(done.stdout) == NODES


def test_the_demo_and_an_example_run_there(cluster: Running) -> None:
    done = cluster.run(COMMANDS[4])
    assert done.returncode == 0, done.stdout
    assert "Arrival delay by carrier" in done.stdout
    done = cluster.run(COMMANDS[5])
    assert done.returncode == 0, done.stdout
    assert "paths: " in done.stdout


def test_an_embedded_ray_beside_the_cluster_is_a_choice(cluster: Running) -> None:
    head, worker = cluster.machines["head"], cluster.workers()[0]
    refused = head.run("agentic-ray nodes --num-cpus 2", 120)
    assert refused.returncode == 1
    assert f"{head.address}:6379" in refused.stdout
    assert "'local'" in refused.stdout
    # On a worker too, and the choice is honoured.
    assert nodes_in(worker.run("agentic-ray nodes", 120).stdout) == NODES
    chosen = worker.run("agentic-ray nodes --num-cpus 1 --address local", 120)
    assert nodes_in(chosen.stdout) == [worker.name], chosen.stdout


def test_the_cluster_asks_for_its_token_which_is_this_users_alone(cluster: Running) -> None:
    for name in ("laptop", *NODES):
        machine = cluster.machines[name]
        assert machine.run("stat --format %a ~/.ray/auth_token").stdout.strip() == "600"
    without = cluster.machines["head"].run("RAY_AUTH_MODE=disabled timeout 60 ray status", 90)
    assert without.returncode != 0
    assert cluster.machines["head"].run("ray status", 90).returncode == 0


def ray_of(machine: machines.Machine) -> list[str]:
    """The processes of Ray on it."""
    return machine.processes("/ray/") + machine.processes("bin/ray start")


def test_a_small_machine_joins_with_what_it_has(cluster: Running) -> None:
    edge, head = cluster.machines["edge"], cluster.machines["head"]
    copy(cluster.machines["laptop"].home / ".ray" / "auth_token", edge.home / ".ray" / "auth_token")
    (wheel,) = (cluster.machines["laptop"].home / "project" / "dist").glob("*.whl")
    copy(wheel, edge.home / wheel.name)
    installed = edge.run(
        f"~/agentic-ray/venv/bin/pip install --quiet --no-deps ~/{wheel.name}", 120
    )
    assert installed.returncode == 0, installed.stdout
    log = edge.home / "join.log"
    options = "--cpus 1 --memory 512MB --label site=edge --resource camera=1"
    edge.run(
        f"setsid ~/agentic-ray/venv/bin/agentic-ray join {head.address}:6379 {options} "
        "> ~/join.log 2>&1 &"
    )
    deadline = time.monotonic() + SECONDS
    while "will now block" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    shown = head.run("agentic-ray nodes --json", 120)
    # (Ray may print lines of its own before and after.)
    nodes = json.JSONDecoder().raw_decode(shown.stdout[shown.stdout.index("{") :])[0]["nodes"]
    (node,) = [node for node in nodes if node["labels"].get("site") == "edge"]
    assert node["cpus_total"] == 1
    assert node["memory_total_bytes"] == 358_400_000
    assert node["store_total_bytes"] == 153_600_000
    edge.run("kill $(pgrep --full --oldest ray.scripts.scripts)")
    while left := ray_of(edge):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def test_ray_down_ends_ray_on_every_machine(cluster: Running) -> None:
    done = cluster.run(COMMANDS[10])
    assert done.returncode == 0, done.stdout
    assert ray_of(cluster.machines["head"]) == []
    for worker in cluster.workers():
        deadline = time.monotonic() + 180
        while left := ray_of(worker):
            assert time.monotonic() < deadline, left
            time.sleep(1)
