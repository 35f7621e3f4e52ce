"""`EventFeed`: the steps of jobs as numbered events that can be followed, and resumed, by many.

Each event is written as bytes once, whoever follows. What happens often and needs no history
(progress, telemetry) has no number: who follows gets the newest.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from agentic_ray.master import JobRecord, JobState
from agentic_ray.master.jsonvalues import JsonText
from agentic_ray.service.page.shown import Sees, row

Kind = Literal["job", "progress", "cluster"]
KINDS: Final[tuple[Kind, ...]] = ("job", "progress", "cluster")

KEPT: Final = 10_000
"""Events kept to be resumed from."""
_GATHER_SECONDS: Final = 0.05
_ALIVE_SECONDS: Final = 15.0
_MOST_AT_ONCE: Final = 500
_NO_PARAMS: Final = JsonText("null")


@dataclass(slots=True)
class Event:
    """A step of a job; ``frame`` is made when it is first sent."""

    number: int
    record: JobRecord
    frame: bytes = b""


def frame(kind: str, data: Any, number: str | None = None) -> bytes:
    """Return the text of a server-sent event."""
    head = f"event: {kind}\n" + ("" if number is None else f"id: {number}\n")
    # (JSON in ASCII has no line ends.)
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")


class EventFeed:
    """Told of each step by `publish`, from any thread; followed in an event loop.

    Parameters
    ----------
    kept : int
        Events that can be resumed from.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.epoch = secrets.token_hex(4)
        self._kept = kept
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._next = 1
        self._owners: dict[str, str] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        self._progress_number = 0
        self._cluster = b""
        self._cluster_number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._waking = False
        self._closed = False
        self.followers = 0

    # --- what comes in -----------------------------------------------------------------

    def publish(self, record: JobRecord) -> None:
        """A job has taken a step. Keeps neither its params nor its result."""
        small = replace(record, params=_NO_PARAMS, result=None)
        with self._lock:
            self._events.append(Event(self._next, small))
            self._next += 1
            if len(self._events) > 2 * self._kept:
                del self._events[: -self._kept]
            if record.state is JobState.RUNNING:
                self._owners[record.id] = record.user
            else:
                self._owners.pop(record.id, None)
            self._wake()

    def miss(self) -> None:
        """Steps of jobs were missed: all who follow have to ask anew for what they know."""
        with self._lock:
            self._events.clear()
            self._next += 1
            self._owners.clear()
            self._wake()

    def tell_progress(self, progress: dict[str, tuple[int, int]]) -> None:
        """Tell how far running jobs are: tasks done, and asked for so far."""
        with self._lock:
            if progress != self._progress:
                self._progress = progress
                self._progress_number += 1
                self._wake()

    def tell_cluster(self, sample: Any) -> None:
        """The newest sample of the cluster."""
        made = frame("cluster", sample)
        with self._lock:
            self._cluster = made
            self._cluster_number += 1
            self._wake()

    def close(self) -> None:
        """End all who follow."""
        with self._lock:
            self._closed = True
            self._wake()

    @property
    def position(self) -> str:
        """The number of the newest event, to resume from."""
        return f"{self.epoch}-{self._next - 1}"

    # --- who follows -------------------------------------------------------------------

    async def follow(
        self,
        sees: Sees,
        *,
        kinds: Collection[Kind] = KINDS,
        after: str | None = None,
        job_id: str | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[bytes]:
        """Events as bytes to be sent.

        Begins with ``hello``, or with ``reset`` where events were missed that are not kept any
        more: what was known must be asked for anew.

        Parameters
        ----------
        sees : callable
            Whose events are wanted.
        after : str, optional
            The number of the last event that was received. Default: from now on.
        job_id : str, optional
            Of this job only; ends with its last step.
        over : callable
            Whether the job has ended already: then what is kept of it is all there will be.
        """
        self._loop = asyncio.get_running_loop()
        self.followers += 1
        progress_number = cluster_number = 0
        try:
            position, missed = self._begin(after)
            ended = await asyncio.to_thread(over)
            kind = "reset" if missed else "hello"
            yield b"retry: 2000\n" + frame(kind, self._now(), self._id(position))
            while not self._closed:
                news = self._news
                parts: list[bytes] = []
                events, position, lost = self._after(position)
                if lost:
                    parts.append(frame("reset", self._now(), self._id(position)))
                    ended = ended or await asyncio.to_thread(over)
                if "job" in kinds:
                    for event in events:
                        record = event.record
                        if job_id in (None, record.id) and sees(record.user):
                            parts.append(self._frame(event))
                            ended = ended or (job_id is not None and record.state.finished)
                if "progress" in kinds and progress_number != self._progress_number:
                    progress_number = self._progress_number
                    seen = {
                        known: figures
                        for known, figures in self._progress.items()
                        if job_id in (None, known) and sees(self._owners.get(known, ""))
                    }
                    if seen:
                        parts.append(frame("progress", seen))
                if "cluster" in kinds and cluster_number != self._cluster_number:
                    cluster_number = self._cluster_number
                    parts.append(self._cluster)
                if ended:
                    parts.append(frame("end", {"task_id": job_id}))
                if parts:
                    yield b"".join(parts)
                if ended:
                    return
                if len(events) == _MOST_AT_ONCE:
                    continue
                try:
                    await asyncio.wait_for(news.wait(), _ALIVE_SECONDS)
                except TimeoutError:
                    yield b": alive\n\n"
        finally:
            self.followers -= 1

    def _begin(self, after: str | None) -> tuple[int, bool]:
        """The number to go on after, and whether events before that are lost."""
        if after is None:
            return self._next - 1, False
        epoch, _, number = after.rpartition("-")
        if epoch != self.epoch or not number.isdecimal() or int(number[:20]) >= self._next:
            return self._next - 1, True
        return int(number), False

    def _after(self, position: int) -> tuple[list[Event], int, bool]:
        """The events after a number, the last of their numbers, and whether some are lost."""
        with self._lock:
            first = self._events[0].number if self._events else self._next
            lost = position + 1 < first
            if lost:
                return [], self._next - 1, True
            begin = position + 1 - first
            events = self._events[begin : begin + _MOST_AT_ONCE]
        return events, events[-1].number if events else position, False

    def _frame(self, event: Event) -> bytes:
        if not event.frame:
            event.frame = frame("job", row(event.record), self._id(event.number))
        return event.frame

    def _now(self) -> dict[str, Any]:
        return {"position": self.position, "time": time.time()}

    def _id(self, number: int) -> str:
        return f"{self.epoch}-{number}"

    def _wake(self) -> None:
        """Let those who follow look, a moment later: what happens meanwhile goes along."""
        if self._loop is None or self._waking or not (self.followers or self._closed):
            return
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._gather)
        except RuntimeError:  # the loop has ended, and all who followed with it
            self._waking = False

    def _gather(self) -> None:
        asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._notify)

    def _notify(self) -> None:
        with self._lock:
            self._waking = False
            news, self._news = self._news, asyncio.Event()
        news.set()
