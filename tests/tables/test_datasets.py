"""Ray Datasets become tables and tables Ray Datasets, by reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data
from ray._private import worker as ray_worker

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.tables import col

pytestmark = pytest.mark.usefixtures("ray_session")

BLOCK_ROWS = 250_000
WHOLE_BYTES = 4 * BLOCK_ROWS * 16


class Fetched:
    """Bytes that this process got from the object store."""

    bytes = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetched]:
    """Count what Ray hands to this process, and refuse nothing."""
    found = Fetched()
    real = ray_worker.Worker.deserialize_objects

    def deserialize(self: Any, objects: Any, *args: Any, **options: Any) -> Any:
        found.bytes += sum(len(data) for data, *_ in objects if data is not None)
        return real(self, objects, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ray_worker.Worker, "deserialize_objects", deserialize)
        yield found


@ray.remote
def block(number: int, rows: int) -> pa.Table:
    ids = np.arange(number * rows, (number + 1) * rows)
    return pa.table({"id": ids, "price": (ids % 100).astype(float)})


def big() -> Any:
    """A Dataset of four blocks of 4 MB each that this process never had."""
    return ray.data.from_arrow_refs([block.remote(i, BLOCK_ROWS) for i in range(4)])


def test_counting_sees_what_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as fetched:
        ray.get(block.remote(0, BLOCK_ROWS))
    assert fetched.bytes > BLOCK_ROWS * 16


def test_a_dataset_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as fetched:
        table = ar.tables.from_ray(big())
        assert table.schema == pa.schema([("id", pa.int64()), ("price", pa.float64())])
        found = table.filter(col("price") >= 50).agg(rows="size", most=("id", "max"))
        counts = ar.map_reduce(lambda rows: rows.num_rows, big())
        total = ar.fold(big(), lambda state, rows: state + len(rows), lambda a, b: a + b, 0)
    assert found.to_pylist() == [{"rows": 2 * BLOCK_ROWS, "most": 4 * BLOCK_ROWS - 1}]
    assert counts == [BLOCK_ROWS] * 4
    assert total == 4 * BLOCK_ROWS
    assert fetched.bytes < WHOLE_BYTES / 100
    assert "4 parts" in table.explain()
    ids = table.select("id").to_arrow()["id"].to_numpy()
    assert np.array_equal(ids, np.arange(4 * BLOCK_ROWS))


def test_a_table_is_a_dataset_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ar.tables.from_ray(big()).write_parquet(tmp_path / "big")
    with counted(monkeypatch) as fetched:
        read = ar.tables.read_parquet(tmp_path / "big")
        table = read.map(
            lambda rows: rows.set_column(1, "half", pa.array(rows["id"].to_numpy() / 2))
        )
        dataset = table.to_ray()
        assert dataset.count() == 4 * BLOCK_ROWS
        assert dataset.schema().names == ["id", "half"]
        assert table.report.rows == 4 * BLOCK_ROWS
        again = ar.tables.from_ray(dataset).agg(most=("half", "max"))
    assert again.to_pylist() == [{"most": (4 * BLOCK_ROWS - 1) / 2}]
    assert fetched.bytes < WHOLE_BYTES / 100
    ids = np.concatenate([b["id"] for b in dataset.iter_batches(batch_size=None)])
    assert np.array_equal(ids, np.arange(4 * BLOCK_ROWS))


def test_small_parts_and_slices_become_blocks() -> None:
    table = ar.tables.from_arrow({"a": range(100)}, part_rows=30)
    assert table.filter(col("a") >= 50).to_ray().take_all() == [{"a": i} for i in range(50, 100)]
    first = table.map(lambda rows: rows.slice(0, 1)).to_ray()
    assert [row["a"] for row in first.take_all()] == [0, 30, 60, 90]
    assert first.size_bytes() < 100
    none = table.filter(col("a") < 0).to_ray()
    assert none.count() == 0
    assert ar.tables.from_ray(none).to_arrow().equals(pa.table({"a": pa.array([], pa.int64())}))


def test_rows_keep_their_order_though_the_first_block_ends_last(tmp_path: Path) -> None:
    last = tmp_path / "last"

    def first_waits_for_last(rows: Any) -> Any:
        if rows["id"][0] == 0:
            deadline = time.monotonic() + 20
            while not last.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        elif rows["id"][-1] == 7:
            last.touch()
        return rows

    dataset = ray.data.range(8, override_num_blocks=4).map_batches(first_waits_for_last)
    before = dataset.context.execution_options.preserve_order
    assert ar.tables.from_ray(dataset).to_arrow()["id"].to_pylist() == list(range(8))
    assert dataset.context.execution_options.preserve_order is before


def blocks(*tables: Any) -> Any:
    return ray.data.from_arrow_refs([ray.put(table) for table in tables])


def test_columns_and_types_are_those_of_all_blocks() -> None:
    kinds = {
        "when": pa.array([0, None], pa.timestamp("us", "UTC")),
        "money": pa.array(["1.50", None]).cast(pa.decimal128(10, 2)),
        "tags": pa.array([["a"], None]),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "raw": pa.array([b"\x00", None]),
    }
    table = pa.table(kinds)
    assert ar.tables.from_ray(blocks(table, table)).to_arrow().equals(pa.concat_tables([table] * 2))
    nulls = ar.tables.from_ray(blocks(pa.table({"a": [None]}), pa.table({"a": [1]})))
    assert nulls.schema == pa.schema([("a", pa.int64())])
    assert nulls.agg(total=("a", "sum")).to_pylist() == [{"total": 1}]
    turned = ar.tables.from_ray(
        blocks(pa.table({"a": [1], "b": [2]}), pa.table({"b": [4], "a": [3]}))
    )
    assert turned.to_arrow().to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    with pytest.raises(InvalidTypeError, match=r"block 1 .* 'a' is double instead of int64"):
        ar.tables.from_ray(blocks(pa.table({"a": [1]}), pa.table({"a": [0.5]})))
    with pytest.raises(InvalidTypeError, match=r"block 1 .* it lacks 'b'"):
        ar.tables.from_ray(blocks(pa.table({"a": [1], "b": [1]}), pa.table({"a": [1]})))
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[7, 8])
    assert ar.tables.from_ray(ray.data.from_pandas(frame)).to_arrow().to_pylist() == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": None},
    ]


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no rows and no columns"):
        ar.tables.from_ray(ray.data.from_items([]))
    with pytest.raises(InvalidTypeError, match=r"ray\.data\.Dataset, not dict"):
        ar.tables.from_ray({"a": [1]})
    with pytest.raises(InvalidArgumentError, match="its blocks"):
        ar.fold(ray.data.range(3), max, max, 0, leaf_size=2)
    assert ar.map_reduce(len, ray.data.from_items([])) == []


def test_an_error_of_ray_data_and_of_a_part_are_raised() -> None:
    def fails(rows: Any) -> Any:
        raise ZeroDivisionError("of the user")

    with pytest.raises(Exception, match="of the user"):
        ar.tables.from_ray(ray.data.range(4).map_batches(fails))
    with pytest.raises(ZeroDivisionError, match="of the user"):
        ar.tables.from_arrow({"a": [1]}).map(fails).to_ray()
