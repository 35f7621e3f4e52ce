"""What a policy sees of the cluster while it decides: executors, their load, where values are.

The Dispatcher keeps these objects up to date; a policy only reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentic_ray.graph.task import Bundle, Resources
from agentic_ray.schedule.events import ValueInfo
from agentic_ray.telemetry.state import ClusterState, NodeState

PREFETCH_PER_SLOT = 1
"""Bundles sent ahead to an executor so that a slot never waits for a round trip."""
GPU_AHEAD_PER_SLOT = 3
"""The same for a GPU, as far as its memory admits them: their inputs are copied to the device
while another bundle computes, and small ones share it."""


def ahead_per_slot(kind: str) -> int:
    """Bundles sent ahead to a slot of a device of this kind."""
    return GPU_AHEAD_PER_SLOT if kind == "gpu" else PREFETCH_PER_SLOT


@dataclass(slots=True, eq=False)
class Executor:
    """One device of one node: ``slots`` bundles run there at once.

    ``in_flight`` counts the slots of the bundles sent there: as many as its CPUs for a bundle on
    a CPU device, one on a GPU. ``wide`` of them belong to bundles of several slots.
    ``backlog_seconds`` is the predicted work in flight, divided by nothing; ``speed`` is the
    device's speed relative to the cost model's reference. A ``silent`` one is on a node that has
    stopped reporting and gets nothing new.
    """

    node_id: str
    device: str
    kind: str
    slots: int
    speed: float = 1.0
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    in_flight: int = 0
    wide: int = 0
    memory_in_flight_bytes: int = 0
    backlog_seconds: float = 0.0
    healthy: bool = True
    silent: bool = False
    reason: str = ""
    order: int = 0

    def room(self, opaque: bool = False) -> int:
        """How many more bundles it takes. Opaque ones are processes: none is sent ahead."""
        if not self.healthy or self.silent:
            return 0
        ahead = 0 if opaque or self.wide else self.slots * ahead_per_slot(self.kind)
        return max(0, self.slots + ahead - self.in_flight)

    def admits(self, resources: Resources, opaque: bool = False) -> bool:
        """Whether a bundle that needs ``resources`` may be sent now.

        Nothing is sent ahead of or behind a bundle of several slots, since an executor counts
        calls. A bundle that is too large for a node's memory runs there alone; what is too
        large for a GPU is for `admission` to decide.
        """
        if not self.healthy or self.silent or self.slots < 1:
            return False
        if not self.in_flight and self.kind == "cpu":
            return True
        width = self._width(resources)
        room = self.room(opaque) if width == 1 else self.slots - self.in_flight
        if width > room:
            return False
        after = self.memory_in_flight_bytes + self._memory_bytes(resources)
        return self.memory_bytes is None or after <= self.memory_bytes

    def take(self, resources: Resources) -> None:
        """Count a bundle that was sent."""
        self._count(resources, 1)

    def give_back(self, resources: Resources) -> None:
        """Count a bundle that has ended."""
        self._count(resources, -1)

    def _count(self, resources: Resources, sign: int) -> None:
        width = self._width(resources)
        self.in_flight += sign * width
        self.wide += sign * width if width > 1 else 0
        self.memory_in_flight_bytes += sign * self._memory_bytes(resources)

    def _width(self, resources: Resources) -> int:
        return max(1, math.ceil(resources.cpus)) if self.kind == "cpu" else 1

    def _memory_bytes(self, resources: Resources) -> int:
        return resources.memory_bytes if self.kind == "cpu" else resources.gpu_memory_bytes

    @property
    def load(self) -> float:
        """Bundles in flight a slot."""
        return self.in_flight / self.slots if self.slots else float("inf")

    @property
    def ready_in_seconds(self) -> float:
        """Predicted time until a slot is free."""
        return self.backlog_seconds / self.slots if self.in_flight >= self.slots else 0.0


@dataclass(slots=True)
class ClusterView:
    """The executors by (node, device), the newest telemetry, and the values' places."""

    executors: dict[tuple[str, str], Executor] = field(default_factory=dict)
    state: ClusterState = field(default_factory=lambda: ClusterState((), 0.0))
    now_seconds: float = 0.0
    values: Mapping[str, ValueInfo] = field(default_factory=dict)
    """Values that the offered bundles take as inputs, by key."""

    def of_kinds(self, kinds: Iterable[str]) -> list[Executor]:
        wanted = tuple(kinds)
        return [executor for executor in self.executors.values() if executor.kind in wanted]

    def kinds_for(self, bundle: Bundle) -> tuple[str, ...]:
        """Device kinds to place ``bundle`` on, best first: what is tagged gpu goes to a CPU only
        where there is no GPU for it."""
        kinds = bundle.kinds()
        if bundle.tag == "gpu" and "gpu" in kinds and self.of_kinds(("gpu",)):
            return ("gpu",)
        return kinds

    def node(self, node_id: str) -> NodeState | None:
        return self.state.node(node_id)

    def local_bytes(self, bundle: Bundle) -> dict[str, int]:
        """Bytes of the bundle's inputs by the node that holds them."""
        found: dict[str, int] = {}
        for key in bundle.inputs:
            info = self.values.get(key)
            if info is not None and info.node_id is not None:
                found[info.node_id] = found.get(info.node_id, 0) + info.size_bytes
        return found
