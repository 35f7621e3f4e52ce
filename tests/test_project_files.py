"""The files beside the code that Ray, Kubernetes and make read parse and say what they should.

What `make` and `.ci/run` do is tested by running them.
"""

from __future__ import annotations

import copy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_cluster_yaml_passes_rays_own_schema(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(cluster)


def test_cluster_yaml_is_prepared_by_ray_as_ray_up_would(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    workers = len(cluster["provider"]["worker_ips"])
    node_types = prepared["available_node_types"]
    assert prepared["max_workers"] == workers
    assert sum(kind.get("min_workers", 0) for kind in node_types.values()) == workers


def test_pyproject_and_package_agree_on_the_version() -> None:
    import agentic_ray

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == agentic_ray.__version__


def test_make_help_names_every_public_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for target in ("setup", "demo", "test", "lint", "fmt", "docs", "bench", "clean"):
        assert f"make {target} " in shown


def test_makefile_has_no_gnu_conditionals() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert ".POSIX:" in lines
    assert not [line for line in lines if line.startswith(("ifeq", "ifdef", "ifndef", "define"))]
