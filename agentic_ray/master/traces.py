"""Keeps a job's work on the cluster for people to look at: `Trace`, and its shelf.

Placements are kept as columns, in which equal texts are written once: a job may have ten thousands.
"""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentic_ray.master.handle import UnderWay
from agentic_ray.master.jobs import JobEvent
from agentic_ray.shown import cut_line

if TYPE_CHECKING:
    from agentic_ray.schedule.metrics import PlacementRecord

_logger = logging.getLogger("agentic_ray")

MOST_PLACEMENTS: Final = 50_000
"""Of one job so many are kept, the newest."""
_MOST_EVENTS: Final = 2_000
_ALL_BYTES: Final = 64 << 20
_JOBS: Final = 1_000
_PRUNE_EVERY: Final = 100
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Trace:
    """A job's work on the cluster, as plain JSON types.

    Parameters
    ----------
    items_done, items_total : int
        Logical tasks that have finished, and that were asked for so far.
    events : list of list
        Time, kind, text, bundle and node of each thing that happened.
    placements : dict
        Columns, see `columns`.
    graphs : list of dict
        The shape of each graph.
    """

    items_done: int = 0
    items_total: int = 0
    events: list[list[Any]] = field(default_factory=list)
    placements: dict[str, Any] = field(default_factory=lambda: columns(()))
    graphs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, under_way: UnderWay, before: Iterable[JobEvent] = ()) -> Trace:
        """Return the trace, as known now, of a job that runs or has just ended."""
        events = [*before, *under_way.events()]
        return cls(
            under_way.items_done,
            under_way.items_total,
            [
                [event.time, event.kind, cut_line(event.text), event.bundle, event.node_id]
                for event in events[-_MOST_EVENTS:]
            ],
            columns(under_way.placements()),
            under_way.graphs(),
        )

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class _Index:
    """Numbers texts in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def columns(records: Sequence[PlacementRecord]) -> dict[str, Any]:
    """Placements as columns of equal length.

    Returns
    -------
    dict
        ``names``, ``nodes``, ``devices`` and ``reasons`` are texts, which ``name``, ``node``,
        ``device`` and ``reason`` refer to by number. ``label`` is the rest of a bundle's key
        behind its name. ``start`` and ``end`` are seconds since the first bundle started.
        ``retried`` has the numbers of the rows that were tried before, ``dropped`` is how many
        older records are left out.
    """
    shown = records[-MOST_PLACEMENTS:]
    names, nodes, devices, reasons = _Index(), _Index(), _Index(), _Index()
    origin = min((record.started_seconds for record in shown), default=0.0)
    parts = [record.bundle.rpartition("-") for record in shown]
    rows = list(zip(shown, parts, strict=True))
    return {
        "name": [names[name or label] for _, (name, _, label) in rows],
        "label": [label if name else "" for _, (name, _, label) in rows],
        "node": [nodes[record.node_id] for record in shown],
        "device": [devices[record.device] for record in shown],
        "reason": [reasons[record.reason] for record in shown],
        "start": [round(record.started_seconds - origin, 6) for record in shown],
        "end": [round(record.finished_seconds - origin, 6) for record in shown],
        "actual": [round(record.actual_seconds, 6) for record in shown],
        "predicted": [
            None if record.predicted_seconds is None else round(record.predicted_seconds, 6)
            for record in shown
        ],
        "items": [record.items for record in shown],
        "retried": [number for number, record in enumerate(shown) if record.retried],
        "names": list(names.numbers),
        "nodes": list(nodes.numbers),
        "devices": list(devices.numbers),
        "reasons": list(reasons.numbers),
        "dropped": len(records) - len(shown),
    }


class TraceShelf:
    """The traces of jobs that have ended; safe to use from any thread.

    Parameters
    ----------
    folder : path, optional
        Where each job has a file of its own, for the masters to come. The files of the newest 1000
        jobs are kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._before: dict[str, list[JobEvent]] = {}
        self._bytes = 0
        self._ended = 0
        self._warned = False
        self._lock = threading.Lock()

    def again(self, job_id: str, under_way: UnderWay, event: JobEvent) -> None:
        """The job is run again after ``event``; what happened before is part of its trace."""
        with self._lock:
            before = self._before.setdefault(job_id, [])
            before += [*under_way.events(), event]

    def before(self, job_id: str) -> list[JobEvent]:
        """Return the events of earlier attempts of a job that runs."""
        with self._lock:
            return list(self._before.get(job_id, ()))

    def keep(self, job_id: str, under_way: UnderWay) -> None:
        """The job has ended."""
        with self._lock:
            before = self._before.pop(job_id, [])
        trace = Trace.of(under_way, before)
        if not (trace.events or trace.graphs or trace.items_done):
            return
        content = zlib.compress(json.dumps(trace.to_dict()).encode("ascii"), _LEVEL)
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop(job_id, b""))
            self._kept[job_id] = content
            while self._bytes > _ALL_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
            self._write(job_id, content)

    def ended(self, job_id: str) -> None:
        """The job is not run again, whether or not its last attempt was kept."""
        with self._lock:
            self._before.pop(job_id, None)

    def get(self, job_id: str) -> Trace:
        """The trace of a job that has ended; an empty one if nothing is kept of it."""
        with self._lock:
            content = self._kept.get(job_id)
        if content is None:
            content = self._read(job_id)
        if content is None:
            return Trace()
        try:
            return Trace(**json.loads(zlib.decompress(content)))
        except (ValueError, TypeError, zlib.error) as error:
            _logger.warning("the trace of job %s cannot be read: %s", job_id, error)
            return Trace()

    def _write(self, job_id: str, content: bytes) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{job_id}.json.z").write_bytes(content)
            self._ended += 1
            if self._ended % _PRUNE_EVERY == 0:
                files = sorted(self._folder.glob("*.json.z"), key=_age, reverse=True)
                for file in files[_JOBS:]:
                    file.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                self._warned = True
                _logger.warning("traces of jobs are kept in memory only: %s", error)

    def _read(self, job_id: str) -> bytes | None:
        if self._folder is None:
            return None
        try:
            return (self._folder / f"{job_id}.json.z").read_bytes()
        except OSError:  # it did nothing on the cluster, or ended long ago
            return None


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
