"""The head's state is kept in a Redis: the head is killed and started again while jobs run.

Takes minutes on two cores, so it is part of `make chaos` only. Needs redis-server.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_parts import Part, free_port, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1"),
]

PROGRAM = Path(__file__).with_name("head_restart.py")
RAY = str(Path(sys.executable).with_name("ray"))
HEAD_IP, NODE_IP = "127.0.0.2", "127.0.0.3"
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    # How long a node and a driver wait for a head that is gone before they give up.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}
PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")


@pytest.fixture
def redis(start: Callable[..., Part], tmp_path: Path) -> dict[str, str]:
    """A Redis with a password; the environment of a head that keeps its state there."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (Debian's package of that name)")
    port = free_port()
    start(
        "redis",
        *(server, "--port", f"{port}", "--bind", "127.0.0.1", "--save", ""),
        *("--appendonly", "no", "--dir", str(tmp_path), "--requirepass", "of-the-test"),
    )

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    until(answers, "redis")
    return {
        "RAY_REDIS_ADDRESS": f"127.0.0.1:{port}",
        "RAY_external_storage_namespace": "test",
    }


def test_jobs_end_right_when_the_head_is_killed_and_comes_back(
    start: Callable[..., Part], tmp_path: Path, short_folder: Path, redis: dict[str, str]
) -> None:
    port = free_port(HEAD_IP)
    address = f"{HEAD_IP}:{port}"

    def start_head() -> Part:
        return start(
            "head",
            *(RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=1"),
            *(f"--node-ip-address={HEAD_IP}", f"--temp-dir={short_folder}"),
            *("--include-dashboard=false", "--disable-usage-stats", *PORTS),
            "--redis-password=of-the-test",  # Ray takes it in no other way
            **SETTINGS,
            **redis,
        )

    heads = [start_head()]

    def has_started() -> bool:
        assert heads[0].process.poll() is None, heads[0].told()
        with socket.socket() as client:
            return client.connect_ex((HEAD_IP, port)) == 0

    until(has_started, "the head")
    node = start(
        "node",
        *(RAY, "start", "--block", f"--address={address}", "--num-cpus=2"),
        *(f"--node-ip-address={NODE_IP}", *PORTS),
        **SETTINGS,
    )
    driver = start(
        "driver", *(sys.executable, str(PROGRAM), address, NODE_IP, str(tmp_path)), **SETTINGS
    )

    def told(what: str) -> None:
        def heard() -> bool:
            for part in (driver, node, heads[-1]):
                assert part.process.poll() in (None, 0), part.told()
            return (tmp_path / what).exists()

        until(heard, f"'{what}' of {driver.told()}", 200)

    told("running")
    heads[0].kill()
    (tmp_path / "dead").touch()
    time.sleep(3)  # long enough for jobs to notice
    # A new machine has no file that names a running head.
    (short_folder / "ray_current_cluster").unlink()
    heads.append(start_head())
    (tmp_path / "back").touch()
    told("fine")
    assert driver.process.wait(60) == 0
