"""A release: its workflow calls what is there, and a wrong tag or command is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import agentic_ray

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/release/release.sh"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    found: dict[str, Any] = loaded["jobs"]
    return found


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments, f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_nothing_is_published_before_all_other_jobs_have_passed(jobs: dict[str, Any]) -> None:
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    built = {step["with"]["name"] for job in jobs.values() for step in job["steps"]
             if "artifact" in step.get("uses", "")}  # fmt: skip
    assert built == {"dist"}, "what is published is what was built and tried"


def test_each_target_of_the_workflow_is_one_of_the_makefile(jobs: dict[str, Any]) -> None:
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    targets = re.findall(r"make ([a-z-]+)", " ".join(commands))
    assert {"dist", "sbom", "matrix", "lowest", "version-check"} <= set(targets)
    for target in targets:
        assert _make("--dry-run", target).returncode == 0, target


def test_the_pythons_that_are_tried_are_those_that_the_project_names(jobs: dict[str, Any]) -> None:
    tried = jobs["tried"]["strategy"]["matrix"]["python"]
    text = (ROOT / "pyproject.toml").read_text()
    assert tried == re.findall(r"Programming Language :: Python :: (3\.\d+)", text)


def test_only_the_tag_of_the_version_is_released() -> None:
    assert _make("version-check", f"TAG=v{agentic_ray.__version__}").returncode == 0
    wrong = _make("version-check", "TAG=v9.9.9")
    assert wrong.returncode != 0
    assert "v9.9.9" in wrong.stderr


def test_an_unknown_command_of_the_script_says_which_there_are() -> None:
    ran = subprocess.run(["bash", str(SCRIPT), "publish"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "dist|sbom|matrix|lowest" in ran.stderr
