"""Direct lines to executors on this machine, for calls that the object store has no part in.

Ray takes 2 to 5 ms for a call to an actor and its answer, a Unix socket 0.1 ms. A bundle whose
inputs travel with it or are kept by the executor (see `handed`), and whose values are small,
therefore takes the line. Ray does everything else: it starts executors, starts them anew when they
die, and carries the calls of a line that broke. `LineEnd` is the executor's side, `Lines` the
caller's.
"""

from __future__ import annotations

import functools
import pickle
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.outcomes import Report
from agentic_ray.schedule.events import INLINE_BYTES

CALL_BYTES = 320 * 1024
"""A longer call goes through Ray."""
ANSWER_BYTES = 64 * 1024
"""A longer answer goes in several packets. Sockets take packets of this length by default."""
_ACCEPT_SECONDS = 60.0
_AGAIN_SECONDS, _AFTER_FAILURE_SECONDS = 2.0, 600.0
_CODELETS_KNOWN = 10_000
_MORE, _LAST = b"\x00", b"\x01"
_END = b"\x00"


class LineBrokenError(Exception):
    """Internal: the executor at the other end is gone, and with it the calls it was sent."""


Run = Callable[[str, Payload], tuple[Any, ...]]


class LineEnd:
    """The executor's side of lines.

    Parameters
    ----------
    run : callable
        ``(token, payload) -> (report, *large values)``; called in a thread of its own.
    threads : int
        Number of calls that it may run at once.
    """

    def __init__(self, run: Run, threads: int) -> None:
        self._run = run
        self._pool = ThreadPoolExecutor(threads, "agentic-ray-line")

    def open(self) -> str | None:
        """Open a socket and return where one caller can connect within a minute; None if this
        system has no such sockets."""
        kind = getattr(socket, "SOCK_SEQPACKET", None)
        if kind is None:
            return None
        folder = tempfile.mkdtemp(prefix="agentic-ray-")  # nobody else may look into it
        path = str(Path(folder, "line"))
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            listener.bind(path)
            listener.listen(1)
        except OSError:  # no such sockets here, or the path is too long for one
            listener.close()
            shutil.rmtree(folder)
            return None
        listener.settimeout(_ACCEPT_SECONDS)
        threading.Thread(target=self._serve, args=(listener, folder), daemon=True).start()
        return path

    def _serve(self, listener: socket.socket, folder: str) -> None:
        try:
            with listener:
                connection, _ = listener.accept()
        except TimeoutError:
            return
        finally:
            shutil.rmtree(folder)
        connection.settimeout(None)
        sending = threading.Lock()
        with connection:
            while message := _received(connection, CALL_BYTES):
                self._pool.submit(self._answer, connection, sending, message)

    def _answer(self, connection: socket.socket, sending: threading.Lock, message: bytes) -> None:
        token, _, pickled = message.partition(_END)
        results: Any
        try:
            results = self._run(token.decode(), pickle.loads(pickled))
            plain = all(value is None for value in results[1:])
            data = (pickle if plain else cloudpickle).dumps(results)
        except Exception as error:  # on any error the caller still waits for an answer
            data = cloudpickle.dumps(error)
        data = token + _END + data
        try:
            with sending:
                for at in range(0, len(data), ANSWER_BYTES):
                    last = at + ANSWER_BYTES >= len(data)
                    connection.send((_LAST if last else _MORE) + data[at : at + ANSWER_BYTES])
        except OSError:
            return  # the caller has gone; nobody waits for the answer


class Line:
    """A line to one executor. `send` never blocks.

    Raises
    ------
    OSError
        Nobody listens at ``path``: the executor is on another machine, or has ended.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        # (where the system allows less, long calls are refused)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CALL_BYTES)
        self._waiting: dict[str, tuple[Future[Report], list[Any]]] = {}
        self._lock = threading.Lock()
        self.broken = False
        threading.Thread(target=self._receive, name="agentic-ray-line", daemon=True).start()

    def send(self, token: str, payload: Payload) -> tuple[Future[Report], list[Any]] | None:
        """Send a bundle; return None if the line does not take it.

        Returns
        -------
        future
            Report of the bundle, or LineBrokenError.
        list
            Filled once the report is there: None, and an ObjectRef of each value that is large
            after all (None for the others).
        """
        message = token.encode() + _END + pickle.dumps(payload)
        if len(message) > CALL_BYTES:
            return None
        sent: tuple[Future[Report], list[Any]] = Future(), [None]
        with self._lock:
            if self.broken:
                return None
            self._waiting[token] = sent
        try:
            self._socket.send(message, socket.MSG_DONTWAIT)
        except OSError:  # the executor does not read, or has gone
            with self._lock:
                if self._waiting.pop(token, None) is not None:
                    return None
        return sent

    def close(self) -> None:
        with self._lock:
            if not self.broken:
                self.broken = True
                self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> None:
        parts: list[bytes] = []
        while packet := _received(self._socket, 1 + ANSWER_BYTES):
            parts.append(packet[1:])
            if packet[:1] == _LAST:
                self._take(b"".join(parts))
                parts.clear()
        with self._lock:
            self.broken = True
            self._socket.close()
            left, self._waiting = self._waiting, {}
        for answer, _ in left.values():
            answer.set_exception(LineBrokenError())

    def _take(self, data: bytes) -> None:
        token, _, pickled = data.partition(_END)
        with self._lock:
            answer, refs = self._waiting.pop(token.decode())
        try:
            results = cloudpickle.loads(pickled)
            if isinstance(results, Exception):
                raise results
            report, *large = results
            refs.extend(None if value is None else ray.put(value) for value in large)
        except Exception as error:  # also errors from the hooks of a user's values
            answer.set_exception(error)
        else:
            answer.set_result(report)


def _received(connection: socket.socket, most: int) -> bytes:
    """Return the next packet; nothing when the other end has gone."""
    try:
        return connection.recv(most)
    except OSError:
        return b""


class Lines:
    """The caller's lines, and the choice of bundles that take them. Used by the loop's thread
    alone.

    Parameters
    ----------
    later : callable
        Makes the loop's thread call something; may itself be called from anywhere.
    """

    def __init__(self, later: Callable[[Callable[[], None]], None]) -> None:
        self._later = later
        self._lines: weakref.WeakKeyDictionary[Any, Line] = weakref.WeakKeyDictionary()
        self._not_before: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._small: set[str] = set()

    def send(
        self, executor: Any, token: str, payload: Payload, bundle: Bundle
    ) -> tuple[Future[Report], list[Any]] | None:
        """Send a bundle over the line to ``executor`` as `Line.send` does; return None if it must
        go through Ray."""
        if len(payload.held) < len(payload.inputs) or not self._writes_little(payload, bundle):
            return None
        if not all(isinstance(source, bytes) for source in payload.codelets.values()):
            return None
        line = self._line(executor)
        return None if line is None else line.send(token, payload)

    def _writes_little(self, payload: Payload, bundle: Bundle) -> bool:
        sizes = bundle.output_bytes
        if all(sizes):
            return sum(sizes) <= INLINE_BYTES
        return self._small.issuperset(payload.codelets)

    def learn(self, payload: Payload, report: Report) -> None:
        """Learn from a report whether the codelets of its bundle return little."""
        if len(self._small) > _CODELETS_KNOWN:
            self._small.clear()
        if report.is_small:
            self._small.update(payload.codelets)
        else:
            self._small.difference_update(payload.codelets)

    def close(self) -> None:
        for line in list(self._lines.values()):
            line.close()

    def _line(self, executor: Any) -> Line | None:
        """Return the line to ``executor``; if there is none, start to open it and return None."""
        line = self._lines.get(executor)
        if line is not None and not line.broken:
            return line
        now = time.monotonic()
        if now >= self._not_before.get(executor, 0.0):
            self._not_before[executor] = now + _AGAIN_SECONDS
            opened = executor.open_line.remote().future()
            opened.add_done_callback(
                lambda done: self._later(functools.partial(self._connect, executor, done))
            )
        return None

    def _connect(self, executor: Any, opened: Future[str | None]) -> None:
        path = opened.result() if opened.exception() is None else None
        if path is not None:
            try:
                self._lines[executor] = Line(path)
            except OSError:
                path = None
        if path is None:
            self._not_before[executor] = time.monotonic() + _AFTER_FAILURE_SECONDS
