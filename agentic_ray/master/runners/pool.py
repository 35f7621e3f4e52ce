"""`RunnerPool`: runners at hand. A job takes one and gives it back, or it is replaced."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from agentic_ray.errors import SessionError
from agentic_ray.master.runners.process import Nursery, RunnerProcess

_logger = logging.getLogger("agentic_ray")

_MOST_JOBS: Final = 1_000
_MOST_GROWTH_BYTES: Final = 512 << 20
_IDLE_SECONDS: Final = 30.0
_TEND_SECONDS: Final = 10.0


class RunnerPool:
    """Keeps up to ``warm`` idle runners; makes more when more are wanted at once.

    Parameters
    ----------
    warm : int
        Idle runners kept, which are there from the beginning. Others end after half a minute
        without a job.
    """

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._nursery = Nursery()
        self._idle: list[RunnerProcess] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._tend, name="runners", daemon=True).start()

    def take(self) -> RunnerProcess:
        """A runner that has nothing to do, the one used last if there are several.

        Raises
        ------
        SessionError
            None can be started.
        """
        while True:
            with self._lock:
                runner = self._idle.pop() if self._idle else None
            if runner is None:
                return self._nursery.fork()
            if runner.is_fit:
                return runner
            _end(runner)  # it died, or talks without being asked

    def give_back(self, runner: RunnerProcess, *, fit: bool) -> None:
        """The job is over. ``fit``: nothing of it is left in the process."""
        runner.jobs += 1
        grown = runner.memory_bytes() - runner.first_bytes if fit else 0
        fit = fit and runner.jobs < _MOST_JOBS and grown < _MOST_GROWTH_BYTES
        with self._lock:
            if fit and not self._closed.is_set():
                runner.idle_since = time.monotonic()
                self._idle.append(runner)
                return
        _end(runner)

    def close(self) -> None:
        """End all runners, idle or not."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for runner in idle:
            _end(runner)
        self._nursery.close()

    def _tend(self) -> None:
        """Have runners ready before the first job, and end those that are not needed any more."""
        try:
            for _ in range(self._warm):
                self.give_back(self._nursery.fork(), fit=True)
        except SessionError as error:  # the first job tries again, and tells who waits for it
            if not self._closed.is_set():
                _logger.warning("%s", error)
        while not self._closed.wait(_TEND_SECONDS):
            now = time.monotonic()
            with self._lock:
                # (Those that were used last are at the end.)
                over = [one for one in self._idle if now - one.idle_since > _IDLE_SECONDS]
                over = over[: max(0, len(self._idle) - self._warm)]
                self._idle = [one for one in self._idle if one not in over]
            for runner in over:
                _end(runner)


def _end(runner: RunnerProcess) -> None:
    runner.kill()
    runner.close()
