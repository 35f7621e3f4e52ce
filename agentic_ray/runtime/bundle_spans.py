"""Spans of OpenTelemetry of the bundles that have run. Needs its API to be installed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import trace

from agentic_ray.pictures.wording import short_name
from agentic_ray.schedule.metrics import PlacementRecord

NAME: Final = "agentic_ray"
MOST_SPANS: Final = 1_000
"""Bundles of one graph that get a span of their own; exporters drop what comes too fast."""

Tracer = Any
Context = Any


def nanoseconds(seconds: float) -> int:
    """Seconds as OpenTelemetry counts them."""
    return int(seconds * 1e9)


def session_offset() -> float:
    """Seconds from the session's clock, which is monotonic, to the epoch."""
    return time.time() - time.monotonic()


def named(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as attributes: with our name, and without those that are not known."""
    return {f"{NAME}.{name}": value for name, value in facts.items() if value is not None}


def add_work(
    tracer: Tracer,
    name: str,
    inside: Context | None,
    records: Sequence[PlacementRecord],
    facts: dict[str, Any],
    offset: float,
) -> None:
    """Make a span called ``name`` over all of ``records``, of which there is at least one, and in
    it a span of each bundle.

    ``inside`` is the context of the parent, None for the program's own. ``offset`` is the
    `session_offset` of the whole trace: both clocks drift, and a child must lie within its parent.
    """
    whole = tracer.start_span(
        name,
        inside,
        start_time=nanoseconds(min(one.started_seconds for one in records) + offset),
        attributes=named(facts),
    )
    _add_bundles(tracer, trace.set_span_in_context(whole), records, offset)
    whole.end(nanoseconds(max(one.finished_seconds for one in records) + offset))


def _add_bundles(
    tracer: Tracer, inside: Context, records: Sequence[PlacementRecord], offset: float
) -> None:
    """Make a span of each of the first `MOST_SPANS` bundles."""
    for one in records[:MOST_SPANS]:
        begin = max(one.started_seconds, one.finished_seconds - one.actual_seconds)
        facts = {
            "bundle": one.bundle,
            "node": one.node_id,
            "device": one.device,
            "reason": one.reason,
            "tasks": one.tasks,
            "items": one.items,
            "retried": one.retried,
            "predicted_seconds": one.predicted_seconds,
            "made_bytes": one.made_bytes,
            "moved_bytes": one.moved_bytes,
        }
        span = tracer.start_span(
            short_name(one.bundle),
            inside,
            start_time=nanoseconds(begin + offset),
            attributes=named(facts),
        )
        span.end(nanoseconds(one.finished_seconds + offset))
