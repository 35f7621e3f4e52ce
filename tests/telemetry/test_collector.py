"""The collector's thread, and laying its reports over Ray's view."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.telemetry import (
    ClusterState,
    Collector,
    GpuState,
    HostState,
    NodeReport,
    NodeState,
    merge_reports,
    probe_host,
)
from agentic_ray.telemetry.nvml import GpuReading, NvmlProbe

GIB = 2**30
HOST = HostState(
    "h", 8.0, 8, 32 * GIB, 16 * GIB, load=0.25, cpu_limit=None, memory_limit_bytes=None
)
REPORT = NodeReport("n1", HOST, (), "no driver", (), 100.0, 7)
NODE = NodeState("n1", "h", 8.0, 6.0, 30 * GIB, 20 * GIB)


class Inbox:
    """Collects reports and lets a test wait for the n-th."""

    def __init__(self) -> None:
        self.reports: list[NodeReport] = []
        self._arrived = threading.Condition()

    def __call__(self, report: NodeReport) -> None:
        with self._arrived:
            self.reports.append(report)
            self._arrived.notify_all()

    def wait(self, count: int) -> list[NodeReport]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.reports) >= count, timeout=10)
        return self.reports


def collect(inbox: Callable[[NodeReport], object], **arguments: object) -> Collector:
    return Collector("n1", 0.02, push=inbox, **arguments)  # type: ignore[arg-type]


def test_reports_arrive_in_order_and_stop_stops() -> None:
    inbox = Inbox()
    collector = collect(inbox)
    collector.start()
    collector.start()  # a second start is no second thread
    reports = inbox.wait(3)
    assert [report.sequence for report in reports[:3]] == [0, 1, 2]
    assert reports[0].host is not None
    assert reports[0].host.cpu_fraction is None
    assert reports[1].host is not None
    assert reports[1].host.cpu_fraction is not None
    assert abs(reports[0].taken_at - time.time()) < 10
    assert not reports[0].errors
    assert collector.running
    collector.stop()
    assert not collector.running
    count = len(inbox.reports)
    time.sleep(0.1)
    assert len(inbox.reports) == count
    collector.start()  # and it can be started again, going on counting
    assert inbox.wait(count + 1)[count].sequence == count
    collector.stop()


def test_a_failing_host_probe_is_reported_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: HostState | None) -> HostState:
        raise OSError("no /proc")

    inbox = Inbox()
    with caplog.at_level(logging.WARNING):
        collector = collect(inbox, read_host=broken)
        collector.start()
        reports = inbox.wait(3)
        collector.stop()
    assert all(report.host is None for report in reports)
    assert all(report.errors == ("host: OSError: no /proc",) for report in reports)
    assert [record.getMessage() for record in caplog.records] == [
        "collector of node n1: host: OSError: no /proc"
    ]


def test_a_failing_nvml_probe_is_reported() -> None:
    class Broken(NvmlProbe):
        def read(self) -> GpuReading:
            raise RuntimeError("boom")

    report = collect(Inbox(), nvml=Broken()).sample()
    assert report.gpus == ()
    assert report.gpus_reason is not None
    assert "boom" in report.gpus_reason
    assert report.errors == ("NVML: RuntimeError: boom",)


def test_a_failing_push_is_told_in_the_next_report() -> None:
    inbox = Inbox()

    def push(report: NodeReport) -> None:
        inbox(report)
        if report.sequence == 0:
            raise ConnectionError("gone")

    collector = collect(push)
    collector.start()
    first, second, third = inbox.wait(3)[:3]
    collector.stop()
    assert not first.errors
    assert second.errors == ("push: ConnectionError: gone",)
    assert not third.errors


def test_a_late_sample_is_not_caught_up_in_a_burst() -> None:
    times: list[float] = []

    def slow_once(previous: HostState | None) -> HostState:
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(0.5)
        return probe_host(previous)

    inbox = Inbox()
    collector = Collector("n1", 0.1, push=inbox, read_host=slow_once)
    collector.start()
    inbox.wait(3)
    collector.stop()
    assert times[2] - times[1] > 0.05


def test_stop_from_within_push() -> None:
    done = threading.Event()

    def push(_: NodeReport) -> None:
        collector.stop()
        done.set()

    collector = collect(push)
    collector.start()
    assert done.wait(5)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_the_interval_must_be_positive(interval: float) -> None:
    with pytest.raises(InvalidArgumentError):
        Collector("n", interval, push=print)


def test_reports_can_be_sent() -> None:
    report = collect(Inbox()).sample()
    assert pickle.loads(pickle.dumps(report)) == report


def merged(node: NodeState, report: NodeReport, now: float = 101.0) -> NodeState:
    return merge_reports(ClusterState((node,), now), {report.node_id: report}, now).nodes[0]


def test_merge_overlays_what_the_node_says() -> None:
    gpu = GpuState("GPU-1", 0, "X")
    node = merged(NODE, replace(REPORT, gpus=(gpu,), gpus_reason=None))
    assert node.gpus == (gpu,)
    assert node.heartbeat_age_seconds == 1.0
    assert node.load == 0.25
    assert (node.cpus_total, node.cpus_free) == (8.0, 6.0)
    assert node.memory_total_bytes == 30 * GIB  # Ray keeps its object store apart
    assert node.memory_free_bytes == 16 * GIB  # what the host really has


def test_merge_counts_the_age_by_the_clock_of_the_receiver() -> None:
    ahead = replace(REPORT, taken_at=5000.0)
    assert merged(NODE, ahead).heartbeat_age_seconds == 0.0
    assert merged(NODE, replace(ahead, received_at=98.5)).heartbeat_age_seconds == 2.5


@pytest.mark.parametrize(
    ("limit", "total", "free"), [(4.0, 4.0, 2.0), (1.0, 1.0, 0.0), (16.0, 8.0, 6.0)]
)
def test_merge_caps_cpus_at_the_limit_of_the_container(
    limit: float, total: float, free: float
) -> None:
    node = merged(NODE, replace(REPORT, host=replace(HOST, cpu_limit=limit)))
    assert (node.cpus_total, node.cpus_free) == (total, free)


def test_merge_caps_memory_at_the_limit_of_the_container() -> None:
    host = replace(HOST, memory_total_bytes=4 * GIB, memory_free_bytes=GIB)
    node = merged(NODE, replace(REPORT, host=host))
    assert (node.memory_total_bytes, node.memory_free_bytes) == (4 * GIB, GIB)
    unknown = replace(NODE, memory_total_bytes=None, memory_free_bytes=None)
    node = merged(unknown, replace(REPORT, host=host))
    assert (node.memory_total_bytes, node.memory_free_bytes) == (4 * GIB, GIB)


def test_merge_of_a_report_without_a_host() -> None:
    node = merged(NODE, replace(REPORT, host=None))
    assert node == replace(NODE, heartbeat_age_seconds=1.0, gpus_reason="no driver")


def test_merge_leaves_other_nodes_alone() -> None:
    other = replace(NODE, node_id="n2")
    cluster = merge_reports(
        ClusterState((other,), 1.0), {"n1": REPORT, "n3": replace(REPORT, node_id="n3")}, 101.0
    )
    assert cluster == ClusterState((other,), 1.0)
