"""Writes a Dispatcher's events and decisions as JSON lines; ``replaying`` reads them.

A recording holds no data and no code of a user. Of a task it holds the key, the cost and where it
may run; of an exception its type's name and its text.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from agentic_ray.errors import PoisonTaskError
from agentic_ray.graph.task import (
    DEFAULT_COST,
    DEFAULT_RESOURCES,
    Bundle,
    Codelet,
    CostHint,
    Resources,
    Task,
)
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.curves import Curve, RunningMedian
from agentic_ray.schedule.device_memory import DevicePeaks
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.links import Links
from agentic_ray.schedule.plain import Json, Plain
from agentic_ray.schedule.records import RetryRules
from agentic_ray.schedule.speculation import SpeculationRules
from agentic_ray.telemetry.bandwidth import BandwidthMeter
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState
from agentic_ray.tracebacks import text_of

FORMAT = 2
"""Version of the lines; a recording of another version is not read."""
ENDED = '{"ended":true}\n'
"""The last line of a recording that was not cut off."""
CODELET_FIELDS = (
    "name",
    "opaque",
    "has_effects",
    "speculative",
    "chunk_axis",
    "host_inputs",
    "own_process",
    "pieces",
)
DEFAULT_PARTS: tuple[Resources | CostHint, ...] = (DEFAULT_RESOURCES, DEFAULT_COST)
"""The first parts of every event, by their numbers."""
MOST_CODELETS = 512
"""Most codelets told apart by identity: those met last."""
MOST_TEXT = 2000
"""Most characters kept of an error's text."""

PLAIN = Plain(
    (
        # parts of events
        ev.DeviceSlots,
        ev.Holder,
        ev.MemoryUse,
        ev.Transfer,
        ev.ValueInfo,
        ClusterState,
        GpuState,
        NodeState,
        ev.BundleFinished,
        ev.BundleStarted,
        ev.CancelRequested,
        ev.GpuLost,
        ev.GraphReleased,
        ev.LeaseReleased,
        ev.LeaseRequested,
        ev.NodeLost,
        ev.NodeUp,
        ev.Telemetry,
        ev.Tick,
        ev.ValueLost,
        # state that a Dispatcher begins with
        BandwidthMeter,
        Calibration,
        CostHint,
        CostModel,
        Curve,
        DevicePeaks,
        Links,
        Resources,
        RetryRules,
        RunningMedian,
        SpeculationRules,
    )
)


class RecordedError(Exception):
    """Stands for an exception that a task raised when it was recorded.

    Parameters
    ----------
    name : str
        Of its type.
    text : str
        Its text, which reasons of placements may quote.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return self.text


class RecordedRetry(RecordedError):
    """Stand-in for a recorded exception of a type that was to be tried again."""


class Recorder:
    """Writes one line for each event of a Dispatcher.

    Parameters
    ----------
    write : callable
        Takes the text of a line, with its end.
    dispatcher : Dispatcher
        A Dispatcher that knows no graph yet. If its cost model knows things, they are written
        first.
    about : dict, optional
        Notes on the recording, for people.
    """

    def __init__(
        self, write: Callable[[str], None], dispatcher: Dispatcher, about: dict[str, str]
    ) -> None:
        self._write = write
        self._dispatcher = dispatcher
        # Codelets are told apart by identity, as in the Dispatcher; they are kept, so that no id is
        # used again.
        self._codelets: OrderedDict[int, tuple[Codelet, int]] = OrderedDict()
        self._codelet_count = 0
        self._parts: dict[int, int] = {}
        self._calibration = dispatcher.model.calibration
        self._line(
            {
                "format": FORMAT,
                "about": about,
                "policy": dispatcher.policy.name,
                "retry": PLAIN.encode(dispatcher.retry),
                "speculation": PLAIN.encode(dispatcher.speculation),
                "report_seconds": dispatcher.report_seconds,
                "model": PLAIN.encode(dispatcher.model),
                "next_bundle_id": dispatcher.next_bundle_id,
            }
        )

    def handle(self, event: ev.Event) -> list[ev.Command]:
        """Let the Dispatcher handle an event, and write both down. Its exceptions pass on."""
        model = self._dispatcher.model
        if model.calibration is not self._calibration:
            self._calibration = model.calibration
            self._line({"calibration": PLAIN.encode(self._calibration)})
        row: dict[str, Json] = {"event": self._event(event)}
        try:
            commands = self._dispatcher.handle(event)
        except Exception as error:
            self._line({**row, "raised": f"{type(error).__name__}: {error}"[:MOST_TEXT]})
            raise
        splits = [command for command in commands if isinstance(command, ev.Split)]
        if splits:
            self._parts = {id(part): number for number, part in enumerate(DEFAULT_PARTS)}
            row["splits"] = [[self._bundle(one.first), self._bundle(one.second)] for one in splits]
        self._line({**row, "commands": list(map(told, commands))})
        return commands

    def call_took(self, seconds: float) -> None:
        """Note a call's seconds that the cost model was told, beside the events."""
        self._line({"call_seconds": seconds})

    def renewed(self, dispatcher: Dispatcher) -> None:
        """Go on with the Dispatcher that took the place of one that raised."""
        self._dispatcher = dispatcher
        self._line({"next_bundle_id": dispatcher.next_bundle_id})

    def _line(self, row: dict[str, Json]) -> None:
        self._write(json.dumps(row, separators=(",", ":")) + "\n")

    def _event(self, event: ev.Event) -> Json:
        if isinstance(event, ev.GraphSubmitted):
            self._parts = {id(part): number for number, part in enumerate(DEFAULT_PARTS)}
            return {
                "@": "GraphSubmitted",
                "time": event.time,
                "graph_id": event.graph_id,
                "bundles": list(map(self._bundle, event.bundles)),
                "outputs": event.outputs,
                "priority": event.priority,
            }
        if isinstance(event, ev.BundleFailed):
            attempt = self._dispatcher.attempt(event.bundle_id, event.attempt)
            again = attempt is not None and isinstance(event.error, attempt.record.bundle.retry_on)
            poison = isinstance(event.error, PoisonTaskError)
            return {
                "@": "BundleFailed",
                "time": event.time,
                "bundle_id": event.bundle_id,
                "attempt": event.attempt,
                "cause": event.cause,
                "error": type(event.error).__name__,
                "text": text_of(event.error)[:MOST_TEXT],
                "kind": "poison" if poison else "again" if again else "final",
                "memory": PLAIN.encode(event.memory),
                "begun": event.begun,
                "device_peaks": event.device_peaks,
            }
        return PLAIN.encode(event)

    def _bundle(self, bundle: Bundle) -> Json:
        return [bundle.key, list(map(self._task, bundle.tasks)), bundle.inputs, bundle.outputs]

    def _task(self, task: Task) -> Json:
        return [
            task.key,
            self._codelet(task.codelet),
            task.dependencies,
            task.tag,
            self._part(task.resources),
            self._part(task.cost),
            task.priority,
        ]

    def _part(self, value: Resources | CostHint) -> Json:
        """Return the number of a part that an event's tasks share, with its fields if it is new."""
        number = self._parts.get(id(value))
        if number is not None:
            return number
        number = self._parts[id(value)] = len(self._parts)
        named = [entry.name for entry in fields(value) if entry.init]
        return [number, {name: getattr(value, name) for name in named}]

    def _codelet(self, codelet: Codelet) -> int:
        """Return the number of a codelet in this recording; a codelet met first gets the next."""
        known = self._codelets.get(id(codelet))
        if known is not None:
            self._codelets.move_to_end(id(codelet))
            return known[1]
        number = self._codelet_count
        self._codelet_count += 1
        self._codelets[id(codelet)] = codelet, number
        if len(self._codelets) > MOST_CODELETS:
            self._codelets.popitem(last=False)
        fields = {name: getattr(codelet, name) for name in CODELET_FIELDS}
        there = {name: getattr(codelet, name) is not None for name in ("cpu", "gpu")}
        again = bool(codelet.retry_on)
        self._line({"codelet": number, **fields, **there, "again": again})
        return number


def told(command: ev.Command) -> Json:
    """Return a command as it is compared and shown: its name, then its fields in plain words."""
    if isinstance(command, ev.Start):
        placement = command.placement
        return [
            "Start",
            command.graph_id,
            command.bundle_id,
            command.attempt,
            command.bundle.key,
            placement.node_id,
            placement.device,
            _number(placement.predicted_start_seconds),
            _number(placement.predicted_finish_seconds),
            placement.reason,
            command.copy,
            command.process,
        ]
    if isinstance(command, ev.Split):
        return ["Split", command.graph_id, command.bundle_id, command.first.key, command.first_id]
    if isinstance(command, ev.FailGraph):
        bundle, error = command.bundle.key if command.bundle else None, command.error
        name = error.name if isinstance(error, RecordedError) else type(error).__name__
        return ["FailGraph", command.graph_id, name, bundle]
    values = [getattr(command, name) for name in _fields_of(command)]
    return [type(command).__name__, *[list(v) if isinstance(v, tuple) else v for v in values]]


def _fields_of(command: ev.Command) -> Sequence[str]:
    names: Any = getattr(command, "__dataclass_fields__", None) or getattr(command, "_fields", ())
    return tuple(names)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
