"""Time as the master sees it: `Moment`, and the `Clock` that gives it.

Everything that is decided (ageing, time-outs, deadlines) is decided by a steady clock, which runs
on evenly whatever is done to the wall clock. The wall clock is for people, and for what must
outlive the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment: ``steady`` seconds since some point in this process, ``wall`` since the epoch."""

    steady: float
    wall: float

    def ago(self, wall: float) -> float:
        """The steady time of a moment that lies in the past by the wall clock.

        A clock that was set back since makes it now, never a time to come.
        """
        return self.steady - max(0.0, self.wall - wall)


class Clock:
    """Gives the moment that is now.

    Parameters
    ----------
    wall, steady : callable
        The two clocks, in seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady

    def __call__(self) -> Moment:
        return Moment(self._steady(), self._wall())
