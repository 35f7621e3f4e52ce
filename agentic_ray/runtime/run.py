"""The caller's side of one submitted graph: waiting, result, cancel, placements, metrics."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from agentic_ray.errors import JobTimeoutError
from agentic_ray.graph.task import Bundle
from agentic_ray.ids import current_ids
from agentic_ray.pictures import HeldBytes, Timeline
from agentic_ray.runtime.explain import placement_table
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.printed import Piece, Printed, show
from agentic_ray.schedule.metrics import Metrics, PlacementRecord, summarise
from agentic_ray.schedule.spans import timeline_of

_logger = logging.getLogger("agentic_ray")


class Backend(Protocol):
    """Part of the session's loop that a run needs."""

    def peek(self, graph_id: str, key: str) -> Any: ...
    def fetch(self, graph_id: str, key: str) -> Any: ...
    def held(self, graph_id: str, key: str) -> Any: ...
    def request_cancel(self, graph_id: str) -> None: ...
    def release(self, graph_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened to a run, for the user to read."""

    time: float
    kind: str
    bundle: str
    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Tidings:
    """News of a run, for the process that it was submitted from."""

    records: tuple[PlacementRecord, ...]
    events: tuple[RunEvent, ...]
    printed: tuple[Printed, ...]
    failed: frozenset[str]
    recovered: frozenset[str]
    note: str
    records_seen: int
    events_seen: int


class ValueGone(Exception):
    """Internal: a finished value could not be fetched and is being made again."""


class Run:
    """A graph under way. Made by `Session.submit`; safe to use from any thread."""

    def __init__(
        self,
        backend: Backend,
        graph_id: str,
        outputs: Sequence[str],
        bundles: Sequence[Bundle],
        *,
        asked: int,
        slots: Mapping[tuple[str, str], int],
        on_gpus: bool = False,
    ) -> None:
        self.graph_id = graph_id
        self.outputs = tuple(outputs)
        self.items_total = sum(bundle.items for bundle in bundles)
        self.items_done = 0
        self.bundles_total = len(bundles)
        self.asked = asked
        self.slots = slots
        self.on_gpus = on_gpus
        self.ids = current_ids()
        self.created_seconds = time.monotonic()
        self.finished_seconds: float | None = None
        self.records: list[PlacementRecord] = []
        self.failed_bundles: set[str] = set()
        self.recovered_bundles: set[str] = set()
        self.history: list[RunEvent] = []
        self.note = ""  # the obstacle it waits for, shown at a progress bar
        self.memory = HeldBytes()  # values in object stores and on GPUs, over time
        self._backend = backend
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._values: list[Any] | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], object]] = []
        self._printed: deque[Printed] = deque()
        self._heard: set[str] = set()

    # --- for the loop ------------------------------------------------------------------

    def log(self, kind: str, bundle: str = "", node_id: str = "", text: str = "") -> None:
        self.history.append(RunEvent(time.time(), kind, bundle, node_id, text))

    def hear(
        self, bundle: str, pieces: tuple[Piece, ...], node_id: str = "", *, finished: bool
    ) -> None:
        """Take in text that tasks of a bundle printed. Once the bundle has finished, the text that
        it prints when it is run again, to make a lost value anew, is dropped as known."""
        if bundle not in self._heard and pieces:
            self._printed.append(Printed(bundle, node_id, pieces))
        if finished:
            self._heard.add(bundle)

    def record(self, record: PlacementRecord) -> None:
        """Add the record of a finished bundle."""
        self.records.append(record)
        self.items_done += record.items
        self._call(self._listeners)

    def settle(self, error: BaseException | None) -> None:
        """End the run: the graph is finished or has failed, which is final."""
        with self._lock:
            if self._over.is_set() and self._error is not None:
                return
            self._error = error
            self._trace = None if error is None else error.__traceback__
            self.finished_seconds = time.monotonic()
            self._over.set()
            callbacks, self._callbacks = self._callbacks, []
        self._call([*callbacks, *self._listeners])

    def _call(self, callbacks: Sequence[Callable[[], object]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception:  # it is the caller's error; others wait for their callbacks
                _logger.exception("what was to be called of %s raised", self.graph_id)

    def reopen(self) -> None:
        """Go back to running: a finished output was lost and is being made again."""
        self._over.clear()

    # --- for a process that has borrowed the session -----------------------------------

    def tidings(self, records_seen: int, events_seen: int) -> Tidings:
        """Return the news after so many records and events; printed text is returned once."""
        records, events = self.records[records_seen:], self.history[events_seen:]
        printed = []
        while self._printed:
            printed.append(self._printed.popleft())
        return Tidings(
            tuple(records),
            tuple(events),
            tuple(printed),
            frozenset(self.failed_bundles),
            frozenset(self.recovered_bundles),
            self.note,
            records_seen + len(records),
            events_seen + len(events),
        )

    def hear_of(self, tidings: Tidings) -> None:
        """Take in the news of a run in the process that it was submitted from."""
        self.history += tidings.events
        self._printed.extend(tidings.printed)
        self.failed_bundles |= tidings.failed
        self.recovered_bundles |= tidings.recovered
        self.note = tidings.note
        self.records += tidings.records
        self.items_done += sum(record.items for record in tidings.records)
        if tidings.records:
            self._call(self._listeners)

    def peek(self, key: str) -> Any:
        """Return a finished output as it is held: `Inline`, its place, or None if it is lost."""
        return self._backend.peek(self.graph_id, key)

    def fetch(self, key: str) -> Any:
        """Return the value of a finished output; raise ValueGone if it is being made again."""
        return self._backend.fetch(self.graph_id, key)

    def held(self, key: str) -> Any:
        """Return a finished output as an argument of other tasks; raise ValueGone if it is being
        made again."""
        return self._backend.held(self.graph_id, key)

    def small_values(self) -> dict[str, Inline]:
        """Return the finished outputs that are small, as they travel."""
        found = {key: self.peek(key) for key in self.outputs}
        return {key: value for key, value in found.items() if isinstance(value, Inline)}

    # --- for the caller ----------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self._over.is_set()

    @property
    def error(self) -> BaseException | None:
        return self._error

    def raise_error(self) -> None:
        """Raise the error that ended the run, if there is one, as if for the first time."""
        if self._error is not None:
            raise self._error.with_traceback(self._trace)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the run is over, at once if it is."""
        with self._lock:
            if not self._over.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def listen(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` whenever a bundle finishes and when the run is over."""
        self._listeners.append(listener)
        if self.records or self.done:
            listener()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run is over; False if ``timeout`` seconds passed before that.

        While it waits, as all waiting for a run does, it writes the text that tasks printed.
        """
        over = self._over.wait(timeout)
        self.write_printed()
        return over

    def write_printed(self) -> None:
        """Write the text that tasks have printed to this process's streams, from the caller's
        thread: in a notebook the thread decides which cell it belongs to."""
        while self._printed:
            try:
                printed = self._printed.popleft()
            except IndexError:  # another thread was quicker
                return
            show(printed)

    def release(self) -> None:
        """Give the values up: nobody will ask for the result (again)."""
        self._backend.release(self.graph_id)

    def cancel(self) -> None:
        """Stop running bundles and drop the rest; `result` then raises JobCancelledError."""
        self._backend.request_cancel(self.graph_id)

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for the values of the graph's outputs and return them, in order.

        Raises
        ------
        JobTimeoutError
            The result is not there after ``timeout`` seconds; the run goes on.
        JobCancelledError, or the user's own exception
            The error that ended the run.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._values is None:
            if not self._settled(deadline):
                raise JobTimeoutError(f"no result of {self.graph_id} after {timeout} seconds")
            try:
                values = [self._backend.fetch(self.graph_id, key) for key in self.outputs]
            except ValueGone:
                continue
            self._values = values
            self._backend.release(self.graph_id)
        return self._values

    def handles(self) -> list[Any]:
        """Return the outputs of a finished run for use as arguments of other tasks: small values
        themselves, large ones where they are, as `Stored`. Wait for values that were lost
        meanwhile."""
        while True:
            self._settled(math.inf)
            try:
                handles = [self._backend.held(self.graph_id, key) for key in self.outputs]
            except ValueGone:
                continue
            self._backend.release(self.graph_id)
            return handles

    def _settled(self, deadline: float) -> bool:
        """Wait until the run is over and raise its error; return False if it is not over by
        ``deadline``, a time of `time.monotonic`."""
        # Short waits, so that a main thread notices Ctrl-C at once.
        while not self.wait(max(0.0, min(0.2, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
        if self._error is not None:
            self._backend.release(self.graph_id)
            self.raise_error()
        return True

    def placements(self) -> list[PlacementRecord]:
        """List where each finished bundle ran and why."""
        return list(self.records)

    def explain(self) -> str:
        """Return a table of where each finished bundle ran and why."""
        return placement_table(self.records)

    def timeline(self, path: str | os.PathLike[str] | None = None) -> Timeline:
        """Return where and when the finished bundles ran as a picture; write it to ``path`` too.

        The path ends with ``.html``, ``.svg`` or ``.json`` (for Perfetto); see `Timeline.save`.

        Raises
        ------
        NothingRanError
            No bundle has finished.
        """
        return timeline_of(self.graph_id, self.records, self.memory.levels, path)

    def events(self) -> list[RunEvent]:
        return list(self.history)

    @property
    def metrics(self) -> Metrics:
        end = self.finished_seconds or time.monotonic()
        return summarise(
            self.records,
            slots=self.slots,
            makespan_seconds=end - self.created_seconds,
            asked=self.asked,
            failed=len(self.failed_bundles),
            recovered=len(self.recovered_bundles),
        )
