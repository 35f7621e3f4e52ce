"""Consequences of a dead process or a full memory: charging, isolating, splitting bundles.

The layer of the Dispatcher between second copies and the state machine.
"""

from __future__ import annotations

from dataclasses import replace

from agentic_ray.errors import OutOfHostMemoryError, PoisonTaskError
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.events import BundleFailed, MemoryUse, Process, Split
from agentic_ray.schedule.poison import judge, process_of
from agentic_ray.schedule.pressure import Pressure, halves
from agentic_ray.schedule.records import Attempt, Record, RetryRules
from agentic_ray.schedule.scarcity import Scarcity, is_held_by_others
from agentic_ray.schedule.speculation import SpeculationRules, Speculator

_MOST_WAITS = 6
"""The pause of a function whose card others fill grows up to 2**5 times the first."""
_MOST_ROUNDS = 2
"""Times that a function which ran out of memory on every card is tried on them again."""


class Recovery(Speculator):
    """Used only as the base of the Dispatcher."""

    def _retry(self, record: Record, error: BaseException, *, final: bool = False) -> None:
        raise NotImplementedError

    def __init__(
        self, policy: Policy, model: CostModel, speculation: SpeculationRules, retry: RetryRules
    ) -> None:
        super().__init__(policy, model, speculation)
        self.retry = retry
        self.next_bundle_id = 0
        self._pressure = Pressure()
        self._scarcity = Scarcity()

    def _process_of(self, record: Record, kind: str) -> Process:
        return process_of(record, kind, self.retry)

    def _crashed(self, attempt: Attempt) -> None:
        """Handle the death of a process: charge its bundle if it was alone there, else suspect all
        of them."""
        record = attempt.record
        record.crashed = True
        if judge(attempt, self._attempts_on(attempt.executor).values()) == "guilty":
            record.failures += 1
        elif attempt.executor.kind != "cpu":
            record.losses += 1
        if attempt.executor.kind == "cpu":
            record.lane = (
                record.lane[0],
                True,
                record.lane[2],
            )  # from now on in a process of its own

    def _function_failed(self, attempt: Attempt, event: BundleFailed) -> bool:
        """Handle a failure of a function on a card that says something of the card or of the
        function's own process; return False for all others.

        Memory that did not suffice: the next card, where there is one on which it has not been
        tried; then a CPU; without one the cards once more after a pause, since other programs may
        have held the memory; then the graph fails. Memory that others took before the call began
        costs nothing but a pause.
        """
        record, error = attempt.record, event.error
        cpu = "cpu" in record.lane[0]
        if event.cause == "memory":
            record.short |= {attempt.executor.place}
            final = False
            if self._has_other_card(record):
                record.waits = 0
                record.note = f"{attempt.executor.device} had too little memory"
            elif cpu:
                self._send_to_cpu(record, f"no card had enough memory: {error}")
            elif record.rounds < _MOST_ROUNDS:
                record.rounds += 1
                record.waits = _MOST_WAITS
                record.short = frozenset()
            else:
                final = True
            self._retry(record, error, final=final)
            return True
        if event.cause == "card_full":
            record.waits = min(record.waits + 1, _MOST_WAITS)
            self._retry(record, error)
            return True
        if event.cause != "crash":
            return False
        if not isinstance(error, PoisonTaskError | OutOfHostMemoryError):
            record.losses += 1  # the executor's process died, not the function's
        else:
            record.failures += 1
            if record.failures > self.retry.max_failures and cpu:
                record.crashed = True
                self._send_to_cpu(record, "it ends its process on every card")
        self._retry(record, error)
        return True

    def _pressed(self, attempt: Attempt, use: MemoryUse | None) -> Record:
        """Handle a node that ran out of memory: run fewer bundles at once there, and this one in
        halves. If other programs hold the memory, send the node nothing new for a while, and charge
        nothing.

        Return the bundle to try again now: the first half if it could be split.
        """
        record, node_id = attempt.record, attempt.executor.node_id
        running = 1 + sum(one.executor.node_id == node_id for one in self._attempts.values())
        now = self.view.now_seconds
        at_once = min(running, attempt.executor.slots)
        if self._pressure.cut(node_id, at_once, attempt.sent_seconds, now):
            self._limit_slots(node_id)
        if use is not None and is_held_by_others(use):
            self._scarcity.killed(node_id, use, now)
            self._rest(node_id)
            if record.starved_at is None:
                record.starved_at = now
            record.starved_by = use
            return record
        record.starved_at = None
        first = None
        graph = record.graph
        if not (record.running or record.again or record.done or graph.over or graph.finished):
            first = self._split(record)
        if first is not None:
            return first  # uncharged: a bundle can be split only so often
        if running == 1:
            record.too_large += 1
        else:
            record.losses += 1
        return record

    def _rest(self, node_id: str) -> None:
        """Give nothing new to a node, and its planned bundles to others."""
        for executor in self.view.rows.get(node_id, ()):
            if not executor.silent:
                executor.silent = True
                self._unplan(executor)

    def _limit_slots(self, node_id: str) -> None:
        """Give a node's CPU as many slots as its `Pressure` allows."""
        executor = self.view.executors.get((node_id, "cpu"))
        if executor is not None:
            executor.slots = self._pressure.allowed(node_id)
            self._touch(executor)

    def _ease_pressure(self) -> None:
        for node_id in self._pressure.ease(self.view.now_seconds):
            self._limit_slots(node_id)

    def _split(self, record: Record) -> Record | None:
        """Split a bundle in two; return the first, None if it is a single task."""
        parts = halves(record.bundle)
        if parts is None:
            return None
        graph = record.graph
        for key in record.bundle.inputs:
            graph.uses[key] -= 1
            graph.consumers[key].remove(record)
        first = replace(record, bundle=parts[0], bundle_id=self.next_bundle_id, attempts=0)
        record.bundle = parts[1]
        self.next_bundle_id += 1
        graph.records[first.bundle_id] = first
        graph.sequence.clear()  # it is no longer planned as a whole
        for half in (first, record):
            half.resources = half.bundle.resources
            half.lane = (half.bundle.kinds(), *half.lane[1:])
            half.missing = 0
            for key in half.bundle.inputs:
                graph.uses[key] = graph.uses.get(key, 0) + 1
                graph.consumers.setdefault(key, []).append(half)
                half.missing += key not in graph.values
        graph.makers = None
        ids = (record.bundle_id, record.bundle, first.bundle_id, first.bundle)
        self._commands.append(Split(graph.graph_id, *ids))
        self._offer(record)
        return first
