"""Decides how many calls of a function travel together. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MOST_CALLS: Final = 1 << 14
_KEPT: Final = 0.5
"""Weight that the calls and seconds counted so far keep when the next batch is counted."""
_PATIENCE: Final = 4.0
"""A batch that takes this many times its expected seconds gives its rest back to the queue."""
_LEAST_PATIENCE_SECONDS: Final = 0.05


@dataclass(slots=True)
class Pace:
    """The seconds of a call of one function, as far as they are known.

    Every call counts alike, so that a small batch whose process had to wait says little.
    """

    _calls: float = 0.0
    _seconds: float = 0.0

    @property
    def seconds(self) -> float | None:
        """Mean seconds of a call; None before the first."""
        return self._seconds / self._calls if self._calls else None

    def learn(self, calls: int, seconds: float) -> None:
        """Take in that ``calls`` calls took ``seconds`` together."""
        if calls:
            self._calls = _KEPT * self._calls + calls
            self._seconds = _KEPT * self._seconds + seconds

    def size(self, pending: int, target_seconds: float) -> int:
        """Return how many of ``pending`` calls go in the next batch.

        One, until the seconds of a call are known. Then as many as take ``target_seconds``.
        """
        if self.seconds is None:
            return 1
        wanted = math.ceil(0.999 * target_seconds / max(self.seconds, 1e-9))
        return max(1, min(wanted, pending, MOST_CALLS))

    def patience_seconds(self, calls: int) -> float:
        """Return the seconds after which a batch gives back the calls that it has not begun."""
        return max(_PATIENCE * calls * (self.seconds or 0.0), _LEAST_PATIENCE_SECONDS)
