"""The cluster over time, for charts: sampled while somebody looks, kept for 15 minutes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from agentic_ray.errors import AgenticRayError
from agentic_ray.service.bodies import RequestError
from agentic_ray.shown import cut_line
from agentic_ray.telemetry import ClusterState, NodeState

SAMPLE_SECONDS: Final = 2.0
_SAMPLES: Final = 450


def sample(state: ClusterState) -> dict[str, Any]:
    """Totals of one moment, for charts: fractions 0..1 and bytes; None where nobody knows."""
    alive = state.alive_nodes
    gpus = [gpu for node in alive for gpu in node.gpus]
    return {
        "time": state.taken_at,
        "cpu": _busy(alive),
        "cpus_total": sum(node.cpus_total for node in alive),
        "cpus_free": sum(node.cpus_free for node in alive),
        "memory_used": _sum(
            None
            if node.host_memory_total_bytes is None or node.host_memory_free_bytes is None
            else node.host_memory_total_bytes - node.host_memory_free_bytes
            for node in alive
        ),
        "memory_total": _sum(node.host_memory_total_bytes for node in alive),
        "store_used": _sum(node.store_used_bytes for node in alive),
        "store_total": _sum(node.store_total_bytes for node in alive),
        "gpus": {
            gpu.uuid: {
                "utilization": gpu.utilization,
                "memory_used": gpu.memory_used_bytes,
                "memory_total": gpu.memory_total_bytes,
                "temperature": gpu.temperature_celsius,
            }
            for gpu in gpus
        },
    }


class Samples:
    """Samples of the cluster, the newest last.

    Parameters
    ----------
    cluster : callable
        Gives the state now; may wait.
    """

    def __init__(self, cluster: Callable[[], ClusterState]) -> None:
        self._cluster = cluster
        self._samples: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)
        self._state: dict[str, Any] | None = None
        self._reason = "it was not looked at yet"

    def take(self) -> dict[str, Any]:
        """Take one now; what is sent of it to those who follow."""
        try:
            state = self._cluster()
        except (AgenticRayError, RequestError) as error:
            self._state, self._reason = None, cut_line(str(error))
            return self._newest(None)
        made = sample(state)
        self._samples.append(made)
        self._state, self._reason = state.to_dict(), ""
        return self._newest(made)

    def history(self) -> dict[str, Any]:
        """All samples, and the whole state as it was last."""
        if self._state is None or time.time() - self._state["taken_at"] > SAMPLE_SECONDS:
            self.take()
        return {"samples": list(self._samples), **self._newest(None)}

    def _newest(self, made: dict[str, Any] | None) -> dict[str, Any]:
        return {"sample": made, "state": self._state, "reason": self._reason}


def _busy(nodes: Iterable[NodeState]) -> float | None:
    """The busy fraction of all processors, of the nodes that tell."""
    known = [
        (node.cpu_fraction, node.cpus_total) for node in nodes if node.cpu_fraction is not None
    ]
    total = sum(cpus for _, cpus in known)
    return sum(fraction * cpus for fraction, cpus in known) / total if total else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
