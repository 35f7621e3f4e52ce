"""Results of graphs, for the threads that ask for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from agentic_ray.errors import (
    AgenticRayError,
    JobCancelledError,
    LostDataError,
    SerializationError,
    SessionError,
)
from agentic_ray.ids import marked
from agentic_ray.runtime.failures import INPUT_LOST, SYSTEM
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.run import Run, ValueGone
from agentic_ray.runtime.sending import Sender
from agentic_ray.runtime.values import Stored, get
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.events import CancelRequested, Event, GraphReleased, ValueLost
from agentic_ray.tracebacks import text_of

_logger = logging.getLogger("agentic_ray")


class ValueSource(Protocol):
    """Part of the loop that results need."""

    dispatcher: Dispatcher
    sender: Sender
    runs: dict[str, Run]
    ended: SessionError | None

    def post(self, event: Event) -> None:
        """Take in an event; called from any thread."""

    def later(self, work: Callable[[], None]) -> None:
        """Call ``work`` in the loop's thread, after everything it was told before."""

    def handle(self, event: Event) -> None:
        """Have the Dispatcher handle an event, and carry out its commands."""


class Results:
    """Serves runs: brings their values, has lost ones made again, and passes on that one is
    cancelled or released. Every method may be called from any thread.

    Parameters
    ----------
    loop : ValueSource
    reopened : callable
        Called with a finished run of which a value is made again, in the asking thread.
    """

    def __init__(self, loop: ValueSource, reopened: Callable[[Run], None]) -> None:
        self._loop = loop
        self._on_reopened = reopened

    def fetch(self, graph_id: str, key: str) -> Any:
        """Return the value of a finished graph's output; raise ValueGone if it must be made
        again."""
        if self._loop.ended is not None:
            raise self._loop.ended
        held = self._loop.sender.values.get((graph_id, key))
        try:
            if held is None:
                raise ValueGone
            return held.load() if isinstance(held, Inline) else get(held)
        except (*INPUT_LOST, *SYSTEM, ValueGone, LostDataError) as error:
            self._make_again(graph_id, key, error)
            raise ValueGone from error
        except AgenticRayError:
            raise
        except Exception as error:  # Ray wraps exceptions of a value's own hooks, pickle does not
            raise SerializationError(f"a result cannot be unpickled here: {error}") from error

    def peek(self, graph_id: str, key: str) -> Any:
        """Return a finished graph's output as it is held; None if it is lost."""
        return self._loop.sender.values.get((graph_id, key))

    def held(self, graph_id: str, key: str) -> Any:
        """Return the value of a finished graph's output if it is small, else `Stored`; raise
        ValueGone if it must be made again."""
        if self._loop.ended is not None:
            raise self._loop.ended
        value = self._loop.sender.values.get((graph_id, key))
        if value is None:
            self._make_again(graph_id, key, ValueGone())
            raise ValueGone
        if isinstance(value, Inline):
            return value.load()
        return Stored(value, self._loop.sender.values.size_of((graph_id, key)))

    def _make_again(self, graph_id: str, key: str, error: BaseException) -> None:
        run = self._loop.runs.get(graph_id)
        if run is None:
            raise JobCancelledError(f"the values of {graph_id} were given up") from error
        with marked(run.ids):
            _logger.warning("value %s is lost (%s); it is computed again", key, text_of(error))
        run.reopen()
        self._on_reopened(run)

        def lose() -> None:
            if self._loop.dispatcher.knows(graph_id):
                self._loop.handle(ValueLost(time.monotonic(), graph_id, key))
            else:
                run.settle(LostDataError(f"value {key} is lost, and so is how it was made"))

        self._loop.later(lose)
        if self._loop.ended is not None:
            run.settle(self._loop.ended)

    def request_cancel(self, graph_id: str) -> None:
        """Ask for a graph to be cancelled."""
        self._loop.post(CancelRequested(time.monotonic(), graph_id))

    def release(self, graph_id: str) -> None:
        """Give a graph's values up."""
        self._loop.post(GraphReleased(time.monotonic(), graph_id))
