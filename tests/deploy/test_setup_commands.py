"""Which package the setup commands of the files for `ray up` choose; nothing is installed."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", *sorted((ROOT / "deploy" / "ray-up").glob("*.yaml"))]
SMI = "| NVIDIA-SMI 580.82.07     Driver Version: 580.82.07     CUDA Version: {}     |"

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def chosen(file: Path, home: Path, cuda: str | None = None) -> str:
    """What pip would be told to install on a machine with this home and version of CUDA."""
    (home / "agentic-ray").mkdir(exist_ok=True)
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    driver = programs / "nvidia-smi"
    says = "exit 9" if cuda is None else f"echo '{SMI.format(cuda)}'"
    driver.write_text(f"#!/bin/sh\n{says}\n")
    driver.chmod(0o755)
    environment = {**os.environ, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    for command in yaml.safe_load(file.read_text())["setup_commands"]:
        if ("/package" in command and "pip" not in command) or "nvidia-smi" in command:
            subprocess.run(["bash", "-c", command], env=environment, check=True)
    return (home / "agentic-ray" / "package").read_text().strip()


@each_file
def test_the_newest_wheel_that_was_sent_is_installed(file: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "agentic-ray" / "wheel"
    wheels.mkdir(parents=True)
    for age, version in enumerate(("0.3.0", "0.1.0", "0.2.0")):
        wheel = wheels / f"agentic_ray-{version}-py3-none-any.whl"
        wheel.touch()
        os.utime(wheel, (1e9 - age, 1e9 - age))
    path, _, extras = chosen(file, tmp_path).partition("[")
    assert path == str(wheels / "agentic_ray-0.3.0-py3-none-any.whl")
    assert "demo" in extras.rstrip("]").split(",")


@each_file
def test_without_a_wheel_the_index_has_it(file: Path, tmp_path: Path) -> None:
    assert Requirement(chosen(file, tmp_path)).name == "agentic-ray"
    (tmp_path / "agentic-ray" / "wheel").mkdir()
    assert Requirement(chosen(file, tmp_path)).name == "agentic-ray"


@each_file
@pytest.mark.parametrize(("cuda", "extra"), [("12.4", "cuda12"), ("13.0", "cuda13"), (None, None)])
def test_a_driver_brings_cupy(
    file: Path, tmp_path: Path, cuda: str | None, extra: str | None
) -> None:
    extras = Requirement(chosen(file, tmp_path, cuda)).extras
    assert {each for each in extras if each.startswith("cuda")} == ({extra} if extra else set())
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras <= set(known["optional-dependencies"])
