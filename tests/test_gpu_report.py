"""`make gpu` on a machine without a GPU: it says so, and its steps do what they say."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices import CupyDevice

FOLDER = Path(__file__).parent / "gpu"


@pytest.fixture(autouse=True)
def _without_gpu() -> None:
    try:
        CupyDevice()
    except NoSuitableDeviceError:
        return
    pytest.skip("there is a GPU here: run `make gpu`")


def test_without_a_gpu_the_report_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER), "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")
    assert "no usable GPU here: " in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["no_gpu"]
    assert report["versions"]["numpy"]
    assert "tests" not in report


def test_the_outcome_of_each_test_is_read(tmp_path: Path) -> None:
    program = runpy.run_path(str(FOLDER / "__main__.py"))
    ran = program["tests"](tmp_path, 240.0)
    assert ran["exit_code"] == 0
    assert len(ran["outcomes"]) >= 10
    assert set(ran["outcomes"].values()) == {"skipped"}
    assert program["benchmark"](240.0)["measured"]["gpu"] is None


def test_a_step_without_time_is_ended(tmp_path: Path) -> None:
    program = runpy.run_path(str(FOLDER / "__main__.py"))
    ran = program["step"]([sys.executable, "-c", "import time; time.sleep(600)"], 1.0)
    assert ran["exit_code"] is None
    assert ran["seconds"] < 300
