"""Grafana's dashboard shows figures that the service really gives."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import replace

import pytest
from deploy_manifests import ROOT
from starlette.testclient import TestClient

import agentic_ray as ar
from agentic_ray.service.http import create_app
from agentic_ray.telemetry import ClusterState, GpuState

MONITORING = ROOT / "deploy" / "kubernetes" / "components" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
]
VARIABLES = [variable["name"] for variable in DASHBOARD["templating"]["list"]]


def add(params: dict[str, int]) -> int:
    total: int = ar.map_reduce(abs, list(range(params["count"])), operator.add)
    return total


def with_card(state: ClusterState) -> ClusterState:
    """The cluster as it is, and a card in its first node."""
    card = GpuState(
        "GPU-1", 0, "A card", memory_total_bytes=10, memory_free_bytes=4, utilization=0.5,
        process_count=1, temperature_celsius=50.0, power_watts=100.0,
    )  # fmt: skip
    first, *others = state.nodes
    first = replace(first, gpus=(card,), heartbeat_age_seconds=0.5, cpu_fraction=0.5)
    return replace(state, nodes=(first, *others))


@pytest.fixture
def scraped(ray_session: ar.Session) -> str:
    """What Prometheus gets after a job that used the cluster."""
    ar.workload("dashboard-add")(add)
    with ar.Master(cache_bytes=0) as master:
        assert master.submit("dashboard-add", {"count": 10}).result(120) == 45
        app = create_app(master, token="t", cluster=lambda: with_card(ar.cluster()))
        client = TestClient(app, base_url="http://master:8080")
        answer = client.get("/metrics", headers={"Authorization": "Bearer t"})
        assert client.get("/metrics").status_code == 401
    assert answer.status_code == 200
    return answer.text


def test_every_figure_and_label_of_the_dashboard_is_scraped(scraped: str) -> None:
    names = {name for text in EXPRESSIONS for name in re.findall(r"\bagentic_ray_\w+", text)}
    (query,) = (
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["name"] == "namespace"
    )
    names |= set(re.findall(r"\bagentic_ray_\w+", query))
    given = set(re.findall(r"^(agentic_ray_\w+)", scraped, re.MULTILINE))
    assert len(names) > 5
    assert names <= given
    states = {state for text in EXPRESSIONS for state in re.findall(r'state="(\w+)"', text)}
    assert states <= set(re.findall(r'state="(\w+)"', scraped))


def test_nothing_that_is_scraped_is_left_out(scraped: str) -> None:
    given = set(re.findall(r"^(agentic_ray_\w+)", scraped, re.MULTILINE))
    assert {name for name in given if not any(name in text for text in EXPRESSIONS)} == set()


def test_the_dashboard_is_whole() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for text in EXPRESSIONS:
        assert text.count("(") == text.count(")")
        assert text.count("{") == text.count("}")
        own = set(re.findall(r"\$(\w+)", text)) - {"__rate_interval"}
        assert own <= set(VARIABLES)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for first in places:
        for second in places:
            if first is not second:
                apart = (
                    first["x"] + first["w"] <= second["x"]
                    or second["x"] + second["w"] <= first["x"]
                    or first["y"] + first["h"] <= second["y"]
                    or second["y"] + second["h"] <= first["y"]
                )
                assert apart, (first, second)
