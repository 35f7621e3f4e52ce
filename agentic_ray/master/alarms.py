"""`Alarms`: calls at times to come, all from one thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarms:
    """Made on first use: a process that sets no alarm has no thread for them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, seconds: float, call: Callable[[], None]) -> None:
        """Call after so many seconds."""
        with self._changed:
            entry = (time.monotonic() + seconds, next(self._numbers), call)
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._ring, name="alarms", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Call nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _ring(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is None or left > 0:
                    self._changed.wait(left if left is None else min(left, threading.TIMEOUT_MAX))
                    continue
                call = heapq.heappop(self._heap)[2]
            call()
