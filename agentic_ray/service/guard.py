"""Who may talk to the service: token, or the Host header on loopback; Origin, encodings and sizes.

One ASGI layer in front of every route, so that no route can be forgotten. Deciding is in pure
functions.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from agentic_ray.service.access import EVERYBODY, NOBODY, Caller
from agentic_ray.service.bodies import RequestError, problem, too_large
from agentic_ray.service.tokens import Keyring, unauthorized

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refused = Callable[[str, RequestError], None]
Headers = Iterable[tuple[bytes, bytes]]

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/"})
"""Answered without a token, for the probes of an orchestrator; and the page, which asks for one."""
OPEN_FOLDER: Final = "/page/"
"""The files of the page, which are the same for everybody."""
UPLOADS: Final = "/data/"
"""Bodies sent there may be larger than others; their route counts them."""

_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"origin",
        b"range",
    }
)
_OF_ACCESS: Final = frozenset({401, 403})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is this machine's loopback and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_host(header: str) -> tuple[str, int | None] | None:
    """Host in lower case and port of a Host header; None if it is not one."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    address, name, port = found.groups()
    if address is not None:
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            return None
    if port is not None and int(port) > 65535:
        return None
    return (address or name).lower(), None if port is None else int(port)


def bearer(headers: Headers) -> str:
    """The token that the headers carry.

    Raises
    ------
    RequestError
        401: they carry none.
    """
    given = [value for name, value in headers if name == b"authorization"]
    scheme, _, credentials = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer" or not credentials.strip():
        raise unauthorized("a token is needed")
    return credentials.strip().decode("latin-1")


def check_host(headers: Headers) -> None:
    """Raise RequestError 421 unless the Host header names this machine's loopback.

    A web page can make its own name resolve to 127.0.0.1 and have a browser send requests here
    (DNS rebinding); the Host header then still says that name.
    """
    given = [value.decode("latin-1") for name, value in headers if name == b"host"]
    parsed = parse_host(given[0]) if len(given) == 1 else None
    if parsed is None or not is_loopback(parsed[0]):
        raise RequestError(
            421,
            "without a token only requests to localhost are answered; start the server with "
            "--token to use another name",
            "WrongHost",
        )


def check_origin(headers: Headers, allowed: Collection[str] = ()) -> None:
    """Raise RequestError 403 if a browser says that another site's page has made this request.

    Programs send no Origin. A browser does, and the page of the service itself has the host and
    port of the Host header.
    """
    origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    for origin in origins:
        if origin in allowed:
            continue
        scheme, _, netloc = origin.partition("://")
        here = parse_host(hosts[0]) if len(hosts) == 1 else None
        there = parse_host(netloc)
        default = _PORTS.get(scheme.lower())
        same = (
            default is not None
            and here is not None
            and there is not None
            and (there[0], there[1] or default) == (here[0], here[1] or default)
        )
        if not same:
            raise RequestError(
                403, f"requests from pages of {origin[:100]!r} are not answered", "WrongOrigin"
            )


def check_headers(headers: Headers, limit_bytes: int | None) -> None:
    """Refuse headers given twice, encodings, and a body announced to be larger than the limit.

    Raises
    ------
    RequestError
        400, 413 or 415.
    """
    seen: set[bytes] = set()
    for name, value in headers:
        if name in _ONCE:
            if name in seen:
                raise RequestError(
                    400, f"the header {name.decode('ascii')} is given twice", "HeaderTwice"
                )
            seen.add(name)
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise RequestError(
                415,
                "bodies are taken as they are: send no Content-Encoding "
                f"({value[:40].decode('latin-1')!r} is not understood)",
                "ContentEncoding",
                {"Accept-Encoding": "identity"},
            )
        is_length = name == b"content-length" and value.isdigit()
        if limit_bytes is not None and is_length and (len(value) > 18 or int(value) > limit_bytes):
            raise too_large(limit_bytes)


class Guard:
    """ASGI middleware that lets a request through or answers it with an error.

    Parameters
    ----------
    keyring : Keyring or None
        None: any request to a loopback name.
    max_body_bytes : int
        Of bodies that are not uploads.
    origins : collection of str
        Sites whose pages may send requests, beside the service's own.
    refused : callable
        Told of requests that are refused for who sent them, with their path.
    """

    def __init__(
        self,
        app: App,
        *,
        keyring: Keyring | None,
        max_body_bytes: int,
        origins: Collection[str] = (),
        refused: Refused = lambda path, error: None,
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._max_body_bytes = max_body_bytes
        self._origins = frozenset(origins)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # Routes know GET only; the server sends no body, and here none is made further.
            scope = {**scope, "method": "GET"}
            send = _without_body(send)
        try:
            caller = self._check(scope)
        except RequestError as refused:
            if refused.status in _OF_ACCESS:
                await run_in_threadpool(self._refused, scope["path"], refused)
            await problem(refused)(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> Caller:
        headers, path, method = scope["headers"], scope["path"], scope["method"]
        reading = method in _READING
        caller = EVERYBODY if self._keyring is None else NOBODY
        if self._keyring is None:
            check_host(headers)
        elif not (reading and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))):
            caller = self._keyring.caller(bearer(headers))
            caller.needs("read" if reading else "submit")
        if not reading:
            check_origin(headers, self._origins)
        check_headers(headers, None if path.startswith(UPLOADS) else self._max_body_bytes)
        return caller


def _without_body(send: Send) -> Send:
    """Send the head of an answer only."""
    ended = False

    async def head_only(message: MutableMapping[str, Any]) -> None:
        nonlocal ended
        if message["type"] == "http.response.body":
            if ended:
                return
            ended = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return head_only
