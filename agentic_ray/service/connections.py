"""HTTP connections with limits: how many, how many of one client, and how long each may dawdle.

Deciding is in `Counts`; `protocol` gives the class with which uvicorn serves each connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentic_ray.service.bodies import error_body

_logger = logging.getLogger("agentic_ray")

_REST_SECONDS: Final = 5.0
_FILES_LEFT: Final = 128
_INVALID: Final = "Invalid HTTP request received."
_ACCEPT_FAILED: Final = "socket.accept() out of system resource"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the cost of connections.

    Parameters
    ----------
    connections : int
        At once, of all clients.
    per_client : int or None
        At once, of one address; None behind a proxy, whose address all clients have.
    header_seconds : float
        How long the head of a request may take to come.
    idle_seconds : float
        How long a connection is kept on which nothing is asked.
    write_seconds : float
        How long a client may read nothing of an answer.
    """

    connections: int = 1024
    per_client: int | None = 512
    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    write_seconds: float = 30.0


class Counts:
    """Connections that are open, by client."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open = 0
        self._of: Counter[str] = Counter()

    def enter(self, client: str) -> bool:
        """Count one more, if it may be."""
        most = self.limits.per_client
        if self._open >= self.limits.connections or (most is not None and self._of[client] >= most):
            if not self._of[client]:
                del self._of[client]
            return False
        self._open += 1
        self._of[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Note that a connection that had entered is gone."""
        self._open -= 1
        self._of[client] -= 1
        if not self._of[client]:
            del self._of[client]


def fitting(limits: ConnectionLimits) -> ConnectionLimits:
    """The limits, with no more connections than this process may have files open."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.connections + _FILES_LEFT  # (an answer may have a file open too)
    if files != resource.RLIM_INFINITY and files < wanted:
        files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    if files == resource.RLIM_INFINITY or files >= wanted:
        return limits
    connections = max(1, (files - _FILES_LEFT) // 2)
    per_client = None if limits.per_client is None else min(limits.per_client, connections)
    return ConnectionLimits(
        connections, per_client, limits.header_seconds, limits.idle_seconds, limits.write_seconds
    )


def protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """The class of connections that share these limits."""
    counts = Counts(limits)

    class Connection(_Connection):
        shared = counts

    return Connection


class _Connection(H11Protocol):
    """HTTP/1.1 within limits, whose answer to bytes that are not HTTP is JSON as other errors."""

    shared: Counts

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entered = ""
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if isinstance(peer, tuple) and peer else "local"
        if not self.shared.enter(client):
            self.transport = transport
            transport.write(
                _answer(
                    503,
                    "Service Unavailable",
                    "TooManyConnections",
                    "too many connections are open; try again later",
                )
            )
            self._end()
            return
        self._entered = client
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if not self._entered or self.transport.is_closing():
            return
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._entered:
            self.shared.leave(self._entered)
            super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            seconds = self.shared.limits.write_seconds
            self._write_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _look(self) -> None:
        """Time the head of the next request, from its first byte on."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self.timeout_keep_alive_task is None:
            self._expect_head()

    def _expect_head(self) -> None:
        if self._header_timer is None:
            seconds = self.shared.limits.header_seconds
            self._header_timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._end()

    def _end(self) -> None:
        """Close it, also where the client reads no more."""
        self.transport.close()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(_REST_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, unless they come after an answer has begun, and close.

        A request whose body they break is told that its client has gone: it has its answer.
        """
        cycle, method = self.cycle, ""
        begun = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        if cycle is not None and not cycle.response_complete:
            begun, method = begun or cycle.response_started, cycle.scope["method"]
            cycle.disconnected = True
            cycle.message_event.set()
        if not begun:
            self.transport.write(_answer(400, "Bad Request", "InvalidHttp", msg, method != "HEAD"))
        self._end()

    def _unsupported_upgrade_warning(self) -> None:
        """Nobody needs to know of it: whoever asks for another protocol gets this one."""


class _OnceASecond:
    """Says which of many equal lines of a log are written: one a second, with the number of those
    that were left out since the line before."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = -1e9
        self._left_out = 0

    def told(self) -> str | None:
        """Return the text that follows the line that is due now; None if the line is left out."""
        now = self._clock()
        if now - self._last < 1.0:
            self._left_out += 1
            return None
        again = f" ({self._left_out:,} times more since the last line)" if self._left_out else ""
        self._last, self._left_out = now, 0
        return again


class InvalidRequests(logging.Filter):
    """Lets one line a second through about bytes that are not HTTP, which anybody can send."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = _OnceASecond(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg != _INVALID:
            return True
        again = self._lines.told()
        if again is None:
            return False
        record.msg = f"{_INVALID}{again}"
        return True


class AcceptErrors:
    """Handles errors of the event loop: those of accepting are logged once a second at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = _OnceASecond(clock)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != _ACCEPT_FAILED:
            loop.default_exception_handler(context)
            return
        again = self._lines.told()
        if again is not None:
            _logger.error("a connection cannot be accepted: %s%s", context.get("exception"), again)


def _answer(status: int, phrase: str, kind: str, message: str, with_body: bool = True) -> bytes:
    """A whole answer, after which the connection is closed."""
    body = json.dumps(error_body(kind, message, status)).encode("ascii")
    again = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/problem+json\r\n{again}"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + (body if with_body else b"")
