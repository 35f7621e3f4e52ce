"""The HTTP API over a master: the application, health, and the JSON form of every error.

Routes about jobs are in ``routes``, those about uploaded data in ``data``. Bodies are checked in
``bodies``, access in ``guard``; sockets and signals are in ``server``. Nothing that comes in is
ever unpickled or evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from agentic_ray.errors import AgenticRayError, JournalError, QueueFullError
from agentic_ray.master import Master
from agentic_ray.master.named import register
from agentic_ray.service import described, exposition
from agentic_ray.service.audit import Audit
from agentic_ray.service.bodies import STATUS_OF, JsonResponse, RequestError, plain, problem
from agentic_ray.service.data import DataShelf, add_data_routes
from agentic_ray.service.guard import OPEN_PATHS, Guard
from agentic_ray.service.identity import Identified
from agentic_ray.service.oidc import OpenIdTokens
from agentic_ray.service.page import Page, add_page
from agentic_ray.service.queries import check_query
from agentic_ray.service.reading import Reader
from agentic_ray.service.routes import BodyBudget, Service, add_job_routes
from agentic_ray.service.served import ServedMaster
from agentic_ray.service.tokens import Keyring, TokenFile
from agentic_ray.telemetry import ClusterState

MAX_BODY_BYTES: Final = 16 << 20
_JOURNAL_RETRY_SECONDS: Final = 5
_SHOWN_ERRORS: Final = 10


def create_app(
    master: ServedMaster,
    *,
    token: str | None = None,
    tokens: TokenFile | None = None,
    openid: OpenIdTokens | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    cluster: Callable[[], ClusterState] | None = None,
    health: Callable[[], tuple[str, str]] | None = None,
    data: DataShelf | None = None,
    audit: Audit | None = None,
    origins: Collection[str] = (),
    tracer: Any = None,
) -> FastAPI:
    """The ASGI application. Call ``app.state.close()`` when it is over.

    Parameters
    ----------
    master : Master or DistantMaster
        Runs the jobs. One of this process gets the workloads of ``master.named``.
    token : str, optional
        A token that may do all. With it or ``tokens`` every route but ``/healthz``, ``/readyz``
        and the page needs ``Authorization: Bearer TOKEN``. Without both only requests whose Host
        header names loopback are answered, and they may do all.
    tokens : TokenFile, optional
        The tokens of users, who see their own jobs only.
    openid : OpenIdTokens, optional
        Knows the tokens of an OpenID Connect provider.
    max_body_bytes : int
        Larger bodies are refused with 413.
    cluster : callable, optional
        Gives the state shown by ``GET /cluster``; default: that of the session.
    health : callable, optional
        Gives ``starting``, ``ok``, ``degraded`` or ``draining``, and why, for ``GET /healthz`` and
        ``GET /readyz``; default: as the master says.
    data : DataShelf, optional
        Keeps uploaded data; default: a folder that is deleted in the end.
    audit : Audit, optional
        Told of what is submitted, cancelled and repeated, and of what is refused for its token.
    origins : collection of str
        Sites whose pages may send requests, such as ``"https://jobs.example.org"``.
    tracer : opentelemetry.trace.Tracer, optional
        Makes spans of requests.
    """
    app = _Application(
        title="agentic_ray",
        description="Jobs on a cluster. Errors are problem details (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        version="1",
        dependencies=[Depends(check_query)],
    )

    def refused(path: str, error: RequestError) -> None:
        if audit is not None:
            audit.refused(path, error.status)

    keyring = None
    if not (token is None and tokens is None and openid is None):
        keyring = Keyring(tokens, token, others=openid)
    app.add_middleware(
        Guard,
        keyring=keyring,
        max_body_bytes=max_body_bytes,
        origins=origins,
        refused=refused,
    )
    app.add_middleware(Identified, tracer=tracer)
    _add_error_handlers(app)
    if isinstance(master, Master):
        register(master.workloads)
    shelf = DataShelf() if data is None else data
    reader = Reader()
    service = Service(master, reader, BodyBudget(), max_body_bytes, shelf, audit)
    add_job_routes(app, service)
    add_data_routes(app, shelf, service.note)

    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()  # (the same each time; workloads may have come)
        body = document["paths"]["/submit"]["post"]["requestBody"]["content"]
        schema = described.submit_schema(master.workloads.snapshot())
        body["application/json"]["schema"] = schema
        described.without_null(document)
        if keyring is not None:
            described.require_tokens(document, OPEN_PATHS)
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    def close() -> None:
        reader.close()
        shelf.close()

    app.state.close = close

    # (In the event loop: no probe waits for a thread.)
    @app.get("/healthz", **described.HEALTH)
    async def healthz() -> Response:
        # Neither starting nor being without Ray is a reason to be restarted: jobs are accepted.
        return JsonResponse(_health())

    @app.get("/readyz", **described.READY)
    async def readyz() -> Response:
        found = _health()
        return JsonResponse(found, 200 if found["status"] == "ok" else 503)

    def _health() -> dict[str, str]:
        status, reason = ("starting" if master.held else "ok", "") if health is None else health()
        return {"status": status} | ({"reason": reason} if reason else {})

    def cluster_now() -> ClusterState:
        if master.held and (health is None or health()[0] == "starting"):
            raise RequestError(503, "Ray is starting; jobs are accepted", "Starting")
        return (cluster or _session_cluster)()

    def cluster_if_any() -> ClusterState | None:
        try:
            return cluster_now()
        except (RequestError, AgenticRayError):
            return None  # told by a metric of its own

    @app.get("/cluster", **described.CLUSTER)
    def cluster_state() -> Response:
        return JsonResponse(plain(cluster_now().to_dict()))

    @app.get("/metrics", **described.METRICS)
    def metrics() -> Response:
        return Response(
            exposition.render(master.statistics(), cluster_if_any()),
            headers={"Content-Type": exposition.CONTENT_TYPE},
        )

    app.state.page = Page(master, cluster_now)
    add_page(app, app.state.page)
    return app


class _Application(FastAPI):
    """FastAPI without its own telemetry: asking whether it is wanted takes a tenth of the time of a
    request, and spans of requests are made in ``identity``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Starlette.__call__(self, scope, receive, send)


def _session_cluster() -> ClusterState:
    from agentic_ray.runtime import cluster

    return cluster()


def _methods(app: FastAPI, request: Request) -> list[str]:
    """List the methods that the address of a request allows."""
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return problem(error)

    @app.exception_handler(AgenticRayError)
    async def failed(_: Request, error: AgenticRayError) -> Response:
        status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 500)
        headers: dict[str, str] = {}
        if isinstance(error, QueueFullError):
            headers["Retry-After"] = f"{max(1, round(error.retry_after_seconds))}"
        elif isinstance(error, JournalError):
            headers["Retry-After"] = f"{_JOURNAL_RETRY_SECONDS}"
        return problem(RequestError(status, str(error), type(error).__name__, headers))

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> Response:
        text = "; ".join(
            f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}"
            for entry in error.errors()[:_SHOWN_ERRORS]
        )
        return problem(RequestError(422, text))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        text = f"{error.detail}: {request.method} {request.url.path}"
        headers = dict(error.headers or {})
        if error.status_code == 405:  # several routes may have this address
            headers["Allow"] = ", ".join(_methods(app, request))
        return problem(RequestError(error.status_code, text, headers=headers))
