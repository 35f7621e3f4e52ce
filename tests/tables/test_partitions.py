"""Columns that are names of folders come back as they were written, or are refused."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.tables import col

pytestmark = pytest.mark.usefixtures("ray_session")

READ = {"parquet": ar.tables.read_parquet, "csv": ar.tables.read_csv}


def write(table: pa.Table, folder: Path, form: str = "parquet", by: Any = "key") -> None:
    getattr(ar.tables.from_arrow(table), f"write_{form}")(folder, partition_by=by)


def keyed(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"key": pa.array(values, kind), "row": range(len(values))})


def back(folder: Path, form: str = "parquet") -> pa.Table:
    return READ[form](folder).to_arrow().sort_by("row").select(["key", "row"])


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), ["1", "01", "1e5", "nan", "true", "2020-01-01", "", " .a", "..", None]),
        (pa.string(), ["a/b=c%20 d", "é☃", "a\nb", '"', "x" * 200]),
        (pa.large_string(), ["1", "2"]),
        (pa.bool_(), [True, False, None]),
        (pa.int8(), [-5, 0, 7]),
        (pa.uint64(), [2**64 - 1, 0]),
        (pa.float64(), [0.1, -0.0, 0.0, float("nan"), float("inf"), 1e300, None]),
        (pa.float32(), [0.1]),
        (pa.date32(), [dt.date(2020, 1, 2), None]),
        (pa.timestamp("us"), [dt.datetime(2020, 1, 2, 3, 4, 5, 6)]),
        (pa.timestamp("ns", "Europe/Berlin"), [1, 2]),
        (pa.duration("ms"), [3, -3]),
        (pa.null(), [None]),
    ],
)
def test_values_come_back_with_their_type(
    tmp_path: Path, form: str, kind: pa.DataType, values: list[Any]
) -> None:
    table = keyed(values, kind)
    # (A folder above that looks like one of values is none of the table's.)
    write(table, tmp_path / "key=9" / "out", form)
    found = back(tmp_path / "key=9" / "out", form)
    assert found.schema.field("key").type == kind
    assert list(map(repr, found["key"].to_pylist())) == list(map(repr, table["key"].to_pylist()))
    assert found["row"].equals(table["row"])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.none(),
                st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9),
            ),
            st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0])),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_and_any_float_come_back(pairs: list[tuple[str | None, float | None]]) -> None:
    table = pa.table(
        {
            "text": pa.array([text for text, _ in pairs], pa.string()),
            "number": pa.array([number for _, number in pairs], pa.float64()),
            "row": range(len(pairs)),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        write(table, Path(folder, "out"), by=["text", "number"])
        found = ar.tables.read_parquet(Path(folder, "out")).to_arrow().sort_by("row")
    assert repr(found.select(table.column_names).to_pylist()) == repr(table.to_pylist())


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (pa.string(), "__HIVE_DEFAULT_PARTITION__", "would be read as None"),
        (pa.string(), "a\0b", "would be read as 'a'"),
        (pa.string(), "é" * 50, "more than 255 bytes"),
        (pa.decimal128(9, 2), 1, "cast it to text"),
        (pa.binary(), b"\xff", "cast it to text"),
        (pa.list_(pa.int8()), [1], "cannot be names of folders"),
    ],
)
def test_what_would_come_back_as_another_value_is_refused(
    tmp_path: Path, kind: pa.DataType, value: Any, error: str
) -> None:
    table = keyed([value, None], kind)
    with pytest.raises((InvalidArgumentError, InvalidTypeError), match=error):
        write(table, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a=b", "a/b", ".a"])
def test_names_that_would_not_come_back_are_refused(tmp_path: Path, name: str) -> None:
    table = keyed(["x"], pa.string()).rename_columns([name, "row"])
    with pytest.raises(InvalidArgumentError, match="cannot be names of folders"):
        write(table, tmp_path / "out", by=name)
    hidden = table.rename_columns(["_key", "row"])
    write(hidden, tmp_path / "out", by="_key")
    assert ar.tables.read_parquet(tmp_path / "out").count() == 1


def test_filters_compare_with_the_type_that_was_written(tmp_path: Path) -> None:
    write(keyed(["1", "01", "2", None], pa.string()), tmp_path / "out")
    table = ar.tables.read_parquet(tmp_path / "out")
    assert table.filter(col("key") == "1").to_arrow()["row"].to_pylist() == [0]
    assert table.filter(col("key").is_null()).to_arrow()["row"].to_pylist() == [3]
    assert table.filter(col("key") > "0").count() == 3
    assert table.filter(col("key") == "01").to_arrow()["key"].to_pylist() == ["01"]


def test_a_part_of_a_table_has_the_types_of_the_whole(tmp_path: Path) -> None:
    write(keyed(["1", "2"], pa.string()), tmp_path / "out")
    part = ar.tables.read_parquet(tmp_path / "out" / "key=1").to_arrow()
    assert part.to_pylist() == [{"row": 0, "key": "1"}]
    files = ar.tables.read_parquet(str(tmp_path / "out" / "*" / "*.parquet")).to_arrow()
    assert sorted(files["key"].to_pylist()) == ["1", "2"]


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    table = keyed([], pa.date32())
    write(table, tmp_path / "out")
    assert back(tmp_path / "out").schema.equals(table.schema)


def test_types_of_other_folders_are_guessed_or_given(tmp_path: Path) -> None:
    for value in ("1", "02", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"key={value}").mkdir()
        pq.write_table(pa.table({"row": [1]}), tmp_path / f"key={value}" / "a.parquet")
    found = ar.tables.read_parquet(tmp_path).to_arrow()["key"]
    assert sorted(found.to_pylist(), key=str) == ["02", "1", None]
    (tmp_path / "key=02").rename(tmp_path / "key=2")
    assert ar.tables.read_parquet(tmp_path).to_arrow()["key"].type == pa.int64()
    text = pa.schema([("row", pa.int64()), ("key", pa.string())])
    assert ar.tables.read_parquet(tmp_path, schema=text).to_arrow()["key"].type == pa.string()
    dates = pa.schema([("row", pa.int64()), ("key", pa.date32())])
    with pytest.raises(SourceError, match=r"key=1/a.parquet.*key \(date32"):
        ar.tables.read_parquet(tmp_path, schema=dates)


def test_tables_with_other_types_are_not_mixed(tmp_path: Path) -> None:
    write(keyed(["1"], pa.string()), tmp_path / "text")
    write(keyed([1], pa.int64()), tmp_path / "number")
    with pytest.raises(SourceError, match="as int64 and as string"):
        ar.tables.read_parquet([tmp_path / "text", tmp_path / "number"])


@pytest.mark.parametrize(
    "column", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"\xff"], pa.binary())]
)
def test_what_csv_cannot_hold_is_refused(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(InvalidTypeError, match="cannot be written as csv"):
        ar.tables.from_arrow({"x": column}).write_csv(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_readers_read_what_was_written(tmp_path: Path) -> None:
    table = keyed(["1", "a/b", None], pa.string())
    write(table, tmp_path / "out")
    kind = ds.partitioning(pa.schema([("key", pa.string())]), flavor="hive")
    theirs = ds.dataset(tmp_path / "out", partitioning=kind).to_table().sort_by("row")
    assert theirs.select(["key", "row"]).equals(table)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    write(keyed(["1"], pa.string()), tmp_path / "out")
    manifest = tmp_path / "out" / "_manifest.json"
    content = json.loads(manifest.read_text())
    for wrong in ('{"files"', json.dumps({**content, "arrow_schema": "no"}), "[]"):
        manifest.write_text(wrong)
        with pytest.raises(SourceError, match=r"_manifest\.json is no manifest"):
            ar.tables.read_parquet(tmp_path / "out")
    del content["arrow_schema"]  # an earlier version's: types are guessed, as that did
    manifest.write_text(json.dumps(content))
    assert back(tmp_path / "out")["key"].type == pa.int64()
