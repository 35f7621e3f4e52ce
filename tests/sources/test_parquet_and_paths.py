"""Parquet by row groups, finding files, and choosing a format by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentic_ray import sources
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources import Csv, Parquet, Source, TextLines


def table_of(source: Source) -> Any:
    return pa.concat_tables([pickle.loads(pickle.dumps(part)).load() for part in source.parts()])


def written(path: Path, rows: int, group_rows: int) -> Any:
    table = pa.table({"x": np.arange(rows), "y": np.arange(rows) / 3, "t": ["é"] * rows})
    pq.write_table(table, path, row_group_size=group_rows, use_dictionary=False)
    return table


def test_row_groups_with_columns_in_the_order_wanted(tmp_path: Path) -> None:
    table = written(tmp_path / "a.parquet", 1000, 100)
    source = sources.parquet(tmp_path / "a.parquet", columns=["y", "x"])
    (part,) = source.parts()  # ten small groups together
    assert (part.items, part.unit, part.label) == (1000, "block", "a.parquet[row groups 0:10]")
    assert 16_000 <= part.bytes < 20_000
    assert table_of(source).equals(table.select(["y", "x"]))


def test_large_row_groups_are_parts_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_ray.sources._parquet._PART_BYTES", 4000)
    table = written(tmp_path / "a.parquet", 1000, 100)
    source = sources.parquet(tmp_path / "a.parquet")
    parts = source.parts()
    assert [part.items for part in parts] == [200] * 5
    assert table_of(source).equals(table)


def test_a_directory_with_partitions(tmp_path: Path) -> None:
    for year in (2014, 2013):
        (tmp_path / f"year={year}").mkdir()
        written(tmp_path / f"year={year}" / "part.parquet", 10, 10)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.parquet").write_text("")
    source = sources.parquet(tmp_path)
    assert [Path(file.path).parent.name for file in source.files] == ["year=2013", "year=2014"]
    assert table_of(source).num_rows == 20


def test_no_rows_are_one_empty_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    table = table_of(sources.parquet(tmp_path / "a.parquet"))
    assert (table.num_rows, table.column_names) == (0, ["x"])


def test_damaged_and_differing_files(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", 1000, 100)
    whole = (tmp_path / "a.parquet").read_bytes()
    for name, content in (("short", whole[:-100]), ("empty", b""), ("not", b"hello")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=rf"{name}\.parquet cannot be read as Parquet"):
            sources.parquet(path).parts()
    damaged = bytearray(whole)
    damaged[100:3000] = b"\xff" * 2900
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    (part,) = sources.parquet(tmp_path / "damaged.parquet").parts()
    with pytest.raises(SourceError, match=r"damaged\.parquet cannot be read"):
        part.load()
    pq.write_table(pa.table({"x": ["text"]}), tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="other columns or types"):
        sources.parquet([tmp_path / "a.parquet", tmp_path / "other.parquet"]).parts()


def test_a_parquet_file_that_went_away(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", 10, 10)
    (part,) = sources.parquet(tmp_path / "a.parquet").parts()
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="same path on every node"):
        part.load()


def test_bad_parquet_arguments(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", 10, 10)
    with pytest.raises(InvalidTypeError):
        sources.parquet(tmp_path / "a.parquet", columns="x")
    with pytest.raises(InvalidArgumentError, match="has no column 'z'; it has x, y, t"):
        sources.parquet(tmp_path / "a.parquet", columns=["z"]).parts()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", Csv),
        ("a.CSV", Csv),
        ("a.tsv", Csv),
        ("a.parquet", Parquet),
        ("a.pq", Parquet),
        ("a.log", TextLines),
        ("noending", TextLines),
    ],
)
def test_open_source_goes_by_the_end_of_the_name(tmp_path: Path, name: str, kind: type) -> None:
    (tmp_path / name).write_text("a\tb\n1\t2\n")
    source = sources.open_source(tmp_path / name)
    assert isinstance(source, kind)
    assert isinstance(source, Source)
    if name.endswith("tsv"):
        assert table_of(source).to_pydict() == {"a": [1], "b": [2]}


def test_open_source_of_a_directory_a_list_and_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b\n")
    (tmp_path / "a.txt").write_text("a\n")
    lines = [line for part in sources.open_source(tmp_path).parts() for line in part.load()]
    assert lines == ["a", "b"]
    (tmp_path / "c.csv").write_text("a\n1\n")
    with pytest.raises(InvalidArgumentError, match="several kinds"):
        sources.open_source(tmp_path)
    chosen = sources.open_source([tmp_path / "b.txt", tmp_path / "a.txt"])
    assert [part.label for part in chosen.parts()] == ["b.txt[0:2]", "a.txt[0:2]"]


def test_missing_files_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError, match=r"has flights\.csv"):
        sources.open_source(tmp_path / "flight.csv")
    with pytest.raises(FileNotFoundError, match="nor does the directory"):
        sources.open_source(tmp_path / "no" / "such.csv")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        sources.open_source(str(tmp_path / "*.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no file"):
        sources.open_source(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"has no file whose name ends in \.parquet"):
        sources.parquet(tmp_path)


@pytest.mark.parametrize("wrong", [3, b"bytes", [3], None])
def test_paths_of_a_wrong_type(wrong: Any) -> None:
    with pytest.raises(InvalidTypeError):
        sources.open_source(wrong)
    with pytest.raises(InvalidArgumentError):
        sources.open_source([])


def test_columns_that_drift_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
    for table, text in (
        (pa.table({"a": [1.5], "b": [1]}), "'a' is double instead of int64"),
        (pa.table({"a": [1]}), "it lacks 'b'"),
        (pa.table({"a": [1], "b": [1], "c": [1]}), "it has 'c' as well"),
        (pa.table({"b": [1], "a": [1]}), "another order"),
    ):
        pq.write_table(table, tmp_path / "2.parquet")
        with pytest.raises(SourceError, match=text) as caught:
            sources.parquet(tmp_path).parts()
        assert "2.parquet" in str(caught.value)
        assert "1.parquet" in str(caught.value)
