"""Ray's own autoscaler, with real raylets: work brings nodes up, idleness takes them down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.autoscaled import autoscaled_cluster

pytestmark = pytest.mark.slow

SCENE = """
    import os, threading, time
    import ray
    from tests.support.waiting import until
    import agentic_ray as ar
    from agentic_ray.runtime.autoscaling import autoscaling

    ADDRESS = os.environ["CLUSTER"]
    session = ar.init(
        ADDRESS,
        poll_seconds=0.3,
        idle_release_seconds=1,
        gpu_idle_release_seconds=1,
        node_idle_release_seconds=3,
    )

    def workers():
        return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]

    def add(a, b):
        return a + b

    def slow(x):
        time.sleep(0.2)
        return x

    assert not workers()
    print("told of:", autoscaling())
    job = ar.map_reduce_job(slow, range(200), add, chunk_size=1)
    results = []
    asking = threading.Thread(target=lambda: results.append(job.result()))
    asking.start()
    until(lambda: len(workers()) == 2, 150, "a second node")
    asking.join()
    assert results == [sum(range(200))]
    places = {p.node_id for p in job.placements()} - {"caller"}
    assert len(places) == 2, places
    until(lambda: not workers(), 150, "an empty cluster")
    print("all nodes were taken down")
    again = ar.map_reduce_job(slow, range(20), add, chunk_size=1)
    assert again.result() == sum(range(20))
    assert not {p.node_id for p in again.placements()} & places
    print("and came again")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="as", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.mark.timeout(500)
@pytest.mark.parametrize("version", [2, 1])
def test_nodes_come_with_work_and_go_when_there_is_none(
    version: int, program: Callable[[str], Any], folder: Path
) -> None:
    if version == 1 and "AGENTIC_RAY_LONG" not in os.environ:
        pytest.skip("set AGENTIC_RAY_LONG=1")
    types = {"cpu": {"resources": {"CPU": 2}, "max_workers": 2}}
    with autoscaled_cluster(folder, types, v2=version == 2) as address:
        told = program(SCENE).run(
            400, RAY_ADDRESS=address, RAY_AUTH_MODE="disabled", CLUSTER=address
        )
    assert "all nodes were taken down" in told
    assert "and came again" in told
