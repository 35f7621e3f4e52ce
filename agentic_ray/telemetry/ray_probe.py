"""The Ray cluster as Ray itself sees it: nodes, resources, object store.

This is the only module here that talks to Ray, and it imports Ray when called. The memory that is
really free on a node comes from the reports of its ``collector``, laid over this view by
`merge_reports`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentic_ray.errors import SessionError
from agentic_ray.telemetry.collector import NodeReport, merge_reports
from agentic_ray.telemetry.host import probe_host
from agentic_ray.telemetry.nvml import NvmlProbe
from agentic_ray.telemetry.state import ClusterState, NodeState


def probe_ray(*, local: bool = True) -> ClusterState:
    """Read the nodes of the cluster that this process is connected to.

    This takes two calls to the GCS, about 2 ms together; no worker is started and no node is
    contacted. CPUs and memory are Ray's logical resources. Object-store use is as fresh as Ray's
    own resource reports.

    Parameters
    ----------
    local : bool
        Whether to read the host and the GPUs of the node this process runs on, too.

    Raises
    ------
    SessionError
        Ray is not initialised, or its GCS cannot be reached.
    """
    import ray

    if not ray.is_initialized():
        raise SessionError("not connected to Ray: call agentic_ray.init() or ray.init() first")
    # the one place without a public API: free resources per node, not summed over the cluster
    from ray._private import state as ray_state

    client = ray.util.client.ray.is_connected()
    try:
        table = ray.nodes()
        # a process connected as ray:// has no GCS of its own to ask
        free = {} if client else ray_state.available_resources_per_node()
    except Exception as error:  # Ray raises RuntimeError, ValueError or RpcError, by version
        raise SessionError(f"the Ray cluster cannot be asked for its nodes: {error}") from error
    now = time.time()
    cluster = cluster_from_tables(table, free, now)
    if not local or client:
        return cluster
    node_id = ray.get_runtime_context().get_node_id()
    reading = _local_nvml().read()
    report = NodeReport(
        node_id=node_id,
        host=probe_host(),
        gpus=reading.gpus,
        gpus_reason=reading.reason,
        links=reading.links,
        taken_at=now,
        sequence=0,
    )
    merged = merge_reports(cluster, {node_id: report}, now)
    # a sample taken by the asker is no sign of life from the node's collector
    nodes = tuple(replace(node, heartbeat_age_seconds=None) for node in merged.nodes)
    return ClusterState(nodes, now)


def cluster_from_tables(
    table: list[dict[str, Any]], free: Mapping[str, Mapping[str, float]], now: float
) -> ClusterState:
    """Make a `ClusterState` from ``ray.nodes()`` and the free resources per node id. Pure.

    A node that is missing from ``free`` has nothing free: Ray drops it there when it dies.
    """
    return ClusterState(tuple(_node(row, free.get(row["NodeID"], {})) for row in table), now)


def _node(row: Mapping[str, Any], free: Mapping[str, float]) -> NodeState:
    total: Mapping[str, float] = row.get("Resources") or {}
    # Ray leaves a resource out of the free ones when none of it is left
    store = _bytes(total.get("object_store_memory"))
    store_free = int(free.get("object_store_memory", 0.0))
    memory = _bytes(total.get("memory"))
    gpus = total.get("GPU", 0.0)
    return NodeState(
        node_id=row["NodeID"],
        host=row.get("NodeManagerHostname") or row.get("NodeManagerAddress") or "",
        cpus_total=float(total.get("CPU", 0.0)),
        cpus_free=float(free.get("CPU", 0.0)),
        memory_total_bytes=memory,
        memory_free_bytes=None if memory is None else int(free.get("memory", 0.0)),
        store_total_bytes=store,
        store_used_bytes=None if store is None or not free else max(0, store - store_free),
        labels=dict(row.get("Labels") or {}),
        alive=bool(row.get("Alive")),
        gpus_reason=(
            f"no report from this node yet; Ray counts {gpus:g} on it"
            if gpus
            else "no report from this node yet"
        ),
        custom={name: amount for name, amount in total.items() if not _is_rays_own(name)},
    )


def _is_rays_own(name: str) -> bool:
    """Whether Ray gives a node this resource by itself; otherwise whoever started the node did."""
    if name in ("CPU", "GPU", "memory", "object_store_memory"):
        return True
    # These are the node's address, the type of an accelerator, and resources of placement groups.
    return name.startswith(("node:", "accelerator_type:", "bundle_group_")) or "_group_" in name


def _bytes(amount: float | None) -> int | None:
    return None if amount is None else int(amount)


@functools.cache
def _local_nvml() -> NvmlProbe:
    """Return this process's probe, without the event thread. There is one because starting NVML is
    expensive."""
    return NvmlProbe(slow_seconds=1.0, layout_seconds=30.0, retry_seconds=10.0, events=False)
