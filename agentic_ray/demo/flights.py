"""Arrival delays of flights as a mergeable reduction. Pure: a table in, moments by group out.

Nothing here knows how many parts the data has, or where they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COLUMNS = ("carrier", "origin", "dest", "arr_delay")
COLUMN_TYPES = dict.fromkeys(COLUMNS[:3], "string") | {"arr_delay": "float64"}

Route = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, mean and sum of squared deviations from the mean of some numbers.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance:
    analysis and recommendations", The American Statistician 37(3), 1983.
    """

    count: int
    mean: float
    m2: float

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of numbers together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + delta * delta * (self.count * other.count / count),
        )

    @property
    def std(self) -> float:
        """Standard deviation of the sample (``n - 1``); NaN for a single number."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Delays:
    """Moments of the arrival delay in minutes, by carrier and by route; nulls left out."""

    by_carrier: dict[str, Moments] = field(default_factory=dict)
    by_route: dict[Route, Moments] = field(default_factory=dict)

    def merge(self, other: Delays) -> Delays:
        """Return the delays of both sets of flights together."""
        return Delays(
            _merged(self.by_carrier, other.by_carrier), _merged(self.by_route, other.by_route)
        )


def _merged(left: dict[Any, Moments], right: dict[Any, Moments]) -> dict[Any, Moments]:
    merged = dict(left)
    for key, moments in right.items():
        known = merged.get(key)
        merged[key] = moments if known is None else known.merge(moments)
    return merged


def delays_of(table: Any) -> Delays:
    """Compute the delays of the flights in one part of the data.

    Parameters
    ----------
    table : pyarrow.Table
        Table with the `COLUMNS`, in minutes; flights whose delay is null or NaN do not count, nor
        do those whose carrier (route) is null for the moments by carrier (route).
    """
    delays = table.column("arr_delay").to_numpy()  # null becomes NaN
    carrier, carriers = _encoded(table.column("carrier"))
    origin, origins = _encoded(table.column("origin"))
    dest, dests = _encoded(table.column("dest"))
    route = np.where((origin < 0) | (dest < 0), -1, origin * len(dests) + dest)
    routes = [(start, end) for start in origins for end in dests]
    return Delays(
        {carriers[i]: found for i, found in _moments(carrier, delays, len(carriers))},
        {routes[i]: found for i, found in _moments(route, delays, len(routes))},
    )


def _encoded(column: Any) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return a string column as numbers of its distinct values (-1 for null), and those values."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary.to_pylist()


def _moments(
    group: np.ndarray[Any, Any], values: np.ndarray[Any, Any], groups: int
) -> list[tuple[int, Moments]]:
    """Compute the moments of the numbers in each group that has any, in two passes over them."""
    counted = (group >= 0) & ~np.isnan(values)
    group, values = group[counted], values[counted]
    count = np.bincount(group, minlength=groups)
    mean = np.bincount(group, values, groups) / np.maximum(count, 1)
    m2 = np.bincount(group, (values - mean[group]) ** 2, groups)
    return [
        (int(i), Moments(int(count[i]), float(mean[i]), float(m2[i])))
        for i in np.flatnonzero(count)
    ]


def worst_routes(
    by_route: dict[Route, Moments], number: int, fewest_flights: int
) -> list[tuple[Route, Moments]]:
    """Return the routes with the largest mean delay, among those with at least so many flights."""
    often = [item for item in by_route.items() if item[1].count >= fewest_flights]
    return sorted(often, key=lambda item: (-item[1].mean, item[0]))[:number]
