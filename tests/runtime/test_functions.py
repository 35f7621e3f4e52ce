"""Functions on cards from end to end: real Ray and processes, NVML from C, a stand-in framework."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STANDIN = HERE.parent / "telemetry" / "nvml_standin" / "nvml_standin.c"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the NVML stand-in."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the NVML stand-in needs a C compiler (cc or gcc) and there is none")
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(STANDIN)]
    subprocess.run(command, check=True)
    return folder


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
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    search = os.pathsep.join(filter(None, [str(driver), os.environ.get("LD_LIBRARY_PATH", "")]))
    (tmp_path / "cards").mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "function_scenarios.py"), scenario],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **inherited,
            "LD_LIBRARY_PATH": search,
            "NVML_STANDIN_STATE": str(tmp_path / "state"),
            "STANDIN_CARDS": str(tmp_path / "cards"),
            "SCENARIO_FOLDER": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])
            ),
            "AGENTIC_RAY_GPU_DEVICE": device,
            "AGENTIC_RAY_KEEP_COSTS": "0",
        },
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
    assert "done" in done.stdout
