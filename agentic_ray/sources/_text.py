"""Reads lines of text files by byte ranges. A line belongs to the range of its first byte."""

from __future__ import annotations

import codecs
import itertools
import mmap
from dataclasses import dataclass, replace
from typing import IO, Literal

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources._base import Part, check_part_bytes, chosen_part_bytes
from agentic_ray.sources._encodings import checked_encoding
from agentic_ray.sources._files import File, Paths, find_files

_BLOCK_BYTES = 1 << 16
_UTF8_BOM = codecs.BOM_UTF8
_NEWLINE = b"\n"


@dataclass(frozen=True, slots=True)
class TextLines:
    """A `Source` of lines; made by `text_lines`."""

    files: tuple[File, ...]
    encoding: str = "utf-8"
    errors: str = "strict"
    part_bytes: int | Literal["auto"] = "auto"
    delimiter: bytes = _NEWLINE

    def in_parts(self, number: int) -> TextLines:
        """Return the same lines, in about ``number`` parts where their size is automatic."""
        total = sum(file.size for file in self.files)
        return replace(self, part_bytes=chosen_part_bytes(self.part_bytes, total, number))

    def parts(self) -> list[Part]:
        """Return byte ranges of every file in order; an empty file has none."""
        total = sum(file.size for file in self.files)
        step = chosen_part_bytes(self.part_bytes, total)
        return [
            Part(
                label=f"{file.name}[{start}:{stop}]",
                bytes=stop - start,
                items=None,
                unit="element",
                read=LineRange(
                    file, start, stop, self.encoding, self.errors, self.delimiter, exact
                ),
            )
            for file in self.files
            for exact, edges in [self._edges(file, step)]
            for start, stop in itertools.pairwise(edges)
        ]

    def _edges(self, file: File, step: int) -> tuple[bool, list[int]]:
        """Return the edges of a file's ranges, and whether a line begins at each.

        A delimiter that can overlap itself, as ``aa`` does in ``aaa``, is taken at its first
        occurrence: only a reader from the beginning of the file can tell which occurrences count.
        """
        edges = [*range(0, file.size, step), file.size]
        if file.size == 0:
            return False, []
        if not _overlaps_itself(self.delimiter):
            return False, edges
        starts = [0]
        with (
            file.open() as content,
            mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            position = 0
            while (found := data.find(self.delimiter, position)) >= 0:
                position = found + len(self.delimiter)
                if position - starts[-1] >= step and position < file.size:
                    starts.append(position)
        return True, [*starts, file.size]


def _overlaps_itself(delimiter: bytes) -> bool:
    return any(delimiter.endswith(delimiter[:n]) for n in range(1, len(delimiter)))


@dataclass(frozen=True, slots=True)
class LineRange:
    """Reader of the lines whose first byte is in ``start..stop`` of a file; ``exact`` says that a
    line begins at both."""

    file: File
    start: int
    stop: int
    encoding: str
    errors: str
    delimiter: bytes = _NEWLINE
    exact: bool = False

    def __call__(self) -> list[str]:
        """Read the lines, without their ends."""
        begin, data = self.content()
        if not data:
            return []
        encoding = self.encoding
        if encoding == "utf-8-sig":
            encoding = "utf-8"
            if begin == 0 and data.startswith(_UTF8_BOM):
                begin = len(_UTF8_BOM)
                data = data[begin:]
        if self.delimiter != _NEWLINE:
            return self._decoded(data, begin, encoding)
        text = self._text(data, begin, encoding)
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()  # text after the last newline is not a line here
        return lines

    def content(self) -> tuple[int, bytes]:
        """Read the lines as they are in the file; return where they begin, and their bytes.

        A range that lies inside one line has none: that line belongs to an earlier range.
        """
        with self.file.open() as content:
            begin, end = self._lines_of(content)
            if begin >= end:
                return begin, b""
            content.seek(begin)
            return begin, content.read(end - begin)

    def _decoded(self, data: bytes, begin: int, encoding: str) -> list[str]:
        """Return the pieces between delimiters. They are cut before they are decoded, because
        replacing a wrong character in one must not touch its end."""
        pieces = data.split(self.delimiter)
        if not pieces[-1]:
            pieces.pop()
        try:
            return [piece.decode(encoding, self.errors) for piece in pieces]
        except UnicodeDecodeError:
            position = begin
            for piece in pieces:
                self._text(piece, position, encoding)  # raises, and says where
                position += len(piece) + len(self.delimiter)
            raise

    def _text(self, data: bytes, begin: int, encoding: str) -> str:
        try:
            return data.decode(encoding, self.errors)
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{self.file.path}: byte 0x{data[error.start]:02x} at offset "
                f"{begin + error.start} is not valid {encoding} ({error.reason}); pass the file's "
                "encoding=, or errors='replace' to read on"
            ) from error

    def _lines_of(self, content: IO[bytes]) -> tuple[int, int]:
        """Return where the lines of this range begin and end."""
        if self.exact:
            return self.start, self.stop
        size = self.file.size
        begin = 0 if self.start == 0 else self._first_line(content, self.start, self.stop)
        if begin is None or begin >= self.stop:
            return size, size
        end = self._first_line(content, self.stop, size)
        return begin, size if end is None else end

    def _first_line(self, content: IO[bytes], start: int, limit: int) -> int | None:
        """Return the first start of a line in ``start..limit``; None when there is none."""
        length = len(self.delimiter)
        position = max(0, start - length)
        content.seek(position)
        kept = b""
        while position < limit:
            block = content.read(min(_BLOCK_BYTES, limit - position))
            if not block:
                return None
            window = kept + block
            found = window.find(self.delimiter)
            if found >= 0:
                return position - len(kept) + found + length
            position += len(block)
            kept = window[-(length - 1) :] if length > 1 else b""
        return None


def text_lines(
    path: Paths,
    *,
    delimiter: str | bytes = "\n",
    encoding: str = "utf-8",
    errors: str = "strict",
    part_bytes: int | Literal["auto"] = "auto",
) -> TextLines:
    r"""Read the lines of text files, by byte ranges where they are used.

    Lines end at ``\n`` only, as with ``open(path, newline="\n")``; the end, ``\n`` or ``\r\n``,
    is not part of the line. A last line without an end counts.

    Parameters
    ----------
    path : path or sequence of paths
        Files (``.gz`` and one-member ``.zip`` are unpacked into the user's cache directory, once
        per node), directories, or patterns such as ``logs/*.txt``. On a cluster they must be at
        the same path on every node.
    delimiter : str or bytes
        End of a line, of one or more characters. With another delimiter than ``"\n"`` the elements
        are those of ``text.split(delimiter)``, without a last one that is empty: newlines are then
        part of them.
    encoding, errors : str
        As for `open`. Encodings in which a newline is not the single byte 0x0A (UTF-16, UTF-32)
        or that keep state from line to line are refused; ``utf-8-sig`` drops a leading BOM.
    part_bytes : int or "auto"
        Bytes per part; ``"auto"`` depends on the total size only.

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory is empty, a pattern matches nothing.
    InvalidArgumentError, InvalidTypeError
        The encoding is unknown or cannot be split at the delimiter, the delimiter is empty or
        has no form in the encoding, or ``part_bytes`` is out of range.
    SourceError
        On reading: bytes that cannot be decoded (naming the offset), or a file that changed.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> import pathlib, tempfile
    >>> book = pathlib.Path(tempfile.mkdtemp()) / "book.txt"
    >>> _ = book.write_text("one|two|three")
    >>> ar.map_reduce(len, ar.sources.text_lines(book, delimiter="|"))
    [3, 3, 5]
    """
    check_part_bytes(part_bytes)
    try:
        codecs.lookup_error(errors)
    except LookupError as error:
        raise InvalidArgumentError(str(error)) from error
    name = checked_encoding(encoding)
    ends = _delimiter_bytes(delimiter, name)
    checked_encoding(name, ends)
    files = tuple(File.of(found) for found in find_files(path))
    return TextLines(files, name, errors, part_bytes, ends)


def _delimiter_bytes(delimiter: str | bytes, encoding: str) -> bytes:
    if not isinstance(delimiter, str | bytes):
        raise InvalidTypeError(f"delimiter must be a str or bytes, not {delimiter!r}")
    if not delimiter:
        raise InvalidArgumentError("delimiter is empty; use list(text) for characters")
    if isinstance(delimiter, bytes):
        return delimiter
    try:
        return delimiter.encode("utf-8" if encoding == "utf-8-sig" else encoding)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"delimiter {delimiter!r} cannot be in {encoding}") from error
