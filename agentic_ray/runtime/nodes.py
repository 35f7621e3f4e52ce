"""Nodes of the session: which are there, their executors, and the CPUs held from Ray.

A thread reads Ray's node table and the executors' reports and tells the loop the changes.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private import state as ray_state
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from agentic_ray.errors import ExecutorLostError
from agentic_ray.runtime.answers import Answers
from agentic_ray.runtime.calibrate import HostRates
from agentic_ray.runtime.executors import start_cpu_executor
from agentic_ray.runtime.gpu_nodes import NodeGpus
from agentic_ray.schedule.events import (
    DeviceSlots,
    Event,
    GpuLost,
    NodeLost,
    NodeUp,
    Telemetry,
)
from agentic_ray.telemetry.collector import NodeReport, merge_reports
from agentic_ray.telemetry.nvml import closeness
from agentic_ray.telemetry.ray_probe import probe_ray
from agentic_ray.telemetry.state import ClusterState, NodeState

_logger = logging.getLogger("agentic_ray")
_RESERVE_WAIT_SECONDS = 0.5
_LEAST_WAIT_SECONDS = 0.2
_QUIET_SECONDS = 5.0
_REST_SECONDS = 5.0
_RESTART_SECONDS = 60.0
"""Seconds after which an executor that Ray has not brought back is made anew. (Killed again and
again while it starts, an actor can be forgotten by Ray in the state RESTARTING.)"""


@dataclass(slots=True)
class _Node:
    state: NodeState
    wanted_slots: int
    gpus: NodeGpus
    slots: int = 0
    cpu: Any = None
    held: list[Any] = field(default_factory=list)
    held_cpus: int = 0
    report: NodeReport | None = None
    report_pending: bool = False
    started_at: float = field(default_factory=time.time)


class Nodes:
    """Keeper of executors on every living node and of the session's share of its CPUs.

    Parameters
    ----------
    post : callable
        Takes NodeUp, NodeLost, GpuLost and Telemetry events.
    share : float or None
        Fraction of each node's CPUs to take; None: all that are free.
    idle_release_seconds, gpu_idle_release_seconds : float
        Seconds without work after which CPUs and GPUs go back to Ray.
    node_idle_release_seconds : float
        Seconds without work after which executors end, so that no process of ours is on a node:
        otherwise Ray's autoscaler would take it for busy and never take it down.
    is_idle, needs_gpus : callable
        Return whether there is no work, and whether some of it may run on a GPU.
    gpu_device : str
        Path of the class through which GPU executors use their device.
    on_rates : callable
        Called with the measured rates of a node, once for every node.
    is_connected, on_gone : callable
        Returns whether this process is still on the cluster; called once when it is not.
    on_look : callable
        Called after each look at the nodes, in the same thread.
    """

    def __init__(
        self,
        post: Callable[[Event], None],
        *,
        share: float | None,
        poll_seconds: float,
        idle_release_seconds: float,
        gpu_idle_release_seconds: float,
        node_idle_release_seconds: float,
        is_idle: Callable[[], bool],
        needs_gpus: Callable[[], bool],
        gpu_device: str,
        on_rates: Callable[[HostRates], None],
        is_connected: Callable[[], bool],
        on_gone: Callable[[], None],
        on_look: Callable[[], None],
    ) -> None:
        self._post = post
        self._share = share
        self._poll_seconds = poll_seconds
        self._idle_release_seconds = idle_release_seconds
        self._gpu_idle_release_seconds = gpu_idle_release_seconds
        self._node_idle_release_seconds = node_idle_release_seconds
        self._is_idle = is_idle
        self._needs_gpus = needs_gpus
        self._gpu_device = gpu_device
        self._on_rates = on_rates
        self._is_connected = is_connected
        self._on_gone = on_gone
        self._on_look = on_look
        self._generation = 0
        self._resting = False
        self._answers = Answers("agentic-ray-answers")
        self._nodes: dict[str, _Node] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._busy_until = 0.0
        self._gpus_until = time.monotonic() + gpu_idle_release_seconds
        self._gpus_rest = False
        self._last_work = time.monotonic()
        self._asleep = False
        self._reserved = False
        self._state = ClusterState((), time.time())
        self._thread = threading.Thread(target=self._main, name="agentic-ray-nodes", daemon=True)

    @property
    def state(self) -> ClusterState:
        """Newest view of the cluster."""
        return self._state

    def slots_by_device(self) -> dict[tuple[str, str], int]:
        """Return the number of bundles that run at once, by node and device."""
        with self._lock:
            found = {(node_id, "cpu"): node.slots for node_id, node in self._nodes.items()}
            for node_id, node in self._nodes.items():
                found.update(((node_id, gpu.device), 1) for gpu in node.gpus.devices())
            return found

    def start(self) -> None:
        self.refresh()
        self._thread.start()

    def executor(self, node_id: str, device: str) -> Any:
        """Return the actor handle of the executor of ``device`` on ``node_id``.

        Raises
        ------
        ExecutorLostError
            The node or the device is gone.
        """
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                found = None
            else:
                found = node.cpu if device == "cpu" else node.gpus.executor(device)
        if found is None:
            raise ExecutorLostError(f"device {device} of node {node_id} is gone")
        return found

    def executor_died(self, node_id: str, device: str, executor: Any, reason: str) -> None:
        """Take in that a call found this executor dead for good or without its device."""
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                return
            if device != "cpu":
                node.gpus.died(device, executor, reason)
            elif node.cpu is executor and executor is not None:
                self._lose(node_id, reason)  # and begin anew with the node

    def reserve(self) -> None:
        """Hold CPUs for work about to be submitted; cheap while they are held."""
        with self._lock:
            self._last_work = time.monotonic()
            self._busy_until = self._last_work + self._idle_release_seconds
            self._wake()
            if self._reserved:
                return
            self._reserved = True
            self._hold_more(wait_seconds=_RESERVE_WAIT_SECONDS)

    def reserve_gpus(self) -> None:
        """Reserve the GPUs for work about to be submitted: wait until every GPU that Ray counts has
        an executor, or a reason is known why not, or others seem to hold it."""
        with self._lock:
            self._last_work = time.monotonic()
            self._gpus_until = self._last_work + self._gpu_idle_release_seconds
            self._gpus_rest = False
            self._wake()
            for node in self._nodes.values():
                node.gpus.wake()
        self._await_gpus()
        with self._lock:
            for node in self._nodes.values():
                if node.gpus.awaited:
                    self._announce(node)

    def announce(self) -> None:
        """Announce every node again, to a Dispatcher that knows none."""
        with self._lock:
            for node in self._nodes.values():
                self._announce(node)

    @contextmanager
    def resting(self) -> Iterator[list[str]]:
        """Forget all nodes, which are gone with their Ray, and find no new ones inside the block.
        Yields their ids. (A thread that waits for an answer of the dead Ray may hold the lock.)"""
        got = self._lock.acquire(timeout=_REST_SECONDS)
        try:
            self._generation += 1
            self._resting = True
            node_ids = list(self._nodes)
            self._nodes.clear()
            self._answers.close()
            yield node_ids
        finally:
            if got:
                self._lock.release()

    def begin_anew(self) -> None:
        """Find the nodes of a Ray that was started anew."""
        with self._lock:
            self._generation += 1
            self._answers = Answers("agentic-ray-answers")
            self._resting = False
        self.refresh()

    def close(self, *, connected: bool) -> None:
        """End the watcher and, while Ray is there, the executors."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        self._answers.close()
        if not connected:
            return
        with self._lock:
            for node in self._nodes.values():
                self._let_go(node)
                node.gpus.close()
                if node.cpu is not None:
                    ray.kill(node.cpu)
            self._nodes.clear()

    # --- the watcher -------------------------------------------------------------------

    def _main(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            if not self._is_connected():
                if not self._stop.is_set():
                    self._on_gone()
                return
            if self._resting:
                continue
            generation = self._generation
            try:
                self.refresh()
                self._balance()
                self._on_look()
            except Exception as error:
                # When Ray goes away under us, that is no news; any other error must be seen.
                if self._is_connected() and generation == self._generation:
                    _logger.warning("cannot read the cluster: %s", error)

    def refresh(self) -> ClusterState:
        """Read the node table and the reports; start executors on new nodes."""
        generation = self._generation
        seen = probe_ray(local=not self._nodes)
        with self._lock:
            if generation != self._generation:
                return self._state  # the figures are of a Ray that has died
            alive = {node.node_id: node for node in seen.nodes if node.alive}
            for node_id in [node_id for node_id in self._nodes if node_id not in alive]:
                self._lose(node_id)
            for node_id, state in alive.items():
                known = self._nodes.get(node_id)
                if known is not None and known.cpu is not None and _is_stuck(known):
                    self._lose(node_id, "its executor does not come back")
                    known = None
                if known is None:
                    self._add(state)
                else:
                    known.state = state
                    self._ask_report(known)
                    if known.report is not None:
                        known.gpus.update(known.report.gpus, known.report.gpus_reason)
            reports = {
                node_id: node.report
                for node_id, node in self._nodes.items()
                if node.report is not None
            }
        self._state = merge_reports(seen, reports, time.time()) if reports else seen
        self._post(Telemetry(time.monotonic(), self._state))
        return self._state

    def await_reports(self, timeout_seconds: float) -> ClusterState:
        """Refresh as `refresh` does, but first wait until every node has been heard of once."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            with self._lock:
                awake = [node for node in self._nodes.values() if node.cpu is not None]
                silent = [node for node in awake if node.report is None]
                for node in silent:
                    self._ask_report(node)
            if not silent:
                break
            time.sleep(0.02)
        return self.refresh()

    def _await_gpus(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                waiting = [node for node in self._nodes.values() if not node.gpus.settled]
                for node in waiting:
                    self._ask_report(node)
                    if node.report is not None:
                        node.gpus.update(node.report.gpus, node.report.gpus_reason)
            if not waiting:
                return
            time.sleep(0.02)

    def _add(self, state: NodeState) -> None:
        if state.cpus_total < 1:
            return  # a node without CPUs (a head set to 0) takes no work
        wanted = int(state.cpus_total * (self._share or 1.0))
        gpus = NodeGpus(
            state.node_id,
            state.host,
            _ray_gpus(state),
            self._gpu_device,
            self._answers,
            lambda: self._gpus_changed(state.node_id),
            lambda uuid, reason: self._gpu_lost(state.node_id, uuid, reason),
        )
        if self._gpus_rest:
            gpus.rest()
        node = _Node(state, max(1, wanted), gpus)
        node.slots = node.wanted_slots
        self._nodes[state.node_id] = node
        if not self._asleep:
            _start_executor(node)
            self._answers.when(node.cpu.calibrate.remote(), self._calibrated)
        if self._reserved:
            self._hold(node, 0.0)
        self._announce(node)

    def _calibrated(self, future: Any) -> None:
        if future.exception() is None:  # else the executor died, which is noticed elsewhere
            self._on_rates(future.result())

    def _announce(self, node: _Node) -> None:
        # Under the lock, so that no GpuLost comes between the look at the devices and the event.
        with self._lock:
            devices = [DeviceSlots("cpu", "cpu", node.slots), *node.gpus.devices()]
            awaited = node.gpus.awaited
            links = () if node.report is None else node.report.links
            close = tuple((link.first, link.second, closeness(link)) for link in links)
            self._post(NodeUp(time.monotonic(), node.state, tuple(devices), awaited, close))

    def _gpus_changed(self, node_id: str) -> None:
        with self._lock:
            node = self._nodes.get(node_id)
            if node is not None and not self._stop.is_set():
                self._announce(node)

    def _gpu_lost(self, node_id: str, uuid: str, reason: str) -> None:
        with self._lock:
            self._post(GpuLost(time.monotonic(), node_id, uuid, reason))

    def _lose(self, node_id: str, why: str = "") -> None:
        node = self._nodes.pop(node_id)
        reason = f"node {node_id[:12]} ({node.state.host}) is {f'lost: {why}' if why else 'gone'}"
        if self._asleep:
            _logger.info("%s; nothing was under way", reason)
        else:
            _logger.warning("%s; its work goes elsewhere", reason)
        self._post(NodeLost(time.monotonic(), node_id, reason))
        self._let_go(node)
        node.gpus.close()
        if node.cpu is not None:
            ray.kill(node.cpu)

    def _ask_report(self, node: _Node) -> None:
        if node.report_pending or node.cpu is None:
            return
        node.report_pending = True

        def received(future: Any) -> None:
            node.report_pending = False
            report = None if future.exception() or node.cpu is None else future.result()
            last = -1 if node.report is None else node.report.sequence
            # The same sample again is no sign of life; a lower number is a new executor's.
            if report is not None and report.sequence != last:
                node.report = replace(report, received_at=time.time())
                if report.sequence < last:
                    node.cpu.set_slots.remote(node.slots)  # Ray restarted it as it was first

        self._answers.when(node.cpu.report.remote(), received)

    # --- the share of Ray's CPUs -------------------------------------------------------

    def _balance(self) -> None:
        with self._lock:
            now = time.monotonic()
            if self._needs_gpus():
                self._gpus_until = now + self._gpu_idle_release_seconds
            elif now >= self._gpus_until and not self._gpus_rest:
                self._gpus_rest = True
                for node in self._nodes.values():
                    node.gpus.rest()
            idle = self._is_idle()
            if not idle:
                self._last_work = now
            elif now >= self._last_work + self._node_idle_release_seconds and self._gpus_rest:
                self._fall_asleep()
            if not self._reserved:
                return
            if not idle:
                self._busy_until = now + self._idle_release_seconds
                self._hold_more(wait_seconds=0.0)
            elif now >= self._busy_until:
                for node in self._nodes.values():
                    self._let_go(node)
                self._reserved = False

    def _fall_asleep(self) -> None:
        """End the executors: the session's nodes stay known, with no process of ours on them."""
        if self._asleep:
            return
        self._asleep = True
        for node in self._nodes.values():
            self._let_go(node)
            executor, node.cpu, node.report = node.cpu, None, None
            ray.kill(executor)
        self._reserved = False

    def _wake(self) -> None:
        """Start executors again."""
        if not self._asleep:
            return
        self._asleep = False
        for node in self._nodes.values():
            _start_executor(node)

    def _hold_more(self, wait_seconds: float) -> None:
        if any(node.held_cpus < node.wanted_slots for node in self._nodes.values()):
            free = {node.node_id: node.cpus_free for node in probe_ray(local=False).nodes}
            for node_id, node in self._nodes.items():
                if node.held_cpus < node.wanted_slots:
                    node.state = replace(node.state, cpus_free=free.get(node_id, 0.0))
                    self._hold(node, wait_seconds)

    def _hold(self, node: _Node, wait_seconds: float) -> None:
        """Reserve free CPUs up to the share. A placement group holds them without a process.

        If no CPU is free the session still runs one bundle at a time, unreserved, so that two
        sessions on one cluster both make progress.
        """
        take = int(min(node.wanted_slots - node.held_cpus, node.state.cpus_free))
        if take >= 1:
            group = placement_group(
                [{"CPU": take}],
                strategy="STRICT_PACK",
                name=f"{owner_of_groups()} {uuid.uuid4().hex}",
                bundle_label_selector=[{"ray.io/node-id": node.state.node_id}],
            )
            if _is_created(group, max(wait_seconds, _LEAST_WAIT_SECONDS)):
                node.held.append(group)
                node.held_cpus += take
            else:
                remove_placement_group(group)  # somebody else was quicker
        slots = max(1, node.held_cpus)
        if slots != node.slots and node.cpu is not None:
            node.slots = slots
            node.cpu.set_slots.remote(slots)
            self._announce(node)

    def _let_go(self, node: _Node) -> None:
        for group in node.held:
            remove_placement_group(group)
        node.held.clear()
        node.held_cpus = 0


def _start_executor(node: _Node) -> None:
    threads = max(2, int(node.state.cpus_total)) + 2
    node.cpu = start_cpu_executor(node.state.node_id, node.slots, threads)
    node.started_at, node.report_pending = time.time(), False


def _is_stuck(node: _Node) -> bool:
    """Whether Ray has given a node's executor up, or does not bring it back."""
    heard_at = (node.report and node.report.received_at) or node.started_at
    quiet = time.time() - heard_at
    if quiet < _QUIET_SECONDS:
        return False
    state = ray_state.actors(node.cpu._actor_id.hex()).get("State")
    return state == "DEAD" or (state == "RESTARTING" and quiet > _RESTART_SECONDS)


def owner_of_groups() -> str:
    """Return the prefix of the names of this process's placement groups: in an actor, the actor's
    id.

    Ray does not remove them when an actor's process dies and is started anew; the new process does,
    by this name.
    """
    return ray.get_runtime_context().get_actor_id() or "driver"


def _is_created(group: Any, timeout_seconds: float) -> bool:
    """Wait for a placement group. (Its ``ready`` needs a free worker process, which may take
    seconds to start; its ``wait`` counts in whole seconds.)"""
    deadline = time.monotonic() + timeout_seconds
    while placement_group_table(group).get("state") != "CREATED":
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def _ray_gpus(state: NodeState) -> float:
    for row in ray.nodes():
        if row["NodeID"] == state.node_id:
            return float((row.get("Resources") or {}).get("GPU", 0.0))
    return 0.0
