"""Text lines by byte ranges are the lines of the file, whatever the ranges."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentic_ray import sources
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources import TextLines

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def lines_of(source: TextLines) -> list[str]:
    parts = [pickle.loads(pickle.dumps(part)) for part in source.parts()]
    assert all(part.unit == "element" and part.bytes > 0 for part in parts)
    return [line for part in parts for line in part.load()]


def expected_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    with path.open(newline="\n", encoding=encoding) as file:
        return [
            line[:-2] if line.endswith("\r\n") else line[:-1] if line.endswith("\n") else line
            for line in file
        ]


@relaxed
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(["\n", "\r\n", "\r", "\x0b", "\u2028", "é", "漢", "🙂", "ab", "\x00"]),
            st.text(max_size=6),
        ),
        max_size=40,
    ).map("".join),
    part_bytes=st.integers(1, 50),
)
@example(text="", part_bytes=1)
@example(text="\n", part_bytes=1)
@example(text="a\n\n\nb", part_bytes=1)
@example(text="one line without end", part_bytes=3)
@example(text="漢" * 20 + "\n" + "字" * 20, part_bytes=2)
@example(text="a\r\nb\r", part_bytes=2)
def test_ranges_give_pythons_own_lines(tmp_path: Path, text: str, part_bytes: int) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(text.encode("utf-8", "replace"))
    source = sources.text_lines(path, part_bytes=part_bytes)
    assert lines_of(source) == expected_lines(path)


@relaxed
@given(data=st.binary(max_size=200), part_bytes=st.integers(1, 60))
def test_any_bytes_in_latin_1(tmp_path: Path, data: bytes, part_bytes: int) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(data)
    source = sources.text_lines(path, encoding="latin-1", part_bytes=part_bytes)
    assert lines_of(source) == expected_lines(path, "latin-1")


def test_a_line_longer_than_the_reading_block(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    lines = ["x" * 300_000, "y", "z" * 70_000]
    path.write_text("\n".join(lines))
    assert lines_of(sources.text_lines(path, part_bytes=10_000)) == lines


def test_auto_parts_depend_on_size_only(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"0123456\n" * 400_000)
    parts = sources.text_lines(path).parts()
    assert [part.bytes for part in parts] == [1 << 20] * 3 + [3_200_000 - 3 * (1 << 20)]
    assert parts[1].label == "file.txt[1048576:2097152]"


def test_byte_order_mark_and_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "file.txt.gz"
    path.write_bytes(gzip.compress("\ufeffä\nb\n".encode()))
    assert lines_of(sources.text_lines(path, encoding="utf-8-sig", part_bytes=2)) == ["ä", "b"]


def test_undecodable_bytes_name_their_offset(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"good\n" * 10 + b"b\xffd\n")
    source = sources.text_lines(path, part_bytes=20)
    with pytest.raises(SourceError, match=r"byte 0xff at offset 51 is not valid utf-8"):
        lines_of(source)
    replaced = sources.text_lines(path, part_bytes=20, errors="replace")
    assert lines_of(replaced)[-1] == "b\ufffdd"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "iso2022_jp", "utf-7", "hz", "base64"])
def test_encodings_that_cannot_be_split_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "file.txt"
    path.write_text("x")
    with pytest.raises(InvalidArgumentError):
        sources.text_lines(path, encoding=encoding)


@pytest.mark.parametrize(
    ("part_bytes", "error"),
    [(0, InvalidArgumentError), (2**31, InvalidArgumentError), (True, InvalidTypeError)],
)
def test_part_bytes_out_of_range(tmp_path: Path, part_bytes: int, error: type[Exception]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("x")
    with pytest.raises(error):
        sources.text_lines(path, part_bytes=part_bytes)


def test_a_file_that_changes_or_goes_after_planning(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("a\nb\n")
    (part,) = sources.text_lines(path).parts()
    path.write_text("a\nb\nc\n")
    with pytest.raises(SourceError, match="changed while it was in use"):
        part.load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="same path on every node"):
        part.load()


# --- other delimiters ----------------------------------------------------------------------


delimiters = st.text(st.sampled_from("ab\n|é"), min_size=1, max_size=4)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    delimiters.flatmap(
        lambda end: st.tuples(
            st.just(end),
            st.lists(st.sampled_from(["a", "b", "\n", "|", "é", "\r", end, end]), max_size=40),
        )
    ),
    st.sampled_from([1, 2, 3, 7, 100]),
    st.booleans(),
)
def test_pieces_are_those_of_split(
    tmp_path: Path, made: tuple[str, list[str]], part_bytes: int, as_bytes: bool
) -> None:
    delimiter, pieces = made
    text = "".join(pieces)
    path = tmp_path / "pieces.txt"
    path.write_bytes(text.encode())
    expected = text.split(delimiter)
    if not expected[-1]:
        expected.pop()
    if delimiter == "\n":
        expected = text.replace("\r\n", "\n").split("\n")
        if not expected[-1]:
            expected.pop()
    given_as = delimiter.encode() if as_bytes else delimiter
    source = sources.text_lines(path, delimiter=given_as, part_bytes=part_bytes)
    assert [line for part in source.parts() for line in part.load()] == expected


@pytest.mark.parametrize(
    ("delimiter", "encoding", "text"),
    [
        ("", "utf-8", "empty"),
        (b"", "utf-8", "empty"),
        ("€", "latin-1", "cannot be in"),
        ("|", "shift_jis", "part of another character"),
        ("\n\n", "utf-16", "convert it"),
    ],
)
def test_delimiters_that_cannot_be_found_are_refused(
    tmp_path: Path, delimiter: str | bytes, encoding: str, text: str
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("a|b")
    with pytest.raises(InvalidArgumentError, match=text):
        sources.text_lines(path, delimiter=delimiter, encoding=encoding)
    with pytest.raises(InvalidTypeError, match="delimiter"):
        sources.text_lines(path, delimiter=5)  # type: ignore[arg-type]


def test_a_piece_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"ab;cd;\xffe;f")
    with pytest.raises(SourceError, match="offset 6"):
        sources.text_lines(path, delimiter=";").parts()[0].load()
    found = sources.text_lines(path, delimiter=";", errors="replace").parts()[0].load()
    assert found == ["ab", "cd", "\ufffde", "f"]
