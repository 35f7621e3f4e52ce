"""Lines of text files by byte ranges. A line belongs to the range in which its first byte lies."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import IO, Literal

from agentic_ray.errors import InvalidArgumentError, SourceError
from agentic_ray.sources._base import Part, check_part_bytes, chosen_part_bytes
from agentic_ray.sources._files import File, Paths, find_files

_BLOCK_BYTES = 1 << 16
_UTF8_BOM = codecs.BOM_UTF8
# Encodings whose meaning of a byte depends on what came earlier in the file.
_STATEFUL = ("iso2022", "utf-7", "hz")


@dataclass(frozen=True, slots=True)
class TextLines:
    """A `Source` of lines; made by `text_lines`."""

    files: tuple[File, ...]
    encoding: str = "utf-8"
    errors: str = "strict"
    part_bytes: int | Literal["auto"] = "auto"

    def parts(self) -> list[Part]:
        """Byte ranges of every file in order; an empty file has none."""
        total = sum(file.size for file in self.files)
        step = chosen_part_bytes(self.part_bytes, total)
        return [
            Part(
                label=f"{file.name}[{start}:{min(start + step, file.size)}]",
                bytes=min(step, file.size - start),
                items=None,
                unit="element",
                read=LineRange(
                    file, start, min(start + step, file.size), self.encoding, self.errors
                ),
            )
            for file in self.files
            for start in range(0, file.size, step)
        ]


@dataclass(frozen=True, slots=True)
class LineRange:
    """Reads the lines whose first byte is in ``start..stop`` of a file."""

    file: File
    start: int
    stop: int
    encoding: str
    errors: str

    def __call__(self) -> list[str]:
        """The lines without their ends."""
        with self.file.open() as content:
            begin = 0 if self.start == 0 else _after_newline(content, self.start - 1, self.stop)
            if begin is None or begin >= self.stop:
                return []  # this range lies inside one line, which belongs to an earlier range
            end = _after_newline(content, self.stop - 1, self.file.size)
            content.seek(begin)
            data = content.read((self.file.size if end is None else end) - begin)
        encoding = self.encoding
        if encoding == "utf-8-sig":
            encoding = "utf-8"
            if begin == 0 and data.startswith(_UTF8_BOM):
                begin = len(_UTF8_BOM)
                data = data[begin:]
        try:
            text = data.decode(encoding, self.errors)
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{self.file.path}: byte 0x{data[error.start]:02x} at offset "
                f"{begin + error.start} is not valid {encoding} ({error.reason}); pass the file's "
                "encoding=, or errors='replace' to read on"
            ) from error
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()  # what follows the last newline is not a line
        return lines


def _after_newline(content: IO[bytes], position: int, limit: int) -> int | None:
    """Position after the first newline in ``position..limit``, None when there is none."""
    content.seek(position)
    while position < limit:
        block = content.read(min(_BLOCK_BYTES, limit - position))
        if not block:
            return None
        found = block.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(block)
    return None


def text_lines(
    path: Paths,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    part_bytes: int | Literal["auto"] = "auto",
) -> TextLines:
    r"""The lines of text files, read by byte ranges where they are used.

    Lines end at ``\n`` only, as with ``open(path, newline="\n")``; the end, ``\n`` or ``\r\n``,
    is not part of the line. A last line without an end counts.

    Parameters
    ----------
    path : path or sequence of paths
        Files (``.gz`` and one-member ``.zip`` are unpacked into the user's cache directory, once
        per node), directories, or patterns such as ``logs/*.txt``. On a cluster they must be at
        the same path on every node.
    encoding, errors : str
        As for `open`. Encodings in which a newline is not the single byte 0x0A (UTF-16, UTF-32)
        or that keep state from line to line are refused; ``utf-8-sig`` drops a leading BOM.
    part_bytes : int or "auto"
        Bytes per part; ``"auto"`` depends on the total size only.

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory is empty, a pattern matches nothing.
    InvalidArgumentError
        The encoding is unknown or cannot be split, or ``part_bytes`` is out of range.
    SourceError
        On reading: bytes that cannot be decoded (naming the offset), or a file that changed.
    """
    check_part_bytes(part_bytes)
    try:
        name = codecs.lookup(encoding).name
        codecs.lookup_error(errors)
        newline = "\n".encode(name)
    except LookupError as error:
        raise InvalidArgumentError(str(error)) from error
    splittable = name == "utf-8-sig" or (newline == b"\n" and not name.startswith(_STATEFUL))
    if not splittable:
        raise InvalidArgumentError(
            f"text in {name} cannot be split at bytes; convert it to UTF-8 first"
        )
    files = tuple(File.of(found) for found in find_files(path))
    return TextLines(files, name, errors, part_bytes)
