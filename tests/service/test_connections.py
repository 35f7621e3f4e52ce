"""Connections on real sockets: how many there may be, and how long each may dawdle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agentic_ray.service.connections import (
    AcceptErrors,
    ConnectionLimits,
    Counts,
    InvalidRequests,
    fitting,
    protocol,
)


@contextlib.contextmanager
def serving(limits: ConnectionLimits) -> Iterator[tuple[str, int]]:
    async def hello(request: Request) -> Response:
        try:
            return PlainTextResponse(f"{len(await request.body())}")
        except ClientDisconnect:
            return PlainTextResponse("gone", 400)

    async def large(request: Request) -> Response:
        async def pieces() -> object:
            for _ in range(2000):
                yield b"x" * 65536

        return StreamingResponse(pieces())  # type: ignore[arg-type]

    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"]), Route("/large", large)])
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=round(limits.idle_seconds),
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


def connected(address: tuple[str, int]) -> socket.socket:
    made = socket.create_connection(address)
    made.settimeout(30)
    return made


def ask(connection: socket.socket, text: str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> bytes:
    connection.sendall(text.encode())
    return connection.recv(4096)


def is_closed(connection: socket.socket) -> bool:
    """Wait for its end."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def test_connections_that_ask_nothing_or_slowly_are_closed() -> None:
    with serving(ConnectionLimits(header_seconds=0.5, idle_seconds=1)) as address:
        silent, half, after = (connected(address) for _ in range(3))
        half.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert b"200 OK" in ask(after)
        after.sendall(b"GET / HT")
        began = time.monotonic()
        for _ in range(8):
            with contextlib.suppress(OSError):
                half.sendall(b"x")  # a byte now and then does not help
            time.sleep(0.1)
        assert is_closed(half)
        assert is_closed(silent)
        assert is_closed(after)
        assert time.monotonic() - began < 20
        idle = connected(address)
        ask(idle)
        assert is_closed(idle)


def test_the_number_of_connections_is_limited_in_all_and_for_each_client() -> None:
    limits = ConnectionLimits(connections=4, per_client=3)
    with serving(limits) as address:
        held = [connected(address) for _ in range(3)]
        for each in held:
            assert b"200 OK" in ask(each)
        refused = connected(address)
        told = refused.recv(4096)
        assert b"503 Service Unavailable" in told
        assert b"problem+json" in told
        assert is_closed(refused)
        held.pop().close()
        for _ in range(100):
            again = connected(address)
            with contextlib.suppress(ConnectionError):
                if b"200 OK" in ask(again):
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("the place did not become free")


def test_counts() -> None:
    counts = Counts(ConnectionLimits(connections=3, per_client=2))
    assert [counts.enter(client) for client in "aaab"] == [True, True, False, True]
    assert not counts.enter("c")
    counts.leave("a")
    assert counts.enter("c")
    for client in "abc":
        counts.leave(client)
    assert not counts._of
    assert counts._open == 0
    open_to_one = Counts(ConnectionLimits(connections=3, per_client=None))
    assert [open_to_one.enter("a") for _ in range(4)] == [True, True, True, False]


def test_a_client_that_reads_nothing_is_let_go() -> None:
    with serving(ConnectionLimits(write_seconds=0.5)) as address:
        connection = connected(address)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(2)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += len(piece)
        assert received < 2000 * 65536
        assert b"200 OK" in ask(connected(address))


def test_bodies_and_pipelined_requests_still_work() -> None:
    with serving(ConnectionLimits(header_seconds=1)) as address:
        connection = connected(address)
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        time.sleep(1.5)  # the head has come: its time is not that of the body
        connection.sendall(b"abc")
        assert b"200 OK" in connection.recv(4096)
        two = "GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2
        told = ask(connection, two)
        while told.count(b"200 OK") < 2:
            told += connection.recv(4096)


def test_bytes_that_are_not_http_are_told_so() -> None:
    with serving(ConnectionLimits()) as address:
        connection = connected(address)
        told = ask(connection, "\x16\x03 nonsense\r\n\r\n")
        assert b"400 Bad Request" in told
        assert b"problem+json" in told
        assert is_closed(connection)


def test_a_body_that_breaks_is_answered_once_and_quietly(caplog: pytest.LogCaptureFixture) -> None:
    broken = "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n"
    with serving(ConnectionLimits()) as address, caplog.at_level(logging.WARNING):
        for method, path in (("POST", "/"), ("HEAD", "/"), ("POST", "/large"), ("POST", "/none")):
            connection = connected(address)
            connection.sendall(broken.format(path).replace("POST", method).encode())
            told = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(1 << 16):
                    told += piece
            assert told.count(b"HTTP/1.1 ") <= 1
            assert told.startswith(b"HTTP/1.1 4"), told[:100]
            assert (b"urn:agentic-ray" in told) == (method == "POST")
    # (Of all tests of this process together one line a second is written.)
    assert {record.getMessage() for record in caplog.records} <= {"Invalid HTTP request received."}


def test_another_protocol_is_not_taken_up_and_nobody_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(ConnectionLimits()) as address, caplog.at_level(logging.WARNING):
        text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert b"200 OK" in ask(connected(address), text)
    assert not caplog.records


def test_bytes_that_are_not_http_fill_no_log() -> None:
    now = 0.0
    rare = InvalidRequests(clock=lambda: now)

    def line(text: str) -> logging.LogRecord:
        return logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, None, None)

    said = [rare.filter(line("Invalid HTTP request received.")) for _ in range(1000)]
    assert said == [True] + [False] * 999
    assert rare.filter(line("something else"))
    now = 1.5
    last = line("Invalid HTTP request received.")
    assert rare.filter(last)
    assert "999 times more" in last.getMessage()


def test_errors_of_accepting_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    handler = AcceptErrors(clock=lambda: now)
    loop = asyncio.new_event_loop()
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(24, "Too many open files"),
    }
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            handler(loop, context)
        assert len(caplog.records) == 1
        now = 1.5
        handler(loop, context)
        assert "999 times more" in caplog.records[1].getMessage()
        handler(loop, {"message": "something else"})
        assert "something else" in caplog.text
    loop.close()


def test_the_limit_fits_the_files_that_may_be_open(tmp_path: Path) -> None:
    limits = fitting(ConnectionLimits(connections=10))
    assert limits.connections == 10
    assert fitting(ConnectionLimits(connections=10**9)).connections < 10**9
