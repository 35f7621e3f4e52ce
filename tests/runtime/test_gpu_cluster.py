"""The GPU path from end to end: real Ray and actors, NVML from C, the arena as device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nvml import build_standin
from tests.support.programs import ROOT, Scenarios

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    folder = tmp_path_factory.mktemp("gpus")
    search = [str(build_standin(folder)), os.environ.get("LD_LIBRARY_PATH", "")]
    made = Scenarios(
        HERE / "gpu_scenarios.py",
        {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, search)),
            "NVML_STANDIN_STATE": str(folder / "state"),
            "ARENA_SETTINGS": str(folder / "arena"),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
            ),
            "AGENTIC_RAY_GPU_DEVICE": "arena:ArenaDevice",
        },
        folder / "log",
    )
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        "runs_on_gpus",
        "lost_gpu",
        "mig_instances",
        "ladder",
        "admission",
        "killed_executor",
        "overlap",
        "two_sessions",
        "fewer_than_ray_counts",
        "no_gpu_at_all",
    ],
)
def test_scenario(name: str, scenarios: Scenarios) -> None:
    scenarios.run(name, seconds=550)
