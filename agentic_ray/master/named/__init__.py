"""Workloads that every service has, by name: reductions, expressions and tables of uploaded data.

Nothing that is received is evaluated or imported: functions are named, and the names are a list.
Importing this registers them, but loads neither Ray nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from agentic_ray.master.named import expressions, reductions, tables
from agentic_ray.master.workloads import Registry, registry

__all__ = ["register"]

_ALL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "sum_of_squares": reductions.sum_of_squares,
    "map_reduce": reductions.map_reduce,
    "array_expression": expressions.array_expression,
    "matmul": expressions.matmul,
    "describe": tables.describe,
    "word_count": tables.word_count,
    "group_by": tables.group_by,
}


def register(workloads: Registry = registry) -> None:
    """Add them, except where the name is taken."""
    known = workloads.snapshot()
    for name, function in _ALL.items():
        if name not in known:
            workloads.register(name, function, builtin=True)
