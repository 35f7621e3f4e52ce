"""`Watch`: collects the work that a block of code puts on the cluster, for people to look at.

It changes nothing about the work: where it runs, its order and its results stay the same.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agentic_ray.pictures import Span
    from agentic_ray.runtime.run import Run
    from agentic_ray.schedule.metrics import PlacementRecord


class WatchedJob(Protocol):
    """A job, as far as a watch looks at it."""

    id: str

    def placements(self) -> list[PlacementRecord]:
        """List where its finished bundles ran."""
        ...


@dataclass(slots=True, eq=False)
class Watch:
    """Work of a block of code.

    Attributes
    ----------
    runs : list of Run
        Graphs that were submitted to the session.
    here : list of Span
        Plans of arrays that were computed in this process, without the session.
    jobs : list of WatchedJob
        Jobs that were given to a master of this process.
    """

    runs: list[Run] = field(default_factory=list)
    here: list[Span] = field(default_factory=list)
    jobs: list[WatchedJob] = field(default_factory=list)

    def sees(self, run: Run) -> None:
        """Take in a graph that was just submitted. (In the thread that submitted it.)"""
        self.runs.append(run)

    def sees_here(self, span: Span) -> None:
        """Take in a plan that was just computed in this process."""
        self.here.append(span)


_watches: contextvars.ContextVar[tuple[Watch, ...]] = contextvars.ContextVar("watches", default=())


def watches() -> tuple[Watch, ...]:
    """Return those that look at the code that runs now."""
    return _watches.get()


def look_away() -> None:
    """Let nobody look at what the thread that calls this does from now on."""
    _watches.set(())


@contextlib.contextmanager
def watching(watch: Watch | None = None) -> Iterator[Watch]:
    """Collect what this thread, and the code it awaits, puts on the cluster inside the block."""
    watch = Watch() if watch is None else watch
    token = _watches.set((*_watches.get(), watch))
    try:
        yield watch
    finally:
        _watches.reset(token)
