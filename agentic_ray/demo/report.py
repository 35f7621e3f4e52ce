"""The demo's results as tables for people or as JSON. Computes nothing of its own."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentic_ray.demo.check import TOLERANCE, Agreement
from agentic_ray.demo.flights import Delays, Moments, worst_routes
from agentic_ray.schedule.metrics import Metrics, PlacementRecord

WORST = 10
FEWEST_FLIGHTS = 100
"""Least arrivals of a route that counts among the worst: fewer say little of their mean."""
_PLACEMENTS_SHOWN = 12


class Job(Protocol):
    """A job of the demo."""

    @property
    def name(self) -> str: ...
    @property
    def placements(self) -> list[PlacementRecord]: ...
    @property
    def metrics(self) -> Metrics: ...


@dataclass(frozen=True, slots=True)
class Results:
    """Results to tell. ``agreement`` and ``failure`` are None without a check."""

    file: str
    delays: Delays
    numbers: int
    squares: float
    jobs: Sequence[Job]
    agreement: Agreement | None
    failure: str | None

    @property
    def worst(self) -> list[tuple[tuple[str, str], Moments]]:
        """The worst routes."""
        return worst_routes(self.delays.by_route, WORST, FEWEST_FLIGHTS)


def as_json(results: Results) -> str:
    """Return a JSON object; numbers that are not finite are null."""
    checked: dict[str, Any] | None = None
    if results.failure is not None:
        checked = {"passed": False, "message": results.failure}
    elif results.agreement is not None:
        checked = {"passed": True, **dataclasses.asdict(results.agreement)}
    return json.dumps(
        {
            "file": results.file,
            "carriers": [
                {"carrier": carrier, **_plain(moments)}
                for carrier, moments in sorted(results.delays.by_carrier.items())
            ],
            "worst_routes": [
                {"origin": origin, "dest": dest, **_plain(moments)}
                for (origin, dest), moments in results.worst
            ],
            "fewest_flights": FEWEST_FLIGHTS,
            "numbers": results.numbers,
            "sum_of_squares": results.squares,
            "jobs": {
                job.name: {
                    "metrics": dataclasses.asdict(job.metrics),
                    "placements": [dataclasses.asdict(record) for record in job.placements],
                }
                for job in results.jobs
            },
            "check": checked,
        },
        indent=2,
        allow_nan=False,
    )


def _plain(moments: Moments) -> dict[str, Any]:
    std = moments.std
    return {
        "flights": moments.count,
        "mean_minutes": moments.mean,
        "std_minutes": None if math.isnan(std) else std,
    }


def show(results: Results, console: Console, *, all_placements: bool = False) -> None:
    """Print the result tables, the placement table, the figures and the check."""
    carriers = _table("Arrival delay by carrier (minutes)", "carrier", "flights>", "mean>", "std>")
    for carrier, moments in sorted(results.delays.by_carrier.items()):
        carriers.add_row(carrier, *_cells(moments))
    console.print(carriers)

    worst = _table(
        f"The {WORST} worst routes with at least {FEWEST_FLIGHTS} arrivals (minutes)",
        *("route", "flights>", "mean>", "std>"),
    )
    for (origin, dest), moments in results.worst:
        worst.add_row(f"{origin} → {dest}", *_cells(moments))
    console.print(worst)
    console.print(f"Sum of squares of {results.numbers:,} numbers: {results.squares!r}\n")

    for job in results.jobs:
        console.print(_placement_table(job, None if all_placements else _PLACEMENTS_SHOWN))
    console.print(_metrics_table(results.jobs))
    if results.failure is not None:
        console.print(f"[bold red]check failed:[/] {escape(results.failure)}", highlight=False)
    elif results.agreement is not None:
        console.print(
            f"[bold green]check passed:[/] {results.agreement.compared} results equal those of "
            "pandas and NumPy in one process (counts exactly, floats to "
            f"{TOLERANCE:g}; largest difference "
            f"{results.agreement.largest_relative_difference:.1e})",
            highlight=False,
        )


def _table(title: str, *columns: str) -> Table:
    """Make a table; a column whose name ends in ``>`` is set to the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for name in columns:
        right = name.endswith(">")
        table.add_column(name.removesuffix(">"), justify="right" if right else "left")
    return table


def _cells(moments: Moments) -> tuple[str, str, str]:
    std = moments.std
    return (
        f"{moments.count:,}",
        f"{moments.mean:.3f}",
        "–" if math.isnan(std) else f"{std:.3f}",
    )


def _placement_table(job: Job, limit: int | None) -> Table:
    table = _table(
        f"Placements of {job.name}: {len(job.placements)} bundles",
        *("bundle", "node", "device", "predicted s>", "actual s>", "reason"),
    )
    for column in table.columns[:-1]:
        column.no_wrap = True
    for record in job.placements[:limit]:
        predicted = record.predicted_seconds
        table.add_row(
            escape(_shortened(record.bundle)),
            record.node_id[:8],
            record.device,
            "–" if predicted is None else f"{predicted:.4f}",
            f"{record.actual_seconds:.4f}",
            escape(record.reason),
        )
    hidden = len(job.placements) - table.row_count
    if hidden:
        table.caption = f"and {hidden} more (--all-placements or --json shows them)"
    return table


def _shortened(name: str, most: int = 32) -> str:
    """Cut the middle out of ``name``: the hash tells a person less than the text around it."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def _metrics_table(jobs: Sequence[Job]) -> Table:
    table = _table("Figures", "", *(f"{job.name}>" for job in jobs), "meaning")
    rows: list[tuple[str, Callable[[Metrics], str], str]] = [
        ("E", lambda m: f"{m.efficiency:.3f}", "efficiency: busy seconds / (makespan × slots)"),
        ("L", lambda m: f"{m.imbalance:.3f}", "imbalance: (max − mean) / max of busy per slot"),
        ("D", lambda m: f"{m.decomposition:.3f}", "decomposition: tasks made / tasks asked for"),
        ("F", lambda m: f"{m.recovery:.3f}", "recovery: bundles recovered / failed, 1 if none"),
        ("P/N", lambda m: f"{m.mean_task_seconds:.2e}", "mean busy seconds per task"),
        ("makespan", lambda m: f"{m.makespan_seconds:.3f}", "seconds from call to result"),
        ("tasks", lambda m: f"{m.tasks:,}", "logical tasks"),
        ("bundles", lambda m: f"{m.bundles:,}", "units of placement, retry and lineage"),
        ("slots", lambda m: f"{m.slots:,}", "places in which a bundle can run"),
    ]
    for name, shown, meaning in rows:
        table.add_row(name, *(shown(job.metrics) for job in jobs), meaning)
    return table
