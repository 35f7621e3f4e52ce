"""The thin adapter between the Dispatcher and Ray: commands become calls, answers become events.

One thread owns the Dispatcher; everything else talks to it through its inbox.
"""

from __future__ import annotations

import heapq
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray
from ray import exceptions as ray_errors

from agentic_ray.errors import (
    AgenticRayError,
    ExecutorLostError,
    JobCancelledError,
    LostDataError,
    SerializationError,
    SessionError,
)
from agentic_ray.graph.task import Bundle
from agentic_ray.ids import marked
from agentic_ray.runtime.answering import Answering
from agentic_ray.runtime.calls import (
    Answer,
    Call,
    retry_note,
    token_of,
)
from agentic_ray.runtime.execute import Inline
from agentic_ray.runtime.failures import (
    INPUT_LOST,
    SYSTEM,
    internal_error,
)
from agentic_ray.runtime.notices import Notices
from agentic_ray.runtime.recordings import Recording
from agentic_ray.runtime.run import Run, ValueGone
from agentic_ray.runtime.sending import Sender
from agentic_ray.runtime.values import CodeletTable, Stored, get
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.events import (
    BundleFailed,
    Cancel,
    CancelRequested,
    Cause,
    Command,
    Event,
    FailGraph,
    FinishGraph,
    GpuLost,
    GraphReleased,
    GraphSubmitted,
    LeaseEnded,
    LeaseGranted,
    NodeLost,
    Quarantine,
    Recompute,
    Release,
    RequestResources,
    Split,
    Start,
    Tick,
    ValueLost,
)
from agentic_ray.schedule.recording import Recorder
from agentic_ray.tracebacks import text_of

_logger = logging.getLogger("agentic_ray")
_TICK_SECONDS = 1.0
_CANCEL_AFTER_SECONDS = 1.0
"""A task is not cancelled sooner after it was sent. Ray may forget such a task before it has queued
it, run it all the same, and when it is done end the whole driver process ("Check failed: Tried to
complete task that was not pending")."""
_FOR_GOOD = (ray_errors.ActorDiedError, ray_errors.ActorUnschedulableError)
_SETTLING_SECONDS = 10.0
_REST_SECONDS = 5.0


class Loop:
    """Owns the Dispatcher, the runs and the values between bundles.

    An exception in dealing with one graph fails that graph alone. If it was the Dispatcher that
    An exception in dealing with one graph fails that graph alone. If the Dispatcher raised it, its
    state is in doubt: all its graphs fail, and a new one takes its place.

    Parameters
    ----------
    new_dispatcher : callable
        Makes a Dispatcher that knows of no node and no graph.
    executor : callable
        Returns an executor's handle, as in `Sender`.
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
    """

    def __init__(
        self,
        new_dispatcher: Callable[[], Dispatcher],
        codelets: CodeletTable,
        executor: Callable[[str, str], Any],
        request_resources: Callable[[int, int], None],
        executor_died: Callable[[str, str, Any, str], None],
        reopened: Callable[[Run], None],
        announce: Callable[[], None],
        leased: Callable[[LeaseGranted | LeaseEnded], None],
    ) -> None:
        self.dispatcher = new_dispatcher()
        self._new_dispatcher = new_dispatcher
        self._on_request = request_resources
        self._on_executor_died = executor_died
        self._on_reopened = reopened
        self._announce = announce
        self._on_lease = leased
        self._inbox: queue.SimpleQueue[Event | Answer | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self.runs: dict[str, Run] = {}
        self.calls: dict[tuple[int, int], Call] = {}
        self.sender = Sender(
            codelets, executor, self._inbox.put, lambda *key: self.dispatcher.value_info(*key)
        )
        self._cancels: list[tuple[float, int, int]] = []  # heap: when due, bundle, attempt
        self.lost_at = -math.inf
        self._notices = Notices()
        self._answering = Answering(self)
        self._recorder: Recorder | None = None
        self._working = threading.Lock()
        self._ended: SessionError | None = None
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

        if self._ended is not None:
            raise self._ended
        self._inbox.put(begin)
        if self._ended is not None:  # meanwhile, perhaps after the last look into the inbox
            run.settle(self._ended)

    def fetch(self, graph_id: str, key: str) -> Any:
        """Return the value of a finished graph's output; raise ValueGone if it must be made
        again."""
        if self._ended is not None:
            raise self._ended
        held = self.sender.values.get((graph_id, key))
        try:
            if held is None:
                raise ValueGone
            return held.load() if isinstance(held, Inline) else get(held)
        except (*INPUT_LOST, *SYSTEM, ValueGone, LostDataError) as error:
            self._make_again(graph_id, key, error)
            raise ValueGone from error
        except AgenticRayError:
            raise
        except Exception as error:  # Ray wraps exceptions of a value's own hooks, pickle does not
            raise SerializationError(f"a result cannot be unpickled here: {error}") from error

    def peek(self, graph_id: str, key: str) -> Any:
        """Return a finished graph's output as it is held; None if it is lost."""
        return self.sender.values.get((graph_id, key))

    def held(self, graph_id: str, key: str) -> Any:
        """Return the value of a finished graph's output if it is small, else `Stored`; raise
        ValueGone if it must be made again."""
        if self._ended is not None:
            raise self._ended
        value = self.sender.values.get((graph_id, key))
        if value is None:
            self._make_again(graph_id, key, ValueGone())
            raise ValueGone
        if isinstance(value, Inline):
            return value.load()
        return Stored(value, self.sender.size_of(graph_id, key))

    def _make_again(self, graph_id: str, key: str, error: BaseException) -> None:
        run = self.runs.get(graph_id)
        if run is None:
            raise JobCancelledError(f"the values of {graph_id} were given up") from error
        with marked(run.ids):
            _logger.warning("value %s is lost (%s); it is computed again", key, text_of(error))
        run.reopen()
        self._on_reopened(run)

        def lose() -> None:
            if self.dispatcher.knows(graph_id):
                self.handle(ValueLost(time.monotonic(), graph_id, key))
            else:
                run.settle(LostDataError(f"value {key} is lost, and so is how it was made"))

        self._inbox.put(lose)
        if self._ended is not None:
            run.settle(self._ended)

    def request_cancel(self, graph_id: str) -> None:
        self._inbox.put(CancelRequested(time.monotonic(), graph_id))

    def release(self, graph_id: str) -> None:
        self._inbox.put(GraphReleased(time.monotonic(), graph_id))

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
            self._announce()
            began.set_result(None)

        self._inbox.put(begin)
        return began

    def stop_recording(self) -> None:
        """Write nothing more."""
        self._recorder = None

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
        self._cancels.clear()
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
            self._abandon(self._ended or why)
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
        if self._cancels:
            until = min(until, self._cancels[0][0])
        return until - time.monotonic()

    def _take(self, item: Event | Answer | Callable[[], None]) -> None:
        """Handle one item of the inbox; never raise."""
        try:
            while self._cancels and self._cancels[0][0] <= time.monotonic():
                _, bundle_id, attempt = heapq.heappop(self._cancels)
                self._carry_out_safely(Cancel(bundle_id, attempt))
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
        if self._ended is None:
            self._ended = why

    def _abandon(self, error: BaseException) -> None:
        for run in list(self.runs.values()):
            if not run.done:
                run.settle(error)

    def _renew(self, error: BaseException, doing: str) -> None:
        """Replace a Dispatcher that raised, with all its graphs, by a new one."""
        failure = internal_error(doing, error)
        _logger.error("%s", failure, exc_info=error)
        self._abandon(failure)
        for lease_id in self.dispatcher.open_leases:
            self._on_lease(LeaseEnded(lease_id, str(failure), lost=True))
        self._take_new_dispatcher()
        if self._recorder is not None:
            self._recorder.renewed(self.dispatcher)
        for key in list(self.calls):
            self._carry_out_safely(Cancel(*key))
        self._announce()

    def _take_new_dispatcher(self) -> None:
        first_id = self.dispatcher.next_bundle_id
        self.dispatcher = self._new_dispatcher()
        self.dispatcher.next_bundle_id = first_id  # late answers must not match a new bundle

    def _decide(self, event: Event) -> list[Command]:
        recorder = self._recorder
        return (self.dispatcher if recorder is None else recorder).handle(event)

    def handle(self, event: Event) -> None:
        pending = [self.sender.restored(event) if isinstance(event, GpuLost) else event]
        if isinstance(event, NodeLost | ValueLost):
            self.lost_at = event.time
        while pending:
            try:
                commands = self._decide(pending.pop(0))
            except Exception as error:
                self._renew(error, f"{type(event).__name__} was handled")
                break
            for command in commands:
                answer = self._carry_out_safely(command)
                if answer is not None:
                    pending.append(answer)
        if isinstance(event, GraphReleased):
            self.runs.pop(event.graph_id, None)
            self.sender.forget_graph(event.graph_id)

    def _carry_out_safely(self, command: Command) -> Event | None:
        """Carry a command out; if that raises, fail its graph and return the event that says so."""
        try:
            return self._carry_out(command)
        except Exception as error:
            graph_id = self._graph_of(command)
            name, run = type(command).__name__, self.runs.get(graph_id)
            bundle = command.bundle.key if isinstance(command, Start) else ""
            with marked(None if run is None else run.ids, bundle=bundle):
                _logger.warning("%s cannot be carried out", name, exc_info=error)
            if run is None or run.done:
                return None
            run.settle(internal_error(f"{name} was carried out", error))
            return CancelRequested(time.monotonic(), graph_id)

    def _graph_of(self, command: Command) -> str:
        if isinstance(command, Cancel):
            call = self.calls.get((command.bundle_id, command.attempt))
            return "" if call is None else call.graph_id
        return getattr(command, "graph_id", "")

    def _carry_out(self, command: Command) -> Event | None:
        if isinstance(command, Start):
            return self._start(command)
        if isinstance(command, Cancel):
            self._cancel(command.bundle_id, command.attempt)
        elif isinstance(command, Release | Recompute):
            self.sender.forget([(command.graph_id, key) for key in command.keys])
            if run := self.runs.get(command.graph_id):
                run.memory.drop(time.monotonic(), command.keys)
                if isinstance(command, Recompute):
                    run.log("recompute", text=f"{len(command.keys)} lost values are computed again")
        elif isinstance(command, Split):
            if run := self.runs.get(command.graph_id):
                run.bundles_total += 1
                run.log("split", command.second.key, text="its node ran out of memory: two bundles")
        elif isinstance(command, FinishGraph):
            if run := self.runs.get(command.graph_id):
                run.log("finished")
                run.settle(None)
        elif isinstance(command, FailGraph):
            if run := self.runs.get(command.graph_id):
                at_fault = command.bundle.key if command.bundle else ""
                run.log("failed", at_fault, text=text_of(command.error))
                run.settle(command.error)
        elif isinstance(command, Quarantine):
            _logger.warning("device %s is not used: %s", command.device, command.reason)
        elif isinstance(command, LeaseGranted | LeaseEnded):
            self._on_lease(command)
        elif isinstance(command, RequestResources):
            self._on_request(command.cpus, command.gpus)
        return None

    def _start(self, command: Start) -> Event | None:
        """Send a bundle to its executor; return the event of a refusal if it cannot be sent."""
        now = time.monotonic()
        run = self.runs.get(command.graph_id)
        cause: Cause = "user"
        reason: BaseException
        try:
            call, future = self.sender.send(command, run, now, alone=not self.calls)
        except (ExecutorLostError, ray_errors.RayError) as error:
            cause, reason = "node_lost", error  # it had no part in it; the loss is told next
        except (AgenticRayError, TypeError) as error:
            reason = error
        except Exception as error:  # an error of any kind must end this graph, and no other
            reason = internal_error(f"bundle {command.bundle.key} was sent", error)
        else:
            self.calls[command.bundle_id, command.attempt] = call
            if command.attempt and run is not None:
                run.log(*retry_note(command))
            self._await(command, future)
            return None
        return BundleFailed(now, command.bundle_id, command.attempt, cause, reason, begun=False)

    def _await(self, command: Start, future: Any) -> None:
        bundle_id, attempt = command.bundle_id, command.attempt
        future.add_done_callback(lambda done: self._inbox.put(Answer(bundle_id, attempt, done)))

    def send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call through Ray and with all its inputs."""
        command = call.command
        try:
            future = self.sender.send_again(call, after_death=after_death)
        except ray_errors.RayError as error:
            now = time.monotonic()
            return BundleFailed(
                now, command.bundle_id, command.attempt, "node_lost", error, begun=after_death
            )
        self.calls[command.bundle_id, command.attempt] = call
        self._await(command, future)
        return None

    def _cancel(self, bundle_id: int, attempt: int) -> None:
        call = self.calls.get((bundle_id, attempt))
        if call is None or call.here:
            return
        if call.executor is not None:
            call.executor.cancel.remote(token_of(bundle_id, attempt))
            return
        due = call.started + _CANCEL_AFTER_SECONDS
        if due > time.monotonic():
            heapq.heappush(self._cancels, (due, bundle_id, attempt))
        else:
            ray.cancel(call.refs[0], force=True)

    def call_took(self, seconds: float) -> None:
        """Tell the cost model the seconds of a call by itself, beside the events."""
        self.dispatcher.model.observe_call(seconds)
        if self._recorder is not None:
            self._recorder.call_took(seconds)

    def executor_died(self, call: Call, reason: str) -> None:
        self._on_executor_died(call.placement.node_id, call.placement.device, call.executor, reason)
