"""The results of many calls of one function, in order, for one waiting caller."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from agentic_ray.errors import JobCancelledError
from agentic_ray.interop.calls.engine import Call, Engine
from agentic_ray.interop.calls.parcels import pack_arguments

_WAITING, _SENT, _DONE, _FAILED, _DROPPED = range(5)
WINDOW: Final = 1 << 14
"""Calls of an unbounded iterator that are waiting, under way or not yet taken."""
_SHORT_SECONDS: Final = 0.2
"""Waits are cut into pieces of this, so that a main thread notices Ctrl-C."""


class Gathered:
    """Receiver of calls that are numbered from 0; keeps each result until it is taken.

    Parameters
    ----------
    engine : Engine
    function : callable
        As `capture` returns it.
    arguments : iterable of tuple
        Positional arguments of each call.
    chunk : int or None
        Number of calls that travel together; None: as their cost suggests.
    window : int or None
        Calls that may wait, be under way, or be done and not taken; None: all are queued at once.
    """

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., Any],
        arguments: Iterable[tuple[Any, ...]],
        chunk: int | None,
        window: int | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._function = function
        self._left: Iterator[tuple[Any, ...]] | None = iter(arguments)
        self._chunk = chunk
        self._window = window
        self._on_end = on_end
        self._changed = threading.Condition()
        self._states = bytearray()
        self._values: dict[int, Any] = {}
        self._finished: deque[int] = deque()
        self._open = 0
        self._taken = 0
        self._cancelled = False
        self._error: BaseException | None = None
        self._unread: Exception | None = None
        self.feed()

    def feed(self) -> None:
        """Queue calls until the window is full.

        With a window the exceptions below are raised by `next`, after the results of the calls that
        were read before.

        Raises
        ------
        SerializationError
            An argument cannot be pickled.
        Whatever the iterable raises.
        """
        if self._left is None:
            return
        room = None if self._window is None else self._window - (len(self._states) - self._taken)
        if room is not None and room <= 0:
            return
        first = len(self._states)
        made = []
        try:
            for number, args in enumerate(itertools.islice(self._left, room), first):
                packed = pack_arguments(args, {})
                made.append(Call(self._function, packed, self, number, self._chunk))
        except BaseException as error:
            self._left = None
            if self._window is None or not isinstance(error, Exception):
                raise
            self._unread = error
        if room is None or len(made) < room:
            self._left = None
        with self._changed:
            self._states.extend(bytes(len(made)))
            self._open += len(made)
        self._engine.add(made)

    def __len__(self) -> int:
        """Return the number of calls queued so far."""
        return len(self._states)

    # --- from the engine ---------------------------------------------------------------

    def begin(self, index: int) -> bool:
        with self._changed:
            if self._cancelled:
                self._end(index, _DROPPED)
                return False
            self._states[index] = _SENT
            return True

    def succeed(self, index: int, value: Any) -> None:
        with self._changed:
            self._values[index] = value
            self._end(index, _DONE)
        self._tell()

    def fail(self, index: int, error: BaseException) -> None:
        with self._changed:
            self._values[index] = error
            self._error = self._error or error
            self._end(index, _FAILED)
        self._tell()

    def drop(self, index: int) -> None:
        with self._changed:
            self._end(index, _DROPPED)
        self._tell()

    def _end(self, index: int, state: int) -> None:
        self._states[index] = state
        self._finished.append(index)
        self._open -= 1
        self._changed.notify_all()

    def _tell(self) -> None:
        if self._on_end is not None and self.done:
            self._on_end()

    # --- for the caller ----------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether every call has ended."""
        return self._left is None and not self._open

    @property
    def error(self) -> BaseException | None:
        """Exception that was raised first, if any was."""
        return self._error

    def cancel(self) -> None:
        """Drop the calls that are not sent yet."""
        with self._changed:
            self._cancelled = True
            self._left = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every call has ended; False if that takes longer than ``timeout`` seconds."""
        return self._wait(lambda: self.done, _deadline(timeout))

    def next(self, deadline: float | None, *, ordered: bool = True) -> tuple[bool, Any]:
        """Return (True, result) or (False, exception) of the next call, in order or as they end.

        Raises
        ------
        StopIteration
            There is no further call.
        TimeoutError
            ``deadline``, a time of `time.monotonic`, has passed.
        What ended the reading of the calls.
        """
        self.feed()
        if self._taken == len(self._states):
            error, self._unread = self._unread, None
            raise error or StopIteration
        index = self._taken

        def ready() -> bool:
            return self._states[index] >= _DONE if ordered else bool(self._finished)

        if not self._wait(ready, deadline):
            raise TimeoutError
        with self._changed:
            if not ordered:
                index = self._finished.popleft()
            self._taken += 1
            state = self._states[index]
            value = self._values.pop(index, None)
        if state == _DROPPED:
            return False, JobCancelledError("the call was cancelled")
        return state == _DONE, value

    def values(self) -> list[Any]:
        """Return the results of all calls, which have ended; raise the first call's exception."""
        for index, state in enumerate(self._states):
            if state == _FAILED:
                raise self._values[index]
            if state == _DROPPED:
                raise JobCancelledError("the call was cancelled")
        return [self._values[index] for index in range(len(self._states))]

    def _wait(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        with self._changed:
            while not ready():
                left = _SHORT_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _SHORT_SECONDS))
        return True


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
