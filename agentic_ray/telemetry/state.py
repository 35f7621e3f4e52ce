"""Knowledge of the cluster at one moment: ClusterState, NodeState, GpuState.

Pure data; the probes that fill it are beside it. A figure that could not be read is None,
never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU or MIG instance.

    Parameters
    ----------
    uuid : str
        ``GPU-…`` or ``MIG-…``; the identity everything else is keyed by.
    index : int
        NVML's index on its node.
    utilization : float or None
        Fraction 0..1 of time with a kernel running, over the driver's last sample.
    throttle_reasons : tuple of str or None
        Names of the active clock throttle reasons; empty when nothing holds the clocks back.
    xid : int or None
        The first fatal XID since the driver was loaded, else the newest, else None.
    mig_parent : str or None
        UUID of the physical GPU when this is a MIG instance.
    healthy, reason
        ``healthy`` is False when the device must not be used; ``reason`` is a sentence that says
        why.
    mig_index, gpu_instance_id, compute_instance_id : int or None
        Place of a MIG instance on its GPU (whose NVML index is ``index``), and the ids in the
        older names ``MIG-GPU-<uuid>/<gi>/<ci>``.
    ecc_baseline, ecc_new : int or None, int
        ``ecc_uncorrected`` when the device was first seen, and the errors since; any is a fault.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> gpu = ar.GpuState("GPU-1", 0, "A card", memory_total_bytes=2**34, memory_free_bytes=2**33)
    >>> gpu.memory_free_bytes / gpu.memory_total_bytes
    0.5
    >>> gpu.temperature_celsius is None  # it could not be read
    True
    """

    uuid: str
    index: int
    name: str
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization: float | None = None
    process_count: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    ecc_uncorrected: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    xid: int | None = None
    mig_parent: str | None = None
    healthy: bool = True
    reason: str | None = None
    mig_index: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    ecc_baseline: int | None = None
    ecc_new: int = 0


@dataclass(frozen=True, slots=True)
class NodeState:
    """A Ray node. ``gpus_reason`` says why ``gpus`` is empty when it is; ``custom`` are its
    custom resources in Ray, how much of each it has.

    ``heartbeat_age_seconds`` is the age of the newest report from a collector on the node, ``load``
    the one-minute load average divided by the cores, ``cpu_fraction`` the busy fraction 0..1 of the
    processors over the last second. ``memory_total_bytes`` and ``memory_free_bytes`` are the memory
    that Ray may promise and the part it has not promised yet; ``host_memory_total_bytes`` and
    ``host_memory_free_bytes`` are the memory of the host, whoever uses it.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> node = ar.cluster().nodes[0]
    >>> 0 <= node.cpus_free <= node.cpus_total
    True
    """

    node_id: str
    host: str
    cpus_total: float
    cpus_free: float
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    store_total_bytes: int | None = None
    store_used_bytes: int | None = None
    load: float | None = None
    gpus: tuple[GpuState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    alive: bool = True
    heartbeat_age_seconds: float | None = None
    gpus_reason: str | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    cpu_fraction: float | None = None
    host_memory_total_bytes: int | None = None
    host_memory_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All nodes as they were at ``taken_at`` (seconds since the epoch).

    ``print`` shows a table, and a notebook draws one.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> state = ar.cluster()
    >>> state.node(state.nodes[0].node_id) is state.nodes[0]
    True
    >>> sorted(state.to_dict())
    ['nodes', 'taken_at']
    """

    nodes: tuple[NodeState, ...]
    taken_at: float

    def node(self, node_id: str) -> NodeState | None:
        return next((node for node in self.nodes if node.node_id == node_id), None)

    @property
    def alive_nodes(self) -> tuple[NodeState, ...]:
        return tuple(node for node in self.nodes if node.alive)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON types."""
        return {"taken_at": self.taken_at, "nodes": [_plain(node) for node in self.nodes]}

    def __str__(self) -> str:
        header, rows = _table(self)
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        ]
        return "\n".join([*lines, *_reasons(self)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from agentic_ray.telemetry.showing import state_html  # it reads what this module defines

        return state_html(self)


def format_bytes(size: float | None) -> str:
    """Format a size: ``1536`` -> ``"1.5 KiB"``; None -> ``"?"``."""
    if size is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def _table(state: ClusterState) -> tuple[Sequence[str], list[Sequence[str]]]:
    header = (
        "node",
        "host",
        "alive",
        "cpus free/total",
        "memory free/total",
        "store used/total",
        "load",
        "heartbeat",
        "gpus",
    )
    rows: list[Sequence[str]] = []
    for node in state.nodes:
        age = node.heartbeat_age_seconds
        rows.append(
            (
                node.node_id[:12],
                node.host,
                "yes" if node.alive else "no",
                f"{node.cpus_free:g}/{node.cpus_total:g}",
                f"{format_bytes(node.memory_free_bytes)}/{format_bytes(node.memory_total_bytes)}",
                f"{format_bytes(node.store_used_bytes)}/{format_bytes(node.store_total_bytes)}",
                "?" if node.load is None else f"{node.load:.2f}",
                "?" if age is None else f"{age:.1f} s",
                "; ".join(_gpu_cell(gpu) for gpu in node.gpus) or "none",
            )
        )
    return header, rows


def _gpu_cell(gpu: GpuState) -> str:
    used = "?" if gpu.utilization is None else f"{gpu.utilization:.0%}"
    free, total = format_bytes(gpu.memory_free_bytes), format_bytes(gpu.memory_total_bytes)
    health = "" if gpu.healthy else f" UNHEALTHY: {gpu.reason}"
    place = f"{gpu.index}" if gpu.mig_parent is None else f"{gpu.index}.{gpu.mig_index}"
    return f"{place}: {gpu.name} {free}/{total} free, {used} busy{health}"


def _reasons(state: ClusterState) -> list[str]:
    return [
        f"no GPU on {node.node_id[:12]}: {node.gpus_reason}"
        for node in state.nodes
        if node.alive and not node.gpus and node.gpus_reason
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, NodeState | GpuState):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_plain(element) for element in value]
    return dict(value) if isinstance(value, Mapping) else value
