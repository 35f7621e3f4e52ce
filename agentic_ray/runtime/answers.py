"""Calls back when Ray has answered, in a thread of ours.

Ray calls the callbacks of a future in the thread that does all its input and output. If a callback
waits there for anything, be it a lock or `ray.kill`, it stops every answer to this process, and for
ever if the wait needs such an answer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger("agentic_ray")


class Answers:
    """A thread that takes answers in the order in which they come."""

    def __init__(self, name: str) -> None:
        self._inbox: queue.SimpleQueue[tuple[Callable[[Any], object], Any] | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._main, name=name, daemon=True).start()

    def when(self, ref: Any, function: Callable[[Any], object]) -> None:
        """Call ``function`` with the finished ``concurrent.futures.Future`` of an ObjectRef."""
        ref.future().add_done_callback(lambda future: self._inbox.put((function, future)))

    def close(self) -> None:
        """End the thread; later answers are dropped."""
        self._inbox.put(None)

    def _main(self) -> None:
        while (item := self._inbox.get()) is not None:
            function, future = item
            try:
                function(future)
            except Exception:  # the thread must hear the next answers all the same
                _logger.exception("an answer of Ray could not be dealt with")
