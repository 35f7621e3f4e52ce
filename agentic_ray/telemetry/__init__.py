"""Observed facts: the state of nodes and GPUs, the probes that read it, the rules that judge it.

Importing this imports neither ray nor pynvml; `probe_ray` is loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentic_ray.telemetry.bandwidth import BandwidthMeter
from agentic_ray.telemetry.collector import (
    DEFAULT_INTERVAL_SECONDS,
    Collector,
    NodeReport,
    merge_reports,
)
from agentic_ray.telemetry.devices import VisibleDevices, environment_for, visible_devices
from agentic_ray.telemetry.health import FATAL_XIDS, assess, is_silent
from agentic_ray.telemetry.host import CgroupLimits, HostState, probe_host, read_cgroup
from agentic_ray.telemetry.nvml import GpuLink, GpuReading, NvmlProbe
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState, format_bytes

if TYPE_CHECKING:
    from agentic_ray.telemetry.ray_probe import probe_ray

__all__ = [
    "DEFAULT_INTERVAL_SECONDS",
    "FATAL_XIDS",
    "BandwidthMeter",
    "CgroupLimits",
    "ClusterState",
    "Collector",
    "GpuLink",
    "GpuReading",
    "GpuState",
    "HostState",
    "NodeReport",
    "NodeState",
    "NvmlProbe",
    "VisibleDevices",
    "assess",
    "environment_for",
    "format_bytes",
    "is_silent",
    "merge_reports",
    "probe_host",
    "probe_ray",
    "read_cgroup",
    "visible_devices",
]


def __getattr__(name: str) -> Any:
    # not imported above, so that the pure layers which use these types do not reach Ray
    if name == "probe_ray":
        import importlib

        return importlib.import_module("agentic_ray.telemetry.ray_probe").probe_ray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
