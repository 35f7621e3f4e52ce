"""Work that waits because the cluster cannot run it now: how long it waits, and the error at the
end.

The layer of the Dispatcher between faults and the state machine.
"""

from __future__ import annotations

import math

from agentic_ray.graph.task import Where
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.records import Graph, Record, RetryRules
from agentic_ray.schedule.recovery import Recovery
from agentic_ray.schedule.refusal import no_device, no_node, starved
from agentic_ray.schedule.speculation import SpeculationRules


class Waiting(Recovery):
    """Used only as the base of the Dispatcher."""

    def __init__(
        self, policy: Policy, model: CostModel, speculation: SpeculationRules, retry: RetryRules
    ) -> None:
        super().__init__(policy, model, speculation, retry)
        self._graphs: dict[str, Graph] = {}
        self._stranded: dict[tuple[tuple[str, ...], Where], float] = {}
        self._nodeless_since: float | None = None
        self._starving: dict[Record, BaseException] = {}

    @property
    def obstacle(self) -> str | None:
        """Text for people about the thing that all work waits for; None if it goes on."""
        if self._nodeless_since is not None:
            seconds = self.retry.no_node_seconds
            return f"no node of the cluster takes work; one is waited for, {seconds:.0f} s at most"
        return self._scarcity.text() if self._starving else None

    @property
    def _waits(self) -> bool:
        """Whether some work waits that `_give_up_waiting` looks after."""
        return bool(self._starving) or self._nodeless_since is not None

    @property
    def _next_end_of_waiting(self) -> float | None:
        """Time at which waiting work is looked at again."""
        due: list[float] = []
        if self._scarcity.node_ids:  # else it may be tried now, and fails if it is killed again
            due += [
                record.starved_at + self.retry.memory_wait_seconds
                for record in self._starving
                if record.starved_at is not None
            ]
        if self._nodeless_since is not None:
            due.append(self._nodeless_since + self.retry.no_node_seconds)
        if self._scarcity.until_seconds is not None:
            due.append(self._scarcity.until_seconds)
        return min((at for at in due if at < math.inf), default=None)

    def _wake_rested(self) -> None:
        """Use nodes again that have rested long enough."""
        for node_id in self._scarcity.elapse(self.view.now_seconds):
            for executor in self.view.rows.get(node_id, ()):
                executor.silent = False
                self._unplan(executor)

    def _has_starved(self, record: Record) -> bool:
        """Whether a bundle has waited long enough for memory that others hold."""
        since = record.starved_at
        waited = None if since is None else self.view.now_seconds - since
        return waited is not None and waited >= self.retry.memory_wait_seconds

    def _fail_starved(self, record: Record, error: BaseException) -> None:
        assert record.starved_at is not None
        assert record.starved_by is not None
        seconds = self.view.now_seconds - record.starved_at
        failure = starved(record, seconds, record.starved_by, error)
        self._fail_graph(record.graph, failure, record.bundle)

    def _give_up_waiting(self) -> None:
        """Fail the work that has waited too long for memory or for a node."""
        now = self.view.now_seconds
        for record, error in list(self._starving.items()):
            over = record.graph.over or record.graph.finished
            if record.done or over or record.running or record.starved_at is None:
                del self._starving[record]
            elif self._has_starved(record) and self._scarcity.node_ids:
                self._fail_starved(record, error)
        unfinished = [g for g in self._graphs.values() if not (g.over or g.finished)]
        if self.view.executors or not unfinished:
            self._nodeless_since = None
            return
        if self._nodeless_since is None:
            self._nodeless_since = now
        elif now >= self._nodeless_since + self.retry.no_node_seconds:
            for graph in unfinished:
                self._fail_graph(graph, no_node(now - self._nodeless_since), None)
            self._nodeless_since = None

    def _give_up_stranded(self) -> None:
        """Fail the work that has waited too long for a kind of device that is not there."""
        kinds_here = self.view.pools
        waiting: dict[tuple[tuple[str, ...], Where], float] = {}
        for (kinds, _, where), queue in self._ready.items():
            if queue and kinds_here and not self.view.has(kinds, where):
                since = self._stranded.get((kinds, where), self.view.now_seconds)
                if self.view.now_seconds < since + self.retry.patience_seconds:
                    waiting[kinds, where] = since
                    continue
                while (record := queue.take({})) is not None:
                    record.queued = False
                    if not record.graph.finished:
                        error = no_device(record.bundle, self.view)
                        self._fail_graph(record.graph, error, record.bundle)
        self._stranded = waiting
