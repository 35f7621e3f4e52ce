"""Turns answers about bundles, reports or reasons why there is none, into events.

Used by the loop's thread alone.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol, assert_never

from ray import exceptions as ray_errors

from agentic_ray.errors import (
    ExecutorLostError,
    OutOfDeviceMemoryError,
    SessionError,
    TaskError,
)
from agentic_ray.ids import marked
from agentic_ray.runtime.calls import (
    Answer,
    Call,
    look_at,
    names_what_is_not_kept,
    record_in,
    tells_overhead,
)
from agentic_ray.runtime.failures import internal_error
from agentic_ray.runtime.inquest import ask, is_short
from agentic_ray.runtime.lines import LineBrokenError
from agentic_ray.runtime.outcomes import (
    Cancelled,
    CardFull,
    DeviceLost,
    Died,
    Failed,
    Finished,
    InputsMissing,
    OutOfDeviceMemory,
    Report,
)
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.sending import Sender
from agentic_ray.runtime.transfers import timed
from agentic_ray.runtime.value_store import Resident
from agentic_ray.runtime.verdicts import judge
from agentic_ray.runtime.watch import poison_error
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.events import (
    BundleFailed,
    BundleFinished,
    Cause,
    Event,
    MemoryUse,
    ValueInfo,
    ValueLost,
)
from agentic_ray.schedule.scarcity import is_held_by_others, who_holds
from agentic_ray.tracebacks import text_of

_logger = logging.getLogger("agentic_ray")
_FOR_GOOD = (ray_errors.ActorDiedError, ray_errors.ActorUnschedulableError)
_SETTLING_SECONDS = 10.0


class Dealings(Protocol):
    """Part of the loop that answers need."""

    dispatcher: Dispatcher
    sender: Sender
    calls: dict[tuple[int, int], Call]
    lost_at: float

    @property
    def runs(self) -> Mapping[str, Run]: ...

    def handle(self, event: Event) -> None:
        """Have the Dispatcher handle an event, and carry out its commands."""

    def later(self, work: Callable[[], None]) -> None:
        """Call ``work`` in the loop's thread, after everything it was told before."""

    def send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call through Ray and with all its inputs."""

    def call_took(self, seconds: float) -> None:
        """Tell the cost model the seconds of a call by itself."""

    def executor_died(self, call: Call, reason: str) -> None:
        """Take in that the executor of a call is dead for good, or has lost its device."""


class Answering:
    """Handler of the answers of calls."""

    def __init__(self, dealings: Dealings) -> None:
        self._deal = dealings

    def take(self, answer: Answer) -> None:
        """Handle an answer; if that raises, its graph fails."""
        call = self._deal.calls.pop((answer.bundle_id, answer.attempt), None)
        if call is None:
            return  # of a Ray that has died
        try:
            self._answered(answer, call)
        except Exception as error:
            failure = internal_error(f"the answer of {call.bundle.key} was read", error)
            run = self._deal.runs.get(call.graph_id)
            with marked(None if run is None else run.ids, bundle=call.bundle.key):
                _logger.error("%s", failure, exc_info=error)
            ids = (answer.bundle_id, answer.attempt)
            self._deal.handle(BundleFailed(time.monotonic(), *ids, "user", failure))

    def _answered(self, answer: Answer, call: Call) -> None:
        now = time.monotonic()
        error = answer.future.exception()
        if error is not None:
            broken = isinstance(error, LineBrokenError)
            awaited = self._deal.dispatcher.expects(answer.bundle_id, answer.attempt)
            if broken and (call.bundle.has_effects or not awaited):
                error = ray_errors.RayActorError()  # it must not run a second time
            elif broken or names_what_is_not_kept(call, error):
                refused = self._deal.send_again(call, after_death=broken)
                if refused is not None:
                    self._deal.handle(refused)
                return
            look_at(call)
            verdict = judge(call, error, self._deal.sender.values)
            cause, shown = verdict.cause, verdict.error
            for key in verdict.lost:
                self._deal.handle(ValueLost(now, call.graph_id, key))
            if call.executor is not None and isinstance(shown, ray_errors.RayActorError):
                self._deal.sender.handed.lost(call.executor)
            self._failed(answer, call, cause, shown)
            dead = cause == "crash" and isinstance(shown, ray_errors.RayActorError)
            if dead and call.placement.device != "cpu":
                self._deal.executor_died(call, "the process of its executor died")
            elif isinstance(error, _FOR_GOOD) and cause != "input_lost":
                self._deal.executor_died(call, "its executor died, and Ray does not start it anew")
            return
        report: Report = answer.future.result()
        if report.kept:
            self._deal.sender.handed.keeps(call.executor, report.kept)
        if run := self._deal.runs.get(call.graph_id):
            for kind, text in report.notes:
                run.log(kind, call.bundle.key, report.node_id, text)
            if self._deal.dispatcher.expects(answer.bundle_id, answer.attempt):
                finished = isinstance(report.outcome, Finished)
                run.hear(call.bundle.key, report.printed, report.node_id, finished=finished)
        match report.outcome:
            case Finished():
                self._finished(answer, call, report, now)
            case Failed(packed):
                self._failed(answer, call, "user", packed.rebuild(), report.device_peaks)
            case OutOfDeviceMemory(packed):
                self._failed(answer, call, "memory", packed.rebuild(), report.device_peaks)
            case CardFull(holders):
                self._failed(answer, call, "card_full", OutOfDeviceMemoryError(holders))
            case DeviceLost(why):
                lost = ExecutorLostError(f"{call.placement.device} is lost: {why}")
                self._failed(answer, call, "system", lost)
                self._deal.executor_died(call, why)
            case InputsMissing(keys):
                self._lose_missing(call, keys, now)
                gone = SessionError(f"{len(keys)} values kept on a GPU are gone")
                self._failed(answer, call, "input_lost", gone)
            case Cancelled():
                self._failed(answer, call, "system", TaskError("cancelled"))
            case Died() as death:
                self._failed(answer, call, "crash", poison_error(death))
            case other:
                assert_never(other)

    def _lose_missing(self, call: Call, keys: tuple[str, ...], now: float) -> None:
        """Give up values that are thought to be on the GPU of a call's executor, and are not."""
        for key in keys:
            held = self._deal.sender.values.get((call.graph_id, key))
            if isinstance(held, Resident) and held.executor is call.executor:
                self._deal.handle(ValueLost(now, call.graph_id, key))

    def _finished(self, answer: Answer, call: Call, report: Report, now: float) -> None:
        infos: list[ValueInfo] = []
        wanted = self._deal.dispatcher.expects(answer.bundle_id, answer.attempt)
        for output, ref in zip(report.outputs, call.refs[1:], strict=True):
            node_id = report.node_id if output.inline is None else None
            device = call.placement.device if output.on_device else None
            held = ref if output.inline is None else output.inline
            if device is not None:
                held = Resident(report.node_id, device, call.executor)
            if wanted:
                self._deal.sender.values.keep((call.graph_id, output.key), held, output.size_bytes)
            elif call.executor is not None and device is not None:
                call.executor.drop.remote(((call.graph_id, output.key),))
            infos.append(ValueInfo(output.key, output.size_bytes, node_id, device))
        if call.payload is not None:
            self._deal.sender.lines.learn(call.payload, report)
        model = self._deal.dispatcher.model
        overhead = model.call_overhead_seconds
        if call.alone and not self._deal.calls and tells_overhead(call, report):
            seconds = now - call.started - report.seconds - report.waited_seconds
            self._deal.call_took(seconds)
        # While values are made again, by Ray itself too, a call waits for them.
        quiet = call.started > self._deal.lost_at + _SETTLING_SECONDS
        run = self._deal.runs.get(call.graph_id)
        if wanted and run is not None:
            record_in(run, call, report, now)
            for info in infos:
                if info.node_id is not None:
                    run.memory.keep(now, info.key, info.size_bytes)
        self._deal.handle(
            BundleFinished(
                now,
                answer.bundle_id,
                answer.attempt,
                report.seconds,
                () if call.here else report.task_seconds,  # no executor's device computed it
                tuple(infos),
                timed(call.moved, report, now - call.started, overhead) if quiet else (),
                report.device_peaks,
            )
        )

    def _failed(
        self,
        answer: Answer,
        call: Call,
        cause: Cause,
        error: BaseException,
        peaks: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """Report a failure; if memory may have been short, also who held it."""
        node_id = call.placement.node_id
        short = cause == "crash" and is_short(self._deal.dispatcher.view.state, node_id)
        if (cause == "pressure" or short) and not call.here:
            here = node_id == self._deal.sender.node_of_caller()
            report = functools.partial(self._report_failure, answer, call, cause, error)
            try:
                executor = self._deal.sender.executor(node_id, "cpu")
                later = self._deal.later
                ask(executor, error, here=here, told=lambda use: later(lambda: report(use)))
            except (ExecutorLostError, ray_errors.RayError):
                report(None)
            return
        self._report_failure(answer, call, cause, error, None, peaks)

    def _report_failure(
        self,
        answer: Answer,
        call: Call,
        cause: Cause,
        error: BaseException,
        use: MemoryUse | None,
        peaks: tuple[tuple[int, int], ...] = (),
    ) -> None:
        run = self._deal.runs.get(call.graph_id)
        if run is not None and self._deal.dispatcher.expects(answer.bundle_id, answer.attempt):
            key, node_id = call.bundle.key, call.placement.node_id
            run.log(f"failed: {cause}", key, node_id, text_of(error))
            if use is not None and is_held_by_others(use):
                run.log("waits for memory", key, node_id, who_holds(use))
            if cause != "user" or isinstance(error, call.bundle.retry_on):
                run.failed_bundles.add(key)
        ids = (answer.bundle_id, answer.attempt)
        self._deal.handle(
            BundleFailed(time.monotonic(), *ids, cause, error, use, device_peaks=peaks)
        )
