"""The command `explain`: a script followed without running it, one that ran, and a recording."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentic_ray as ar
from agentic_ray.cli.app import cli, run_cli

SCRIPT = """
import operator, sys
import agentic_ray as ar
import agentic_ray.array as xp

print("from the script", sys.argv[1:], __name__)

really = "really" in sys.argv

def never(n):
    if not really:
        raise ValueError("this does not run")
    return n

total = ar.map_reduce(never, range(300), operator.add)
x = xp.random.default_rng(0).random((6_000, 1_000), chunks=(1_000, 1_000)).persist()
if total > 5:
    rest = ar.map_reduce(
        never, range(10)
    )
    print("and the end", total, rest)
"""


def explain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentic_ray.cli", "explain", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "AGENTIC_RAY_KEEP_COSTS": "0", "RAY_ADDRESS": "local"},
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def test_a_script_is_followed_as_far_as_it_needs_no_value(script: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = explain(
        str(script), "--what-if", "nodes=64,gpus=8", "--what-if", "nodes=4,cpus=8",
        "--timeline", str(page), "--json", "--num-cpus", "4", "--", "--option",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "from the script ['--option'] __main__" in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert [piece["line"] for piece in told["pieces"]] == [15, 16]
    assert told["pieces"][0]["source"].startswith("total = ar.map_reduce(")
    assert all(piece["predicted_seconds"] > 0 for piece in told["pieces"])
    assert [piece["guessed"] for piece in told["pieces"]] == [True, False]
    assert told["stopped"].startswith("line 17 needs the value of reduce[add]: if total > 5:")
    assert told["here"]["cluster"].startswith("1 node of 4 CPUs")
    assert [one["asked"] for one in told["what_if"]] == ["nodes=64,gpus=8", "nodes=4,cpus=8"]
    here, *others = (one["forecast"] for one in (told["here"], *told["what_if"]))
    assert all(0 < other["seconds"] <= here["seconds"] for other in others)
    assert "<svg" in page.read_text()


def test_a_script_that_ran_is_explained_to_its_end(script: Path, tmp_path: Path) -> None:
    recording = tmp_path / "run.jsonl"
    done = explain(
        str(script), "--run", "--recording", str(recording), "--what-if", "nodes=2,cpus=1",
        "--num-cpus", "1", "--json", "--", "really",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "and the end 44850" in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["stopped"] is None
    assert [piece["line"] for piece in told["pieces"]] == [15, 16, 18]
    assert all(piece["measured_seconds"] > 0 for piece in told["pieces"])
    assert told["here"]["cluster"].startswith("1 node of 1 CPU")
    assert told["what_if"][0]["forecast"]["seconds"] > 0
    # The recording tells the same later, without the script's lines.
    again = CliRunner().invoke(cli, ["explain", str(recording), "--what-if", "nodes=2,cpus=1"])
    assert again.exit_code == 0, again.output
    assert "measured" in again.output
    assert "nodes=2,cpus=1" in again.output


def test_a_recording_of_the_session_is_explained(ray_session: ar.Session, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with ray_session.record(path):
        ar.map_reduce(abs, range(5000), operator.add)
    done = CliRunner().invoke(
        cli, ["explain", str(path), "--json", *(f"--what-if=nodes={n},cpus=1" for n in (1, 4, 16))]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["pieces"]
    assert all(piece["measured_seconds"] > 0 for piece in told["pieces"])
    seconds = [one["forecast"]["seconds"] for one in told["what_if"]]
    assert all(one > 0 for one in seconds)
    assert [one["forecast"]["slots"] for one in told["what_if"]] == [1, 4, 16]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--what-if", "nodes=many"], 1, "whole number"),
        (["--what-if", "node=3"], 1, "is described as nodes=64,gpus=8"),
        (["--policy", "nonsense"], 1, "nonsense"),
        (["--recording", "missing.jsonl"], 2, "--run --recording missing.jsonl makes it"),
        (["--address", "auto"], 2, "--address is of a real run"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(
    arguments: list[str], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script.py"
    path.write_text("raise SystemExit('it ran')\n")
    before = sys.argv, sys.modules["__main__"], list(sys.path)
    try:
        assert run_cli(["explain", str(path), *arguments]) == code
    finally:
        sys.argv, sys.modules["__main__"], sys.path[:] = before
    assert text in capsys.readouterr().err


def test_a_recording_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("{}")
    assert run_cli(["explain", str(path), "--run"]) == 2
    assert "cannot be run" in capsys.readouterr().err
    assert run_cli(["explain", str(path), "--num-cpus", "3"]) == 2
    assert "not of a recording" in capsys.readouterr().err
    assert run_cli(["explain", str(path)]) == 1
    assert "no recording" in capsys.readouterr().err
