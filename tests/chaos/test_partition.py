"""Two nodes in two network namespaces; the network between them fails and comes back.

Needs root and iproute2. Takes half a minute, so it is part of `make chaos` only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAM = Path(__file__).with_name("partitioned.py")
PORT = 6399
CONFIG = (
    '{"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, '
    '"health_check_failure_threshold": 4}'
)


@dataclass(frozen=True)
class Net:
    """Two namespaces with a link between them."""

    first: str
    second: str
    link: str
    addresses: tuple[str, str]

    def run(self, space: str, *command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return subprocess.run(
            ["ip", "netns", "exec", space, *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**inherited, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        )


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def net() -> Iterator[Net]:
    name = f"ar{os.getpid() % 100_000}"
    made = Net(f"{name}a", f"{name}b", f"{name}v0", ("10.77.0.1", "10.77.0.2"))
    try:
        tried = ip("netns", "add", made.first)
    except FileNotFoundError:
        pytest.skip("iproute2 is not installed")
    if tried.returncode:
        pytest.skip(f"network namespaces cannot be made here: {tried.stderr.strip()}")
    try:
        other = f"{name}v1"
        for command in (
            f"netns add {made.second}",
            f"link add {made.link} netns {made.first} type veth "
            f"peer name {other} netns {made.second}",
            f"-n {made.first} addr add {made.addresses[0]}/24 dev {made.link}",
            f"-n {made.second} addr add {made.addresses[1]}/24 dev {other}",
            f"-n {made.first} link set {made.link} up",
            f"-n {made.second} link set {other} up",
            f"-n {made.first} link set lo up",
            f"-n {made.second} link set lo up",
        ):
            done = ip(*command.split())
            if done.returncode:
                pytest.skip(f"ip {command}: {done.stderr.strip()}")
        yield made
    finally:
        for space in (made.first, made.second):
            for pid in ip("netns", "pids", space).stdout.split():
                if psutil.pid_exists(int(pid)):
                    psutil.Process(int(pid)).kill()
            ip("netns", "del", space)


@pytest.fixture
def short_path() -> Iterator[str]:
    """A directory whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="ar", ignore_cleanup_errors=True) as path:
        yield path


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1")
def test_jobs_finish_on_the_masters_side_and_once(
    net: Net, tmp_path: Path, short_path: str
) -> None:
    address = f"{net.addresses[0]}:{PORT}"
    start = (sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1")
    head = net.run(
        net.first,
        *(*start, "--head", f"--port={PORT}", f"--node-ip-address={net.addresses[0]}"),
        # a directory of its own, so that no other program takes this for its cluster
        *("--include-dashboard=false", f"--system-config={CONFIG}", f"--temp-dir={short_path}"),
        seconds=120,
    )
    assert head.returncode == 0, head.stdout + head.stderr
    node = net.run(
        net.second,
        *(*start, f"--address={address}", f"--node-ip-address={net.addresses[1]}"),
        seconds=120,
    )
    assert node.returncode == 0, node.stdout + node.stderr
    done = net.run(
        net.first, sys.executable, str(PROGRAM), address, net.link, str(tmp_path), seconds=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "fine"
