"""Functions on cards from end to end: real Ray and processes, NVML from C, a stand-in framework."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nvml import build_standin
from tests.support.programs import ROOT, without_ray_settings

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the NVML stand-in."""
    return build_standin(tmp_path_factory.mktemp("nvml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "device"),
    [
        # (without CuPy, as where only PyTorch is installed)
        ("functions", "absent_cupy:AbsentDevice"),
        ("leases", "arena:ArenaDevice"),
    ],
)
def test_scenario(scenario: str, device: str, driver: Path, tmp_path: Path) -> None:
    search = os.pathsep.join(filter(None, [str(driver), os.environ.get("LD_LIBRARY_PATH", "")]))
    (tmp_path / "cards").mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "function_scenarios.py"), scenario],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **without_ray_settings(),
            "LD_LIBRARY_PATH": search,
            "NVML_STANDIN_STATE": str(tmp_path / "state"),
            "STANDIN_CARDS": str(tmp_path / "cards"),
            "SCENARIO_FOLDER": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
            ),
            "AGENTIC_RAY_GPU_DEVICE": device,
            "AGENTIC_RAY_KEEP_COSTS": "0",
        },
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
    assert "done" in done.stdout
