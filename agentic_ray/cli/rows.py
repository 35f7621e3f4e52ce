"""Rows of the tables that ``agentic-ray top`` shows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agentic_ray.pictures.wording import bytes_text, counted, seconds_text

Facts = Mapping[str, Any]
_BAR = 8


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, as its row shows it."""

    task_id: str
    cells: tuple[str, ...]


def _seconds(job: Facts) -> float:
    """Return how long a job has run, or ran; 0 if it has not begun."""
    if job["started_at"] is None:
        return 0.0
    return float((job["finished_at"] or datetime.now().timestamp()) - job["started_at"])


COLUMNS: Final[Mapping[str, Callable[[Facts], Any]]] = {
    "state": lambda job: str(job["state"]),
    "workload": lambda job: str(job["workload"]),
    "user": lambda job: str(job.get("user") or ""),
    "submitted": lambda job: float(job["created_at"]),
    "ran": _seconds,
    "id": lambda job: str(job["task_id"]),
}
"""Columns of the table of jobs, each with the value by which jobs are sorted."""

WIDTHS: Final[Mapping[str, int]] = {
    "state": 10,
    "workload": 17,
    "user": 10,
    "submitted": 11,
    "ran": 11,
    "id": 8,
}
"""Letters of each column; all of them, with a gap of two, fit in 80."""


def job_rows(jobs: Sequence[Facts], sorted_by: str, is_reversed: bool, words: str) -> list[JobRow]:
    """Return the rows of the jobs that have all ``words``, sorted by a column.

    Words are looked for in the state, the workload, the user and the id, in either case.
    """
    wanted = words.lower().split()
    found = [job for job in jobs if all(word in " ".join(_texts(job)).lower() for word in wanted)]
    found.sort(key=lambda job: (COLUMNS[sorted_by](job), job["task_id"]), reverse=is_reversed)
    return [
        JobRow(
            str(job["task_id"]),
            (
                str(job["state"]),
                _cut(str(job["workload"]), 17),
                _cut(str(job.get("user") or ""), 9),
                datetime.fromtimestamp(job["created_at"]).strftime("%H:%M:%S"),
                seconds_text(_seconds(job)) if job["started_at"] is not None else "",
                str(job["task_id"])[:8],
            ),
        )
        for job in found
    ]


def _texts(job: Facts) -> list[str]:
    return [str(job.get(name) or "") for name in ("state", "workload", "user", "task_id")]


def node_rows(cluster: Facts) -> list[tuple[str, ...]]:
    """Return a row for each node, and below it one for each of its GPUs."""
    rows: list[tuple[str, ...]] = []
    for node in cluster["nodes"]:
        taken, total = node["cpus_total"] - node["cpus_free"], node["cpus_total"]
        rows.append(
            (
                _cut(f"{node['host']} {node['node_id'][:8]}", 24),
                f"{_bar(taken, total)} {taken:g}/{total:g}",
                _memory(node["host_memory_free_bytes"], node["host_memory_total_bytes"]),
                "alive" if node["alive"] else "dead",
            )
        )
        rows += [_gpu_row(gpu) for gpu in node["gpus"]]
    return rows


def _gpu_row(gpu: Facts) -> tuple[str, ...]:
    busy = gpu["utilization"]
    return (
        _cut(f"  {gpu['index']}: {gpu['name']}", 24),
        "?" if busy is None else f"{_bar(busy, 1)} {busy:.0%}",
        _memory(gpu["memory_free_bytes"], gpu["memory_total_bytes"]),
        "healthy" if gpu["healthy"] else _cut(str(gpu["reason"] or "unhealthy"), 18),
    )


def _memory(free: int | None, total: int | None) -> str:
    if free is None or not total:
        return "?"
    return f"{_bar(total - free, total)} {bytes_text(total - free, 3)}"


def _bar(part: float, whole: float) -> str:
    filled = round(_BAR * min(max(part / whole, 0.0), 1.0)) if whole else 0
    return "█" * filled + "░" * (_BAR - filled)


def head_line(name: str, cluster: Facts, jobs: Sequence[Facts]) -> str:
    """Return the first line of the screen."""
    nodes = [node for node in cluster["nodes"] if node["alive"]]
    gpus = sum(len(node["gpus"]) for node in nodes)
    states = [job["state"] for job in jobs]
    parts = [
        name,
        f"{counted(len(nodes), 'node')}, {counted(gpus, 'GPU')}",
        f"{states.count('running')} running, {states.count('queued')} queued",
    ]
    return "  |  ".join(parts)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
