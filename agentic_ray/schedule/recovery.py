"""Decides about bundles that failed: counts the failure against the bundle or against its executor,
has a bundle isolated, split or sent to another executor, and says when it is tried again."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import Final

from agentic_ray.errors import ExecutorLostError, OutOfHostMemoryError, PoisonTaskError
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.demand import Demand, is_spare
from agentic_ray.schedule.events import BundleFailed, MemoryUse, Split
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.poison import can_be_watched, judge
from agentic_ray.schedule.pressure import halves
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.records import Attempt, Graph, Record, codelet_names
from agentic_ray.schedule.refusal import interrupted, too_large
from agentic_ray.schedule.restraint import Restraint
from agentic_ray.schedule.scarcity import is_held_by_others
from agentic_ray.schedule.starting import Starter, send_to_cpu
from agentic_ray.schedule.waiting import Waiting

_MOST_WAITS: Final = 6
"""The pause of a function whose card others fill grows up to 2**5 times the first."""
_MOST_ROUNDS: Final = 2
"""Times that a function which ran out of memory on every card is tried on them again."""


class Recovery:
    """Failures in, later tries and failed graphs out."""

    def __init__(
        self,
        books: Books,
        queues: Queues,
        starter: Starter,
        graphs: Graphs,
        demand: Demand,
        restraint: Restraint,
        waiting: Waiting,
    ) -> None:
        self._books = books
        self._view = books.view
        self._rules = books.retry
        self._offer = queues.offer
        self._starter = starter
        self._graphs = graphs
        self._demand = demand
        self._restraint = restraint
        self._waiting = waiting
        self._delayed: list[tuple[float, int, Record]] = []

    @property
    def next_retry_seconds(self) -> float | None:
        """Time at which a delayed bundle is tried again; None if there is none."""
        return self._delayed[0][0] if self._delayed else None

    def wake_delayed(self) -> None:
        """Offer the bundles whose delay is over."""
        while self._delayed and self._delayed[0][0] <= self._view.now_seconds:
            record = heapq.heappop(self._delayed)[2]
            record.queued = False
            if not record.graph.over:
                self._offer(record)

    def forget(self, graph: Graph) -> None:
        """Forget the delayed bundles of a graph."""
        kept = [entry for entry in self._delayed if entry[2].graph is not graph]
        if len(kept) < len(self._delayed):
            heapq.heapify(kept)
            self._delayed = kept

    def failed(self, event: BundleFailed) -> None:
        """Take in one failed attempt: charge it to its bundle or its surroundings, and retry."""
        attempt = self._starter.end(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record = attempt.record
        if attempt.cancelled:
            self.retry(record, event.error)  # whatever it says; its values may be needed anew
            return
        if event.begun and event.cause not in ("user", "input_lost"):
            record.begun = True
            if record.bundle.has_effects:
                self.retry(record, event.error)
                return
        for items, size in event.device_peaks:
            self._books.model.device_peaks.observe(codelet_names(record.bundle), items, size)
        if attempt.process == "function" and self._function_failed(attempt, event):
            return
        if event.cause == "memory" and "cpu" in record.lane[0]:
            send_to_cpu(record, f"its GPU had too little memory: {event.error}")
        final = False
        use = event.memory
        if event.cause == "pressure" or (use is not None and is_held_by_others(use)):
            self.retry(self._pressed(attempt, use), event.error)
            return
        if attempt.process == "watched" and event.cause in ("crash", "user"):
            record.watched = True
            self.retry(record, event.error)
            return
        if event.cause == "crash":
            self._crashed(attempt)
        elif event.cause in ("input_lost", "node_lost"):
            record.losses += 1
        elif event.cause == "user":
            record.user_failures += 1
            again = isinstance(event.error, record.bundle.retry_on)
            final = not again or record.user_failures > self._rules.max_user_retries
        else:
            record.failures += 1
        self.retry(record, event.error, final=final)

    def retry(self, record: Record, error: BaseException, *, final: bool = False) -> None:
        """Try a bundle again after a while, or fail its graph if its budget is spent.

        Do neither if nobody waits for the bundle any more.
        """
        if record.done or record.graph.over or (record.running and not final):
            return
        lost_with_effects = record.begun and record.bundle.has_effects
        if is_spare(record) or (lost_with_effects and record.graph.finished):
            if record.running:
                return
            self._demand.give_up(record)
            return
        if record.graph.finished:
            return
        if lost_with_effects:
            error, final = interrupted(record.bundle, error), True
        if final:
            self._graphs.fail(record.graph, error, record.bundle)
            return
        rules = self._rules
        if record.starved_at is not None and not self._waiting.starve(record, error):
            return
        if record.too_large > rules.max_too_large:
            self._graphs.fail(record.graph, too_large(record, error), record.bundle)
            return
        if record.failures > rules.max_failures and can_be_watched(record):
            if record.lane[0] != ("cpu",):
                send_to_cpu(record, "it ends the process of every GPU it runs on")
        elif record.failures > rules.max_failures or record.losses > rules.max_losses:
            if isinstance(error, PoisonTaskError):
                self._graphs.fail(record.graph, error, record.bundle)
                return
            lost = ExecutorLostError(
                f"bundle {record.bundle.key} ({codelet_names(record.bundle)}) lost its executor "
                f"{record.failures + record.losses} times; last: {error}"
            )
            lost.__cause__ = error
            self._graphs.fail(record.graph, lost, record.bundle)
            return
        failures = record.failures + record.losses + record.user_failures + record.waits
        due = self._view.now_seconds + rules.delay_seconds(record.bundle.key, failures)
        record.queued = True  # not to be offered before it is due
        heapq.heappush(self._delayed, (due, record.bundle_id, record))

    def _crashed(self, attempt: Attempt) -> None:
        """Handle the death of a process: charge its bundle if it was alone there, else suspect all
        of them."""
        record = attempt.record
        record.crashed = True
        if judge(attempt, self._books.attempts_on(attempt.executor).values()) == "guilty":
            record.failures += 1
        elif attempt.executor.kind != "cpu":
            record.losses += 1
        if attempt.executor.kind == "cpu":
            # From now on in a process of its own.
            record.lane = (record.lane[0], True, record.lane[2])

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
                send_to_cpu(record, f"no card had enough memory: {error}")
            elif record.rounds < _MOST_ROUNDS:
                record.rounds += 1
                record.waits = _MOST_WAITS
                record.short = frozenset()
            else:
                final = True
            self.retry(record, error, final=final)
            return True
        if event.cause == "card_full":
            record.waits = min(record.waits + 1, _MOST_WAITS)
            self.retry(record, error)
            return True
        if event.cause != "crash":
            return False
        if not isinstance(error, PoisonTaskError | OutOfHostMemoryError):
            record.losses += 1  # the executor's process died, not the function's
        else:
            record.failures += 1
            if record.failures > self._rules.max_failures and cpu:
                record.crashed = True
                send_to_cpu(record, "it ends its process on every card")
        self.retry(record, error)
        return True

    def _pressed(self, attempt: Attempt, use: MemoryUse | None) -> Record:
        """Handle a node that ran out of memory: run fewer bundles at once there, and this one in
        halves. If other programs hold the memory, send the node nothing new for a while, and charge
        nothing.

        Return the bundle to try again now: the first half if it could be split.
        """
        record, node_id = attempt.record, attempt.executor.node_id
        running = 1 + sum(one.executor.node_id == node_id for one in self._books.attempts.values())
        now = self._view.now_seconds
        at_once = min(running, attempt.executor.slots)
        self._restraint.cut(node_id, at_once, attempt.sent_seconds)
        if use is not None and is_held_by_others(use):
            self._restraint.rest(node_id, use)
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

    def _split(self, record: Record) -> Record | None:
        """Split a bundle in two; return the first, None if it is a single task."""
        parts = halves(record.bundle)
        if parts is None:
            return None
        graph = record.graph
        for key in record.bundle.inputs:
            graph.uses[key] -= 1
            graph.consumers[key].remove(record)
        first = replace(record, bundle=parts[0], bundle_id=self._books.next_bundle_id, attempts=0)
        record.bundle = parts[1]
        self._books.next_bundle_id += 1
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
        self._books.commands.append(Split(graph.graph_id, *ids))
        self._offer(record)
        return first

    def _has_other_card(self, record: Record) -> bool:
        """Whether there is a card on which a batch has not run out of memory."""
        return any(
            card.healthy and card.place not in record.short and card.suits(record.lane[2])
            for card in self._view.cards()
        )
