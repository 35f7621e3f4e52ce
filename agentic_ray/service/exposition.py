"""The master's figures in Prometheus' text format (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_ray.master import JobState, Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(statistics: Statistics) -> str:
    """The body of ``GET /metrics``."""
    now = [(JobState.QUEUED, statistics.queued), (JobState.RUNNING, statistics.running)]
    ended = [(state, statistics.finished[state]) for state in JobState if state.finished]
    lines = [
        *_family("agentic_ray_jobs", "gauge", "Jobs now waiting or running.", _by_state(now)),
        *_family(
            "agentic_ray_jobs_submitted_total",
            "counter",
            "Jobs accepted since the start.",
            [("", statistics.submitted)],
        ),
        *_family(
            "agentic_ray_jobs_finished_total",
            "counter",
            "Jobs that ended since the start.",
            _by_state(ended),
        ),
        *_family(
            "agentic_ray_queue_length",
            "gauge",
            "Jobs that wait to run.",
            [("", statistics.queued)],
        ),
    ]
    for figure, total in statistics.figures.items():
        lines += _family(
            f"agentic_ray_job_{figure}",
            "summary",
            f"{figure.capitalize()} of the jobs that used the cluster.",
            [("_sum", total), ("_count", statistics.measured)],
        )
    return "\n".join(lines) + "\n"


def _by_state(counts: Iterable[tuple[JobState, int]]) -> list[tuple[str, float]]:
    return [(f'{{state="{state.value}"}}', count) for state, count in counts]


def _family(
    name: str, kind: str, about: str, samples: Iterable[tuple[str, float]]
) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value}"
