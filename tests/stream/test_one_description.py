"""One chain, on a table and on a stream of the same rows: the same answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.stream import blocks
from agentic_ray.tables.aggregates import combined, finish, partial
from agentic_ray.tables.grouping import Grouping, named_aggregates

AGGREGATES: dict[str, Any] = {
    "events": "size",
    "total": ("amount", "sum"),
    "mean": ("amount", "mean"),
    "spread": ("amount", "std"),
    "shops": ("shop", "nunique"),
    "first": ("time", "first"),
}


def payments(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    names = np.array(["north", "south", None], object)
    return pa.table(
        {
            "time": np.sort(rng.random(count)) * 100,
            "card": rng.integers(0, 40, count),
            "shop": pa.array(names[rng.integers(0, 3, count)], pa.string()),
            "amount": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
        }
    )


def doubled(part: pa.Table) -> pa.Table:
    amounts = part["amount"].to_numpy() * 2
    return part.set_column(part.column_names.index("amount"), "amount", pa.array(amounts))


def steps(rows: Any) -> Any:
    """The description: good for both."""
    return (
        rows.select("card", "shop", "time", "amount")
        .filter(ar.tables.col("card") < 30)
        .map(doubled)
    )


def batches(table: pa.Table, sizes: list[int]) -> Iterator[pa.RecordBatch]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= table.num_rows:
            return
        yield from table.slice(at, size).to_batches()
        at += size


def same(one: pa.Table, other: pa.Table) -> None:
    assert one.column_names == other.column_names
    for name in one.column_names:
        left, right = one[name].to_pylist(), other[name].to_pylist()
        if name in ("total", "mean", "spread"):
            np.testing.assert_allclose(left, right, rtol=1e-9, equal_nan=True)
        else:
            assert left == right


@pytest.mark.usefixtures("ray_session")
def test_a_table_a_stream_and_its_windows_agree() -> None:
    rows = payments(20_000)
    table = steps(ar.tables.from_arrow(rows, part_rows=7000))
    stream = steps(ar.stream(lambda: batches(rows, [1000, 1, 4097])))
    wanted = table.group_by("card").agg(**AGGREGATES)
    same(stream.group_by("card").agg(**AGGREGATES), wanted)
    same(stream.agg(**AGGREGATES), table.agg(**AGGREGATES))
    assert stream.group_by("shop").size().equals(table.group_by("shop").size())
    windows = stream.key_by("card").window(ar.stream.tumbling(1000)).aggregate(**AGGREGATES)
    found = windows.to_arrow().drop_columns(["window_start", "window_end"])
    same(found.sort_by("card"), wanted.sort_by("card"))
    with pytest.raises(InvalidArgumentError, match="no column 'x'"):
        stream.group_by("x").size()
    with pytest.raises(InvalidArgumentError, match="is a key"):
        stream.group_by("card").agg(card=("amount", "sum"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_blocks_have_the_bits_of_a_table_of_such_parts(count: int, sizes: list[int]) -> None:
    rows = payments(count)
    grouping = Grouping(("card",), named_aggregates(None, AGGREGATES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ROWS", 3)
        found = blocks.Blocks(grouping)
        for batch in batches(rows, sizes):
            found.add(pa.Table.from_batches([batch]))
        answer = found.finish()
    parts = [rows.slice(at, 3) for at in range(0, max(count, 1), 3)]
    wanted = finish(combined([partial(part, grouping) for part in parts]), grouping)
    assert answer.num_rows == wanted.num_rows
    for name in wanted.column_names if count else ():
        assert repr(answer[name].to_pylist()) == repr(wanted[name].to_pylist())
