"""What kustomize and helm make of deploy/, as documents, and what is found in them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "agentic-ray"

Document = dict[str, Any]


def program(name: str) -> str:
    """The path of a program, beside this Python or on the PATH; else the test is skipped."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make deploy-tools")
    return found


def output(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "NO_PROXY": "*", **environment},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@functools.cache
def kustomized(folder: str) -> tuple[Document, ...]:
    """The documents of a folder of deploy/kubernetes."""
    return _documents(output(program("kubectl"), "kustomize", str(KUBERNETES / folder)))


@functools.cache
def helmed(release: str, *settings: str) -> tuple[Document, ...]:
    """The documents of the chart with these settings."""
    options = [option for setting in settings for option in ("--set", setting)]
    return _documents(output(program("helm"), "template", release, str(CHART), *options))


def _documents(text: str) -> tuple[Document, ...]:
    return tuple(document for document in yaml.safe_load_all(text) if document)


@dataclass(frozen=True)
class Pod:
    """A pod template, and where it is."""

    where: str
    template: Document

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"].get("labels", {}))

    @property
    def spec(self) -> Document:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> set[str]:
        """Names of ports."""
        return {port["name"] for one in self.containers for port in one.get("ports", [])}


def pods(documents: tuple[Document, ...]) -> Iterator[Pod]:
    """All pod templates in the documents, also those within other kinds' specs."""

    def within(value: Any, where: str) -> Iterator[Pod]:
        if isinstance(value, dict):
            spec = value.get("spec")
            if isinstance(spec, dict) and "containers" in spec:
                yield Pod(where, value)
            for key, inner in value.items():
                yield from within(inner, f"{where}.{key}")
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from within(inner, f"{where}[{index}]")

    for document in documents:
        yield from within(document, f"{document['kind']} {document['metadata']['name']}")


def quantity(text: str) -> float:
    """A quantity of Kubernetes as a number."""
    for suffix, factor in (("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("Ti", 2**40), ("m", 1e-3)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)
