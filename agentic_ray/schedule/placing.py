"""Asks the policy where ready bundles go, and carries out its answers."""

from __future__ import annotations

from collections.abc import Collection

from agentic_ray.errors import PolicyError
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.contract import Offers, Policy, check_placements
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.records import Graph, Record
from agentic_ray.schedule.starting import Starter
from agentic_ray.schedule.upcoming import upcoming
from agentic_ray.schedule.windows import window_ahead, window_with_room


class Placer:
    """Ready bundles in, plans and `Start` commands out, by the answers of a policy."""

    def __init__(
        self,
        books: Books,
        queues: Queues,
        plans: Plans,
        starter: Starter,
        graphs: Graphs,
        policy: Policy,
        offers: Offers,
    ) -> None:
        self._books = books
        self._view = books.view
        self._queues = queues
        self._plans = plans
        self._starter = starter
        self._graphs = graphs
        self._policy = policy
        self._offers = offers

    def schedule(self) -> None:
        """Offer ready bundles to the policy and start those that fit, until neither helps."""
        plans = self._plans
        if plans.count and plans.keep_up():
            return
        while True:
            self._books.bring_up_to_date()
            window = self._window()
            if window and self._place(window):
                if self._view.upcoming is not None:
                    plans.start()  # the next plan counts with the bundles that have begun
                continue
            if not plans.start():
                return

    def _window(self) -> dict[str, Record]:
        """Take the ready bundles that the policy is asked about next, by key."""
        if self._offers.plans_ahead:
            return window_ahead(self._queues, self._view, self._plans.count)
        return window_with_room(self._queues, self._view)

    def _place(self, window: dict[str, Record]) -> bool:
        """Start or plan the bundles of ``window`` that the policy places; the rest stays ready.

        Return False if nothing changed. If the policy raises, fail the graph whose bundles cause
        it.
        """
        lanes = [record.lane for record in window.values()]
        planned = self._plans.count
        error = self._try_place(window)
        blamed = self._blame(error, window) if error is not None else ()
        for record in window.values():
            if not record.running and record.plan is None:
                record.queued = False
                if record.graph not in blamed:
                    self._queues.offer(record)
        return (
            self._plans.count != planned
            or bool(blamed)
            or any(
                record.running or record.lane is not lane
                for record, lane in zip(window.values(), lanes, strict=True)
            )
        )

    def _blame(self, error: PolicyError, window: dict[str, Record]) -> Collection[Graph]:
        """Fail each graph of ``window`` whose bundles alone make the policy fail too."""
        errors: dict[Graph, PolicyError | None] = {r.graph: error for r in window.values()}
        if len(errors) > 1:
            for graph in errors:
                errors[graph] = self._try_place(
                    {key: record for key, record in window.items() if record.graph is graph}
                )
        blamed = {graph: own for graph, own in errors.items() if own is not None}
        for graph, own in blamed.items():
            if not graph.finished:
                self._graphs.fail(graph, own, None)
        return blamed

    def _try_place(self, window: dict[str, Record]) -> PolicyError | None:
        bundles = [record.bundle for record in window.values()]
        values = {
            key: record.graph.values[key]
            for record in window.values()
            for key in record.bundle.inputs
        }
        self._view.values = values
        self._view.upcoming = None
        if self._offers.looks_ahead:
            self._view.upcoming = upcoming(self._books, window, values)
        try:
            placements = list(self._policy.place(bundles, self._view, self._books.model))
            records, places = check_placements(placements, window, self._view, self._policy.name)
        except PolicyError as error:
            return error
        except Exception as error:  # a policy is user code
            raised = PolicyError(f"policy {self._policy.name!r} raised {error!r}")
            raised.__cause__ = error
            return raised
        if self._offers.plans_ahead:
            self._plans.add(placements, records, places)
            moved = bool(placements)
        else:
            moved = self._starter.start_all(placements, records, places)
        if self._books.attempts or moved:
            return None
        if not any(
            self._view.room(self._view.kinds_for(r.bundle), r.bundle.opaque, r.lane[2])
            for r in window.values()
        ):
            return None  # they prefer a device that is there and gets nothing new for now
        return PolicyError(
            f"policy {self._policy.name!r} places none of {len(window)} ready bundles where there "
            "is room although nothing is running"
        )
