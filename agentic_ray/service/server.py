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
from agentic_ray.master import JobStore, Journal, Master, load_workloads
from agentic_ray.master.core import MAX_ATTEMPTS
from agentic_ray.master.master import CACHE_BYTES
from agentic_ray.master.queue import QUEUED_BYTES
from agentic_ray.service.bodies import error_body
from agentic_ray.service.guard import is_loopback
from agentic_ray.service.hosting import SessionHost, State
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
        How long accepted jobs may go on after SIGTERM or SIGINT; then they stay in the journal,
        or are cancelled where there is none.
    journal : str or None
        As for `Master`.
    cache_bytes, runners, memory_bytes, max_attempts : int
        As for `Master`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    workloads: Sequence[str | Path] = ()
    address: str | None = None
    num_cpus: int | None = None
    max_running: int = 8
    max_queued: int = 10_000
    max_queued_bytes: int = QUEUED_BYTES
    max_body_bytes: int = MAX_BODY_BYTES
    drain_seconds: float = 10.0
    max_queued_per_user: int | None = None
    max_running_per_user: int | None = None
    journal: str | None = None
    cache_bytes: int = CACHE_BYTES
    runners: int = 2
    memory_bytes: int | None = None
    max_attempts: int = MAX_ATTEMPTS


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

    Jobs are accepted at once, and run as soon as Ray has started.

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
    JournalError
        The journal cannot be used, or was lost to another master.
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
        store = None if settings.journal is None else Journal(settings.journal)
        try:
            return _serve_jobs(settings, store, listener, lambda: announce(f"serving on {url}"))
        finally:
            if store is not None:
                store.close()
    finally:
        listener.close()


def _serve_jobs(
    settings: ServerSettings,
    store: JobStore | None,
    listener: socket.socket,
    started: Callable[[], None],
) -> int:
    """Serve with a master until a signal; the exit code."""
    servers: list[_Server] = []
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        for server in servers:
            server.should_exit = True

    def session_changed(state: State) -> None:
        master.begin() if state == "ok" else master.hold()

    host = SessionHost(
        {"address": settings.address, "num_cpus": settings.num_cpus}, session_changed
    )
    master = Master(
        max_running=settings.max_running,
        max_queued=settings.max_queued,
        max_queued_bytes=settings.max_queued_bytes,
        max_queued_per_user=settings.max_queued_per_user,
        max_running_per_user=settings.max_running_per_user,
        store=store,
        cache_bytes=settings.cache_bytes,
        on_lost=stop,
        held=True,
        runners=settings.runners,
        memory_bytes=settings.memory_bytes,
        max_attempts=settings.max_attempts,
        session=lambda: host.path,
    )

    def start_host() -> None:
        try:
            host.start()
        except BaseException as error:  # raised in the main thread, which waits for the server
            if not closing.is_set():
                stop(error)

    def serving() -> None:
        started()
        ray.start()  # not before: what it starts takes the processors for seconds

    closing = threading.Event()
    server = _Server(settings, master, host, serving)
    ray = threading.Thread(target=start_host, name="start Ray")
    servers.append(server)
    try:
        if not failures:
            server.run(sockets=[listener])
    finally:
        closing.set()
        master.close(drain=False)
        host.close()
        if ray.ident is not None:
            ray.join()
    if failures:
        raise failures[0]
    return 130 if server.stopped_by == signal.SIGINT else 0


class _Server(uvicorn.Server):
    """Uvicorn that drains the master before it stops to answer."""

    def __init__(
        self,
        settings: ServerSettings,
        master: Master,
        host: SessionHost,
        started: Callable[[], None],
    ) -> None:
        app = create_app(
            master,
            token=settings.token,
            max_body_bytes=settings.max_body_bytes,
            cluster=host.cluster,
            health=lambda: ("draining" if self.stopped_by else host.state, host.reason),
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
        self._page = app.state.page
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
        self._page.close()
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
