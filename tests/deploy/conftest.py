"""Parts of clusters, in processes, ports and folders of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploy_parts import Part, surroundings


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: the paths of Ray's sockets must fit into 107 characters."""
    made = Path(tempfile.mkdtemp(prefix="ar-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def start(tmp_path: Path, short_folder: Path) -> Iterator[Callable[..., Part]]:
    """Start a part: ``start(name, *command, **environment)``; all end with the test."""
    parts: list[Part] = []

    def one(name: str, *command: str, **environment: str) -> Part:
        parts.append(Part(command, tmp_path / f"{name}.log", surroundings() | environment))
        return parts[-1]

    yield one
    for part in parts:
        part.kill()
