"""Spans of OpenTelemetry for jobs, their graphs and bundles, as children of whoever submitted them.

Nothing here is used unless it is asked for: the packages are an extra (``otel``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.master.jobs import JobFailure, JobRecord
from agentic_ray.schedule.metrics import PlacementRecord
from agentic_ray.shown import cut_line

_ASKED_BY: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
_END_MILLISECONDS: Final = 5_000


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables say that traces are wanted.

    Examples
    --------
    >>> from agentic_ray.master.spans import asked_for
    >>> asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    True
    >>> asked_for({"OTEL_TRACES_EXPORTER": "none"}), asked_for({})
    (False, False)
    """
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    none = environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
    return not off and not none and any(environment.get(name) for name in _ASKED_BY)


class Tracing:
    """This process's provider of traces, as OpenTelemetry's variables of the environment say.

    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_TRACES_SAMPLER`` are the SDK's;
    ``OTEL_TRACES_EXPORTER`` names exporters, ``otlp`` unless it is set, to be sent to
    ``OTEL_EXPORTER_OTLP_ENDPOINT``.

    Parameters
    ----------
    name : str
        The service's name, where the environment has none.

    Raises
    ------
    SessionError
        The packages are not installed.
    InvalidArgumentError
        There is no such exporter.
    """

    def __init__(self, name: str = "agentic-ray") -> None:
        try:  # heavy, and an extra
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SessionError(
                "traces need the packages of OpenTelemetry: pip install 'agentic-ray[otel]'"
            ) from error
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or name})
        self._provider = TracerProvider(resource=resource)
        for exporter in _exporters(os.environ):
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Any = self._provider.get_tracer("agentic_ray")

    def close(self) -> None:
        """Send what is not sent yet, for some seconds."""
        self._provider.force_flush(_END_MILLISECONDS)
        self._provider.shutdown()


def _exporters(environment: Mapping[str, str]) -> list[Any]:
    found = []
    names = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    for name in filter(None, (each.strip() for each in names.split(","))):
        if name == "none":
            continue
        if name == "otlp":
            grpc = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").lower() == "grpc"
            name = "otlp_proto_grpc" if grpc else "otlp_proto_http"
        try:
            (entry,) = entry_points(group="opentelemetry_traces_exporter", name=name)
            found.append(entry.load()())
        except (ImportError, ValueError) as error:
            raise InvalidArgumentError(
                f"there is no exporter of traces {cut_line(name)!r} (OTEL_TRACES_EXPORTER, "
                "OTEL_EXPORTER_OTLP_PROTOCOL); pip install 'agentic-ray[otel]' brings otlp by HTTP"
            ) from error
    return found


def header_of(span: Any) -> str:
    """The ``traceparent`` that makes work a child of this span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def context_of(traceparent: str) -> Any:
    """OpenTelemetry's context of a header; an empty one, whose spans begin a trace, of none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent} if traceparent else {}
    return TraceContextTextMapPropagator().extract(carrier, Context())


class JobSpan:
    """The span of one attempt of a job: begun when its function is to run, ended with what became
    of it.

    Parameters
    ----------
    tracer : opentelemetry.trace.Tracer
    record : JobRecord
        Its ``traceparent`` is the parent.
    """

    def __init__(self, tracer: Any, record: JobRecord) -> None:
        from agentic_ray.runtime import bundle_spans  # needs the extra

        self._spans = bundle_spans
        self._tracer = tracer
        facts = {
            "job": record.id,
            "workload": record.workload,
            "user": record.user,
            "request": record.request_id or None,
            "attempt": record.attempts,
            "queued_seconds": (record.started_at or record.created_at) - record.created_at,
        }
        self._span = tracer.start_span(
            f"job {record.workload}",
            context_of(record.traceparent),
            attributes=bundle_spans.named(facts),
        )
        self.traceparent = header_of(self._span)

    def end(
        self,
        graphs: Sequence[Sequence[PlacementRecord]],
        failure: JobFailure | None,
        metrics: Mapping[str, Any] | None,
    ) -> None:
        """Make the spans of its graphs and bundles, and end it."""
        from opentelemetry import trace

        offset = self._spans.session_offset()
        inside = trace.set_span_in_context(self._span)
        for number, records in enumerate(graphs):
            if records:
                facts = {"graph": number, "bundles": len(records)}
                name = f"graph {number}"
                self._spans.add_work(self._tracer, name, inside, records, facts, offset)
        self._span.set_attributes(self._spans.named(dict(metrics or {})))
        if failure is not None:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, failure.line))
        self._span.end()
