"""Statistics of an ensemble of weather forecasts over zarr: mean, spread, the chance of frost.

    python examples/weather_ensemble.py --megabytes 1000
    python examples/weather_ensemble.py --store forecast.zarr

The forecasts are generated: a smooth temperature, and for each member an error of its own whose
size grows with time. So it is known what the statistics must be near to, and they are checked.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

import agentic_ray as ar
import agentic_ray.array as xp

MEMBERS = 32
LATITUDES, LONGITUDES = 64, 128
FROST = 273.15
MEGABYTES_AN_HOUR = MEMBERS * LATITUDES * LONGITUDES * 4 / 1e6


def truth(hours: int) -> Any:
    """The temperature that the members scatter about, in kelvin: (hour, latitude, longitude)."""
    hour = np.arange(hours)[:, None, None]
    north = np.linspace(-90, 90, LATITUDES)[None, :, None]
    east = np.linspace(0, 2 * np.pi, LONGITUDES, endpoint=False)[None, None, :]
    return (300 - 50 * (north / 90) ** 2 + 5 * np.sin(2 * np.pi * hour / 24 + east)).astype("f4")


def spread_of(hours: int) -> Any:
    """The standard deviation of the members' errors, by hour."""
    return (0.5 + 3 * np.arange(hours) / hours).astype("f4")


def generate(store: Path, hours: int, seed: int) -> None:
    """Write the forecasts, (member, hour, latitude, longitude); each task makes the pieces of the
    file that it writes."""
    shape = (MEMBERS, hours, LATITUDES, LONGITUDES)
    chunks = (MEMBERS // 4, min(24, hours), LATITUDES, LONGITUDES)
    noise = xp.random.default_rng(seed).standard_normal(shape, dtype=xp.float32, chunks=chunks)
    members = truth(hours) + spread_of(hours)[:, None, None] * noise
    xp.to_zarr(store, members, chunks=chunks)


def check(mean: Any, spread: Any, frost: Any) -> float:
    """Return how far the mean is from the truth at most, in standard errors.

    Raises
    ------
    SystemExit
        A statistic is not what the generated forecasts must give.
    """
    hours = len(mean)
    expected, sigma = truth(hours), spread_of(hours)[:, None, None]
    far = np.abs(mean - expected) / (sigma / MEMBERS**0.5)
    # The spread of an hour is known well, from all its places.
    spreads = np.sqrt((spread.astype("f8") ** 2).mean(axis=(1, 2)))
    normal = NormalDist()
    chance = np.vectorize(normal.cdf)((FROST - expected) / sigma)
    good = (
        far.max() < 7
        and np.abs(spreads / spread_of(hours) - 1).max() < 0.02
        and abs(frost.mean() - chance.mean()) < 0.005
    )
    if not good:
        raise SystemExit("the statistics are not those of the forecasts that were generated")
    return float(far.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=25, help="size of the forecasts")
    parser.add_argument("--store", type=Path, help="zarr store to keep; used if it is there")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hours = max(1, round(options.megabytes / MEGABYTES_AN_HOUR))
    with tempfile.TemporaryDirectory() as scratch:
        store = options.store or Path(scratch) / "forecast.zarr"
        if not store.exists():
            generate(store, hours, options.seed)
        members = xp.from_zarr(store)
        # One pass over the file for all three.
        mean, spread, frost = ar.compute(
            xp.mean(members, axis=0),
            xp.std(members, axis=0, correction=1),
            xp.mean(xp.astype(members < FROST, xp.float32), axis=0),
        )
    far = check(mean, spread, frost)
    size = members.size * members.dtype.itemsize / 1e6
    print(f"{len(mean)} hours of {MEMBERS} forecasts, {size:,.0f} MB")
    print(f"spread of the last hour: {spread[-1].mean():.2f} K")
    print(f"frost: {100 * frost.mean():.1f} % of all places and hours")
    print(f"checked: means at most {far:.1f} standard errors from the truth")


if __name__ == "__main__":
    main()
