"""The one thread of a process that compiles, and what waits for it."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

MOST_WAITING = 32
"""Jobs in the queue; more are refused, and asked for again when their work comes again."""
THREAD_NAME = "compile-kernel"

_logger = logging.getLogger("agentic_ray")


class CompileQueue:
    """Runs jobs one after the other in a thread that is there only while there are any."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> bool:
        """Have ``job()`` called soon; False if too many wait already."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                self._thread.start()
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if ``timeout`` seconds did not suffice."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                job = self._waiting.popleft()
            try:
                job()
            except Exception:  # a job says itself what is wrong; this one did not foresee it
                _logger.exception("compiling failed")


compiling = CompileQueue()
"""The one of this process."""

if hasattr(os, "register_at_fork"):
    # In a child there is no such thread; its parent goes on with what waits.
    os.register_at_fork(after_in_child=compiling._reset)
