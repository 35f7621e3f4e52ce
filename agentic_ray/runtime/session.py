"""The session: connects to Ray or starts it, owns loop and nodes, takes graphs, is closed."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

import ray
from ray import exceptions as ray_errors

from agentic_ray.config import Settings
from agentic_ray.errors import ExecutorLostError, SessionError
from agentic_ray.graph.passes import cull
from agentic_ray.graph.task import CARD, Task, TaskGraph, capture_codelet
from agentic_ray.pictures.wording import counted
from agentic_ray.runtime import tokens
from agentic_ray.runtime.autoscaling import Requests, has_autoscaler
from agentic_ray.runtime.calibrate import HostCalls, HostRates, host_calls, keep_host_calls
from agentic_ray.runtime.connection import (
    Stay,
    await_ray,
    begin,
    is_forked,
)
from agentic_ray.runtime.cost_store import CostStore
from agentic_ray.runtime.finding import check_reachable
from agentic_ray.runtime.joining import (
    call_before_leaving,
    connect,
    connection,
    leave_dead_ray,
)
from agentic_ray.runtime.keeper import Keeper
from agentic_ray.runtime.leases import LeaseDesk
from agentic_ray.runtime.loop import Loop
from agentic_ray.runtime.nodes import Nodes
from agentic_ray.runtime.recordings import Recording, Recordings, after_a_fault
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.scope import current_scope
from agentic_ray.runtime.sending import Switches
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CALL_BOUNDS_SECONDS, CostModel
from agentic_ray.schedule.cutting import bundle_seconds, bundled
from agentic_ray.schedule.dispatcher import Dispatcher, RetryRules, SpeculationRules
from agentic_ray.schedule.events import LeaseEnded, LeaseGranted
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.prospects import OnExecutors, on_executors
from agentic_ray.telemetry.state import ClusterState
from agentic_ray.tracebacks import show_all
from agentic_ray.watching import watches

_logger = logging.getLogger("agentic_ray")

_FIRST_REPORT_SECONDS = 5.0
_GPUS = frozenset({"gpu", CARD})


class Session:
    """Connection of this process to Ray, with its executors, Dispatcher and cost model.

    `init` and `get_session` return it.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> session = ar.get_session()
    >>> session.slots >= 1, session.closed
    (True, False)
    """

    def __init__(self, settings: Settings, policy: str | Policy) -> None:
        self.settings = settings
        self.policy = policy
        show_all(settings.full_tracebacks)
        self._name = uuid.uuid4().hex[:8]
        chosen = get_policy(policy)  # refuse a wrong one before Ray is started
        recording = None if settings.record is None else Recording.of(settings.record, self._name)
        self.model = CostModel()
        self._costs = CostStore() if settings.keep_costs else None
        if self._costs is not None:
            self._costs.load(self.model)
            self._expect_calls(host_calls())
        self._keeper = Keeper(lambda: connect(settings), self._ray_died)
        self._started_ray = self._keeper.started
        self._ray = connection()
        self._stay = begin(self._name, self._sees_dead)
        share = settings.share
        if share is None and self._started_ray:
            share = 1.0
        retry = RetryRules(
            settings.max_failures,
            max_user_retries=settings.max_user_retries,
            no_node_seconds=settings.no_node_seconds,
            memory_wait_seconds=settings.memory_wait_seconds,
            may_grow=not self._started_ray and has_autoscaler(),
        )
        copies = SpeculationRules(enabled=settings.second_copies)
        self._codelets = CodeletTable()
        self._runs: dict[str, Run] = {}
        self._gpu_runs: set[str] = set()
        self._leased: dict[str, bool] = {}  # whether GPUs are among what it holds
        self._rates: list[HostRates] = []
        self._lock = threading.Lock()
        self._counter = itertools.count()
        self._closed = False
        self._failure: SessionError | None = None
        self._restarting = threading.Lock()
        self._requests = Requests(scales=not self._started_ray)  # nobody scales an embedded Ray
        self._loop = Loop(
            lambda: Dispatcher(chosen, self.model, retry, speculation=copies),
            self._codelets,
            lambda node_id, device: self._nodes.executor(node_id, device),
            Switches(settings.in_process_transport, settings.socket_transport),
            lambda cpus, gpus: self._requests.waits(cpus, gpus, self._nodes.slots_by_device()),
            lambda *place: self._nodes.executor_died(*place),
            lambda run: self._reopened(run),
            lambda: self._nodes.announce(),
            lambda command: self._lease_news(command),
            settings.kept_events,
            lambda last: after_a_fault(self._name, last),
        )
        self.leases = LeaseDesk(
            self._loop.post,
            self._hold_lease,
            self._let_lease_go,
            self._lease_users,
            settings.poll_seconds,
        )
        self._nodes = Nodes(
            self._loop.post,
            share=share,
            poll_seconds=settings.poll_seconds,
            idle_release_seconds=settings.idle_release_seconds,
            # Nobody else is on a Ray of our own.
            gpu_idle_release_seconds=math.inf
            if self._started_ray
            else settings.gpu_idle_release_seconds,
            node_idle_release_seconds=math.inf
            if self._started_ray
            else settings.node_idle_release_seconds,
            is_idle=lambda: not (self._runs or self._leased),
            needs_gpus=lambda: bool(self._gpu_runs) or any(list(self._leased.values())),
            gpu_device=settings.gpu_device,
            on_rates=self._calibrated,
            is_connected=lambda: not self.closed,
            on_gone=self._ray_left,
            on_look=lambda: self._requests.tend(self._nodes.state),
        )
        self._recordings = Recordings(
            self._loop.record, self._loop.stop_recording, self._loop.last_events, self._name
        )
        if recording is not None:
            self._recordings.begin(recording, wait=False)
        self._loop.start()
        self._nodes.start()
        self._keeper.watch()
        call_before_leaving(self._ray_leaves)

    @property
    def closed(self) -> bool:
        """Whether it takes no more work: it was shut down, or its Ray was. It is not closed while a
        dead Ray of its own is started anew."""
        if self._closed or is_forked():
            return True
        return not self._stay.lost and (self._stay.over or connection() != self._ray)

    @property
    def started_ray(self) -> bool:
        """Whether its Ray is an embedded one, which it has started."""
        return self._started_ray

    @property
    def name(self) -> str:
        return self._name

    @property
    def stay(self) -> Stay:
        """Present stay on a cluster; objects put in the cluster's store live as long."""
        await_ray()
        return self._stay

    @property
    def slots(self) -> int:
        """Number of bundles that run at once."""
        return max(1, sum(self._nodes.slots_by_device().values()))

    def cluster(self) -> ClusterState:
        """Return the cluster as it is now, with the nodes' newest reports. Waits a moment for the
        first report of new nodes."""
        await_ray()
        return self._nodes.await_reports(_FIRST_REPORT_SECONDS)

    def submit(
        self,
        graph: TaskGraph,
        *,
        priority: int = 0,
        asked: int | None = None,
        target_seconds: float | None = None,
    ) -> Run:
        """Run a graph; return at once.

        Parameters
        ----------
        graph : TaskGraph
        priority : int
            A graph of higher priority goes first.
        asked : int, optional
            Logical tasks the caller asked for, for the decomposition rate.
        target_seconds : float, optional
            Predicted seconds of work in one bundle; None: chosen from call overhead and slots.

        Raises
        ------
        SerializationError
            A function of the graph cannot be sent.
        SessionError
            The session is shut down.
        JobCancelledError
            The job this is part of was cancelled.
        """
        await_ray()
        if self._failure is not None:
            raise self._failure
        if self.closed:
            raise SessionError(
                f"{self._stay} is shut down; use the present one (agentic_ray.get_session()), or "
                "call agentic_ray.init()"
            )
        scope = current_scope()
        if scope is not None:
            scope.check()
            priority += scope.priority
        graph = taken(cull(graph))
        for codelet in {id(task.codelet): task.codelet for task in graph}.values():
            self._codelets.source(codelet)  # an unpicklable function fails here, in the caller
        bundles = bundled(
            graph,
            self.model,
            self.bundle_seconds if target_seconds is None else lambda _: target_seconds,
        )
        graph_id = f"{self._name}-{next(self._counter)}"
        on_gpus = any(not _GPUS.isdisjoint(bundle.kinds()) for bundle in bundles)
        self._hold(graph_id, on_gpus)
        items = sum(task.cost.items for task in graph)
        run = Run(
            self._loop.results,
            graph_id,
            graph.outputs,
            bundles,
            asked=items if asked is None else asked,
            slots=self._nodes.slots_by_device(),
            on_gpus=on_gpus,
        )
        self._remember(run)
        self._loop.submit(run, bundles, priority)
        if scope is not None:
            scope.add(run, graph)
        for watch in watches():
            watch.sees(run)
        return run

    def prospect(
        self, tasks: Sequence[Task], moved_bytes: int, in_caller: Sequence[float | None]
    ) -> OnExecutors | None:
        """Predict the executors' seconds for tasks; see `prospects.on_executors`.

        Return None if the executors should do the tasks however long they take: what a job computes
        is to outlive this process, and GPUs may be much quicker.
        """
        devices = self._nodes.slots_by_device()
        if current_scope() is not None or any(device != "cpu" for _, device in devices):
            return None
        return on_executors(tasks, moved_bytes, in_caller, self.model, self.slots)

    def bundle_seconds(self, total_seconds: float) -> float:
        """Return the seconds of predicted work for one bundle; see `cutting.bundle_seconds`."""
        return bundle_seconds(total_seconds, self.slots, self.model.call_overhead_seconds)

    def close(self) -> None:
        """End executors and, if we started it, Ray."""
        with self._restarting:  # in case Ray has died just now
            if self._closed:
                return
            connected = not self.closed
            self._closed = True
        if connected and not self._started_ray:
            connected = _cluster_answers()
        self.leases.close("the session was shut down")
        # (An embedded Ray ends with everything on it; a dead Ray would not answer.)
        self._nodes.close(connected=connected and not self._started_ray)
        self._loop.close(SessionError("the session was shut down"))
        self._recordings.close()
        if self._costs is not None and self.model.error_report().observations:
            self._costs.save(self.model)
            measured = self.model.measured_call_seconds
            if measured is not None:
                keep_host_calls(HostCalls(measured))
        if connected:
            self._requests.close()
        if self._started_ray and connected:
            ray.shutdown()
            self._keeper.end_agents()
            tokens.take_back()
        self._stay.end()
        self._keeper.close()

    def record(self, path: str | os.PathLike[str]) -> Recording:
        """Record the scheduler's events and decisions from now on.

        ``agentic-ray replay`` feeds a recording to the very same scheduler again, shows its
        decisions and compares policies. It holds names and costs of tasks and the text of errors,
        no data and no code. (The setting ``record`` records whole sessions.)

        Parameters
        ----------
        path : str or path
            A file; an old one is replaced. Only its owner may read it.

        Raises
        ------
        SessionError
            Work is under way, its results are still held, a lease of cards is open, or the session
            records already.
        InvalidArgumentError
            The file cannot be written.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> session = ar.get_session()
        >>> with session.record("run.jsonl"):  # doctest: +SKIP
        ...     ar.map_reduce(abs, [-1, 2, 3])
        [1, 2, 3]
        """
        return self._recordings.begin(Recording(path), wait=True)

    def write_last_events(self, path: str | os.PathLike[str]) -> int:
        """Write the scheduler's last events and decisions, which every session keeps in memory.

        ``agentic-ray replay`` shows them. As long as the session has not dropped any (its setting
        ``kept_events`` bounds them), it compares the decisions too. The file holds what one of
        `record` does. After an internal error a session writes such a file by itself, in the
        user's cache directory, and the error names it.

        Parameters
        ----------
        path : str or path
            A file; an old one is replaced. Only its owner may read it.

        Returns
        -------
        int
            Number of events, and of facts beside them, in the file.

        Raises
        ------
        SessionError
            ``kept_events`` is 0.
        InvalidArgumentError
            The file cannot be written.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> ar.get_session().write_last_events("last.jsonl") > 0
        True
        """
        return self._recordings.write_last(path)

    def drain(self, runs: Iterable[Run], timeout_seconds: float) -> bool:
        """Wait until no call of these runs is under way; False if the time was too short."""
        deadline = time.monotonic() + timeout_seconds
        graph_ids = {run.graph_id for run in runs}
        while active := self._loop.has_calls(graph_ids):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.01)
        return not active

    def _sees_dead(self) -> bool:
        return self._keeper.sees_dead

    def _ray_died(self, what: str) -> bool:
        """Start the dead embedded Ray anew and return whether there is a new one. Runs under way go
        on there. (Called in the keeper's thread.)"""
        with self._restarting:
            if self._closed:
                return False
            if self.closed:  # somebody else shut it down
                self._ray_left()
                return False
            old = self._stay
            old.end(lost=True)
            _logger.warning("%s; Ray is started anew, what was lost is computed again", what)
            try:
                with self._loop.resting() as alone, self._nodes.resting() as node_ids:
                    leave_dead_ray()
                    self._keeper.end_agents()
                    self._loop.ray_died(node_ids, what, alone=alone)
                    connect(self.settings, self.settings.no_node_seconds, start_again=True)
                    self._ray = connection()
                    self._stay = begin(self._name, self._sees_dead)
                self._nodes.begin_anew()
            except Exception as error:
                failure = SessionError(f"{what}, and Ray cannot be started anew: {error}")
                failure.__cause__ = error
                _logger.error("%s", failure)
                self._closed, self._failure = True, failure
                self._nodes.close(connected=False)
                self._loop.close(failure)
                return False
            finally:
                old.settled.set()
        return True

    def _ray_leaves(self) -> None:
        """Stop using Ray: `ray.shutdown` was called, perhaps by ourselves. (In the thread that
        called it.)"""
        if not (self._closed or self._stay.lost):
            self._nodes.close(connected=False)
            self._ray_left()

    def _ray_left(self) -> None:
        """Take in that this process has left the cluster, not by us: Ray will answer nothing."""
        self._loop.close(
            SessionError(
                f"this process has left the Ray cluster of {self._stay}: ray.shutdown() was "
                "called, or another cluster was joined. Call agentic_ray.init() again"
            )
        )
        self._stay.end()

    def _expect_calls(self, calls: HostCalls | None) -> None:
        """Predict with an earlier session's call times until this one has measured its own."""
        if calls is not None:
            least, most = CALL_BOUNDS_SECONDS
            seconds = min(max(calls.overhead_seconds, least), most)
            self.model.calibration = replace(self.model.calibration, call_overhead_seconds=seconds)

    def _calibrated(self, rates: HostRates) -> None:
        """Predict never observed tasks for a typical node, now that a node was measured."""

        def learn() -> None:  # between two events, as a recording has it
            self._rates.append(rates)
            self.model.calibration = replace(
                self.model.calibration,
                cpu_flops_per_second=median(r.flops_per_second for r in self._rates),
                cpu_bytes_per_second=median(r.bytes_per_second for r in self._rates),
                store_bytes_per_second=median(r.store_bytes_per_second for r in self._rates),
            )

        self._loop.later(learn)

    def _hold(self, graph_id: str, on_gpus: bool) -> None:
        """Reserve the devices that a graph may run on."""
        self._nodes.reserve()
        if on_gpus:
            with self._lock:
                self._gpu_runs.add(graph_id)
            self._nodes.reserve_gpus()

    def __repr__(self) -> str:
        if self.closed:
            return f"<session {self._name}, shut down>"
        devices = self._nodes.slots_by_device()
        nodes = len({node_id for node_id, _ in devices})
        return f"<session {self._name}: {counted(self.slots, 'slot')} on {counted(nodes, 'node')}>"

    def under_way(self) -> list[Run]:
        """List the graphs that run now, in the order in which they were submitted."""
        with self._lock:
            return list(self._runs.values())

    def _remember(self, run: Run) -> None:
        """Keep the run, and with it the devices it runs on, until it is over."""
        with self._lock:
            self._runs[run.graph_id] = run
        run.on_done(lambda: self._forget(run.graph_id))

    def _reopened(self, run: Run) -> None:
        """Remember again a finished run of which a lost value is made again."""
        self._hold(run.graph_id, run.on_gpus)
        self._remember(run)

    def _forget(self, graph_id: str) -> None:
        with self._lock:
            self._runs.pop(graph_id, None)
            self._gpu_runs.discard(graph_id)

    def _hold_lease(self, lease_id: str, gpus: bool) -> None:
        """Hold devices from Ray for as long as a lease is asked for and granted."""
        await_ray()
        if self._failure is not None:
            raise self._failure
        if self.closed:
            raise SessionError(f"{self._stay} is shut down")
        with self._lock:
            self._leased[lease_id] = gpus
        self._nodes.reserve()
        if gpus:
            self._nodes.reserve_gpus()

    def _let_lease_go(self, lease_id: str) -> None:
        with self._lock:
            self._leased.pop(lease_id, None)

    def _lease_news(self, command: LeaseGranted | LeaseEnded) -> None:
        if isinstance(command, LeaseGranted):
            self.leases.granted(command)
        else:
            self.leases.ended(command)

    def _lease_users(self, node_id: str, device: str) -> frozenset[str] | None:
        """Ask the executor of a card which leases are in use on its node; None: no answer."""
        try:
            executor = self._nodes.executor(node_id, device)
            found: frozenset[str] = ray.get(executor.leases_in_use.remote(), timeout=5)
        except (ExecutorLostError, ray_errors.RayError):
            return None
        return found


def _cluster_answers() -> bool:
    """Whether the cluster is still there. Calls of Ray's to one that has ended, as it may have when
    this program ends, would try for a minute and then end the process with an error."""
    try:
        check_reachable(ray.get_runtime_context().gcs_address)
    except OSError:
        return False
    return True


def taken(graph: TaskGraph) -> TaskGraph:
    """Return ``graph`` with the user's functions as they are now: some may be sent much later."""
    known = {id(task.codelet): task.codelet for task in graph}
    taken = {name: capture_codelet(codelet) for name, codelet in known.items()}
    if all(taken[name] is codelet for name, codelet in known.items()):
        return graph
    tasks = [replace(task, codelet=taken[id(task.codelet)]) for task in graph]
    return TaskGraph(tasks, graph.outputs)
