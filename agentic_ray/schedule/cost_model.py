"""Predicts the seconds of a task: from hints and calibration first, then from observations.

History-based, as StarPU's: observations are kept per codelet and device kind in classes of
size that double (Augonnet et al., CCPE 23(2), 2011). No clock, no I/O.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from statistics import median

from agentic_ray.graph.task import Bundle, CostHint, Task
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.curves import STEEPEST, Curve, RunningMedian, log_of, size_class
from agentic_ray.schedule.device_memory import DevicePeaks
from agentic_ray.schedule.links import Links

Place = tuple[str, str]
"""A device: its node and its name on the node."""

_WELL_KNOWN = 256
_AS_EXPECTED = 0.1
_SKIPPED = 31
"""Once a codelet has ``_WELL_KNOWN`` observations, so many further ones within a tenth of the
prediction are only counted before the next one is learnt from."""
_TYPICAL_SECONDS = 5e-2
_LEAST_CALLS = 8
"""With fewer calls seen, the time of a call by itself is not known."""
CALL_BOUNDS_SECONDS = (5e-4, 8e-3)
"""Limits of a call's own time, whatever is measured."""
_KEPT_ERRORS = 4096
STEEPEST_OF_WORK = 1.25
"""Greatest slope of seconds over flops or bytes: they say the work itself, so that seconds grow
faster only as caches get too small. Over items seconds may grow with any power."""
MOST_CODELETS = 4096
"""Most codelets remembered, each on one kind of device: those observed last."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted seconds and their standard deviation, in seconds."""

    seconds: float
    spread_seconds: float


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Accuracy of the predictions, each made before its observation.

    Parameters
    ----------
    median_relative_error : float or None
        Median of ``|predicted - observed| / observed`` over the newest observations.
    predictions, observations : int
        Number of predictions that were compared, and number of observations.
    """

    median_relative_error: float | None
    predictions: int
    observations: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Observations of a codelet at one class of sizes, to be kept across sessions.

    ``sizes`` and ``seconds`` are the newest observations, oldest first, on the reference device.
    """

    codelet: str
    kind: str
    sizes: tuple[float, ...]
    seconds: tuple[float, ...]


class CostModel:
    """Expected seconds per codelet, device kind and size, and how slow each device is.

    A task's time counts as the product of the codelet's seconds on a reference device and a factor
    of the device on which it ran. Both are medians of the newest observations. The reference is the
    device on which a kind of device was first seen at work.

    Parameters
    ----------
    calibration : Calibration, optional
        Rates for codelets that were never observed.
    """

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration or Calibration()
        self.links = Links()
        self._curves: dict[tuple[str, str], Curve] = {}
        self._places: dict[str, dict[Place, RunningMedian]] = {}
        self._usual: dict[str, RunningMedian] = {}
        self._bytes: dict[str, RunningMedian] = {}
        self._errors: deque[float] = deque(maxlen=_KEPT_ERRORS)
        self._seen: set[tuple[str, str]] = set()
        self._observations = 0
        self._predictions = 0
        self._typical = RunningMedian()
        self._calls = RunningMedian()
        self.device_peaks = DevicePeaks()

    # --- observing ---------------------------------------------------------------------

    def observe(self, task: Task, kind: str, seconds: float, place: Place | None = None) -> int:
        """Record that ``task`` took ``seconds`` on a device of ``kind``, namely at ``place``.

        Returns
        -------
        int
            Number of further observations of this codelet at this place that will tell nothing new,
            if they come `as_expected`.
        """
        return self.observe_size(
            task.codelet.name, kind, size_of(task), seconds, place, steepest=steepest(task.cost)
        )

    def as_expected(self, predicted: float, seconds: float) -> bool:
        """Whether ``seconds`` was predicted to within a tenth; counts the observation if so."""
        error = abs(predicted - seconds)
        if error < _AS_EXPECTED * seconds:
            self._observations += 1
            self._predictions += 1
            self._errors.append(error / seconds)
            return True
        return False

    def observe_size(
        self,
        codelet: str,
        kind: str,
        size: float,
        seconds: float,
        place: Place | None = None,
        *,
        steepest: float = STEEPEST,
    ) -> int:
        """Record ``seconds`` for ``size`` units (see `size_of`); a figure that is no time is
        ignored. Return the same number as `observe`. ``steepest`` is as in `predict_size`."""
        if not (0 <= seconds < math.inf and 0 < size < math.inf):
            return 0
        curve = self._curves.pop((codelet, kind), None) or Curve()
        self._curves[codelet, kind] = curve  # as the newest
        self._seen.add((codelet, kind))
        self._forget_oldest()
        self._observations += 1
        seen = log_of(seconds)
        seen_here = curve.has_seen(size)
        known_place = False
        factor = 0.0
        if place is not None:
            places = self._places.setdefault(kind, {})
            known = places.get(place)
            known_place = known is not None
            factor = self._usual_factor(kind) if known is None else _factor(places, known)
        if curve.count:
            expected = curve.log_seconds(size, steepest) + factor
            self._predictions += 1
            self._errors.append(abs(math.expm1(min(expected - seen, 50.0))))
        if place is not None and seen_here:
            factor = self._learn_place(kind, place, seen - curve.log_seconds(size, steepest))
        elif place is not None and not known_place:
            self._places[kind][place] = RunningMedian((factor,))
        # The first time on a device tells how slow the device is, and nothing new of the codelet.
        if known_place or place is None or not seen_here:
            curve.add(size, seen - factor)
            self._typical.add(math.exp(seen - factor))
        return _SKIPPED if known_place and curve.count > _WELL_KNOWN else 0

    def _forget_oldest(self) -> None:
        while len(self._curves) > MOST_CODELETS:
            oldest = next(iter(self._curves))
            del self._curves[oldest]
            self._seen.discard(oldest)

    def _usual_factor(self, kind: str) -> float:
        """Return the logarithm of the slowness of a device of which nothing is known."""
        usual = self._usual.get(kind)
        return usual.median if usual is not None else 0.0

    def _learn_place(self, kind: str, place: Place, residual: float) -> float:
        """Return the logarithm of the slowness of ``place``, which was off by ``residual``."""
        places = self._places[kind]
        known = places.get(place)
        if known is None:
            known = places[place] = RunningMedian()
        elif len(places) == 1:
            return 0.0
        known.add(residual)
        self._usual.setdefault(kind, RunningMedian()).add(residual)
        return _factor(places, known)

    def observe_bytes(self, codelet: str, size_bytes: float) -> None:
        """Record the size of a value that ``codelet`` made."""
        known = self._bytes.pop(codelet, None) or RunningMedian()
        self._bytes[codelet] = known  # as the newest
        if len(self._bytes) > MOST_CODELETS:
            del self._bytes[next(iter(self._bytes))]
        if known.count < WINDOW_OF_BYTES or not known.count & 7:
            known.add(size_bytes)
        else:
            known.count += 1

    def observe_call(self, seconds: float) -> None:
        """Record the seconds of a call beyond its work, with no other call under way."""
        if 0 <= seconds < math.inf:
            self._calls.add(seconds)

    # --- predicting --------------------------------------------------------------------

    def predict(self, task: Task, kind: str) -> Prediction | None:
        """Predict the seconds of ``task`` on the reference device of ``kind``.

        None if neither history nor hint says anything.
        """
        seen = self.predict_size(task.codelet.name, kind, size_of(task), steepest(task.cost))
        if seen is not None:
            return seen
        seconds = self.calibration.seconds(task.cost, kind)
        return None if seconds is None else Prediction(seconds, seconds)

    def predict_size(
        self, codelet: str, kind: str, size: float, steepest: float = STEEPEST
    ) -> Prediction | None:
        """Predict seconds for ``size`` units; None if the codelet was never seen on ``kind``.

        ``steepest`` is the greatest slope at which they are predicted from other sizes.
        """
        curve = self._curves.get((codelet, kind))
        if curve is None:
            return None
        seconds = math.exp(curve.log_seconds(size, steepest))
        deviation = curve.nearest(size)[1].deviation
        return Prediction(seconds, seconds * (1.0 if deviation is None else min(deviation, 1.0)))

    def times_seen(self, task: Task, kind: str) -> int:
        """Return how many observations, up to a limit, a prediction for ``task`` comes from."""
        curve = self._curves.get((task.codelet.name, kind))
        return 0 if curve is None else len(curve.nearest(size_of(task))[1].values)

    def predict_bundle(self, bundle: Bundle, kind: str) -> Prediction | None:
        """Sum the predictions of the bundle's tasks; None if any task is unknown."""
        return self.predict_all(bundle.tasks, kind)

    def predict_all(self, tasks: Iterable[Task], kind: str) -> Prediction | None:
        """Sum the predictions of ``tasks``; None if any of them is unknown."""
        seconds = spread = 0.0
        for task in tasks:
            one = self.predict(task, kind)
            if one is None:
                return None
            seconds += one.seconds
            spread += one.spread_seconds
        return Prediction(seconds, spread)

    def seconds(self, bundle: Bundle, kind: str) -> float | None:
        """Predict as `predict_bundle` does, without the spread, for placing many."""
        total = 0.0
        for task in bundle.tasks:
            seconds = self.task_seconds(task, kind)
            if seconds is None:
                return None
            total += seconds
        return total

    def task_seconds(self, task: Task, kind: str) -> float | None:
        """Predict as `predict` does, without the spread."""
        curve = self._curves.get((task.codelet.name, kind))
        if curve is not None:
            return math.exp(curve.log_seconds(size_of(task), steepest(task.cost)))
        return self.calibration.seconds(task.cost, kind)

    @property
    def measured_call_seconds(self) -> float | None:
        """Seconds of a call by itself; None until enough were seen. The lower quartile of the
        newest calls, because other load only ever slows a call down."""
        if self._calls.count < _LEAST_CALLS:
            return None
        least, most = CALL_BOUNDS_SECONDS
        return min(max(self._calls.lower_quartile, least), most)

    @property
    def call_overhead_seconds(self) -> float:
        """Seconds of a call by itself: the measured ones, or the calibrated ones before."""
        measured = self.measured_call_seconds
        return self.calibration.call_overhead_seconds if measured is None else measured

    @property
    def typical_seconds(self) -> float:
        """Seconds assumed for a task of which nothing is known."""
        return self._typical.median if self._typical.count else _TYPICAL_SECONDS

    def slowness(self, place: Place, kind: str) -> float:
        """Return the seconds here for a second on the reference device; the usual if unseen."""
        places = self._places.get(kind, {})
        known = places.get(place)
        if known is not None:
            return math.exp(_factor(places, known))
        return math.exp(self._usual_factor(kind))

    def transfer_seconds(self, size_bytes: float, source: str = "", destination: str = "") -> float:
        """Predict the seconds to bring a value of this size to another node.

        The rate is that of transfers seen between the two nodes, else from that source to anywhere,
        else anywhere at all; before any transfer was seen it is the calibrated rate.
        """
        rate = self.links.bytes_per_second(source, destination)
        if rate is None:
            return self.calibration.transfer_seconds(size_bytes)
        return self.calibration.transfer_latency_seconds + size_bytes / rate

    def output_transfer_seconds(self, bundle: Bundle) -> float:
        """Predict the seconds to move the output of ``bundle`` to another node; 0 if unknown."""
        last = bundle.tasks[-1]
        size: float = last.cost.written_bytes
        if not size:
            known = self._bytes.get(last.codelet.name)
            size = known.median if known is not None else 0.0
        return self.transfer_seconds(size) if size else 0.0

    # --- knowledge ---------------------------------------------------------------------

    def error_report(self, newest: int = _KEPT_ERRORS) -> ErrorReport:
        """Report the error of the ``newest`` predictions, each compared with the observation that
        came after it. No more than 4,096 are kept."""
        errors = list(self._errors)[-newest:] if newest > 0 else []
        middle = median(errors) if errors else None
        return ErrorReport(middle, self._predictions, self._observations)

    def knowledge(self) -> list[Knowledge]:
        """Return all knowledge of the codelets that were observed, for a store."""
        return [
            Knowledge(
                codelet,
                kind,
                tuple(math.exp(value) for value in sizes.values),
                tuple(math.exp(value) for value in seconds.values),
            )
            for (codelet, kind), curve in self._curves.items()
            if (codelet, kind) in self._seen
            for sizes, seconds in curve.classes.values()
        ]

    def learn(self, known: Iterable[Knowledge]) -> None:
        """Take in the knowledge of earlier sessions on sizes that this one has not seen."""
        for one in known:
            curve = self._curves.setdefault((one.codelet, one.kind), Curve())
            fresh = {size_class(size) for size in one.sizes if not curve.has_seen(size)}
            for size, seconds in zip(one.sizes, one.seconds, strict=True):
                if size_class(size) in fresh:
                    curve.add(size, log_of(seconds))
            if not curve.classes:
                del self._curves[one.codelet, one.kind]
            self._forget_oldest()


def _factor(places: Sized, known: RunningMedian) -> float:
    """Return the logarithm of the slowness of one of ``places``. The only place is the reference:
    if it differed from earlier sessions, that may have been one slow start."""
    return known.median if len(places) > 1 else 0.0


WINDOW_OF_BYTES = 16
"""Sizes of values are taken in one by one up to this count, then every eighth."""


def size_of(task: Task) -> float:
    """Return the size of a task on the axis of its codelet's curve."""
    return size_of_cost(task.cost)


def size_of_cost(cost: CostHint) -> float:
    """Return the size that a cost stands for: flops if hinted, else bytes moved if hinted, else
    items."""
    return float(cost.flops or cost.read_bytes + cost.written_bytes or cost.items or 1)


def steepest(cost: CostHint) -> float:
    """Return the greatest slope at which a task of this cost is predicted from other sizes."""
    return STEEPEST_OF_WORK if cost.flops or cost.read_bytes or cost.written_bytes else STEEPEST
