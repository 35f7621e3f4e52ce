"""`Desk`: the actor that controller and workers of a training tell what the caller is to know."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Final

import ray
from ray import exceptions as ray_errors

from agentic_ray.runtime.failures import PackedError

_ALIVE_SECONDS: Final = 60.0
"""A worker that does not answer for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of the present group: its actor, and where it runs."""

    actor: Any
    rank: int
    pid: int
    node_id: str


@dataclass(frozen=True, slots=True)
class News:
    """News of a training, since the caller last asked.

    Attributes
    ----------
    reports : dict of int to dict
        Metrics of the reports that came in, by their position in the curve.
    workers : tuple of (int, int, str)
        Rank, process id and node of each worker.
    groups : int
        Groups of workers that were started: one, and one more for each restart.
    failure : PackedError or None
        Error of the user's loop.
    """

    reports: dict[int, dict[str, Any]]
    workers: tuple[tuple[int, int, str], ...]
    groups: int
    failure: PackedError | None


@dataclass(slots=True)
class _State:
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    groups: int = 0
    failure: PackedError | None = None
    controller: Any = None


class Desk:
    """Actor that hears of a training. Its methods are called at the same time, by the caller, the
    controller and the workers. Without it no group of workers begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = _State()

    def group(self, controller: Any, members: tuple[Member, ...]) -> None:
        """Take in that a group of workers was started, by this controller."""
        with self._lock:
            self._state.controller = controller
            self._state.members = members
            self._state.groups += 1

    def report(self, index: int, metrics: dict[str, Any]) -> None:
        """Take in a report of the first worker."""
        with self._lock:
            self._state.reports[index] = metrics

    def failed(self, rank: int, pid: int, failure: PackedError) -> bool:
        """Take in that the loop of a worker raised; return whether that ends the training.

        Collective operations raise in all workers when one of them dies. So an error is the loop's
        own only if all workers of the group are alive after it.
        """
        with self._lock:
            members = self._state.members
        if (rank, pid) not in [(member.rank, member.pid) for member in members]:
            return False  # of a group that is gone
        calls = [member.actor.__ray_ready__.remote() for member in members]
        try:
            ray.get(calls, timeout=_ALIVE_SECONDS)
        except ray_errors.RayError:  # a worker is dead, or does not answer
            return False
        with self._lock:
            if self._state.failure is None:
                self._state.failure = failure
        return True

    def news(self) -> News:
        """Return the news since the last call."""
        with self._lock:
            state = self._state
            reports, state.reports = state.reports, {}
            return News(
                reports,
                tuple((one.rank, one.pid, one.node_id) for one in state.members),
                state.groups,
                state.failure,
            )

    def controller(self) -> Any:
        """Return the controller's handle; None if no group was started."""
        with self._lock:
            return self._state.controller
