"""Graphs of the Dispatcher: how they are taken in, and how they finish, fail and are forgotten."""

from __future__ import annotations

from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.ahead import MOST_BUNDLES, best_ranks
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.contract import Offers
from agentic_ray.schedule.events import Cancel, FailGraph, FinishGraph, GraphSubmitted
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.ranks import mean_seconds, upward_ranks
from agentic_ray.schedule.records import Attempt, Graph, Lane, Record, all_traits, urgency
from agentic_ray.schedule.refusal import refusal
from agentic_ray.schedule.upcoming import most_ahead


class Graphs:
    """Beginning and end of graphs, and of the attempts that an end makes useless."""

    def __init__(self, books: Books, queues: Queues, plans: Plans, offers: Offers) -> None:
        self._books = books
        self._queues = queues
        self._plans = plans
        self._offers = offers

    def submit(self, event: GraphSubmitted) -> None:
        """Accept a graph: rank its bundles, and offer those that are ready. Refuse a graph that no
        node can ever run."""
        books = self._books
        bundles, first_id = event.bundles, books.next_bundle_id
        count = len(bundles)
        outputs = frozenset(event.outputs)
        graph = Graph(event.graph_id, outputs, event.priority, first_id, bundles)
        graph.ended = bytearray(count)
        books.graphs[event.graph_id] = graph
        whole = count <= MOST_BUNDLES and self._offers.looks_ahead and most_ahead(books) > 0
        ranks = self._ranks(event, whole)
        order = self._offers.order
        graph.traits = all_traits(
            bundles, ranks, lambda own, rank: order(event.priority + own, rank, event.time)
        )
        books.next_bundle_id += count
        may_grow = books.retry.may_grow
        refused = refusal(zip(bundles, graph.traits, strict=True), books.view, may_grow=may_grow)
        if refused is not None:
            self.fail(graph, *refused)
            return
        ready: dict[Lane, list[int]] = {}
        graph.uses = uses = dict.fromkeys(event.outputs, 1)
        consumers = graph.consumers
        last = None
        for bundle_id, (bundle, traits) in enumerate(
            zip(bundles, graph.traits, strict=True), first_id
        ):
            inputs = bundle.inputs
            if not inputs:
                if traits is not last:
                    last, alike = traits, ready.setdefault(traits.lane, [])
                alike.append(bundle_id)
                continue
            record = graph.record(bundle_id)
            for key in inputs:
                consumers.setdefault(key, []).append(record)
                uses[key] = uses.get(key, 0) + 1
        graph.outputs_missing = len(outputs)
        if whole:
            graph.sequence = sorted(
                map(graph.record, range(first_id, first_id + count)), key=urgency
            )
        self._queues.add(graph, ready)
        self.maybe_finish(graph)

    def _ranks(self, event: GraphSubmitted, whole: bool) -> list[float]:
        """Return the ranks of a graph's bundles, where the policy makes something of them."""
        bundles, view, model = event.bundles, self._books.view, self._books.model
        if whole:
            return best_ranks(bundles, view, model)
        if self._offers.plans_ahead:
            return upward_ranks(bundles, mean_seconds(view, model), model.output_transfer_seconds)
        return [0.0] * len(bundles)

    def maybe_finish(self, graph: Graph) -> None:
        """Tell that a graph is finished, once all its outputs are there."""
        if not graph.outputs_missing and not graph.finished and not graph.over:
            graph.finished = True
            self._books.commands.append(FinishGraph(graph.graph_id))

    def fail(self, graph: Graph, error: BaseException, bundle: Bundle | None) -> None:
        """End a graph with an error, of a bundle if one is to blame."""
        graph.over = True
        for record in graph.under_way:
            self.cancel_attempts(record)
        self.withdraw(graph)
        self._books.commands.append(FailGraph(graph.graph_id, error, bundle))

    def forget(self, graph_id: str) -> Graph | None:
        """Forget a graph that nobody wants any more, and return it; None if it is not known."""
        graph = self._books.graphs.pop(graph_id, None)
        if graph is None:
            return None
        graph.over = True
        for record in graph.under_way:
            self.cancel_attempts(record)
        if graph.untaken or any(record.queued for record in graph.records.values()):
            self.withdraw(graph)  # its bundles must not keep it alive in the queues
        return graph

    def withdraw(self, graph: Graph) -> None:
        """Remove a graph that is over from the ready and the planned bundles."""
        self._plans.withdraw(graph)
        self._queues.withdraw(graph)

    def cancel_attempts(self, record: Record) -> None:
        """Cancel all attempts of a bundle that are under way."""
        if record.running:
            attempts = self._books.attempts
            for number in range(record.attempts):
                key = (record.bundle_id, number)
                if key in attempts:
                    self.cancel(key, attempts[key])

    def cancel(self, key: tuple[int, int], attempt: Attempt) -> None:
        """Cancel an attempt, once."""
        if not attempt.cancelled:
            attempt.cancelled = True
            self._books.commands.append(Cancel(*key))
