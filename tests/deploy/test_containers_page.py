"""Each shell line and YAML block of docs/containers.md, as far as it goes without a cluster."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from deploy_manifests import ROOT, kustomized, output, program

PAGE = (ROOT / "docs" / "containers.md").read_text()
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
COMPOSE = ["docker", "compose", "-f", "deploy/compose.yaml"]
TOKENS = {"AGENTIC_RAY_TOKEN": "a", "RAY_AUTH_TOKEN": "b"}


@pytest.mark.parametrize("line", LINES)
def test_a_line_does_what_the_page_says(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(re.sub(r"\$\([^)]*\)", "secret", line))
    match words:
        case ["docker", "build", "-f", dockerfile, "-t", tag, *rest, "."]:
            text = Path(dockerfile).read_text()
            assert tag.startswith("agentic-ray:")
            for flag, setting in zip(rest[::2], rest[1::2], strict=True):
                assert flag == "--build-arg"
                assert f"ARG {setting.partition('=')[0]}=" in text
                assert setting.partition("=")[2] in text
        case [*start] if start[:4] == COMPOSE:
            _compose(words)
        case ["kubectl", "create", "secret", *_]:
            made = output(program("kubectl"), *words[1:], "--dry-run=client", "-o", "yaml")
            secret = yaml.safe_load(made)
            assert set(secret["data"]) == {"http_token", "auth_token", "redis_password"}
            assert secret["metadata"]["name"] == "agentic-ray"
        case ["kubectl", "apply", "-k", folder]:
            assert kustomized(str(Path(folder).relative_to("deploy/kubernetes")))
        case ["helm", "install" | "upgrade", release, "deploy/helm/agentic-ray", *options]:
            output(program("helm"), "template", release, "deploy/helm/agentic-ray", *options)
        case ["helm", "install", _, "kuberay/kuberay-operator", "--version", version]:
            # The schema of the tests is that of this version.
            assert version.startswith("1.6.")
        case ["kubectl", "port-forward", service, "8080:8080"]:
            name = service.removeprefix("service/")
            found = [
                one["spec"]["ports"]
                for one in kustomized("overlays/kuberay")
                if (one["kind"], one["metadata"]["name"]) == ("Service", name)
            ]
            assert [port["port"] for port in found[0]] == [8080]
        case ["agentic-ray", command, *options]:
            told = output(program("agentic-ray"), command, "--help")
            for option in options:
                assert not option.startswith("--") or option in told
        case ["export", *settings]:
            for setting in settings:
                assert setting.partition("=")[0] in (ROOT / "deploy/docker/node.sh").read_text()
        case _:
            pytest.fail(f"nothing checks: {line}")


def _compose(words: list[str]) -> None:
    """The file can be read with the options before the command, and the command has the others."""
    at = next(index for index, word in enumerate(words) if word in ("up", "down"))
    compose = program("docker-compose")
    output(compose, *words[2:at], "config", "--quiet", **TOKENS)
    told = output(compose, words[at], "--help")
    services = output(compose, *words[2:at], "config", "--services", **TOKENS).split()
    for word in words[at + 1 :]:
        if word.startswith("--"):
            assert word in told
        else:
            assert word.partition("=")[0] in services


def test_the_yaml_blocks_are_values_of_the_chart(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        values = tmp_path / f"values{number}.yaml"
        values.write_text(block)
        chart = str(ROOT / "deploy" / "helm" / "agentic-ray")
        made = output(program("helm"), "template", "team", chart, "--values", str(values))
        documents = [one for one in yaml.safe_load_all(made) if one]
        (cluster,) = (one for one in documents if one["kind"] == "RayCluster")
        groups = [group["groupName"] for group in cluster["spec"]["workerGroupSpecs"]]
        assert groups == ["cpu", "h200"]


def test_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`(deploy/[\w./-]+)`", PAGE))
    assert named
    for name in named:
        if "VARIANT" not in name:
            assert (ROOT / name).exists(), name


def test_the_tables_are_those_of_the_entry_point() -> None:
    script = (ROOT / "deploy" / "docker" / "node.sh").read_text()
    for word in ("master", "head", "serve", "worker", "healthy"):
        assert f"| `{word}` |" in PAGE
        assert re.search(rf"^  {word}\)", script, re.MULTILINE)
    for variable in re.findall(r"^\| `([A-Z_]+)`", PAGE, re.MULTILINE):
        assert variable in script
