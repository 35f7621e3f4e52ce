"""A bundle under way: how it is sent through Ray, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.executors import process_lane, watched_lane
from agentic_ray.runtime.failures import NotKeptError
from agentic_ray.runtime.outcomes import Report
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.transfers import Moved
from agentic_ray.schedule.events import Start
from agentic_ray.schedule.metrics import CALLER, PlacementRecord
from agentic_ray.schedule.placement import Placement


@dataclass(slots=True)
class Call:
    """A bundle under way.

    ``refs`` are the ObjectRefs of its report and of its values. Without ``payload`` this process
    does the bundle; without ``executor`` this process or one of its own does. ``resent`` says that
    the executor to which it was sent first has died. ``moved_bytes`` are those of its inputs that
    are on other nodes, ``moved`` the move of them if it can be timed.
    """

    command: Start
    payload: Payload | None
    placement: Placement
    refs: Sequence[Any]
    inputs: dict[str, Any]
    started: float
    executor: Any | None
    on_line: bool = False
    alone: bool = False
    resent: bool = False
    moved: Moved | None = None
    moved_bytes: int = 0

    @property
    def graph_id(self) -> str:
        return self.command.graph_id

    @property
    def bundle(self) -> Bundle:
        return self.command.bundle

    @property
    def here(self) -> bool:
        return self.payload is None

    def placement_record(self, report: Report, now: float, *, retried: bool) -> PlacementRecord:
        """Record where it ran and why, as its report says."""
        placement, bundle = self.placement, self.bundle
        reason = placement.reason
        node_id = CALLER if self.here else report.node_id
        if node_id != placement.node_id:
            reason += "; Ray moved it here after its node was lost"
        return PlacementRecord(
            bundle.key,
            node_id,
            placement.device,
            placement.predicted_seconds,
            report.seconds,
            reason,
            self.started,
            now,
            bundle.items,
            len(bundle.tasks),
            retried,
            sum(output.size_bytes for output in report.outputs),
            self.moved_bytes,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to an attempt: the future holds its report, or why there is none."""

    bundle_id: int
    attempt: int
    future: Any


def token_of(bundle_id: int, attempt: int) -> str:
    """Return the name of a call that executors know."""
    return f"{bundle_id}.{attempt}"


def send_by_ray(
    command: Start,
    executor: Any | None,
    payload: Payload,
    inputs: Mapping[str, Any],
) -> list[Any]:
    """Send a bundle; return the ObjectRefs of its report and of its values."""
    returns = 1 + len(command.bundle.outputs)
    if executor is None:
        lane = watched_lane if command.process == "watched" else process_lane
        resources = command.bundle.resources
        refs = lane.options(
            num_returns=returns,
            resources=dict(resources.custom),
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                command.placement.node_id,
                soft=not resources.where,  # else on a node that has what it asks for, or not at all
            ),
        ).remote(payload, *inputs.values())
    else:
        token = token_of(command.bundle_id, command.attempt)
        run = executor.run.options(num_returns=returns)
        if command.bundle.has_effects:
            run = executor.run.options(num_returns=returns, max_task_retries=0)
        held = frozenset(payload.held)
        handed = [ref for name, ref in inputs.items() if name not in held]
        refs = run.remote(token, payload, *handed)
    return [refs] if returns == 1 else refs


def retry_note(command: Start) -> tuple[str, str, str, str]:
    """Describe an attempt that is not the first, for a run's events."""
    bundle, placement = command.bundle, command.placement
    kind, text = "retry", f"attempt {command.attempt + 1}"
    watched = ", watched" if command.process == "watched" else ""
    if command.copy:
        kind, text = "second copy", placement.reason
    elif command.process not in ("shared", "function") and not bundle.opaque:
        text += f", in a process of its own{watched}"
    else:
        text += watched
    return kind, bundle.key, placement.node_id, text


def record_in(run: Run, call: Call, report: Report, now: float) -> None:
    """Record in a run that one of its bundles has ended well."""
    key = call.bundle.key
    if report.ray_attempt or call.resent:
        run.failed_bundles.add(key)
        run.log("recovered", key, report.node_id, "Ray ran it again after its process died")
    retried = key in run.failed_bundles
    if retried:
        run.recovered_bundles.add(key)
    run.record(call.placement_record(report, now, retried=retried))


def tells_overhead(call: Call, report: Report) -> bool:
    """Whether a call to a CPU executor took, beside its work, only the time that any call through
    Ray takes."""
    on_cpu = call.executor is not None and call.placement.device == "cpu"
    return report.is_small and on_cpu and not (call.on_line or call.resent or report.ray_attempt)


def names_what_is_not_kept(call: Call, error: BaseException) -> bool:
    """Whether this call itself, and not one that made its input, named an array that is not
    kept."""
    reason = error.cause if isinstance(error, ray_errors.RayTaskError) else error
    own = token_of(call.command.bundle_id, call.command.attempt)
    return isinstance(reason, NotKeptError) and reason.args == (own,)


def stored_keys(command: Start, inputs: Container[str]) -> list[tuple[str, str]]:
    """Return the keys of the values that a call takes from the object store."""
    return [(command.graph_id, key) for key in command.bundle.inputs if key in inputs]


def look_at(call: Call) -> None:
    """Look at the errors that stand for the values of a failed call; otherwise Ray prints them."""
    for ref in call.refs if not (call.on_line or call.here) else ():
        try:
            ray.get(ref, timeout=0)
        except ray_errors.RayError:
            continue
