"""Describes the end of one run of a workload's function: the function's own, or its process's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentic_ray.master.jobs import JobFailure


@dataclass(frozen=True, slots=True)
class Done:
    """The function has returned, or raised."""

    text: str = ""
    result: Any = None
    failure: JobFailure | None = None
    metrics: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """The process has ended before its job had. ``how`` says so in words; ``of_memory`` if it was
    killed because it grew past what it may."""

    how: str
    of_memory: bool = False
