"""What the Dispatcher remembers of graphs, bundles and attempts.

Data only; the deciding is in ``dispatcher``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import attrgetter

from agentic_ray.graph.task import Bundle, Resources
from agentic_ray.schedule.events import Process, ValueInfo
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.view import Executor

Lane = tuple[tuple[str, ...], bool]
"""Device kinds, best first, and whether it is opaque: what decides where a bundle may go."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how soon a bundle is tried again.

    Parameters
    ----------
    max_failures : int
        Deaths of the bundle's own executor that it may survive.
    max_losses : int
        Losses it had no part in (node gone, input gone).
    max_user_retries : int
        Exceptions of the user's code that were asked to be tried again (``retry_on``).
    max_too_large : int
        Times that it ran out of a node's memory while nothing else of ours ran there.
    base_seconds, cap_seconds : float
        Back-off: ``base * 2**(n - 1)`` up to the cap, plus up to half of it as jitter that
        depends on the bundle and the count only.
    patience_seconds : float
        How long ready work waits for a kind of device that the cluster has not got (any more)
        before its graph fails. With no node at all it waits for the first.
    """

    max_failures: int = 4
    max_losses: int = 32
    max_user_retries: int = 3
    max_too_large: int = 1
    base_seconds: float = 0.05
    cap_seconds: float = 10.0
    patience_seconds: float = 30.0

    def delay_seconds(self, key: str, failures: int) -> float:
        plain = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 64))
        jitter = zlib.crc32(f"{key}/{failures}".encode()) / 2**32
        return plain * (1 + jitter / 2)


@dataclass(slots=True, eq=False)
class Record:
    """A bundle's state. Ready when nothing is missing and it is neither done nor running.

    ``missing`` counts the inputs that are not in the graph's values, also after they were
    released. ``again``: it was done and is to be done again because values were lost.
    ``crashed``: it died with its process; ``watched``: under watch too, which told what there is
    to tell. ``queued``: it is among the ready, the planned or the delayed. ``order``: the smaller,
    the sooner it is offered. ``plan`` is its placement on an executor that has no room for it yet,
    ``plan_seconds`` what that is counted for.
    """

    bundle: Bundle
    graph: Graph
    bundle_id: int
    lane: Lane
    resources: Resources
    missing: int = 0
    order: float = 0.0
    done: bool = False
    again: bool = False
    queued: bool = False
    plan: Placement | None = None
    plan_seconds: float = 0.0
    running: int = 0
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    user_failures: int = 0
    too_large: int = 0
    crashed: bool = False
    watched: bool = False
    note: str = ""


@dataclass(slots=True, eq=False)
class Graph:
    """A graph's state: its bundles, who makes and who takes each value, and which values there
    are. ``sequence`` are its bundles, most urgent first, if it is small enough to be planned whole.
    ``makers`` are looked up only once values were lost, None until then.
    """

    graph_id: str
    outputs: frozenset[str]
    priority: int
    records: list[Record] = field(default_factory=list)
    makers: dict[str, Record] | None = None
    consumers: dict[str, list[Record]] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    values: dict[str, ValueInfo] = field(default_factory=dict)
    sequence: list[Record] = field(default_factory=list)
    outputs_missing: int = 0
    finished: bool = False
    over: bool = False

    def maker(self, key: str) -> Record | None:
        """The bundle that makes a value; None if none of this graph does."""
        if self.makers is None:
            self.makers = {key: record for record in self.records for key in record.bundle.outputs}
        return self.makers.get(key)


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a bundle on an executor. ``begun_seconds`` None: it was sent ahead and is not
    known to have begun. ``expected_seconds`` is when it is expected to end. ``beside``: its
    process died before, or may have, with others in it."""

    record: Record
    executor: Executor
    resources: Resources
    predicted_seconds: float
    sent_seconds: float
    begun_seconds: float | None
    expected_seconds: float
    process: Process = "shared"
    beside: bool = False
    started: bool = False
    cancelled: bool = False

    def ends_at(self, now: float) -> float:
        """When it may end: as expected; if it is late, soon; if it is very late, never."""
        late = now - self.expected_seconds
        if late <= 0:
            return self.expected_seconds
        return now + late if late <= self.predicted_seconds / 2 else math.inf


urgency = attrgetter("order", "bundle_id")
"""What ready and planned bundles are sorted by, most urgent first."""


def traits_of(
    bundle: Bundle, alike: dict[Hashable, tuple[Lane, Resources, int]]
) -> tuple[Lane, Resources, int]:
    """Lane, resources and priority of a bundle, looked up in ``alike`` if one like it came before.

    ``alike`` holds identities, so it must not outlive the bundles.
    """
    if len(bundle.tasks) > 1:
        return (bundle.kinds(), bundle.opaque), bundle.resources, bundle.priority
    task = bundle.tasks[0]
    key = (id(task.codelet), id(task.resources), task.tag, task.priority)
    found = alike.get(key)
    if found is None:
        found = ((bundle.kinds(), bundle.opaque), bundle.resources, bundle.priority)
        alike[key] = found
    return found


def codelet_names(bundle: Bundle) -> str:
    return ", ".join(dict.fromkeys(task.codelet.name for task in bundle.tasks))
