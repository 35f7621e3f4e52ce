"""Text that tasks print: taken where they run, sent with the report, written in the caller's
process.

A process that runs tasks calls `install` once: then ``sys.stdout`` and ``sys.stderr`` ask, at each
write, which bundle the writing thread works for. Ray's own way, through log files, would drop lines
that look alike, and bring the others to whichever cell of a notebook runs by then.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final, Literal, NamedTuple, TextIO

MOST_CHARACTERS: Final = 1 << 18
"""Most characters kept of a bundle's text to a stream; the rest is cut, with a note of how much."""

StreamName = Literal["stdout", "stderr"]
STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")


class Piece(NamedTuple):
    """Text that a task wrote to one of the two streams."""

    stream: StreamName
    text: str


class Printed(NamedTuple):
    """Text that one run of a bundle has printed, and where: the key, the node's id."""

    bundle: str
    node_id: str
    pieces: tuple[Piece, ...]


class Taken:
    """Text that one bundle has printed so far; its threads may print at the same time."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._left = dict.fromkeys(STREAMS, MOST_CHARACTERS)
        self._cut = dict.fromkeys(STREAMS, 0)
        self._lock = threading.Lock()

    def add(self, stream: StreamName, text: str, beyond: int = 0) -> None:
        """Keep ``text``, as far as there is room; ``beyond`` characters were cut before."""
        with self._lock:
            kept = text[: self._left[stream]]
            self._left[stream] -= len(kept)
            self._cut[stream] += len(text) - len(kept) + beyond
            if not kept:
                return
            if self._pieces and self._pieces[-1].stream == stream and len(kept) < 64:
                # (print writes the text and its end apart)
                self._pieces[-1] = Piece(stream, self._pieces[-1].text + kept)
            else:
                self._pieces.append(Piece(stream, kept))

    def pieces(self) -> tuple[Piece, ...]:
        """Return all of it in order, with a note where something was cut."""
        with self._lock:
            pieces = list(self._pieces)
            for stream, cut in self._cut.items():
                if cut:
                    note = (
                        f"\n[a task printed {cut:,} more characters to {stream}, which are not "
                        f"shown: {MOST_CHARACTERS:,} are kept of each bundle]\n"
                    )
                    pieces.append(Piece(stream, note))
            return tuple(pieces)


_mine = threading.local()
_under_way: list[Taken] = []
_installed = threading.Lock()


def _current() -> Taken | None:
    """Return the text of the bundle that this thread prints for.

    A thread that a task has started is none of ours: it prints for the bundle that has run longest,
    which belongs to the same caller in any case.
    """
    taken: Taken | None = getattr(_mine, "taken", None)
    if taken is None:
        taken = next(iter(_under_way), None)
    return taken


@contextmanager
def taking() -> Iterator[Taken]:
    """Take the text that this thread prints inside, if `install` was called in this process."""
    taken = Taken()
    _under_way.append(taken)
    _mine.taken = taken
    try:
        yield taken
    finally:
        _mine.taken = None
        _under_way.remove(taken)


class _Bytes(io.RawIOBase):
    """Stand-in for ``sys.stdout.buffer`` in a process that runs tasks."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        taken = _current()
        if taken is None:
            self._stream.original.buffer.write(content)
        else:
            taken.add(self._stream.stream, content.decode("utf-8", "replace"))
        return len(content)


class _Stream(io.TextIOBase):
    """Stand-in for ``sys.stdout`` or ``sys.stderr`` in a process that runs tasks."""

    def __init__(self, stream: StreamName, original: TextIO) -> None:
        self.stream: StreamName = stream
        self.original = original
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.original.fileno()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        taken = _current()
        if taken is None:
            return self.original.write(text)
        taken.add(self.stream, text)
        return len(text)

    def flush(self) -> None:
        if _current() is None:
            self.original.flush()

    def reconfigure(self, **options: Any) -> None:
        """Accept the options of a text file; nothing here depends on them."""


def install() -> None:
    """Replace this process's streams by streams that ask for whom a thread prints. Later calls
    change nothing."""
    with _installed:
        for name in STREAMS:
            current = getattr(sys, name)
            if current is not None and not hasattr(sys, f"__agentic_ray_{name}__"):
                stream = _Stream(name, current)
                setattr(sys, f"__agentic_ray_{name}__", stream)
                setattr(sys, name, stream)


# --- text past Python's streams ---------------------------------------------------------------

_files: dict[StreamName, IO[bytes]] = {}


@contextmanager
def descriptors(taken: Taken) -> Iterator[None]:
    """Take also the text that C code and child processes of this whole process write inside.

    This is only for processes that run one bundle at a time. Python's own streams are not
    concerned: they are flushed before, and `install` has put others in their place.
    """
    try:
        for name in STREAMS:
            if name not in _files:
                # (kept for the life of the process)
                _files[name] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    except OSError:
        yield  # no room for such files: the text goes to Ray's log instead, which shows it
        return
    saved = {}
    for number, name in enumerate(STREAMS, start=1):
        saved[number] = os.dup(number)
        os.dup2(_files[name].fileno(), number)
    try:
        yield
    finally:
        for number, before in saved.items():
            os.dup2(before, number)
            os.close(before)
        take_files(taken, _files)
        for file in _files.values():
            file.seek(0)
            file.truncate()


def take_files(taken: Taken, files: dict[StreamName, IO[bytes]]) -> None:
    """Add the text in files of the streams, each from its beginning."""
    for name, file in files.items():
        size = os.fstat(file.fileno()).st_size
        if size:
            file.seek(0)
            text = file.read(MOST_CHARACTERS).decode("utf-8", "replace")
            taken.add(name, text, beyond=max(0, size - MOST_CHARACTERS))


# --- where they were asked for ------------------------------------------------------------------

Teller = Callable[[Printed], bool]
"""Tells somebody of text with the bundle that printed it; False: write it to the streams."""

_teller: Teller | None = None


def tell_instead(teller: Teller | None) -> None:
    """Have ``teller`` told of text of tasks in this process, which is one of ours, before it is
    written to the streams."""
    global _teller
    _teller = teller


def show(printed: Printed) -> None:
    """Tell of text that tasks printed elsewhere, or write it to this process's streams."""
    if _teller is None or not _teller(printed):
        write_out(printed.pieces)


def write_out(pieces: Sequence[Piece]) -> None:
    """Write to this process's streams the text that tasks printed elsewhere."""
    for piece in pieces:
        stream = getattr(sys, piece.stream)
        if stream is None:
            continue
        try:
            stream.write(piece.text)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(piece.text.encode(encoding, "backslashreplace").decode(encoding))
    for name in {piece.stream for piece in pieces}:
        if (stream := getattr(sys, name)) is not None:
            stream.flush()
