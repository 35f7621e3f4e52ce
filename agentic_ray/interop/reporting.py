"""Tells other programs of jobs that have ended, in a thread of its own."""

from __future__ import annotations

import atexit
import logging
import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from agentic_ray.errors import InvalidTypeError

_logger = logging.getLogger("agentic_ray")
MOST_WAITING: Final = 10_000
"""Most jobs that wait to be told of; those beyond are left out, with a warning."""
_LEAVING_SECONDS: Final = 10.0


class Reports:
    """Callback for ``Master(on_end=...)`` that passes each job on without holding the master up.

    An exception of the other program's is logged, and harms neither the job nor the next report.

    Parameters
    ----------
    report : callable
        Called with the record of each job that has ended.
    """

    def __init__(self, report: Callable[[Any], None]) -> None:
        self._report = report
        self._waiting: queue.Queue[Any] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, record: Any) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="reports", daemon=True)
                self._thread.start()
                atexit.register(self.flush, _LEAVING_SECONDS)
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            _logger.warning("job %s is not reported: %d others wait", record.id, MOST_WAITING)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all jobs so far were told of; False if that takes longer than ``timeout``
        seconds."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            return waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, timeout)

    def _main(self) -> None:
        while True:
            record = self._waiting.get()
            try:
                self._report(record)
            except Exception:  # the other program's, which may be out of reach
                _logger.exception("job %s could not be reported", record.id)
            finally:
                self._waiting.task_done()


def figures(metrics: Any) -> dict[str, float]:
    """Return the finite numbers among the metrics of a job, by name."""
    known: Mapping[str, Any] = {}
    if isinstance(metrics, Mapping):
        known = metrics
    elif is_dataclass(metrics) and not isinstance(metrics, type):
        known = asdict(metrics)
    elif metrics is not None:
        raise InvalidTypeError(f"metrics of a job are expected, not {type(metrics).__name__}")
    return {
        name: float(value)
        for name, value in known.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
