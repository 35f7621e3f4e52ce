"""Score card payments as they come: cards that pay in many countries, or very often, in a minute.

    python examples/fraud_scoring.py --minutes 500
    python examples/fraud_scoring.py --windows windows --checkpoint state

Payments are generated, up to two seconds out of order, and some cards are stolen: these pay ten
times within a minute, in five countries. The answer is checked: it is the stolen cards. With a
checkpoint the program may be killed and started again: each window is scored once.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import agentic_ray as ar

CARDS = 20_000
PAYMENTS_A_MINUTE = 20_000
STOLEN_A_MINUTE = 5
BURST = 10
DELAY = 2.0
COUNTRIES = np.array(["NO", "IT", "DE", "FR", "ES", "PT", "SE", "FI"])
ALARM = 30


def stolen(minute: int, seed: int) -> Any:
    """The numbers of the cards that are stolen in a minute."""
    return np.random.default_rng([seed, 0, minute]).choice(CARDS, STOLEN_A_MINUTE, replace=False)


def payments(minutes: int, seed: int) -> Iterator[pa.Table]:
    """Give the payments minute by minute; the same again for the same seed."""
    for minute in range(minutes):
        rng = np.random.default_rng([seed, 1, minute])
        card = rng.integers(0, CARDS, PAYMENTS_A_MINUTE)
        bad = np.repeat(stolen(minute, seed), BURST)
        times = [rng.uniform(0, 60, len(card)), rng.uniform(5, 55, len(bad))]
        time = 60 * minute + np.concatenate(times)
        home = COUNTRIES[card % len(COUNTRIES)]
        abroad = COUNTRIES[np.arange(len(bad)) % 5]
        order = np.argsort(time + rng.uniform(0, DELAY, len(time)))
        yield pa.table(
            {
                "time": time[order],
                "card": np.concatenate([card, bad])[order],
                "country": np.concatenate([home, abroad])[order],
                "amount": rng.lognormal(3, 1, len(time)).round(2),
            }
        )


def scored(windows: pa.Table) -> pa.Table:
    """Add the score of each card and minute: ten for each country beyond the first, one for each
    payment beyond the fifth."""
    countries = pc.subtract(windows["countries"], 1)
    often = pc.max_element_wise(pc.subtract(windows["payments"], 5), 0)
    return windows.append_column("score", pc.add(pc.multiply(countries, 10), often))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=5, help="500 are 10 million payments")
    parser.add_argument("--windows", type=Path, help="folder to keep the windows in")
    parser.add_argument("--checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.checkpoint is not None and options.windows is None:
        parser.error("--checkpoint needs --windows, so that what came out before is kept")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.windows or Path(scratch) / "windows"
        stream = (
            ar.stream(lambda: payments(options.minutes, options.seed), max_delay=DELAY)
            .key_by("card")
            .window(ar.stream.tumbling(60))
            .aggregate(payments="size", countries=("country", "nunique"), spent=("amount", "sum"))
            .sink(folder)
        )
        report = stream.run(checkpoint=options.checkpoint)
        # The windows are a table like any other.
        windows = ar.tables.read_parquet(folder).map(scored)
        alarms = windows.filter(ar.tables.col("score") >= ALARM).to_arrow()
    print(f"{report.rows:,} payments, {report.windows:,} windows, {report.late} late")
    for row in alarms.slice(0, 5).to_pylist():
        print(
            f"  card {row['card']:6} at {row['window_start']:7.0f} s: {row['payments']} payments "
            f"in {row['countries']} countries, {row['spent']:.2f}, score {row['score']}"
        )
    found = {(round(row["window_start"] / 60), row["card"]) for row in alarms.to_pylist()}
    wanted = {
        (minute, int(card))
        for minute in range(options.minutes)
        for card in stolen(minute, options.seed)
    }
    if found != wanted or report.late:
        raise SystemExit(f"{len(found & wanted)} of {len(wanted)} stolen cards were found, "
                         f"and {len(found - wanted)} others")  # fmt: skip
    print(f"checked: all {len(wanted)} stolen cards, and no other")


if __name__ == "__main__":
    main()
