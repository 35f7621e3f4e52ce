"""The Dispatcher: one deterministic state machine makes every decision of a run.

Events in, commands out. No Ray, no clock, no threads, no I/O: the runtime and the simulator
are its two adapters. An adapter must report every started attempt exactly once, as finished or
failed, also after a Cancel; late reports are recognised and ignored.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace
from operator import itemgetter

from agentic_ray.errors import (
    ExecutorLostError,
    JobCancelledError,
    LostDataError,
    PoisonTaskError,
)
from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.ahead import MOST_BUNDLES, best_ranks
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import MOST_CODELETS, CostModel
from agentic_ray.schedule.events import (
    BundleFailed,
    BundleFinished,
    BundleStarted,
    Cancel,
    CancelRequested,
    Command,
    Event,
    FailGraph,
    FinishGraph,
    GpuLost,
    GraphReleased,
    GraphSubmitted,
    LeaseReleased,
    LeaseRequested,
    Location,
    NodeLost,
    NodeUp,
    Quarantine,
    Recompute,
    Release,
    Telemetry,
    Tick,
    ValueLost,
)
from agentic_ray.schedule.poison import can_be_watched
from agentic_ray.schedule.ranks import mean_seconds, upward_ranks
from agentic_ray.schedule.ready import Fresh
from agentic_ray.schedule.records import (
    Attempt,
    Graph,
    Lane,
    Record,
    RetryRules,
    all_traits,
    codelet_names,
    urgency,
)
from agentic_ray.schedule.refusal import interrupted, refusal, too_large
from agentic_ray.schedule.scarcity import is_held_by_others
from agentic_ray.schedule.speculation import SpeculationRules
from agentic_ray.schedule.view import Executor
from agentic_ray.schedule.waiting import Waiting
from agentic_ray.telemetry.collector import DEFAULT_INTERVAL_SECONDS
from agentic_ray.telemetry.health import is_silent

_TRANSITIONS: dict[type, str] = {
    BundleFailed: "_failed",
    GraphSubmitted: "_submitted",
    GraphReleased: "_released",
    ValueLost: "_value_lost",
    NodeUp: "_node_up",
    NodeLost: "_node_lost",
    GpuLost: "_gpu_lost",
    Telemetry: "_observed",
    CancelRequested: "_cancel_requested",
    LeaseRequested: "_lease_requested",
    LeaseReleased: "_lease_released",
}
"""Method that takes in each other event; a Tick only lets time pass."""
_KINDS = 2
"""Number of device kinds: CPUs and GPUs."""


__all__ = ["Dispatcher", "RetryRules", "SpeculationRules"]


class Dispatcher(Waiting):
    """The state machine (see the module). ``handle`` is the whole interface; the rest are read-only
    questions."""

    def __init__(
        self,
        policy: Policy,
        model: CostModel | None = None,
        retry: RetryRules | None = None,
        *,
        speculation: SpeculationRules | None = None,
        report_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        super().__init__(
            policy,
            model or CostModel(),
            speculation or SpeculationRules(),
            retry or RetryRules(),
        )
        self.report_seconds = report_seconds
        self._delayed: list[tuple[float, int, Record]] = []
        self._executor_count = 0
        self._begin_leases()

    # --- questions ---------------------------------------------------------------------

    def expects(self, bundle_id: int, attempt: int) -> bool:
        """Whether a report about this attempt still counts."""
        known = self._attempts.get((bundle_id, attempt))
        return known is not None and not known.record.done and not known.record.graph.over

    def attempt(self, bundle_id: int, attempt: int) -> Attempt | None:
        """Return an attempt that has not ended; None if there is none of these numbers."""
        return self._attempts.get((bundle_id, attempt))

    def knows(self, graph_id: str) -> bool:
        """Whether a graph was submitted here and not released."""
        return graph_id in self._graphs

    def value_info(self, graph_id: str, key: str) -> Location | None:
        """Return where a value of a graph is; None if it is not there."""
        graph = self._graphs.get(graph_id)
        return None if graph is None else graph.values.get(key)

    @property
    def next_wakeup_seconds(self) -> float | None:
        """Time at which a Tick is needed: for a delayed retry, for the end of a wait, or to look
        for late bundles.

        The time is on the adapter's clock; None: no Tick is needed before something else happens.
        """
        due = [since + self.retry.patience_seconds for since in self._stranded.values()]
        ends = (self._next_look_seconds, self._next_end_of_waiting, self._next_lease_end)
        due += [at for at in ends if at is not None]
        return min([*due, *(entry[0] for entry in self._delayed[:1])], default=None)

    @property
    def idle(self) -> bool:
        """Whether no graph is unfinished and nothing runs."""
        return not self._attempts and all(g.finished or g.over for g in self._graphs.values())

    # --- the state machine -------------------------------------------------------------

    def handle(self, event: Event) -> list[Command]:
        """Take one event in; return the commands that it leads to, in order."""
        self._commands = []
        self.view.now_seconds = event.time
        if isinstance(event, BundleFinished):  # most events by far
            self._finished(event)
        elif isinstance(event, BundleStarted):
            attempt = self._attempts.get((event.bundle_id, event.attempt))
            if attempt is not None:
                attempt.started = True
                attempt.begun_seconds = event.time
            return self._commands
        elif type(event) in _TRANSITIONS:
            getattr(self, _TRANSITIONS[type(event)])(event)
        if self._delayed:
            self._wake_delayed()
        if self._scarcity.node_ids:
            self._wake_rested()
        self._schedule()
        if event.time >= self._look_at:
            self._speculate()
        if self._stranded or self._asks_for_nodes or len(self.view.pools) < _KINDS:
            self._give_up_stranded()
        if self._waits or not self.view.executors:
            self._give_up_waiting()
        if isinstance(event, Tick):
            self._ease_pressure()
            self._request_resources()
        return self._commands

    def _value_lost(self, event: ValueLost) -> None:
        graph = self._graphs.get(event.graph_id)
        if graph is not None:
            self._lose(graph, [event.key])

    def _observed(self, event: Telemetry) -> None:
        """Keep the newest figures; a node that went silent gets no new work until it reports.

        Bundles that the node is running are left to it: it may only be slow to answer, and if it is
        dead Ray will say so. Bundles planned for it go elsewhere.
        """
        self.view.state = event.cluster
        silent = {
            node.node_id
            for node in event.cluster.nodes
            if is_silent(node.heartbeat_age_seconds, self.report_seconds)
        }
        self._scarcity.observe(event.cluster, event.time)
        silent |= self._scarcity.node_ids
        for executor in self.view.executors.values():
            if executor.silent != (executor.node_id in silent):
                executor.silent = not executor.silent
                self._unplan(executor)

    def _cancel_requested(self, event: CancelRequested) -> None:
        graph = self._graphs.get(event.graph_id)
        if graph is not None and not graph.over and not graph.finished:
            error = JobCancelledError(f"job {event.graph_id} was cancelled")
            self._fail_graph(graph, error, None)

    def _submitted(self, event: GraphSubmitted) -> None:
        bundles, first_id = event.bundles, self.next_bundle_id
        count = len(bundles)
        outputs = frozenset(event.outputs)
        graph = Graph(event.graph_id, outputs, event.priority, first_id, bundles)
        graph.ended = bytearray(count)
        self._graphs[event.graph_id] = graph
        ranks = [0.0] * count
        whole = count <= MOST_BUNDLES and self._most_ahead() > 0
        if whole:
            ranks = best_ranks(bundles, self.view, self.model)
        elif self._plans_ahead:
            seconds = mean_seconds(self.view, self.model)
            ranks = upward_ranks(bundles, seconds, self.model.output_transfer_seconds)
        graph.traits = all_traits(
            bundles, ranks, lambda own, rank: self._order(event.priority + own, rank, event.time)
        )
        self.next_bundle_id += count
        refused = refusal(zip(bundles, graph.traits, strict=True), self.view)
        if refused is not None:
            self._fail_graph(graph, *refused)
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
        self._maybe_urgent = True
        for lane, ids in ready.items():
            self._queue(lane).add(Fresh(graph, ids))
        self._maybe_finish(graph)

    def _finished(self, event: BundleFinished) -> None:
        attempt = self._end_attempt(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record = attempt.record
        graph = record.graph
        self._learn_from(event, attempt)
        for items, size in event.device_peaks:
            self.model.device_peaks.observe(codelet_names(record.bundle), items, size)
        if self._scarcity.tried:
            self._scarcity.went_well(attempt.executor.node_id)
        if record.done or graph.over:
            return
        record.done = True
        if record.running:
            self._learn_from_late(attempt, event.seconds)
            self._cancel_attempts(record)
        unwanted = []
        values = graph.values
        for info in event.values:
            key = info.key
            if not graph.uses.get(key):
                unwanted.append(key)
                continue
            there = len(values)
            values.setdefault(key, graph.location(info))
            if len(values) == there:
                continue  # the copy of another attempt, still good
            consumers = graph.consumers.get(key)
            if not consumers or key in graph.outputs:
                graph.outputs_missing -= 1
            if consumers:
                for consumer in consumers:
                    consumer.missing -= 1
                    if not consumer.missing:
                        self._offer(consumer)
                if len(event.values) == 1:
                    codelet = record.bundle.tasks[-1].codelet.name
                    self.model.observe_bytes(codelet, info.size_bytes)
        if record.bundle.inputs:
            unwanted += self._drop_uses(graph, record.bundle.inputs)
        if unwanted:
            self._commands.append(Release(graph.graph_id, tuple(unwanted)))
        if not graph.outputs_missing:
            self._maybe_finish(graph)
        graph.forget(record)

    def _learn_from(self, event: BundleFinished, attempt: Attempt) -> None:
        """Pass measured seconds on to the cost model, if they may tell something new."""
        executor, model = attempt.executor, self.model
        tasks, times, settled = attempt.record.bundle.tasks, event.task_seconds, executor.settled
        last = tasks[-1].codelet.name
        if times and settled.get(last) and model.as_expected(attempt.predicted_seconds, sum(times)):
            settled[last] -= 1
        elif times:
            for task, seconds in zip(tasks, times, strict=False):
                seconds *= executor.speed
                kind = "cpu" if executor.kind == "cpu" else "gpu"
                left = model.observe(task, kind, seconds, executor.place)
                settled[task.codelet.name] = left
            if len(settled) > MOST_CODELETS:
                settled.clear()  # then the next bundles of each codelet are learnt from again
            self._tell_speed(executor)
        for one in event.transfers:
            model.links.record(one.source, one.destination, one.size_bytes, one.seconds)

    def _drop_uses(self, graph: Graph, keys: Iterable[str]) -> list[str]:
        """Count one use less of each value in ``keys``; return those that nobody needs any more.

        A bundle that was to make lost values again counts as done if it has not started and nobody
        needs any of its values any more. Its own inputs then lose a use too, and so on up the
        graph.
        """
        released: list[str] = []
        pending = list(keys)
        while pending:
            key = pending.pop()
            graph.uses[key] -= 1
            if graph.uses[key]:
                continue
            if graph.values.pop(key, None) is not None:
                released.append(key)
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            producer = graph.remaker(key)
            if producer is not None and not producer.running and self._is_spare(producer):
                producer.done = True
                pending += producer.bundle.inputs
        return released

    def _is_spare(self, record: Record) -> bool:
        """Whether a bundle is to run again for lost values that nobody needs any more."""
        if not record.again or record.done:
            return False
        graph = record.graph
        return not any(
            graph.uses.get(key) and key not in graph.values for key in record.bundle.outputs
        )

    def _failed(self, event: BundleFailed) -> None:
        attempt = self._end_attempt(event.bundle_id, event.attempt)
        if attempt is None:
            return
        record = attempt.record
        if attempt.cancelled:
            self._retry(record, event.error)  # whatever it says; its values may be needed anew
            return
        if event.begun and event.cause not in ("user", "input_lost"):
            record.begun = True
            if record.bundle.has_effects:
                self._retry(record, event.error)
                return
        for items, size in event.device_peaks:
            self.model.device_peaks.observe(codelet_names(record.bundle), items, size)
        if attempt.process == "function" and self._function_failed(attempt, event):
            return
        if event.cause == "memory" and "cpu" in record.lane[0]:
            self._send_to_cpu(record, f"its GPU had too little memory: {event.error}")
        final = False
        use = event.memory
        if event.cause == "pressure" or (use is not None and is_held_by_others(use)):
            self._retry(self._pressed(attempt, use), event.error)
            return
        if attempt.process == "watched" and event.cause in ("crash", "user"):
            record.watched = True
            self._retry(record, event.error)
            return
        if event.cause == "crash":
            self._crashed(attempt)
        elif event.cause in ("input_lost", "node_lost"):
            record.losses += 1
        elif event.cause == "user":
            record.user_failures += 1
            again = isinstance(event.error, record.bundle.retry_on)
            final = not again or record.user_failures > self.retry.max_user_retries
        else:
            record.failures += 1
        self._retry(record, event.error, final=final)

    def _retry(self, record: Record, error: BaseException, *, final: bool = False) -> None:
        """Try a bundle again after a while, or fail its graph if its budget is spent.

        Do neither if nobody waits for the bundle any more.
        """
        if record.done or record.graph.over or (record.running and not final):
            return
        lost_with_effects = record.begun and record.bundle.has_effects
        if self._is_spare(record) or (lost_with_effects and record.graph.finished):
            if record.running:
                return
            record.done = True
            released = self._drop_uses(record.graph, record.bundle.inputs)
            if released:
                self._commands.append(Release(record.graph.graph_id, tuple(released)))
            return
        if record.graph.finished:
            return
        if lost_with_effects:
            error, final = interrupted(record.bundle, error), True
        if final:
            self._fail_graph(record.graph, error, record.bundle)
            return
        rules = self.retry
        if record.starved_at is not None:
            if self._has_starved(record):
                self._fail_starved(record, error)
                return
            self._starving[record] = error
        if record.too_large > rules.max_too_large:
            self._fail_graph(record.graph, too_large(record, error), record.bundle)
            return
        if record.failures > rules.max_failures and can_be_watched(record):
            if record.lane[0] != ("cpu",):
                self._send_to_cpu(record, "it ends the process of every GPU it runs on")
        elif record.failures > rules.max_failures or record.losses > rules.max_losses:
            if isinstance(error, PoisonTaskError):
                self._fail_graph(record.graph, error, record.bundle)
                return
            lost = ExecutorLostError(
                f"bundle {record.bundle.key} ({codelet_names(record.bundle)}) lost its executor "
                f"{record.failures + record.losses} times; last: {error}"
            )
            lost.__cause__ = error
            self._fail_graph(record.graph, lost, record.bundle)
            return
        failures = record.failures + record.losses + record.user_failures + record.waits
        due = self.view.now_seconds + rules.delay_seconds(record.bundle.key, failures)
        record.queued = True  # not to be offered before it is due
        heapq.heappush(self._delayed, (due, record.bundle_id, record))

    def _node_up(self, event: NodeUp) -> None:
        node_id = event.node.node_id
        self._learn_links(event)
        self.view.awaited_gpus.pop(node_id, None)
        if event.awaited_gpus:
            self.view.awaited_gpus[node_id] = event.awaited_gpus
        fresh = {devices.device for devices in event.devices}
        for key in [k for k in self.view.executors if k[0] == node_id and k[1] not in fresh]:
            self._drop_executor(self.view.executors[key], f"{key[1]} is gone from its node")
        for devices in event.devices:
            executor = self.view.executors.get((node_id, devices.device))
            if executor is None:
                executor = Executor(
                    node_id, devices.device, devices.kind, 0, order=self._executor_count
                )
                self._executor_count += 1
                executor.silent = self._scarcity.holds(node_id)
                self.view.add(executor)
            executor.labels, executor.custom = event.node.labels, event.node.custom
            executor.slots = devices.slots
            if devices.device == "cpu":
                executor.slots = self._pressure.allowed(node_id, devices.slots)
            executor.speed = devices.speed
            executor.memory_bytes = devices.memory_bytes
            executor.memory_total_bytes = devices.memory_total_bytes
            executor.healthy = True
            executor.reason = ""
            self._tell_speed(executor)
            self._touch(executor)
        self._credit = self._planned  # plans may be better off on the new devices

    def _node_lost(self, event: NodeLost) -> None:
        self._forget_links(event.node_id)
        for key in [key for key in self.view.executors if key[0] == event.node_id]:
            self._drop_executor(self.view.executors[key], event.reason)
        self.view.awaited_gpus.pop(event.node_id, None)
        self._pressure.forget(event.node_id)
        self._scarcity.forget(event.node_id)
        self.model.links.forget(event.node_id)
        for graph in self._graphs.values():
            lost = [k for k, info in graph.values.items() if info.node_id == event.node_id]
            if lost:
                self._lose(graph, lost)

    def _gpu_lost(self, event: GpuLost) -> None:
        executor = self.view.executors.get((event.node_id, event.device))
        if executor is not None:
            self._drop_executor(executor, event.reason)
            self._commands.append(Quarantine(event.node_id, event.device, event.reason))
        place = (event.node_id, event.device)
        for graph in self._graphs.values():
            there = [k for k, info in graph.values.items() if (info.node_id, info.device) == place]
            lost = [key for key in there if (graph.graph_id, key) not in event.copied]
            for key in set(there).difference(lost):
                graph.values[key] = replace(graph.values[key], device=None)
            if lost:
                self._lose(graph, lost)

    def _drop_executor(self, executor: Executor, reason: str) -> None:
        """Forget an executor; bundles that ran there go elsewhere at once."""
        self._unplan(executor)
        self._lose_leases(executor, reason)
        self.view.remove(executor)
        executor.healthy = False
        for key, attempt in sorted(self._attempts_on(executor).items(), key=itemgetter(0)):
            attempt.record.losses += not attempt.cancelled
            attempt.record.begun = True
            self._cancel(key, attempt)
            self._end_attempt(*key)
            self._retry(attempt.record, ExecutorLostError(reason))

    def _lose(self, graph: Graph, keys: Iterable[str]) -> None:
        """Drop values that are gone; have those that are still needed made again, up the graph."""
        gone: list[str] = []
        seen: set[str] = set()
        once: Bundle | None = None
        pending = [] if graph.over else list(keys)
        while pending:
            key = pending.pop()
            producer = graph.maker(key)
            if producer is None or key in seen:
                continue
            seen.add(key)
            if graph.values.pop(key, None) is not None:
                gone.append(key)
                if key in graph.outputs:
                    graph.outputs_missing += 1
                    graph.finished = False
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            if not graph.uses.get(key):
                continue
            if (producer.done or producer.begun) and producer.bundle.has_effects:
                once = producer.bundle
                continue
            if producer.done:
                producer.done = False
                producer.again = True
                for name in producer.bundle.inputs:
                    graph.uses[name] += 1
            pending += (name for name in producer.bundle.inputs if name not in graph.values)
            self._offer(producer)
        if gone:
            self._commands.append(Recompute(graph.graph_id, tuple(gone)))
        if once is not None and not graph.finished:
            lost = LostDataError("a value that it made is lost")
            self._fail_graph(graph, interrupted(once, lost), once)

    def _released(self, event: GraphReleased) -> None:
        graph = self._graphs.pop(event.graph_id, None)
        if graph is None:
            return
        graph.over = True
        for record in [one for one in self._starving if one.graph is graph]:
            del self._starving[record]
        for record in graph.under_way:
            self._cancel_attempts(record)
        if graph.untaken or any(record.queued for record in graph.records.values()):
            # The graph's bundles must not keep it alive in the queues.
            self._withdraw(graph)
            self._delayed = [entry for entry in self._delayed if entry[2].graph is not graph]
            heapq.heapify(self._delayed)
        if graph.values:
            self._commands.append(Release(graph.graph_id, tuple(graph.values)))

    # --- helpers -----------------------------------------------------------------------

    def _cancel_attempts(self, record: Record) -> None:
        if record.running:
            for number in range(record.attempts):
                key = (record.bundle_id, number)
                if key in self._attempts:
                    self._cancel(key, self._attempts[key])

    def _cancel(self, key: tuple[int, int], attempt: Attempt) -> None:
        if not attempt.cancelled:
            attempt.cancelled = True
            self._commands.append(Cancel(*key))

    def _fail_graph(self, graph: Graph, error: BaseException, bundle: Bundle | None) -> None:
        graph.over = True
        for record in graph.under_way:
            self._cancel_attempts(record)
        self._withdraw(graph)
        self._commands.append(FailGraph(graph.graph_id, error, bundle))

    def _maybe_finish(self, graph: Graph) -> None:
        if not graph.outputs_missing and not graph.finished and not graph.over:
            graph.finished = True
            self._commands.append(FinishGraph(graph.graph_id))

    def _wake_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= self.view.now_seconds:
            record = heapq.heappop(self._delayed)[2]
            record.queued = False
            if not record.graph.over:
                self._offer(record)
