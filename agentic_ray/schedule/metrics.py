"""Report of a finished job: its placements and the figures E, L, D and F. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

CALLER = "caller"
"""Stands for a node id where the work was done in the caller's own process."""


@dataclass(frozen=True, slots=True)
class PlacementRecord:
    """Node and device on which one bundle ran and why, predicted and actual.

    ``started_seconds`` and ``finished_seconds`` are on the session's clock; the actual seconds
    are measured on the executor and exclude waiting and transport. ``retried`` says that an
    earlier attempt was lost. ``made_bytes`` are the bytes of its values, ``moved_bytes`` those of
    its inputs that came from other nodes; None where that was not noted.
    """

    bundle: str
    node_id: str
    device: str
    predicted_seconds: float | None
    actual_seconds: float
    reason: str
    started_seconds: float
    finished_seconds: float
    items: int = 1
    tasks: int = 1
    retried: bool = False
    made_bytes: int | None = None
    moved_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of a job.

    Parameters
    ----------
    efficiency : float
        E = busy seconds of all slots / (makespan x slots).
    imbalance : float
        L = (max - mean) / max of the busy seconds per slot.
    decomposition : float
        D = logical tasks made / logical tasks asked for.
    recovery : float
        F = bundles recovered / bundles that failed; 1.0 when none failed.
    mean_task_seconds : float
        Busy seconds per logical task (the seed's P / N).
    """

    efficiency: float
    imbalance: float
    decomposition: float
    recovery: float
    mean_task_seconds: float
    makespan_seconds: float
    busy_seconds: float
    slots: int
    tasks: int
    bundles: int
    failed: int = 0
    recovered: int = 0


def summarise(
    records: Sequence[PlacementRecord],
    *,
    slots: Mapping[tuple[str, str], int],
    makespan_seconds: float,
    asked: int,
    failed: int = 0,
    recovered: int = 0,
) -> Metrics:
    """Summarise one job in `Metrics`, from the records of its bundles.

    Parameters
    ----------
    slots : mapping
        Slots the job could use, by node and device; idle ones too.
    asked : int
        Logical tasks the caller asked for.
    """
    busy = sum(record.actual_seconds for record in records)
    made = sum(record.items for record in records)
    per_slot = busy_per_slot(records, slots)
    longest = max(per_slot, default=0.0)
    mean = sum(per_slot) / len(per_slot) if per_slot else 0.0
    count = max(len(per_slot), 1)
    available = makespan_seconds * count
    return Metrics(
        efficiency=min(1.0, busy / available) if available > 0 else 0.0,
        imbalance=(longest - mean) / longest if longest > 0 else 0.0,
        decomposition=made / asked if asked else 1.0,
        recovery=recovered / failed if failed else 1.0,
        mean_task_seconds=busy / made if made else 0.0,
        makespan_seconds=makespan_seconds,
        busy_seconds=busy,
        slots=count,
        tasks=made,
        bundles=len(records),
        failed=failed,
        recovered=recovered,
    )


def busy_per_slot(
    records: Iterable[PlacementRecord], slots: Mapping[tuple[str, str], int]
) -> list[float]:
    """Return the busy seconds of each slot, idle ones included.

    Executors do not name their threads, so bundles are laid on slots as an executor would:
    each, by its starting time, on the slot of its device that has been free the longest. A
    device that is in ``records`` only (a node that is gone) counts as one slot; the caller's
    own process is none.
    """
    by_device: dict[tuple[str, str], list[PlacementRecord]] = {device: [] for device in slots}
    for record in records:
        if record.node_id != CALLER:
            by_device.setdefault((record.node_id, record.device), []).append(record)
    loads: list[float] = []
    for device, group in by_device.items():
        group.sort(key=lambda record: record.finished_seconds - record.actual_seconds)
        count = max(1, slots.get(device, 1))
        heap = [(float("-inf"), i) for i in range(count)]
        busy = [0.0] * count
        for record in group:
            _, slot = heapq.heappop(heap)
            busy[slot] += record.actual_seconds
            heapq.heappush(heap, (record.finished_seconds, slot))
        loads += busy
    return loads
