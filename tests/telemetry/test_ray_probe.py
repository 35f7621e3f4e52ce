"""Ray's view of the cluster: the tables it is made of, and a real Ray."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from agentic_ray.telemetry.ray_probe import cluster_from_tables, probe_ray

ROW = {
    "NodeID": "n1",
    "Alive": True,
    "NodeManagerAddress": "192.0.2.1",
    "NodeManagerHostname": "host1",
    "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1000.0, "object_store_memory": 500.0},
    "Labels": {"zone": "a"},
}


def test_tables() -> None:
    free = {"n1": {"CPU": 1.0, "memory": 400.0, "object_store_memory": 450.0}}
    (node,) = cluster_from_tables([ROW], free, 5.0).nodes
    assert (node.cpus_total, node.cpus_free) == (4.0, 1.0)
    assert (node.memory_total_bytes, node.memory_free_bytes) == (1000, 400)
    assert (node.store_total_bytes, node.store_used_bytes) == (500, 50)
    assert (node.host, node.labels, node.alive) == ("host1", {"zone": "a"}, True)
    assert node.gpus == ()
    assert node.gpus_reason == "no report from this node yet; Ray counts 2 on it"
    assert node.heartbeat_age_seconds is None


def test_what_ray_leaves_out_is_used_up() -> None:
    (node,) = cluster_from_tables([ROW], {"n1": {"memory": 1.0}}, 5.0).nodes
    assert node.cpus_free == 0.0
    assert node.store_used_bytes == 500


def test_a_dead_node() -> None:
    row = {"NodeID": "n2", "Alive": False, "NodeManagerAddress": "192.0.2.2", "Resources": {}}
    (node,) = cluster_from_tables([row], {}, 5.0).nodes
    assert not node.alive
    assert (node.cpus_total, node.cpus_free) == (0.0, 0.0)
    assert node.memory_total_bytes is None
    assert node.store_used_bytes is None
    assert node.host == "192.0.2.2"


def test_without_ray_the_error_says_what_to_do() -> None:
    code = (
        "from agentic_ray.errors import SessionError\n"
        "from agentic_ray.telemetry import probe_ray\n"
        "try: probe_ray()\n"
        "except SessionError as error: assert 'init()' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("ray_connection")
def test_a_real_ray() -> None:
    import ray

    cluster = probe_ray()
    local = cluster.node(ray.get_runtime_context().get_node_id())
    assert local is not None
    assert local.alive
    assert local.cpus_total == ray.cluster_resources()["CPU"]
    assert 0 <= local.cpus_free <= local.cpus_total
    assert local.memory_total_bytes
    assert local.memory_free_bytes
    assert local.store_total_bytes
    assert local.load is not None
    assert local.gpus or local.gpus_reason
    assert local.labels["ray.io/node-id"] == local.node_id
    assert local.heartbeat_age_seconds is None
    assert local.host in str(cluster)


@pytest.mark.usefixtures("ray_connection")
def test_object_store_use_is_seen() -> None:
    import ray

    def used() -> int:
        (node,) = [node for node in probe_ray(local=False).nodes if node.alive][:1]
        assert node.store_used_bytes is not None
        return node.store_used_bytes

    reference = ray.put(bytes(8 * 2**20))
    deadline = time.monotonic() + 60  # Ray reports resources on its own schedule
    while used() < 8 * 2**20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    del reference


@pytest.mark.usefixtures("ray_connection")
def test_it_is_quick() -> None:
    probe_ray()
    started = time.perf_counter()
    for _ in range(10):
        probe_ray()
    assert (time.perf_counter() - started) / 10 < 0.05
