"""Tables, folds and streams beside one process, pandas and polars: ratios of seconds in one run.

    python benchmarks/data.py [--json] [--case NAME]... [--repeat N] [--scale 1.0]

All read the same files, which lie in the page cache. A figure is the least seconds of the repeats,
which take turns. Polars runs where it is installed. Goals, from issue 20, are how many times as
quick as the peer we must be.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import agentic_ray as ar

Ways = dict[str, Callable[[], object]]
"""The same work by name of who does it; the first is ours."""
POLARS = importlib.util.find_spec("polars") is not None


def count_words(words: Counter[str], line: str) -> Counter[str]:
    words.update(line.split())
    return words


def add(left: Counter[str], right: Counter[str]) -> Counter[str]:
    left.update(right)
    return left


def word_count(folder: Path, scale: float) -> Ways:
    """Words of a text, Zipf distributed over 300,000, by the same Python code."""
    path = folder / "words.txt"
    rng = np.random.default_rng(0)
    numbers = rng.zipf(1.3, int(20_000_000 * scale)) % 300_000
    with open(path, "w") as file:
        for begin in range(0, len(numbers), 10):
            file.write(" ".join([f"w{n}" for n in numbers[begin : begin + 10]]) + "\n")

    def one_process() -> Counter[str]:
        words: Counter[str] = Counter()
        with open(path) as lines:
            for line in lines:
                count_words(words, line)
        return words

    return {"ours": lambda: ar.fold(path, count_words, add, Counter()), "one process": one_process}


def rows_of(count: int) -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "key": rng.integers(0, 1000, count),
            "item": rng.integers(0, 100_000, count),
            "value": rng.random(count),
        }
    )


def csv_group_by(folder: Path, scale: float) -> Ways:
    path = folder / "rows.csv"
    pyarrow.csv.write_csv(rows_of(int(3_000_000 * scale)), path)
    ways: Ways = {
        "ours": lambda: ar.tables.read_csv(path).group_by("key").agg(total=("value", "sum")),
        "pandas": lambda: pd.read_csv(path).groupby("key").agg(total=("value", "sum")),
    }
    if POLARS:
        import polars as pl

        ways["polars"] = lambda: (
            pl.scan_csv(path).group_by("key").agg(pl.col("value").sum()).collect()
        )
    return ways


def parquet_files(folder: Path, scale: float) -> Path:
    files = folder / "parquet"
    files.mkdir()
    table = rows_of(int(1_000_000 * scale))
    for number in range(10):
        pq.write_table(table, files / f"{number}.parquet")
    return files


def parquet_group_by(folder: Path, scale: float) -> Ways:
    return grouped_ways(parquet_files(folder, scale), "key")


def join(folder: Path, scale: float) -> Ways:
    """Each row joined with a table of 100,000, and the joined weights added up."""
    files = parquet_files(folder, scale)
    small = pa.table({"item": np.arange(100_000), "weight": np.arange(100_000) / 7})
    frame = small.to_pandas()
    ways: Ways = {
        "ours": lambda: (
            ar.tables.read_parquet(files).join(small, "item").agg(total=("weight", "sum"))
        ),
        "pandas": lambda: pd.read_parquet(files).merge(frame, on="item")["weight"].sum(),
    }
    if POLARS:
        import polars as pl

        right = pl.from_arrow(small).lazy()
        ways["polars"] = lambda: (
            pl.scan_parquet(files).join(right, on="item").select(pl.col("weight").sum()).collect()
        )
    return ways


def grouped_ways(files: Path, key: str) -> Ways:
    ways: Ways = {
        "ours": lambda: ar.tables.read_parquet(files).group_by(key).agg(total=("value", "sum")),
        "pandas": lambda: pd.read_parquet(files).groupby(key).agg(total=("value", "sum")),
    }
    if POLARS:
        import polars as pl

        ways["polars"] = lambda: (
            pl.scan_parquet(files).group_by(key).agg(pl.col("value").sum()).collect()
        )
    return ways


def many_keys(folder: Path, scale: float) -> Ways:
    """A million groups, spread over all files."""
    files = folder / "parquet"
    files.mkdir()
    rng = np.random.default_rng(3)
    for number in range(10):
        keys = rng.integers(0, 1_000_000, int(1_000_000 * scale))
        table = pa.table({"key": keys, "value": rng.random(len(keys))})
        pq.write_table(table, files / f"{number}.parquet")
    return grouped_ways(files, "key")


def small_files(folder: Path, scale: float) -> Ways:
    """Many small files, whose keys are strings."""
    files = folder / "parquet"
    files.mkdir()
    rng = np.random.default_rng(4)
    for number in range(int(500 * scale)):
        keys = pa.array([f"shop {n}" for n in rng.integers(0, 2000, 10_000)])
        pq.write_table(
            pa.table({"key": keys, "value": rng.random(10_000)}), files / f"{number}.parquet"
        )
    return grouped_ways(files, "key")


def join_of_strings(folder: Path, scale: float) -> Ways:
    """As `join`, by strings of which a fifth has no match."""
    files = folder / "parquet"
    files.mkdir()
    rng = np.random.default_rng(5)
    for number in range(4):
        numbers = rng.integers(0, 125_000, int(500_000 * scale))
        items = pa.array([f"item {n * 7919}" for n in numbers.tolist()])
        pq.write_table(pa.table({"item": items}), files / f"{number}.parquet")
    names = [f"item {n * 7919}" for n in range(100_000)]
    small = pa.table({"item": names, "weight": np.arange(100_000) / 7})
    frame = small.to_pandas()
    ways: Ways = {
        "ours": lambda: (
            ar.tables.read_parquet(files).join(small, "item").agg(total=("weight", "sum"))
        ),
        "pandas": lambda: pd.read_parquet(files).merge(frame, on="item")["weight"].sum(),
    }
    if POLARS:
        import polars as pl

        right = pl.from_arrow(small).lazy()
        ways["polars"] = lambda: (
            pl.scan_parquet(files).join(right, on="item").select(pl.col("weight").sum()).collect()
        )
    return ways


def stream(folder: Path, scale: float) -> Ways:
    """Sums of one-second windows by key, from batches in memory."""
    count = int(1_000_000 * scale)
    rng = np.random.default_rng(2)
    table = pa.table(
        {
            "time": np.sort(rng.random(count) * 100),
            "key": rng.integers(0, 100, count),
            "value": rng.random(count),
        }
    )
    batches = table.to_batches(max_chunksize=10_000)

    def ours() -> object:
        events = ar.stream(lambda: iter(batches)).key_by("key").window(ar.stream.tumbling(1))
        return events.aggregate(total=("value", "sum")).to_arrow()

    def pandas() -> object:
        frame = table.to_pandas()
        return frame.groupby([frame["time"] // 1, "key"])["value"].sum()

    return {"ours": ours, "pandas, all rows at once": pandas}


CASES: dict[str, tuple[Callable[[Path, float], Ways], dict[str, float]]] = {
    "word count": (word_count, {"one process": 1.7}),
    "CSV group by": (csv_group_by, {"pandas": 1.0, "polars": 0.5}),
    "Parquet group by": (parquet_group_by, {"polars": 0.6}),
    "group by 1 M keys": (many_keys, {"polars": 0.6}),
    "500 small files": (small_files, {"polars": 0.6}),
    "join": (join, {"polars": 0.6}),
    "join of strings": (join_of_strings, {"polars": 0.6}),
    "stream": (stream, {}),
}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def measure(name: str, repeat: int, scale: float) -> list[dict[str, Any]]:
    make, goals = CASES[name]
    with scratch() as folder:
        ways = make(folder, scale)
        least = dict.fromkeys(ways, float("inf"))
        for turn in range(repeat + 1):  # the first one warms up
            for who, run in ways.items():
                began = time.perf_counter()
                run()
                if turn:
                    least[who] = min(least[who], time.perf_counter() - began)
    ours = least.pop("ours")
    return [
        {
            "case": name, "ours_seconds": ours, "peer": who, "peer_seconds": seconds,
            "ratio": seconds / ours, "goal": goals.get(who),
        }
        for who, seconds in least.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows")
    arguments = parser.parse_args()
    ar.init(num_cpus=2, progress=False, idle_release_seconds=600)  # as the peers, which stay
    rows = [
        row
        for name in arguments.case or CASES
        for row in measure(name, arguments.repeat, arguments.scale)
    ]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        goal = "" if row["goal"] is None else f"  (goal {row['goal']:g})"
        print(
            f"{row['case']:<20} {row['ours_seconds']:7.3f} s   {row['peer']} "
            f"{row['peer_seconds']:.3f} s: {row['ratio']:.2f} times as quick{goal}"
        )


if __name__ == "__main__":
    main()
