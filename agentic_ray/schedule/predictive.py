"""The policy ``predictive``: every bundle where it is predicted to be finished first.

Ranks and order are the Dispatcher's, predictions the cost model's; here is only the choice.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.ahead import place_ahead
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.view import ClusterView, Executor, Pool

_Times = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Option:
    """A kind of device for a bundle; ``known`` says whether its seconds are a prediction."""

    kind: str
    pool: Pool
    available: _Times
    seconds: float
    known: bool


class Predictive:
    """Earliest finish time, as HEFT's second phase and StarPU's dmda choose.

    Bundles come in the order of their upward ranks. The finish time of each is predicted for
    every device: when the device is done with what it has and with what is planned for it, or
    when the inputs have arrived from where they are, whichever is later, and the bundle's own
    seconds there. The first to finish gets it, also if it is busy: the Dispatcher keeps it for
    that device and asks again when something changes. Graphs of few and long bundles are planned
    as a whole instead, see `ahead`.

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
        now = cluster.now_seconds
        # What this round places makes devices busy for the rest of it.
        available = {kind: np.maximum(pool.available, now) for kind, pool in cluster.pools.items()}
        alike: dict[object, list[_Option]] = {}
        fronts: dict[object, _Front] = {}
        placements: list[Placement] = []
        for bundle in ready:
            traits = _traits(bundle)
            options = alike.get(traits)
            if options is None:
                options = alike[traits] = _options(bundle, cluster, model, available)
            if not options:
                continue
            chosen = None
            if not bundle.inputs and len(ready) > 1:
                front = fronts.get(traits)
                if front is None:
                    front = fronts[traits] = _Front(options, bundle, len(ready))
                chosen = front.take()
            if chosen is None:
                chosen = _earliest(options, bundle, cluster, model)
            if chosen is None:
                continue
            option, row, finish = chosen
            executor = option.pool.executors[row]
            own = option.seconds * float(option.pool.slowness[row])
            option.available[row] = max(option.available[row], finish - own) + own / executor.slots
            placements.append(_placement(bundle, executor, finish - own, finish, option, options))
        return placements


def _traits(bundle: Bundle) -> object:
    """What decides the costs of a bundle, as long as the bundle lives."""
    task = bundle.tasks[0]
    if len(bundle.tasks) > 1:
        return bundle.key
    return id(task.codelet), id(task.resources), task.tag, id(task.cost)


class _Front:
    """The devices that finish one more bundle of a class first, for bundles that need no input.

    The finish times of all devices are computed once; a heap keeps the ``most`` earliest up to
    date, which are enough for that many bundles.
    """

    def __init__(self, options: Sequence[_Option], bundle: Bundle, most: int) -> None:
        self._options = options
        self._heap: list[tuple[float, int, int]] = []
        need = bundle.resources
        picky = need.cpus > 1 or need.memory_bytes > 0
        for number, option in enumerate(options):
            finish = option.available + option.pool.slowness * option.seconds
            rows = range(len(finish))
            if len(finish) > most:
                rows = sorted(np.argpartition(finish, most)[:most].tolist())  # type: ignore[assignment]
            times = finish.tolist()
            self._heap += [
                (times[row], number, row)
                for row in rows
                if not picky or _suits(option.pool.executors[row], bundle)
            ]
        heapq.heapify(self._heap)

    def take(self) -> tuple[_Option, int, float] | None:
        """The device that finishes first; None if none suits."""
        heap = self._heap
        while heap:
            time, number, row = heap[0]
            option = self._options[number]
            finish = float(option.available[row] + option.pool.slowness[row] * option.seconds)
            if finish == np.inf:
                return None
            if finish <= time:
                return option, row, finish
            heapq.heapreplace(heap, (finish, number, row))  # it got work since
        return None


def _options(
    bundle: Bundle, cluster: ClusterView, model: CostModel, available: dict[str, _Times]
) -> list[_Option]:
    """The kinds of device there are for a bundle, with what it takes on each.

    A kind it was never seen on is taken to be as fast as one that is known, so that it is
    tried: only by as many bundles as finish there first if that were true.
    """
    found: list[tuple[str, float | None]] = [
        (kind, model.seconds(bundle, kind))
        for kind in cluster.kinds_for(bundle)
        if kind in available
    ]
    guess = min((seconds for _, seconds in found if seconds is not None), default=None)
    if guess is None:
        guess = model.typical_seconds * len(bundle.tasks)
    return [
        _Option(
            kind,
            cluster.pools[kind],
            available[kind],
            guess if seconds is None else seconds,
            seconds is not None,
        )
        for kind, seconds in found
    ]


def _earliest(
    options: Sequence[_Option], bundle: Bundle, cluster: ClusterView, model: CostModel
) -> tuple[_Option, int, float] | None:
    """The device that is predicted to finish ``bundle`` first, its row and the time.

    None if none can be used now.
    """
    arrivals = _arrivals(bundle, cluster, model)
    far = arrivals.pop("", 0.0)
    best: tuple[float, int, int] | None = None
    for number, option in enumerate(options):
        begin = np.maximum(option.available, far)
        for node_id, arrival in arrivals.items():
            for executor in cluster.rows.get(node_id, ()):
                if executor.kind == option.kind:
                    begin[executor.row] = max(option.available[executor.row], arrival)
        finish = begin + option.pool.slowness * option.seconds
        row = int(finish.argmin())
        while finish[row] < np.inf and not _suits(option.pool.executors[row], bundle):
            finish[row] = np.inf
            row = int(finish.argmin())
        if best is None or finish[row] < best[0]:
            best = (float(finish[row]), number, row)
    if best is None or best[0] < np.inf:
        return None if best is None else (options[best[1]], best[2], best[0])
    # Too large for every device: it runs alone on the one that does it best.
    option = options[0]
    finish = option.available + option.pool.slowness * option.seconds
    row = int(finish.argmin())
    return (option, row, float(finish[row])) if finish[row] < np.inf else None


def _arrivals(bundle: Bundle, cluster: ClusterView, model: CostModel) -> dict[str, float]:
    """When all inputs can be at a node: by node for those that hold some, and "" for the others.

    Transfers of several values run side by side. Empty if nothing has to be moved.
    """
    now = cluster.now_seconds
    located = [
        (info.node_id, now if info.sent_seconds is None else info.sent_seconds, info.size_bytes)
        for key in bundle.inputs
        if (info := cluster.values.get(key)) is not None and info.node_id is not None
    ]
    if not located:
        return {}
    usual = [(at, sent + model.transfer_seconds(size, at)) for at, sent, size in located]
    arrivals = {"": max(arrival for _, arrival in usual)}
    for node_id, _ in usual:
        arrivals[node_id] = max((a for other, a in usual if other != node_id), default=now)
    odd = [node_id for at, _ in usual for node_id in model.links.odd(at)]
    for node_id in odd:
        arrivals[node_id] = max(
            (
                sent + model.transfer_seconds(size, at, node_id)
                for at, sent, size in located
                if at != node_id
            ),
            default=now,
        )
    return arrivals


def _suits(executor: Executor, bundle: Bundle) -> bool:
    """Whether the bundle fits on the device when it is alone there."""
    need = bundle.tasks[0].resources if len(bundle.tasks) == 1 else bundle.resources
    if executor.kind == "gpu":
        return True  # admission moves, splits or refuses it
    if not executor.healthy or need.cpus > max(executor.slots, 1):
        return False
    return executor.memory_bytes is None or need.memory_bytes <= executor.memory_bytes


def _placement(
    bundle: Bundle,
    executor: Executor,
    start: float,
    finish: float,
    option: _Option,
    options: Sequence[_Option],
) -> Placement:
    reason = _REASONS[executor.kind, option.known, len(options) > 1]
    if executor.kind == "cpu" and bundle.tag == "gpu" and len(options) == 1:
        reason += "; tagged gpu, but there is no usable GPU"
    if not option.known:
        return Placement(bundle.key, executor.node_id, executor.device, None, None, reason)
    return Placement(bundle.key, executor.node_id, executor.device, start, finish, reason)


_REASONS = {
    (kind, known, choice): (
        f"predicted to finish first here{', of CPUs and GPUs' if choice else f', of all {kind}s'}"
        if known
        else f"its cost on a {kind} is not known yet: the first {kind} to be free tries it"
    )
    for kind in ("cpu", "gpu")
    for known in (True, False)
    for choice in (True, False)
}
"""Said of every placement, so made once."""
