"""The last events and decisions of a Dispatcher, kept in memory in case something goes wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from agentic_ray.schedule import events as ev
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.noting import BesideNote, GraphNote, Note
from agentic_ray.schedule.plain import Json
from agentic_ray.schedule.recording import ENDED, Lines, head, line


@dataclass(frozen=True, slots=True)
class LastEvents:
    """Notes as a `Ring` held them at one moment.

    Attributes
    ----------
    dropped : int
        Older notes that the ring no longer held. With 0 the notes begin with the Dispatcher, and a
        replay can compare decisions; else it only shows them.
    """

    notes: tuple[Note, ...]
    dropped: int
    _head: dict[str, Json]

    def lines(self, about: dict[str, str]) -> Iterator[str]:
        """Yield the lines of a recording. ``about``: notes on it, for people."""
        yield line({**self._head, "about": about, "dropped": self.dropped})
        lines = Lines()
        for note in self.notes:
            yield from lines.of(note)
        yield ENDED


class Ring:
    """Holds notes up to a bound; of more, the oldest are dropped.

    Parameters
    ----------
    dispatcher : Dispatcher
        A Dispatcher that has handled nothing yet.
    most : int
        Bound of the notes' weights together. A task that was submitted, a value that was made and
        a node in a report of telemetry weigh 1, about 200 bytes; so does any other event.
    """

    def __init__(self, dispatcher: Dispatcher, most: int) -> None:
        self._head = head(dispatcher, {})
        self._most = most
        self._notes: deque[Note] = deque()
        self._weight = 0
        self._dropped = 0

    def note(self, note: Note) -> None:
        """Take in what a `Noter` has noted."""
        self._notes.append(note)
        self._weight += _weight(note)
        while self._weight > self._most:
            self._weight -= _weight(self._notes.popleft())
            self._dropped += 1

    def copy(self) -> LastEvents:
        """Return what is held now."""
        return LastEvents(tuple(self._notes), self._dropped, self._head)


def _weight(note: Note) -> int:
    if isinstance(note, BesideNote):
        return 1
    event = note.event
    if isinstance(event, GraphNote):
        return 1 + sum([len(bundle.tasks) for bundle in event.bundles])
    if isinstance(event, ev.Telemetry):
        return 1 + len(event.cluster.nodes)
    if isinstance(event, ev.BundleFinished):
        return 1 + len(event.values)
    return 1
