"""Nodes that run out of memory: fewer bundles at once there, and smaller ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentic_ray.graph.task import Bundle

CALM_SECONDS = 30.0
"""After so long without pressure a node may run one more bundle at once."""


@dataclass(slots=True)
class _Limit:
    slots: int
    cut_at: float
    eased_at: float


class Pressure:
    """Limits on the bundles that each node runs at once, given how often its memory ran out.

    A limit is halved when memory runs out, raised by one after each calm while: additive increase,
    multiplicative decrease, which is stable and fair where many share a resource of unknown size.

    References
    ----------
    D.-M. Chiu, R. Jain, Computer Networks and ISDN Systems 17, 1989.
    """

    def __init__(self, calm_seconds: float = CALM_SECONDS) -> None:
        self.calm_seconds = calm_seconds
        self._limits: dict[str, _Limit] = {}
        self._offered: dict[str, int] = {}

    def allowed(self, node_id: str, offered: int | None = None) -> int:
        """Return the number of slots of a node that may be used, out of the ``offered`` it has
        (None: as many as when last told)."""
        if offered is not None:
            self._offered[node_id] = offered
        offered = self._offered[node_id]
        limit = self._limits.get(node_id)
        return offered if limit is None else min(offered, limit.slots)

    def cut(self, node_id: str, running: int, sent_seconds: float, now: float) -> bool:
        """Lower a node's limit after one of ``running`` bundles died for want of memory.

        The bundle was sent at ``sent_seconds``.

        Returns
        -------
        bool
            Whether the limit changed. Of several bundles that die together only the first counts.
        """
        limit = self._limits.get(node_id)
        if limit is not None:
            limit.eased_at = now
            if sent_seconds < limit.cut_at:
                return False
        self._limits[node_id] = _Limit(max(1, running // 2), now, now)
        return True

    def ease(self, now: float) -> list[str]:
        """Let time pass; return the nodes that may run more now."""
        eased: list[str] = []
        for node_id, limit in list(self._limits.items()):
            if now >= limit.eased_at + self.calm_seconds:
                limit.slots += 1
                limit.eased_at = now
                eased.append(node_id)
                if limit.slots >= self._offered.get(node_id, 0):
                    del self._limits[node_id]
        return eased

    def forget(self, node_id: str) -> None:
        self._limits.pop(node_id, None)
        self._offered.pop(node_id, None)


def halves(bundle: Bundle) -> tuple[Bundle, Bundle] | None:
    """Cut the bundle in two; the first's values go to the second.

    Return None if it is one task that cannot be made smaller, or if a half could run nowhere.
    """
    tasks = bundle.tasks
    if len(tasks) == 1:
        halve = tasks[0].codelet.halve
        whole = tasks[0].resources
        tasks = (halve(tasks[0]) if halve is not None else None) or tasks
        if whole.where:  # smaller steps run on the nodes where the whole was to run
            tasks = tuple([replace(task, resources=whole) for task in tasks])
    middle = len(tasks) // 2
    if not middle:
        return None
    first, second = tasks[:middle], tasks[middle:]
    made = {task.key for task in first}
    own = {task.key for task in second}
    needed = dict.fromkeys(k for task in second for k in task.dependencies if k not in own)
    wanted = {*bundle.outputs, *needed}
    outputs = tuple(task.key for task in first if task.key in wanted)
    if not outputs:
        return None
    inputs = dict.fromkeys(k for task in first for k in task.dependencies if k not in made)
    kept = tuple(key for key in bundle.outputs if key in own)
    parts = (
        Bundle(first[-1].key, first, tuple(inputs), outputs),
        Bundle(bundle.key, second, tuple(needed), kept),
    )
    return parts if all(part.kinds() for part in parts) else None
