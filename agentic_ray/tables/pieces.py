"""Readers of one piece of a file each: what an executor does to have the rows of a part.

A reader is small and travels; it reads by pyarrow. Errors name the file and the place in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.ipc as ipc
import pyarrow.json as pajson
import pyarrow.orc as paorc
import pyarrow.parquet as pq

from agentic_ray.errors import SourceError
from agentic_ray.sources._csv import CsvRange
from agentic_ray.sources._text import LineRange
from agentic_ray.tables.files import Origin

UNREADABLE = (pa.ArrowException, OSError, EOFError)
"""Exceptions of pyarrow on a damaged file."""
LEAST_PIECE_BYTES = 1 << 14
"""A piece takes as long as so many bytes, however small it is: to open the file, mostly."""
_ROW = re.compile(r"\bin row (\d+)")


class Reader(Protocol):
    """Reads the rows of one piece."""

    def read(self, columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Return the rows that pass ``filter``, with these columns, or all.

        Raises
        ------
        SourceError
            The file is damaged, has changed, or is unlike the others.
        """
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a table that is in a file.

    Parameters
    ----------
    path, where : str
        The file, and the place in it for people, such as ``row groups 0:3``.
    bytes : int
        Estimated size.
    rows : int or None
        Number of rows, before the filter, where it is known without reading.
    reader : Reader
    """

    path: str
    where: str
    bytes: int
    rows: int | None
    reader: Reader

    @property
    def label(self) -> str:
        name = self.path.rpartition("/")[2]
        return f"{name}[{self.where}]" if self.where else name


@dataclass(frozen=True, slots=True)
class Pack:
    """Neighbouring pieces, small files mostly, that are read as one part."""

    pieces: tuple[Piece, ...]

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces)

    @property
    def rows(self) -> int | None:
        known = [piece.rows for piece in self.pieces]
        return None if any(rows is None for rows in known) else sum(filter(None, known))

    @property
    def label(self) -> str:
        return f"{self.pieces[0].label} and {len(self.pieces) - 1} more"


def packs(pieces: Sequence[Piece], most_bytes: int) -> tuple[Piece | Pack, ...]:
    """Put neighbouring pieces together while they have at most ``most_bytes`` bytes together."""
    found: list[Piece | Pack] = []
    open_pieces: list[Piece] = []
    size = 0

    def close() -> None:
        if open_pieces:
            one = len(open_pieces) == 1
            found.append(open_pieces[0] if one else Pack(tuple(open_pieces)))
            open_pieces.clear()

    for piece in pieces:
        own = max(piece.bytes, LEAST_PIECE_BYTES)
        if size + own > most_bytes:
            close()
            size = 0
        open_pieces.append(piece)
        size += own
    close()
    return tuple(found)


@dataclass(frozen=True, slots=True)
class NoRows:
    """Reader of no rows, for a table of which no part is left."""

    schema: pa.Schema

    def read(self, columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Return the empty table."""
        return _narrowed(self.schema.empty_table(), columns, None)


def _narrowed(table: pa.Table, columns: Sequence[str] | None, filter: Any) -> pa.Table:
    if filter is not None:
        table = table.filter(filter)
    return table if columns is None else table.select(list(columns))


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Reader of row groups of a Parquet file. pyarrow reads the columns that are wanted or
    filtered by, and fits them to ``schema``."""

    origin: Origin
    groups: tuple[int, ...]
    partition: Any
    schema: pa.Schema

    def read(self, columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Read the rows."""
        since = self.origin.check()
        try:
            table = self._read(self.groups, columns, filter)
        except UNREADABLE as error:
            for group in self.groups:
                try:
                    self._read((group,), columns, filter)
                except UNREADABLE as problem:
                    raise SourceError(
                        f"{self.origin.path}, row group {group}, cannot be read as Parquet: "
                        f"{problem}"
                    ) from problem
            raise SourceError(f"{self.origin.path} cannot be read as Parquet: {error}") from error
        self.origin.check(since)
        return table

    def _read(self, groups: Sequence[int], columns: Sequence[str] | None, filter: Any) -> pa.Table:
        if filter is None and self.partition is None:
            found = self._as_they_are(groups, columns)
            if found is not None:
                return found
        fragment = parquet_format().make_fragment(
            self.origin.path, self.origin.filesystem, self.partition, row_groups=list(groups)
        )
        return fragment.to_table(
            schema=self.schema,
            columns=None if columns is None else list(columns),
            filter=filter,
            use_threads=False,  # the executor's own threads are the parallelism
        )

    def _as_they_are(self, groups: Sequence[int], columns: Sequence[str] | None) -> Any:
        """Return the rows if nothing has to be fitted, else None. (This takes less time than a
        fragment's way, and gives each column as few chunks as can be.)"""
        names = self.schema.names if columns is None else list(columns)
        if not names or any("." in name for name in self.schema.names):
            return None  # a dot stands for a column inside another
        far = not self.origin.is_local
        with pq.ParquetFile(
            self.origin.path, filesystem=self.origin.filesystem, pre_buffer=far
        ) as file:
            own = file.schema_arrow
            for name in names:
                at = own.get_field_index(name)
                if at < 0 or not own.field(at).equals(self.schema.field(name)):
                    return None
            table = file.read_row_groups(list(groups), columns=names, use_threads=False)
        return table.select(names).replace_schema_metadata(None)


def parquet_format() -> Any:
    """Return how Parquet files are read: columns ahead of their use, for file systems far away."""
    return ds.ParquetFileFormat(pre_buffer=True)


@dataclass(frozen=True, slots=True)
class Whole:
    """Reader that reads by ``inner``, adds the columns of the folders' names, and filters here.

    ``inner(columns)`` returns a table with at least these columns, or all.
    """

    origin: Origin
    inner: Any
    partition: Any
    schema: pa.Schema

    def read(self, columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Read the rows."""
        since = self.origin.check()
        folders = {} if self.partition is None else ds.get_partition_keys(self.partition)
        in_file = [name for name in self.schema.names if name not in folders]
        wanted = in_file
        if filter is None and columns is not None:
            wanted = [name for name in in_file if name in columns]
        try:
            table = self.inner(tuple(wanted))
        except UNREADABLE as error:
            raise SourceError(f"{self.origin.path} cannot be read: {error}") from error
        self.origin.check(since)
        for name, value in folders.items():
            kind = self.schema.field(name).type
            table = table.append_column(
                self.schema.field(name), pa.repeat(pa.scalar(value, kind), table.num_rows)
            )
        if not wanted and columns is not None:  # only columns of folders, or none: rows count
            return table.select(list(columns))
        return _narrowed(table, columns, filter)


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Rows of a range of a local CSV file."""

    range: CsvRange

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        kept = columns or tuple(self.range.schema.names[:1])  # the rows must still be counted
        schema = pa.schema([self.range.schema.field(name) for name in kept])
        return replace(self.range, schema=schema)()


@dataclass(frozen=True, slots=True)
class CsvFile:
    """All rows of a CSV file on another file system."""

    origin: Origin
    delimiter: str
    schema: pa.Schema

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        kept = columns or tuple(self.schema.names[:1])
        with self.origin.filesystem.open_input_stream(self.origin.path) as stream:
            return pacsv.read_csv(
                stream,
                read_options=pacsv.ReadOptions(use_threads=False),
                parse_options=pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types=self.schema, include_columns=list(kept)
                ),
            )


@dataclass(frozen=True, slots=True)
class JsonRows:
    """Rows of a range of lines of a local file of JSON lines."""

    range: LineRange
    schema: pa.Schema

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        begin, data = self.range.content()
        if not data.strip():
            return self.schema.empty_table()
        try:
            return parsed_json(data, self.schema)
        except pa.ArrowInvalid as error:
            row = _ROW.search(str(error))
            line = self.range.file.line_number(begin)
            where = f"line {line + int(row[1])}" if row else f"lines from {line} on"
            raise SourceError(
                f"{self.range.file.path}, {where}: {error}; give the file's schema= if its rows "
                "differ"
            ) from error


@dataclass(frozen=True, slots=True)
class JsonFile:
    """All rows of a file of JSON lines on another file system."""

    origin: Origin
    schema: pa.Schema

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        with self.origin.filesystem.open_input_stream(self.origin.path) as stream:
            data = stream.read()
        return parsed_json(data, self.schema) if data.strip() else self.schema.empty_table()


def parsed_json(data: bytes, schema: pa.Schema | None) -> pa.Table:
    """Parse JSON lines; with a schema, fields that it lacks are an error, and absent ones null."""
    table = pajson.read_json(
        pa.BufferReader(data),
        read_options=pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema,
            unexpected_field_behavior="infer" if schema is None else "error",
        ),
    )
    return table if schema is None else table.select(schema.names)


@dataclass(frozen=True, slots=True)
class TextRows:
    """Lines of a range of a local file of text, as the column ``line``."""

    range: LineRange

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        return pa.table({"line": pa.array(self.range(), pa.large_string())})


@dataclass(frozen=True, slots=True)
class Batches:
    """Record batches ``first..end`` of an Arrow IPC file (all of a stream: ``end`` is None)."""

    origin: Origin
    first: int
    end: int | None

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        with self.origin.filesystem.open_input_file(self.origin.path) as file:
            if self.end is None:
                return ipc.open_stream(file).read_all()
            opened = ipc.open_file(file)
            batches = []
            for number in range(self.first, self.end):
                try:
                    batches.append(opened.get_batch(number))
                except UNREADABLE as error:
                    raise SourceError(
                        f"{self.origin.path}, record batch {number}, cannot be read: {error}"
                    ) from error
            return pa.Table.from_batches(batches, opened.schema)


@dataclass(frozen=True, slots=True)
class Stripes:
    """Stripes ``first..end`` of an ORC file."""

    origin: Origin
    first: int
    end: int

    def __call__(self, columns: tuple[str, ...]) -> pa.Table:
        with self.origin.filesystem.open_input_file(self.origin.path) as file:
            opened = paorc.ORCFile(file)
            kept = list(columns) or opened.schema.names[:1]
            schema = pa.schema([opened.schema.field(name) for name in kept])
            batches = []
            for number in range(self.first, self.end):
                try:
                    batches.append(opened.read_stripe(number, columns=kept).select(kept))
                except UNREADABLE as error:
                    raise SourceError(
                        f"{self.origin.path}, stripe {number}, cannot be read: {error}"
                    ) from error
            return pa.Table.from_batches(batches, schema)
