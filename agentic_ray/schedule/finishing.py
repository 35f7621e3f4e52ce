"""Bundles that finished: their values, and what the cost model learns from them."""

from __future__ import annotations

from agentic_ray.schedule.books import Books
from agentic_ray.schedule.cost_model import MOST_CODELETS
from agentic_ray.schedule.demand import Demand
from agentic_ray.schedule.events import BundleFinished
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.records import Attempt, codelet_names
from agentic_ray.schedule.restraint import Restraint
from agentic_ray.schedule.speculation import Speculator
from agentic_ray.schedule.starting import Starter


class Finisher:
    """Takes in finished bundles; of several copies of a bundle the first counts."""

    def __init__(
        self,
        books: Books,
        starter: Starter,
        graphs: Graphs,
        demand: Demand,
        speculator: Speculator,
        restraint: Restraint,
    ) -> None:
        self._books = books
        self._model = books.model
        self._starter = starter
        self._graphs = graphs
        self._demand = demand
        self._speculator = speculator
        self._scarcity = restraint.scarcity

    def finished(self, event: BundleFinished) -> None:
        """Take in one finished bundle."""
        attempt = self._starter.end(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record = attempt.record
        graph = record.graph
        self._learn_from(event, attempt)
        for items, size in event.device_peaks:
            self._model.device_peaks.observe(codelet_names(record.bundle), items, size)
        if self._scarcity.tried:
            self._scarcity.went_well(attempt.executor.node_id)
        if record.done or graph.over:
            return
        record.done = True
        if record.running:
            self._speculator.learn_from_late(attempt, event.seconds)
            self._graphs.cancel_attempts(record)
        self._demand.made(record, event.values)
        graph.forget(record)

    def _learn_from(self, event: BundleFinished, attempt: Attempt) -> None:
        """Pass measured seconds on to the cost model, if they may tell something new."""
        executor, model = attempt.executor, self._model
        tasks, times, settled = attempt.record.bundle.tasks, event.task_seconds, executor.settled
        last = tasks[-1].codelet.name
        if times and settled.get(last) and model.as_expected(attempt.predicted_seconds, sum(times)):
            settled[last] -= 1
        elif times:
            for task, seconds in zip(tasks, times, strict=False):
                seconds *= executor.offer.speed
                kind = "cpu" if executor.kind == "cpu" else "gpu"
                left = model.observe(task, kind, seconds, executor.place)
                settled[task.codelet.name] = left
            if len(settled) > MOST_CODELETS:
                settled.clear()  # then the next bundles of each codelet are learnt from again
            self._books.tell_speed(executor)
        for one in event.transfers:
            model.links.record(one.source, one.destination, one.size_bytes, one.seconds)
