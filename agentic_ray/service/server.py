"""`serve`: the socket, the session, the master and the HTTP server, from start to shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn

from agentic_ray.errors import SessionError
from agentic_ray.logged import set_up
from agentic_ray.master import JobStore, Journal, Master, load_workloads
from agentic_ray.master.core import MAX_ATTEMPTS
from agentic_ray.master.distant import DistantMaster
from agentic_ray.master.journal import is_url, journal_file
from agentic_ray.master.master import CACHE_BYTES
from agentic_ray.master.queue import QUEUED_BYTES
from agentic_ray.master.spans import Tracing, asked_for
from agentic_ray.service.audit import Audit
from agentic_ray.service.connections import (
    AcceptErrors,
    ConnectionLimits,
    InvalidRequests,
    fitting,
    protocol,
)
from agentic_ray.service.data import UPLOAD_BYTES, DataShelf
from agentic_ray.service.guard import is_loopback
from agentic_ray.service.hosting import SessionHost, State
from agentic_ray.service.http import MAX_BODY_BYTES, create_app
from agentic_ray.service.missed import MissedEnds
from agentic_ray.service.oidc import OpenIdSettings, OpenIdTokens
from agentic_ray.service.served import ServedMaster
from agentic_ray.service.tokens import TokenFile
from agentic_ray.service.webhooks import Webhooks

_BACKLOG: Final = 128
_PER_CLIENT: Final = 512


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of a running service.

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
    tokens : str or None
        A file of users' tokens, see `tokens.TokenFile`.
    tls_cert, tls_key : str or None
        Files of a certificate and its key, in PEM; requests then come by HTTPS.
    behind_proxy : bool
        A proxy with TLS stands before the service, and nobody reaches it otherwise.
    origins : sequence of str
        As for `create_app`.
    data : str or None
        Folder of uploaded data. Default: beside the journal, else one that is deleted in the end.
    max_upload_bytes : int
        Of one file.
    audit : str or None
        File of the audit log.
    max_connections : int
        Open at once.
    webhooks : sequence of str
        URLs that are told of jobs that have ended.
    webhook_secret : str or None
        Signs what they are told.
    webhook_state : str or None
        File by which ends that were missed are told later. Default: beside the journal, if it is a
        file.
    master : str or None
        The name of a master that runs in the cluster, see `start_master`, and has journal and
        workloads; None: one of this process.
    namespace : str or None
        Where it has its name.
    openid : OpenIdSettings or None
        Which tokens of an OpenID Connect provider are taken.
    log_format : str or None
        ``"json"`` or ``"text"``: lines of the log carry the ids of request, job and bundle, and
        lines that jobs print are among them. None: warnings only, as Python writes them.
    otel : bool or None
        Whether to make spans of requests and jobs; None: if OpenTelemetry's variables of the
        environment ask for them.
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
    tokens: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    behind_proxy: bool = False
    origins: Sequence[str] = ()
    data: str | None = None
    max_upload_bytes: int = UPLOAD_BYTES
    audit: str | None = None
    max_connections: int = 1024
    webhooks: Sequence[str] = ()
    webhook_secret: str | None = None
    webhook_state: str | None = None
    master: str | None = None
    namespace: str | None = None
    openid: OpenIdSettings | None = None
    log_format: str | None = None
    otel: bool | None = None


def check_exposure(
    host: str, token: str | None, *, tokens: bool = False, tls: bool = False, proxy: bool = False
) -> None:
    """Refuse to be reachable from other machines without a token, or in clear text.

    Raises
    ------
    SessionError
        Says what to do.
    """
    if token is not None and (not token.strip() or not token.isascii() or " " in token):
        raise SessionError("the token must be ASCII text without spaces, and not empty")
    if is_loopback(host):
        return
    if token is None and not tokens:
        raise SessionError(
            f"refusing to listen on {host}, where other machines can send work, without a token: "
            "set AGENTIC_RAY_TOKEN or pass --tokens FILE or --oidc-keys, or listen on 127.0.0.1"
        )
    if not tls and not proxy:
        raise SessionError(
            f"refusing to listen on {host} without TLS, since tokens would be sent in clear text: "
            "pass --tls-cert and --tls-key, or --behind-proxy if a proxy with TLS stands before it"
        )


def check_tls(cert: str | None, key: str | None) -> None:
    """Refuse files of TLS that cannot be used, before anything is started.

    Raises
    ------
    SessionError
    """
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise SessionError("TLS needs both a certificate and its key: --tls-cert and --tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise SessionError(f"TLS with {cert} and {key}: {error}") from error


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
    check_exposure(
        settings.host,
        settings.token,
        tokens=settings.tokens is not None or settings.openid is not None,
        tls=settings.tls_cert is not None,
        proxy=settings.behind_proxy,
    )
    check_tls(settings.tls_cert, settings.tls_key)
    if settings.master is not None and (settings.journal is not None or settings.workloads):
        raise SessionError(
            "the master that runs in the cluster has its journal and workloads already: "
            "`agentic-ray master start` takes them"
        )
    if settings.log_format is not None:
        set_up(settings.log_format, (settings.token or "", settings.webhook_secret or ""))
    os.umask(0o077)  # what this process and its jobs write is nobody else's
    listener = _bind(settings.host, settings.port)
    url = _url(listener, tls=settings.tls_cert is not None)
    try:
        for path in settings.workloads:
            load_workloads(path)
        store = None if settings.journal is None else Journal(settings.journal)
        try:
            # (before the runners of jobs, which find it by the environment)
            shelf = DataShelf(_data_folder(settings), settings.max_upload_bytes)
            with contextlib.closing(shelf):
                return _serve_jobs(
                    settings, store, listener, shelf, lambda: announce(f"serving on {url}")
                )
        finally:
            if store is not None:
                store.close()
    finally:
        listener.close()


def _serve_jobs(
    settings: ServerSettings,
    store: JobStore | None,
    listener: socket.socket,
    shelf: DataShelf,
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
        if isinstance(master, Master):
            master.begin() if state == "ok" else master.hold()

    # (A master of another process is in a cluster: there is none to be started.)
    address = settings.address or (None if settings.master is None else "auto")
    session: dict[str, Any] = {"address": address, "num_cpus": settings.num_cpus}
    if settings.namespace is not None:
        session["namespace"] = settings.namespace
    wanted = asked_for(os.environ) if settings.otel is None else settings.otel
    tracing = Tracing() if wanted else None
    host = SessionHost(session, session_changed, settings.master)
    webhooks = None
    if settings.webhooks:
        webhooks = Webhooks(
            settings.webhooks, settings.webhook_secret or "", state=_webhook_state(settings)
        )
    master = _master(settings, store, host, webhooks, stop, tracing)

    def start_host() -> None:
        try:
            host.start()
        except BaseException as error:  # raised in the main thread, which waits for the server
            if not closing.is_set():
                stop(error)

    def serving() -> None:
        started()
        if webhooks is not None:
            missed.append(MissedEnds(webhooks, master))
        ray.start()  # not before: what it starts takes the processors for seconds

    closing = threading.Event()
    server = _Server(settings, master, host, shelf, serving, tracing)
    ray = threading.Thread(target=start_host, name="start Ray")
    missed: list[MissedEnds] = []
    servers.append(server)
    try:
        if not failures:
            server.run(sockets=[listener])
    finally:
        closing.set()
        _close(master)
        server.close()
        for looking in missed:
            looking.close()
        if webhooks is not None:
            webhooks.close()
        if tracing is not None:
            tracing.close()
        host.close()
        if ray.ident is not None:
            ray.join()
    if failures:
        raise failures[0]
    return 130 if server.stopped_by == signal.SIGINT else 0


def _master(
    settings: ServerSettings,
    store: JobStore | None,
    host: SessionHost,
    webhooks: Webhooks | None,
    lost: Callable[[BaseException], None],
    tracing: Tracing | None,
) -> ServedMaster:
    """The master that the settings ask for."""
    if settings.master is not None:
        return DistantMaster(f"{host.path}.master", settings.master)
    return Master(
        max_running=settings.max_running,
        max_queued=settings.max_queued,
        max_queued_bytes=settings.max_queued_bytes,
        max_queued_per_user=settings.max_queued_per_user,
        max_running_per_user=settings.max_running_per_user,
        store=store,
        cache_bytes=settings.cache_bytes,
        on_lost=lost,
        on_end=None if webhooks is None else webhooks.ended,
        held=True,
        runners=settings.runners,
        memory_bytes=settings.memory_bytes,
        max_attempts=settings.max_attempts,
        session=lambda: host.path,
        tracer=None if tracing is None else tracing.tracer,
    )


def _close(master: ServedMaster, drain_seconds: float | None = None) -> None:
    """Let jobs go on for so long, and end a master of this process; another goes on."""
    if isinstance(master, Master):
        master.close(drain=drain_seconds is not None, timeout_seconds=drain_seconds)
    elif drain_seconds is None:
        master.close()


def _webhook_state(settings: ServerSettings) -> str | None:
    """Where it is kept which ends were told: beside the journal, unless told otherwise."""
    journal = settings.journal
    if settings.webhook_state is not None or journal is None or is_url(journal):
        return settings.webhook_state
    return f"{journal_file(journal)}.webhooks"


def _data_folder(settings: ServerSettings) -> str | None:
    """Where uploaded data is kept: beside the journal, unless told otherwise."""
    if settings.data is not None or settings.journal is None or is_url(settings.journal):
        return settings.data
    return f"{journal_file(settings.journal)}.data"


def _health(master: ServedMaster, host: SessionHost, *, stopping: bool) -> tuple[str, str]:
    """Return the state of the service, and why it is not ``ok``."""
    if stopping:
        return "draining", host.reason
    if host.state == "ok" and isinstance(master, DistantMaster) and master.reason:
        return "degraded", master.reason
    return host.state, host.reason


class _Server(uvicorn.Server):
    """Uvicorn that drains the master before it stops to answer."""

    def __init__(
        self,
        settings: ServerSettings,
        master: ServedMaster,
        host: SessionHost,
        data: DataShelf,
        started: Callable[[], None],
        tracing: Tracing | None,
    ) -> None:
        limits = fitting(
            ConnectionLimits(
                settings.max_connections, None if settings.behind_proxy else _PER_CLIENT
            )
        )
        self._audit = None if settings.audit is None else Audit(settings.audit)
        self._openid = None if settings.openid is None else OpenIdTokens(settings.openid)
        app = create_app(
            master,
            token=settings.token,
            tokens=None if settings.tokens is None else TokenFile(settings.tokens),
            openid=self._openid,
            data=data,
            audit=self._audit,
            origins=settings.origins,
            max_body_bytes=settings.max_body_bytes,
            cluster=host.cluster,
            tracer=None if tracing is None else tracing.tracer,
            health=lambda: _health(master, host, stopping=self.stopped_by is not None),
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(limits),
                timeout_keep_alive=round(limits.idle_seconds),
                backlog=_BACKLOG,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=settings.behind_proxy,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                timeout_graceful_shutdown=2,
            )
        )
        self._app = app
        self.stopped_by: int | None = None
        self._master = master
        self._page = app.state.page
        self._drain_seconds = settings.drain_seconds
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        logging.getLogger("uvicorn.error").addFilter(InvalidRequests())
        await super().startup(sockets)
        self._on_started()

    def close(self) -> None:
        """Let go what the application holds."""
        self._app.state.close()
        if self._openid is not None:
            self._openid.close()
        if self._audit is not None:
            self._audit.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            self.should_exit = self.force_exit = True
            return
        self.stopped_by = sig
        # In a thread: the signal may have come while this one holds the master's lock.
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        _close(self._master, self._drain_seconds)
        self._page.close()
        self.should_exit = True


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


def _url(listener: socket.socket, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
