"""The thin adapter between the Dispatcher and Ray: commands become calls, answers become events.

One thread owns the Dispatcher; everything else talks to it through its inbox.
"""

from __future__ import annotations

import functools
import heapq
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
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
    TaskError,
)
from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.calls import (
    Answer,
    Call,
    look_at,
    names_what_is_not_kept,
    record_in,
    retry_note,
    tells_overhead,
    token_of,
)
from agentic_ray.runtime.execute import Inline, Report
from agentic_ray.runtime.failures import (
    INPUT_LOST,
    SYSTEM,
    internal_error,
)
from agentic_ray.runtime.inquest import ask, is_short
from agentic_ray.runtime.lines import LineBrokenError
from agentic_ray.runtime.notices import Notices
from agentic_ray.runtime.payloads import Resident
from agentic_ray.runtime.run import Run, ValueGone
from agentic_ray.runtime.sending import Sender
from agentic_ray.runtime.transfers import timed
from agentic_ray.runtime.values import CodeletTable, Stored, get
from agentic_ray.runtime.verdicts import judge
from agentic_ray.runtime.watch import poison_error
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.events import (
    BundleFailed,
    BundleFinished,
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
    MemoryUse,
    NodeLost,
    Quarantine,
    Recompute,
    Release,
    RequestResources,
    Split,
    Start,
    Tick,
    ValueInfo,
    ValueLost,
)
from agentic_ray.schedule.scarcity import is_held_by_others, who_holds
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
    raised, what it remembers is in doubt: all its graphs fail, and a new one takes its place.

    Parameters
    ----------
    new_dispatcher : callable
        Makes a Dispatcher that knows of no node and no graph.
    executor : callable
        As in `Sender`.
    request_resources : callable
        Told ``(cpus, gpus)`` when waiting work could use more than there is.
    executor_died : callable
        Told ``(node_id, device, actor handle, reason)`` of an executor that is dead for
        good or has lost its device.
    reopened : callable
        Told of a finished run of which a value is made again, in the asking thread.
    announce : callable
        Has every node announced again, to a new Dispatcher.
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
    ) -> None:
        self.dispatcher = new_dispatcher()
        self._new_dispatcher = new_dispatcher
        self._on_request = request_resources
        self._on_executor_died = executor_died
        self._on_reopened = reopened
        self._announce = announce
        self._inbox: queue.SimpleQueue[Event | Answer | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self._runs: dict[str, Run] = {}
        self._calls: dict[tuple[int, int], Call] = {}
        self._sender = Sender(
            codelets, executor, self._inbox.put, lambda *key: self.dispatcher.value_info(*key)
        )
        self._cancels: list[tuple[float, int, int]] = []  # heap: when due, bundle, attempt
        self._lost_at = -math.inf
        self._notices = Notices()
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
            self._runs[run.graph_id] = run
            self._handle(event)

        if self._ended is not None:
            raise self._ended
        self._inbox.put(begin)
        if self._ended is not None:  # meanwhile, perhaps after the last look into the inbox
            run.settle(self._ended)

    def fetch(self, graph_id: str, key: str) -> Any:
        """The value of a finished graph's output; ValueGone if it must be made again."""
        if self._ended is not None:
            raise self._ended
        held = self._sender.values.get((graph_id, key))
        try:
            if held is None:
                raise ValueGone
            return held.load() if isinstance(held, Inline) else get(held)
        except (*INPUT_LOST, *SYSTEM, ValueGone, LostDataError) as error:
            self._make_again(graph_id, key, error)
            raise ValueGone from error
        except AgenticRayError:
            raise
        except Exception as error:  # Ray wraps what a value's own hooks raise, pickle does not
            raise SerializationError(f"a result cannot be unpickled here: {error}") from error

    def peek(self, graph_id: str, key: str) -> Any:
        """What is held of a finished graph's output, as it is; None if it is lost."""
        return self._sender.values.get((graph_id, key))

    def held(self, graph_id: str, key: str) -> Any:
        """The value of a finished graph's output if it is small, else `Stored`; ValueGone if it
        must be made again."""
        if self._ended is not None:
            raise self._ended
        value = self._sender.values.get((graph_id, key))
        if value is None:
            self._make_again(graph_id, key, ValueGone())
            raise ValueGone
        return value.load() if isinstance(value, Inline) else Stored(value, 0)

    def _make_again(self, graph_id: str, key: str, error: BaseException) -> None:
        run = self._runs.get(graph_id)
        if run is None:
            raise JobCancelledError(f"the values of {graph_id} were given up") from error
        _logger.warning("value %s is lost (%s); it is computed again", key, text_of(error))
        run.reopen()
        self._on_reopened(run)

        def lose() -> None:
            if self.dispatcher.knows(graph_id):
                self._handle(ValueLost(time.monotonic(), graph_id, key))
            else:
                run.settle(LostDataError(f"value {key} is lost, and so is how it was made"))

        self._inbox.put(lose)
        if self._ended is not None:
            run.settle(self._ended)

    def request_cancel(self, graph_id: str) -> None:
        self._inbox.put(CancelRequested(time.monotonic(), graph_id))

    def release(self, graph_id: str) -> None:
        self._inbox.put(GraphReleased(time.monotonic(), graph_id))

    def has_calls(self, graph_ids: Container[str]) -> bool:
        """Whether a call of one of these graphs is under way."""
        return any(call.graph_id in graph_ids for call in list(self._calls.values()))

    def close(self, why: SessionError) -> None:
        """Fail what is unfinished with ``why`` and end the thread."""
        self._end(why)
        self._sender.lines.close()
        self._inbox.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        self._abandon(why)  # should the thread be held up by Ray

    @contextmanager
    def resting(self) -> Iterator[bool]:
        """Nothing is dealt with meanwhile; False if the thread could not be stopped in time: it
        may wait for a Ray that is dead."""
        alone = self._working.acquire(timeout=_REST_SECONDS)
        try:
            yield alone
        finally:
            if alone:
                self._working.release()

    def ray_died(self, node_ids: Iterable[str], reason: str, *, alone: bool) -> None:
        """Ray and all its nodes are gone: what was there is to be done again, on the nodes that
        are announced from now on. To be called while the loop is resting."""
        self._calls.clear()
        self._cancels.clear()
        self._sender.begin_anew()
        for run in list(self._runs.values()):
            run.log("Ray died", text=reason)
        for node_id in node_ids:
            lost = NodeLost(time.monotonic(), node_id, reason)
            self._handle(lost) if alone else self._inbox.put(lost)

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
                    self._notices.tell(self.dispatcher.obstacle, list(self._runs.values()))
                if item is None:
                    break
                with self._working:
                    self._take(item)
                item = None  # it may hold the last reference to what is in Ray
        except BaseException as error:  # such as a SystemExit that a user's object raises
            why = internal_error("the session was at work", error)
            _logger.exception("the dispatch loop has ended")
        finally:
            self._end(why)
            self._abandon(self._ended or why)
            self._calls.clear()

    def _next(self, next_tick: float) -> float:
        """Seconds until something is to be done although nothing is heard."""
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
        """Deal with one thing from the inbox, whatever happens."""
        try:
            while self._cancels and self._cancels[0][0] <= time.monotonic():
                _, bundle_id, attempt = heapq.heappop(self._cancels)
                self._carry_out_safely(Cancel(bundle_id, attempt))
            if isinstance(item, Answer):
                self._answered_safely(item)
            elif not callable(item):
                self._handle(item)
        except Exception as error:  # an event is lost, so trust nothing
            self._renew(error, f"{type(item).__name__} was dealt with")
            return
        if callable(item):
            try:
                item()
            except Exception:  # what concerns the Dispatcher is dealt with before it comes here
                _logger.exception("a part of the session could not do what it had put off")

    def _end(self, why: SessionError) -> None:
        if self._ended is None:
            self._ended = why

    def _abandon(self, error: BaseException) -> None:
        for run in list(self._runs.values()):
            if not run.done:
                run.settle(error)

    def _renew(self, error: BaseException, doing: str) -> None:
        """Give up a Dispatcher that raised, with all its graphs, and go on with a new one."""
        failure = internal_error(doing, error)
        _logger.error("%s", failure, exc_info=error)
        self._abandon(failure)
        first_id = self.dispatcher.next_bundle_id
        self.dispatcher = self._new_dispatcher()
        self.dispatcher.next_bundle_id = first_id  # late answers are to fit no new bundle
        for key in list(self._calls):
            self._carry_out_safely(Cancel(*key))
        self._announce()

    def _handle(self, event: Event) -> None:
        pending = [self._sender.restored(event) if isinstance(event, GpuLost) else event]
        if isinstance(event, NodeLost | ValueLost):
            self._lost_at = event.time
        while pending:
            try:
                commands = self.dispatcher.handle(pending.pop(0))
            except Exception as error:
                self._renew(error, f"{type(event).__name__} was handled")
                break
            for command in commands:
                answer = self._carry_out_safely(command)
                if answer is not None:
                    pending.append(answer)
        if isinstance(event, GraphReleased):
            self._runs.pop(event.graph_id, None)
            self._sender.forget_graph(event.graph_id)

    def _carry_out_safely(self, command: Command) -> Event | None:
        """Carry a command out; if that raises, its graph fails, and the event says so."""
        try:
            return self._carry_out(command)
        except Exception as error:
            graph_id = self._graph_of(command)
            name, run = type(command).__name__, self._runs.get(graph_id)
            _logger.warning("%s cannot be carried out", name, exc_info=error)
            if run is None or run.done:
                return None
            run.settle(internal_error(f"{name} was carried out", error))
            return CancelRequested(time.monotonic(), graph_id)

    def _graph_of(self, command: Command) -> str:
        if isinstance(command, Cancel):
            call = self._calls.get((command.bundle_id, command.attempt))
            return "" if call is None else call.graph_id
        return getattr(command, "graph_id", "")

    def _carry_out(self, command: Command) -> Event | None:
        if isinstance(command, Start):
            return self._start(command)
        if isinstance(command, Cancel):
            self._cancel(command.bundle_id, command.attempt)
        elif isinstance(command, Release | Recompute):
            self._sender.forget([(command.graph_id, key) for key in command.keys])
            if isinstance(command, Recompute) and (run := self._runs.get(command.graph_id)):
                run.log("recompute", text=f"{len(command.keys)} lost values are computed again")
        elif isinstance(command, Split):
            if run := self._runs.get(command.graph_id):
                run.bundles_total += 1
                run.log("split", command.second.key, text="its node ran out of memory: two bundles")
        elif isinstance(command, FinishGraph):
            if run := self._runs.get(command.graph_id):
                run.log("finished")
                run.settle(None)
        elif isinstance(command, FailGraph):
            if run := self._runs.get(command.graph_id):
                at_fault = command.bundle.key if command.bundle else ""
                run.log("failed", at_fault, text=text_of(command.error))
                run.settle(command.error)
        elif isinstance(command, Quarantine):
            _logger.warning("device %s is not used: %s", command.device, command.reason)
        elif isinstance(command, RequestResources):
            self._on_request(command.cpus, command.gpus)
        return None

    def _start(self, command: Start) -> Event | None:
        """Send a bundle to its executor; the event of a refusal if it cannot be sent."""
        now = time.monotonic()
        run = self._runs.get(command.graph_id)
        cause: Cause = "user"
        reason: BaseException
        try:
            call, future = self._sender.send(command, run, now, alone=not self._calls)
        except (ExecutorLostError, ray_errors.RayError) as error:
            cause, reason = "node_lost", error  # it had no part in it; the loss is told next
        except (AgenticRayError, TypeError) as error:
            reason = error
        except Exception as error:  # of any kind: it must end this graph, and no other
            reason = internal_error(f"bundle {command.bundle.key} was sent", error)
        else:
            self._calls[command.bundle_id, command.attempt] = call
            if command.attempt and run is not None:
                run.log(*retry_note(command))
            self._await(command, future)
            return None
        return BundleFailed(now, command.bundle_id, command.attempt, cause, reason)

    def _await(self, command: Start, future: Any) -> None:
        bundle_id, attempt = command.bundle_id, command.attempt
        future.add_done_callback(lambda done: self._inbox.put(Answer(bundle_id, attempt, done)))

    def _send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call through Ray and with all its inputs."""
        command = call.command
        try:
            future = self._sender.send_again(call, after_death=after_death)
        except ray_errors.RayError as error:
            now = time.monotonic()
            return BundleFailed(now, command.bundle_id, command.attempt, "node_lost", error)
        self._calls[command.bundle_id, command.attempt] = call
        self._await(command, future)
        return None

    def _cancel(self, bundle_id: int, attempt: int) -> None:
        call = self._calls.get((bundle_id, attempt))
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

    # --- answers -----------------------------------------------------------------------

    def _answered_safely(self, answer: Answer) -> None:
        """Deal with an answer; if that raises, its graph fails."""
        call = self._calls.pop((answer.bundle_id, answer.attempt), None)
        if call is None:
            return  # of a Ray that has died
        try:
            self._answered(answer, call)
        except Exception as error:
            failure = internal_error(f"the answer of {call.bundle.key} was read", error)
            _logger.error("%s", failure, exc_info=error)
            ids = (answer.bundle_id, answer.attempt)
            self._handle(BundleFailed(time.monotonic(), *ids, "user", failure))

    def _answered(self, answer: Answer, call: Call) -> None:
        now = time.monotonic()
        error = answer.future.exception()
        if error is not None:
            broken = isinstance(error, LineBrokenError)
            if broken and not self.dispatcher.expects(answer.bundle_id, answer.attempt):
                error = ray_errors.RayActorError()  # nobody waits for it any more
            elif broken or names_what_is_not_kept(call, error):
                refused = self._send_again(call, after_death=broken)
                if refused is not None:
                    self._handle(refused)
                return
            look_at(call)
            verdict = judge(call, error, self._sender.values)
            cause, shown = verdict.cause, verdict.error
            for key in verdict.lost:
                self._handle(ValueLost(now, call.graph_id, key))
            if call.executor is not None and isinstance(shown, ray_errors.RayActorError):
                self._sender.handed.lost(call.executor)
            self._failed(answer, call, cause, shown)
            dead = cause == "crash" and isinstance(shown, ray_errors.RayActorError)
            if dead and call.placement.device != "cpu":
                self._executor_died(call, "the process of its executor died")
            elif isinstance(error, _FOR_GOOD) and cause != "input_lost":
                self._executor_died(call, "its executor died, and Ray does not start it anew")
            return
        report: Report = answer.future.result()
        if report.kept:
            self._sender.handed.keeps(call.executor, report.kept)
        if run := self._runs.get(call.graph_id):
            for kind, text in report.notes:
                run.log(kind, call.bundle.key, report.node_id, text)
            if self.dispatcher.expects(answer.bundle_id, answer.attempt):
                finished = report.error is None and report.death is None
                run.hear(call.bundle.key, report.printed, finished=finished)
        if report.device_lost is not None:
            lost = ExecutorLostError(f"{call.placement.device} is lost: {report.device_lost}")
            self._failed(answer, call, "system", lost)
            self._executor_died(call, report.device_lost)
        elif report.death is not None:
            self._failed(answer, call, "crash", poison_error(report.death))
        elif report.missing:
            for key in report.missing:
                held = self._sender.values.get((call.graph_id, key))
                if isinstance(held, Resident) and held.executor is call.executor:
                    self._handle(ValueLost(now, call.graph_id, key))
            gone = SessionError(f"{len(report.missing)} values kept on a GPU are gone")
            self._failed(answer, call, "input_lost", gone)
        elif report.cancelled:
            self._failed(answer, call, "system", TaskError("cancelled"))
        elif report.error is not None:
            cause = "memory" if report.out_of_memory and call.placement.device != "cpu" else "user"
            self._failed(answer, call, cause, report.error.rebuild())
        else:
            self._finished(answer, call, report, now)

    def _finished(self, answer: Answer, call: Call, report: Report, now: float) -> None:
        infos: list[ValueInfo] = []
        wanted = self.dispatcher.expects(answer.bundle_id, answer.attempt)
        for output, ref in zip(report.outputs, call.refs[1:], strict=True):
            node_id = report.node_id if output.inline is None else None
            device = call.placement.device if output.on_device else None
            held = ref if output.inline is None else output.inline
            if device is not None:
                held = Resident(report.node_id, device, call.executor)
            if wanted:
                self._sender.values[call.graph_id, output.key] = held
            elif call.executor is not None and device is not None:
                call.executor.drop.remote(((call.graph_id, output.key),))
            infos.append(ValueInfo(output.key, output.size_bytes, node_id, device))
        if call.payload is not None:
            self._sender.lines.learn(call.payload, report)
        model = self.dispatcher.model
        overhead = model.call_overhead_seconds
        if call.alone and not self._calls and tells_overhead(call, report):
            model.observe_call(now - call.started - report.seconds - report.waited_seconds)
        # while values are made again, Ray's own way too, a call waits for that
        quiet = call.started > self._lost_at + _SETTLING_SECONDS
        run = self._runs.get(call.graph_id)
        if wanted and run is not None:
            record_in(run, call, report, now)
        self._handle(
            BundleFinished(
                now,
                answer.bundle_id,
                answer.attempt,
                report.seconds,
                () if call.here else report.task_seconds,  # that device did not do it
                tuple(infos),
                timed(call.moved, report, now - call.started, overhead) if quiet else (),
            )
        )

    def _failed(self, answer: Answer, call: Call, cause: Cause, error: BaseException) -> None:
        """Report a failure; where memory may have been short, with who held it."""
        node_id = call.placement.node_id
        short = cause == "crash" and is_short(self.dispatcher.view.state, node_id)
        if (cause == "pressure" or short) and not call.here:
            here = node_id == self._sender.node_of_caller()
            report = functools.partial(self._report_failure, answer, call, cause, error)
            try:
                executor = self._sender.executor(node_id, "cpu")
                later = self._inbox.put
                ask(executor, error, here=here, told=lambda use: later(lambda: report(use)))
            except (ExecutorLostError, ray_errors.RayError):
                report(None)
            return
        self._report_failure(answer, call, cause, error, None)

    def _report_failure(
        self,
        answer: Answer,
        call: Call,
        cause: Cause,
        error: BaseException,
        use: MemoryUse | None,
    ) -> None:
        run = self._runs.get(call.graph_id)
        if run is not None and self.dispatcher.expects(answer.bundle_id, answer.attempt):
            key, node_id = call.bundle.key, call.placement.node_id
            run.log(f"failed: {cause}", key, node_id, text_of(error))
            if use is not None and is_held_by_others(use):
                run.log("waits for memory", key, node_id, who_holds(use))
            if cause != "user" or isinstance(error, call.bundle.retry_on):
                run.failed_bundles.add(key)
        ids = (answer.bundle_id, answer.attempt)
        self._handle(BundleFailed(time.monotonic(), *ids, cause, error, use))

    def _executor_died(self, call: Call, reason: str) -> None:
        self._on_executor_died(call.placement.node_id, call.placement.device, call.executor, reason)
