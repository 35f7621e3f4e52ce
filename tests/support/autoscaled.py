"""A cluster on this machine that Ray's own autoscaler makes larger and smaller.

The nodes are real raylets, which Ray's `FakeMultiNodeProvider` starts and ends. (The file of its
configuration is not in Ray's wheel.)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.support.ports import free_ports
from tests.support.programs import without_ray_settings

START_SECONDS = 120.0


@contextmanager
def autoscaled_cluster(
    folder: Path,
    node_types: Mapping[str, Mapping[str, Any]],
    *,
    v2: bool,
    idle_minutes: float = 0.1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Start a head without CPUs; yield the address of its cluster.

    Parameters
    ----------
    folder : Path
        For the configuration and Ray's files; its path must be short, since sockets lie in it.
    node_types : mapping
        Resources and most nodes of each type that the autoscaler may start.
    v2 : bool
        Whether it is the second version of the autoscaler.
    """
    workers = {
        name: {"node_config": {}, "min_workers": 0, **spec} for name, spec in node_types.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    (port,) = free_ports(1)
    provider = {
        "gcs_address": f"127.0.0.1:{port}",
        "type": "external",  # as "fake_multinode", Ray would read the file that is missing
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    if v2:
        provider |= {"launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID}
    commands = [
        "initialization_commands", "setup_commands", "head_setup_commands", "rsync_filter",
        "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
        "cluster_synced_files", "rsync_exclude",
    ]  # fmt: skip
    config = {
        "cluster_name": "autoscaled",
        "max_workers": 8,
        "provider": provider,
        "available_node_types": {"ray.head.default": head, **workers},
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_minutes,
        **{name: [] for name in commands},
    }
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(config))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--num-cpus=0", "--num-gpus=0", "--include-dashboard=false"),
        *("--node-ip-address=127.0.0.1", "--disable-usage-stats"),
        *(f"--autoscaling-config={path}", f"--temp-dir={folder / 'r'}"),
        "--object-store-memory=100000000",
    ]
    own = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_autoscaler_v2": str(int(v2)),
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    if v2:
        own["RAY_CLOUD_INSTANCE_ID"] = FAKE_HEAD_NODE_ID
    with (folder / "head.txt").open("w") as told:
        process = subprocess.Popen(
            command,
            stdout=told,
            stderr=subprocess.STDOUT,
            env={**without_ray_settings(), **own, **(environment or {})},
        )
    try:
        until = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (folder / "head.txt").read_text():
            assert process.poll() is None, (folder / "head.txt").read_text()
            assert time.monotonic() < until, (folder / "head.txt").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head, its autoscaler and all nodes that this has started."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    process.kill()
    process.wait()
    for one in started:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(started, timeout=10)
