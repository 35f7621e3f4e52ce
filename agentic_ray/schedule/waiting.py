"""Work that waits because the cluster cannot run it now: how long it waits, and the error at the
end."""

from __future__ import annotations

import math
from typing import Final

from agentic_ray.graph.task import CARD, Where
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import RequestResources
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.records import Graph, Record
from agentic_ray.schedule.refusal import no_device, no_node, starved
from agentic_ray.schedule.restraint import Restraint

_KINDS: Final = 2
"""Number of device kinds: CPUs and GPUs."""


class Waiting:
    """Waits for memory that others hold, for a node, and for a kind of device."""

    def __init__(
        self, books: Books, queues: Queues, plans: Plans, graphs: Graphs, restraint: Restraint
    ) -> None:
        self._books = books
        self._view = books.view
        self._rules = books.retry
        self._queues = queues
        self._plans = plans
        self._graphs = graphs
        self._scarcity = restraint.scarcity
        self._stranded: dict[tuple[tuple[str, ...], Where], float] = {}
        self._nodeless_since: float | None = None
        self._starving: dict[Record, BaseException] = {}
        self._requested = (0, 0)

    @property
    def obstacle(self) -> str | None:
        """Text for people about the thing that all work waits for; None if it goes on."""
        if self._nodeless_since is not None:
            seconds = self._rules.no_node_seconds
            return f"no node of the cluster takes work; one is waited for, {seconds:.0f} s at most"
        if self._stranded and self._rules.may_grow:
            kinds = sorted(
                {"GPU" if k in ("gpu", CARD) else k for ks, _ in self._stranded for k in ks}
            )
            return (
                f"no node has {' or '.join(kinds)}; the autoscaler was asked, and one is waited "
                f"for, {self._rules.no_node_seconds:.0f} s at most"
            )
        return self._scarcity.text() if self._starving else None

    @property
    def next_end_seconds(self) -> float | None:
        """Time at which waiting work is looked at again."""
        rules = self._rules
        due = [since + rules.device_wait_seconds for since in self._stranded.values()]
        if self._scarcity.node_ids:  # else it may be tried now, and fails if it is killed again
            due += [
                record.starved_at + rules.memory_wait_seconds
                for record in self._starving
                if record.starved_at is not None
            ]
        if self._nodeless_since is not None:
            due.append(self._nodeless_since + rules.no_node_seconds)
        if self._scarcity.until_seconds is not None:
            due.append(self._scarcity.until_seconds)
        return min((at for at in due if at < math.inf), default=None)

    def starve(self, record: Record, error: BaseException) -> bool:
        """Note that a bundle, which was killed by ``error``, waits for memory that others hold.
        Return False, and fail its graph, if it has waited long enough."""
        if self._has_starved(record):
            self._fail_starved(record, error)
            return False
        self._starving[record] = error
        return True

    def forget(self, graph: Graph) -> None:
        """Forget the waiting bundles of a graph."""
        for record in [one for one in self._starving if one.graph is graph]:
            del self._starving[record]

    def give_up(self) -> None:
        """Fail the work that has waited too long."""
        view = self._view
        if self._stranded or self._queues.asks_for_nodes or len(view.pools) < _KINDS:
            self._give_up_stranded()
        if self._starving or self._nodeless_since is not None or not view.executors:
            self._give_up_starving()
            self._give_up_nodeless()

    def _has_starved(self, record: Record) -> bool:
        """Whether a bundle has waited long enough for memory that others hold."""
        since = record.starved_at
        waited = None if since is None else self._view.now_seconds - since
        return waited is not None and waited >= self._rules.memory_wait_seconds

    def _fail_starved(self, record: Record, error: BaseException) -> None:
        assert record.starved_at is not None
        assert record.starved_by is not None
        seconds = self._view.now_seconds - record.starved_at
        failure = starved(record, seconds, record.starved_by, error)
        self._graphs.fail(record.graph, failure, record.bundle)

    def _give_up_starving(self) -> None:
        """Fail the work that has waited too long for memory."""
        for record, error in list(self._starving.items()):
            over = record.graph.over or record.graph.finished
            if record.done or over or record.running or record.starved_at is None:
                del self._starving[record]
            elif self._has_starved(record) and self._scarcity.node_ids:
                self._fail_starved(record, error)

    def _give_up_nodeless(self) -> None:
        """Fail the work that has waited too long for a node, while there is none at all."""
        now = self._view.now_seconds
        unfinished = [g for g in self._books.graphs.values() if not (g.over or g.finished)]
        if self._view.executors or not unfinished:
            self._nodeless_since = None
            return
        if self._nodeless_since is None:
            self._nodeless_since = now
        elif now >= self._nodeless_since + self._rules.no_node_seconds:
            for graph in unfinished:
                self._graphs.fail(graph, no_node(now - self._nodeless_since), None)
            self._nodeless_since = None

    def _give_up_stranded(self) -> None:
        """Fail the work that has waited too long for a kind of device that is not there."""
        view = self._view
        kinds_here, now = view.pools, view.now_seconds
        waiting: dict[tuple[tuple[str, ...], Where], float] = {}
        for (kinds, _, where), queue in self._queues.lanes.items():
            if queue and kinds_here and not view.has(kinds, where):
                since = self._stranded.get((kinds, where), now)
                if now < since + self._rules.device_wait_seconds:
                    waiting[kinds, where] = since
                    continue
                while (record := queue.take({})) is not None:
                    record.queued = False
                    if not record.graph.finished:
                        error = no_device(record.bundle, view)
                        self._graphs.fail(record.graph, error, record.bundle)
        self._stranded = waiting

    def request_resources(self, leased_gpus: int) -> None:
        """Tell the adapter which capacity waiting work, and requests for leases of so many GPUs,
        could use, when that has changed."""
        lanes, pools = self._queues.lanes, self._view.pools
        cpus, gpus = 0, leased_gpus
        for (kinds, _, _), heap in lanes.items():
            if kinds in (("gpu",), (CARD,)):
                gpus += len(heap)
            else:
                cpus += len(heap)
        planned = 0
        if any(kinds == ("gpu",) for kinds, _, _ in lanes):
            for executor in self._plans.planning:
                planned += sum(record.lane[0] == ("gpu",) for record in executor.plan.bundles)
        gpus += planned
        cpus += self._plans.count - planned
        if cpus:
            cpus += pools["cpu"].slots if "cpu" in pools else 0
        if gpus:
            gpus += pools["gpu"].slots if "gpu" in pools else 0
        if (cpus, gpus) != self._requested:
            self._requested = (cpus, gpus)
            self._books.commands.append(RequestResources(cpus, gpus))
