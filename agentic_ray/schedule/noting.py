"""Notes of a Dispatcher's events and decisions, which hold no data and no code of a user.

Making a note costs little; ``recording`` turns notes into text, at once or when somebody asks.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from agentic_ray.errors import PoisonTaskError
from agentic_ray.graph.task import Bundle, Codelet, CostHint, Resources, Task
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.plain import Json
from agentic_ray.tracebacks import text_of

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
MOST_CODELETS = 512
"""Most codelets told apart by identity: those met last."""
MOST_TEXT = 2000
"""Most characters kept of an error's text."""


@dataclass(frozen=True, slots=True, eq=False)
class CodeletNote:
    """Fields of a codelet, without its functions. One codelet has one note."""

    fields: dict[str, Json]


class TaskNote(NamedTuple):
    """A task without its arguments."""

    key: str
    codelet: CodeletNote
    dependencies: tuple[str, ...]
    tag: str | None
    resources: Resources
    cost: CostHint
    priority: int


class BundleNote(NamedTuple):
    key: str
    tasks: tuple[TaskNote, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class GraphNote(NamedTuple):
    """A graph that was submitted."""

    time: float
    graph_id: str
    bundles: tuple[BundleNote, ...]
    outputs: tuple[str, ...]
    priority: int


class FailureNote(NamedTuple):
    """A bundle that failed: the name and the text of its exception, and whether that is
    ``"poison"``, tried ``"again"`` or ``"final"``."""

    time: float
    bundle_id: int
    attempt: int
    cause: ev.Cause
    error: str
    text: str
    kind: str
    memory: ev.MemoryUse | None
    begun: bool
    device_peaks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class EventNote:
    """An event, and the commands that a Dispatcher answered it with, or what it raised.

    ``splits`` are the halves of bundles that were cut in two.
    """

    event: ev.Event | GraphNote | FailureNote
    commands: tuple[Json, ...] = ()
    splits: tuple[tuple[BundleNote, BundleNote], ...] = ()
    raised: str = ""


@dataclass(frozen=True, slots=True)
class BesideNote:
    """Something that a Dispatcher or its cost model was told beside the events."""

    name: str
    value: Calibration | float | int


Note: TypeAlias = EventNote | BesideNote


class Noter:
    """Has a Dispatcher handle events, and hands notes of them to listeners.

    Parameters
    ----------
    dispatcher : Dispatcher
    listeners : sequence of callable
        Each is called with every note.
    """

    def __init__(
        self, dispatcher: Dispatcher, listeners: Sequence[Callable[[Note], None]] = ()
    ) -> None:
        self._dispatcher = dispatcher
        self._listeners = tuple(listeners)
        # By id of the codelet. Codelets are told apart by identity, as in the Dispatcher; they are
        # not kept alive, since their functions may see data of the user's.
        self._codelets: OrderedDict[int, tuple[weakref.ref[Codelet], CodeletNote]] = OrderedDict()
        self._calibration = dispatcher.model.calibration

    def add(self, listener: Callable[[Note], None]) -> None:
        """Tell ``listener`` of everything from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Callable[[Note], None]) -> None:
        """Tell ``listener`` nothing more."""
        self._listeners = tuple([one for one in self._listeners if one != listener])

    def handle(self, event: ev.Event) -> list[ev.Command]:
        """Let the Dispatcher handle an event, and note both. Its exceptions pass on."""
        if not self._listeners:
            return self._dispatcher.handle(event)
        model = self._dispatcher.model
        if model.calibration is not self._calibration:
            self._calibration = model.calibration
            self._tell(BesideNote("calibration", self._calibration))
        noted = self._event(event)
        try:
            commands = self._dispatcher.handle(event)
        except Exception as error:
            self._tell(EventNote(noted, raised=f"{type(error).__name__}: {error}"[:MOST_TEXT]))
            raise
        splits = tuple(
            [
                (self._bundle(command.first), self._bundle(command.second))
                for command in commands
                if isinstance(command, ev.Split)
            ]
        )
        self._tell(EventNote(noted, tuple(map(told, commands)), splits))
        return commands

    def call_took(self, seconds: float) -> None:
        """Note a call's seconds that the cost model was told, beside the events."""
        self._tell(BesideNote("call_seconds", seconds))

    def renewed(self, dispatcher: Dispatcher) -> None:
        """Go on with a Dispatcher that took the place of the one before."""
        self._dispatcher = dispatcher
        self._tell(BesideNote("next_bundle_id", dispatcher.next_bundle_id))

    def _tell(self, note: Note) -> None:
        for listener in self._listeners:
            listener(note)

    def _event(self, event: ev.Event) -> ev.Event | GraphNote | FailureNote:
        if isinstance(event, ev.GraphSubmitted):
            bundles = tuple(map(self._bundle, event.bundles))
            return GraphNote(event.time, event.graph_id, bundles, event.outputs, event.priority)
        if isinstance(event, ev.BundleFailed):
            attempt = self._dispatcher.attempt(event.bundle_id, event.attempt)
            again = attempt is not None and isinstance(event.error, attempt.record.bundle.retry_on)
            poison = isinstance(event.error, PoisonTaskError)
            return FailureNote(
                event.time,
                event.bundle_id,
                event.attempt,
                event.cause,
                type(event.error).__name__,
                text_of(event.error)[:MOST_TEXT],
                "poison" if poison else "again" if again else "final",
                event.memory,
                event.begun,
                event.device_peaks,
            )
        return event

    def _bundle(self, bundle: Bundle) -> BundleNote:
        return BundleNote(
            bundle.key, tuple(map(self._task, bundle.tasks)), bundle.inputs, bundle.outputs
        )

    def _task(self, task: Task) -> TaskNote:
        return TaskNote(
            task.key,
            self._codelet(task.codelet),
            task.dependencies,
            task.tag,
            task.resources,
            task.cost,
            task.priority,
        )

    def _codelet(self, codelet: Codelet) -> CodeletNote:
        known = self._codelets.get(id(codelet))
        if known is not None and known[0]() is codelet:
            self._codelets.move_to_end(id(codelet))
            return known[1]
        fields = {name: getattr(codelet, name) for name in CODELET_FIELDS}
        there = {name: getattr(codelet, name) is not None for name in ("cpu", "gpu")}
        note = CodeletNote({**fields, **there, "again": bool(codelet.retry_on)})
        self._codelets[id(codelet)] = weakref.ref(codelet), note
        if len(self._codelets) > MOST_CODELETS:
            self._codelets.popitem(last=False)
        return note


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
