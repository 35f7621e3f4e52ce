"""The session: connects to Ray or starts it, owns loop and nodes, takes graphs, is shut down."""

from __future__ import annotations

import atexit
import itertools
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from statistics import median
from typing import Any

import psutil
import ray

from agentic_ray.config import Settings
from agentic_ray.errors import InvalidArgumentError, SessionError
from agentic_ray.graph.passes import bundle as bundle_pass
from agentic_ray.graph.passes import cull
from agentic_ray.graph.task import Task, TaskGraph, capture_codelet
from agentic_ray.runtime.calibrate import HostCalls, HostRates, host_calls, keep_host_calls
from agentic_ray.runtime.cost_store import CostStore
from agentic_ray.runtime.loop import Loop
from agentic_ray.runtime.nodes import Nodes
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.scope import current_scope
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CALL_BOUNDS_SECONDS, CostModel
from agentic_ray.schedule.dispatcher import Dispatcher, RetryRules, SpeculationRules
from agentic_ray.schedule.policies import get_policy
from agentic_ray.telemetry.state import ClusterState
from agentic_ray.tracebacks import entry, show_all

_logger = logging.getLogger("agentic_ray")

_FIRST_REPORT_SECONDS = 5.0

_CONNECT_SECONDS = 5.0

BUNDLES_PER_SLOT = 4
"""Bundles a slot gets, where there is enough work, so that slots end together."""
SHORTEST_BUNDLE_OVERHEADS = 20.0
"""Bundles shorter than this many call overheads are made only to use every slot. (The overhead
of one bundle is hidden behind the work of the one before it on the same executor, but where the
master has no CPU of its own it takes that work's.)"""
LONGEST_BUNDLE_OVERHEADS = 200.0
"""Longer bundles save less than half a percent, and slots end together with shorter ones."""


class Session:
    """One connection to Ray with the executors, dispatcher and cost model that go with it."""

    def __init__(self, settings: Settings, policy: str | Policy) -> None:
        self.settings = settings
        show_all(settings.full_tracebacks)
        chosen = get_policy(policy)  # a wrong one is refused before Ray is started
        self.model = CostModel()
        self._costs = CostStore() if settings.keep_costs else None
        if self._costs is not None:
            self._costs.load(self.model)
            self._expect_calls(host_calls())
        self._requested = False
        self._ended = threading.Event()
        self._started_ray = _in_lasting_thread(lambda: _connect(settings), self._ended)
        self._ray = _connection()
        share = settings.share
        if share is None and self._started_ray:
            share = 1.0
        retry = RetryRules(settings.max_failures, max_user_retries=settings.max_user_retries)
        copies = SpeculationRules(enabled=settings.second_copies)
        self._codelets = CodeletTable()
        self._runs: dict[str, Run] = {}
        self._gpu_runs: set[str] = set()
        self._rates: list[HostRates] = []
        self._lock = threading.Lock()
        self._counter = itertools.count()
        self._name = uuid.uuid4().hex[:8]
        self._closed = False
        self._loop = Loop(
            Dispatcher(chosen, self.model, retry, speculation=copies),
            self._codelets,
            lambda node_id, device: self._nodes.executor(node_id, device),
            self._request_resources,
            lambda *place: self._nodes.executor_died(*place),
            lambda run: self._reopened(run),
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
            is_idle=lambda: not self._runs,
            needs_gpus=lambda: bool(self._gpu_runs),
            gpu_device=settings.gpu_device,
            on_rates=self._calibrated,
        )
        self._loop.start()
        self._nodes.start()

    @property
    def closed(self) -> bool:
        return self._closed or _connection() != self._ray

    @property
    def slots(self) -> int:
        """Bundles that run at once."""
        return max(1, sum(self._nodes.slots_by_device().values()))

    def cluster(self) -> ClusterState:
        """The cluster as it is now, with the nodes' newest reports (new nodes get a moment to
        send their first)."""
        return self._nodes.await_reports(_FIRST_REPORT_SECONDS)

    def submit(
        self,
        graph: TaskGraph,
        *,
        priority: int = 0,
        asked: int | None = None,
        target_seconds: float | None = None,
    ) -> Run:
        """Run a graph; returns at once.

        Parameters
        ----------
        graph : TaskGraph
        priority : int
            Higher goes first.
        asked : int, optional
            Logical tasks the caller asked for, for the decomposition rate.
        target_seconds : float, optional
            Predicted work in one bundle; None: chosen from call overhead and slots.

        Raises
        ------
        SerializationError
            A function of the graph cannot be sent.
        SessionError
            The session is shut down.
        JobCancelledError
            The job this is part of was cancelled.
        """
        if self.closed:
            raise SessionError("the session is shut down; call agentic_ray.init() again")
        scope = current_scope()
        if scope is not None:
            scope.check()
            priority += scope.priority
        graph = _taken(cull(graph))
        predicted = {task.key: self._seconds(task) for task in graph}
        for codelet in {id(task.codelet): task.codelet for task in graph}.values():
            self._codelets.source(codelet)  # an unpicklable function fails here, in the caller
        bundles = bundle_pass(
            graph,
            # What is not known yet is not grouped: it may be long.
            seconds=lambda task: predicted[task.key] if predicted[task.key] >= 0 else float("inf"),
            target_seconds=self.bundle_seconds
            if target_seconds is None
            else lambda _: target_seconds,
        )
        graph_id = f"{self._name}-{next(self._counter)}"
        on_gpus = any("gpu" in bundle.kinds() for bundle in bundles)
        self._hold(graph_id, on_gpus)
        items = sum(task.cost.items for task in graph)
        run = Run(
            self._loop,
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
            scope.add(run)
        return run

    def bundle_seconds(self, total_seconds: float) -> float:
        """Predicted work to put in one bundle, of ``total_seconds`` that can go on side by side.

        Several bundles a slot, and none longer than it need be, so that slots end together, but
        none so short that its call overhead shows; work too small for that is split evenly, down
        to one call's worth.
        """
        overhead = self.model.call_overhead_seconds
        least = overhead * SHORTEST_BUNDLE_OVERHEADS
        most = overhead * LONGEST_BUNDLE_OVERHEADS
        fair = total_seconds / self.slots
        wanted = max(min(max(least, min(fair / BUNDLES_PER_SLOT, most)), fair), overhead)
        each = fair / wanted
        if 1 < each < BUNDLES_PER_SLOT:
            wanted = fair / round(each)  # as many for one slot as for another
        return wanted

    def close(self) -> None:
        """End executors and, if we started it, Ray."""
        if self._closed:
            return
        connected = not self.closed
        self._closed = True
        self._nodes.close(connected=connected)
        self._loop.close()
        if self._costs is not None and self.model.error_report().observations:
            self._costs.save(self.model)
            measured = self.model.measured_call_seconds
            if measured is not None:
                keep_host_calls(HostCalls(measured))
        if self._requested and connected:
            self._request_resources(0, 0)  # it would stand until somebody else asks
        if self._started_ray and connected:
            ray.shutdown()
        self._ended.set()

    def drain(self, runs: Iterable[Run], timeout_seconds: float) -> bool:
        """Wait until no call of these runs is under way; False if the time was too short."""
        deadline = time.monotonic() + timeout_seconds
        graph_ids = {run.graph_id for run in runs}
        while active := self._loop.has_calls(graph_ids):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.01)
        return not active

    def _seconds(self, task: Task) -> float:
        """Predicted seconds on the likelier device; -1 when unknown. Steps that only combine
        (no items of their own) count as nothing until they were seen."""
        for kind in reversed(task.kinds()):
            seconds = self.model.task_seconds(task, kind)
            if seconds is not None:
                return seconds
        return -1.0 if task.cost.items else 0.0

    def _expect_calls(self, calls: HostCalls | None) -> None:
        """Until it has measured its own, predict what an earlier session's calls took."""
        if calls is not None:
            least, most = CALL_BOUNDS_SECONDS
            seconds = min(max(calls.overhead_seconds, least), most)
            self.model.calibration = replace(self.model.calibration, call_overhead_seconds=seconds)

    def _calibrated(self, rates: HostRates) -> None:
        """A node was measured: predict what was never observed for a typical node."""
        with self._lock:
            self._rates.append(rates)
            self.model.calibration = replace(
                self.model.calibration,
                cpu_flops_per_second=median(r.flops_per_second for r in self._rates),
                cpu_bytes_per_second=median(r.bytes_per_second for r in self._rates),
                store_bytes_per_second=median(r.store_bytes_per_second for r in self._rates),
            )

    def _hold(self, graph_id: str, on_gpus: bool) -> None:
        """Have the devices that a graph may run on."""
        self._nodes.reserve()
        if on_gpus:
            with self._lock:
                self._gpu_runs.add(graph_id)
            self._nodes.reserve_gpus()

    def _remember(self, run: Run) -> None:
        """Keep what it runs on until it is over."""
        with self._lock:
            self._runs[run.graph_id] = run
        run.on_done(lambda: self._forget(run.graph_id))

    def _reopened(self, run: Run) -> None:
        """A value of a finished graph was lost and is made again."""
        self._hold(run.graph_id, run.on_gpus)
        self._remember(run)

    def _forget(self, graph_id: str) -> None:
        with self._lock:
            self._runs.pop(graph_id, None)
            self._gpu_runs.discard(graph_id)

    def _request_resources(self, cpus: int, gpus: int) -> None:
        if self._started_ray:
            return  # nobody scales an embedded Ray
        from ray.autoscaler import sdk

        self._requested = bool(cpus or gpus)
        bundles = [{"GPU": 1}] * gpus
        sdk.request_resources(num_cpus=cpus or None, bundles=bundles or None)


def _connection() -> tuple[str, str] | None:
    """Which cluster, and which connection to it, this process has now."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _in_lasting_thread(start: Callable[[], bool], ended: threading.Event) -> bool:
    """Call ``start`` in a thread that lives until ``ended``.

    The kernel kills Ray's processes when the *thread* that started them ends (their parent-death
    signal), so a thread of the caller's, such as a job's, must not be the one.
    """
    if threading.current_thread() is threading.main_thread():
        return start()  # it lasts, and only it may set Ray's signal handlers
    outcome: Future[bool] = Future()

    def keep() -> None:
        try:
            outcome.set_result(start())
        except BaseException as error:  # raised again in the caller
            outcome.set_exception(error)
        else:
            ended.wait()

    threading.Thread(target=keep, name="agentic-ray-keeper", daemon=True).start()
    return outcome.result()


def _connect(settings: Settings) -> bool:
    """Join or start Ray; True if it was started here."""
    if ray.is_initialized():
        return False
    address = settings.address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and address.startswith("ray://"):
        raise InvalidArgumentError(
            f"{address}: a session cannot run through Ray Client; run the program on a node of "
            "the cluster, or send it with `ray job submit`"
        )
    if address in (None, "local"):
        options: dict[str, Any] = {}
        if settings.object_store_memory_bytes is not None:
            options["object_store_memory"] = settings.object_store_memory_bytes
        ray.init(
            address="local",
            num_cpus=settings.num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            **options,
        )
        return True
    try:
        _check_reachable(address)
        if _is_on_this_machine(address):
            _use_token_of_this_user()
        ray.init(address=address, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise SessionError(
            f"no Ray cluster answers at {address!r} ({error}); start one with "
            "`ray start --head`, or leave the address out to use an embedded Ray. If the cluster "
            "asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH)"
        ) from error
    return False


def _is_on_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host in ("localhost", ""):
        return True
    own = (entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
    return host in own


def _use_token_of_this_user() -> None:
    """Send this user's Ray token if there is one and no mode was set.

    `ray start --head` asks for the token as soon as the user has one (an embedded Ray makes
    it), but a driver sends it by itself only to a cluster that it found without an address. To
    other machines it is sent only if RAY_AUTH_MODE says so.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:
        return  # a Ray from before tokens
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens there: Ray itself would try for a minute, then exit."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            pass


_session: Session | None = None
_session_lock = threading.RLock()


@entry
def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    share: float | None = None,
    policy: str | Policy = "predictive",
    **settings: Any,
) -> Session:
    """Join a Ray cluster, or start an embedded Ray; does nothing when that is done.

    Parameters
    ----------
    address : str, optional
        ``"auto"`` or ``host:port`` of a running cluster. Default: ``RAY_ADDRESS`` if set, else
        an embedded Ray on this machine. A Ray that this process has joined already is used.
    num_cpus : int, optional
        CPUs of an embedded Ray; default: all.
    share : float, optional
        Fraction of each node's CPUs to take; default: all when we started Ray, else what is
        free.
    policy : str or Policy
        Where bundles go.
    **settings
        Further fields of `agentic_ray.config.Settings`.

    Raises
    ------
    SessionError
        The cluster cannot be reached.
    InvalidArgumentError
        A setting is unknown or unusable.
    """
    global _session
    resolved = Settings.resolve(address=address, num_cpus=num_cpus, share=share, **settings)
    with _session_lock:
        if _session is not None and _session.closed:
            _session.close()  # Ray was shut down, or replaced, behind its back
            _session = None
        if _session is None:
            _session = Session(resolved, policy)
        return _session


def get_session() -> Session:
    """The session, started with default settings if there is none."""
    return current_session() or init()


def current_session() -> Session | None:
    """The session if there is one; starts nothing."""
    session = _session
    return None if session is None or session.closed else session


def shutdown() -> None:
    """End the session; Ray too, if we started it. Does nothing when there is none."""
    global _session
    with _session_lock:
        if _session is not None:
            _session.close()
            _session = None


def cluster() -> ClusterState:
    """The cluster as it is now; prints as a table, renders in Jupyter."""
    return get_session().cluster()


def _taken(graph: TaskGraph) -> TaskGraph:
    """``graph`` with the user's functions as they are now: some may be sent much later."""
    known = {id(task.codelet): task.codelet for task in graph}
    taken = {name: capture_codelet(codelet) for name, codelet in known.items()}
    if all(taken[name] is codelet for name, codelet in known.items()):
        return graph
    tasks = [replace(task, codelet=taken[id(task.codelet)]) for task in graph]
    return TaskGraph(tasks, graph.outputs)


atexit.register(shutdown)
