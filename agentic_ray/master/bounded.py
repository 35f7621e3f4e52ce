"""Calls that nobody waits for longer than a given time: `Bounded`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agentic_ray.errors import JournalTimeoutError

_T = TypeVar("_T")
_CALLS = 32


class Bounded:
    """Runs calls that may never return, such as reads of a disk or server that stands still.

    Parameters
    ----------
    seconds : float
        Longest wait for one call. The call itself goes on in its thread.
    what : str
        Which place does not answer, for the error.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._places = threading.BoundedSemaphore(_CALLS)

    def call(self, function: Callable[[], _T]) -> _T:
        """The function's result.

        Raises
        ------
        JournalTimeoutError
            It has not come in time.
        """
        if not self._places.acquire(timeout=self._seconds):
            raise self._late()
        done: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                done.append((function(), None))
            except BaseException as error:  # raised again to the one who waits
                done.append((None, error))
            finally:
                self._places.release()

        thread = threading.Thread(target=run, name="journal-read", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if not done:
            raise self._late()
        result, error = done[0]
        if error is not None:
            raise error
        found: _T = result
        return found

    def _late(self) -> JournalTimeoutError:
        return JournalTimeoutError(f"{self._what} does not answer within {self._seconds:g} seconds")
