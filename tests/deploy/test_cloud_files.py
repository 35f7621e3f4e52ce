"""``deploy/ray-up/*.yaml``: Ray takes them as they are, and scales by them as they say.

Ray's own schema, preparation and scheduler of its autoscaler look at the files; only the cloud is
not asked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from . import header

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy" / "ray-up").glob("*.yaml"))
PREPARED = ("initialization_commands", "setup_commands", "worker_start_ray_commands")

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_there_is_a_file_for_each_cloud() -> None:
    assert [file.stem for file in FILES] == ["aws", "azure", "gcp"]


def read(file: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(file.read_text())
    assert isinstance(loaded, dict)
    return loaded


@each_file
def test_ray_takes_the_file_and_prepares_it(file: Path) -> None:
    validate_config(read(file))
    prepared = prepare_config(read(file))
    validate_config(prepared)
    assert prepared["provider"]["type"] == file.stem
    # Nothing of Ray's own defaults (a wheel of a nightly Ray, an open dashboard) has come in.
    for name in PREPARED:
        assert prepared[name] == read(file)[name]
    kinds = prepared["available_node_types"]
    assert set(kinds) == {"head", "cpu-spot", "cpu", "gpu-spot", "gpu"}
    assert prepared["head_node_type"] == "head"
    assert kinds["head"]["resources"]["CPU"] == 0
    assert all(kind["max_workers"] <= prepared["max_workers"] for kind in kinds.values())


@each_file
def test_the_cluster_is_closed_to_others(file: Path) -> None:
    loaded = read(file)
    head = " ".join(loaded["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in file.read_text()
    assert loaded["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    setup = loaded["setup_commands"]
    assert "chmod 600 ~/.ray/auth_token" in setup
    assert any("RAY_AUTH_MODE=token" in command for command in setup)


@each_file
def test_setup_is_that_of_machines_on_hand_but_for_the_driver(file: Path) -> None:
    """What tests/deploy/test_ray_up.py runs is what clouds run."""
    own = read(ROOT / "cluster.yaml")
    loaded = read(file)
    assert [x for x in loaded["setup_commands"] if "extra" not in x] == [
        x for x in own["setup_commands"] if "extra" not in x
    ]


@each_file
def test_the_header_has_the_commands_of_machines_on_hand(file: Path) -> None:
    """Which tests/deploy/test_ray_up.py runs."""
    tested = header.commands(ROOT / "cluster.yaml")
    shown = [
        line.replace(f"deploy/ray-up/{file.name}", "cluster.yaml")
        for line in header.commands(file)
        if "aws ssm" not in line and "/aws/service" not in line
    ]
    assert set(shown) <= set(tested)
    assert {"ray up --yes cluster.yaml", "ray down --yes cluster.yaml"} <= set(shown)


def test_the_page_shows_what_the_file_has() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text()
    own = (ROOT / "cluster.yaml").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    assert [language for language, _ in blocks] == ["yaml"]
    fields = [re.sub(r" +#.*", "", line) for line in own.splitlines()]
    for line in blocks[0][1].splitlines():
        assert line in fields
    table = page[page.index("| command |") : page.index("Each machine gets")]
    told = [line.split("`")[1] for line in table.splitlines()[2:] if line]
    tested = header.commands(ROOT / "cluster.yaml")
    for command in told:
        words = [word for word in command.split() if not word.isupper()]
        fixed = [word for word in words if not word.startswith(("'", "FILE"))]
        assert any(all(word in line for word in fixed) for line in tested), command


def launched(
    file: Path, demands: list[dict[str, float]], failing: tuple[str, ...] = ()
) -> dict[str, int]:
    """How many nodes of which type Ray's autoscaler would start for ``demands``.

    Parameters
    ----------
    failing : tuple of str
        Types of which the cloud has just had none.
    """
    config = AutoscalingConfig(read(file), skip_content_hash=True)
    scores = {kind: float(kind not in failing) for kind in read(file)["available_node_types"]}
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(
            [ResourceRequestUtil.make(demand) for demand in demands]
        ),
        cloud_resource_availabilities=scores,
        recoverable_resource_availabilities=scores,
    )
    reply = ResourceDemandScheduler(None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


@each_file
def test_spot_machines_are_taken_first_and_others_while_there_are_none(file: Path) -> None:
    assert launched(file, []) == {}
    assert launched(file, [{"CPU": 1}] * 40) == {"cpu-spot": 3}
    assert launched(file, [{"GPU": 1}] * 2) == {"gpu-spot": 2}
    assert launched(file, [{"CPU": 1}], failing=("cpu-spot",)) == {"cpu": 1}
    assert launched(file, [{"GPU": 1}], failing=("gpu-spot",)) == {"gpu": 1}


@each_file
def test_the_cluster_stays_within_its_limits(file: Path) -> None:
    assert launched(file, [{"GPU": 1}] * 100) == {"gpu-spot": 4, "gpu": 4}
    asked = launched(file, [{"CPU": 16}] * 100)
    assert asked["cpu-spot"] == 12
    # Ray's limit of nodes is one above that of workers, for the head, which is not there in here.
    assert sum(asked.values()) == read(file)["max_workers"] + 1
