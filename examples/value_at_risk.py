"""Value at risk and expected shortfall of a portfolio by Monte Carlo, beside the closed formula.

    python examples/value_at_risk.py --scenarios 100000000
    python examples/value_at_risk.py --shares 50 --level 0.999

Returns of the shares are normal and correlated by one factor, so that losses of the portfolio have
a closed formula, with which the answer is checked. Each stream of random numbers is named by its
index: the answer has the same digits on every cluster. The worst losses alone are kept, so any
number of scenarios fits into memory.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist
from typing import Any

import numpy as np

import agentic_ray as ar

IN_STREAM = 1 << 15


def portfolio(shares: int, seed: int) -> tuple[Any, Any, Any]:
    """The value held of each share, its part of the common factor, and its own deviation."""
    rng = np.random.default_rng(seed)
    held = rng.uniform(0.5, 1.5, shares) / shares * 1e6
    daily = rng.uniform(0.01, 0.03, shares)
    common = rng.uniform(0.3, 0.8, shares)
    return held, daily * common, daily * np.sqrt(1 - common**2)


def worst_losses(held: Any, common: Any, own: Any, seed: int, kept: int) -> Any:
    """The codelet that simulates streams of scenarios and keeps the worst losses."""

    @ar.codelet
    def losses(streams: Any, *, xp: Any) -> Any:
        found = []
        for stream in streams.tolist():
            rng = xp.random.default_rng([seed, stream])
            factor = rng.standard_normal((IN_STREAM, 1))
            rest = rng.standard_normal((IN_STREAM, len(held)))
            returns = factor * xp.asarray(common) + rest * xp.asarray(own)
            found.append(-(returns @ xp.asarray(held)))
        return largest(xp.concatenate(found), kept, xp)

    return losses


def largest(values: Any, kept: int, xp: Any) -> Any:
    return xp.sort(values)[-kept:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", type=int, default=200_000, help="rounded up to streams")
    parser.add_argument("--shares", type=int, default=20)
    parser.add_argument("--level", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0.5 <= options.level < 1:
        parser.error("--level must be from 0.5 to 1")
    held, common, own = portfolio(options.shares, options.seed)
    streams = np.arange(-(-options.scenarios // IN_STREAM))
    count = len(streams) * IN_STREAM
    kept = max(1, round(count * (1 - options.level)))

    @ar.codelet
    def worse(left: Any, right: Any, *, xp: Any) -> Any:
        return largest(xp.concatenate([left, right]), kept, xp)

    job = worst_losses(held, common, own, options.seed, kept)
    # A row of the array, hence a block of the codelet, is one stream.
    worst = np.asarray(ar.map_reduce(job, streams, worse, chunk_size=1))
    value, shortfall = float(worst[0]), float(worst.mean())

    normal = NormalDist(0, math.sqrt((held @ common) ** 2 + float((held * own) @ (held * own))))
    exact = normal.inv_cdf(options.level)
    density = normal.pdf(exact)
    exact_shortfall = normal.stdev**2 * density / (1 - options.level)
    error = math.sqrt(options.level * (1 - options.level) / count) / density
    print(f"{count:,} scenarios of {options.shares} shares worth {held.sum():,.0f}")
    print(f"value at risk ({options.level:.1%}): {value:,.0f}, exactly {exact:,.0f}")
    print(f"expected shortfall: {shortfall:,.0f}, exactly {exact_shortfall:,.0f}")
    away = abs(value - exact) / error
    if away > 5 or abs(shortfall / exact_shortfall - 1) > 0.1:
        raise SystemExit(f"the value at risk is {away:.1f} standard errors from the closed formula")
    print(f"checked: {away:.2f} standard errors away")


if __name__ == "__main__":
    main()
