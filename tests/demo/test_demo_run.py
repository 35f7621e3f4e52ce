"""The whole demo on real Ray and real data, and its exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import agentic_ray.demo.run as demo
from agentic_ray.demo.flights import Delays
from agentic_ray.errors import InvalidArgumentError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


def run(**options: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=160)
    status = demo.run_demo(console=console, progress=False, **options)
    file = console.file
    assert isinstance(file, io.StringIO)
    return status, file.getvalue()


def test_all_flights_agree_with_pandas() -> None:
    status, text = run(check=True, as_json=True, numbers=1_000_000)
    loaded = json.loads(text)
    assert status == 0
    assert loaded["check"]["passed"]
    assert sum(carrier["flights"] for carrier in loaded["carriers"]) == 327_346
    assert loaded["worst_routes"][0]["dest"] == "TYS"
    for job in loaded["jobs"].values():
        assert job["placements"]
        assert job["metrics"]["decomposition"] == 1.0
        assert all(record["reason"] for record in job["placements"])


def test_a_difference_is_an_exit_status_and_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.checking, "recomputed_delays", lambda path: Delays())
    status, text = run(check=True, numbers=1000)
    assert status == 1
    assert "check failed" in text


def test_other_files_and_bad_arguments(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("carrier,origin,dest,arr_delay,other\nAA,EWR,LAX,3,x\nAA,EWR,LAX,,y\n")
    status, text = run(path=path, check=True, as_json=True, numbers=10)
    assert status == 0
    assert json.loads(text)["carriers"][0]["flights"] == 1
    with pytest.raises(FileNotFoundError):
        run(path=tmp_path / "missing.csv")
    with pytest.raises(InvalidArgumentError):
        run(numbers=0)
