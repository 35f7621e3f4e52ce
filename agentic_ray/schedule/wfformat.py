"""Workloads from WfCommons' WfFormat (schema 1.3 to 1.5): recorded runs of scientific workflows.

Takes the parsed JSON; reading files is the caller's. https://wfcommons.org/format
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import CostHint, Ref, Task, TaskGraph
from agentic_ray.schedule.workloads import FLOPS_PER_SECOND, Workload, codelet

_LEAST_SECONDS = 1e-6
_NUMBERED = re.compile(r"[_\-.]?(?:ID)?\d+$")


def parse_wfformat(document: Any) -> Workload:
    """Build a workload of the tasks, their recorded seconds and the bytes of the files they
    exchange.

    A recorded second is one on a device of speed 1. The files that a task writes for others count
    as one value. Tasks of one program share a codelet.

    Parameters
    ----------
    document : mapping
        As ``json.load`` gives it.

    Raises
    ------
    InvalidArgumentError
        The document is not WfFormat of these versions; the message says what is missing.
    CycleError
        The tasks depend on each other in a circle.
    """
    workflow = _mapping(_mapping(document, "document").get("workflow"), "workflow")
    if "specification" in workflow:
        entries, seconds, sizes = _specification(workflow)
    else:
        entries = _entries(workflow.get("tasks", workflow.get("jobs")), "workflow.tasks")
        seconds = {
            _key(one): one.get("runtimeInSeconds", one.get("runtime", 0.0)) for one in entries
        }
        sizes = {}
    names = {name: _key(one) for one in entries for name in (one.get("name"), _key(one)) if name}
    parents: dict[str, dict[str, None]] = {_key(one): {} for one in entries}
    for one in entries:
        for name in one.get("parents") or ():
            parents[_key(one)][_known(name, names)] = None
        for name in one.get("children") or ():
            parents[_known(name, names)][_key(one)] = None
    codelets = {program: codelet(program) for program in map(_program, entries)}
    tasks = [
        Task.of(
            codelets[_program(one)],
            *map(Ref, parents[_key(one)]),
            key=_key(one),
            cost=CostHint(
                flops=max(_number(seconds.get(_key(one), 0.0)), _LEAST_SECONDS) * FLOPS_PER_SECOND,
                written_bytes=_written(one, sizes),
            ),
        )
        for one in entries
    ]
    used = {key for task in tasks for key in task.dependencies}
    graph = TaskGraph(tasks, [task.key for task in tasks if task.key not in used])
    return Workload(str(document.get("name") or "wfformat"), graph)


def _specification(
    workflow: Mapping[str, Any],
) -> tuple[list[Mapping[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the tasks, seconds and sizes of files of schema 1.5."""
    specification = _mapping(workflow["specification"], "workflow.specification")
    entries = _entries(specification.get("tasks"), "workflow.specification.tasks")
    execution = _mapping(workflow.get("execution") or {}, "workflow.execution")
    runs = _entries(execution.get("tasks") or [], "workflow.execution.tasks")
    files = _entries(specification.get("files") or [], "workflow.specification.files")
    seconds = {_key(one): one.get("runtimeInSeconds", 0.0) for one in runs}
    return entries, seconds, {_key(one): one.get("sizeInBytes", 0) for one in files}


def _written(entry: Mapping[str, Any], sizes: Mapping[str, Any]) -> int:
    """Sum the bytes that a task writes."""
    total = sum(_number(sizes.get(name, 0)) for name in entry.get("outputFiles") or ())
    for file in entry.get("files") or ():
        if _mapping(file, "files").get("link") == "output":
            total += _number(file.get("sizeInBytes", file.get("size", 0)))
    return int(total)


def _program(entry: Mapping[str, Any]) -> str:
    command = entry.get("command")
    named = entry.get("category") or (command.get("program") if isinstance(command, dict) else "")
    return str(named or _NUMBERED.sub("", str(entry.get("name") or _key(entry))) or "task")


def _key(entry: Mapping[str, Any]) -> str:
    key = entry.get("id") or entry.get("name")
    if not isinstance(key, str):
        raise InvalidArgumentError("WfFormat: a task or file has neither id nor name")
    return key


def _known(name: Any, names: Mapping[str, str]) -> str:
    if name not in names:
        raise InvalidArgumentError(f"WfFormat: {name!r} is a parent or child and no task")
    return names[name]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidArgumentError(f"WfFormat: {value!r} is no time or size")
    return float(value)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"this is not WfFormat 1.3 to 1.5: {name} is no object")
    return value


def _entries(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidArgumentError(f"this is not WfFormat 1.3 to 1.5: {name} is no list")
    return [_mapping(one, name) for one in value]
