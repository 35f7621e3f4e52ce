"""The ways in which a bundle reaches the process that runs it, behind one interface.

A bundle is offered to each transport in turn, quickest first; the first that takes it sends it.
Ray takes all. Settings switch the others off, one by one: bits do not depend on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.calls import send_by_ray, token_of
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.here import fits_here, run_now
from agentic_ray.runtime.lines import Lines
from agentic_ray.runtime.outcomes import Inline, Report
from agentic_ray.runtime.values import of_other_cluster
from agentic_ray.schedule.events import Start


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle as another process gets it: ``inputs`` are the values that are handed over with the
    call, by name."""

    payload: Payload
    inputs: dict[str, Any]


@dataclass
class Parcel:
    """A bundle that is to be sent.

    Parameters
    ----------
    command : Start
    executor : actor handle or None
        Executor that is to run it; None: a process of its own does.
    held : mapping
        Values of other bundles that it takes, as they are held here, by key.
    pack : callable
        Packs it for another process. Called once at most, and only if it is sent to one.
    """

    command: Start
    executor: Any | None
    held: Mapping[str, Inline | Any]
    pack: Callable[[], Packed]

    @cached_property
    def packed(self) -> Packed:
        """The bundle as another process gets it."""
        return self.pack()

    @property
    def bundle(self) -> Bundle:
        return self.command.bundle


@dataclass(frozen=True, slots=True)
class Sent:
    """A bundle that is under way.

    Attributes
    ----------
    answer : Future
        Of its `Report`; or the exception that there is instead of one.
    refs : sequence of ObjectRef
        Of the report and of each value; None where a value is in the report. Filled once the
        report is there.
    by : Transport
        What it was sent by.
    """

    answer: Future[Report]
    refs: Sequence[Any]
    by: Transport


class Transport(Protocol):
    """A way to a process that runs bundles. Used by the loop's thread alone; never blocks."""

    def send(self, parcel: Parcel) -> Sent | None:
        """Send a bundle; return None if it is not one for this transport."""


class InProcess:
    """Runs the last small steps of a reduction in this process, at once.

    Parameters
    ----------
    own_node : callable
        Returns the id of the node that this process is on.
    """

    def __init__(self, own_node: Callable[[], str]) -> None:
        self._own_node = own_node

    def send(self, parcel: Parcel) -> Sent | None:
        command = parcel.command
        if command.process != "shared" or not fits_here(
            parcel.bundle, command.placement, parcel.held.values()
        ):
            return None
        answer, refs = run_now(parcel.bundle, parcel.held, self._own_node())
        return Sent(answer, refs, self)


class BySocket:
    """Sends small bundles to executors of CPUs on this machine over a socket, past Ray."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def send(self, parcel: Parcel) -> Sent | None:
        command = parcel.command
        if parcel.executor is None or command.placement.device != "cpu":
            return None
        token = token_of(command.bundle_id, command.attempt)
        sent = self._lines.send(parcel.executor, token, parcel.packed.payload, parcel.bundle)
        return None if sent is None else Sent(*sent, self)


class ByRay:
    """Sends any bundle as a call of Ray's."""

    def send(self, parcel: Parcel) -> Sent:
        packed = parcel.packed
        try:
            refs = send_by_ray(parcel.command, parcel.executor, packed.payload, packed.inputs)
        except ValueError as error:  # Ray says so that it does not know the owner of an ObjectRef
            raise of_other_cluster(" or ".join(map(str, packed.inputs.values()))) from error
        return Sent(refs[0].future(), refs, self)
