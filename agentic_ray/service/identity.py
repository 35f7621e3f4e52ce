"""`Identified`: gives each request its ids, a line in the log, and a span if traces are wanted.

The outermost layer of the application, so that refused requests and faults have them too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from typing import Any, Final

from agentic_ray.ids import Ids, ids_of_request, marked
from agentic_ray.master.jsonvalues import cut_name
from agentic_ray.master.spans import context_of, header_of
from agentic_ray.service.bodies import RequestError, problem
from agentic_ray.service.guard import App, Receive, Scope, Send

_logger = logging.getLogger("agentic_ray.requests")

HEADER: Final = "X-Request-ID"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PATH: Final = 200


class Identified:
    """ASGI middleware: ids from ``X-Request-ID`` and ``traceparent`` where these are valid.

    The request id is sent back as ``X-Request-ID``. Requests that change something, and those that
    are refused, are logged at level INFO, others at DEBUG.

    Parameters
    ----------
    tracer : opentelemetry.trace.Tracer, optional
        Makes a span of each request that changes something, or that is part of a trace already.
    """

    def __init__(self, app: App, *, tracer: Any = None) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = ids_of_request(_values(scope, b"x-request-id"), _values(scope, b"traceparent"))
        span = self._span(scope, ids)
        with marked(ids, trace=ids.trace if span is None else header_of(span)):
            answer = _Answer(send, ids.request)
            began = time.monotonic()
            try:
                await self._app(scope, receive, answer)
            except Exception:
                _logger.exception("a fault of the service, at %s %s", scope["method"], _path(scope))
                if answer.status == 0:
                    error = RequestError(500, "internal error; see the log", "InternalError")
                    await problem(error)(scope, receive, answer)
            finally:
                self._note(scope, answer.status, time.monotonic() - began)
                if span is not None:
                    _end(span, scope, answer.status)

    def _span(self, scope: Scope, ids: Ids) -> Any:
        if self._tracer is None or (scope["method"] in _READING and not ids.trace):
            return None
        from opentelemetry.trace import SpanKind  # an extra

        facts = {"http.request.method": scope["method"], "url.path": scope["path"][:_PATH]}
        facts["agentic_ray.request"] = ids.request
        return self._tracer.start_span(
            scope["method"], context_of(ids.trace), kind=SpanKind.SERVER, attributes=facts
        )

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        level = logging.INFO
        if scope["method"] in _READING and status < 400:
            level = logging.DEBUG
        if _logger.isEnabledFor(level):
            told = status or "without an answer"
            _logger.log(
                level, "%s %s: %s, %.1f ms", scope["method"], _path(scope), told, 1e3 * seconds
            )


class _Answer:
    """Sends an answer with the request's id, and knows its status; 0 before it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._header = HEADER.lower().encode("ascii"), request_id.encode("ascii")
        self.status = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]


def _path(scope: Scope) -> str:
    """The path for a line of the log: short, and nothing of the query, which may hold anything."""
    return cut_name(scope["path"])


def _end(span: Any, scope: Scope, status: int) -> None:
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
    if not 0 < status < 500:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR))
    span.end()
