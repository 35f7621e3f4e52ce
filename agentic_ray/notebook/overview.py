"""`Overview`: the cluster, the graphs under way and the jobs of this process, at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from agentic_ray.master.default import present
from agentic_ray.master.jobs import JobRecord
from agentic_ray.pictures.meters import meter
from agentic_ray.pictures.wording import counted, seconds_text
from agentic_ray.runtime import cluster
from agentic_ray.runtime.current import current_session
from agentic_ray.telemetry.state import ClusterState

_MOST_JOBS = 10


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A graph of tasks that runs."""

    name: str
    done: int
    total: int
    seconds: float
    note: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of a session now. `taken` makes one."""

    state: ClusterState
    graphs: tuple[UnderWay, ...]
    jobs: tuple[JobRecord, ...]

    @classmethod
    def taken(cls) -> Overview:
        """Look at the session of this process, which is started if there is none."""
        state = cluster()
        session = current_session()
        now = time.monotonic()
        runs = () if session is None else session.under_way()
        graphs = tuple(
            UnderWay(
                *(run.graph_id, len(run.records), run.bundles_total),
                *(now - run.created_seconds, run.note),
            )
            for run in runs
        )
        master = present()
        jobs = () if master is None else tuple(master.jobs()[-_MOST_JOBS:])
        return cls(state, graphs, jobs)

    def __repr__(self) -> str:
        lines = [str(self.state)]
        lines += [
            f"graph {one.name}: {one.done:,} of {counted(one.total, 'bundle')}, "
            f"{seconds_text(one.seconds)} {one.note}".rstrip()
            for one in self.graphs
        ]
        lines += [f"job {job.id} {job.workload}: {job.state.value}" for job in self.jobs]
        if not (self.graphs or self.jobs):
            lines.append("nothing is under way")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        lines = [
            f"<div>graph {escape(one.name)} "
            + meter(one.done / max(one.total, 1), f"{one.done:,} of {one.total:,} bundles")
            + f" {seconds_text(one.seconds)} {escape(one.note)}</div>"
            for one in self.graphs
        ]
        lines += [
            f"<div>job <code>{escape(job.id)}</code> {escape(job.workload)}: "
            f"<b>{escape(job.state.value)}</b></div>"
            for job in self.jobs
        ]
        return self.state._repr_html_() + ("".join(lines) or "<small>nothing is under way</small>")


def repeated(seconds: float, show: Callable[[Overview], object], every: float = 1.0) -> None:
    """Show a new overview every second for ``seconds``; Ctrl-C, or Interrupt, ends it early."""
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(every, left))
            show(Overview.taken())
    except KeyboardInterrupt:
        return
