"""The policy ``predictive``: every bundle where it is predicted to be finished first.

The Dispatcher makes ranks and order, the cost model predictions; this module only chooses.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, repeat

import numpy as np
import numpy.typing as npt

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.ahead import place_ahead
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.placement import Placement, new_tuple
from agentic_ray.schedule.view import ClusterView, Pool

_Times = npt.NDArray[np.float64]


class Predictive:
    """Policy of the earliest finish time, as in HEFT's second phase and StarPU's dmda.

    Bundles come in the order of their upward ranks. The finish time of each is predicted for every
    device: a bundle begins when the device is done with all work sent and planned there, or when
    the inputs have arrived, whichever is later, and takes its own seconds there. The device that
    finishes first gets it, even if it is busy: the Dispatcher keeps the bundle for that device and
    asks again when something changes. Graphs of few and long bundles are planned as a whole
    instead, see `ahead`.

    References
    ----------
    H. Topcuoglu, S. Hariri, M.-Y. Wu, IEEE TPDS 13(3), 2002 (HEFT); C. Augonnet et al., CCPE
    23(2), 2011 (dmda).
    """

    name = "predictive"
    plans_ahead = True
    looks_ahead = True

    def place(
        self, ready: Sequence[Bundle], cluster: ClusterView, model: CostModel
    ) -> Sequence[Placement]:
        if cluster.upcoming is not None:
            begun = place_ahead(ready, cluster.upcoming, cluster, model)
            if begun or (begun is not None and cluster.upcoming.busy):
                return begun
        return _Round(cluster, model).place(ready)


@dataclass(slots=True)
class _Option:
    """A kind of device for bundles of a class.

    ``available`` is when each device is done with all bundles that were placed there, also in this
    round, ``own`` the seconds of a bundle on each, ``seconds`` those on the reference device.
    ``known`` says whether that is a prediction, ``reason`` is the text for the user. A ``picky``
    bundle does not fit on every device.
    """

    kind: str
    pool: Pool
    available: _Times
    own: _Times
    seconds: float
    known: bool
    picky: bool
    reason: str

    def give(
        self, bundle: Bundle, row: int, free: float, finish: float, own: float
    ) -> tuple[Placement, float]:
        """Give ``bundle`` to a device that is free at ``free``. The bundle takes ``own`` seconds
        there and ends at ``finish``. Return its placement and the time at which the device is free
        after it."""
        executor = self.pool.executors[row]
        begin = finish - own
        free = (free if free > begin else begin) + own / executor.slots
        self.available[row] = free
        node_id, device = executor.place
        if not self.known:
            return Placement(bundle.key, node_id, device, None, None, self.reason), free
        placed = (bundle.key, node_id, device, begin, finish, self.reason)
        return new_tuple(Placement, placed), free


_Choice = tuple[float, _Option, int]
"""Time at which a bundle ends on a device of this option, and the row of the device."""


class _Round:
    """A window being placed; each placement makes its device busy for the rest of it."""

    def __init__(self, cluster: ClusterView, model: CostModel) -> None:
        self._cluster = cluster
        self._model = model
        self._now = now = cluster.now_seconds
        self._available = {
            kind: np.maximum(pool.available, now) for kind, pool in cluster.pools.items()
        }
        self._moves: dict[str, tuple[str, float]] = {}

    def place(self, ready: Sequence[Bundle]) -> list[Placement]:
        known: dict[object, list[_Option]] = {}
        fronts: dict[object, _Front] = {}
        placements: list[Placement] = []
        for traits, run in groupby(ready, _traits):
            alike = list(run)
            options = known.get(traits)
            if options is None:
                options = known[traits] = self._options(alike[0])
            if not options:
                continue
            if len(ready) > 1 and not alike[0].inputs:
                front = fronts.get(traits)
                if front is None:
                    front = fronts[traits] = _Front(options, alike[0], len(ready))
                placed = front.spread(alike)
                placements += placed
                alike = alike[len(placed) :]
            for bundle in alike:
                chosen = self._earliest(options, bundle)
                if chosen is not None:
                    finish, option, row = chosen
                    free, own = option.available.item(row), option.own.item(row)
                    placements.append(option.give(bundle, row, free, finish, own)[0])
        return placements

    def _options(self, bundle: Bundle) -> list[_Option]:
        """Return the kinds of device for a bundle, with the bundle's seconds on each.

        A kind on which it was never seen is taken to be as fast as a known one, so that it is
        tried: only by as many bundles as finish there first if that were true.
        """
        found: list[tuple[str, float | None]] = [
            (kind, self._model.seconds(bundle, kind))
            for kind in self._cluster.kinds_for(bundle)
            if kind in self._available
        ]
        guess = min((seconds for _, seconds in found if seconds is not None), default=None)
        if guess is None:
            guess = self._model.typical_seconds * len(bundle.tasks)
        options: list[_Option] = []
        need = bundle.resources
        for kind, seconds in found:
            pool = self._cluster.pools[kind]
            expected = guess if seconds is None else seconds
            options.append(
                _Option(
                    kind,
                    pool,
                    self._available[kind],
                    pool.slowness * expected,
                    expected,
                    known=seconds is not None,
                    picky=bool(need.where)
                    or (kind == "cpu" and (need.cpus > 1 or need.memory_bytes > 0)),
                    reason=_reason(kind, bundle, known=seconds is not None, alone=len(found) == 1),
                )
            )
        return options

    def _earliest(self, options: Sequence[_Option], bundle: Bundle) -> _Choice | None:
        """Choose where ``bundle`` would finish first; None if no device can be used now."""
        far, otherwise = self._arrivals(bundle)
        exceptions = [
            (executor, arrival)
            for node_id, arrival in otherwise.items()
            for executor in self._cluster.rows.get(node_id, ())
        ]
        best: _Choice | None = None
        for option in options:
            finish = np.maximum(option.available, far)
            finish += option.own
            for executor, arrival in exceptions:
                if executor.pool is option.pool:
                    row = executor.row
                    begin = max(option.available.item(row), arrival)
                    finish[row] = begin + option.own.item(row)
            row = int(finish.argmin())
            end = finish.item(row)
            while option.picky and end < math.inf and not _suits(option, row, bundle):
                finish[row] = np.inf
                row = int(finish.argmin())
                end = finish.item(row)
            if best is None or end < best[0]:
                best = (end, option, row)
        if best is None or best[0] < math.inf:
            return best
        # The bundle is too large for every device: it runs alone on the device that does it best.
        where = bundle.resources.where
        for option in options:
            finish = option.available + option.own
            if where:
                suits = [executor.suits(where) for executor in option.pool.executors]
                finish = np.where(suits, finish, np.inf)
            row = int(finish.argmin())
            end = finish.item(row)
            if end < math.inf:
                return end, option, row
        return None

    def _arrivals(self, bundle: Bundle) -> tuple[float, dict[str, float]]:
        """Return when all inputs can be at a node, and the nodes where that time differs.

        Transfers of several values run side by side, so only the node that holds the last value to
        arrive has all inputs sooner than others.
        """
        now = self._now
        far = near = now
        holder = ""
        moves = [
            self._moves[key] if key in self._moves else self._move(key) for key in bundle.inputs
        ]
        for node_id, arrival in moves:
            if arrival > far:
                if node_id != holder:
                    holder, near = node_id, far
                far = arrival
            elif arrival > near and node_id != holder:
                near = arrival
        otherwise = {holder: near} if near < far else {}
        links = self._model.links
        if links.any_odd:
            for node_id, _ in moves:
                for odd in links.odd(node_id):
                    otherwise[odd] = self._arrival_by_odd_links(bundle, odd)
        return far, otherwise

    def _move(self, key: str) -> tuple[str, float]:
        """Return the node that holds a value, and when the value can be at others. A value in the
        caller's memory is on no node and can be anywhere at once."""
        info = self._cluster.values.get(key)
        found = ("", self._now)
        if info is not None and info.node_id is not None:
            sent = self._now if info.sent_seconds is None else info.sent_seconds
            seconds = self._model.transfer_seconds(info.size_bytes, info.node_id)
            found = (info.node_id, sent + seconds)
        self._moves[key] = found
        return found

    def _arrival_by_odd_links(self, bundle: Bundle, node_id: str) -> float:
        """Return when all inputs can be at a node that has an odd link from some holder."""
        arrivals = [
            (self._now if info.sent_seconds is None else info.sent_seconds)
            + self._model.transfer_seconds(info.size_bytes, info.node_id, node_id)
            for key in bundle.inputs
            if (info := self._cluster.values.get(key)) is not None
            and info.node_id is not None
            and info.node_id != node_id
        ]
        return max(arrivals, default=self._now)


def _traits(bundle: Bundle) -> object:
    """Return a key that is equal for bundles of equal cost, as long as the bundle lives; whether it
    needs inputs is part of it."""
    if len(bundle.tasks) > 1:
        return bundle.key
    task = bundle.tasks[0]
    return id(task.codelet), id(task.resources), task.tag, id(task.cost), not bundle.inputs


class _Front:
    """Heap of the devices that finish one more bundle of a class first, for bundles without inputs.

    The finish times of all devices are computed once; a heap keeps the ``most`` earliest up to
    date, which are enough for that many bundles.
    """

    def __init__(self, options: Sequence[_Option], bundle: Bundle, most: int) -> None:
        self._options = options
        self._heap: list[tuple[float, int, int]] = []
        for number, option in enumerate(options):
            finish = option.available + option.own
            rows = np.arange(len(finish))
            if len(finish) > most:
                rows = np.sort(np.argpartition(finish, most)[:most])
            times = zip(finish[rows].tolist(), repeat(number), rows.tolist(), strict=False)
            if option.picky:
                self._heap += [entry for entry in times if _suits(option, entry[2], bundle)]
            else:
                self._heap += times
        heapq.heapify(self._heap)

    def spread(self, bundles: Sequence[Bundle]) -> list[Placement]:
        """Give each of ``bundles`` to the device that finishes first, as long as one suits."""
        heap, options, replace = self._heap, self._options, heapq.heapreplace
        placements: list[Placement] = []
        left = iter(bundles if heap else ())
        bundle = next(left, None)
        while bundle is not None:
            expected, number, row = heap[0]
            option = options[number]
            free, own = option.available.item(row), option.own.item(row)
            finish = free + own
            if finish == math.inf:
                break
            if finish <= expected:
                placed, free = option.give(bundle, row, free, finish, own)
                placements.append(placed)
                bundle, finish = next(left, None), free + own
            replace(heap, (finish, number, row))
        return placements


def _suits(option: _Option, row: int, bundle: Bundle) -> bool:
    """Whether the bundle's node has what it asks for and, on a CPU, the bundle fits when it is
    alone there. (Admission moves, splits or refuses a bundle that does not fit on a GPU.)"""
    executor = option.pool.executors[row]
    need = bundle.tasks[0].resources if len(bundle.tasks) == 1 else bundle.resources
    if need.where and not executor.suits(need.where):
        return False
    if executor.kind != "cpu":
        return True
    if need.cpus > max(executor.slots, 1):
        return False
    return executor.offer.memory_bytes is None or need.memory_bytes <= executor.offer.memory_bytes


def _reason(kind: str, bundle: Bundle, *, known: bool, alone: bool) -> str:
    if not known:
        reason = f"its cost on a {kind} is not known yet: the first {kind} to be free tries it"
    else:
        others = f"all {kind}s" if alone else "CPUs and GPUs"
        reason = f"predicted to finish first here, of {others}"
    if alone and kind == "cpu" and bundle.tag == "gpu":
        reason += "; tagged gpu, but there is no usable GPU"
    return reason
