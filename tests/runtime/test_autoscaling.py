"""Ray's own autoscaler, with real raylets: work brings nodes up, idleness takes them down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.autoscaled import autoscaled_cluster
from tests.support.nvml import build_standin
from tests.support.programs import ROOT

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent

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


GPU_SCENE = """
    import os
    import numpy as np
    import ray
    from tests.support.waiting import until
    import agentic_ray as ar
    from agentic_ray.graph import Codelet, Task, TaskGraph

    session = ar.init(
        os.environ["CLUSTER"],
        poll_seconds=0.3,
        idle_release_seconds=1,
        gpu_idle_release_seconds=1,
        node_idle_release_seconds=3,
        gpu_device="arena:ArenaDevice",
    )

    def nodes(resource):
        return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get(resource)]

    def total(x):
        return float(x.sum())

    def doubled(x):  # the arena's arrays are of the array API
        return x + x

    task = Task.of(Codelet("on_cpu", total), np.ones(3))
    assert session.submit(TaskGraph([task], [task.key])).result(100) == [3.0]
    assert nodes("CPU") and not nodes("GPU"), ray.nodes()
    task = Task.of(Codelet("gpu_only", None, doubled), np.ones(10_000), tag="gpu")
    run = session.submit(TaskGraph([task], [task.key]))
    assert float(run.result(200)[0].sum()) == 20_000.0
    assert {p.device[:4] for p in run.placements()} == {"GPU-"}, run.placements()
    print("a GPU came")
    until(lambda: not nodes("GPU"), 150, "a cluster without GPUs")
    print("and went")
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


@pytest.mark.timeout(500)
def test_a_gpu_node_comes_for_what_needs_a_gpu(
    program: Callable[[str], Any], folder: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    card = {
        "uuid": "GPU-0000aaaa-0000-0000-0000-000000000000", "name": "NVIDIA Test", "mig": 0,
        "total": 1 << 26, "free": 1 << 26, "used": 0, "reserved": 0, "bus": "00000000:01:00.0",
    }  # fmt: skip
    lines = {"gpus": 1, **{f"gpu.0.{name}": value for name, value in card.items()}}
    state.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    (tmp_path / "arena").write_text("{}")
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    libraries = [str(build_standin(tmp_path)), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "NVML_STANDIN_STATE": str(state),
        "ARENA_SETTINGS": str(tmp_path / "arena"),
        "RAY_AUTH_MODE": "disabled",
    }
    types = {
        "cpu": {"resources": {"CPU": 2}, "max_workers": 1},
        "gpu": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 1},
    }
    with autoscaled_cluster(folder, types, v2=True, environment=environment) as address:
        told = program(GPU_SCENE).run(400, RAY_ADDRESS=address, CLUSTER=address, **environment)
    assert "a GPU came" in told
    assert "and went" in told
