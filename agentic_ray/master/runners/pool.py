"""`RunnerPool`: runners at hand. A job takes one and gives it back, or it is replaced."""

from __future__ import annotations

import threading
import time
from typing import Final

from agentic_ray.master.runners.process import Nursery, RunnerProcess

_MOST_JOBS: Final = 1_000
_MOST_GROWTH_BYTES: Final = 512 << 20
_IDLE_SECONDS: Final = 30.0


class RunnerPool:
    """Keeps up to ``warm`` idle runners; makes more when more are wanted at once.

    Parameters
    ----------
    warm : int
        Idle runners kept. Others end after half a minute without a job.
    """

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._nursery = Nursery()
        self._idle: list[RunnerProcess] = []
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._nursery.start, name="nursery", daemon=True).start()

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
            runner.kill()  # it died, or talks without being asked
            runner.close()

    def give_back(self, runner: RunnerProcess, *, fit: bool) -> None:
        """The job is over. ``fit``: nothing of it is left in the process."""
        runner.jobs += 1
        now = time.monotonic()
        grown = runner.memory_bytes() - runner.first_bytes if fit else 0
        fit = fit and runner.jobs < _MOST_JOBS and grown < _MOST_GROWTH_BYTES
        over: list[RunnerProcess] = []
        with self._lock:
            if fit and not self._closed:
                runner.idle_since = now
                self._idle.append(runner)
            else:
                over.append(runner)
            while len(self._idle) > self._warm and now - self._idle[0].idle_since > _IDLE_SECONDS:
                over.append(self._idle.pop(0))
        for one in over:
            one.kill()
            one.close()

    def close(self) -> None:
        """End all runners, idle or not."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for runner in idle:
            runner.kill()
            runner.close()
        self._nursery.close()
