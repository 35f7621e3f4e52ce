"""Where events come from: an iterable, a table, a file or a folder that grows, a socket.

A source gives chunks of rows with the position after each. One that can be read again from a
position can be resumed without loss or double; a socket cannot.
"""

from __future__ import annotations

import io
import itertools
import os
import socket as sockets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.tables import Table
from agentic_ray.tables.pieces import UNREADABLE, parsed_json
from agentic_ray.tables.scans import Skipped

CHUNK_BYTES = 1 << 20
MOST_LISTED = 1000
"""Lines left out that a run lists; it counts them all."""
_LOOK_SECONDS = 0.05
"""How often a file or a folder that is followed is looked at."""

Position = dict[str, Any]
"""Where a source goes on: JSON values."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Lines, or files, that could not be read: their number, and the first of them."""

    count: int = 0
    first: tuple[Skipped, ...] = ()

    def then(self, later: LeftOut) -> LeftOut:
        """Return these and later ones."""
        return LeftOut(self.count + later.count, (*self.first, *later.first)[:MOST_LISTED])


NOTHING = LeftOut()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows (or one row, as a dict), the position after them, and the lines before them that were
    left out."""

    table: pa.Table | dict[str, Any]
    position: Position
    skipped: LeftOut = NOTHING

    @property
    def rows(self) -> int:
        return 1 if isinstance(self.table, dict) else int(self.table.num_rows)


class Events(Protocol):
    """A source of events."""

    @property
    def can_resume(self) -> bool:
        """Whether it can be read again from a position."""
        ...

    def chunks(self, position: Position | None, stop: threading.Event) -> Iterator[Chunk]:
        """Give chunks from ``position`` on (None: from the beginning) until there are no more, or
        ``stop`` is set.

        Raises
        ------
        SourceError
            The data are damaged, or are not those that the position was in.
        """
        ...


@dataclass(frozen=True)
class Rows:
    """Rows of an iterable: dicts, or tables and record batches of pyarrow.

    A position is a number of rows: resuming takes an iterable that gives the same rows again.
    """

    make: Callable[[], Iterable[Any]]
    schema: pa.Schema | None = None
    can_resume: bool = True

    def chunks(self, position: Position | None, stop: threading.Event) -> Iterator[Chunk]:
        """Give the rows; those before the position are passed over."""
        passed = 0 if position is None else int(position["rows"])
        at = 0
        for item in self.make():
            if stop.is_set():
                return
            if isinstance(item, Mapping):
                at += 1
                if at > passed:
                    yield Chunk(dict(item), {"rows": at})
                continue
            if not isinstance(item, pa.Table | pa.RecordBatch):
                raise InvalidTypeError(
                    f"an event must be a dict or a table of pyarrow, not {type(item).__name__}"
                )
            table = item if isinstance(item, pa.Table) else pa.Table.from_batches([item])
            start, at = at, at + table.num_rows
            if at > passed:
                table = table.slice(max(passed - start, 0))
                yield Chunk(fitted(table, self.schema), {"rows": at})
        if at < passed:
            raise SourceError(f"the rows before ended at {passed}, and there are only {at} now")


@dataclass(frozen=True)
class File:
    """Lines of a file that may grow: JSON objects, or CSV with a header.

    A position is an offset in bytes. A line counts once its newline is there; at the end of a file
    that is not followed, without one too.
    """

    path: str
    follow: bool
    csv: bool
    schema: pa.Schema | None
    skip: bool
    can_resume: bool = True

    def chunks(self, position: Position | None, stop: threading.Event) -> Iterator[Chunk]:
        """Give the lines from the offset on."""
        offset = 0 if position is None else int(position["offset"])
        with open(self.path, "rb") as file:
            header = file.readline() if self.csv else b""
            if self.csv and not header.endswith(b"\n"):
                raise SourceError(f"{self.path} has no header line")
            offset = max(offset, len(header))
            if os.fstat(file.fileno()).st_size < offset:
                raise SourceError(f"{self.path} is shorter than the {offset} bytes read before")
            file.seek(offset)
            rest = b""
            while not stop.is_set():
                data = file.read(CHUNK_BYTES)
                if not data:
                    if not self.follow:
                        if rest.strip():
                            yield self._chunk(rest, offset - len(rest), header, offset)
                        return
                    if os.stat(self.path).st_size < offset:
                        raise SourceError(f"{self.path} became shorter while it was followed")
                    stop.wait(_LOOK_SECONDS)
                    continue
                offset += len(data)
                whole, newline, after = (rest + data).rpartition(b"\n")
                if newline:
                    end = offset - len(after)
                    yield self._chunk(whole + b"\n", end - len(whole) - 1, header, end)
                rest = after

    def _chunk(self, lines: bytes, start: int, header: bytes, end: int) -> Chunk:
        table, skipped = parsed_lines(lines, header, self.schema, self.skip, self.path, start)
        return Chunk(table, {"offset": end}, skipped)


@dataclass(frozen=True)
class Folder:
    """Files of a folder, by their names, and those that come later.

    A file must appear whole (written under a name that begins with ``.`` or ``_``, then renamed).
    A position is the names of the files that are done.
    """

    path: str
    follow: bool
    schema: pa.Schema | None
    skip: bool
    can_resume: bool = True

    def chunks(self, position: Position | None, stop: threading.Event) -> Iterator[Chunk]:
        """Give each file's rows as one chunk."""
        done = set() if position is None else set(position["done"])
        while not stop.is_set():
            names = sorted(
                entry.name
                for entry in os.scandir(self.path)
                if entry.is_file() and not entry.name.startswith((".", "_"))
            )
            fresh = [name for name in names if name not in done]
            for name in fresh:
                if stop.is_set():
                    return
                done.add(name)
                table, skipped = self._read(os.path.join(self.path, name))
                yield Chunk(fitted(table, self.schema), {"done": sorted(done)}, skipped)
            if not self.follow and not fresh:
                return
            if not fresh:
                stop.wait(_LOOK_SECONDS)

    def _read(self, path: str) -> tuple[pa.Table, LeftOut]:
        try:
            if path.endswith((".parquet", ".pq")):
                return pq.read_table(path, use_threads=False, partitioning=None), NOTHING
            data = Path(path).read_bytes()
            header = b""
            if path.endswith((".csv", ".tsv")):
                header, _, data = data.partition(b"\n")
                header += b"\n"
            return parsed_lines(data, header, self.schema, self.skip, path, len(header))
        except UNREADABLE as error:
            if isinstance(error, SourceError) or not self.skip:
                raise SourceError(f"{path} cannot be read: {error}") from error
            empty = pa.schema([]) if self.schema is None else self.schema
            return empty.empty_table(), LeftOut(1, (Skipped(path, "", str(error)),))


@dataclass(frozen=True)
class Socket:
    """Lines of JSON from a TCP connection, until the other side closes it. What was read and lost
    cannot be read again."""

    host: str
    port: int
    schema: pa.Schema | None
    skip: bool
    can_resume: bool = field(default=False)

    def chunks(self, position: Position | None, stop: threading.Event) -> Iterator[Chunk]:
        """Give the lines as they come."""
        where = f"{self.host}:{self.port}"
        received = 0
        with sockets.create_connection((self.host, self.port), timeout=60) as connection:
            connection.settimeout(_LOOK_SECONDS)
            rest = b""
            while not stop.is_set():
                try:
                    data = connection.recv(CHUNK_BYTES)
                except TimeoutError:
                    continue
                whole, newline, after = (rest + data).rpartition(b"\n")
                if not data:
                    whole, newline, after = rest, rest[:1], b""
                if newline:
                    start = received - len(rest)
                    table, skipped = parsed_lines(
                        whole + b"\n", b"", self.schema, self.skip, where, start
                    )
                    yield Chunk(table, {}, skipped)
                rest = after
                received += len(data)
                if not data:
                    return


def parsed_lines(
    lines: bytes, header: bytes, schema: pa.Schema | None, skip: bool, path: str, start: int
) -> tuple[pa.Table, LeftOut]:
    """Return the rows of whole lines, which begin at byte ``start``, and the lines left out.

    Raises
    ------
    SourceError
        A line cannot be parsed, and is not to be left out.
    """
    empty = (pa.schema([]) if schema is None else schema).empty_table()
    if not lines.strip():
        return empty, NOTHING
    try:
        return _parsed(lines, header, schema), NOTHING
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if not skip:
            number = _bad_line(lines, header, schema)
            raise SourceError(
                f"{path}, from byte {start} on, line {number} of these: {error}"
            ) from error
    good: list[pa.Table] = []
    bad: list[Skipped] = []
    count, at = 0, start
    for line in lines.splitlines(keepends=True):
        try:
            good.append(_parsed(line, header, schema)) if line.strip() else None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            count += 1
            if len(bad) < MOST_LISTED:
                bad.append(Skipped(path, f"byte {at}", str(error)))
        at += len(line)
    table = pa.concat_tables(good, promote_options="default") if good else empty
    return table, LeftOut(count, tuple(bad))


def _parsed(lines: bytes, header: bytes, schema: pa.Schema | None) -> pa.Table:
    if not header:
        return parsed_json(lines, schema)
    delimiter = "\t" if b"\t" in header and b"," not in header else ","
    return pacsv.read_csv(
        io.BytesIO(header + lines),
        read_options=pacsv.ReadOptions(use_threads=False, block_size=len(lines) + len(header) + 1),
        parse_options=pacsv.ParseOptions(delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(column_types=schema),
    )


def _bad_line(lines: bytes, header: bytes, schema: pa.Schema | None) -> int:
    for number, line in enumerate(lines.splitlines(keepends=True), start=1):
        try:
            if line.strip():
                _parsed(line, header, schema)
        except (pa.ArrowException, UnicodeDecodeError):
            return number
    return 1  # no line by itself: two do not go together


def fitted(table: pa.Table, schema: pa.Schema | None) -> pa.Table:
    """Return rows with the columns and types of ``schema``.

    Raises
    ------
    SourceError
        A column is missing, or a value does not fit.
    """
    if schema is None or table.schema.equals(schema):
        return table
    try:
        return table.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException) as error:
        raise SourceError(f"rows do not fit the schema: {error}") from error


def together(chunks: Sequence[Chunk], schema: pa.Schema | None) -> pa.Table:
    """Return the rows of chunks as one table.

    Raises
    ------
    SourceError
        Rows have other types than those before them.
    """
    tables: list[pa.Table] = []
    for single, group in itertools.groupby(chunks, lambda chunk: isinstance(chunk.table, dict)):
        found = [chunk.table for chunk in group]
        if single:
            tables.append(_of_dicts(found, schema))
        else:
            tables += [
                table for table in found if not isinstance(table, dict) and table.num_columns
            ]
    if not tables:
        return pa.table({})
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(
            f"rows have other types than those before: {error}; give the source a schema"
        ) from error


def _of_dicts(rows: list[Any], schema: pa.Schema | None) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        # (By columns: pyarrow takes the names of from_pylist from the first row alone.)
        if schema is not None:
            return pa.Table.from_pylist(rows, schema=schema)
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SourceError(
            f"an event of {len(rows)} from {rows[0]!r} on does not fit: {error}"
        ) from error


def file(
    path: str | os.PathLike[str],
    *,
    follow: bool = False,
    schema: pa.Schema | None = None,
    on_error: str = "raise",
) -> File:
    """Take the lines of a local file as events: JSON objects, or CSV if its name ends in ``.csv``
    or ``.tsv``.

    Parameters
    ----------
    path : str or os.PathLike
    follow : bool
        Whether to wait for more lines at its end, for ever.
    schema : pyarrow.Schema, optional
        Columns and types; by default those of the first lines that are read at once.
    on_error : {"raise", "skip"}
        What to do about a line that cannot be parsed: raise `SourceError`, or count it.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """
    found = os.path.abspath(os.fspath(path))
    if not os.path.isfile(found):
        raise FileNotFoundError(f"{found} does not exist")
    csv = found.endswith((".csv", ".tsv"))
    return File(found, follow, csv, schema, _skips(on_error))


def folder(
    path: str | os.PathLike[str],
    *,
    follow: bool = False,
    schema: pa.Schema | None = None,
    on_error: str = "raise",
) -> Folder:
    """Take the rows of a local folder's files as events, file by file in the order of their names.

    Parameters
    ----------
    path : str or os.PathLike
        Parquet files, CSV files with a header, and JSON lines (all other names). A file must appear
        whole: written under a name that begins with ``.`` or ``_``, and then renamed.
    follow : bool
        Whether to wait for more files, for ever.
    schema, on_error
        As for `file`.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    """
    found = os.path.abspath(os.fspath(path))
    if not os.path.isdir(found):
        raise FileNotFoundError(f"the folder {found} does not exist")
    return Folder(found, follow, schema, _skips(on_error))


def socket(
    host: str, port: int, *, schema: pa.Schema | None = None, on_error: str = "raise"
) -> Socket:
    """Take lines of JSON from a TCP connection as events, until the other side closes it.

    Parameters
    ----------
    host, port : str, int
    schema, on_error
        As for `file`.
    """
    return Socket(host, port, schema, _skips(on_error))


def _skips(on_error: str) -> bool:
    if on_error not in ("raise", "skip"):
        raise InvalidArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    return on_error == "skip"


def events_of(source: Any, schema: pa.Schema | None) -> Events:
    """Return the source of events that a value stands for.

    Raises
    ------
    InvalidTypeError
        It stands for none.
    """
    if isinstance(source, Rows | File | Folder | Socket):
        if schema is not None:
            raise InvalidArgumentError("give the schema to the source")
        return source
    if isinstance(source, str):
        raise InvalidTypeError(
            f"the str {source!r} could be text or a path; use ar.stream.file(path)"
        )
    if isinstance(source, os.PathLike):
        return folder(source, schema=schema) if os.path.isdir(source) else file(
            source, schema=schema
        )  # fmt: skip
    if isinstance(source, Table):
        return Rows(source.iterate, schema)
    if isinstance(source, pa.Table | pa.RecordBatch):
        return Rows(lambda: [source], schema)
    if callable(source):
        return Rows(source, schema)
    if isinstance(source, Iterable):
        once = itertools.chain([source])
        if iter(source) is source:  # an iterator: there is no second time
            return Rows(lambda: next(once), schema)
        return Rows(lambda: source, schema)
    raise InvalidTypeError(f"{type(source).__name__} is no source of events")
