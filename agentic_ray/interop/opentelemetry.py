"""Spans of OpenTelemetry for jobs and the bundles that they ran.

The exporter is the program's own: whatever it has set up for OpenTelemetry.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from agentic_ray.errors import InvalidTypeError, NothingRanError
from agentic_ray.interop.reporting import Reports, figures
from agentic_ray.pictures.wording import short_name

if TYPE_CHECKING:
    from agentic_ray.master.jobs import JobRecord

_NAME: Final = "agentic_ray"


def export(work: Any, name: str = "agentic_ray work", *, tracer: Any = None) -> None:
    """Make a span of work, and in it one of each bundle that has ended.

    They belong to the span that is current in the program, if there is one.

    Parameters
    ----------
    work : job, run or map-reduce
        Anything with ``placements()``, in the process that submitted it.
    name : str
        Name of the span of all.
    tracer : opentelemetry.trace.Tracer, optional
        Default: that of the program's provider.

    Raises
    ------
    InvalidTypeError
        It has no placements.
    NothingRanError
        No bundle has ended.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.interop.opentelemetry import export
    >>> job = ar.map_reduce_job(len, ["a", "bb"])
    >>> job.result()
    [1, 2]
    >>> export(job, "lengths")
    """
    if not callable(getattr(work, "placements", None)):
        raise InvalidTypeError(f"a {type(work).__name__} has no placements")
    records = work.placements()
    if not records:
        raise NothingRanError(f"{name}: there is no record of work that has run")
    tracer = trace.get_tracer(_NAME) if tracer is None else tracer
    # Placements are on the session's clock, which is monotonic.
    offset = time.time() - time.monotonic()
    whole = tracer.start_span(
        name,
        start_time=_nanoseconds(min(one.started_seconds for one in records) + offset),
        attributes={
            f"{_NAME}.{key}": value
            for key, value in figures(getattr(work, "metrics", None)).items()
        },
    )
    inside = trace.set_span_in_context(whole)
    for one in records:
        begin = max(one.started_seconds, one.finished_seconds - one.actual_seconds)
        known = {
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
            start_time=_nanoseconds(begin + offset),
            attributes={f"{_NAME}.{k}": value for k, value in known.items() if value is not None},
        )
        span.end(_nanoseconds(one.finished_seconds + offset))
    whole.end(_nanoseconds(max(one.finished_seconds for one in records) + offset))


def on_end(tracer: Any = None) -> Reports:
    """Return a callback for ``Master(on_end=...)``: every job becomes a span, with its figures.

    Parameters
    ----------
    tracer : opentelemetry.trace.Tracer, optional
        Default: that of the program's provider.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from agentic_ray.interop.opentelemetry import on_end
    >>> master = ar.Master(on_end=on_end())  # doctest: +SKIP
    """

    def report(record: JobRecord) -> None:
        chosen = trace.get_tracer(_NAME) if tracer is None else tracer
        known = {
            "job": record.id,
            "workload": record.workload,
            "user": record.user,
            "state": record.state.value,
            "attempts": record.attempts,
            **figures(record.metrics),
        }
        began = record.started_at or record.created_at
        span = chosen.start_span(
            f"job {record.workload}",
            start_time=_nanoseconds(began),
            attributes={f"{_NAME}.{name}": value for name, value in known.items()},
        )
        if record.state.value == "failed":
            text = "" if record.error is None else record.error.message
            span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        span.end(_nanoseconds(record.finished_at or began))

    return Reports(report)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
