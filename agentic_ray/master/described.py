"""Describes the journal, options and workloads of a master, so that a second program can tell
whether it is the one that it wants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentic_ray.errors import SerializationError
from agentic_ray.graph.keys import content_key
from agentic_ray.master.workloads import Workload


@dataclass(frozen=True, slots=True)
class Description:
    """Journal, options, workloads and files of workloads, each with a digest of its content."""

    journal: str
    options: Mapping[str, Any]
    workloads: Mapping[str, str]
    files: Mapping[str, str]

    def lacks(self, wanted: Description) -> list[str]:
        """List the parts of ``wanted`` that are not so here; a program that names nothing wants
        nothing else."""
        found = []
        if self.journal != wanted.journal:
            found.append("another journal")
        for name, value in wanted.options.items():
            if name not in self.options or self.options[name] != value:
                found.append(f"another {name}")
        for kind, here, there in (
            ("workload", self.workloads, wanted.workloads),
            ("file", self.files, wanted.files),
        ):
            found += [
                f"{'no' if name not in here else 'another'} {kind} {name}"
                for name, digest in there.items()
                if here.get(name) != digest
            ]
        return found


def digests(workloads: Mapping[str, Workload]) -> dict[str, str]:
    """For each workload that is not built in, a digest of what it does."""
    return {name: _digest(made) for name, made in workloads.items() if not made.builtin}


def file_digests(paths: Sequence[str | Path]) -> dict[str, str]:
    """For each file of workloads the digest of its content; of a package that of all its files."""
    found = {}
    for path in paths:
        folder = Path(path)
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes() if file.is_file() else b"")
        found[str(path)] = digest.hexdigest()
    return found


def _digest(workload: Workload) -> str:
    told = (workload.name, workload.version, workload.effects, workload.cache)
    try:
        return content_key("workload", *told, workload.function, workload.schema)
    except SerializationError:  # it holds what cannot be looked into
        return content_key("workload", *told, str(getattr(workload.function, "__qualname__", "")))
