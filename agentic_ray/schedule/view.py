"""The cluster as a policy sees it while it decides: executors, their load, where values are.

The Dispatcher keeps these objects up to date; a policy only reads them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agentic_ray.graph.task import CARD, Bundle, Resources, Where
from agentic_ray.schedule.ahead import Upcoming
from agentic_ray.schedule.events import Location
from agentic_ray.schedule.load import ROUNDING, Load, Offer, Plan
from agentic_ray.telemetry.state import ClusterState, NodeState

PREFETCH_PER_SLOT = 1
"""Number of bundles sent ahead to an executor so that a slot never waits for a round trip."""
GPU_AHEAD_PER_SLOT = 3
"""Number of bundles sent ahead to a GPU, as far as its memory admits them: their inputs are copied
to the device while another bundle computes, and small ones share it."""

SHORT_SECONDS = 0.02
"""More are sent ahead behind bundles predicted to be shorter than this: on a busy machine a round
trip takes longer than one of them. Only devices of several slots get more; their slots share the
waiting bundles."""
SHORT_AHEAD_PER_SLOT = 3

LONG_SECONDS = 0.3
"""Nothing is sent ahead behind bundles predicted to take longer than this: a round trip is nothing
to them, and a bundle that has not been sent can still go elsewhere."""


@dataclass(slots=True, eq=False)
class Executor:
    """A device of one node: what it offers, what our work there holds, and what is planned for it.

    A policy reads ``node_id``, ``device``, ``kind``, ``slots``, ``in_flight`` and ``load``, and
    asks `room`, `admits` and `suits`.

    Attributes
    ----------
    offer : Offer
    held : Load
    plan : Plan
    healthy : bool
        False once the executor is gone.
    silent : bool
        Whether it gets nothing new, since its node has stopped reporting or others hold its memory.
    settled : dict
        Number of further bundles, by the codelet they end with, that tell the cost model nothing
        new if they come as predicted.
    place : tuple of str
        Its node and device.
    pool, row : Pool, int
        The executors of its kind, and its place among them. The view sets both.
    counted : tuple of int
        The pool's count of its room, room for opaque bundles, and slots.
    """

    node_id: str
    device: str
    kind: str
    offer: Offer
    order: int = 0
    held: Load = field(default_factory=Load)
    plan: Plan = field(default_factory=Plan)
    healthy: bool = True
    silent: bool = False
    settled: dict[str, int] = field(default_factory=dict)
    row: int = 0
    counted: tuple[int, int, int] = (0, 0, 0)
    place: tuple[str, str] = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.place = (self.node_id, self.device)

    @property
    def slots(self) -> int:
        """Number of bundles that run there at once."""
        return self.offer.slots

    @property
    def in_flight(self) -> int:
        """Number of slots of the bundles in flight."""
        return self.held.in_flight

    @property
    def load(self) -> float:
        """Number of bundles in flight a slot."""
        slots = self.offer.slots
        return self.held.in_flight / slots if slots else float("inf")

    @property
    def ready_in_seconds(self) -> float:
        """Predicted time until a slot is free."""
        slots, held = self.offer.slots, self.held
        return held.backlog_seconds / slots if held.in_flight >= slots else 0.0

    def room(self, opaque: bool = False) -> int:
        """Return how many more bundles it takes. Opaque ones are processes: none is sent ahead."""
        if not self.healthy or self.silent:
            return 0
        held, slots = self.held, self.offer.slots
        in_flight = held.in_flight
        room = slots - in_flight
        if not (opaque or held.wide):
            mean = held.backlog_seconds / in_flight if in_flight else 0.0
            if mean > LONG_SECONDS:
                ahead = 0
            elif self.kind == "gpu":
                ahead = GPU_AHEAD_PER_SLOT
            elif slots > 1 and 0 < mean < SHORT_SECONDS:
                ahead = SHORT_AHEAD_PER_SLOT
            else:
                ahead = PREFETCH_PER_SLOT
            room += slots * ahead
        return room if room > 0 else 0

    def admits(self, resources: Resources, opaque: bool = False, room: int | None = None) -> bool:
        """Whether a bundle that needs ``resources`` may be sent now; ``room`` is the room for
        bundles that are not opaque, where it is known.

        Nothing is sent ahead of or behind a bundle of several slots, since an executor counts
        calls. A bundle that is too large for a node's memory runs there alone; `admission` decides
        on a bundle that is too large for a GPU.
        """
        offer, held = self.offer, self.held
        if not self.healthy or self.silent or offer.slots < 1:
            return False
        if resources.where and not self.has_left(resources.where):
            return False
        if not held.in_flight and self.kind == "cpu":
            return True
        width, memory_bytes = self._share(resources)
        if width > 1:
            room = offer.slots - held.in_flight
        elif opaque or room is None:
            room = self.room(opaque)
        if width > room:
            return False
        return offer.memory_bytes is None or held.memory_bytes + memory_bytes <= offer.memory_bytes

    def suits(self, where: Where) -> bool:
        """Whether its node has the labels and, when idle, enough of the custom resources."""
        if not where:
            return True
        (labels, custom), offer = where, self.offer
        return all(offer.labels.get(key) == label for key, label in labels) and all(
            amount <= offer.custom.get(name, 0.0) for name, amount in custom
        )

    def has_left(self, where: Where) -> bool:
        """Whether its node has the labels and enough of the custom resources left."""
        return not where or (
            self.suits(where)
            and all(
                self.held.custom.get(name, 0.0) + amount <= self.offer.custom[name] + ROUNDING
                for name, amount in where[1]
            )
        )

    def _share(self, resources: Resources) -> tuple[int, int]:
        """Return the slots and bytes of memory that a bundle with these resources takes here."""
        if self.kind != "cpu":
            return 1, resources.gpu_memory_bytes
        cpus = resources.cpus
        return 1 if cpus <= 1 else math.ceil(cpus), resources.memory_bytes

    def sent(self, now: float, seconds: float, resources: Resources) -> None:
        """Count a bundle that was sent; predict anew when a slot is free, given its seconds."""
        held, slots = self.held, self.offer.slots
        if _is_counted(resources):
            held.count(*self._share(resources), resources.custom, 1)
        else:
            held.in_flight += 1
        held.backlog_seconds += seconds
        if slots == 1:
            free_at = held.free_at_seconds
            held.free_at_seconds = (free_at if free_at > now else now) + seconds
        else:
            held.predict_free(now, slots)

    def ended(self, now: float, seconds: float, resources: Resources) -> None:
        """Count a bundle predicted as ``seconds`` that has ended; predict anew when a slot is
        free."""
        held, slots = self.held, self.offer.slots
        if _is_counted(resources):
            held.count(*self._share(resources), resources.custom, -1)
        else:
            held.in_flight -= 1
        backlog = held.backlog_seconds - seconds
        # Nothing in flight means no work left: set 0, so that rounding cannot drift.
        held.backlog_seconds = backlog if backlog > 0 and held.in_flight else 0.0
        if slots == 1:
            # The work left has not begun, except on a GPU where several bundles may share the
            # device.
            held.free_at_seconds = now + held.backlog_seconds
        else:
            held.predict_free(now, slots)


def _is_counted(resources: Resources) -> bool:
    """Whether a bundle takes more of its executor than one slot."""
    return bool(
        resources.cpus > 1
        or resources.memory_bytes
        or resources.gpu_memory_bytes
        or resources.where
    )


class Pool:
    """The executors of one kind, with the figures that placing needs of all of them in arrays.

    Attributes
    ----------
    executors : list of Executor
        Row ``i`` of the arrays is ``executors[i]``.
    available : ndarray
        Time at which a slot is free after all bundles sent and planned, in seconds of the clock;
        infinite for a silent executor.
    slowness : ndarray
        Seconds on each executor for a second of the cost model's reference device.
    hungry : dict
        Executors with room for more and nothing planned, in the order in which they became so.
    """

    def __init__(self) -> None:
        self.executors: list[Executor] = []
        self.slowness: npt.NDArray[np.float64] = np.empty(0)
        self.hungry: dict[Executor, None] = {}
        self.open: dict[Executor, None] = {}
        self.slots = 0
        self._available: npt.NDArray[np.float64] = np.empty(0)
        self._changed: dict[Executor, None] = {}
        self._room = [0, 0]

    def add(self, executor: Executor) -> None:
        executor.row = len(self.executors)
        executor.pool = self
        self.executors.append(executor)
        self._available = np.append(self._available, 0.0)
        self.slowness = np.append(self.slowness, 1.0)
        executor.counted = (0, 0, 0)

    def remove(self, executor: Executor) -> None:
        last = self.executors.pop()
        if last is not executor:
            self.executors[executor.row] = last
            self._available[executor.row] = self._available[last.row]
            self.slowness[executor.row] = self.slowness[last.row]
            last.row = executor.row
        self._available = self._available[:-1].copy()
        self.slowness = self.slowness[:-1].copy()
        self._changed.pop(executor, None)
        plain, opaque, slots = executor.counted
        self._room[0] -= plain
        self._room[1] -= opaque
        self.slots -= slots
        self.hungry.pop(executor, None)
        self.open.pop(executor, None)

    @property
    def available(self) -> npt.NDArray[np.float64]:
        """Times at which slots are free (see above). Computed when asked for."""
        if self._changed:
            rows = [executor.row for executor in self._changed]
            self._available[rows] = [
                math.inf
                if executor.silent
                else executor.held.free_at_seconds + executor.plan.seconds / executor.offer.slots
                if executor.plan.bundles
                else executor.held.free_at_seconds
                for executor in self._changed
            ]
            self._changed.clear()
        return self._available

    @property
    def usable(self) -> bool:
        """Whether at least one executor is not silent."""
        return any(not executor.silent for executor in self.executors)

    def room(self, opaque: bool) -> int:
        """Return how many more bundles its executors take together."""
        return self._room[opaque]

    def update(self, executor: Executor, room: int | None = None) -> None:
        """Take over the changes of an executor, which has ``room`` if that is known."""
        slots = executor.offer.slots
        plain = executor.room() if room is None else room
        free = slots - executor.held.in_flight if plain else 0
        now = (plain, free if free > 0 else 0, slots)
        before = executor.counted
        if now != before:
            executor.counted = now
            self._room[0] += plain - before[0]
            self._room[1] += now[1] - before[1]
            self.slots += slots - before[2]
            if plain and not before[0]:
                self.open[executor] = None
            elif before[0] and not plain:
                del self.open[executor]
        if plain and not executor.plan.bundles:
            self.hungry[executor] = None
        elif executor in self.hungry:
            del self.hungry[executor]
        self._changed[executor] = None

    def plan(self, executor: Executor) -> None:
        """Take over that another bundle is planned for an executor."""
        self.hungry.pop(executor, None)
        self._changed[executor] = None


def _pools_of(kinds: Iterable[str]) -> Iterable[str]:
    """Return the kinds of the executors that run bundles of these device kinds: functions run on
    GPUs, and on those that run nothing else."""
    return [one for kind in kinds for one in (("gpu", CARD) if kind == CARD else (kind,))]


@dataclass(slots=True)
class ClusterView:
    """The executors by (node, device), the newest telemetry, and the values' places."""

    executors: dict[tuple[str, str], Executor] = field(default_factory=dict)
    state: ClusterState = field(default_factory=lambda: ClusterState((), 0.0))
    now_seconds: float = 0.0
    values: Mapping[str, Location] = field(default_factory=dict)
    """Values that the offered bundles take as inputs, by key."""
    upcoming: Upcoming | None = None
    """Bundles that are not ready yet, for a policy that looks ahead."""
    pools: dict[str, Pool] = field(default_factory=dict)
    """The same executors by kind; a kind without any has no pool."""
    rows: dict[str, list[Executor]] = field(default_factory=dict)
    """The same executors by node."""
    awaited_gpus: dict[str, int] = field(default_factory=dict)
    """Number of GPUs that others hold and that are to come, by node."""

    def of_kinds(self, kinds: Iterable[str]) -> list[Executor]:
        """Return the executors of these kinds, in the order in which they came."""
        found = [
            executor
            for kind in dict.fromkeys(_pools_of(kinds))
            if kind in self.pools
            for executor in self.pools[kind].executors
        ]
        return sorted(found, key=lambda executor: executor.order)

    def cards(self) -> list[Executor]:
        """Return the executors that functions on cards may run on."""
        if "gpu" not in self.pools and CARD not in self.pools:
            return []
        return self.of_kinds((CARD,))

    def with_room(self, kinds: Iterable[str]) -> list[Executor]:
        """Return the executors of these kinds that take at least one more bundle."""
        return [
            executor
            for kind in dict.fromkeys(kinds)
            if kind in self.pools
            for executor in self.pools[kind].open
        ]

    def room(self, kinds: Iterable[str], opaque: bool, where: Where = ()) -> int:
        """Return how many more bundles the executors of these kinds take together."""
        if where:
            return sum(executor.room(opaque) for executor in self.suiting(kinds, where))
        return sum(self.pools[kind].room(opaque) for kind in kinds if kind in self.pools)

    def suiting(self, kinds: Iterable[str], where: Where) -> list[Executor]:
        """Return the executors of these kinds on nodes with the labels and resources asked for."""
        return [executor for executor in self.of_kinds(kinds) if executor.suits(where)]

    def hungry(self, kinds: Iterable[str]) -> bool:
        """Whether an executor of these kinds has room and nothing is planned for it."""
        return any(self.pools[kind].hungry for kind in kinds if kind in self.pools)

    def has(self, kinds: Collection[str], where: Where = ()) -> bool:
        """Whether there is, or will be again, such a device of one of these kinds."""
        if where:
            return bool(self.suiting(kinds, where))
        if self.pools.keys().isdisjoint(_pools_of(kinds)):
            return bool(self.awaited_gpus) and ("gpu" in kinds or CARD in kinds)
        return True

    def add(self, executor: Executor) -> None:
        for neighbour in self.rows.get(executor.node_id, ()):
            executor.held.custom = neighbour.held.custom  # executors share their node's count
        self.executors[executor.node_id, executor.device] = executor
        self.pools.setdefault(executor.kind, Pool()).add(executor)
        self.rows.setdefault(executor.node_id, []).append(executor)

    def remove(self, executor: Executor) -> None:
        del self.executors[executor.node_id, executor.device]
        pool = self.pools[executor.kind]
        pool.remove(executor)
        if not pool.executors:
            del self.pools[executor.kind]
        neighbours = self.rows[executor.node_id]
        neighbours.remove(executor)
        if not neighbours:
            del self.rows[executor.node_id]

    def slowness(self, executor: Executor) -> float:
        """Return the seconds there for a second of the cost model's reference device."""
        return executor.pool.slowness.item(executor.row)

    def update(self, executor: Executor) -> None:
        """Take over the changes of an executor that is here."""
        executor.pool.update(executor)

    def kinds_for(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the device kinds to place ``bundle`` on, best first: a bundle tagged gpu goes to a
        CPU only where there is no GPU for it."""
        kinds = bundle.kinds()
        if len(kinds) > 1 and "gpu" in self.pools and bundle.tag == "gpu":
            where = bundle.resources.where
            if not where or self.suiting(("gpu",), where):
                return ("gpu",)
        return kinds

    def node(self, node_id: str) -> NodeState | None:
        return self.state.node(node_id)

    def device_bytes(self, bundle: Bundle) -> dict[tuple[str, str], int]:
        """Sum the bytes of the bundle's inputs by the node and GPU that keeps them."""
        found: dict[tuple[str, str], int] = {}
        for key in bundle.inputs:
            info = self.values.get(key)
            if info is not None and info.node_id is not None and info.device is not None:
                place = (info.node_id, info.device)
                found[place] = found.get(place, 0) + info.size_bytes
        return found

    def local_bytes(self, bundle: Bundle) -> dict[str, int]:
        """Sum the bytes of the bundle's inputs by the node that holds them."""
        found: dict[str, int] = {}
        for key in bundle.inputs:
            info = self.values.get(key)
            if info is not None and info.node_id is not None:
                found[info.node_id] = found.get(info.node_id, 0) + info.size_bytes
        return found
