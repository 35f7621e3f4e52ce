"""Spans of OpenTelemetry for jobs and the bundles that they ran.

The exporter is the program's own: whatever it has set up for OpenTelemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from agentic_ray.errors import InvalidTypeError, NothingRanError
from agentic_ray.interop.reporting import Reports, figures
from agentic_ray.runtime.bundle_spans import NAME, add_work, named, nanoseconds, session_offset

if TYPE_CHECKING:
    from agentic_ray.master.jobs import JobRecord


def export(work: Any, name: str = "agentic_ray work", *, tracer: Any = None) -> None:
    """Make a span of work, and in it one of each bundle that has ended.

    Of many bundles the first 1000 get spans. They belong to the span that is current in the
    program, if there is one.

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
    tracer = trace.get_tracer(NAME) if tracer is None else tracer
    facts = figures(getattr(work, "metrics", None))
    add_work(tracer, name, None, records, facts, session_offset())


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
        chosen = trace.get_tracer(NAME) if tracer is None else tracer
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
            start_time=nanoseconds(began),
            attributes=named(known),
        )
        if record.state.value == "failed":
            text = "" if record.error is None else record.error.message
            span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        span.end(nanoseconds(record.finished_at or began))

    return Reports(report)
