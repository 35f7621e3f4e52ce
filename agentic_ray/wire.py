"""Frames between processes of one machine: a JSON head and byte strings, over a Unix socket.

The users of frames decide their meaning; nothing is unpickled here. `packed` and `unpacked` bring a
value into byte strings and back, arrays without a copy of their own.
"""

from __future__ import annotations

import json
import math
import pickle
import select
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import cloudpickle

Bytes = bytes | bytearray | memoryview

_START: Final = struct.Struct("!II")
_SIZE: Final = struct.Struct("!Q")
_MOST_HEAD_BYTES: Final = 64 << 20
_MOST_PARTS: Final = 1 << 20
_MOST_PART_BYTES: Final = 1 << 40
_JOINED_BYTES: Final = 1 << 16


class Frame(NamedTuple):
    """A message: ``head`` is a JSON object, ``parts`` are the bytes that do not go into JSON."""

    head: dict[str, Any]
    parts: list[bytearray]


class WireError(OSError):
    """The other side has sent bytes that are no frame, or a frame larger than it announced."""


class Wire:
    """An end of a connection. Any thread may send; one receives.

    Parameters
    ----------
    connection : socket
        Socket, which this object owns from now on.
    most_part_bytes : int
        Most bytes of a part; a longer part is refused, so that the other side cannot fill this
        process's memory.
    """

    def __init__(self, connection: socket.socket, most_part_bytes: int = _MOST_PART_BYTES) -> None:
        self._socket = connection
        self._most = most_part_bytes
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, head: dict[str, Any], parts: Sequence[Bytes] = ()) -> None:
        """Send one frame; raise OSError when the other side is gone."""
        text = json.dumps(head, separators=(",", ":")).encode("ascii")
        views = [memoryview(part).cast("B") for part in parts]
        start = _START.pack(len(text), len(views))
        sizes = b"".join(_SIZE.pack(len(view)) for view in views)
        with self._sending:
            if sum(map(len, views)) <= _JOINED_BYTES:
                self._socket.sendall(b"".join([start, sizes, text, *views]))
                return
            self._socket.sendall(start + sizes + text)
            for view in views:
                self._socket.sendall(view)

    def receive(self) -> Frame | None:
        """Return the next frame; None when the other side has closed, or died, between frames or
        within.

        Raises
        ------
        WireError
            The bytes are no frame.
        """
        start = self._read(_START.size)
        if start is None:
            return None
        head_size, count = _START.unpack(start)
        if head_size > _MOST_HEAD_BYTES or count > _MOST_PARTS:
            raise WireError("no frame: its head or the number of its parts is too large")
        sizes = self._read(count * _SIZE.size)
        text = self._read(head_size)
        if sizes is None or text is None:
            return None
        try:
            head = json.loads(bytes(text))
        except ValueError as error:
            raise WireError(f"no frame: its head is not JSON ({error})") from None
        if not isinstance(head, dict):
            raise WireError("no frame: its head is no JSON object")
        parts = []
        for (size,) in _SIZE.iter_unpack(sizes):
            if size > self._most:
                raise WireError(f"a part of {size} bytes, where {self._most} are taken")
            part = self._read(size)
            if part is None:
                return None
            parts.append(part)
        return Frame(head, parts)

    def close(self) -> None:
        """End the connection for both; a thread that waits in `receive` gets None."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was quicker
        self._socket.close()

    def _read(self, size: int) -> bytearray | None:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            try:
                got = self._socket.recv_into(view[at:], min(size - at, 1 << 24))
            except ConnectionError:
                return None
            except OSError as error:
                if self._socket.fileno() < 0:  # closed by another thread of ours
                    return None
                raise WireError(str(error)) from error
            if not got:
                return None
            at += got
        return data


def readable(descriptors: Iterable[int], seconds: float | None) -> set[int]:
    """Return the descriptors that can be read, or have ended, within so many seconds (None: wait as
    long as it takes). Descriptors may be any numbers; `select.select` takes only those below
    1024."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    milliseconds = None if seconds is None else math.ceil(1000 * max(seconds, 0.0))
    return {descriptor for descriptor, _ in poll.poll(milliseconds)}


def packed(value: Any) -> list[Bytes]:
    """Turn ``value`` into a pickle and the memory of its arrays; raises the errors of pickling."""
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [data, *(buffer.raw() for buffer in buffers)]


def unpacked(parts: Sequence[Bytes]) -> Any:
    """Turn the parts of `packed` back into the value; only for parts from a trusted process."""
    return pickle.loads(parts[0], buffers=parts[1:])
