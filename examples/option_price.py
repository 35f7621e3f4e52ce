"""Price a European call option by Monte Carlo, beside the closed formula of Black and Scholes.

    python examples/option_price.py --paths 50000000
    ray job submit --working-dir . -- python examples/option_price.py

The codelet is written once over ``xp`` and runs on CPUs (NumPy) and GPUs (CuPy). Each stream of
random numbers is named by its index, so that the price has the same digits on every CPU cluster.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist
from typing import Any

import numpy as np

import agentic_ray as ar

PATHS_IN_STREAM = 1 << 18

Sums = tuple[int, float, float]
"""Number, sum and sum of squares of discounted payoffs."""


def payoffs_of(market: argparse.Namespace) -> Any:
    """The codelet that simulates the streams it is given in one market."""
    drift = (market.rate - market.volatility**2 / 2) * market.years
    spread = market.volatility * math.sqrt(market.years)
    discount = math.exp(-market.rate * market.years)

    @ar.codelet
    def payoffs(streams: Any, *, xp: Any) -> Sums:
        count, total, squares = 0, 0.0, 0.0
        for stream in streams.tolist():
            normal = xp.random.default_rng([market.seed, stream]).standard_normal(PATHS_IN_STREAM)
            final = market.spot * xp.exp(drift + spread * normal)
            paid = discount * xp.maximum(final - market.strike, 0.0)
            count += PATHS_IN_STREAM
            total += float(paid.sum())
            squares += float((paid * paid).sum())
        return count, total, squares

    return payoffs


def add(left: Sums, right: Sums) -> Sums:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def black_scholes(market: argparse.Namespace) -> float:
    """The exact price (Black and Scholes, Journal of Political Economy 81(3), 1973)."""
    spread = market.volatility * math.sqrt(market.years)
    moneyness = math.log(market.spot / market.strike) + market.rate * market.years
    upper = moneyness / spread + spread / 2
    cumulated = NormalDist().cdf
    discounted_strike = market.strike * math.exp(-market.rate * market.years)
    return market.spot * cumulated(upper) - discounted_strike * cumulated(upper - spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=20_000_000, help="rounded up to full streams")
    parser.add_argument("--spot", type=float, default=100.0, help="price of the share today")
    parser.add_argument("--strike", type=float, default=105.0)
    parser.add_argument("--rate", type=float, default=0.03, help="interest per year")
    parser.add_argument("--volatility", type=float, default=0.2, help="per square root of a year")
    parser.add_argument("--years", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tag", choices=["any", "cpu", "gpu"], default="any")
    market = parser.parse_args()

    streams = np.arange(-(-market.paths // PATHS_IN_STREAM))
    # A row of the array, hence a block of the codelet, is one stream.
    count, total, squares = ar.map_reduce(
        payoffs_of(market), streams, add, chunk_size=1, tag=market.tag
    )
    price = total / count
    error = math.sqrt((squares / count - price * price) / count)
    exact = black_scholes(market)
    print(f"{count:,} paths: {price:.5f} ± {error:.5f} (standard error)")
    print(f"Black-Scholes: {exact:.5f}, {abs(price - exact) / error:.2f} standard errors away")


if __name__ == "__main__":
    main()
