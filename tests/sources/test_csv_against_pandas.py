"""Values of CSV files are those that pandas reads, or an error names file, line and column."""

from __future__ import annotations

import csv as csv_module
import io
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentic_ray import sources
from agentic_ray.errors import InvalidArgumentError, SourceError
from agentic_ray.sources import _csv, _csv_types

NULLS = ["", "NA", "nan", "NaN", "null", "None", "<NA>", "n/a", "-nan", "#N/A", "NULL"]

ints = st.integers(-(2**63), 2**63 - 1).map(str) | st.integers(-99, 99).map(str)
floats = st.floats(allow_nan=False).map(repr) | st.sampled_from(["1.10", ".5", "5.", "-0.0", "inf"])
bools = st.sampled_from(["true", "True", "FALSE", "false"])
dates = st.dates().map(str)
times = st.datetimes().map(lambda t: t.replace(microsecond=0).isoformat(sep=" "))
texts = st.text(st.sampled_from('ab ,;"\n|é€0x1'), max_size=6)
nulls = st.sampled_from(NULLS)
odd = st.sampled_from(
    ["0x10", "-0X1f", "+5", "007", " 7 ", "1_000", "1e5", "1E+05", "1,5", "12:30:00", "1", "0", "T"]
)
beyond = st.integers(2**63, 2**64 + 5).map(str) | st.integers(-(2**70), 2**70).map(str)
unsigned = st.integers(0, 2**64 - 1).map(str)

PURE = [ints, floats, bools, dates, times, unsigned, st.sampled_from(["x", "yy", "é", 'q"']), nulls]
FAMILIES = [*PURE, texts, odd, beyond]

columns = st.sampled_from(FAMILIES).flatmap(
    lambda first: st.sampled_from(FAMILIES).map(lambda second: (first, second))
)


@st.composite
def files(draw: Any) -> tuple[str, dict[str, list[str]]]:
    """The text of a file, and its cells by column."""
    rows = draw(st.integers(1, 12))
    cells: dict[str, list[str]] = {}
    for place in range(draw(st.integers(1, 3))):
        first, second = draw(columns)
        change = draw(st.integers(0, rows))
        made = [draw(first) for _ in range(change)] + [draw(second) for _ in range(rows - change)]
        cells[
            draw(st.sampled_from([f"c{place}", f"a name {place}", f'q"{place}', f"é{place}"]))
        ] = made
    if len(cells) == 1:
        cells["last"] = ["z"] * rows  # a row of one empty cell would be an empty line
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    content = text.getvalue()
    if draw(st.booleans()):
        content = content.rstrip("\r\n") if not content.rstrip("\r\n").endswith('"') else content
    return draw(st.sampled_from(["", "\ufeff"])) + content, cells


def table_of(source: Any) -> pa.Table:
    return pa.concat_tables([part.load() for part in source.parts()])


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "file.csv"


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files(), st.sampled_from([8, 40, 10_000]), st.sampled_from([4, 64, 10_000]))
def test_values_are_those_of_pandas_or_named(
    path: Path, file: tuple[str, dict[str, list[str]]], part: int, sample: int
) -> None:
    text, cells = file
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_csv, "_SAMPLE_BYTES", sample)
        patched.setattr(_csv_types, "SPREAD_SAMPLES", 1 if sample < 100 else 16)
        try:
            ours = table_of(sources.csv(path, part_bytes=part))
        except SourceError as error:
            problem = str(error)
        else:
            problem = ""
    if problem:
        named = re.search(r"file\.csv, lines? .*column (.+?) (was taken|has)", problem, re.DOTALL)
        assert named, problem
        assert named.group(1) in map(repr, cells)
        return
    theirs = pd.read_csv(path, low_memory=False)
    assert list(theirs.columns) == ours.column_names == list(cells)
    for name in cells:
        for mine, other, written in zip(
            ours[name].to_pylist(), theirs[name], cells[name], strict=True
        ):
            unsigned = ours.schema.field(name).type == pa.uint64()
            assert same(mine, other, written, unsigned=unsigned), (
                name,
                mine,
                other,
                written,
                theirs[name].dtype,
            )


def same(ours: Any, theirs: Any, written: str, *, unsigned: bool) -> bool:
    missing = theirs is None or (isinstance(theirs, float) and math.isnan(theirs))
    if ours is None:
        return missing or theirs in NULLS  # (the same strings)
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is bool(theirs) and not isinstance(theirs, str)
    if unsigned and isinstance(ours, int) and isinstance(theirs, str):
        return ours == int(theirs)  # pandas has no null beside such integers, and gives strings
    if isinstance(ours, int | float):
        return not isinstance(theirs, str) and (
            ours == theirs or (missing and math.isnan(ours)) or float(ours) == theirs
        )
    if isinstance(ours, str):
        if written != written.strip("\n"):  # pandas takes a number with a newline for a number
            return ours == written
        if missing:  # strings are never null unless null_values says so
            return ours == written and ours.strip() in NULLS
        return ours == str(theirs) == written or ours.replace("\r\n", "\n") == theirs
    shown = str(theirs).strip()  # a date or time
    return (isinstance(theirs, str) and str(ours).startswith(shown[:10])) or shown in str(ours)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(PURE), st.data(), st.sampled_from([8, 10_000]))
def test_a_column_of_one_kind_is_always_read(path: Path, family: Any, data: Any, part: int) -> None:
    cells = data.draw(st.lists(family, min_size=1, max_size=20))
    path.write_bytes(
        ("a,b\n" + "".join(f'"{c.replace(chr(34), chr(34) * 2)}",1\n' for c in cells)).encode()
    )
    assert table_of(sources.csv(path, part_bytes=part)).num_rows == len(cells)


def rows(path: Path, *cells: str, **options: Any) -> list[Any]:
    path.write_text("a,b\n" + "".join(f"{cell},1\n" for cell in cells))
    found: list[Any] = table_of(sources.csv(path, **options))["a"].to_pylist()
    return found


def test_unsigned_integers_keep_every_digit(path: Path) -> None:
    assert rows(path, "12345678901234567890", "1") == [12345678901234567890, 1]


@pytest.mark.parametrize("cells", [["1", "18446744073709551616"], ["-1", "12345678901234567890"]])
def test_integers_beyond_64_bits_are_named(path: Path, cells: list[str]) -> None:
    with pytest.raises(
        SourceError, match=rf"file.csv, line 3: column 'a' .*{cells[1]}.*decimal128"
    ):
        rows(path, *cells)
    assert rows(path, *cells, column_types={"a": pa.decimal128(38)}) == list(map(int, cells))
    assert rows(path, *cells, column_types={"a": "string"}) == cells


def test_a_decimal_column_is_read_as_such_or_as_floats(path: Path) -> None:
    assert rows(path, "1.10", "2.5") == [1.1, 2.5]
    kind = {"a": pa.decimal128(10, 2)}
    assert list(map(str, rows(path, "1.10", "2.50", column_types=kind))) == ["1.10", "2.50"]
    with pytest.raises(SourceError, match=r"line 3: column 'a'.*decimal128.*data loss"):
        rows(path, "1.10", "2.555", column_types=kind)


def test_one_and_zero_are_no_booleans(path: Path) -> None:
    assert rows(path, "true", "1") == ["true", "1"]


LATE = 3 << 20


@pytest.mark.parametrize(("last", "expected"), [("7", 7), ("2.5", 2.5), ("x", "x"), ("true", True)])
def test_a_column_that_is_empty_at_first_is_looked_for(
    path: Path, last: str, expected: Any
) -> None:
    path.write_text("a,b\n" + ",1234567890\n" * (LATE // 12) + f"{last},1\n")
    column = table_of(sources.csv(path))["a"]
    assert column[-1].as_py() == expected
    assert column[0].as_py() in (None, "")


def test_a_column_that_is_empty_in_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n,1\n")
    (tmp_path / "2.csv").write_text("a,b\n5,1\n")
    found = table_of(sources.csv(tmp_path))
    assert found["a"].to_pylist() == [None, 5]


def test_integers_that_become_floats_further_on(path: Path) -> None:
    path.write_text("a,b\n" + "1,1234567890\n" * (LATE // 13) + "2.5,1\n" * (LATE // 6))
    assert table_of(sources.csv(path)).schema.field("a").type == pa.float64()


def test_a_late_change_is_named_with_its_line(path: Path) -> None:
    count = LATE // 13
    path.write_text("a,b\n" + "1,1234567890\n" * count + "x,1\n" + "1,1234567890\n" * 10)
    with pytest.raises(SourceError, match=rf"file.csv, line {count + 2}: column 'a'.*'x'"):
        table_of(sources.csv(path))


def test_a_late_number_in_base_16_is_named(path: Path) -> None:
    count = LATE // 13
    path.write_text("a,b\n" + "1,1234567890\n" * count + "0x10,1\n" + "1,1234567890\n" * 10)
    with pytest.raises(SourceError, match=rf"line {count + 2}: column 'a'.*'0x10'"):
        table_of(sources.csv(path))


def test_a_line_number_counts_quoted_newlines_and_empty_lines(path: Path) -> None:
    path.write_text('a,b\n"1\n2",x\n\n"1",y\n1\n')
    with pytest.raises(SourceError, match=r"file.csv, line 6: .*Expected 2 columns"):
        table_of(sources.csv(path))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "utf-8-sig"])
def test_other_encodings(path: Path, encoding: str) -> None:
    text = "é" if encoding != "shift_jis" else "表"  # its second byte is a backslash
    path.write_bytes(f"a,{text}\n1,{text}{text}\n".encode(encoding))
    found = table_of(sources.csv(path, encoding=encoding))
    assert found.to_pydict() == {"a": [1], text: [text * 2]}


def test_encodings_that_cannot_be_cut_are_refused(path: Path) -> None:
    path.write_bytes("a|b\n1|2\n".encode("utf-16"))
    with pytest.raises(SourceError, match="utf-16"):
        table_of(sources.csv(path))
    with pytest.raises(InvalidArgumentError, match="convert it to UTF-8"):
        sources.csv(path, encoding="utf-16")
    with pytest.raises(InvalidArgumentError, match="part of another character"):
        sources.csv(path, encoding="shift_jis", delimiter="|")
    path.write_bytes(b"a,b\n1,\xff\xff\n")
    with pytest.raises(SourceError, match="offset 6 is not valid shift_jis"):
        table_of(sources.csv(path, encoding="shift_jis"))
