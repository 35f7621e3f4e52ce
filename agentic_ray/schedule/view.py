"""What a policy sees of the cluster while it decides: executors, their load, where values are.

The Dispatcher keeps these objects up to date; a policy only reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.events import ValueInfo
from agentic_ray.telemetry.state import ClusterState, NodeState

PREFETCH_PER_SLOT = 1
"""Bundles sent ahead to an executor so that a slot never waits for a round trip."""


@dataclass(slots=True, eq=False)
class Executor:
    """One device of one node: ``slots`` bundles run there at once.

    ``backlog_seconds`` is the predicted work in flight, divided by nothing; ``speed`` is the
    device's speed relative to the cost model's reference.
    """

    node_id: str
    device: str
    kind: str
    slots: int
    speed: float = 1.0
    memory_bytes: int | None = None
    in_flight: int = 0
    backlog_seconds: float = 0.0
    healthy: bool = True
    reason: str = ""
    order: int = 0

    def room(self, opaque: bool = False) -> int:
        """How many more bundles it takes. Opaque ones are processes: none is sent ahead."""
        if not self.healthy:
            return 0
        ahead = 0 if opaque else self.slots * PREFETCH_PER_SLOT
        return max(0, self.slots + ahead - self.in_flight)

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
