"""`MissedEnds`: finds the ends of jobs that were not told, and has the webhooks tell them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from agentic_ray.errors import AgenticRayError
from agentic_ray.master import JobRecord
from agentic_ray.master.distant import DistantMaster
from agentic_ray.service.served import ServedMaster
from agentic_ray.service.webhooks import Webhooks

_PAUSE: Final = 1.0
_AT_ONCE: Final = 1_000


class MissedEnds:
    """Looks through the master's jobs, in a thread, when the service starts and when steps of jobs
    were lost on the way from a master in another process.

    Parameters
    ----------
    webhooks : Webhooks
    master : Master or DistantMaster
    """

    def __init__(self, webhooks: Webhooks, master: ServedMaster) -> None:
        self._webhooks = webhooks
        self._master = master
        self._due = threading.Event()
        self._closing = threading.Event()
        self._since: float | None = None
        self._lock = threading.Lock()
        if isinstance(master, DistantMaster):  # (one of this process has them as its `on_end`)
            master.watch(self._stepped, self.look)
        self._thread = threading.Thread(target=self._work, name="missed ends", daemon=True)
        self.look()
        self._thread.start()

    def look(self) -> None:
        """Ends may have been missed until now. Returns at once."""
        since = self._webhooks.missed()
        if since is None:
            return
        with self._lock:
            self._since = since if self._since is None else min(since, self._since)
        self._due.set()

    def _stepped(self, record: JobRecord) -> None:
        if record.state.finished:
            self._webhooks.ended(record)

    def close(self) -> None:
        """Look no further; what is left is found by the next service."""
        self._closing.set()
        self._due.set()
        self._thread.join(_PAUSE)

    def _work(self) -> None:
        while True:
            self._due.wait()
            if self._closing.is_set():
                return
            master = self._master
            if isinstance(master, DistantMaster) and master.reason:
                self._closing.wait(_PAUSE)  # (ends are only heard of from when it answers)
                continue
            self._due.clear()
            with self._lock:
                since, self._since = self._since, None
            if since is None:
                continue
            try:
                self._webhooks.resume(ended_since(master, since))
            except AgenticRayError:  # it does not answer any more
                with self._lock:
                    self._since = since if self._since is None else min(self._since, since)
                self._due.set()
                self._closing.wait(_PAUSE)


def ended_since(master: ServedMaster, since: float) -> Iterator[JobRecord]:
    """All jobs that have ended at or after a time (seconds since the epoch), of those that the
    master keeps.

    Raises
    ------
    AgenticRayError
        The master, or its journal, does not answer.
    """
    before: int | None = None
    while records := master.page(before, None, _AT_ONCE):
        for record in records:
            if record.state.finished and (record.finished_at or 0.0) >= since:
                yield record
        before = records[-1].sequence
