"""Writes a Dispatcher's events and decisions as JSON lines; ``replaying`` reads them.

A recording holds no data and no code of a user. Of a task it holds the key, the cost and where it
may run; of an exception its type's name and its text.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields

from agentic_ray.graph.task import DEFAULT_COST, DEFAULT_RESOURCES, CostHint, Resources
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.curves import Curve, RunningMedian
from agentic_ray.schedule.device_memory import DevicePeaks
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.links import Links
from agentic_ray.schedule.noting import (
    MOST_CODELETS,
    BesideNote,
    BundleNote,
    CodeletNote,
    FailureNote,
    GraphNote,
    Note,
    TaskNote,
)
from agentic_ray.schedule.plain import Json, Plain
from agentic_ray.schedule.records import RetryRules
from agentic_ray.schedule.speculation import SpeculationRules
from agentic_ray.telemetry.bandwidth import BandwidthMeter
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState

FORMAT = 2
"""Version of the lines; a recording of another version is not read."""
ENDED = '{"ended":true}\n'
"""The last line of a recording that was not cut off."""
DEFAULT_PARTS: tuple[Resources | CostHint, ...] = (DEFAULT_RESOURCES, DEFAULT_COST)
"""The first parts of every event, by their numbers."""
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


def head(dispatcher: Dispatcher, about: dict[str, str]) -> dict[str, Json]:
    """Return the first line of a recording that begins now.

    Parameters
    ----------
    dispatcher : Dispatcher
        A Dispatcher that knows no graph yet. What its cost model knows is written too.
    about : dict
        Notes on the recording, for people.
    """
    return {
        "format": FORMAT,
        "about": about,
        "policy": dispatcher.policy.name,
        "retry": PLAIN.encode(dispatcher.retry),
        "speculation": PLAIN.encode(dispatcher.speculation),
        "report_seconds": dispatcher.report_seconds,
        "model": PLAIN.encode(dispatcher.model),
        "next_bundle_id": dispatcher.next_bundle_id,
    }


class Lines:
    """Turns the notes of one recording into its lines, in their order."""

    def __init__(self) -> None:
        # The notes of codelets are kept, so that no id is used again.
        self._codelets: OrderedDict[int, tuple[CodeletNote, int]] = OrderedDict()
        self._codelet_count = 0
        self._met: list[str] = []  # lines of the codelets that the present note names first
        self._parts: dict[int, int] = {}

    def of(self, note: Note) -> list[str]:
        """Return the lines of a note, each with its end."""
        if isinstance(note, BesideNote):
            return [line({note.name: PLAIN.encode(note.value)})]
        self._met = []
        row: dict[str, Json] = {"event": self._event(note.event)}
        if note.raised:
            row["raised"] = note.raised
        else:
            if note.splits:
                row["splits"] = list(map(self._halves, note.splits))
            row["commands"] = note.commands
        return [*self._met, line(row)]

    def _event(self, event: ev.Event | GraphNote | FailureNote) -> Json:
        if isinstance(event, GraphNote):
            self._begin_parts()
            return {
                "@": "GraphSubmitted",
                **event._asdict(),
                "bundles": list(map(self._bundle, event.bundles)),
            }
        if isinstance(event, FailureNote):
            memory = PLAIN.encode(event.memory)
            return {"@": "BundleFailed", **event._asdict(), "memory": memory}
        return PLAIN.encode(event)

    def _halves(self, halves: tuple[BundleNote, BundleNote]) -> Json:
        self._begin_parts()
        return list(map(self._bundle, halves))

    def _begin_parts(self) -> None:
        self._parts = {id(part): number for number, part in enumerate(DEFAULT_PARTS)}

    def _bundle(self, bundle: BundleNote) -> Json:
        return [bundle.key, list(map(self._task, bundle.tasks)), bundle.inputs, bundle.outputs]

    def _task(self, task: TaskNote) -> Json:
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

    def _codelet(self, codelet: CodeletNote) -> int:
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
        self._met.append(line({"codelet": number, **codelet.fields}))
        return number


def line(row: dict[str, Json]) -> str:
    """Return a line of a recording, with its end."""
    return json.dumps(row, separators=(",", ":")) + "\n"


class Recorder:
    """Writes lines about each event of a Dispatcher.

    Parameters
    ----------
    write : callable
        Takes the text of a line, with its end.
    dispatcher : Dispatcher
        A Dispatcher that knows no graph yet.
    about : dict
        Notes on the recording, for people.
    """

    def __init__(
        self, write: Callable[[str], None], dispatcher: Dispatcher, about: dict[str, str]
    ) -> None:
        self._write = write
        self._lines = Lines()
        write(line(head(dispatcher, about)))

    def note(self, note: Note) -> None:
        """Write what a `Noter` has noted."""
        for text in self._lines.of(note):
            self._write(text)
