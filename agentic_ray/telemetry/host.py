"""The host as this process may use it: cores, memory, load, network counters.

A container's limits are read from its control groups (v1 and v2). GPUs are in ``nvml``, the
Ray view of the node in ``ray_probe``.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """Tightest limits on the path of control groups above a process; None is no limit.

    Parameters
    ----------
    cpus : float or None
        CPU seconds per second the group may use.
    memory_total_bytes : int or None
        Smallest memory limit on the path.
    memory_free_bytes : int or None
        Smallest rest below a limit, not counting file cache that the kernel can drop.
    cpu_usage_seconds : float or None
        CPU time used by the group that has the tightest CPU limit.
    """

    cpus: float | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    cpu_usage_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HostState:
    """Sample of the host. A figure that could not be read is None.

    Parameters
    ----------
    cpus : float
        Cores this process may use: affinity and control-group quota applied.
    cpus_host : int
        Cores of the machine.
    cpu_fraction : float or None
        Busy fraction 0..1 since the previous sample: of the quota where there is one, of the
        machine otherwise.
    load : float or None
        One-minute load average divided by the cores of the machine.
    memory_total_bytes, memory_free_bytes : int
        Within the tightest of the machine and the control groups.
    network_sent_bytes, network_received_bytes : int or None
        Counters over all interfaces but the loopback, since boot.
    cpu_limit, memory_limit_bytes : float, int or None
        The control-group limits alone.
    cpu_busy_seconds, monotonic_seconds : float
        Figures from which ``cpu_fraction`` of the next sample is computed.
    """

    hostname: str
    cpus: float
    cpus_host: int
    memory_total_bytes: int
    memory_free_bytes: int
    cpu_fraction: float | None = None
    load: float | None = None
    network_sent_bytes: int | None = None
    network_received_bytes: int | None = None
    cpu_limit: float | None = None
    memory_limit_bytes: int | None = None
    cpu_busy_seconds: float = 0.0
    monotonic_seconds: float = 0.0


def probe_host(
    previous: HostState | None = None,
    *,
    cgroup_root: Path = CGROUP_ROOT,
    cgroup_membership: str | None = None,
) -> HostState:
    """Sample the host.

    Parameters
    ----------
    previous : HostState, optional
        An earlier sample of this process; without one ``cpu_fraction`` is None.
    cgroup_root : Path
        Folder where control groups are mounted.
    cgroup_membership : str, optional
        Contents of ``/proc/self/cgroup``, read from there by default.
    """
    if cgroup_membership is None:
        cgroup_membership = _read(CGROUP_MEMBERSHIP) or ""
    limits = read_cgroup(cgroup_root, cgroup_membership)
    memory = psutil.virtual_memory()
    cpus_host = os.cpu_count() or 1
    cpus: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus_host
    if limits.cpus is not None:
        cpus = min(cpus, limits.cpus)

    busy, available = limits.cpu_usage_seconds, cpus
    if busy is None or limits.cpus is None:
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # guest time is already inside user time
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        available = cpus_host
    now = time.monotonic()
    sent, received = _network_bytes()
    return HostState(
        hostname=socket.gethostname(),
        cpus=cpus,
        cpus_host=cpus_host,
        memory_total_bytes=_least(memory.total, limits.memory_total_bytes),
        memory_free_bytes=_least(memory.available, limits.memory_free_bytes),
        cpu_fraction=_busy_fraction(previous, busy, now, available),
        load=_load(cpus_host),
        network_sent_bytes=sent,
        network_received_bytes=received,
        cpu_limit=limits.cpus,
        memory_limit_bytes=limits.memory_total_bytes,
        cpu_busy_seconds=busy,
        monotonic_seconds=now,
    )


def read_cgroup(root: Path, membership: str) -> CgroupLimits:
    """Return the limits that hold for a process of control groups ``membership`` mounted at
    ``root``.

    Every group from the process's own up to the mounted root counts, because a child may be
    given more than its parent has. A group that is not visible at the mount point (as in a
    container that sees the host's paths) is skipped.

    Parameters
    ----------
    root : Path
        Usually ``/sys/fs/cgroup``: the unified (v2) tree itself, or the folder of v1 trees.
    membership : str
        Contents of ``/proc/<pid>/cgroup``.
    """
    cpu_limits: list[tuple[float, float | None]] = []
    memory_limits: list[tuple[int, int | None]] = []
    for line in membership.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if not controllers:
            groups = list(_groups(_unified(root), path))
            cpu_limits += [limit for group in groups if (limit := _cpu_v2(group))]
            memory_limits += [limit for group in groups if (limit := _memory_v2(group))]
            continue
        names = controllers.split(",")
        if "cpu" in names:
            groups = list(_groups(_mount(root, "cpu", controllers), path))
            cpu_limits += [limit for group in groups if (limit := _cpu_v1(group))]
        if "memory" in names:
            groups = list(_groups(_mount(root, "memory", controllers), path))
            memory_limits += [limit for group in groups if (limit := _memory_v1(group))]
    cpus, usage = min(cpu_limits, key=itemgetter(0), default=(None, None))
    rests = [rest for _, rest in memory_limits if rest is not None]
    return CgroupLimits(
        cpus,
        min((limit for limit, _ in memory_limits), default=None),
        min(rests, default=None),
        usage,
    )


def oom_kills(root: Path = CGROUP_ROOT, membership: str | None = None) -> int | None:
    """Count the processes that the kernel has killed for want of memory in this process's control
    group and below, so far; None where that is not counted.

    Parameters
    ----------
    root, membership
        As for `read_cgroup`.
    """
    if membership is None:
        membership = _read(CGROUP_MEMBERSHIP) or ""
    for line in membership.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if not controllers:
            mount, file = _unified(root), "memory.events"
        elif "memory" in controllers.split(","):
            mount, file = _mount(root, "memory", controllers), "memory.oom_control"
        else:
            continue
        for group in _groups(mount, path):
            for counted in (_read(group / file) or "").splitlines():
                name, _, count = counted.partition(" ")
                if name == "oom_kill" and count.strip().isdecimal():
                    return int(count)
    return None


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folders of ``path`` below ``mount`` that exist, innermost first."""
    names = [name for name in path.split("/") if name]
    if ".." in names:  # outside of our cgroup namespace: only its root is visible
        names = []
    for depth in range(len(names), -1, -1):
        folder = mount.joinpath(*names[:depth])
        if folder.is_dir():
            yield folder


def _unified(root: Path) -> Path:
    """Return the v2 tree: the root itself, or a folder in it on hybrid systems."""
    hybrid = root / "unified"
    return hybrid if hybrid.is_dir() else root


def _mount(root: Path, name: str, controllers: str) -> Path:
    """Return the v1 tree of a controller, under its own name or that of all mounted with it."""
    own = root / name
    return own if own.is_dir() else root / controllers


def _cpu_v2(group: Path) -> tuple[float, float | None] | None:
    fields = (_read(group / "cpu.max") or "").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    quota, period = _number(fields[0]), _number(fields[1])
    if quota is None or not period:
        return None
    used = _stat(group / "cpu.stat", "usage_usec")
    return quota / period, None if used is None else used / 1e6


def _cpu_v1(group: Path) -> tuple[float, float | None] | None:
    quota = _number(_read(group / "cpu.cfs_quota_us"))
    period = _number(_read(group / "cpu.cfs_period_us"))
    if quota is None or quota <= 0 or not period:
        return None
    # present where cpu and cpuacct are mounted together, as systemd does
    used = _number(_read(group / "cpuacct.usage"))
    return quota / period, None if used is None else used / 1e9


def _memory_v2(group: Path) -> tuple[int, int | None] | None:
    limit = _number(_read(group / "memory.max"))
    if limit is None:
        return None
    current = _number(_read(group / "memory.current"))
    cache = _stat(group / "memory.stat", "inactive_file")
    return limit, _rest(limit, current, cache)


def _memory_v1(group: Path) -> tuple[int, int | None] | None:
    limit = _number(_read(group / "memory.limit_in_bytes"))
    if limit is None or limit >= 2**62:  # v1 writes "no limit" as the largest whole page
        return None
    current = _number(_read(group / "memory.usage_in_bytes"))
    cache = _stat(group / "memory.stat", "total_inactive_file")
    return limit, _rest(limit, current, cache)


def _rest(limit: int, current: int | None, cache: int | None) -> int | None:
    if current is None:
        return None
    in_use = max(0, current - (cache or 0))
    return max(0, limit - in_use)


def _read(path: Path) -> str | None:
    """Return the contents of a small file, or None where it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:  # absent in this kernel, hidden in this container, or the group is gone
        return None


def _number(text: str | None) -> int | None:
    """Return a whole number, or None for anything else (``max``, an empty or absent file)."""
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _stat(path: Path, name: str) -> int | None:
    """Return the figure of this name out of a file of ``name value`` lines."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return None


def _least(host: int, limit: int | None) -> int:
    return host if limit is None else min(host, limit)


def _busy_fraction(
    previous: HostState | None, busy_seconds: float, now: float, cpus: float
) -> float | None:
    if previous is None or now <= previous.monotonic_seconds:
        return None
    busy = (busy_seconds - previous.cpu_busy_seconds) / (now - previous.monotonic_seconds)
    return min(1.0, max(0.0, busy / cpus)) if math.isfinite(busy) else None


def _load(cpus: int) -> float | None:
    try:
        return os.getloadavg()[0] / cpus
    except OSError:  # the platform says that it cannot be obtained
        return None


def _network_bytes() -> tuple[int | None, int | None]:
    counters = psutil.net_io_counters(pernic=True)
    if not counters:
        return None, None
    # traffic of a node with itself is no network
    real = [counter for name, counter in counters.items() if name != "lo"]
    return sum(c.bytes_sent for c in real), sum(c.bytes_recv for c in real)
