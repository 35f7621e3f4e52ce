"""Decides which ready bundle starts where and when: windows offered to the policy, plans,
admission.

The lower half of the Dispatcher, which takes events in and keeps graphs, values and retries.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from agentic_ray.errors import PolicyError
from agentic_ray.graph.task import CARD, Bundle, Resources
from agentic_ray.schedule import ahead
from agentic_ray.schedule.admission import Fit, admit, can_split, fit, working_set_bytes
from agentic_ray.schedule.contract import Policy, check_placements
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.events import Command, Location, Process, RequestResources, Start
from agentic_ray.schedule.placement import Placement, new_tuple
from agentic_ray.schedule.ready import ReadyQueue
from agentic_ray.schedule.records import Attempt, Graph, Lane, Record, urgency
from agentic_ray.schedule.view import LONG_SECONDS, ClusterView, Executor

MAX_WINDOW = 1024
"""Most ready bundles offered to a policy at once."""
LEAST_WINDOW = 64
"""Number of bundles offered to a policy that plans ahead, as long as so many are ready."""
PLANNED_PER_SLOT = 32
"""Most bundles planned ahead, over all executors."""
REPLAN_CREDIT = 1
"""Planned bundles that may be placed anew for each event; this bounds the cost a task."""
REPLAN_CREDIT_PER_SECOND = 400.0
"""Further planned bundles that an event may have placed anew, for each second that usually passes
between two ends of bundles on the cluster."""


_FIRST = float("-inf")
"""Order that comes before every other."""


def _strict_order(priority: int, rank: float, _submitted: float) -> float:
    """Order by classes of priority, then by the highest rank (seconds); the smallest goes first."""
    return -priority - rank / (1 + rank)


def _head(queue: ReadyQueue) -> tuple[float, int]:
    return queue.head or (math.inf, 0)


class Placer:
    """Ready bundles in, `Start` commands out. Used only as the base of the Dispatcher."""

    def __init__(self, policy: Policy, model: CostModel) -> None:
        self.policy = policy
        self.model = model
        self.view = ClusterView()
        self._attempts: dict[tuple[int, int], Attempt] = {}
        self._own_processes = 0  # attempts under way that share no process
        self._ready: dict[Lane, ReadyQueue] = {}
        self._asks_for_nodes = False  # whether some work ever asked for certain nodes
        self._plans_ahead: bool = getattr(policy, "plans_ahead", False)
        self._looks_ahead: bool = getattr(policy, "looks_ahead", False)
        self._order: Callable[[int, float, float], float] = getattr(policy, "order", _strict_order)
        self._planned = 0
        self._planned_until = _FIRST
        self._maybe_urgent = False
        self._credit = 0.0
        self._events = 0
        self._planning: dict[Executor, None] = {}
        self._touched: dict[Executor, None] = {}
        self._dirty: dict[Executor, None] = {}
        self._requested = (0, 0)
        self._commands: list[Command] = []

    def _process_of(self, record: Record, kind: str) -> Process:
        raise NotImplementedError

    def _fail_graph(self, graph: Graph, error: BaseException, bundle: Bundle | None) -> None:
        raise NotImplementedError

    def _take(self, attempt: Attempt) -> None:
        raise NotImplementedError

    def _let_go(self, attempt: Attempt) -> None:
        raise NotImplementedError

    # --- executors and graphs ----------------------------------------------------------

    def _touch(self, executor: Executor) -> None:
        """Note that an executor changed; bundles planned for it may be started now."""
        self._touched[executor] = self._dirty[executor] = None

    def _tell_speed(self, executor: Executor) -> None:
        """Tell the view how slow an executor is, as given and as learnt."""
        if executor.healthy:
            learnt = self.model.slowness((executor.node_id, executor.device), executor.kind)
            executor.pool.slowness[executor.row] = learnt / executor.speed

    def _offer(self, record: Record) -> None:
        """Put a bundle among the ready ones if it is ready."""
        if record.missing or record.done or record.queued or record.running:
            return
        record.queued = True
        if record.order < self._planned_until:
            self._maybe_urgent = True
        self._queue(record.lane).push(record)

    def _queue(self, lane: Lane) -> ReadyQueue:
        queue = self._ready.get(lane)
        if queue is None:
            queue = self._ready[lane] = ReadyQueue()
            self._asks_for_nodes = self._asks_for_nodes or bool(lane[2])
        return queue

    def _withdraw(self, graph: Graph) -> None:
        """Remove a graph that is over from the ready and the planned bundles."""
        for executor in list(self._planning):
            if any(record.graph is graph for record in executor.planned):
                self._unplan(executor)
        for queue in self._ready.values():
            queue.withdraw(graph)

    def _end_attempt(self, bundle_id: int, attempt: int) -> Attempt | None:
        key = (bundle_id, attempt)
        found = self._attempts.pop(key, None)
        if found is not None:
            found.record.running -= 1
            self._own_processes -= found.process in ("own", "watched")
            executor = found.executor
            if found.process == "function":
                self._let_go(found)
            else:
                executor.ended(self.view.now_seconds, found.predicted_seconds, found.resources)
            self._touched[executor] = self._dirty[executor] = None
        return found

    def _attempts_on(self, executor: Executor) -> dict[tuple[int, int], Attempt]:
        """Return the attempts that were sent to an executor and have not ended."""
        return {key: found for key, found in self._attempts.items() if found.executor is executor}

    def _request_resources(self) -> None:
        """Tell the adapter which capacity waiting work could use, when that has changed."""
        cpus = gpus = 0
        for (kinds, _, _), heap in self._ready.items():
            if kinds in (("gpu",), (CARD,)):
                gpus += len(heap)
            else:
                cpus += len(heap)
        waiting = gpus
        if any(kinds == ("gpu",) for kinds, _, _ in self._ready):
            for executor in self._planning:
                gpus += sum(record.lane[0] == ("gpu",) for record in executor.planned)
        cpus += self._planned - (gpus - waiting)
        if cpus:
            cpus += self.view.pools["cpu"].slots if "cpu" in self.view.pools else 0
        if gpus:
            gpus += self.view.pools["gpu"].slots if "gpu" in self.view.pools else 0
        if (cpus, gpus) != self._requested:
            self._requested = (cpus, gpus)
            self._commands.append(RequestResources(cpus, gpus))

    # --- placing -----------------------------------------------------------------------

    def _schedule(self) -> None:
        """Offer ready bundles to the policy and start those that fit, until neither helps."""
        if self._planned:
            self._events += 1
            if not (self._maybe_urgent and self._is_urgent()):
                while self._touched:
                    self._start_planned()
                if self._dirty:
                    self._bring_up_to_date()
                if not self._is_hungry():
                    return  # all executors have enough to do, as most of the time
            self._bring_up_to_date()
            self._replan()
        while True:
            self._bring_up_to_date()
            window = self._window_ahead() if self._plans_ahead else self._window()
            if window and self._place(window):
                if self.view.upcoming is not None:
                    self._start_planned()  # the next plan counts with the bundles that have begun
                continue
            if not self._start_planned():
                return

    def _bring_up_to_date(self) -> None:
        """Let the view take over the changes of executors."""
        for executor in self._dirty:
            if executor.healthy:
                executor.pool.update(executor)
        self._dirty.clear()

    def _window(self) -> dict[str, Record]:
        """Take the most urgent ready bundles that have room somewhere, by key, most urgent
        first."""
        window: dict[str, Record] = {}
        for (kinds, opaque, where), queue in self._ready.items():
            if CARD in kinds:
                continue  # `cards` places these
            room = self.view.room(kinds, opaque, where) if queue else 0
            queue.fill(window, min(room, MAX_WINDOW))
        ordered = sorted(window.values(), key=urgency)
        return {record.bundle.key: record for record in ordered}

    def _window_ahead(self) -> dict[str, Record]:
        """Take the most urgent ready bundles, by key, while an executor has nothing planned, or
        while ready bundles are more urgent than planned ones."""
        queues: list[ReadyQueue] = []
        pools = self.view.pools
        for (kinds, _, where), queue in self._ready.items():
            if not queue or CARD in kinds:
                continue
            head = queue.head
            urgent = head is not None and head[0] < self._planned_until
            if where:
                suiting = self.view.suiting(kinds, where)
                if any(e in e.pool.hungry or (urgent and not e.silent) for e in suiting):
                    queues.append(queue)
                continue
            for kind in kinds:
                if kind in pools and (pools[kind].hungry or (urgent and pools[kind].usable)):
                    queues.append(queue)
                    break
        if not queues:
            return {}
        hungry = sum([len(pool.hungry) for pool in pools.values()])
        slots = sum([pool.slots for pool in pools.values()])
        size = min(
            MAX_WINDOW,
            max(LEAST_WINDOW, 2 * hungry, slots // 4),
            PLANNED_PER_SLOT * slots - self._planned,
        )
        window: dict[str, Record] = {}
        while len(window) < size and len(queues) > 1:
            queue = min(queues, key=_head)
            if queue.take(window) is None:
                queues.remove(queue)
        if len(window) < size:
            queues[0].fill(window, size - len(window))
        return window

    def _replan(self) -> None:
        """Take back all plans, to be made anew, if that promises a gain.

        A new plan gains when an executor has nothing to do and nothing else is ready: it moves work
        from slow or busy executors to idle or new ones. It also gains when bundles more urgent than
        the planned became ready. Every event pays for a few bundles, so that the cost a task is
        bounded.
        """
        if not self._planned:
            return
        self._credit = min(self._credit + self._events * self._credit_per_event(), self._planned)
        self._events = 0
        if self._credit < self._planned:
            return
        if not self._is_urgent() and (any(self._ready.values()) or not self._is_hungry()):
            return
        self._credit -= self._planned
        for executor in list(self._planning):
            self._unplan(executor)
        self._planned_until = _FIRST

    def _credit_per_event(self) -> float:
        slots = sum([pool.slots for pool in self.view.pools.values()])
        return REPLAN_CREDIT + REPLAN_CREDIT_PER_SECOND * self.model.typical_seconds / max(slots, 1)

    def _is_urgent(self) -> bool:
        """Whether a ready bundle goes before a planned one."""
        if self._maybe_urgent:  # unknown since something was offered or planned
            until = self._planned_until
            self._maybe_urgent = any(
                queue.head is not None and queue.head[0] < until for queue in self._ready.values()
            )
        return self._maybe_urgent

    def _is_hungry(self) -> bool:
        """Whether an executor has room and nothing planned."""
        for pool in self.view.pools.values():  # at every event, where `any` takes twice as long
            if pool.hungry:
                break
        else:
            return False
        return True

    def _unplan(self, executor: Executor) -> None:
        """Make the bundles planned for an executor ready again."""
        for record in executor.planned:
            record.queued = False
            record.plan = None
            if not record.graph.over:
                self._offer(record)
        self._planned -= len(executor.planned)
        self._planning.pop(executor, None)
        executor.planned.clear()
        executor.planned_seconds = 0.0
        self._touch(executor)

    def _place(self, window: dict[str, Record]) -> bool:
        """Start or plan the bundles of ``window`` that the policy places; the rest stays ready.

        Return False if nothing changed. If the policy raises, fail the graph whose bundles cause
        it.
        """
        lanes = [record.lane for record in window.values()]
        planned = self._planned
        error = self._try_place(window)
        blamed = self._blame(error, window) if error is not None else ()
        for record in window.values():
            if not record.running and record.plan is None:
                record.queued = False
                if record.graph not in blamed:
                    self._offer(record)
        return (
            self._planned != planned
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
                self._fail_graph(graph, own, None)
        return blamed

    def _try_place(self, window: dict[str, Record]) -> PolicyError | None:
        bundles = [record.bundle for record in window.values()]
        values = {
            key: record.graph.values[key]
            for record in window.values()
            for key in record.bundle.inputs
        }
        self.view.values = values
        self.view.upcoming = self._upcoming(window, values)
        try:
            placements = list(self.policy.place(bundles, self.view, self.model))
            records, places = check_placements(placements, window, self.view, self.policy.name)
        except PolicyError as error:
            return error
        except Exception as error:  # a policy is user code
            raised = PolicyError(f"policy {self.policy.name!r} raised {error!r}")
            raised.__cause__ = error
            return raised
        if self._plans_ahead:
            self._plan(placements, records, places)
            moved = bool(placements)
        else:
            moved = self._start_all(placements, records, places)
        if self._attempts or moved:
            return None
        if not any(
            self.view.room(self.view.kinds_for(r.bundle), r.bundle.opaque, r.lane[2])
            for r in window.values()
        ):
            return None  # they prefer a device that is there and gets nothing new for now
        return PolicyError(
            f"policy {self.policy.name!r} places none of {len(window)} ready bundles where there "
            "is room although nothing is running"
        )

    def _most_ahead(self) -> int:
        """Return how many bundles a plan of a whole graph may have; 0: no plan is made."""
        typical = self.model.typical_seconds
        if not self._looks_ahead or typical <= LONG_SECONDS:
            return 0
        return ahead.most_bundles(sum(pool.slots for pool in self.view.pools.values()), typical)

    def _upcoming(
        self, window: dict[str, Record], values: dict[str, Location]
    ) -> ahead.Upcoming | None:
        """Return the rest of the graph of ``window``, if it can be planned as a whole. The values
        that the rest takes as inputs are added to ``values``."""
        offered = set(window.values())
        graph = next(iter(window.values())).graph
        most = self._most_ahead() if graph.sequence else 0
        if not most or any(record.graph is not graph for record in offered):
            return None
        left = [
            record
            for record in graph.sequence
            if not (record.done or record.running) and (record.missing or record in offered)
        ][:most]
        picky = any(
            r.resources.cpus > 1 or r.resources.memory_bytes or r.resources.where for r in left
        )
        if picky or not any(record.missing for record in left):
            return None
        for record in left:
            for key in record.bundle.inputs:
                if key in graph.values:
                    values[key] = graph.values[key]
        now = self.view.now_seconds
        coming: dict[str, ahead.Arrival] = {}
        busy: dict[Executor, list[float]] = {}
        for attempt in self._attempts.values():
            if attempt.process == "function":
                continue  # it runs beside the bundles that are planned
            expected = attempt.ends_at(now)
            busy.setdefault(attempt.executor, []).append(expected)
            if attempt.record.graph is graph and expected < math.inf:
                bundle = attempt.record.bundle
                transfer = self.model.output_transfer_seconds(bundle)
                for key in bundle.outputs:
                    if key not in coming or expected < coming[key][1]:  # of two copies the first
                        coming[key] = (attempt.executor.node_id, expected, transfer)
        return ahead.Upcoming(tuple(record.bundle for record in left), coming, busy)

    def _plan(
        self,
        placements: Sequence[Placement],
        records: Sequence[Record],
        places: Sequence[Executor],
    ) -> None:
        """Keep bundles for executors until these have room."""
        until = self._planned_until
        for placement, record, executor in zip(placements, records, places, strict=True):
            begin, end = placement[3], placement[4]
            if begin is None or end is None:
                seconds = self._usual_seconds(executor)
            else:
                seconds = end - begin
            record.plan = tuple(placement)
            record.plan_seconds = seconds
            planned = executor.planned
            if planned and urgency(planned[-1]) > urgency(record):
                insort(planned, record, key=urgency)
            else:
                planned.append(record)
            executor.planned_seconds += seconds
            if record.order > until:
                until = record.order
        for executor in dict.fromkeys(places):
            self._planning[executor] = None
            if executor.counted[0] or executor in self._dirty:
                self._touched[executor] = None  # it has room, so a planned bundle may be started
            executor.pool.plan(executor)
        self._planned += len(placements)
        if until > self._planned_until:
            self._planned_until = until
            self._maybe_urgent = True

    def _start_planned(self) -> bool:
        """Start planned bundles where things changed and there is room; return whether any
        moved."""
        moved = False
        touched, self._touched = self._touched, {}
        for executor in touched:
            planned = executor.planned
            room = executor.room()
            while planned and room:
                record = planned[0]
                stale = record.graph.over or record.missing or record.done
                if record.plan is not None and not stale:
                    placement = new_tuple(Placement, record.plan)
                    started = self._start_if_admitted(record, placement, executor, room, set())
                    if not started and executor.kind in record.lane[0]:
                        break  # it waits here, and less urgent bundles wait behind it
                del planned[0]
                executor.planned_seconds -= record.plan_seconds
                self._planned -= 1
                record.plan = None
                record.queued = False
                if not stale and not record.running:
                    self._offer(record)  # it runs on a CPU instead
                room = executor.room()
                moved = True
            if not planned and executor in self._planning:
                executor.planned_seconds = 0.0  # no drift from rounding
                del self._planning[executor]
            if executor.healthy:
                executor.pool.update(executor, room)
                self._dirty.pop(executor, None)
        return moved

    def _start_all(
        self,
        placements: Sequence[Placement],
        records: Sequence[Record],
        places: Sequence[Executor],
    ) -> bool:
        """Start the admitted placements; return whether some wait for memory or go to a CPU."""
        full: set[Executor] = set()
        waits = False
        for placement, record, executor in zip(placements, records, places, strict=True):
            started = executor not in full and self._start_if_admitted(
                record, placement, executor, executor.room(), full
            )
            waits = waits or (executor.kind != "cpu" and not started)
        return waits

    def _start_if_admitted(
        self,
        record: Record,
        placement: Placement,
        executor: Executor,
        room: int,
        full: set[Executor],
    ) -> bool:
        """Start a bundle if its executor, which has ``room`` for more, takes it now. Otherwise add
        the executor to ``full``: nothing less urgent overtakes a bundle that waits for room."""
        opaque = record.lane[1]
        if not executor.has_left(record.lane[2]):
            full.add(executor)
            return False
        if executor.kind == "gpu":
            room = executor.room(opaque) if opaque else room
            return self._start_on_gpu(record, placement, executor, room, full)
        if not executor.admits(record.resources, opaque, room):
            full.add(executor)
            return False
        self._start(record, placement, executor, record.resources)
        return True

    def _start_on_gpu(
        self,
        record: Record,
        placement: Placement,
        wanted: Executor,
        room: int,
        full: set[Executor],
    ) -> bool:
        """Start a bundle on a GPU if memory admits it; False if it waits or goes to a CPU."""
        bundle = record.bundle
        values = record.graph.values
        sizes = {key: values[key].size_bytes for key in bundle.inputs} if bundle.inputs else {}
        need = working_set_bytes(bundle, sizes)
        if fit(need, wanted) is Fit.NOW:
            if not room:
                full.add(wanted)
                return False
            share = record.resources
            if need != share.gpu_memory_bytes:
                share = replace(share, gpu_memory_bytes=need)
            self._start(record, placement, wanted, share)
            return True
        answer = admit(
            need,
            wanted,
            (
                gpu
                for gpu in self.view.pools["gpu"].executors
                if gpu not in full and gpu.has_left(record.lane[2])
            ),
            split=can_split(bundle),
            cpu="cpu" in record.lane[0] and self.view.has(("cpu",), record.lane[2]),
        )
        chosen = answer.executor
        if answer.to_cpu:
            self._send_to_cpu(record, answer.reason)
            return False
        if chosen is None or not chosen.room(record.lane[1]):
            full.add(wanted)
            return False
        if answer.reason:
            reason = f"{placement.reason}; {answer.reason}"
            placement = placement._replace(
                node_id=chosen.node_id, device=chosen.device, reason=reason
            )
        share = replace(record.resources, gpu_memory_bytes=-(-need // answer.parts))
        self._start(record, placement, chosen, share, answer.parts)
        return True

    def _send_to_cpu(self, record: Record, why: str) -> None:
        record.bundle = record.bundle.on_cpu()
        record.lane = (record.bundle.kinds(), *record.lane[1:])
        record.note = f"not on a GPU: {why}"

    def _start(
        self,
        record: Record,
        placement: Placement,
        executor: Executor,
        resources: Resources,
        parts: int = 1,
        *,
        copy: bool = False,
        process: Process = "shared",
    ) -> None:
        """Send a bundle to an executor. Bundles that wait behind it there come no nearer to
        starting, so only the view is told."""
        number = record.attempts
        key = (record.bundle_id, number)
        record.attempts = number + 1
        record.running += 1
        record.queued = False
        now = self.view.now_seconds
        begins, ends = placement.predicted_start_seconds, placement.predicted_finish_seconds
        if begins is None or ends is None:
            predicted = self._usual_seconds(executor)
        else:
            predicted = ends - begins
        if process != "function":
            executor.sent(now, predicted, resources)
        self._dirty[executor] = None
        if record.note:
            placement = placement._replace(reason=f"{placement.reason}; {record.note}")
        is_gpu = executor.kind != "cpu"
        if not is_gpu and (record.lane[1] or record.crashed):
            process = self._process_of(record, "cpu")
        begun = None
        if executor.in_flight <= executor.slots:  # it begins when its inputs are there
            begun = begins if begins and begins > now else now
        expected = ends or now + predicted
        self._attempts[key] = Attempt(
            record, executor, resources, predicted, now, begun, expected, process
        )
        self._own_processes += process in ("own", "watched")
        if process == "function":
            self._take(self._attempts[key])
        need = resources.gpu_memory_bytes if is_gpu else 0
        graph_id, bundle = record.graph.graph_id, record.bundle
        command = (graph_id, key[0], number, bundle, placement, need, parts, copy, process)
        self._commands.append(new_tuple(Start, command))

    def _usual_seconds(self, executor: Executor) -> float:
        """Return the seconds that a placement counts for while its cost is unknown."""
        return self.model.typical_seconds * self.view.slowness(executor)
