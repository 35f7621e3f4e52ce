"""Carries out the commands of the Dispatcher: sends and cancels calls, drops values, ends runs.

Used by the loop's thread alone; ``answering`` is the way back.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray import exceptions as ray_errors

from agentic_ray.errors import AgenticRayError, ExecutorLostError
from agentic_ray.ids import marked
from agentic_ray.runtime.calls import Answer, Call, retry_note, token_of
from agentic_ray.runtime.failures import internal_error
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.sending import Sender
from agentic_ray.schedule.events import (
    BundleFailed,
    Cancel,
    CancelRequested,
    Cause,
    Command,
    Event,
    FailGraph,
    FinishGraph,
    LeaseEnded,
    LeaseGranted,
    Quarantine,
    Recompute,
    Release,
    RequestResources,
    Split,
    Start,
)
from agentic_ray.tracebacks import text_of

_logger = logging.getLogger("agentic_ray")
_CANCEL_AFTER_SECONDS = 1.0
"""A task is not cancelled sooner after it was sent. Ray may forget such a task before it has queued
it, run it all the same, and when it is done end the whole driver process ("Check failed: Tried to
complete task that was not pending")."""


class Outbox(Protocol):
    """Part of the loop that commands need."""

    sender: Sender
    calls: dict[tuple[int, int], Call]

    @property
    def runs(self) -> Mapping[str, Run]: ...

    def answered(self, answer: Answer) -> None:
        """Take in an answer; called from any thread."""


class Commands:
    """Carries commands out.

    Parameters
    ----------
    loop : Outbox
    request_resources : callable
        Called with ``(cpus, gpus)`` when waiting work could use more than there is.
    leased : callable
        Called with the grant of a lease, and with its end.
    """

    def __init__(
        self,
        loop: Outbox,
        request_resources: Callable[[int, int], None],
        leased: Callable[[LeaseGranted | LeaseEnded], None],
    ) -> None:
        self._loop = loop
        self._on_request = request_resources
        self._on_lease = leased
        self._cancels: list[tuple[float, int, int]] = []  # heap: when due, bundle, attempt

    @property
    def next_due(self) -> float | None:
        """When the next call that was put off is to be cancelled, as of ``time.monotonic``."""
        return self._cancels[0][0] if self._cancels else None

    def carry_out_due(self) -> None:
        """Cancel the calls whose cancelling was put off until now."""
        while self._cancels and self._cancels[0][0] <= time.monotonic():
            _, bundle_id, attempt = heapq.heappop(self._cancels)
            self.carry_out(Cancel(bundle_id, attempt))

    def ray_died(self) -> None:
        """Forget what was put off: its calls are gone."""
        self._cancels.clear()

    def carry_out(self, command: Command) -> Event | None:
        """Carry a command out; if that raises, fail its graph and return the event that says so."""
        try:
            return self._carried_out(command)
        except Exception as error:
            graph_id = self._graph_of(command)
            name, run = type(command).__name__, self._loop.runs.get(graph_id)
            bundle = command.bundle.key if isinstance(command, Start) else ""
            with marked(None if run is None else run.ids, bundle=bundle):
                _logger.warning("%s cannot be carried out", name, exc_info=error)
            if run is None or run.done:
                return None
            run.settle(internal_error(f"{name} was carried out", error))
            return CancelRequested(time.monotonic(), graph_id)

    def _graph_of(self, command: Command) -> str:
        if isinstance(command, Cancel):
            call = self._loop.calls.get((command.bundle_id, command.attempt))
            return "" if call is None else call.graph_id
        return getattr(command, "graph_id", "")

    def _carried_out(self, command: Command) -> Event | None:
        if isinstance(command, Start):
            return self._start(command)
        if isinstance(command, Cancel):
            self._cancel(command.bundle_id, command.attempt)
        elif isinstance(command, Release | Recompute):
            self._loop.sender.forget([(command.graph_id, key) for key in command.keys])
            if run := self._loop.runs.get(command.graph_id):
                run.memory.drop(time.monotonic(), command.keys)
                if isinstance(command, Recompute):
                    run.log("recompute", text=f"{len(command.keys)} lost values are computed again")
        elif isinstance(command, Split):
            if run := self._loop.runs.get(command.graph_id):
                run.bundles_total += 1
                run.log("split", command.second.key, text="its node ran out of memory: two bundles")
        elif isinstance(command, FinishGraph):
            if run := self._loop.runs.get(command.graph_id):
                run.log("finished")
                run.settle(None)
        elif isinstance(command, FailGraph):
            if run := self._loop.runs.get(command.graph_id):
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
        run = self._loop.runs.get(command.graph_id)
        cause: Cause = "user"
        reason: BaseException
        try:
            call, future = self._loop.sender.send(command, run, now, alone=not self._loop.calls)
        except (ExecutorLostError, ray_errors.RayError) as error:
            cause, reason = "node_lost", error  # it had no part in it; the loss is told next
        except (AgenticRayError, TypeError) as error:
            reason = error
        except Exception as error:  # an error of any kind must end this graph, and no other
            reason = internal_error(f"bundle {command.bundle.key} was sent", error)
        else:
            self._loop.calls[command.bundle_id, command.attempt] = call
            if command.attempt and run is not None:
                run.log(*retry_note(command))
            self._await(command, future)
            return None
        return BundleFailed(now, command.bundle_id, command.attempt, cause, reason, begun=False)

    def _await(self, command: Start, future: Any) -> None:
        bundle_id, attempt = command.bundle_id, command.attempt
        future.add_done_callback(lambda done: self._loop.answered(Answer(bundle_id, attempt, done)))

    def send_again(self, call: Call, *, after_death: bool) -> BundleFailed | None:
        """Send a call through Ray and with all its inputs."""
        command = call.command
        try:
            future = self._loop.sender.send_again(call, after_death=after_death)
        except ray_errors.RayError as error:
            now = time.monotonic()
            return BundleFailed(
                now, command.bundle_id, command.attempt, "node_lost", error, begun=after_death
            )
        self._loop.calls[command.bundle_id, command.attempt] = call
        self._await(command, future)
        return None

    def _cancel(self, bundle_id: int, attempt: int) -> None:
        call = self._loop.calls.get((bundle_id, attempt))
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
