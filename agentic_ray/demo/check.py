"""The demo's results recomputed in one process with pandas and NumPy, and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.demo.flights import COLUMNS, Delays, Moments
from agentic_ray.errors import CheckFailedError

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of results: how many numbers were compared, and the largest difference."""

    compared: int
    largest_relative_difference: float


def recomputed_delays(path: str) -> Delays:
    """Compute the delays by pandas' own grouping, of the whole file at once."""
    import pandas as pd

    flights = pd.read_csv(path, usecols=list(COLUMNS), keep_default_na=False, na_values=["", "NA"])
    return Delays(
        _grouped(flights.groupby("carrier")["arr_delay"]),
        _grouped(flights.groupby(["origin", "dest"])["arr_delay"]),
    )


def _grouped(groups: Any) -> dict[Any, Moments]:
    found = groups.agg(["count", "mean", "var"])
    return {
        key: Moments(int(count), float(mean), 0.0 if count == 1 else float(var) * (count - 1))
        for key, count, mean, var in found.itertuples(name=None)
        if count
    }


def compare(found: Delays, expected: Delays, squares: float, numbers: Any) -> Agreement:
    """Compare everything; counts must be equal, floats within 1e-9 relative.

    Parameters
    ----------
    squares : float
        Distributed sum of squares of ``numbers``.
    numbers : numpy.ndarray

    Raises
    ------
    CheckFailedError
        Results differ; the message lists up to ten differences.
    """
    differences: list[str] = []
    compared = 0
    largest = 0.0
    for name, ours, theirs in _pairs(found, expected, squares, float(np.sum(numbers * numbers))):
        compared += 1
        if isinstance(theirs, float) and isinstance(ours, float):
            if math.isnan(ours) and math.isnan(theirs):
                continue
            difference = abs(ours - theirs) / (max(abs(ours), abs(theirs)) or 1.0)
            largest = max(largest, difference)
            same = difference <= TOLERANCE  # False for a NaN on one side
        else:
            same = ours == theirs
        if not same:
            differences.append(f"{name}: {ours!r}, recomputed {theirs!r}")
    if differences:
        shown = "\n  ".join(differences[:10])
        more = f"\n  and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise CheckFailedError(
            f"{len(differences)} of {compared} results differ from pandas and NumPy in one "
            f"process:\n  {shown}{more}"
        )
    return Agreement(compared, largest)


def _pairs(
    found: Delays, expected: Delays, squares: float, expected_squares: float
) -> Iterator[tuple[str, Any, Any]]:
    """Yield every result with its name and its recomputation."""
    yield "sum of squares", squares, expected_squares
    pair: tuple[tuple[str, dict[Any, Moments], dict[Any, Moments]], ...] = (
        ("carrier", found.by_carrier, expected.by_carrier),
        ("route", found.by_route, expected.by_route),
    )
    for kind, ours, theirs in pair:
        yield f"{kind}s", sorted(ours), sorted(theirs)
        for key in sorted(ours.keys() & theirs.keys()):
            name = key if isinstance(key, str) else "→".join(key)
            yield f"flights of {kind} {name}", ours[key].count, theirs[key].count
            yield f"mean of {kind} {name}", ours[key].mean, theirs[key].mean
            yield f"standard deviation of {kind} {name}", ours[key].std, theirs[key].std
