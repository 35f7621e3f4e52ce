"""Who may talk to the service: bearer token, or the Host header on loopback; and body size.

One ASGI layer in front of every route, so that no route can be forgotten. Deciding is in pure
functions.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from agentic_ray.service.bodies import JsonResponse, RequestError, error_body, too_large

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/"})
"""Answered without a token, for the probes of an orchestrator; and the page, which asks for one."""
OPEN_FOLDER: Final = "/page/"
"""The files of the page, which are the same for everybody."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is this machine's loopback and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The host of a Host header, without its port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def check_token(headers: Iterable[tuple[bytes, bytes]], token: str) -> None:
    """Raise RequestError 401 unless the headers carry exactly this bearer token."""
    given = [value for name, value in headers if name == b"authorization"]
    scheme, _, credentials = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    right = hmac.compare_digest(credentials.strip(), token.encode())
    if not (right and scheme.lower() == b"bearer"):
        raise RequestError(
            401, "send the server's token as 'Authorization: Bearer TOKEN'", "Unauthorized"
        )


def check_host(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise RequestError 421 unless the Host header names this machine's loopback.

    A web page can make its own name resolve to 127.0.0.1 and have a browser send requests here
    (DNS rebinding); the Host header then still says that name.
    """
    given = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if len(given) != 1 or not is_loopback(host_name(given[0])):
        raise RequestError(
            421,
            "without a token only requests to localhost are answered; start the server with "
            "--token to use another name",
            "WrongHost",
        )


def check_length(headers: Iterable[tuple[bytes, bytes]], limit_bytes: int) -> None:
    """Raise RequestError 413 if the announced body is larger than the limit."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit_bytes:
            raise too_large(limit_bytes)


class Guard:
    """ASGI middleware that lets a request through or answers it with an error.

    Parameters
    ----------
    token : str or None
        None: any request to a loopback name.
    """

    def __init__(self, app: App, *, token: str | None, max_body_bytes: int) -> None:
        self._app = app
        self._token = token
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestError as refused:
                headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
                body = error_body(refused.kind, str(refused))
                await JsonResponse(body, refused.status, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if self._token is None:
            check_host(headers)
        elif scope["path"] not in OPEN_PATHS and not scope["path"].startswith(OPEN_FOLDER):
            check_token(headers, self._token)
        check_length(headers, self._max_body_bytes)
