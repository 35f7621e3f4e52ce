"""Data that the Dispatcher keeps of graphs, bundles and attempts.

Data only; ``dispatcher`` decides.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from agentic_ray.graph.task import Bundle, Resources, Where
from agentic_ray.schedule.events import Location, MemoryUse, Process, ValueInfo
from agentic_ray.schedule.view import Executor

Lane = tuple[tuple[str, ...], bool, Where]
"""Facts that decide where a bundle may go: the device kinds, best first, whether it is opaque, and
what its node must have."""


_MOST_LOCATIONS = 4096
"""Most locations that a graph keeps for its values to share."""


class Traits(NamedTuple):
    """Properties that alike bundles share. Those of smaller ``order`` are offered sooner."""

    lane: Lane
    resources: Resources
    order: float


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Limits on how often and how soon a bundle is tried again.

    Parameters
    ----------
    max_failures : int
        Deaths of the bundle's own executor that it may survive.
    max_losses : int
        Losses without its part (node gone, input gone).
    max_user_retries : int
        Exceptions of the user's code that the caller asked to be retried (``retry_on``).
    max_too_large : int
        Times that it ran out of a node's memory while nothing else of ours ran there.
    base_seconds, cap_seconds : float
        Back-off: ``base * 2**(n - 1)`` up to the cap, plus up to half of it as jitter that
        depends on the bundle and the count only.
    patience_seconds : float
        Seconds that ready work waits for a kind of device that the cluster lacks (any more) before
        its graph fails.
    no_node_seconds : float
        Seconds that work waits for a node while there is none at all.
    may_grow : bool
        Whether an autoscaler may bring kinds of devices that the cluster lacks. Work that needs one
        is then not refused; it waits for ``no_node_seconds``.
    memory_wait_seconds : float
        Seconds for which a bundle that was killed for want of memory is tried again while other
        programs hold that memory.
    """

    max_failures: int = 4
    max_losses: int = 32
    max_user_retries: int = 3
    max_too_large: int = 1
    base_seconds: float = 0.05
    cap_seconds: float = 10.0
    patience_seconds: float = 30.0
    no_node_seconds: float = 300.0
    memory_wait_seconds: float = 300.0
    may_grow: bool = False

    @property
    def device_wait_seconds(self) -> float:
        """Seconds that work waits for a kind of device that the cluster lacks."""
        return self.no_node_seconds if self.may_grow else self.patience_seconds

    def delay_seconds(self, key: str, failures: int) -> float:
        plain = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 64))
        jitter = zlib.crc32(f"{key}/{failures}".encode()) / 2**32
        return plain * (1 + jitter / 2)


@dataclass(slots=True, eq=False)
class Record:
    """A bundle's state. Ready when nothing is missing and it is neither done nor running.

    ``missing`` counts the inputs that are not in the graph's values, also after they were released.
    ``again``: the bundle was done and must be done again because values were lost. ``begun``: an
    attempt was lost that may have done a part of the work. ``crashed``: it died with its process;
    ``watched``: it also died under watch, which has reported all it can. ``starved_at``: when it
    was first killed because other programs held its node's memory; ``starved_by``: those programs,
    the last time. ``queued``: it is among the ready, the planned or the delayed. ``order``: the
    bundle with the smaller one is offered sooner. ``plan`` are the fields of its placement on an
    executor that has no room for it yet (a plain tuple, which the garbage collector need not look
    at again), ``plan_seconds`` the seconds that the plan counts for. Of a function on cards:
    ``short`` are the cards (node and device) on which it ran out of memory, ``waits`` the times
    that other programs took the memory it was admitted for, ``rounds`` the times that it was tried
    on all cards anew, ``waits_since`` is since when it finds no card with room.
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
    begun: bool = False
    queued: bool = False
    plan: tuple[object, ...] | None = None
    plan_seconds: float = 0.0
    running: int = 0
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    user_failures: int = 0
    too_large: int = 0
    crashed: bool = False
    watched: bool = False
    starved_at: float | None = None
    starved_by: MemoryUse | None = None
    short: frozenset[tuple[str, str]] = frozenset()
    waits: int = 0
    rounds: int = 0
    waits_since: float | None = None
    note: str = ""


@dataclass(slots=True, eq=False)
class Graph:
    """A graph's state: its bundles, the makers and the takers of each value, and the values that
    exist. ``sequence`` are its bundles, most urgent first, if it is small enough to be planned
    whole. ``makers`` are looked up only once values were lost, None until then.

    ``bundles`` are those submitted, ``traits`` theirs, and ``first_id`` is the id of the first.
    Millions of bundles that need no value may be ready at once. So such a bundle has a record, in
    ``records`` by its id, only from when it is taken to be placed until it is done; the next bundle
    then reuses the object. ``ended`` keeps which are done, and ``untaken`` counts those still to be
    taken. (Objects made and dropped all the time are a burden to Python's garbage collector, which
    walks over many of them.)
    """

    graph_id: str
    outputs: frozenset[str]
    priority: int
    first_id: int = 0
    bundles: Sequence[Bundle] = ()
    traits: list[Traits] = field(default_factory=list)
    records: dict[int, Record] = field(default_factory=dict)
    ended: bytearray = field(default_factory=bytearray)
    untaken: int = 0
    makers: dict[str, int] | None = None
    consumers: dict[str, list[Record]] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    values: dict[str, Location] = field(default_factory=dict)
    locations: dict[Hashable, Location] = field(default_factory=dict)
    sequence: list[Record] = field(default_factory=list)
    outputs_missing: int = 0
    finished: bool = False
    over: bool = False
    _spare: list[Record] = field(default_factory=list)

    def record(self, bundle_id: int) -> Record:
        """Return the state of a bundle; make it if there is none, because the bundle is new, waits
        to be taken, or is done."""
        found = self.records.get(bundle_id)
        if found is None:
            index = bundle_id - self.first_id
            bundle = self.bundles[index]
            lane, resources, order = self.traits[index]
            if self._spare:  # all its other fields are as in a new record
                found = self._spare.pop()
                found.bundle, found.bundle_id = bundle, bundle_id
                found.lane, found.resources, found.order = lane, resources, order
            else:
                found = Record(bundle, self, bundle_id, lane, resources, order=order)
            self.records[bundle_id] = found
            found.attempts = ended = self.ended[index]
            found.done = ended > 0
            found.missing = len(bundle.inputs)
            found.queued = not (ended or found.missing)
        return found

    def forget(self, record: Record) -> None:
        """Keep of a done bundle only that it is done. Its record is dropped if it took no values,
        went well at once, and is as it was submitted."""
        if record.attempts > 1 or record.queued or record.bundle.inputs or self.sequence:
            return
        bundle_id = record.bundle_id
        index = bundle_id - self.first_id
        if index < len(self.bundles) and record.bundle is self.bundles[index]:
            self.ended[index] = 1
            self._spare.append(self.records.pop(bundle_id))

    def location(self, info: ValueInfo) -> Location:
        """Return where a value is; values of one size at one place share the object."""
        alike = (info.size_bytes, info.node_id, info.device, info.sent_seconds)
        found = self.locations.get(alike)
        if found is None:
            if len(self.locations) >= _MOST_LOCATIONS:
                self.locations.clear()
            found = self.locations[alike] = Location(*alike)
        return found

    def maker(self, key: str) -> Record | None:
        """Return the bundle that makes a value; None if no bundle of this graph does."""
        if self.makers is None:
            ids = range(self.first_id, self.first_id + len(self.bundles))
            self.makers = {
                key: bundle_id
                for bundle_id, bundle in zip(ids, self.bundles, strict=True)
                for key in bundle.outputs
            }
            for record in self.records.values():  # bundles may have been split
                self.makers |= dict.fromkeys(record.bundle.outputs, record.bundle_id)
        maker = self.makers.get(key)
        return None if maker is None else self.record(maker)

    def remaker(self, key: str) -> Record | None:
        """Return the bundle that makes a value, if it may be one that makes lost values again."""
        return None if self.makers is None else self.records.get(self.makers.get(key, -1))

    @property
    def under_way(self) -> list[Record]:
        """Records of the running bundles, in the order of the bundles."""
        running = [record for record in self.records.values() if record.running]
        return sorted(running, key=attrgetter("bundle_id"))


@dataclass(slots=True, eq=False)
class Attempt:
    """A try of a bundle on an executor. ``begun_seconds`` None: the bundle was sent ahead and may
    not have begun. ``expected_seconds`` is when it is expected to end. ``beside``: its process died
    before, or may have, with others in it. ``host``: the executor whose CPUs and memory a function
    on a card takes beside it."""

    record: Record
    executor: Executor
    resources: Resources
    predicted_seconds: float
    sent_seconds: float
    begun_seconds: float | None
    expected_seconds: float
    process: Process = "shared"
    host: Executor | None = None
    beside: bool = False
    started: bool = False
    cancelled: bool = False

    def ends_at(self, now: float) -> float:
        """Return when it may end: as expected; if it is late, soon; if it is very late, never."""
        late = now - self.expected_seconds
        if late <= 0:
            return self.expected_seconds
        return now + late if late <= self.predicted_seconds / 2 else math.inf


urgency = attrgetter("order", "bundle_id")
"""Key by which ready and planned bundles are sorted, most urgent first."""


def all_traits(
    bundles: Sequence[Bundle], ranks: Sequence[float], order: Callable[[int, float], float]
) -> list[Traits]:
    """Return the traits of each bundle; alike bundles share one object.

    Parameters
    ----------
    ranks : sequence of float
        Rank of each bundle, in seconds.
    order : callable
        The order of a bundle, from its priority and its rank.
    """
    # Identities stand for the objects here, which live as long as the bundles.
    alike: dict[Hashable, Traits] = {}
    lanes: dict[Hashable, tuple[Lane, Resources]] = {}
    found: list[Traits] = []
    for bundle, rank in zip(bundles, ranks, strict=True):
        tasks = bundle.tasks
        if len(tasks) > 1:
            resources = bundle.resources
            lane = (bundle.kinds(), bundle.opaque, resources.where)
            found.append(Traits(lane, resources, order(bundle.priority, rank)))
            continue
        task = tasks[0]
        key = (id(task.codelet), id(task.resources), task.tag, task.priority, rank)
        traits = alike.get(key)
        if traits is None:
            kind = key[:3]
            if kind not in lanes:
                lane = (bundle.kinds(), bundle.opaque, task.resources.where)
                lanes[kind] = (lane, task.resources)
            traits = alike[key] = Traits(*lanes[kind], order(task.priority, rank))
        found.append(traits)
    return found


def codelet_names(bundle: Bundle) -> str:
    return ", ".join(dict.fromkeys(task.codelet.name for task in bundle.tasks))
