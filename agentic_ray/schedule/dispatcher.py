"""The Dispatcher: one deterministic state machine makes every decision of a run.

Events in, commands out. No Ray, no clock, no threads, no I/O: the runtime and the simulator
are its two adapters. An adapter must report every started attempt exactly once, as finished or
failed, also after a Cancel; late reports are recognised and ignored.

The Dispatcher holds parts that share `Books`, the state of the run, and asks them in a fixed order.
Each part knows only the parts that it is given.
"""

from __future__ import annotations

from agentic_ray.errors import JobCancelledError
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.cards import CardPlacer
from agentic_ray.schedule.contract import Offers, Policy
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.demand import Demand
from agentic_ray.schedule.events import (
    BundleFailed,
    BundleFinished,
    BundleStarted,
    CancelRequested,
    Command,
    Event,
    GpuLost,
    GraphReleased,
    GraphSubmitted,
    LeaseReleased,
    LeaseRequested,
    Location,
    NodeLost,
    NodeUp,
    Release,
    Telemetry,
    Tick,
    ValueLost,
)
from agentic_ray.schedule.finishing import Finisher
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.leases import Leases
from agentic_ray.schedule.membership import Membership
from agentic_ray.schedule.placing import Placer
from agentic_ray.schedule.plans import Plans
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.records import Attempt, RetryRules
from agentic_ray.schedule.recovery import Recovery
from agentic_ray.schedule.restraint import Restraint
from agentic_ray.schedule.speculation import SpeculationRules, Speculator
from agentic_ray.schedule.starting import Starter
from agentic_ray.schedule.waiting import Waiting
from agentic_ray.telemetry.collector import DEFAULT_INTERVAL_SECONDS

__all__ = ["Dispatcher", "RetryRules", "SpeculationRules"]


class Dispatcher:
    """The state machine (see the module). ``handle`` is the whole interface; the rest are read-only
    questions.

    Parameters
    ----------
    policy : Policy
        Decides where ready bundles go.
    model : CostModel, optional
        Predicts and learns; the default knows nothing yet.
    retry : RetryRules, optional
    speculation : SpeculationRules, optional
    report_seconds : float
        Time between two reports of a node.
    """

    def __init__(
        self,
        policy: Policy,
        model: CostModel | None = None,
        retry: RetryRules | None = None,
        *,
        speculation: SpeculationRules | None = None,
        report_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        self.policy = policy
        self.model = model or CostModel()
        self.retry = retry or RetryRules()
        self.speculation = speculation or SpeculationRules()
        self.report_seconds = report_seconds
        self._books = books = Books(self.model, self.retry)
        self.view = books.view
        offers = Offers.of(policy)
        queues = Queues()
        starter = Starter(books)
        plans = Plans(books, queues, starter)
        self._graphs = graphs = Graphs(books, queues, plans, offers)
        self._demand = demand = Demand(books, queues, graphs)
        self._placer = Placer(books, queues, plans, starter, graphs, policy, offers)
        self._leases = Leases(books)
        self._cards = CardPlacer(books, queues, starter, self._placer, self._leases)
        self._speculator = Speculator(books, starter, self.speculation)
        self._restraint = restraint = Restraint(books, plans, report_seconds)
        self._waiting = Waiting(books, queues, plans, graphs, restraint)
        self._recovery = recovery = Recovery(
            books, queues, starter, graphs, demand, restraint, self._waiting
        )
        self._membership = Membership(
            books, plans, starter, graphs, demand, self._leases, restraint, recovery
        )
        self._finisher = Finisher(books, starter, graphs, demand, self._speculator, restraint)

    # --- questions ---------------------------------------------------------------------

    @property
    def next_bundle_id(self) -> int:
        """Id that the next bundle gets. An adapter may set it before it submits anything."""
        return self._books.next_bundle_id

    @next_bundle_id.setter
    def next_bundle_id(self, bundle_id: int) -> None:
        self._books.next_bundle_id = bundle_id

    def expects(self, bundle_id: int, attempt: int) -> bool:
        """Whether a report about this attempt still counts."""
        known = self._books.attempts.get((bundle_id, attempt))
        return known is not None and not known.record.done and not known.record.graph.over

    def attempt(self, bundle_id: int, attempt: int) -> Attempt | None:
        """Return an attempt that has not ended; None if there is none of these numbers."""
        return self._books.attempts.get((bundle_id, attempt))

    @property
    def under_way(self) -> frozenset[tuple[int, int]]:
        """Bundle ids and numbers of the attempts that have not ended."""
        return frozenset(self._books.attempts)

    def knows(self, graph_id: str) -> bool:
        """Whether a graph was submitted here and not released."""
        return graph_id in self._books.graphs

    def value_info(self, graph_id: str, key: str) -> Location | None:
        """Return where a value of a graph is; None if it is not there."""
        graph = self._books.graphs.get(graph_id)
        return None if graph is None else graph.values.get(key)

    def lease_books(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return the places of each lease that is granted."""
        return self._leases.granted()

    @property
    def open_leases(self) -> tuple[str, ...]:
        """Ids of the leases that are granted or asked for."""
        return self._leases.open_ids

    @property
    def obstacle(self) -> str | None:
        """Text for people about the thing that all work waits for; None if it goes on."""
        return self._waiting.obstacle

    @property
    def next_wakeup_seconds(self) -> float | None:
        """Time at which a Tick is needed: for a delayed retry, for the end of a wait, or to look
        for late bundles.

        The time is on the adapter's clock; None: no Tick is needed before something else happens.
        """
        due = (
            self._speculator.next_look_seconds,
            self._waiting.next_end_seconds,
            self._leases.next_end_seconds,
            self._recovery.next_retry_seconds,
        )
        return min([at for at in due if at is not None], default=None)

    @property
    def idle(self) -> bool:
        """Whether no graph is unfinished and nothing runs."""
        graphs = self._books.graphs.values()
        return not self._books.attempts and all(g.finished or g.over for g in graphs)

    # --- the state machine -------------------------------------------------------------

    def handle(self, event: Event) -> list[Command]:
        """Take one event in; return the commands that it leads to, in order."""
        commands: list[Command] = []
        self._books.commands = commands
        self.view.now_seconds = event.time
        if isinstance(event, BundleFinished):  # most events by far
            self._finisher.finished(event)
        elif isinstance(event, BundleStarted):
            self._started(event)
            return commands
        else:
            self._take(event)
        self._recovery.wake_delayed()
        if self._restraint.scarcity.node_ids:
            self._restraint.wake_rested()
        self._leases.grant()
        self._placer.schedule()
        self._cards.schedule()
        if event.time >= self._speculator.look_at:
            self._speculator.speculate()
        self._waiting.give_up()
        if isinstance(event, Tick):
            self._restraint.ease()
            self._waiting.request_resources(self._leases.wanted_gpus)
        return commands

    def _take(self, event: Event) -> None:
        """Give an event of a rarer kind to its part; a Tick only lets time pass."""
        match event:
            case BundleFailed():
                self._recovery.failed(event)
            case GraphSubmitted():
                self._graphs.submit(event)
            case GraphReleased():
                self._released(event)
            case CancelRequested():
                self._cancel_requested(event)
            case ValueLost():
                self._value_lost(event)
            case Telemetry():
                self._restraint.observe(event)
            case NodeUp():
                self._membership.node_up(event)
            case NodeLost():
                self._membership.node_lost(event)
            case GpuLost():
                self._membership.gpu_lost(event)
            case LeaseRequested():
                self._leases.request(event)
            case LeaseReleased():
                self._leases.release(event)
            case _:
                pass

    def _started(self, event: BundleStarted) -> None:
        attempt = self._books.attempts.get((event.bundle_id, event.attempt))
        if attempt is not None:
            attempt.started = True
            attempt.begun_seconds = event.time

    def _released(self, event: GraphReleased) -> None:
        graph = self._graphs.forget(event.graph_id)
        if graph is None:
            return
        self._waiting.forget(graph)
        self._recovery.forget(graph)
        if graph.values:
            self._books.commands.append(Release(graph.graph_id, tuple(graph.values)))

    def _cancel_requested(self, event: CancelRequested) -> None:
        graph = self._books.graphs.get(event.graph_id)
        if graph is not None and not graph.over and not graph.finished:
            error = JobCancelledError(f"job {event.graph_id} was cancelled")
            self._graphs.fail(graph, error, None)

    def _value_lost(self, event: ValueLost) -> None:
        graph = self._books.graphs.get(event.graph_id)
        if graph is not None:
            self._demand.lose(graph, [event.key])
