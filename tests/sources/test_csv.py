"""CSV by ranges is what pyarrow reads from the whole file."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentic_ray import sources
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources import Source

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "agentic_ray" / "sources"


def table_of(source: Source) -> Any:
    parts = [pickle.loads(pickle.dumps(part)) for part in source.parts()]
    assert all(part.unit == "block" for part in parts)
    return pa.concat_tables([part.load() for part in parts])


def whole(path: Path, **convert: Any) -> Any:
    return pc.read_csv(
        path,
        read_options=pc.ReadOptions(use_threads=False, block_size=1 << 26),
        parse_options=pc.ParseOptions(newlines_in_values=True),
        convert_options=pc.ConvertOptions(**convert),
    )


values = st.lists(
    st.sampled_from(["a", "é", "🙂", '"', ",", "\n", "\r\n", "\r", " ", "1", "long text"]),
    max_size=6,
).map("".join)


@relaxed
@given(
    rows=st.lists(st.tuples(values, st.integers(-1000, 1000), values), max_size=30),
    part_bytes=st.integers(1, 200),
    end=st.sampled_from(["\n", "\r\n"]),
    quote_all=st.booleans(),
    mark=st.booleans(),
)
@example(rows=[("\n", 1, '"\n"')] * 5, part_bytes=1, end="\n", quote_all=True, mark=False)
def test_ranges_give_the_whole_table(
    tmp_path: Path,
    rows: list[tuple[str, int, str]],
    part_bytes: int,
    end: str,
    quote_all: bool,
    mark: bool,
) -> None:
    def field(value: object) -> str:
        text = str(value)
        if quote_all or any(character in text for character in '",\r\n'):
            return '"' + text.replace('"', '""') + '"'
        return text

    header = ('a "name"', "b\nc", "d")
    text = "".join(",".join(map(field, row)) + end for row in [header, *rows])
    path = tmp_path / "file.csv"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    types = {'a "name"': pa.string(), "b\nc": pa.int64(), "d": pa.string()}
    found = table_of(sources.csv(path, part_bytes=part_bytes, column_types=types))
    expected = whole(path, column_types=types)
    assert found.schema == expected.schema
    assert found.to_pylist() == expected.to_pylist()


def test_stray_quotes_are_literal_as_in_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    row = '5" pipe,1,"x\ny"\n"a"b"c,2,  "z"\n'
    path.write_text("name,n,t\n" + row * 50)
    found = table_of(sources.csv(path, part_bytes=40))
    assert found.to_pylist() == whole(path).to_pylist()


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "\n\na,b\n", "a,b\r\n\r\n\r\n"])
def test_a_header_alone_is_an_empty_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text, newline="")
    table = table_of(sources.csv(path, part_bytes=1))
    assert table.num_rows == 0
    assert table.column_names == ["a", "b"]


def test_columns_types_nulls_delimiter_and_no_header(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("1;x;-\n2;-;4\n3;z;5\n")
    table = table_of(
        sources.csv(
            path,
            delimiter=";",
            has_header=False,
            null_values=["-"],
            columns=["f2", "f1"],
            column_types={"f2": "float64"},
            part_bytes=1,
        )
    )
    assert table.schema == pa.schema([("f2", pa.float64()), ("f1", pa.string())])
    assert table.to_pydict() == {"f2": [None, 4.0, 5.0], "f1": ["x", None, "z"]}


def test_a_column_of_nulls_is_float64_as_in_pandas(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a,b\n1,\n2,\n")
    assert table_of(sources.csv(path)).schema.field("b").type == pa.float64()


def test_a_value_that_does_not_fit_the_inferred_type(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("n,delay\n" + "1,22\n" * 300_000 + "1,oops\n")
    source = sources.csv(path)
    with pytest.raises(SourceError) as caught:
        table_of(source)
    text = str(caught.value)
    assert str(path) in text
    assert "column 'delay'" in text
    assert "column_types={'delay': ...}" in text
    assert "oops" in text
    assert "line 300002:" in text
    assert table_of(sources.csv(path, column_types={"delay": "string"})).num_rows == 300_001


def test_several_files_are_one_source_in_order(tmp_path: Path) -> None:
    for name, value in (("b.csv", 2), ("a.csv", 1), ("c.csv", 3)):
        (tmp_path / name).write_text(f"x\n{value}\n")
    (tmp_path / "notes.md").write_text("not data")
    assert table_of(sources.csv(tmp_path)).to_pydict() == {"x": [1, 2, 3]}
    assert table_of(sources.csv(str(tmp_path / "[bc].csv"))).to_pydict() == {"x": [2, 3]}
    both = [tmp_path / "c.csv", tmp_path / "a.csv"]
    assert table_of(sources.csv(both)).to_pydict() == {"x": [3, 1]}
    (tmp_path / "d.csv").write_text("y\n1\n")
    with pytest.raises(SourceError, match=r"d\.csv has the columns y"):
        sources.csv(tmp_path).parts()


@pytest.mark.parametrize("packing", ["gz", "zip"])
def test_compressed_files_are_unpacked_once_and_split(
    tmp_path: Path, cache: Path, packing: str
) -> None:
    plain = b"n,t\n" + b'1,"a\nb"\n' * 1000
    path = tmp_path / f"file.csv.{packing}"
    write_packed(path, plain)
    source = sources.csv(path, part_bytes=1000)
    assert len(source.parts()) > 5
    assert table_of(source).num_rows == 1000
    (entry,) = cache.iterdir()
    assert entry.read_bytes() == plain

    entry.unlink()  # as on another node, which has not unpacked it yet
    assert source.parts()[3].load().num_rows > 0
    assert len(list(cache.iterdir())) == 1

    write_packed(path, b"n,t\n7,c\n8,d\n")  # a new version replaces the entry
    assert table_of(sources.csv(path)).num_rows == 2
    assert len(list(cache.iterdir())) == 1


def write_packed(path: Path, plain: bytes) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("file.csv", plain)


def test_an_unwritable_cache_falls_back_to_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "not-a-directory").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not-a-directory"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_packed(tmp_path / "f.csv.gz", b"a\n1\n")
    assert table_of(sources.csv(tmp_path / "f.csv.gz")).to_pydict() == {"a": [1]}


def test_damaged_archives(tmp_path: Path, cache: Path) -> None:
    whole_gz = gzip.compress(b"a\n1\n" * 100)
    (tmp_path / "short.csv.gz").write_bytes(whole_gz[:-12])
    (tmp_path / "not.csv.gz").write_bytes(b"a\n1\n")
    (tmp_path / "not.csv.zip").write_bytes(b"a\n1\n")
    for name in ("short.csv.gz", "not.csv.gz", "not.csv.zip"):
        with pytest.raises(SourceError, match=f"{name} cannot be unpacked"):
            sources.csv(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.writestr("x.csv", "a\n1\n")
        archive.writestr("y.csv", "a\n2\n")
    with pytest.raises(SourceError, match="exactly one file"):
        sources.csv(tmp_path / "two.csv.zip")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "Empty CSV"),
        (b"a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
        (b"a,a\n1,2\n", "more than one column named a"),
        (b"a,b\n1,\xff\n", "not valid UTF-8"),
    ],
)
def test_bad_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        table_of(sources.csv(path))


def test_a_ragged_row_and_bad_bytes_far_behind_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"a,b\n" + b"1,x\n" * 600_000 + b"1\n")
    with pytest.raises(SourceError, match="Expected 2 columns, got 1"):
        table_of(sources.csv(path))
    path.write_bytes(b"a,b\n" + b"1,x\n" * 600_000 + b"1,\xff\n")
    with pytest.raises(SourceError, match=r"'b' was taken for string.*invalid UTF8"):
        table_of(sources.csv(path))


def test_bad_arguments(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a,b\n1,2\n")
    for wrong in ("", ",,", '"', "\n", "é"):
        with pytest.raises(InvalidArgumentError):
            sources.csv(path, delimiter=wrong)
    with pytest.raises(InvalidArgumentError, match="twice"):
        sources.csv(path, columns=["a", "a"])
    with pytest.raises(InvalidArgumentError, match="no column"):
        sources.csv(path, columns=[])
    with pytest.raises(InvalidTypeError):
        sources.csv(path, columns="a")
    with pytest.raises(InvalidTypeError):
        sources.csv(path, null_values="NA")
    with pytest.raises(InvalidArgumentError, match="has no column 'c'; it has a, b"):
        sources.csv(path, columns=["a", "c"]).parts()
    with pytest.raises(InvalidArgumentError, match="has no column 'c'"):
        sources.csv(path, column_types={"c": "int64"}).parts()
    with pytest.raises(InvalidArgumentError):
        sources.csv(path, column_types={"a": "no such type"})
    with pytest.raises(InvalidTypeError):
        sources.csv(path, column_types={"a": int})
