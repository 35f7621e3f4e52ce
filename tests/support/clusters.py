"""Clusters of several raylets on this machine."""

from __future__ import annotations

from typing import Any

from ray.cluster_utils import Cluster

from agentic_ray.runtime.embedded import fewer_processes

FAST_DETECTION = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""Settings of Ray with which a node that died is seen within two seconds."""


def start_head(num_cpus: int, system_config: dict[str, Any] | None = None) -> Cluster:
    """Start a head, without dashboard and autoscaler; `Cluster.add_node` adds more."""
    options: dict[str, Any] = {"num_cpus": num_cpus}
    if system_config is not None:
        options["_system_config"] = system_config
    with fewer_processes():
        return Cluster(initialize_head=True, head_node_args=options)
