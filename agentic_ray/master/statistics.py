"""Counts of a master, for monitoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentic_ray.master.jobs import JobState

FIGURES = ("efficiency", "imbalance", "decomposition", "recovery")
"""E, L, D and F, by their names in `schedule.metrics.Metrics`."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the master began; ``queued`` and ``running`` are now.

    ``figures`` are sums of E, L, D and F over the ``measured`` jobs, those that used the cluster;
    ``queued_bytes`` are the parameters of the jobs that wait, as JSON text.
    """

    submitted: int
    queued: int
    running: int
    finished: Mapping[JobState, int]
    measured: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    queued_bytes: int = 0


class Tally:
    """Counts jobs as they come and go. Called under the master's lock."""

    def __init__(self) -> None:
        self._submitted = 0
        self._finished: Counter[JobState] = Counter()
        self._measured = 0
        self._figures = dict.fromkeys(FIGURES, 0.0)

    def submitted(self) -> None:
        """A job was accepted."""
        self._submitted += 1

    def finished(self, state: JobState) -> None:
        """A job has ended."""
        self._finished[state] += 1

    def measured(self, figures: Mapping[str, Any]) -> None:
        """A job that used the cluster has these figures."""
        self._measured += 1
        for name in FIGURES:
            self._figures[name] += figures[name]

    def statistics(self, queued: int, running: int, queued_bytes: int = 0) -> Statistics:
        """Return the counts so far, with the queue's figures of this moment."""
        finished = {state: self._finished[state] for state in JobState if state.finished}
        return Statistics(
            self._submitted,
            queued,
            running,
            finished,
            self._measured,
            dict(self._figures),
            queued_bytes,
        )
