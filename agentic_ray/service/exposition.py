"""Figures of the master and of its cluster in Prometheus' text format (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from agentic_ray.master import JobState, Statistics
from agentic_ray.telemetry import ClusterState, GpuState, NodeState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NODE_FIGURES: Final = {
    "cpus": ("CPUs that Ray counts on a node.", "cpus_total"),
    "cpus_free": ("CPUs that nobody holds on a node, as Ray counts them.", "cpus_free"),
    "cpu_fraction": ("Busy part of a node's processors, 0 to 1, over a second.", "cpu_fraction"),
    "memory_bytes": ("Memory of a node's host.", "host_memory_total_bytes"),
    "memory_free_bytes": ("Memory of a node's host that nobody uses.", "host_memory_free_bytes"),
    "store_bytes": ("Room of a node's object store.", "store_total_bytes"),
    "store_used_bytes": ("Bytes in a node's object store.", "store_used_bytes"),
    "heartbeat_age_seconds": ("Age of the newest report of a node.", "heartbeat_age_seconds"),
}
"""Of each figure of a node what it is, and the attribute of `NodeState`."""

_GPU_FIGURES: Final = {
    "memory_bytes": ("Memory of a GPU.", "memory_total_bytes"),
    "memory_free_bytes": ("Memory of a GPU that is really free, by NVML.", "memory_free_bytes"),
    "utilization": ("Busy part of a GPU, 0 to 1, by NVML.", "utilization"),
    "processes": ("Processes on a GPU.", "process_count"),
    "temperature_celsius": ("Temperature of a GPU.", "temperature_celsius"),
    "power_watts": ("Power that a GPU draws.", "power_watts"),
    "healthy": ("1 while work may be placed on a GPU, else 0.", "healthy"),
}
"""Of each figure of a GPU what it is, and the attribute of `GpuState`."""


def render(statistics: Statistics, cluster: ClusterState | None = None) -> str:
    """Return the body of ``GET /metrics``.

    Parameters
    ----------
    statistics : Statistics
        Counts of the master.
    cluster : ClusterState, optional
        State of its cluster; None while it cannot be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures([*_of_jobs(statistics), *_of_cluster(cluster)]))
    return generate_latest(registry).decode()


class _Figures:
    """Metrics as a registry collects them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_jobs(statistics: Statistics) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("agentic_ray_jobs", "Jobs now waiting or running.", labels=["state"])
    jobs.add_metric([JobState.QUEUED.value], statistics.queued)
    jobs.add_metric([JobState.RUNNING.value], statistics.running)
    yield jobs
    yield CounterMetricFamily(
        "agentic_ray_jobs_submitted", "Jobs accepted since the start.", statistics.submitted
    )
    ended = CounterMetricFamily(
        "agentic_ray_jobs_finished", "Jobs that ended since the start.", labels=["state"]
    )
    for state in JobState:
        if state.finished:
            ended.add_metric([state.value], statistics.finished[state])
    yield ended
    yield GaugeMetricFamily("agentic_ray_queue_length", "Jobs that wait to run.", statistics.queued)
    yield GaugeMetricFamily(
        "agentic_ray_queue_bytes",
        "Parameters of the jobs that wait to run, as JSON text.",
        statistics.queued_bytes,
    )
    for figure, total in statistics.figures.items():
        yield SummaryMetricFamily(
            f"agentic_ray_job_{figure}",
            f"{figure.capitalize()} of the jobs that used the cluster.",
            count_value=statistics.measured,
            sum_value=total,
        )


def _of_cluster(cluster: ClusterState | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "agentic_ray_cluster_up", "1 while Ray answers, else 0.", int(cluster is not None)
    )
    if cluster is None:
        return
    nodes = [node for node in cluster.nodes if node.alive]
    yield GaugeMetricFamily("agentic_ray_nodes", "Nodes that are alive.", len(nodes))
    for name, (about, attribute) in _NODE_FIGURES.items():
        yield _gauge(
            f"agentic_ray_node_{name}",
            about,
            ["node", "host"],
            [([node.node_id, node.host], getattr(node, attribute)) for node in nodes],
        )
    gpus: list[tuple[NodeState, GpuState]] = [(node, gpu) for node in nodes for gpu in node.gpus]
    for name, (about, attribute) in _GPU_FIGURES.items():
        yield _gauge(
            f"agentic_ray_gpu_{name}",
            about,
            ["node", "host", "uuid", "model"],
            [
                ([node.node_id, node.host, gpu.uuid, gpu.name], getattr(gpu, attribute))
                for node, gpu in gpus
            ],
        )


def _gauge(
    name: str, about: str, labels: list[str], samples: Iterable[tuple[list[str], float | None]]
) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, figure in samples:
        if figure is not None:  # the node does not tell
            family.add_metric(values, float(figure))
    return family
