"""The processes of the Ray cluster that this process has joined, as far as they are on this host.

Only looked at here; `agentic_ray.testing.Chaos` kills them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil
import ray

from agentic_ray.errors import SessionError

Role = Literal["worker", "executor", "master", "node", "head"]

_TITLES: tuple[tuple[str, Role | None], ...] = (
    ("ray::CpuExecutor", "executor"),
    ("ray::GpuExecutor", "executor"),
    ("ray::MasterActor", "master"),
    ("ray::JobSupervisor", None),  # it carries a driver, perhaps this one
    ("ray::DashboardAgent", None),  # parts of the raylet, which ends with them
    ("ray::RuntimeEnvAgent", None),
    ("ray::", "worker"),
)


@dataclass(frozen=True, slots=True)
class RayProcess:
    """A process of the cluster.

    Parameters
    ----------
    role : {"worker", "executor", "master", "node", "head"}
        ``node`` is a raylet; ``head`` the raylet of the head node, with which the cluster ends.
        ``worker`` is any worker process that is neither an executor nor a master.
    pid : int
    started_at : float
        Seconds since the epoch; with the number it names the process for ever.
    title : str
        Name that the process gives itself.
    """

    role: Role
    pid: int
    started_at: float
    title: str


def session_name() -> str:
    """Return the name of the Ray session that this process has joined; else raise SessionError."""
    if not ray.is_initialized():
        raise SessionError("this process has joined no Ray cluster; call agentic_ray.init() first")
    return str(ray.get_runtime_context().get_session_name())


def processes_of(session: str) -> Sequence[RayProcess]:
    """Return raylets of a session and their workers, oldest first; never this process or above."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = [one for one in _processes_of(session) if one.pid not in spared]
    return sorted(found, key=lambda one: (one.started_at, one.pid))


def _processes_of(session: str) -> Iterator[RayProcess]:
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if process.name() != "raylet" or not _is_of(session, line):
                continue
            role: Role = "head" if "--head" in line else "node"
            yield RayProcess(role, process.pid, process.create_time(), "raylet")
            children = process.children()
        except psutil.Error:
            continue  # it has just ended
        for child in children:
            try:
                title = " ".join(child.cmdline()).strip()
                started_at = child.create_time()
            except psutil.Error:
                continue
            role_of_child = next((role for start, role in _TITLES if title.startswith(start)), None)
            if role_of_child is not None:
                yield RayProcess(role_of_child, child.pid, started_at, title)


def _is_of(session: str, line: Sequence[str]) -> bool:
    return any(part.rpartition("=")[2].rstrip("/").endswith(session) for part in line)
