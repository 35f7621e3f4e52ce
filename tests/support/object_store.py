"""An object store of S3's protocol on loopback, behind a gate that can be shut."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from tests.support.ports import free_ports
from tests.support.waiting import until


@dataclass(frozen=True)
class ObjectStore:
    """A running store.

    Parameters
    ----------
    port : int
        Of the gate.
    shut : Path
        While this file exists, the gate cuts and refuses connections.
    """

    port: int
    shut: Path

    def url(self, path: str) -> str:
        """Return the URL of a path, for pyarrow."""
        query = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://user:secret@{path}?{query}"

    def filesystem(self, *, buckets: bool = False) -> Any:
        """Return pyarrow's file system of it."""
        return pafs.S3FileSystem(
            access_key="user",
            secret_key="secret",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{self.port}",
            allow_bucket_creation=buckets,
        )

    def fsspec(self) -> Any:
        """Return fsspec's file system of it."""
        import s3fs

        options = {"endpoint_url": f"http://127.0.0.1:{self.port}", "region_name": "us-east-1"}
        return s3fs.S3FileSystem(key="user", secret="secret", client_kwargs=options)


@contextmanager
def object_store(folder: Path, *, refuse_all: bool = False) -> Iterator[ObjectStore]:
    """Run a store; ``refuse_all``: it knows no user."""
    (port,) = free_ports(1)
    settings = {"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if refuse_all else {}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(folder / "store.log", "wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: _answers(port), 60, "the store")
        with _gate(port, folder / "shut") as gate:
            yield ObjectStore(gate, folder / "shut")
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/"):
        return True
    return False


@contextmanager
def _gate(port: int, shut: Path) -> Iterator[int]:
    """Forward connections from another port, unless the file ``shut`` exists."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # closed: the end
                return
            if shut.exists():
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", port))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, target, shut), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _pump(source: socket.socket, target: socket.socket, shut: Path) -> None:
    with suppress(OSError):
        while (data := source.recv(1 << 16)) and not shut.exists():
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
