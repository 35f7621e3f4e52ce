"""CSV files as tables by byte ranges, with one schema for all of them.

Where a file can be cut is decided in ``_rows``; pyarrow parses the ranges.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.sources._base import (
    Part,
    check_part_bytes,
    checked_columns,
    chosen_part_bytes,
)
from agentic_ray.sources._files import File, Paths, find_files
from agentic_ray.sources._rows import row_starts, scanned_row_starts

CSV_SUFFIXES = (".csv", ".csv.gz", ".csv.zip")
TSV_SUFFIXES = (".tsv", ".tsv.gz", ".tsv.zip")

_SAMPLE_BYTES = 1 << 20
_UTF8_BOM = b"\xef\xbb\xbf"
_CONVERSION_ERROR = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (.+?): (.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the text of a CSV file is to be understood."""

    delimiter: str = ","
    has_header: bool = True
    null_values: tuple[str, ...] | None = None

    def parse(self, data: Any, *, names: Sequence[str], first: bool, types: Any) -> Any:
        """``data`` as a ``pyarrow.Table``.

        ``names`` are those of all columns, empty to take them from the data; ``first`` says that
        the data is the beginning of a file; ``types`` maps the columns wanted to their types, or
        is None to infer the types of all.
        """
        import pyarrow as pa
        import pyarrow.csv as pc

        from_data = self.has_header and first
        return pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(
                use_threads=False,  # the executor's own threads are the parallelism
                block_size=len(data) + 1,
                column_names=None if from_data or not names else list(names),
                autogenerate_column_names=not from_data and not names,
            ),
            parse_options=pc.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=b'"' in data
            ),
            convert_options=pc.ConvertOptions(
                column_types=types,
                include_columns=None if types is None else list(types),
                null_values=None if self.null_values is None else list(self.null_values),
                strings_can_be_null=self.null_values is not None,
            ),
        )


@dataclass(frozen=True, slots=True)
class Csv:
    """A `Source` of tables; made by `csv`."""

    files: tuple[File, ...]
    dialect: Dialect
    columns: tuple[str, ...] | None
    column_types: tuple[tuple[str, Any], ...]
    part_bytes: int | Literal["auto"]

    def parts(self) -> list[Part]:
        """Ranges of whole rows of every file in order.

        Raises
        ------
        SourceError
            A file is empty or cannot be parsed, or the files have different columns.
        InvalidArgumentError
            ``columns`` or ``column_types`` names a column that the files do not have.
        """
        step = chosen_part_bytes(self.part_bytes, sum(file.size for file in self.files))
        names: tuple[str, ...] = ()
        schema: Any = None
        parts: list[Part] = []
        for file in self.files:
            if file.size == 0:
                raise SourceError(f"{file.path} is empty: not even a header")
            with (
                file.open() as content,
                mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                begin = self._first_row(data)
                own_names = self._names(file, data[:begin])
                if schema is None:
                    names, schema = own_names, self._schema(file, data, begin)
                    names = names or tuple(schema.names)
                    schema = self._selected(file, names, schema)
                elif self.dialect.has_header and own_names != names:
                    raise SourceError(
                        f"{file.path} has the columns {', '.join(own_names)} and "
                        f"{self.files[0].path} has {', '.join(names)}"
                    )
                edges = [0, *row_starts(data, begin, step, self.dialect.delimiter), file.size]
            parts += [
                Part(
                    label=f"{file.name}[{start}:{stop}]",
                    bytes=stop - start,
                    items=None,
                    unit="block",
                    read=CsvRange(file, start, stop, self.dialect, names, schema),
                )
                for start, stop in itertools.pairwise(edges)
            ]
        return parts

    def _first_row(self, data: mmap.mmap) -> int:
        """Offset of the first row after the header, or after a byte order mark."""
        begin = len(_UTF8_BOM) if data[:3] == _UTF8_BOM else 0
        if not self.dialect.has_header:
            return begin
        while data[begin : begin + 1] in (b"\r", b"\n"):
            begin += 1  # pyarrow skips empty lines before the header, too
        after = scanned_row_starts(data, begin, 1, self.dialect.delimiter)
        return next(after, len(data))

    def _names(self, file: File, header: bytes) -> tuple[str, ...]:
        """Names in the header, empty when there is none."""
        if not self.dialect.has_header:
            return ()
        table = _parsed(file, 0, header + b"\n", self.dialect, (), None)
        names = tuple(table.column_names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceError(f"{file.path} has more than one column named {', '.join(twice)}")
        return names

    def _schema(self, file: File, data: mmap.mmap, begin: int) -> Any:
        """Types of all columns inferred from the first MiB, those given by the user instead."""
        import pyarrow as pa

        after = scanned_row_starts(data, begin, _SAMPLE_BYTES, self.dialect.delimiter)
        end = next(after, len(data))
        sample = data[:end] if end > begin else data[:end] + b"\n"
        inferred = _parsed(file, 0, sample, self.dialect, (), None).schema
        given = dict(self.column_types)
        fields = []
        for field in inferred:
            kind = given.get(field.name, field.type)
            if pa.types.is_null(kind):
                kind = pa.string()  # nothing but nulls so far: a string can hold what may come
            elif pa.types.is_binary(kind) and field.name not in given:
                raise SourceError(
                    f"column {field.name!r} of {file.path} is not valid UTF-8; convert the file, "
                    f"or pass column_types={{{field.name!r}: 'binary'}}"
                )
            fields.append(pa.field(field.name, kind))
        return pa.schema(fields)

    def _selected(self, file: File, names: tuple[str, ...], schema: Any) -> Any:
        """The schema of the columns wanted, in the order in which they are wanted."""
        import pyarrow as pa

        wanted = names if self.columns is None else self.columns
        unknown = [name for name in (*wanted, *dict(self.column_types)) if name not in names]
        if unknown:
            raise InvalidArgumentError(
                f"{file.path} has no column {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(names)}"
            )
        return pa.schema([schema.field(name) for name in wanted])


@dataclass(frozen=True, slots=True)
class CsvRange:
    """Reads the rows in bytes ``start..stop`` of a file as a table of the given schema."""

    file: File
    start: int
    stop: int
    dialect: Dialect
    names: tuple[str, ...]
    schema: Any

    def __call__(self) -> Any:
        """The rows as a ``pyarrow.Table``."""
        with self.file.open() as content:
            content.seek(self.start)
            data = content.read(self.stop - self.start)
        if self.start == 0 and self.dialect.has_header and not data.endswith((b"\n", b"\r")):
            data += b"\n"  # a header alone, which pyarrow wants ended
        elif not data.strip(b"\r\n"):
            return self.schema.empty_table()
        types = {field.name: field.type for field in self.schema}
        return _parsed(self.file, self.start, data, self.dialect, self.names, types)


def _parsed(
    file: File, start: int, data: bytes, dialect: Dialect, names: tuple[str, ...], types: Any
) -> Any:
    """`Dialect.parse` of bytes at ``start``, with errors that say where and what to do."""
    import pyarrow as pa

    try:
        return dialect.parse(data, names=names, first=start == 0, types=types)
    except pa.ArrowInvalid as error:
        first = file.line_number(start)
        last = first + max(data.count(b"\n"), 1) - 1
        problem = str(error)
        found = _CONVERSION_ERROR.match(problem)
        if found:
            column, row, kind, detail = found.groups()
            name = names[int(column)] if names else f"number {int(column) + 1}"
            where = f" (row {row} of these)" if row else ""
            problem = (
                f"column {name!r} was taken for {kind}, which does not fit{where}: {detail}; "
                f"pass column_types={{{name!r}: ...}}"
            )
        raise SourceError(f"{file.path}, lines {first} to {last}: {problem}") from error


def csv(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    column_types: Mapping[str, Any] | None = None,
    part_bytes: int | Literal["auto"] = "auto",
    null_values: Sequence[str] | None = None,
    delimiter: str = ",",
    has_header: bool = True,
) -> Csv:
    """CSV files as tables, read by ranges of whole rows where they are used.

    A map function is called once per part, with a ``pyarrow.Table``. Quoted values may hold
    delimiters, newlines and doubled quotes. Types are inferred from the first MiB of the first
    file and hold for all parts; a column with only nulls there is taken for strings.

    Parameters
    ----------
    path : path or sequence of paths
        Files (``.gz`` and one-member ``.zip`` are unpacked into the user's cache directory, once
        per node), directories, or patterns. On a cluster they must be at the same path on every
        node, in UTF-8.
    columns : sequence of str, optional
        Columns to read, in this order; all by default.
    column_types : mapping of str to pyarrow.DataType or str, optional
        Types not to be inferred, such as ``{"delay": "float64"}``.
    part_bytes : int or "auto"
        Bytes per part; ``"auto"`` depends on the total size only.
    null_values : sequence of str, optional
        Texts that stand for null, in string columns too. By default pyarrow's list (empty, NA,
        NaN, null …), which leaves string columns as they are.
    delimiter : str
        One ASCII character.
    has_header : bool
        Whether the first row holds the names; otherwise they are ``f0``, ``f1``, …

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory has no CSV file, a pattern matches nothing.
    InvalidArgumentError, InvalidTypeError
        An argument cannot be used; for names of columns when the parts are made.
    SourceError
        When the parts are made or read: an empty file, a ragged row, a value that does not fit
        its type, bytes that are not UTF-8, a damaged archive, a file that changed.
    """
    import pyarrow as pa

    check_part_bytes(part_bytes)
    if not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii()):
        raise InvalidArgumentError(f"delimiter must be one ASCII character, not {delimiter!r}")
    if delimiter in '"\r\n':
        raise InvalidArgumentError(f"{delimiter!r} cannot be the delimiter")
    if isinstance(null_values, str):
        raise InvalidTypeError(f"null_values must be a sequence of str, not {null_values!r}")
    types: dict[str, Any] = {}
    for name, kind in (column_types or {}).items():
        try:
            types[name] = pa.type_for_alias(kind) if isinstance(kind, str) else kind
        except ValueError as error:
            raise InvalidArgumentError(f"column_types[{name!r}]: {error}") from error
        if not isinstance(types[name], pa.DataType):
            raise InvalidTypeError(
                f"column_types[{name!r}] must be a pyarrow type or its name, not {kind!r}"
            )
    suffixes = TSV_SUFFIXES if delimiter == "\t" else CSV_SUFFIXES
    return Csv(
        tuple(File.of(found) for found in find_files(path, suffixes)),
        Dialect(delimiter, has_header, None if null_values is None else tuple(null_values)),
        checked_columns(columns),
        tuple(types.items()),
        part_bytes,
    )
