"""Tells the owners of runs what their work waits for, at once and then now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final

from agentic_ray.runtime.run import Run

_logger = logging.getLogger("agentic_ray")
_AGAIN_SECONDS: Final = 10.0
_MOST_SECONDS: Final = 60.0


class Notices:
    """Record of the notices given of the present obstacle, if there is one."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._since = 0.0
        self._due = 0.0

    def tell(self, text: str | None, runs: Iterable[Run]) -> None:
        """Log the obstacle when it is new or was not told for a while, and show it at the progress
        bars of the waiting runs; None: there is none (any more). To be called every second."""
        if text is None and self._text is None:
            return
        now = time.monotonic()
        waiting = [run for run in runs if not run.done]
        if text is None:
            self._text = None
            for run in waiting:
                run.note = ""
            return
        if self._text is None:  # it may be gone before anybody has noticed: tell it the next time
            self._since = self._due = now
            self._text = text
            return
        self._text = text
        for run in waiting:
            run.note = f"({text})"
        if now < self._due:
            return
        waited = now - self._since
        for run in waiting:
            run.log("waiting", text=text)
        _logger.warning("%d graph(s) wait%s: %s", len(waiting), _for(waited), text)
        self._due = now + min(max(_AGAIN_SECONDS, waited), _MOST_SECONDS)


def _for(seconds: float) -> str:
    return f" since {seconds:.0f} s" if seconds >= 1 else ""
