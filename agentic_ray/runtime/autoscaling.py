"""Reads what Ray's autoscaler has done and failed to do."""

from __future__ import annotations

from dataclasses import dataclass

import ray


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
