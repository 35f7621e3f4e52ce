"""Dockerfile, .dockerignore, compose.yaml and the YAML files, by the tools that know them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy_manifests import ROOT, output, program
from packaging.requirements import Requirement

from agentic_ray import __version__

DOCKER = ROOT / "deploy" / "docker"
COMPOSE = ROOT / "deploy" / "compose.yaml"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
VARIANTS = ("cpu", "cuda12", "cuda13")
TOKENS = {"AGENTIC_RAY_TOKEN": "http-token", "RAY_AUTH_TOKEN": "ray-token"}


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    output(program("hadolint"), "--failure-threshold", "style", str(DOCKER / "Dockerfile"))


def test_yamllint_has_nothing_against_the_yaml_files() -> None:
    output(program("yamllint"), "--strict", "-c", str(ROOT / ".yamllint.yaml"), *_yaml_files())


def _yaml_files() -> list[str]:
    found = [ROOT / "cluster.yaml", *(ROOT / "deploy").rglob("*.yaml")]
    return [str(path) for path in found if "templates" not in path.parts]


@pytest.mark.parametrize("script", ["image.sh", "node.sh"])
def test_bash_reads_the_scripts(script: str) -> None:
    subprocess.run(["bash", "-n", str(DOCKER / script)], check=True)


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    (user,) = re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)
    assert int(user) > 10_000
    assert f"--uid {user}" in last
    assert "HEALTHCHECK" in last
    for line in re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE):
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", line)
    # KubeRay probes its pods with it.
    assert re.search(r"\bwget=", last)
    assert "agentic_ray" not in last, "sources belong into the first stage only"


def test_the_steps_of_the_dockerfile_are_those_of_the_script() -> None:
    for step in ("wheel", "install", "check"):
        assert f"image.sh {step} " in DOCKERFILE
    assert "pip install" not in DOCKERFILE
    assert "ARG VARIANT=cpu" in DOCKERFILE
    for variant in VARIANTS:
        assert variant in DOCKERFILE


def test_what_is_copied_is_there_and_reaches_the_engine() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    let_through = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    used = set()
    for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        sources = [word for word in words.split()[:-1] if not word.startswith("--")]
        for source in sources:
            assert list(ROOT.glob(source)), f"{source} is not there"
            assert source in let_through, f".dockerignore holds {source} back"
            used.add(source)
    assert used == set(let_through), "more reaches the engine than is copied"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_locked_versions_are_what_the_project_asks_for(variant: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked: dict[str, set[str]] = {}
    for line in (DOCKER / f"constraints-{variant}.txt").read_text().splitlines():
        if not line.startswith("#"):
            one = Requirement(line)
            (specifier,) = one.specifier
            assert specifier.operator == "==", line
            locked.setdefault(one.name, set()).add(specifier.version)
    extras = ["numba", "io", "postgres", "remote", *([variant] if variant != "cpu" else [])]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    for text in wanted:
        requirement = Requirement(text)
        versions = locked[requirement.name]
        assert all(requirement.specifier.contains(version) for version in versions), (
            text,
            versions,
        )


def test_compose_starts_a_master_and_two_workers() -> None:
    command = (program("docker-compose"), "-f", str(COMPOSE), "--profile", "gpu", "config")
    config = json.loads(output(*command, "--format", "json", **TOKENS))
    services = config["services"]
    assert set(services) == {"master", "worker", "worker-gpu"}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert services["worker"]["depends_on"]["master"]["condition"] == "service_healthy"
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    for name, service in services.items():
        assert service["command"] == [name.partition("-")[0]]
        assert service["cap_drop"] == ["ALL"]
        assert service["image"].startswith(f"agentic-ray:{__version__}")
        assert service["environment"]["RAY_AUTH_TOKEN"] == "ray-token"
        assert ("AGENTIC_RAY_TOKEN" in service["environment"]) == (name == "master")
    (port,) = services["master"]["ports"]
    assert port["host_ip"] == "127.0.0.1"
    (volume,) = services["master"]["volumes"]
    assert volume["target"] == "/var/lib/agentic-ray"
    assert "VOLUME /var/lib/agentic-ray" in DOCKERFILE


@pytest.mark.parametrize("missing", sorted(TOKENS))
def test_compose_does_not_start_without_a_secret(missing: str) -> None:
    given = {**TOKENS, missing: ""}
    with pytest.raises(AssertionError, match=f"{missing} is missing a value"):
        output(program("docker-compose"), "-f", str(COMPOSE), "config", "--quiet", **given)


def test_no_yaml_file_of_deploy_is_left_unchecked() -> None:
    """Each file is part of a rendering, or is the chart's or a file of its own."""
    kubernetes = ROOT / "deploy" / "kubernetes"
    used: set[Path] = set()
    for kustomization in kubernetes.rglob("kustomization.yaml"):
        used.add(kustomization)
        parsed = yaml.safe_load(kustomization.read_text())
        names = [*parsed.get("resources", []), *(p["path"] for p in parsed.get("patches", []))]
        used |= {(kustomization.parent / name).resolve() for name in names}
    assert set(kubernetes.rglob("*.yaml")) <= used
