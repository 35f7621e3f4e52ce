"""Groups by a shuffle: the very bits, and the order, of combining all parts in one place."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.tables import shuffle
from agentic_ray.tables.aggregates import combined, finish, partial
from agentic_ray.tables.grouping import Grouping, named_aggregates
from agentic_ray.tables.running import Outcome

DAY = dt.date(2020, 1, 1)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 12) | st.none(),
        st.sampled_from(["", "a", "bb", None]),
        st.sampled_from([0.0, -0.0, float("nan"), 1.5, None]),
        st.floats(-1e9, 1e9) | st.none(),
    ),
    max_size=60,
)
AGGREGATES: dict[str, Any] = {
    "rows": "size",
    "total": ("x", "sum"),
    "spread": ("x", "std"),
    "least": ("x", "min"),
    "last": ("x", "last"),
    "days": ("d", "nunique"),
}


def shuffled(parts: list[pa.Table], grouping: Grouping, ranges: int) -> pa.Table:
    cut = shuffle.Cut(ranges)
    outcomes = [Outcome(partial(part, grouping), part.num_rows, 0) for part in parts]
    pieces = [cut(number, outcome) for number, outcome in enumerate(outcomes)]
    assert [piece[-1].rows for piece in pieces] == [part.num_rows for part in parts]
    last = shuffle.Finish(grouping)
    found = [last([piece[at] for piece in pieces]) for at in range(ranges)]
    whole = pa.concat_tables(found, promote_options="default").sort_by("at:")
    return whole.drop_columns("at:")


@settings(max_examples=40, deadline=None)
@given(
    ROWS,
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([("i",), ("s",), ("f",), ("d", "c"), ("i", "s", "f")]),
    st.integers(1, 7),
)
def test_a_shuffle_has_the_same_bits_and_order(
    rows: list[Any], cuts: list[int], keys: tuple[str, ...], ranges: int
) -> None:
    table = pa.table(
        {
            "i": pa.array([row[0] for row in rows], pa.int32()),
            "s": pa.array([row[1] for row in rows], pa.string()),
            "f": pa.array([row[2] for row in rows], pa.float64()),
            "d": pa.array([None if r[0] is None else DAY + dt.timedelta(r[0]) for r in rows],
                          pa.date32()),
            "c": pa.array([row[1] for row in rows], pa.dictionary(pa.int8(), pa.string())),
            "x": pa.array([row[3] for row in rows], pa.float64()),
        }
    )  # fmt: skip
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [table.slice(low, high - low) for low, high in itertools.pairwise(edges)]
    grouping = Grouping(keys, named_aggregates(None, AGGREGATES))
    wanted = finish(combined([partial(part, grouping) for part in parts]), grouping)
    found = shuffled(parts, grouping, ranges)
    assert found.schema == wanted.schema
    for name in wanted.column_names:  # bit by bit, NaN too
        one, other = found[name].combine_chunks(), wanted[name].combine_chunks()
        assert one.is_null().equals(other.is_null())
        if pa.types.is_floating(one.type):
            bits = [array.fill_null(0).to_numpy().view(np.int64).tolist() for array in (one, other)]
            assert bits[0] == bits[1]
        else:
            assert one.equals(other)


def test_more_states_than_are_combined_at_once_are_the_same_in_steps() -> None:
    rng = np.random.default_rng(0)
    parts = [
        pa.table({"k": rng.integers(0, 9, 20), "x": rng.normal(size=20) * 1e9, "d": [DAY] * 20})
        for _ in range(150)
    ]
    grouping = Grouping(("k",), named_aggregates(None, AGGREGATES))
    cut = shuffle.Cut(3)
    pieces = [cut(i, Outcome(partial(p, grouping), 20, 0)) for i, p in enumerate(parts)]
    wanted = finish(combined([partial(part, grouping) for part in parts]), grouping)
    found = []
    for at in range(3):
        steps = [piece[at] for piece in pieces]
        level = [shuffle._merged(steps[low : low + 64]) for low in range(0, 150, 64)]
        found.append(shuffle.Finish(grouping)(level))
    whole = pa.concat_tables(found).sort_by("at:").drop_columns("at:")
    assert whole.equals(wanted)


@pytest.mark.usefixtures("ray_session")
def test_many_groups_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    files = [
        pa.table({"k": rng.integers(0, 30_000, 20_000), "x": rng.random(20_000)}) for _ in range(5)
    ]
    for number, file in enumerate(files):
        pq.write_table(file, tmp_path / f"{number}.parquet")
    table = ar.tables.read_parquet([tmp_path / f"{i}.parquet" for i in range(5)])

    def found() -> pa.Table:
        return table.group_by("k").agg(total=("x", "sum"), rows="size", some=("x", "nunique"))

    here = found()
    monkeypatch.setattr(shuffle, "HERE_BYTES", 1000)
    there = found()
    assert there.equals(here)
    assert table.report.rows == 100_000
    frame = pa.concat_tables(files).to_pandas().groupby("k", sort=False)
    wanted = frame.agg(total=("x", "sum"), rows=("x", "size"), some=("x", "nunique"))
    pd.testing.assert_frame_equal(there.to_pandas().set_index("k"), wanted)
    # A function of the user's may give columns of which one part knows no type.
    mapped = table.map(lambda part: part.set_column(0, "k", pa.nulls(part.num_rows)))
    assert mapped.group_by("k").size().to_pylist() == [{"k": None, "size": 100_000}]
