"""Predicts the seconds of a task from what was observed of its codelet at its size.

History-based, as StarPU's: observations are kept per codelet and device kind in buckets of
size that double (Augonnet et al., CCPE 23(2), 2011). No clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agentic_ray.graph.task import Bundle, Task

CALL_OVERHEAD_SECONDS = 2e-3
"""A Ray call there and back, until the runtime has measured its own."""

_FLOPS_PER_SECOND = {"cpu": 5e9, "gpu": 2e12}  # until observed: orders of magnitude
_BYTES_PER_SECOND = {"cpu": 5e9, "gpu": 5e11}
_DECAY = 0.7  # weight of the past when an observation comes in


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds and how far off they may be (mean absolute deviation, seconds)."""

    seconds: float
    spread_seconds: float


@dataclass(slots=True)
class _Bucket:
    seconds_per_unit: float
    deviation: float
    count: int


class CostModel:
    """Observed seconds per codelet, device kind and size."""

    def __init__(self) -> None:
        self._history: dict[tuple[str, str], dict[int, _Bucket]] = {}
        self.call_overhead_seconds = CALL_OVERHEAD_SECONDS

    def observe(self, task: Task, kind: str, seconds: float) -> None:
        """Record that ``task`` took ``seconds`` on a device of ``kind``."""
        self.observe_size(task.codelet.name, kind, _size(task), seconds)

    def observe_size(self, codelet: str, kind: str, size: float, seconds: float) -> None:
        """Record ``seconds`` for ``size`` units (bytes moved if hinted, else items)."""
        if not (seconds >= 0 and math.isfinite(seconds)):
            return
        buckets = self._history.setdefault((codelet, kind), {})
        rate = seconds / size
        bucket = buckets.get(_bucket_index(size))
        if bucket is None:
            buckets[_bucket_index(size)] = _Bucket(rate, rate, 1)
            return
        # Early observations are averaged, later ones decayed, so that drift is followed.
        weight = max(1 - _DECAY, 1 / (bucket.count + 1))
        bucket.deviation += weight * (abs(rate - bucket.seconds_per_unit) - bucket.deviation)
        bucket.seconds_per_unit += weight * (rate - bucket.seconds_per_unit)
        bucket.count += 1

    def predict(self, task: Task, kind: str) -> Prediction | None:
        """Expected seconds of ``task``; None if neither history nor hint says anything."""
        seen = self.predict_size(task.codelet.name, kind, _size(task))
        if seen is not None:
            return seen
        cost = task.cost
        moved = cost.read_bytes + cost.written_bytes
        if not cost.flops and not moved:
            return None
        seconds = max(cost.flops / _FLOPS_PER_SECOND[kind], moved / _BYTES_PER_SECOND[kind])
        return Prediction(seconds, seconds)

    def predict_size(self, codelet: str, kind: str, size: float) -> Prediction | None:
        """Expected seconds for ``size`` units, from the nearest size observed."""
        buckets = self._history.get((codelet, kind))
        if not buckets:
            return None
        index = _bucket_index(size)
        bucket = buckets.get(index) or buckets[min(buckets, key=lambda i: (abs(i - index), -i))]
        return Prediction(bucket.seconds_per_unit * size, bucket.deviation * size)

    def predict_bundle(self, bundle: Bundle, kind: str) -> Prediction | None:
        """Sum over the bundle's tasks; None if any task is unknown."""
        return self.predict_all(bundle.tasks, kind)

    def predict_all(self, tasks: Iterable[Task], kind: str) -> Prediction | None:
        seconds = spread = 0.0
        for task in tasks:
            one = self.predict(task, kind)
            if one is None:
                return None
            seconds += one.seconds
            spread += one.spread_seconds
        return Prediction(seconds, spread)


def _size(task: Task) -> float:
    moved = task.cost.read_bytes + task.cost.written_bytes
    return float(moved or max(task.cost.items, 1))


def _bucket_index(size: float) -> int:
    return math.frexp(size)[1]
