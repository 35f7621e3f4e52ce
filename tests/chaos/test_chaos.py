"""A short drill in every run of the tests; the long one is `make chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRILL = Path(__file__).with_name("drill.py")


def drill(*arguments: str, timeout_seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(DRILL), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    print(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any], jobs: int) -> None:
    assert found["jobs"] == jobs
    assert found["failed"] == []
    assert found["wrong"] == []
    assert found["recovery"] == 1.0
    assert found["left"] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twelve_jobs_under_kills_have_the_same_bits() -> None:
    # A busy machine starts nodes more slowly than they die: at some time that has to end.
    found = drill("--jobs", "12", "--seed", "1", "--most-kills", "20", timeout_seconds=590)
    check(found, 12)
    assert sum(found["kills"].values()) >= 3
