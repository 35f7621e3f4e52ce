"""`Span`: a task that ran, and the lanes in which spans are drawn."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Span:
    """A run of a task.

    Parameters
    ----------
    task, codelet : str
        Name of the task, and of the operation that gives it its colour.
    node_id, device : str
        Place where it ran; the device is ``"cpu"`` or a GPU.
    sent_seconds, start_seconds, finish_seconds : float
        Times on one clock. At the first it was sent to its device, which then fetched the inputs
        and finished its earlier work.
    predicted_seconds : float or None
        Time that it was expected to take.
    made_bytes : int or None
        Bytes of its results.
    moved_bytes : int or None
        Bytes of its inputs that came from other nodes.
    note : str
        Reason why it ran there.
    retried : bool
        Whether an earlier attempt was lost.
    """

    task: str
    codelet: str
    node_id: str
    device: str
    sent_seconds: float
    start_seconds: float
    finish_seconds: float
    predicted_seconds: float | None = None
    made_bytes: int | None = None
    moved_bytes: int | None = None
    note: str = ""
    retried: bool = False

    @property
    def seconds(self) -> float:
        """Seconds that it took on its device."""
        return self.finish_seconds - self.start_seconds


@dataclass(frozen=True, slots=True)
class Lane:
    """Spans of one device of which none begins before the one before it has ended."""

    node_id: str
    device: str
    spans: tuple[Span, ...]


def lanes(spans: Sequence[Span]) -> list[Lane]:
    """Lay spans on as few lanes as they need, device by device.

    Each span, by its starting time, goes to the first lane of its device that is free: those
    that ran side by side are in different lanes. A node's lanes follow each other.

    Examples
    --------
    >>> from agentic_ray.pictures import Span
    >>> first = Span("a", "f", "n1", "cpu", 0.0, 0.0, 2.0)
    >>> beside = Span("b", "f", "n1", "cpu", 0.0, 1.0, 3.0)
    >>> after = Span("c", "f", "n1", "cpu", 0.0, 2.0, 4.0)
    >>> [[span.task for span in lane.spans] for lane in lanes([first, beside, after])]
    [['a', 'c'], ['b']]
    """
    devices: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        devices.setdefault((span.node_id, span.device), []).append(span)
    found: list[Lane] = []
    for node_id, device in sorted(devices, key=_order):
        rows: list[list[Span]] = []
        busy: list[tuple[float, int]] = []  # heap: until when each taken row is
        free: list[int] = []  # heap: rows that are free
        for span in sorted(devices[node_id, device], key=lambda one: one.start_seconds):
            while busy and busy[0][0] <= span.start_seconds + _SAME_SECONDS:
                heapq.heappush(free, heapq.heappop(busy)[1])
            if free:
                row = heapq.heappop(free)
                rows[row].append(span)
            else:
                row = len(rows)
                rows.append([span])
            heapq.heappush(busy, (span.finish_seconds, row))
        found += [Lane(node_id, device, tuple(row)) for row in rows]
    return found


_SAME_SECONDS = 1e-9
"""A span that begins this much before another ends counts as following it: clocks are rounded."""


def _order(place: tuple[str, str]) -> tuple[int, str, str]:
    """Sort ``n2`` before ``n10``, and a node's devices together."""
    node_id, device = place
    return len(node_id), node_id, device


def joined(spans: Sequence[Span], gap_seconds: float) -> list[Span]:
    """Join spans of a lane that are too close or too short to be seen apart.

    Spans of one codelet are joined if less than ``gap_seconds`` are between them, and any that
    begin and end within ``gap_seconds``. The joined span has no prediction, since it stands for
    several tasks.
    """
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is None or not (
            span.finish_seconds - last.start_seconds <= gap_seconds
            or (_alike(last, span) and span.start_seconds - last.finish_seconds <= gap_seconds)
        ):
            found.append(span)
            continue
        found[-1] = replace(
            last,
            task=last.task if last.task.endswith("…") else f"{last.task} …",
            finish_seconds=span.finish_seconds,
            predicted_seconds=None,
            made_bytes=_sum(last.made_bytes, span.made_bytes),
            moved_bytes=_sum(last.moved_bytes, span.moved_bytes),
            retried=last.retried or span.retried,
        )
    return found


def _alike(one: Span, other: Span) -> bool:
    return one.codelet == other.codelet and one.retried == other.retried


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
