"""Judges values read from a machine or a cluster. Each function is pure, and has its tests."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentic_ray.telemetry.state import GpuState

Level = Literal["ok", "warn", "fail"]
_GIB = 1 << 30
_SKEW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A finding about a machine or a cluster.

    Attributes
    ----------
    name : str
        Subject that was looked at, such as "python".
    level : {"ok", "warn", "fail"}
        "fail": something will not work; "warn": something may not.
    found : str
        Values that were read.
    advice : str
        Remedy; empty if all is well.
    node : str
        Node of a cluster that the finding is about; empty: this machine, or the cluster as a whole.
    """

    name: str
    level: Level
    found: str
    advice: str = ""
    node: str = ""


def judge_python(version: tuple[int, ...], system: str) -> Check:
    found = f"{'.'.join(map(str, version))} on {system}"
    if version < (3, 11):
        return Check("python", "fail", found, "use Python 3.11 or newer")
    if system != "Linux":
        return Check("python", "warn", found, "only Linux is tested")
    return Check("python", "ok", found)


def judge_packages(versions: dict[str, str | None]) -> Check:
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "fail", found, f"pip install {' '.join(missing)}")
    return Check("packages", "ok", found)


def judge_gpus(gpus: tuple[GpuState, ...], reason: str | None, cupy: str | None) -> Check:
    if not gpus:
        # A machine without a GPU is a good machine; the reason why none is seen may still be news.
        return Check("gpu", "ok", f"none: {reason or 'the driver reports none'}")
    found = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in gpus)
    ill = [f"GPU {gpu.index}: {gpu.reason}" for gpu in gpus if not gpu.healthy]
    if ill:
        return Check("gpu", "fail", found, "; ".join(ill) + "; such a GPU is not used")
    if cupy is None:
        return Check(
            "gpu",
            "warn",
            f"{found}; no CuPy, so they are not used",
            "pip install 'agentic-ray[cuda12]' or 'agentic-ray[cuda13]', as the driver needs",
        )
    return Check("gpu", "ok", f"{found}; {cupy}")


def judge_shared_memory(free_bytes: int | None, memory_bytes: int | None) -> Check:
    name = "shared memory"
    if free_bytes is None:
        return Check(name, "fail", "no /dev/shm", "mount a tmpfs on /dev/shm")
    found = f"{free_bytes / _GIB:.1f} GiB free in /dev/shm"
    advice = "in a container: docker run --shm-size=8g (Kubernetes: an emptyDir with medium Memory)"
    if free_bytes < 64 << 20:
        return Check(name, "fail", found, advice)
    wanted = 0.3 * (memory_bytes or 0)  # the share of memory that Ray gives its object store
    if free_bytes < wanted:
        found += f", Ray's object store wants {wanted / _GIB:.1f} GiB"
        return Check(name, "warn", found, advice)
    return Check(name, "ok", found)


def judge_scratch(path: Path, free_bytes: int, total_bytes: int) -> Check:
    found = f"{free_bytes / _GIB:.1f} GiB free in {path}"
    advice = "free some, or point RAY_TMPDIR to another disk"
    if free_bytes < _GIB // 2:
        return Check("disk", "fail", found, advice)
    if free_bytes < 0.05 * total_bytes:
        return Check("disk", "warn", f"{found}; Ray stops at 95 % full", advice)
    return Check("disk", "ok", found)


def judge_cache(path: Path, problem: str | None) -> Check:
    if problem is None:
        return Check("cache", "ok", str(path))
    return Check(
        "cache",
        "warn",
        f"{path} cannot be written: {problem}",
        "set XDG_CACHE_HOME to a directory of yours; without it calibrations are lost",
    )


def judge_files(limit: int) -> Check:
    if limit == resource.RLIM_INFINITY:
        return Check("open files", "ok", "no limit")
    if limit < 1024:
        return Check("open files", "fail", f"at most {limit}", "ulimit -n 65536")
    if limit < 4096:
        return Check("open files", "warn", f"at most {limit}", "on a cluster: ulimit -n 65536")
    return Check("open files", "ok", f"at most {limit}")


def judge_tokens(mode: str, exposed: Path | None, permissions: int = 0) -> Check:
    """Judge Ray's token of this user: others who may read its file may use the user's clusters."""
    if exposed is not None:
        return Check(
            "token",
            "warn",
            f"{exposed} has permissions {permissions:o}: others on this machine may read it",
            f"chmod 600 {exposed} (or: agentic-ray doctor --fix)",
        )
    return Check("token", "ok", f"RAY_AUTH_MODE {mode or 'is not set'}")


def judge_leftovers(count: int, size_bytes: int) -> Check:
    """Judge the folders of Ray's sessions on this machine whose processes are gone."""
    found = f"{count} folders of ended Ray sessions, {size_bytes / _GIB:.1f} GiB"
    if size_bytes > _GIB or count > 100:
        advice = "agentic-ray doctor --fix removes those that are older than an hour"
        return Check("leftovers", "warn", found, advice)
    return Check("leftovers", "ok", found)


def judge_autoscaling(
    pending: Sequence[str], failures: Sequence[str], waiting: Sequence[tuple[dict[str, float], int]]
) -> Check:
    """Judge an autoscaler by the nodes that it starts, those that failed, and what work waits for:
    resources, and how many times."""
    demand = ", ".join(
        f"{count} × {' '.join(f'{name} {amount:g}' for name, amount in what.items())}"
        for what, count in waiting
    )
    coming = f"on their way: {', '.join(pending)}" if pending else "no node is on its way"
    if failures:
        last = "; ".join(failures[-3:])
        advice = "look at the reason, and at the limits of your cloud account"
        return Check("autoscaler", "fail", f"could not start {last}; {coming}", advice)
    if waiting and not pending:
        advice = "raise max_workers, or add a node type that has what is asked for"
        return Check("autoscaler", "warn", f"work waits for {demand}, and {coming}", advice)
    return Check("autoscaler", "ok", f"{coming}{f'; work waits for {demand}' if demand else ''}")


def judge_reach(node: str, unreached: Sequence[str]) -> Check | None:
    """Judge which addresses of the other nodes a node does not reach."""
    if not unreached:
        return None
    shown = ", ".join(unreached[:5]) + (" and others" if len(unreached) > 5 else "")
    advice = "open these ports between the nodes; a firewall or security group may close them"
    return Check("ports", "fail", f"does not reach {shown}", advice, node)


def judge_clock(node: str, behind: float, error: float) -> Check | None:
    """Judge a node's clock, ``behind`` this one by so many seconds, known to within ``error``."""
    skew = max(0.0, abs(behind) - error)
    if skew < _SKEW_SECONDS:
        return None
    word = "behind" if behind > 0 else "ahead"
    return Check(
        "clock",
        "warn",
        f"{skew:.0f} s or more {word} of this machine",
        "run chrony or systemd-timesyncd on every node; deadlines and logs go by the clock",
        node,
    )


def judge_versions(by_node: Mapping[str, Mapping[str, str | None]]) -> list[Check]:
    """Return a finding for each node whose version of a package is not that of most nodes."""
    checks = []
    for name in sorted({name for versions in by_node.values() for name in versions}):
        counted = Counter(versions.get(name) for versions in by_node.values())
        if len(counted) == 1:
            continue
        common = counted.most_common(1)[0][0]
        for node, versions in by_node.items():
            if versions.get(name) != common:
                checks.append(
                    Check(
                        "versions",
                        "fail" if name in ("python", "ray", "agentic-ray") else "warn",
                        f"{name} {versions.get(name) or 'is missing'}, most nodes have {common}",
                        "install the same versions on every node",
                        node,
                    )
                )
    return checks
