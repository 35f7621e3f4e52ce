"""A node's reports: sampled on an interval, pushed to a receiver, laid over Ray's view.

``host`` and ``nvml`` read the figures; consequences are not decided here. Measured transfer rates
are in ``bandwidth``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.telemetry.host import HostState, probe_host
from agentic_ray.telemetry.nvml import GpuLink, GpuReading, NvmlProbe
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState

DEFAULT_INTERVAL_SECONDS: Final = 1.0

_SLOW_SECONDS: Final = 5.0
_LAYOUT_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 10.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A sample of one node.

    Parameters
    ----------
    host : HostState or None
        State of the host; None when it could not be read: ``errors`` then says why.
    taken_at : float
        Seconds since the epoch by the clock of the node.
    sequence : int
        Count up by one from 0 per collector; a gap is a lost report.
    errors : tuple of str
        Failures in taking or sending samples since the report before.
    received_at : float or None
        Time by the clock of the receiver, which sets it, so that the clocks need not agree.
    """

    node_id: str
    host: HostState | None
    gpus: tuple[GpuState, ...]
    gpus_reason: str | None
    links: tuple[GpuLink, ...]
    taken_at: float
    sequence: int
    errors: tuple[str, ...] = ()
    received_at: float | None = None


class Collector:
    """Samples this node in a daemon thread and pushes a `NodeReport` every interval.

    Parameters
    ----------
    node_id : str
        Ray's id of this node.
    interval_seconds : float
        Time from one sample to the next. GPU figures that change slowly (temperature, power,
        ECC) are read every five seconds at most, the list of MIG instances every thirty.
    push : callable
        Called in the thread with each report. An exception in it is logged, told in the next
        report, and stops nothing.
    read_host, nvml : callable, NvmlProbe
        Sources of the samples.

    Raises
    ------
    InvalidArgumentError
        The interval is not a positive number.
    """

    def __init__(
        self,
        node_id: str,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
        *,
        push: Callable[[NodeReport], object],
        read_host: Callable[[HostState | None], HostState] = probe_host,
        nvml: NvmlProbe | None = None,
    ) -> None:
        if not 0 < interval_seconds < math.inf:
            raise InvalidArgumentError(f"interval_seconds must be > 0, not {interval_seconds!r}")
        self._node_id = node_id
        self._interval_seconds = interval_seconds
        self._push = push
        self._read_host = read_host
        self._nvml = nvml or NvmlProbe(
            slow_seconds=_SLOW_SECONDS,
            layout_seconds=_LAYOUT_SECONDS,
            retry_seconds=_RETRY_SECONDS,
        )
        self._host: HostState | None = None
        self._sequence = 0
        self._errors: list[str] = []
        self._logged: set[str] = set()
        self._sampling = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def interval_seconds(self) -> float:
        return self._interval_seconds

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; the first report is pushed at once. Does nothing while running."""
        if self.running:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="agentic-ray-collector", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread and release NVML. No report is pushed after this returns, unless a
        push in progress hangs for longer than the timeout."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)
        self._nvml.close()

    def sample(self) -> NodeReport:
        """Take one sample now, in the calling thread, without pushing it."""
        with self._sampling:
            try:
                self._host = host = self._read_host(self._host)
            except Exception as error:  # a probe's fault is told, the heartbeat goes on
                host = None
                self._fault("host", error)
            try:
                reading = self._nvml.read()
            except Exception as error:  # the same
                self._fault("NVML", error)
                reading = GpuReading((), f"the GPUs could not be read: {error!r}")
            errors, self._errors = tuple(self._errors), []
            report = NodeReport(
                self._node_id,
                host,
                reading.gpus,
                reading.reason,
                reading.links,
                time.time(),
                self._sequence,
                errors,
            )
            self._sequence += 1
        return report

    def _run(self, stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.is_set():
            report = self.sample()
            if stop.is_set():
                return
            try:
                self._push(report)
            except Exception as error:  # the receiver may be back for the next report
                self._fault("push", error)
            # late by more than an interval: go on from now, do not catch up in a burst
            due = max(due + self._interval_seconds, time.monotonic())
            stop.wait(due - time.monotonic())

    def _fault(self, source: str, error: Exception) -> None:
        text = f"{source}: {type(error).__name__}: {error}"
        if text not in self._errors:
            self._errors.append(text)
        if text not in self._logged and len(self._logged) < 100:
            self._logged.add(text)  # once each: it may come back every interval
            _logger.warning("collector of node %s: %s", self._node_id, text, exc_info=error)


def merge_reports(
    cluster: ClusterState, reports: Mapping[str, NodeReport], now: float
) -> ClusterState:
    """Return Ray's view of the cluster with the nodes' own reports laid over it. Pure.

    Free memory is the smaller of the memory that Ray has not promised and the memory that the host
    really has free; CPUs and memory are capped by the limits of the container. Nodes without a
    report stay as they are, reports of unknown nodes are left out.

    Parameters
    ----------
    reports : mapping of node id to NodeReport
        Newest report of each node.
    now : float
        Seconds since the epoch; the age of a report counts from ``received_at`` where set.
    """
    nodes = []
    for node in cluster.nodes:
        report = reports.get(node.node_id)
        nodes.append(node if report is None else _overlay(node, report, now))
    return ClusterState(tuple(nodes), cluster.taken_at)


def _overlay(node: NodeState, report: NodeReport, now: float) -> NodeState:
    since = report.taken_at if report.received_at is None else report.received_at
    node = replace(
        node,
        gpus=report.gpus,
        gpus_reason=report.gpus_reason,
        heartbeat_age_seconds=max(0.0, now - since),
    )
    host = report.host
    if host is None:
        return node
    cpus_total, cpus_free = node.cpus_total, node.cpus_free
    if host.cpu_limit is not None and host.cpu_limit < cpus_total:
        in_use = cpus_total - cpus_free
        cpus_total = host.cpu_limit
        cpus_free = max(0.0, cpus_total - in_use)
    return replace(
        node,
        cpus_total=cpus_total,
        cpus_free=cpus_free,
        memory_total_bytes=_smaller(node.memory_total_bytes, host.memory_total_bytes),
        memory_free_bytes=_smaller(node.memory_free_bytes, host.memory_free_bytes),
        load=host.load,
        cpu_fraction=host.cpu_fraction,
        host_memory_total_bytes=host.memory_total_bytes,
        host_memory_free_bytes=host.memory_free_bytes,
    )


def _smaller(logical: int | None, real: int) -> int:
    return real if logical is None else min(logical, real)
