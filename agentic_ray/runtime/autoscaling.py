"""What is asked of Ray's autoscaler, and what it has done and failed to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import ray

from agentic_ray.runtime.asking import Asking
from agentic_ray.telemetry.state import ClusterState, NodeState

JOINING_SECONDS: Final = 60.0
"""A node that has taken no work for so long after it came is not one that will take some."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """State of a cluster's autoscaler.

    Attributes
    ----------
    runs : bool
        Whether one runs: a cluster that was started by hand, or an embedded Ray, has none.
    pending : tuple of str
        Nodes that it is starting.
    failures : tuple of str
        Nodes that could not be started or have failed, with the reason.
    demands : tuple of (dict, int)
        Resources that work waits for, and how many times.
    """

    runs: bool
    pending: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    demands: tuple[tuple[dict[str, float], int], ...] = ()


def request(cpus: int, gpus: int) -> None:
    """Ask the autoscaler to bring the cluster to so many CPUs and GPUs, instead of what was asked
    before; (0, 0): of nothing."""
    # Not above: it loads the autoscaler's own modules, which few sessions need.
    from ray.autoscaler import sdk

    sdk.request_resources(num_cpus=cpus or None, bundles=[{"GPU": 1}] * gpus or None)


def autoscaling(timeout_seconds: float = 5.0) -> Autoscaling:
    """Ask the cluster that this process has joined for the state of its autoscaler.

    Raises
    ------
    RuntimeError
        The cluster does not answer.
    """
    # Not above: these load the autoscaler's own modules, which only this question needs.
    from ray.autoscaler.v2.sdk import get_cluster_status

    address = ray.get_runtime_context().gcs_address
    status = get_cluster_status(address, timeout=max(1, round(timeout_seconds)))
    launches = [f"{one.count} × {one.ray_node_type_name}" for one in status.pending_launches]
    starting = [f"{one.ray_node_type_name} {one.ip_address}" for one in status.pending_nodes]
    failed = [
        f"{one.count} × {one.ray_node_type_name}: {one.details or 'no reason is told'}"
        for one in status.failed_launches
    ]
    gone = [
        f"{one.ray_node_type_name} {one.ip_address}: {one.failure_detail or 'it has ended'}"
        for one in status.failed_nodes
    ]
    demands = status.resource_demands
    waiting = [
        (dict(entry.bundle), entry.count)
        for kind in (
            demands.ray_task_actor_demand,
            demands.placement_group_demand,
            demands.cluster_constraint_demand,
        )
        for demand in kind
        for entry in demand.bundles_by_count
    ]
    return Autoscaling(
        # (The state that an autoscaler writes has a version; without one there is none.)
        bool(int(status.stats.autoscaler_version or 0)),
        (*launches, *starting),
        (*failed, *gone),
        tuple(waiting),
    )


def has_autoscaler() -> bool:
    """Whether the cluster that this process has joined is known to have an autoscaler."""
    try:
        return autoscaling().runs
    except RuntimeError:
        return False


class Requests:
    """The requests of one session.

    Parameters
    ----------
    scales : bool
        Whether there may be an autoscaler; without one nothing is asked.
    """

    def __init__(self, *, scales: bool) -> None:
        self._scales = scales
        self._asking = Asking()
        self._requested = (0, 0)
        self._wanted = (0, 0)
        self._slots: frozenset[tuple[str, str]] = frozenset()
        self._seen: dict[str, float] = {}

    def waits(self, cpus: int, gpus: int, slots: Mapping[tuple[str, str], int]) -> None:
        """Take in how many CPUs and GPUs work could use, those that it uses included.

        Parameters
        ----------
        slots : mapping
            Slots that the session has, by node and device.
        """
        used = sum(count for (_, device), count in slots.items() if device == "cpu")
        cards = sum(1 for _, device in slots if device != "cpu")
        self._wanted = max(0, cpus - used), max(0, gpus - cards)
        self._slots = frozenset(slots)

    def tend(self, cluster: ClusterState) -> None:
        """Ask for what waiting work could use. To be called every second or so."""
        if not self._scales:
            return
        joining = self._joining(cluster.alive_nodes)
        self._asking.waits(*(max(0, w - j) for w, j in zip(self._wanted, joining, strict=True)))
        if not (self._asking.is_waiting or any(self._requested)):
            return
        # (Ray may have been told of fewer GPUs than there are: those of the head, for instance.)
        there = ray.cluster_resources()
        have = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        coming = self._asking.is_waiting and bool(autoscaling().pending)
        wanted = self._asking.decide(time.monotonic(), have, coming=coming)
        if wanted != self._requested:
            self._requested = wanted
            request(*wanted)

    def _joining(self, nodes: Sequence[NodeState]) -> tuple[int, int]:
        """Return the CPUs and GPUs of nodes that have just come, on which this session has nothing
        yet: work that waits will be run there, so it needs no further nodes."""
        now = time.monotonic()
        self._seen = {node.node_id: self._seen.get(node.node_id, now) for node in nodes}
        new = [n for n in nodes if n.cpus_total and now - self._seen[n.node_id] < JOINING_SECONDS]
        with_cards = {node_id for node_id, device in self._slots if device != "cpu"}
        return (
            int(sum(n.cpus_total for n in new if (n.node_id, "cpu") not in self._slots)),
            sum(len(n.gpus) for n in new if n.node_id not in with_cards),
        )

    def close(self) -> None:
        """Ask for nothing any more: a request would stand until somebody else asks."""
        if any(self._requested):
            request(0, 0)
