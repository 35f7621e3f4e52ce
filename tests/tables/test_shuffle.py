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
from agentic_ray.runtime.values import Stored
from agentic_ray.tables import ranges, shuffle
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


def shuffled(
    states: list[Any], grouping: Grouping, edges: tuple[int, ...], step: int
) -> tuple[pa.Table, pa.Table]:
    """Return the answer by whole states, and by states that were cut where they were made."""
    outcomes = [Outcome(state, number, 0) for number, state in enumerate(states)]
    pieces = [shuffle.Cut(edges)(outcome) for outcome in outcomes]
    assert [piece[-1] for piece in pieces] == [Outcome(None, i, 0) for i in range(len(states))]
    runs = list(itertools.pairwise(edges))
    lasts = [shuffle.Finish(grouping, low, high, step) for low, high in runs]
    cut = [last([piece[at] for piece in pieces]) for at, last in enumerate(lasts)]
    whole = [last(outcomes) for last in lasts]
    return shuffle.in_order(whole), shuffle.in_order(cut)


def assert_same_bits(found: pa.Table, wanted: pa.Table) -> None:
    assert found.schema == wanted.schema
    for name in wanted.column_names:  # bit by bit, NaN too
        one, other = found[name].combine_chunks(), wanted[name].combine_chunks()
        assert one.is_null().equals(other.is_null())
        if pa.types.is_floating(one.type):
            bits = [array.fill_null(0).to_numpy().view(np.int64).tolist() for array in (one, other)]
            assert bits[0] == bits[1]
        else:
            assert one.equals(other)


@settings(max_examples=40, deadline=None)
@given(
    ROWS,
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([("i",), ("s",), ("f",), ("d", "c"), ("i", "s", "f")]),
    st.sampled_from([(0, 64), (0, 1, 64), (0, 20, 40, 64)]),
    st.sampled_from([1, 7, 64]),
    st.booleans(),
)
def test_a_shuffle_has_the_same_bits_and_order(
    rows: list[Any],
    cuts: list[int],
    keys: tuple[str, ...],
    runs: tuple[int, ...],
    step: int,
    by_range: bool,
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
    with pytest.MonkeyPatch.context() as patch:
        if by_range:  # rows are cut before they are grouped, however few
            patch.setattr(ranges, "_FEW_ROWS", 0)
            patch.setattr(ranges, "_MANY", 0.0)
            patch.setattr(ranges, "_SAMPLE", 1)
        states = [ranges.state_of_part(part, grouping, i) for i, part in enumerate(parts)]
    assert all(isinstance(state, ranges.Ranged) for state in states) == by_range
    for found in shuffled(states, grouping, runs, step):
        assert_same_bits(found, wanted)


def test_many_parts_are_combined_the_same_by_ranges() -> None:
    rng = np.random.default_rng(0)
    parts = [
        pa.table({"k": rng.integers(0, 9, 20), "x": rng.normal(size=20) * 1e9, "d": [DAY] * 20})
        for _ in range(150)
    ]
    grouping = Grouping(("k",), named_aggregates(None, AGGREGATES))
    wanted = finish(combined([partial(part, grouping) for part in parts]), grouping)
    states = [ranges.state_of_part(part, grouping, i) for i, part in enumerate(parts)]
    for found in shuffled(states, grouping, (0, 9, 64), 1):
        assert_same_bits(found, wanted)


@pytest.mark.parametrize("groups", [1000, 400_000])
def test_a_large_part_has_the_same_state_however_many_groups_it_has(groups: int) -> None:
    rng = np.random.default_rng(2)
    rows = 300_000
    keys = pa.array(rng.integers(0, groups, rows))
    table = pa.table({"k": keys, "x": rng.normal(size=rows), "d": rng.integers(0, 3, rows)})
    grouping = Grouping(("k",), named_aggregates(None, AGGREGATES))
    state = ranges.state_of_part(table, grouping, 0)
    assert isinstance(state, ranges.Ranged) == (groups > 1000)
    wanted = finish(partial(table, grouping), grouping)
    for found in shuffled([state], grouping, (0, 64), 1):
        assert_same_bits(found, wanted)


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
    # (Such large states are in the object store, and are known by their size there.)
    sizes: list[int] = []
    by_shuffle = shuffle._shuffled

    def watched(states: Any, size: int, grouping: Grouping) -> Any:
        assert all(isinstance(state, Stored) for state in states)
        sizes.append(size)
        return by_shuffle(states, size, grouping)

    monkeypatch.setattr(shuffle, "_shuffled", watched)
    monkeypatch.setattr(shuffle, "HERE_BYTES", 1_000_000)
    there = found()
    assert there.equals(here)
    assert len(sizes) == 1
    # A group takes 8 bytes for each of key, position, sum and count; a pair of key and value 16.
    assert 2_000_000 < sizes[0] < 4_000_000
    assert table.report.rows == 100_000
    # On several nodes each state is cut where it is, and only pieces of it travel.
    monkeypatch.setattr(shuffle, "_share_memory", lambda: False)
    assert found().equals(here)
    assert len(sizes) == 2
    assert table.report.rows == 100_000
    frame = pa.concat_tables(files).to_pandas().groupby("k", sort=False)
    wanted = frame.agg(total=("x", "sum"), rows=("x", "size"), some=("x", "nunique"))
    pd.testing.assert_frame_equal(there.to_pandas().set_index("k"), wanted)
    # A function of the user's may give columns of which one part knows no type.
    mapped = table.map(lambda part: part.set_column(0, "k", pa.nulls(part.num_rows)))
    assert mapped.group_by("k").size().to_pylist() == [{"k": None, "size": 100_000}]
