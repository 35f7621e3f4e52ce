"""`Steps`: the last steps of jobs, for another process that asks again and again."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from agentic_ray.master.jobs import JobRecord, without_exception
from agentic_ray.master.jsonvalues import JsonText

_KEPT: Final = 10_000
_AT_ONCE: Final = 1_000
_NO_PARAMS: Final = JsonText("null")


@dataclass(frozen=True, slots=True)
class Position:
    """Which step was the last that is known: its number, in the count of one process."""

    epoch: str
    number: int


def outline(record: JobRecord) -> JobRecord:
    """A record as it is told of: without params, result and exception."""
    return without_exception(replace(record, params=_NO_PARAMS, result=None))


class Steps:
    """Steps of jobs in order; safe to use from any thread.

    Parameters
    ----------
    kept : int
        Steps that can still be asked for.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._epoch = secrets.token_hex(8)
        self._steps: deque[JobRecord] = deque(maxlen=kept)
        self._count = 0
        self._changed = threading.Condition()

    def add(self, record: JobRecord) -> None:
        """A job has taken a step."""
        with self._changed:
            self._steps.append(outline(record))
            self._count += 1
            self._changed.notify_all()

    def after(
        self, known: Position | None, seconds: float
    ) -> tuple[Position, list[JobRecord], bool]:
        """The steps after one, as soon as there are some, at the latest after so many seconds.

        Returns
        -------
        tuple
            The last of them; the steps; and whether some before them are not kept any more, or
            nobody knows, since they were another process's.
        """
        with self._changed:
            if known is None or known.epoch != self._epoch:
                return Position(self._epoch, self._count), [], known is not None
            self._changed.wait_for(lambda: self._count > known.number, seconds)
            first = self._count - len(self._steps)
            begin = max(known.number, first)
            found = [*self._steps][begin - first : begin - first + _AT_ONCE]
            return Position(self._epoch, begin + len(found)), found, known.number < first
