"""`serve`: the socket, the session, the master and the HTTP server, from start to shutdown."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentic_ray.errors import SessionError
from agentic_ray.master import Master, load_workloads
from agentic_ray.service.bodies import error_body
from agentic_ray.service.guard import is_loopback
from agentic_ray.service.http import MAX_BODY_BYTES, create_app


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the service is to run.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    token : str or None
        Needed to listen on anything but loopback.
    workloads : sequence of path
        Files to load, see `load_workloads`.
    address, num_cpus
        As for `agentic_ray.init`.
    drain_seconds : float
        How long accepted jobs may go on after SIGTERM or SIGINT; then they are cancelled.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    workloads: Sequence[str | Path] = ()
    address: str | None = None
    num_cpus: int | None = None
    max_running: int = 8
    max_queued: int = 10_000
    max_body_bytes: int = MAX_BODY_BYTES
    drain_seconds: float = 10.0


def check_exposure(host: str, token: str | None) -> None:
    """Refuse to be reachable from other machines without a token.

    Raises
    ------
    SessionError
        Says what to do.
    """
    if token is not None and (not token.strip() or not token.isascii() or " " in token):
        raise SessionError("the token must be ASCII text without spaces, and not empty")
    if token is None and not is_loopback(host):
        raise SessionError(
            f"refusing to listen on {host}, where other machines can send work, without a token: "
            "set AGENTIC_RAY_TOKEN or pass --token, or listen on 127.0.0.1"
        )


def serve(settings: ServerSettings, announce: Callable[[str], None] = print) -> int:
    """Serve until SIGTERM or SIGINT; call it in the main thread.

    On a signal no more jobs are taken; those accepted go on for ``drain_seconds``, and their
    status can be asked for meanwhile. A second signal ends at once.

    Parameters
    ----------
    announce : callable
        Told ``"serving on URL"`` once requests are answered.

    Returns
    -------
    int
        Exit code: 0 after SIGTERM, 130 after SIGINT.

    Raises
    ------
    SessionError
        The port is taken, Ray cannot be reached, or a token is needed.
    WorkloadFileError
        A file of workloads cannot be loaded.
    """
    check_exposure(settings.host, settings.token)
    listener = _bind(settings.host, settings.port)
    url = _url(listener)
    try:
        for path in settings.workloads:
            load_workloads(path)
        # imported late, so that a mistake in the arguments is told before Ray is loaded
        from agentic_ray import runtime

        try:
            runtime.init(settings.address, num_cpus=settings.num_cpus, progress=False)
            # Ray's own handler would end the process without draining.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            master = Master(max_running=settings.max_running, max_queued=settings.max_queued)
            server = _Server(settings, master, lambda: announce(f"serving on {url}"))
            server.run(sockets=[listener])
            master.close(drain=False)
            return 130 if server.stopped_by == signal.SIGINT else 0
        finally:
            runtime.shutdown()
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """Uvicorn that drains the master before it stops to answer."""

    def __init__(
        self, settings: ServerSettings, master: Master, started: Callable[[], None]
    ) -> None:
        app = create_app(
            master,
            token=settings.token,
            max_body_bytes=settings.max_body_bytes,
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=_JsonH11,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self.stopped_by: int | None = None
        self._master = master
        self._drain_seconds = settings.drain_seconds
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            self.should_exit = self.force_exit = True
            return
        self.stopped_by = sig
        # In a thread: the signal may have come while this one holds the master's lock.
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        self._master.close(drain=True, timeout_seconds=self._drain_seconds)
        self.should_exit = True


class _JsonH11(H11Protocol):
    """HTTP/1.1 whose answer to bytes that are not HTTP is JSON like every other error."""

    def send_400_response(self, msg: str) -> None:
        body = json.dumps(error_body("InvalidHttp", msg)).encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that nobody connects before we answer."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise SessionError(
            f"cannot listen on {host} port {port}: {error}; choose another with --port "
            "(0 takes a free one)"
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
