"""Nodes whose memory programs that are not ours hold: work waits until some comes free. Pure.

Memory that bundles take themselves is the business of ``pressure``.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentic_ray.schedule.events import MemoryUse
from agentic_ray.telemetry.state import ClusterState, format_bytes

FIRST_TRY_SECONDS = 5.0
LAST_TRY_SECONDS = 60.0
"""Seconds after which one bundle is tried, however little memory seems to be free; doubled each
time up to here."""
STALE_SECONDS = 2.0
"""A report within this many seconds after a kill may be of the time before it."""
_MARGIN = 0.02
"""Share of a node's memory that must have come free, so that it is no mere fluctuation."""


@dataclass(slots=True)
class _Hold:
    use: MemoryUse
    until: float
    known_at: float
    wanted_bytes: float


class Scarcity:
    """Record of the nodes that get nothing new because others hold their memory."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}
        self._tries: dict[str, int] = {}

    def holds(self, node_id: str) -> bool:
        return node_id in self._holds

    @property
    def node_ids(self) -> set[str]:
        return set(self._holds)

    @property
    def tried(self) -> bool:
        """Whether bundles were killed on a node and none has ended well there since."""
        return bool(self._tries)

    @property
    def until_seconds(self) -> float | None:
        """Time at which a node is tried next, whatever it reports."""
        return min((hold.until for hold in self._holds.values()), default=None)

    def killed(self, node_id: str, use: MemoryUse, now: float) -> None:
        """Note that a bundle was killed because others hold the memory: send none for a while."""
        tries = self._tries.get(node_id, 0)
        self._tries[node_id] = tries + 1
        wait = min(FIRST_TRY_SECONDS * 2.0 ** min(tries, 16), LAST_TRY_SECONDS)
        wanted = use.free_bytes + max(use.own_bytes / 2, _MARGIN * use.total_bytes)
        self._holds[node_id] = _Hold(use, now + wait, now + STALE_SECONDS, wanted)

    def observe(self, cluster: ClusterState, now: float) -> None:
        """Take in reports: nodes whose memory has come free may be used again."""
        for node_id, hold in list(self._holds.items()):
            node = cluster.node(node_id)
            free = None if node is None else node.memory_free_bytes
            if now >= hold.known_at and free is not None and free >= hold.wanted_bytes:
                del self._holds[node_id]

    def elapse(self, now: float) -> list[str]:
        """Let time pass; return the nodes that are tried again, whatever they report."""
        due = [node_id for node_id, hold in self._holds.items() if now >= hold.until]
        for node_id in due:
            del self._holds[node_id]
        return due

    def went_well(self, node_id: str) -> None:
        """Note that a bundle has ended well there."""
        self._tries.pop(node_id, None)

    def forget(self, node_id: str) -> None:
        self._holds.pop(node_id, None)
        self._tries.pop(node_id, None)

    def text(self) -> str | None:
        """Say for people which memory work waits for; None if it waits for none."""
        if not self._holds:
            return None
        return "; ".join(
            f"the memory of node {node_id[:12]} is held by other programs ({who_holds(hold.use)})"
            for node_id, hold in sorted(self._holds.items())
        )


def is_held_by_others(use: MemoryUse) -> bool:
    """Whether other programs are to blame that a bundle was killed for want of memory.

    They are if they hold more than it took itself: without them it would have had more than twice
    as much. Where their memory is not known, all memory that others do not hold counts as its own.
    """
    own = use.own_bytes or use.total_bytes - use.others_bytes
    return use.others_bytes > own


def who_holds(use: MemoryUse) -> str:
    """Say in words who holds a node's memory."""
    named = ", ".join(
        f"{one.name} (process {one.pid}) {format_bytes(one.size_bytes)}" for one in use.holders
    )
    rest = f": {named}" if named else ""
    return (
        f"{format_bytes(use.others_bytes)} of {format_bytes(use.total_bytes)}, "
        f"{format_bytes(use.free_bytes)} free{rest}"
    )
