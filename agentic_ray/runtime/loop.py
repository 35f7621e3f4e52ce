"""The thin adapter between the Dispatcher and Ray: ``commands`` become calls, answers become events
(``answering``), and other threads ask for ``results``.

One thread owns the Dispatcher; everything else talks to it through its inbox.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from agentic_ray.errors import SessionError
from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.answering import Answering
from agentic_ray.runtime.calls import Answer, Call
from agentic_ray.runtime.commands import Commands
from agentic_ray.runtime.failures import internal_error
from agentic_ray.runtime.notices import Notices
from agentic_ray.runtime.recordings import Recording
from agentic_ray.runtime.results import Results
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.sending import Sender, Switches
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.events import (
    BundleFailed,
    Cancel,
    Event,
    GpuLost,
    GraphReleased,
    GraphSubmitted,
    LeaseEnded,
    LeaseGranted,
    NodeLost,
    Tick,
    ValueLost,
)
from agentic_ray.schedule.noting import Noter
from agentic_ray.schedule.recording import Recorder
from agentic_ray.schedule.ring import LastEvents, Ring

_logger = logging.getLogger("agentic_ray")
_TICK_SECONDS = 1.0
_REST_SECONDS = 5.0


class Loop:
    """Owns the Dispatcher, the runs and the values between bundles.

    An exception in dealing with one graph fails that graph alone. If the Dispatcher raised it, its
    state is in doubt: all its graphs fail, and a new one takes its place.

    Parameters
    ----------
    new_dispatcher : callable
        Makes a Dispatcher that knows of no node and no graph.
    executor : callable
        Returns an executor's handle, as in `Sender`.
    switches : Switches
        Transports that may be used.
    request_resources : callable
        Called with ``(cpus, gpus)`` when waiting work could use more than there is.
    executor_died : callable
        Called with ``(node_id, device, actor handle, reason)`` of an executor that is dead for good
        or has lost its device.
    reopened : callable
        Called with a finished run of which a value is made again, in the asking thread.
    announce : callable
        Announces every node again, to a new Dispatcher.
    leased : callable
        Called with the grant of a lease, and with its end.
    kept_events : int
        Weight of the last events and decisions that are kept in memory, as in `Ring`; 0: none.
    went_wrong : callable
        Called with the last events when the Dispatcher has raised; returns a text for the error.
    """

    def __init__(
        self,
        new_dispatcher: Callable[[], Dispatcher],
        codelets: CodeletTable,
        executor: Callable[[str, str], Any],
        switches: Switches,
        request_resources: Callable[[int, int], None],
        executor_died: Callable[[str, str, Any, str], None],
        reopened: Callable[[Run], None],
        announce: Callable[[], None],
        leased: Callable[[LeaseGranted | LeaseEnded], None],
        kept_events: int,
        went_wrong: Callable[[LastEvents], str],
    ) -> None:
        self.dispatcher = new_dispatcher()
        self._new_dispatcher = new_dispatcher
        self._on_executor_died = executor_died
        self._announce = announce
        self._on_lease = leased
        self._inbox: queue.SimpleQueue[Event | Answer | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self.runs: dict[str, Run] = {}
        self.calls: dict[tuple[int, int], Call] = {}
        self.sender = Sender(
            codelets,
            executor,
            self._inbox.put,
            lambda *key: self.dispatcher.value_info(*key),
            switches,
        )
        self.lost_at = -math.inf
        self._notices = Notices()
        self._answering = Answering(self)
        self._commands = Commands(self, request_resources, leased)
        self.results = Results(self, reopened)
        self._noter = Noter(self.dispatcher)
        self._recorder: Recorder | None = None
        self._ring = Ring(self.dispatcher, kept_events) if kept_events else None
        if self._ring is not None:
            self._noter.add(self._ring.note)
        self._on_wrong = went_wrong
        self._working = threading.Lock()
        self.ended: SessionError | None = None
        self._thread = threading.Thread(target=self._main, name="agentic-ray-loop", daemon=True)

    # --- from other threads ------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Event) -> None:
        self._inbox.put(event)

    def submit(self, run: Run, bundles: tuple[Bundle, ...], priority: int) -> None:
        event = GraphSubmitted(time.monotonic(), run.graph_id, bundles, run.outputs, priority)

        def begin() -> None:
            self.runs[run.graph_id] = run
            self.handle(event)

        if self.ended is not None:
            raise self.ended
        self._inbox.put(begin)
        if self.ended is not None:  # meanwhile, perhaps after the last look into the inbox
            run.settle(self.ended)

    def answered(self, answer: Answer) -> None:
        """Take in an answer."""
        self._inbox.put(answer)

    def later(self, work: Callable[[], None]) -> None:
        """Call ``work`` in the loop's thread, after everything it was told before."""
        self._inbox.put(work)

    def record(self, recording: Recording, about: dict[str, str]) -> Future[None]:
        """Record all events and decisions from now on, of a new Dispatcher.

        The future raises SessionError if work is under way, values of earlier work are still held
        or a lease is open: the recording would not know how they came about.
        """
        began: Future[None] = Future()

        def begin() -> None:
            held = ""
            if self.dispatcher.open_leases:
                held = f"{len(self.dispatcher.open_leases)} leases of cards are open"
            elif self.runs:
                held = f"{len(self.runs)} graphs are under way or their results are still held"
            if held:
                began.set_exception(SessionError(f"no recording can begin: {held}"))
                return
            self._take_new_dispatcher()
            self._recorder = Recorder(recording.write, self.dispatcher, about)
            self._noter.add(self._recorder.note)
            self._announce()
            began.set_result(None)

        self._inbox.put(begin)
        return began

    def stop_recording(self) -> None:
        """Write nothing more."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._noter.remove(recorder.note)

    def last_events(self) -> Future[LastEvents | None]:
        """Return, by and by, the last events and decisions; None if none are kept."""
        found: Future[LastEvents | None] = Future()
        self._inbox.put(lambda: found.set_result(self._ring.copy() if self._ring else None))
        return found

    def has_calls(self, graph_ids: Container[str]) -> bool:
        """Whether a call of one of these graphs is under way."""
        return any(call.graph_id in graph_ids for call in list(self.calls.values()))

    def close(self, why: SessionError) -> None:
        """Fail unfinished graphs with ``why`` and end the thread."""
        self._end(why)
        self.sender.lines.close()
        self._inbox.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        self._abandon(why)  # in case Ray holds the thread up

    @contextmanager
    def resting(self) -> Iterator[bool]:
        """Keep the loop at rest inside the block; yield False if the thread could not be stopped in
        time: it may wait for a Ray that is dead."""
        alone = self._working.acquire(timeout=_REST_SECONDS)
        try:
            yield alone
        finally:
            if alone:
                self._working.release()

    def ray_died(self, node_ids: Iterable[str], reason: str, *, alone: bool) -> None:
        """Take in that Ray and all its nodes are gone: lost work is done again, on the nodes that
        are announced from now on. To be called while the loop is resting."""
        self.calls.clear()
        self._commands.ray_died()
        self.sender.begin_anew()
        for run in list(self.runs.values()):
            run.log("Ray died", text=reason)
        for node_id in node_ids:
            lost = NodeLost(time.monotonic(), node_id, reason)
            self.handle(lost) if alone else self._inbox.put(lost)

    # --- the loop's own thread ---------------------------------------------------------

    def _main(self) -> None:
        next_tick = time.monotonic() + _TICK_SECONDS
        why = SessionError("the session was shut down")
        try:
            while True:
                try:
                    item = self._inbox.get(timeout=max(0.0, self._next(next_tick)))
                except queue.Empty:
                    next_tick = time.monotonic() + _TICK_SECONDS
                    item = Tick(time.monotonic())
                    self._notices.tell(self.dispatcher.obstacle, list(self.runs.values()))
                if item is None:
                    break
                with self._working:
                    self._take(item)
                item = None  # it may hold the last reference to an object in Ray
        except BaseException as error:  # such as a SystemExit that a user's object raises
            why = internal_error("the session was at work", error)
            _logger.exception("the dispatch loop has ended")
        finally:
            self._end(why)
            self._abandon(self.ended or why)
            self.calls.clear()

    def _next(self, next_tick: float) -> float:
        """Return the seconds until something must be done even if no event comes."""
        until = next_tick
        try:
            wakeup = self.dispatcher.next_wakeup_seconds
        except Exception as error:
            self._renew(error, "the next wake-up was asked for")
            wakeup = None
        if wakeup is not None:
            until = min(until, wakeup)
        if self._commands.next_due is not None:
            until = min(until, self._commands.next_due)
        return until - time.monotonic()

    def _take(self, item: Event | Answer | Callable[[], None]) -> None:
        """Handle one item of the inbox; never raise."""
        try:
            self._commands.carry_out_due()
            if isinstance(item, Answer):
                self._answering.take(item)
            elif not callable(item):
                self.handle(item)
        except Exception as error:  # an event is lost, so trust nothing
            self._renew(error, f"{type(item).__name__} was dealt with")
            return
        if callable(item):
            try:
                item()
            except Exception:  # errors of the Dispatcher are dealt with before they come here
                _logger.exception("a part of the session could not do what it had put off")

    def _end(self, why: SessionError) -> None:
        if self.ended is None:
            self.ended = why

    def _abandon(self, error: BaseException) -> None:
        for run in list(self.runs.values()):
            if not run.done:
                run.settle(error)

    def _renew(self, error: BaseException, doing: str) -> None:
        """Replace a Dispatcher that raised, with all its graphs, by a new one."""
        told = "" if self._ring is None else self._on_wrong(self._ring.copy())
        failure = internal_error(doing, error, told)
        _logger.error("%s", failure, exc_info=error)
        self._abandon(failure)
        for lease_id in self.dispatcher.open_leases:
            self._on_lease(LeaseEnded(lease_id, str(failure), lost=True))
        self._take_new_dispatcher()
        for key in list(self.calls):
            self._commands.carry_out(Cancel(*key))
        self._announce()

    def _take_new_dispatcher(self) -> None:
        first_id = self.dispatcher.next_bundle_id
        self.dispatcher = self._new_dispatcher()
        self.dispatcher.next_bundle_id = first_id  # late answers must not match a new bundle
        self._noter.renewed(self.dispatcher)

    def handle(self, event: Event) -> None:
        if isinstance(event, GpuLost):
            event = self.sender.values.restored(event)
        pending = [event]
        if isinstance(event, NodeLost | ValueLost):
            self.lost_at = event.time
        while pending:
            try:
                commands = self._noter.handle(pending.pop(0))
            except Exception as error:
                self._renew(error, f"{type(event).__name__} was handled")
                break
            for command in commands:
                answer = self._commands.carry_out(command)
                if answer is not None:
                    pending.append(answer)
        if isinstance(event, GraphReleased):
            self.runs.pop(event.graph_id, None)
            self.sender.forget_graph(event.graph_id)

    def call_took(self, seconds: float) -> None:
        """Tell the cost model the seconds of a call by itself, beside the events."""
        self.dispatcher.model.observe_call(seconds)
        self._noter.call_took(seconds)

    def send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call through Ray and with all its inputs."""
        return self._commands.send_again(call, after_death=after_death)

    def executor_died(self, call: Call, reason: str) -> None:
        """Tell that the executor of a call is dead for good, or has lost its device."""
        self._on_executor_died(call.placement.node_id, call.placement.device, call.executor, reason)
