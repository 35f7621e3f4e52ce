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
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import exceptions as ray_errors

from agentic_ray.errors import (
    AgenticRayError,
    ExecutorLostError,
    JobCancelledError,
    SerializationError,
    SessionError,
    TaskError,
)
from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.calls import (
    Call,
    names_what_is_not_kept,
    send_by_ray,
    stored_keys,
    tells_overhead,
    token_of,
)
from agentic_ray.runtime.execute import Inline, Report
from agentic_ray.runtime.failures import (
    INPUT_LOST,
    SYSTEM,
    cause_of,
    is_of_an_input,
)
from agentic_ray.runtime.handed import Handed
from agentic_ray.runtime.here import fits_here, run_now
from agentic_ray.runtime.lines import LineBrokenError, Lines
from agentic_ray.runtime.payloads import Resident, make_payload
from agentic_ray.runtime.run import Run, ValueGone
from agentic_ray.runtime.transfers import Copies, timed
from agentic_ray.runtime.values import CodeletTable, Stored
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
from agentic_ray.schedule.metrics import CALLER, PlacementRecord
from agentic_ray.tracebacks import text_of

_logger = logging.getLogger("agentic_ray")
_TICK_SECONDS = 1.0
_CANCEL_AFTER_SECONDS = 1.0
"""A task is not cancelled sooner after it was sent. Ray may forget such a task before it has queued
it, run it all the same, and when it is done end the whole driver process ("Check failed: Tried to
complete task that was not pending")."""
_FOR_GOOD = (ray_errors.ActorDiedError, ray_errors.ActorUnschedulableError)
_HERE = "quicker than a call: done in the master's process"
_WATCHED = {"own": "", "watched": ", watched"}
_SETTLING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Answer:
    bundle_id: int
    attempt: int
    future: Any


class Loop:
    """Owns the Dispatcher, the runs and the values between bundles.

    Parameters
    ----------
    dispatcher : Dispatcher
    executor : callable
        ``(node_id, device) -> actor handle`` of the executor there.
    request_resources : callable
        Told ``(cpus, gpus)`` when waiting work could use more than there is.
    executor_died : callable
        Told ``(node_id, device, actor handle, reason)`` of an executor that is dead for
        good or has lost its device.
    reopened : callable
        Told of a finished run of which a value is made again, in the thread that asks for it.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        codelets: CodeletTable,
        executor: Callable[[str, str], Any],
        request_resources: Callable[[int, int], None],
        executor_died: Callable[[str, str, Any, str], None],
        reopened: Callable[[Run], None],
    ) -> None:
        self.dispatcher = dispatcher
        self._codelets = codelets
        self._executor = executor
        self._on_request = request_resources
        self._on_executor_died = executor_died
        self._on_reopened = reopened
        self._inbox: queue.SimpleQueue[Event | _Answer | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self._runs: dict[str, Run] = {}
        self._values: dict[tuple[str, str], Inline | Any] = {}
        self._calls: dict[tuple[int, int], Call] = {}
        self._copies = Copies()
        self._handed = Handed(self._inbox.put)
        self._lines = Lines(self._inbox.put)
        self._cancels: list[tuple[float, int, int]] = []  # heap: when due, bundle, attempt
        self._lost_at = -math.inf
        self._closed = False
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

        if self._closed:
            raise SessionError("the session is shut down")
        self._inbox.put(begin)

    def fetch(self, graph_id: str, key: str) -> Any:
        """The value of a finished graph's output; ValueGone if it must be made again."""
        held = self._values.get((graph_id, key))
        try:
            if held is None:
                raise ValueGone
            return held.load() if isinstance(held, Inline) else ray.get(held)
        except (*INPUT_LOST, *SYSTEM, ValueGone) as error:
            run = self._runs.get(graph_id)
            if run is None:
                raise JobCancelledError(f"the values of {graph_id} were given up") from error
            _logger.warning("value %s is lost (%s); it is computed again", key, error)
            run.reopen()
            self._on_reopened(run)
            self._inbox.put(ValueLost(time.monotonic(), graph_id, key))
            raise ValueGone from error
        except Exception as error:  # Ray wraps what a value's own hooks raise, pickle does not
            raise SerializationError(f"a result cannot be unpickled here: {error}") from error

    def held(self, graph_id: str, key: str) -> Any:
        """The value of a finished graph's output if it is small, else `Stored`."""
        value = self._values[graph_id, key]
        return value.load() if isinstance(value, Inline) else Stored(value, 0)

    def request_cancel(self, graph_id: str) -> None:
        self._inbox.put(CancelRequested(time.monotonic(), graph_id))

    def release(self, graph_id: str) -> None:
        self._inbox.put(GraphReleased(time.monotonic(), graph_id))

    def has_calls(self, graph_ids: Container[str]) -> bool:
        """Whether a call of one of these graphs is under way."""
        return any(call.graph_id in graph_ids for call in list(self._calls.values()))

    def close(self) -> None:
        """Fail what is unfinished and end the thread."""
        self._closed = True
        self._lines.close()
        self._inbox.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    # --- the loop's own thread ---------------------------------------------------------

    def _main(self) -> None:
        next_tick = time.monotonic() + _TICK_SECONDS
        while True:
            now = time.monotonic()
            wakeup = self.dispatcher.next_wakeup_seconds
            until = next_tick if wakeup is None else min(next_tick, wakeup)
            if self._cancels:
                until = min(until, self._cancels[0][0])
            try:
                item = self._inbox.get(timeout=max(0.0, until - now))
            except queue.Empty:
                next_tick = time.monotonic() + _TICK_SECONDS
                item = Tick(time.monotonic())
            if item is None:
                break
            try:
                while self._cancels and self._cancels[0][0] <= time.monotonic():
                    _, bundle_id, attempt = heapq.heappop(self._cancels)
                    self._cancel(bundle_id, attempt)
                if isinstance(item, _Answer):
                    self._answered(item)
                elif callable(item):
                    item()
                else:
                    self._handle(item)
            except Exception as error:
                # A bug here must not hang every caller for ever: fail what is under way.
                _logger.exception("internal error in the dispatch loop")
                self._abandon(SessionError(f"internal error in the dispatch loop: {error!r}"))
        self._abandon(SessionError("the session was shut down"))

    def _abandon(self, error: BaseException) -> None:
        for run in self._runs.values():
            if not run.done:
                run.settle(error)

    def _handle(self, event: Event) -> None:
        pending = [self._restored(event) if isinstance(event, GpuLost) else event]
        if isinstance(event, NodeLost | ValueLost):
            self._lost_at = event.time
        while pending:
            for command in self.dispatcher.handle(pending.pop(0)):
                refused = self._carry_out(command)
                if refused is not None:
                    pending.append(refused)
        if isinstance(event, GraphReleased):
            self._runs.pop(event.graph_id, None)
            self._forget([key for key in self._values if key[0] == event.graph_id])

    def _carry_out(self, command: Command) -> Event | None:
        if isinstance(command, Start):
            return self._start(command)
        if isinstance(command, Cancel):
            self._cancel(command.bundle_id, command.attempt)
        elif isinstance(command, Release | Recompute):
            self._forget([(command.graph_id, key) for key in command.keys])
            if isinstance(command, Recompute) and (run := self._runs.get(command.graph_id)):
                run.log("recompute", text=f"{len(command.keys)} lost values are computed again")
        elif isinstance(command, Split):
            if run := self._runs.get(command.graph_id):
                run.bundles_total += 1
                run.log("split", command.second.key, "", "its node ran out of memory: two bundles")
        elif isinstance(command, FinishGraph):
            if run := self._runs.get(command.graph_id):
                run.log("finished")
                run.settle(None)
        elif isinstance(command, FailGraph):
            if run := self._runs.get(command.graph_id):
                run.log(
                    "failed",
                    command.bundle.key if command.bundle else "",
                    "",
                    text_of(command.error),
                )
                run.settle(command.error)
        elif isinstance(command, Quarantine):
            _logger.warning("device %s is not used: %s", command.device, command.reason)
        elif isinstance(command, RequestResources):
            self._on_request(command.cpus, command.gpus)
        return None

    def _forget(self, keys: Sequence[tuple[str, str]]) -> None:
        """Drop values; executors of GPUs are told which they need not keep."""
        kept: dict[Any, list[tuple[str, str]]] = {}
        for key in keys:
            value = self._values.pop(key, None)
            self._copies.forget(key)
            if isinstance(value, Resident):
                kept.setdefault(value.executor, []).append(key)
        for executor, there in kept.items():
            executor.drop.remote(tuple(there))

    def _restored(self, event: GpuLost) -> GpuLost:
        """Use the copies that were made of values on a lost GPU, and tell which these are."""
        copied: set[tuple[str, str]] = set()
        for key, value in self._values.items():
            if not isinstance(value, Resident) or value.device != event.device:
                continue
            if value.copy() == "there":
                self._values[key] = value.ref
                copied.add(key)
        return replace(event, copied=frozenset(copied))

    def _start(self, command: Start) -> Event | None:
        """Send a bundle to its executor; the event of a refusal if it cannot be sent."""
        now = time.monotonic()
        run = self._runs.get(command.graph_id)
        try:
            call, future = self._sent(command, run, now)
        except SessionError as error:  # its device went away; the Dispatcher hears of that next
            return BundleFailed(now, command.bundle_id, command.attempt, "system", error)
        except (AgenticRayError, TypeError) as error:
            return BundleFailed(now, command.bundle_id, command.attempt, "user", error)
        except ray_errors.RayError as error:
            return BundleFailed(now, command.bundle_id, command.attempt, "system", error)
        bundle, placement = command.bundle, command.placement
        if call.executor is not None and placement.device == "cpu":
            keys = stored_keys(command, call.inputs)
            infos = ((key, self.dispatcher.value_info(*key)) for key in keys)
            call.moved = self._copies.send(
                placement.node_id, [(key, info) for key, info in infos if info is not None]
            )
        call.alone = not (self._calls or call.inputs)
        self._calls[command.bundle_id, command.attempt] = call
        if command.attempt and run is not None:
            kind, text = "retry", f"attempt {command.attempt + 1}"
            if command.copy:
                kind, text = "second copy", placement.reason
            elif command.process != "shared" and not bundle.opaque:
                text += f", in a process of its own{_WATCHED[command.process]}"
            elif command.process == "watched":
                text += _WATCHED["watched"]
            run.log(kind, bundle.key, placement.node_id, text)
        self._await(command, future)
        return None

    def _sent(self, command: Start, run: Run | None, now: float) -> tuple[Call, Any]:
        """Send a bundle on the shortest way there is; the call, and the future of its report."""
        bundle, placement, graph_id = command.bundle, command.placement, command.graph_id
        executor = None
        if command.process == "shared":
            executor = self._executor(placement.node_id, placement.device)
            given = {key: self._values[graph_id, key] for key in bundle.inputs}
            if fits_here(bundle, placement, given.values()):
                future, refs = run_now(bundle, given, self._own_node)
                reason = f"{placement.reason}; {_HERE}"
                placement = placement._replace(node_id=CALLER, reason=reason)
                return Call(command, None, placement, refs, {}, now, None), future
        wanted = frozenset(bundle.outputs if run is None else run.outputs)
        payload, inputs, own = make_payload(command, executor, self._values, self._codelets, wanted)
        if executor is not None and placement.device == "cpu":
            payload = self._handed.arranged(payload, bundle, executor, own)
            token = token_of(command.bundle_id, command.attempt)
            lined = self._lines.send(executor, token, payload, bundle)
            if lined is not None:
                future, refs = lined
                call = Call(command, payload, placement, refs, inputs, now, executor, on_line=True)
                return call, future
        refs = send_by_ray(command, executor, payload, inputs)
        return Call(command, payload, placement, refs, inputs, now, executor), refs[0].future()

    @functools.cached_property
    def _own_node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def _await(self, command: Start, future: Any) -> None:
        bundle_id, attempt = command.bundle_id, command.attempt
        future.add_done_callback(lambda done: self._inbox.put(_Answer(bundle_id, attempt, done)))

    def _send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call with all its inputs and through Ray: its executor does not keep what it
        named, or has died with it on the line."""
        self._handed.lost(call.executor)
        command = call.command
        _look_at(call)
        assert call.payload is not None
        whole = replace(call.payload, held=())
        try:
            refs = send_by_ray(command, call.executor, whole, call.inputs)
        except ray_errors.RayError as error:
            now = time.monotonic()
            return BundleFailed(now, command.bundle_id, command.attempt, "system", error)
        call.refs, call.payload, call.on_line, call.resent = refs, whole, False, after_death
        self._calls[command.bundle_id, command.attempt] = call
        self._await(command, refs[0].future())
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

    def _answered(self, answer: _Answer) -> None:
        call = self._calls.pop((answer.bundle_id, answer.attempt))
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
            _look_at(call)
            cause, shown = self._classify(call, error)
            if call.executor is not None and isinstance(shown, ray_errors.RayActorError):
                self._handed.lost(call.executor)
            self._failed(answer, call, cause, shown, now)
            dead = cause == "crash" and isinstance(shown, ray_errors.RayActorError)
            if dead and call.placement.device != "cpu":
                self._executor_died(call, "the process of its executor died")
            elif isinstance(error, _FOR_GOOD) and cause != "input_lost":
                self._executor_died(call, "its executor died, and Ray does not start it anew")
            return
        report: Report = answer.future.result()
        if report.kept:
            self._handed.keeps(call.executor, report.kept)
        run = self._runs.get(call.graph_id)
        if run is not None:
            for kind, text in report.notes:
                run.log(kind, call.bundle.key, report.node_id, text)
            if self.dispatcher.expects(answer.bundle_id, answer.attempt):
                finished = report.error is None and report.death is None
                run.hear(call.bundle.key, report.printed, finished=finished)
        if report.device_lost is not None:
            lost = ExecutorLostError(f"{call.placement.device} is lost: {report.device_lost}")
            self._failed(answer, call, "system", lost, now)
            self._executor_died(call, report.device_lost)
        elif report.death is not None:
            self._failed(answer, call, "crash", poison_error(report.death), now)
        elif report.missing:
            for key in report.missing:
                held = self._values.get((call.graph_id, key))
                if isinstance(held, Resident) and held.executor is call.executor:
                    self._handle(ValueLost(now, call.graph_id, key))
            gone = SessionError(f"{len(report.missing)} values kept on a GPU are gone")
            self._failed(answer, call, "input_lost", gone, now)
        elif report.cancelled:
            self._failed(answer, call, "system", TaskError("cancelled"), now)
        elif report.error is not None:
            cause = "memory" if report.out_of_memory and call.placement.device != "cpu" else "user"
            self._failed(answer, call, cause, report.error.rebuild(), now)
        else:
            self._finished(answer, call, report, now)

    def _finished(self, answer: _Answer, call: Call, report: Report, now: float) -> None:
        infos: list[ValueInfo] = []
        wanted = self.dispatcher.expects(answer.bundle_id, answer.attempt)
        for output, ref in zip(report.outputs, call.refs[1:], strict=True):
            node_id = report.node_id if output.inline is None else None
            device = call.placement.device if output.on_device else None
            held = ref if output.inline is None else output.inline
            if device is not None:
                held = Resident(report.node_id, device, call.executor)
            if wanted:
                self._values[call.graph_id, output.key] = held
            elif call.executor is not None and device is not None:
                call.executor.drop.remote(((call.graph_id, output.key),))
            infos.append(ValueInfo(output.key, output.size_bytes, node_id, device))
        if call.payload is not None:
            self._lines.learn(call.payload, report)
        model = self.dispatcher.model
        overhead = model.call_overhead_seconds
        if call.alone and not self._calls and tells_overhead(call, report):
            model.observe_call(now - call.started - report.seconds - report.waited_seconds)
        # while values are made again, Ray's own way too, a call waits for that
        quiet = call.started > self._lost_at + _SETTLING_SECONDS
        run = self._runs.get(call.graph_id)
        if wanted and run is not None:
            self._record(run, call, report, now)
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

    def _record(self, run: Run, call: Call, report: Report, now: float) -> None:
        key = call.bundle.key
        if report.ray_attempt or call.resent:
            run.failed_bundles.add(key)
            run.log("recovered", key, report.node_id, "Ray ran it again after its process died")
        retried = key in run.failed_bundles
        if retried:
            run.recovered_bundles.add(key)
        reason = call.placement.reason
        node_id = CALLER if call.here else report.node_id
        if node_id != call.placement.node_id:
            reason += "; Ray moved it here after its node was lost"
        run.record(
            PlacementRecord(
                key,
                node_id,
                call.placement.device,
                call.placement.predicted_seconds,
                report.seconds,
                reason,
                call.started,
                now,
                call.bundle.items,
                len(call.bundle.tasks),
                retried,
            )
        )

    def _failed(
        self, answer: _Answer, call: Call, cause: Cause, error: BaseException, now: float
    ) -> None:
        run = self._runs.get(call.graph_id)
        if run is not None and self.dispatcher.expects(answer.bundle_id, answer.attempt):
            run.log(f"failed: {cause}", call.bundle.key, call.placement.node_id, text_of(error))
            if cause != "user" or isinstance(error, call.bundle.retry_on):
                run.failed_bundles.add(call.bundle.key)
        self._handle(BundleFailed(now, answer.bundle_id, answer.attempt, cause, error))

    def _executor_died(self, call: Call, reason: str) -> None:
        self._on_executor_died(call.placement.node_id, call.placement.device, call.executor, reason)

    def _classify(self, call: Call, error: BaseException) -> tuple[Cause, BaseException]:
        """What a failed Ray call means; lost inputs are reported as such first."""
        reason = error
        if isinstance(error, ray_errors.RayTaskError) and isinstance(error.cause, Exception):
            reason = error.cause
        held = {key: self._values.get((call.graph_id, key)) for key in call.inputs}
        kept = {key: value for key, value in held.items() if isinstance(value, Resident)}
        gone = [key for key, value in kept.items() if value.copy() == "broken"]
        if gone:
            for key in gone:
                self._handle(ValueLost(time.monotonic(), call.graph_id, key))
            return "input_lost", reason
        if is_of_an_input(error):
            lost_hex = getattr(reason, "object_ref_hex", None)
            large = {key: ref for key, ref in call.inputs.items() if not key.startswith("@")}
            lost = [key for key, ref in large.items() if ref.hex() == lost_hex] or list(large)
            if not lost:
                return "user", SessionError(f"an object given as input is lost: {reason}")
            for key in lost:
                if key in kept:
                    kept[key].copied = kept[key].ref = None  # another copy can be made
                # (it may have been computed anew since this call was sent)
                if self._values.get((call.graph_id, key)) is large[key]:
                    self._handle(ValueLost(time.monotonic(), call.graph_id, key))
            return "input_lost", reason
        cause = cause_of(reason)
        if cause is not None:
            return cause, reason
        return "user", TaskError(f"{type(reason).__name__}: {reason}")


def _look_at(call: Call) -> None:
    """Look at the errors that stand for the values of a failed call: Ray prints others."""
    for ref in call.refs if not (call.on_line or call.here) else ():
        try:
            ray.get(ref, timeout=0)
        except ray_errors.RayError:
            continue
