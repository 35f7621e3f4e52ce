"""An app served on a real socket, in a thread: for what streams."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The URL at which the app is served."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        app.state.page.close()
        server.should_exit = True
        thread.join(30)
        listener.close()
        getattr(app.state, "close", lambda: None)()
    assert not thread.is_alive()


class Stream:
    """Server-sent events of an open answer, one after the other."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def __iter__(self) -> Iterator[tuple[str, Any, str | None]]:
        kind, data, number = "message", [], None
        for line in self._lines:
            name, _, value = line.partition(": ")
            if not line:
                if data:
                    yield kind, json.loads("\n".join(data)), number
                kind, data, number = "message", [], None
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                number = value


@contextlib.contextmanager
def stream(client: httpx.Client, path: str, after: str | None = None) -> Iterator[Stream]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", path, headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer)
