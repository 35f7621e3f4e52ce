"""The HTTP API over a master: routes and the JSON form of every error.

Bodies are checked in ``bodies``, access in ``guard``; sockets and signals are in ``server``.
Nothing that comes in is ever unpickled or evaluated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agentic_ray.errors import AgenticRayError, JournalError, QueueFullError
from agentic_ray.master import JobState, Master
from agentic_ray.service import exposition
from agentic_ray.service.bodies import (
    STATUS_OF,
    JsonResponse,
    RequestError,
    SubmitBody,
    default_user,
    error_body,
    idempotency_key,
    is_json,
    plain,
    too_large,
)
from agentic_ray.service.guard import Guard
from agentic_ray.service.reading import Reader
from agentic_ray.telemetry import ClusterState

MAX_BODY_BYTES: Final = 16 << 20
_JOURNAL_RETRY_SECONDS: Final = 5
_BODY_SECONDS: Final = 60.0
_LISTED: Final = 100
_LISTED_MOST: Final = 1000
_LINES_MOST: Final = 1000


def create_app(
    master: Master,
    *,
    token: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    cluster: Callable[[], ClusterState] | None = None,
    health: Callable[[], tuple[str, str]] | None = None,
) -> FastAPI:
    """The ASGI application.

    Parameters
    ----------
    master : Master
        Runs the jobs.
    token : str, optional
        Every route but ``/healthz`` then needs ``Authorization: Bearer TOKEN``. Without it only
        requests whose Host header names loopback are answered.
    max_body_bytes : int
        Larger bodies are refused with 413.
    cluster : callable, optional
        Gives the state shown by ``GET /cluster``; default: that of the session.
    health : callable, optional
        Gives ``starting``, ``ok``, ``degraded`` or ``draining``, and why, for ``GET /healthz`` and
        ``GET /readyz``; default: as the master says.
    """
    app = FastAPI(
        title="agentic_ray", docs_url=None, redoc_url=None, redirect_slashes=False, version="1"
    )
    app.add_middleware(Guard, token=token, max_body_bytes=max_body_bytes)
    _add_error_handlers(app)
    user = default_user(token)
    reader = Reader()
    app.state.reader = reader
    body_schema = SubmitBody.model_json_schema()

    @app.post(
        "/submit",
        status_code=202,
        openapi_extra={
            "requestBody": {"content": {"application/json": {"schema": body_schema}}},
        },
    )
    async def submit(request: Request) -> Response:
        if not is_json(request.headers.get("content-type")):
            raise RequestError(415, "send the body as Content-Type: application/json", "NotJson")
        raw = await _read_body(request, max_body_bytes)
        key = request.headers.get("idempotency-key")
        answer = await run_in_threadpool(_submit, master, reader, raw, key, user)
        return JsonResponse(answer, 202, {"Location": f"/status/{answer['task_id']}"})

    @app.get("/status/{task_id}")
    def status(task_id: str) -> Response:
        return JsonResponse(plain(master.get_task_status(task_id)))

    @app.get("/jobs")
    def jobs(
        state: JobState | None = None,
        limit: Annotated[int, Query(ge=1, le=_LISTED_MOST)] = _LISTED,
    ) -> Response:
        known = [record for record in master.jobs() if state in (None, record.state)]
        shown = [record.to_dict(with_result=False) for record in known[::-1][:limit]]
        return JsonResponse(plain({"jobs": shown, "total": len(known)}))

    @app.get("/logs/{task_id}")
    def logs(task_id: str, first: Annotated[int, Query(ge=0)] = 0) -> Response:
        lines = master.logs(task_id, first)[:_LINES_MOST]
        finished = master.record(task_id).state.finished
        following = lines[-1].number + 1 if lines else first
        shown = [asdict(line) for line in lines]
        whole = finished and len(lines) < _LINES_MOST
        return JsonResponse(plain({"lines": shown, "next": following, "finished": whole}))

    @app.post("/cancel/{task_id}")
    def cancel(task_id: str) -> Response:
        master.cancel(task_id)
        return JsonResponse(plain(master.get_task_status(task_id)))

    @app.get("/healthz")
    def healthz() -> Response:
        # Neither starting nor being without Ray is a reason to be restarted: jobs are accepted.
        return JsonResponse(_health())

    @app.get("/readyz")
    def readyz() -> Response:
        found = _health()
        return JsonResponse(found, 200 if found["status"] == "ok" else 503)

    def _health() -> dict[str, str]:
        status, reason = ("starting" if master.held else "ok", "") if health is None else health()
        return {"status": status} | ({"reason": reason} if reason else {})

    @app.get("/cluster")
    def cluster_state() -> Response:
        if master.held and (health is None or health()[0] == "starting"):
            raise RequestError(503, "Ray is starting; jobs are accepted", "Starting")
        return JsonResponse(plain((cluster or _session_cluster)().to_dict()))

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(
            exposition.render(master.statistics()),
            headers={"Content-Type": exposition.CONTENT_TYPE},
        )

    return app


def _session_cluster() -> ClusterState:
    from agentic_ray.runtime import cluster

    return cluster()


def _submit(
    master: Master, reader: Reader, raw: bytes, key: str | None, user: str
) -> dict[str, Any]:
    """Parse, check and submit: in a thread, for a large body and the journal take their time."""
    submission = reader.read(raw)
    body = submission.body
    job = master.submit(
        body.workload,
        submission.parameters,
        priority=body.priority,
        timeout_seconds=body.timeout_seconds,
        deadline_seconds=body.deadline_seconds,
        user=user if body.user is None else body.user,
        idempotency_key=idempotency_key(key, body.idempotency_key),
        cache=body.cache,
    )
    return {"task_id": job.id} | ({"cached": True} if job.record.cached else {})


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, read no further than the limit and not for ever."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                parts.append(part)
    except TimeoutError:
        raise RequestError(
            408, f"the body did not arrive within {_BODY_SECONDS:g} seconds", "BodyTooSlow"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the connection ended within the body") from None
    return b"".join(parts)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return JsonResponse(error_body(error.kind, str(error)), error.status)

    @app.exception_handler(AgenticRayError)
    async def failed(_: Request, error: AgenticRayError) -> Response:
        status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 500)
        headers: dict[str, str] = {}
        if isinstance(error, QueueFullError):
            headers["Retry-After"] = f"{max(1, round(error.retry_after_seconds))}"
        elif isinstance(error, JournalError):
            headers["Retry-After"] = f"{_JOURNAL_RETRY_SECONDS}"
        return JsonResponse(error_body(type(error).__name__, str(error)), status, headers)

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> Response:
        text = "; ".join(
            f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()
        )
        return JsonResponse(error_body("RequestError", text), 422)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        text = f"{error.detail}: {request.method} {request.url.path}"
        return JsonResponse(error_body("RequestError", text), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        # The server's log has the traceback; the client learns that it is not at fault.
        return JsonResponse(error_body("InternalError", "internal error; see the log"), 500)
