"""Turns records of placements into spans, for pictures of a run. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agentic_ray.errors import NothingRanError
from agentic_ray.pictures import Span, Timeline
from agentic_ray.pictures.charts import FEW_BARS
from agentic_ray.pictures.wording import counted, short_name
from agentic_ray.schedule.metrics import Metrics, PlacementRecord


def spans_of(records: Iterable[PlacementRecord]) -> tuple[Span, ...]:
    """Return a span for each record, in their order.

    A record tells when its bundle was sent, when its report came and how long it took: it is
    taken to have run just before the report.
    """
    return tuple(
        Span(
            *(record.bundle, short_name(record.bundle), record.node_id, record.device),
            record.started_seconds,
            max(record.started_seconds, record.finished_seconds - record.actual_seconds),
            record.finished_seconds,
            predicted_seconds=record.predicted_seconds,
            made_bytes=record.made_bytes,
            moved_bytes=record.moved_bytes,
            note=record.reason,
            retried=record.retried,
        )
        for record in records
    )


def timeline_of(
    title: str,
    records: Sequence[PlacementRecord],
    memory: Sequence[tuple[float, int]] = (),
    path: str | os.PathLike[str] | None = None,
) -> Timeline:
    """Return a picture of where and when bundles ran; write it to ``path`` if that is given.

    Raises
    ------
    NothingRanError
        There are no records.
    InvalidArgumentError
        The path has an ending that no form of the picture has.
    """
    if not records:
        raise NothingRanError(f"{title}: there is no record of work that has run")
    timeline = Timeline(title, spans_of(records), tuple(memory))
    if path is not None:
        timeline.save(path)
    return timeline


_FIGURES = (
    ("E", "efficiency", "busy share of all slots"),
    ("L", "imbalance", "how much longer the busiest slot worked than the mean"),
    ("D", "decomposition", "tasks made for each that was asked for"),
    ("F", "recovery", "bundles recovered of those that failed"),
)


def job_html(shown: str, picture: Timeline, metrics: Metrics | Mapping[str, Any] | None) -> str:
    """Return HTML for a job in a notebook: its line, its figures, and its timeline in small."""
    known = asdict(metrics) if isinstance(metrics, Metrics) else metrics or {}
    figures = "".join(
        f"<span title='{name}: {about}'>{letter} {known[name]:.3g}</span> "
        for letter, name, about in _FIGURES
        if name in known
    )
    places = len({(span.node_id, span.device) for span in picture.spans})
    retried = sum(span.retried for span in picture.spans)
    about = f"{counted(len(picture.spans), 'bundle')} on {counted(places, 'device')}"
    about += f", {retried:,} run again" * bool(retried)
    return (
        f"<div>{shown}<br><small style='opacity:.8'>{about} &emsp;{figures}</small>"
        f"<div style='max-width:900px'>{picture.svg(FEW_BARS, heading=False)}</div></div>"
    )
