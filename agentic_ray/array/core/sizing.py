"""Sizes ``"auto"`` chunks by the array's size, the cluster's slots and memory, and the costs of
tasks. The deciding is a pure function; finding out what there is comes after it.
"""

from __future__ import annotations

import functools
import sys
import weakref
from dataclasses import dataclass
from typing import Any

from agentic_ray.schedule.calibration import Calibration
from agentic_ray.telemetry.state import ClusterState

USUAL_BYTES = 32 << 20
"""A chunk where slots and memory leave the choice: the cost of a task is lost in it, and a few of
them are small beside any node's memory. What is no larger is not cut: it is computed in the
caller's process (`evaluate.LOCAL_BYTES`)."""
CHUNKS_PER_SLOT = 2
"""At least so many for each slot, while they are not too small."""
MOST_CHUNKS = 1 << 15
"""Plans of more are slow to make: chunks get larger instead."""
SLOT_SHARE = 1 / 32
"""Of the memory there is for a slot a chunk takes no more: what a task reads and writes, and what
waits in the object store, are several chunks for each slot."""
TASK_SECONDS = 3e-5
"""Building, placing and starting one task, beside the calls that are shared by many."""
TASK_SHARE = 0.02
"""Of the time in which a task reads its chunk, the part that these seconds may be."""
LEAST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Slots, memory and costs for which chunks are cut.

    Parameters
    ----------
    slots : int
        CPUs of all nodes.
    slot_memory_bytes : int
        Memory a CPU, on the node that has the least.
    """

    slots: int
    slot_memory_bytes: int


_PRIOR = Calibration()


def auto_bytes(total_bytes: int, around: Surroundings) -> int:
    """The size of the chunks of an array of ``total_bytes``.

    A power of two, so that clusters that differ little cut alike. Costs are the cost model's
    before it has learnt anything: what it learns differs from run to run, and would change the
    order of a sum's additions with it.
    """
    wanted = USUAL_BYTES
    if total_bytes > USUAL_BYTES:
        worth = _power_of_two(int(TASK_SECONDS / TASK_SHARE * _PRIOR.cpu_bytes_per_second))
        fair = _power_of_two(-(-total_bytes // (CHUNKS_PER_SLOT * max(around.slots, 1))))
        wanted = min(max(worth, fair), wanted)
        wanted = max(wanted, _power_of_two(-(-total_bytes // MOST_CHUNKS)))
    room = _power_of_two(int(around.slot_memory_bytes * SLOT_SHARE) + 1) // 2
    return max(min(wanted, room), LEAST_BYTES)


def _power_of_two(size: int) -> int:
    """The least one that is not below ``size``."""
    return 1 << max(size - 1, 0).bit_length()


# --- what there is -----------------------------------------------------------------------

_of_session: weakref.WeakKeyDictionary[Any, Surroundings] = weakref.WeakKeyDictionary()


def surroundings() -> Surroundings:
    """The cluster of this process's session as it was when first asked, so that nodes that come
    and go change no chunks; this machine while there is no session. Starts nothing."""
    runtime = sys.modules.get("agentic_ray.runtime.current")
    session = None if runtime is None else runtime.current_session()
    if session is None:
        return _of_host()
    found = _of_session.get(session)
    if found is None:
        found = _of_session[session] = of_cluster(session.cluster()) or _of_host()
    return found


def of_cluster(state: ClusterState) -> Surroundings | None:
    """Return the surroundings that these nodes make; None if none of them has a CPU for work."""
    nodes = [node for node in state.alive_nodes if node.cpus_total >= 1]
    if not nodes:
        return None
    memory = [
        int(node.memory_total_bytes / node.cpus_total) for node in nodes if node.memory_total_bytes
    ]
    return Surroundings(
        sum(int(node.cpus_total) for node in nodes), min(memory, default=USUAL_BYTES * 64)
    )


@functools.cache
def _of_host() -> Surroundings:
    from agentic_ray.telemetry.host import probe_host

    host = probe_host()
    slots = max(1, int(host.cpus))
    return Surroundings(slots, host.memory_total_bytes // slots)


def slots_of_host() -> int:
    """CPUs of this machine that this process may use."""
    return _of_host().slots
