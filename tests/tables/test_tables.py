"""Tables over files: the same rows and answers as pyarrow and pandas on the whole."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.fs as pafs
import pyarrow.orc as paorc
import pyarrow.parquet as pq
import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    BlockResultError,
    InvalidArgumentError,
    InvalidTypeError,
    SkippedDataWarning,
    SourceError,
    TargetExistsError,
)
from agentic_ray.tables import col

pytestmark = pytest.mark.usefixtures("ray_session")


def rows(count: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    names = np.array(["north", "south", "east", None], dtype=object)
    return pa.table(
        {
            "id": np.arange(count),
            "shop": pa.array(names[rng.integers(0, 4, count)], pa.string()),
            "price": rng.integers(0, 1000, count) / 4,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three Parquet files of 1,000 rows in all, each in several row groups."""
    whole = rows(1000)
    for i, start in enumerate(range(0, 1000, 400)):
        pq.write_table(whole.slice(start, 400), tmp_path / f"{i}.parquet", row_group_size=100)
    return tmp_path


WRITERS: dict[str, Any] = {
    "csv": lambda table, path: pacsv.write_csv(table, path),
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=100),
    "jsonl": lambda table, path: path.write_text(
        "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    ),
    "arrow": lambda table, path: feather.write_feather(table, path, chunksize=100),
    "orc": lambda table, path: paorc.write_table(table, path),
}
READERS: dict[str, Any] = {
    "csv": lambda path, **options: ar.tables.read_csv(path, null_values=[""], **options),
    "parquet": ar.tables.read_parquet,
    "jsonl": ar.tables.read_json,
    "arrow": ar.tables.read_ipc,
    "orc": ar.tables.read_orc,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_gives_its_rows_in_order(kind: str, tmp_path: Path) -> None:
    whole = rows(500)
    for i in range(2):
        WRITERS[kind](whole.slice(250 * i, 250), tmp_path / f"{i}.{kind}")
    table = READERS[kind](tmp_path)
    assert table.to_arrow().to_pylist() == whole.to_pylist()
    some = READERS[kind](str(tmp_path / f"*.{kind}"), columns=["price", "id"])
    some = some.filter(col("id") >= 240)
    assert some.to_arrow().to_pylist() == whole.select(["price", "id"]).slice(240).to_pylist()
    assert table.filter(col("price") > 100).count() == sum(
        row["price"] > 100 for row in whole.to_pylist()
    )


def test_groups_of_a_folder_are_those_of_pandas(folder: Path) -> None:
    table = ar.tables.read_parquet(folder)
    found = table.group_by("shop").agg(
        {"price": ["sum", "mean", "std"], "id": "max"}, rows="size", ids=("id", "nunique")
    )
    frame = rows(1000).to_pandas()
    wanted = frame.groupby("shop", dropna=False, sort=False).agg(
        price_sum=("price", "sum"),
        price_mean=("price", "mean"),
        price_std=("price", "std"),
        id_max=("id", "max"),
        rows=("id", "size"),
        ids=("id", "nunique"),
    )
    pd.testing.assert_frame_equal(
        found.to_pandas().set_index("shop"), wanted, check_index_type=False
    )
    assert table.report.rows == 1000
    assert found.equals(
        table.group_by("shop").agg(
            {"price": ["sum", "mean", "std"], "id": "max"}, rows="size", ids=("id", "nunique")
        )
    )


def test_row_groups_and_folders_that_cannot_pass_are_not_read(tmp_path: Path) -> None:
    for year in (2012, 2013):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(rows(400), tmp_path / f"year={year}" / "a.parquet", row_group_size=100)
    table = ar.tables.read_parquet(tmp_path)
    assert table.schema is not None
    assert table.schema.names == ["id", "shop", "price", "year"]
    some = table.filter((col("year") == 2013) & (col("id") >= 350)).select("id", "year")
    assert some.to_arrow().to_pylist() == [{"id": i, "year": 2013} for i in range(350, 400)]
    assert some.report.pruned == 4  # a file, and three row groups of the other
    assert "1 parts" in some.explain()
    assert "columns id, year (of 4)" in some.explain()
    assert table.filter(col("year") == 1999).to_arrow().num_rows == 0
    assert table.group_by("year").size().to_pydict() == {"year": [2012, 2013], "size": [400, 400]}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "arrow", "orc"])
def test_folders_are_columns_of_every_format(kind: str, tmp_path: Path) -> None:
    for year in (2012, 2013):
        (tmp_path / f"year={year}").mkdir()
        WRITERS[kind](rows(10), tmp_path / f"year={year}" / f"a.{kind}")
    table = READERS[kind](tmp_path).filter(col("year") == 2013)
    assert table.count() == 10
    assert table.report.pruned == 1
    assert table.to_arrow()["year"].to_pylist() == [2013] * 10
    assert READERS[kind](tmp_path, columns=["year"]).count() == 20


def test_maps_run_in_workers_on_each_part(folder: Path) -> None:
    table = ar.tables.read_parquet(folder).map(
        lambda part: part.to_pandas().assign(double=lambda frame: 2 * frame.price)
    )
    assert table.schema is None
    prices = rows(1000)["price"].to_pylist()
    assert table.to_arrow()["double"].to_pylist() == [2 * price for price in prices]
    small = table.filter(col("double") > 400).select("id")
    assert small.count() == sum(price > 200 for price in prices)
    with pytest.raises(BlockResultError, match="int"):
        table.map(lambda part: 3).count()
    with pytest.raises(ZeroDivisionError):
        table.map(lambda part: 1 // 0).count()


def test_value_counts_word_count_describe_head(folder: Path, tmp_path: Path) -> None:
    table = ar.tables.read_parquet(folder)
    counts = table.value_counts("shop")
    wanted = Counter(rows(1000)["shop"].to_pylist())
    assert dict(zip(*counts.to_pydict().values(), strict=True)) == wanted
    assert counts["count"].to_pylist() == sorted(wanted.values(), reverse=True)
    assert table.head(450).equals(rows(1000).slice(0, 450))
    assert table.head(0).num_rows == 0
    described = {row["column"]: row for row in table.describe().to_pylist()}
    assert described["shop"]["nulls"] == wanted[None]
    assert described["shop"]["mean"] is None
    np.testing.assert_allclose(
        [described["price"][name] for name in ("mean", "std", "min", "max")],
        rows(1000).to_pandas()["price"].describe()[["mean", "std", "min", "max"]],
    )
    text = tmp_path / "text.txt.gz"
    text.write_bytes(gzip.compress("  to be\tor\n\nnot to be ä\n".encode()))
    words = ar.tables.read_text(text).word_count()
    assert dict(zip(*words.to_pydict().values(), strict=True)) == Counter(
        ["to", "be", "or", "not", "to", "be", "ä"]
    )


@pytest.mark.parametrize("how", ["inner", "left", "semi", "anti"])
def test_joins_keep_the_order_and_any_type(how: str, folder: Path) -> None:
    small = pa.table(
        {"shop": ["south", "north", "north"], "tags": [["a"], ["b"], None], "id": [1, 2, 3]}
    )
    table = ar.tables.read_parquet(folder).join(small, "shop", how)
    found = table.to_arrow().to_pylist()
    wanted = []
    for row in rows(1000).to_pylist():
        matches = [entry for entry in small.to_pylist() if entry["shop"] == row["shop"]]
        if how in ("semi", "anti"):
            wanted += [row] if bool(matches) == (how == "semi") else []
            continue
        if how == "left" and not matches:
            matches = [{"tags": None, "id": None}]
        wanted += [{**row, "tags": m["tags"], "id_right": m["id"]} for m in matches]
    assert found == wanted
    by = table.group_by("shop").size()
    assert sum(by["size"].to_pylist()) == len(wanted)


def test_joins_that_cannot_be_are_refused(folder: Path) -> None:
    table = ar.tables.read_parquet(folder)
    with pytest.raises(InvalidTypeError, match="'id' is int64 on the left and large_string"):
        table.join(pa.table({"id": ["a"]}), "id")
    with pytest.raises(InvalidTypeError, match="double"):
        table.join(pa.table({"price": [1.0]}), "price")
    with pytest.raises(InvalidArgumentError, match="how"):
        table.join(pa.table({"id": [1]}), "id", "outer")
    with pytest.raises(InvalidArgumentError, match="another suffix"):
        table.join(pa.table({"id": [1], "shop": ["a"]}), "id", suffix="")


@pytest.mark.parametrize("way", ["ascending", "descending"])
def test_sorting_is_stable_and_of_all(way: str, folder: Path) -> None:
    table = ar.tables.read_parquet(folder).sort_by([("shop", way), "price"])
    found = table.to_arrow()
    wanted = rows(1000).sort_by([("shop", way), ("price", "ascending"), ("id", "ascending")])
    assert found.to_pylist() == wanted.to_pylist()
    assert table.filter(col("id") < 10).count() == 10
    with pytest.raises(InvalidArgumentError, match="no column 'x'"):
        table.sort_by("x")


def test_memory_in_parts_is_like_files() -> None:
    table = ar.tables.from_arrow(rows(100), part_rows=30)
    assert table.to_arrow().equals(rows(100))
    assert table.filter(col("id") < 50).select("id").count() == 50
    assert ar.tables.from_arrow(rows(100).to_pandas()).group_by("shop").size().num_rows == 4
    assert ar.tables.from_arrow(rows(0)).to_arrow().equals(rows(0))
    assert ar.tables.from_arrow(rows(0)).agg({"price": "sum"}).to_pylist() == [{"price_sum": None}]


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    table = ar.tables.read_parquet(folder)
    written = table.write_parquet(target, partition_by="shop", job="night")
    assert written.rows == 1000
    manifest = json.loads((target / "_manifest.json").read_text())
    assert manifest["job"] == "night"
    assert {entry["path"] for entry in manifest["files"]} == {
        str(path.relative_to(target)) for path in target.rglob("*.parquet")
    }
    again = ar.tables.read_parquet(target).sort_by("id").to_arrow().select(["id", "shop", "price"])
    assert again.to_pylist() == rows(1000).to_pylist()
    assert ar.tables.read_parquet(target).report.rows == 0
    csv = table.write_csv(tmp_path / "csv", delimiter=";")
    assert csv.rows == 1000
    read = ar.tables.read_csv(tmp_path / "csv", delimiter=";", null_values=[""])
    assert read.to_arrow().to_pylist() == rows(1000).to_pylist()
    empty = table.filter(col("id") < 0).write_parquet(tmp_path / "none")
    assert empty.rows == 0
    assert ar.tables.read_parquet(tmp_path / "none").to_arrow().equals(rows(0))


def test_a_job_that_fails_leaves_the_old_data(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    table = ar.tables.read_parquet(folder)
    table.select("id").write_parquet(target)
    with pytest.raises(TargetExistsError):
        table.write_parquet(target)

    def fails(part: pa.Table) -> pa.Table:
        if 800 in part["id"].to_pylist():
            raise RuntimeError("in the last part")
        return part

    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RuntimeError, match="in the last part"):
        table.map(fails).write_parquet(target, mode="overwrite")
    assert sorted(os.listdir(tmp_path)) == before
    assert ar.tables.read_parquet(target).to_arrow().equals(rows(1000).select(["id"]))
    table.select("price").write_parquet(target, mode="overwrite")
    assert ar.tables.read_parquet(target).to_arrow().equals(rows(1000).select(["price"]))
    assert sorted(os.listdir(tmp_path)) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(TargetExistsError, match="move it away"):
        table.write_parquet(tmp_path / "mine", mode="overwrite")
    with pytest.raises(InvalidArgumentError, match="nosuch"):
        table.write_parquet("nosuch://bucket/x")


def damage(path: Path, row_group: int) -> None:
    """Overwrite the pages of one row group."""
    column = pq.ParquetFile(path).metadata.row_group(row_group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)


def test_damage_is_named_or_skipped_and_listed(folder: Path) -> None:
    damage(folder / "1.parquet", 2)
    with pytest.raises(SourceError, match=r"1\.parquet, row group 2, cannot be read"):
        ar.tables.read_parquet(folder).to_arrow()
    (folder / "0.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match=r"0\.parquet"):
        ar.tables.read_parquet(folder)
    table = ar.tables.read_parquet(folder, on_error="skip")
    with pytest.warns(SkippedDataWarning, match="2 files or parts"):
        found = table.to_arrow()
    # (Small row groups are read together: the part with the damaged one is left out whole.)
    assert found.equals(rows(1000).slice(800))
    assert [(Path(entry.path).name, entry.where) for entry in table.report.skipped] == [
        ("0.parquet", ""),
        ("1.parquet", "row groups 0:4"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow", "orc"])
def test_a_file_of_other_columns_is_named(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / f"0.{kind}")
    WRITERS[kind](pa.table({"a": ["one"], "c": [1]}), tmp_path / f"1.{kind}")
    with pytest.raises(SourceError, match=rf"1\.{kind}") as caught:
        READERS[kind](tmp_path).to_arrow()
    assert any(f"{name!r}" in str(caught.value) or name in str(caught.value) for name in "abc")


def test_files_are_fitted_to_a_schema_that_is_given(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": [2]}), tmp_path / "1.parquet")
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    found = ar.tables.read_parquet(tmp_path, schema=schema).to_arrow()
    assert found.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_the_line_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    good = '{"a": 1}\n' * 200_000
    (tmp_path / "x.jsonl").write_text(good + '{"a": "one"}\n')
    with pytest.raises(SourceError, match=r"x\.jsonl, line 200001"):
        ar.tables.read_json(tmp_path / "x.jsonl").count()
    (tmp_path / "x.csv").write_text("a\n" + "1\n" * 600_000 + "2;3\n1\n")
    with pytest.raises(SourceError, match=r"x\.csv, line"):
        ar.tables.read_csv(tmp_path / "x.csv", schema=pa.schema([("a", pa.int64())])).count()


def test_a_file_that_changed_is_an_error(folder: Path) -> None:
    table = ar.tables.read_parquet(folder)
    pq.write_table(rows(10), folder / "2.parquet")
    with pytest.raises(SourceError, match=r"2\.parquet changed"):
        table.to_arrow()
    (folder / "2.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.parquet"):
        table.to_arrow()


def test_no_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "x.parquet", f"{tmp_path}/*.parquet", f"file://{tmp_path}"):
        with pytest.raises(FileNotFoundError):
            ar.tables.read_parquet(path)


def test_other_file_systems(folder: Path) -> None:
    whole = rows(1000)
    assert ar.tables.read_parquet(f"file://{folder}/*.parquet").to_arrow().equals(whole)
    inside = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
    for path in ("", "*.parquet", "**/*.parquet", ["0.parquet", "1.parquet", "2.parquet"]):
        found = ar.tables.read_parquet(path, filesystem=inside)
        assert found.to_arrow().equals(whole)
    with inside.open_output_stream("a.csv.gz") as stream:
        pacsv.write_csv(whole.drop_columns("shop"), stream)
    found = ar.tables.read_csv("*.csv.gz", filesystem=inside)
    assert found.to_arrow().equals(whole.drop_columns("shop"))
    with inside.open_output_stream("a.jsonl.gz") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in whole.to_pylist()).encode())
    assert ar.tables.read_json("a.jsonl.gz", filesystem=inside).to_arrow().equals(whole)
    import fsspec

    local = fsspec.filesystem("file")
    assert ar.tables.read_parquet(str(folder), filesystem=local).to_arrow().equals(whole)
    with pytest.raises(InvalidArgumentError, match="nosuch"):
        ar.tables.read_parquet("nosuch://x/y")
    with pytest.raises(InvalidTypeError, match="filesystem"):
        ar.tables.read_parquet("x", filesystem=3)


def test_descriptions_are_checked_before_anything_is_read(folder: Path) -> None:
    table = ar.tables.read_parquet(folder)
    with pytest.raises(InvalidTypeError, match="map"):
        table.filter(lambda row: True)
    with pytest.raises(InvalidArgumentError, match="'x'"):
        table.select("x")
    with pytest.raises(InvalidArgumentError, match="filter"):
        table.filter(col("x") > 3)
    with pytest.raises(InvalidArgumentError, match="filter"):
        table.filter(col("shop") > 3)
    with pytest.raises(InvalidArgumentError, match="'x'"):
        table.group_by("x")
    with pytest.raises(InvalidArgumentError, match="on_error"):
        ar.tables.read_parquet(folder, on_error="ignore")  # type: ignore[arg-type]
    assert "explain" not in repr(table)
    assert "parts" in ar.explain(table.map(len))
