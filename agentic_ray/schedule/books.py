"""The state that the parts of the Dispatcher share: graphs, attempts, executors, commands.

Data and small questions about it; the parts decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.events import Command
from agentic_ray.schedule.records import Attempt, Graph, RetryRules
from agentic_ray.schedule.view import ClusterView, Executor


@dataclass(slots=True, eq=False)
class Books:
    """The shared state of one Dispatcher.

    Parameters
    ----------
    model : CostModel
    retry : RetryRules
    view : ClusterView
        The executors, the newest telemetry and the time of the present event.
    graphs : dict
        Graphs that were submitted and not released, by id.
    attempts : dict
        Attempts that have not ended, by bundle id and number, in the order in which they began.
    own_processes : int
        Number of attempts under way that share no process.
    next_bundle_id : int
        Id that the next bundle gets.
    commands : list of Command
        Answer to the present event, in order.
    touched : dict
        Executors that changed so that bundles planned for them may be started now.
    dirty : dict
        Executors with changes that the view has not taken over.
    """

    model: CostModel
    retry: RetryRules
    view: ClusterView = field(default_factory=ClusterView)
    graphs: dict[str, Graph] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    own_processes: int = 0
    next_bundle_id: int = 0
    commands: list[Command] = field(default_factory=list)
    touched: dict[Executor, None] = field(default_factory=dict)
    dirty: dict[Executor, None] = field(default_factory=dict)

    def touch(self, executor: Executor) -> None:
        """Note that an executor changed; bundles planned for it may be started now."""
        self.touched[executor] = self.dirty[executor] = None

    def bring_up_to_date(self) -> None:
        """Let the view take over the changes of executors."""
        for executor in self.dirty:
            if executor.healthy:
                executor.pool.update(executor)
        self.dirty.clear()

    def attempts_on(self, executor: Executor) -> dict[tuple[int, int], Attempt]:
        """Return the attempts that were sent to an executor and have not ended."""
        return {key: found for key, found in self.attempts.items() if found.executor is executor}

    def tell_speed(self, executor: Executor) -> None:
        """Tell the view how slow an executor is, as given and as learnt."""
        if executor.healthy:
            learnt = self.model.slowness((executor.node_id, executor.device), executor.kind)
            executor.pool.slowness[executor.row] = learnt / executor.offer.speed

    def usual_seconds(self, executor: Executor) -> float:
        """Return the seconds that a placement counts for while its cost is unknown."""
        return self.model.typical_seconds * self.view.slowness(executor)
