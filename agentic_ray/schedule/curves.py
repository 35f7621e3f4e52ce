"""Robust statistics with bounded memory for the cost model: medians of the newest observations, and
seconds over size as a line in log-log space. Numbers only: nothing of tasks or devices."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from itertools import combinations
from statistics import median

WINDOW = 31
"""Number of observations kept per size class and per device."""
STEEPEST = 3.0
"""Seconds grow with size, and no faster than its cube."""
_MAD_TO_DEVIATION = 1.4826
_SMALLEST = 1e-9


class RunningMedian:
    """The median of the last ``WINDOW`` numbers: one outlier or a slow drift does not fool it."""

    __slots__ = ("_newest", "_sorted", "count")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self.count = 0
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        if len(self._newest) == WINDOW:
            oldest = self._newest.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._newest.append(value)
        insort(self._sorted, value)
        self.count += 1

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers that are kept, oldest first."""
        return tuple(self._newest)

    @property
    def median(self) -> float:
        middle = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2

    @property
    def lower_quartile(self) -> float:
        """Number that a quarter of the kept ones are below."""
        return self._sorted[len(self._sorted) // 4]

    @property
    def deviation(self) -> float | None:
        """Standard deviation, from the median absolute deviation; None of fewer than three."""
        if len(self._sorted) < 3:
            return None
        middle = self.median
        return _MAD_TO_DEVIATION * median(abs(value - middle) for value in self._sorted)


class Curve:
    """Logarithm of seconds over size, per class of sizes that double.

    A size near one that was seen is predicted from that class; another size from the nearest class,
    along the slope that the classes have between them (Theil-Sen: the median of the slopes of all
    pairs, Sen, JASA 63, 1968).
    """

    __slots__ = ("_predicted", "_slope", "classes", "count")

    def __init__(self) -> None:
        self.classes: dict[int, tuple[RunningMedian, RunningMedian]] = {}
        self.count = 0
        self._slope: float | None = None
        self._predicted: dict[float, float] = {}

    def add(self, size: float, log_seconds: float) -> None:
        index = size_class(size)
        known = self.classes.get(index)
        if known is None:
            known = self.classes[index] = (RunningMedian(), RunningMedian())
        known[0].add(math.log(size))
        known[1].add(log_seconds)
        self.count += 1
        self._predicted.clear()
        self._slope = None

    def has_seen(self, size: float) -> bool:
        return size_class(size) in self.classes

    def log_seconds(self, size: float, steepest: float = STEEPEST) -> float:
        """Predict the logarithm of the seconds for ``size``.

        Parameters
        ----------
        steepest : float
            Greatest slope at which a size is predicted from others, the same in each call.
        """
        found = self._predicted.get(size)
        if found is None:
            sizes, seconds = self.nearest(size)
            slope = min(self.slope, steepest)
            found = seconds.median + slope * (math.log(size) - sizes.median)
            if len(self._predicted) >= 1024:
                self._predicted.clear()
            self._predicted[size] = found
        return found

    def nearest(self, size: float) -> tuple[RunningMedian, RunningMedian]:
        index = size_class(size)
        known = self.classes.get(index)
        if known is None:
            known = self.classes[min(self.classes, key=lambda i: (abs(i - index), -i))]
        return known

    @property
    def slope(self) -> float:
        """Derivative d log seconds / d log size; 1 (proportional) while only one class is known."""
        if self._slope is None:
            points = [(sizes.median, seconds.median) for sizes, seconds in self.classes.values()]
            slopes = [
                (other[1] - one[1]) / (other[0] - one[0])
                for one, other in combinations(sorted(points), 2)
                if other[0] > one[0]
            ]
            slope = median(slopes) if slopes else 1.0
            self._slope = min(max(slope, 0.0), STEEPEST)
        return self._slope


def size_class(size: float) -> int:
    """Return the index of the range of sizes that ``size`` is in; the ranges double in size."""
    return math.frexp(size)[1]


def log_of(seconds: float) -> float:
    """Return the logarithm of a time, which may have been too short to measure."""
    return math.log(max(seconds, _SMALLEST))
