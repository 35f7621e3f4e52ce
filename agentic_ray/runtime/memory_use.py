"""Tells who holds the memory of a node, as far as this process may see it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from typing import Final

import psutil

from agentic_ray.schedule.events import Holder, MemoryUse
from agentic_ray.telemetry.host import probe_host

_SHOWN: Final = 3
_NAME_LENGTH: Final = 60
_USERS: Final = re.compile(r"^\s*(\d+)\s+(\d+(?:\.\d+)?)\s+(ray::\S+)", re.MULTILINE)
"""Line of Ray's list of the largest processes: number, GB, command."""


def memory_use(own_bytes: int, ours: Collection[int] = ()) -> MemoryUse:
    """Tell who holds this node's memory now. To be called in a worker process of Ray.

    Parameters
    ----------
    own_bytes : int
        Memory that the killed process held; 0 where that is not known.
    ours : collection of int
        Processes that are not counted among the others, beside Ray's own: the caller's.
    """
    spared = {*ours, *_of_ray()}
    holders: list[Holder] = []
    others = 0
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            memory = process.memory_info()
            size = memory.rss - getattr(memory, "shared", 0)
            if size > 0:
                others += size
                holders.append(Holder(process.name(), process.pid, size))
        except psutil.Error:
            continue  # it has ended, or is not ours to look at
    holders.sort(key=lambda one: -one.size_bytes)
    largest = tuple(_named(one) for one in holders[:_SHOWN])
    host = probe_host()
    total, free = host.memory_total_bytes, host.memory_free_bytes
    return MemoryUse(total, free, own_bytes, min(others, total), largest)


def _of_ray() -> Iterable[int]:
    """Return the raylet above this process, all processes below it, and this process."""
    raylet = psutil.Process().parent()
    if raylet is None:
        return [os.getpid()]
    return [raylet.pid, *(child.pid for child in raylet.children(recursive=True))]


def _named(holder: Holder) -> Holder:
    """Return ``holder`` with its command instead of its mere name, where it can be read."""
    try:
        line = " ".join(" ".join(psutil.Process(holder.pid).cmdline()).split())
    except psutil.Error:
        line = ""
    return holder._replace(name=(line or holder.name)[:_NAME_LENGTH])


def own_bytes(text: str) -> int:
    """Return the most memory that a process of ours held when Ray killed one, by the text of Ray's
    error; 0 if the text does not say it."""
    sizes = [float(gigabytes) for _, gigabytes, _ in _USERS.findall(text)]
    return int(max(sizes, default=0.0) * 2**30)
