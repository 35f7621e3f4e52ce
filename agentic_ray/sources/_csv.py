"""CSV files as tables by byte ranges, with one schema for all of them.

``_rows`` decides where a file can be cut; pyarrow parses the ranges.
"""

from __future__ import annotations

import itertools
import mmap
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
from agentic_ray.sources._csv_parse import Dialect, parsed
from agentic_ray.sources._csv_types import (
    Span,
    Types,
    has_hexadecimal,
    refuse_hexadecimal,
    sampled,
)
from agentic_ray.sources._encodings import byte_order_mark, checked_encoding
from agentic_ray.sources._files import File, Paths, find_files
from agentic_ray.sources._rows import row_starts, scanned_row_starts

CSV_SUFFIXES = (".csv", ".csv.gz", ".csv.zip")
TSV_SUFFIXES = (".tsv", ".tsv.gz", ".tsv.zip")

_SAMPLE_BYTES = 1 << 20
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Csv:
    """A `Source` of tables; made by `csv`."""

    files: tuple[File, ...]
    dialect: Dialect
    columns: tuple[str, ...] | None
    column_types: tuple[tuple[str, Any], ...]
    part_bytes: int | Literal["auto"]

    def parts(self) -> list[Part]:
        """Return ranges of whole rows of every file in order.

        Raises
        ------
        SourceError
            A file is empty or cannot be parsed, or the files have different columns.
        InvalidArgumentError
            ``columns`` or ``column_types`` names a column that the files do not have.
        """
        step = chosen_part_bytes(self.part_bytes, sum(file.size for file in self.files))
        names: tuple[str, ...] | None = None
        begins: list[int] = []
        spans: list[Span] = []
        for file in self.files:
            if file.size == 0:
                raise SourceError(f"{file.path} is empty: not even a header")
            with (
                file.open() as content,
                mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                begin = self._first_row(file, data)
                own_names = self._names(file, data[:begin], data)
                if names is None:
                    names = own_names
                elif own_names != names:
                    raise SourceError(
                        f"{file.path} has the columns {', '.join(own_names)} and "
                        f"{self.files[0].path} has {', '.join(names)}"
                    )
                edges = [0, *row_starts(data, begin, step, self.dialect.delimiter), file.size]
            begins.append(begin)
            spans += [Span(file, *edge) for edge in itertools.pairwise(edges)]
        assert names is not None, "there is a file"
        schema = self._selected(names, self._schema(names, begins[0], spans))
        return [
            Part(
                label=f"{span.file.name}[{span.start}:{span.stop}]",
                bytes=span.stop - span.start,
                items=None,
                unit="block",
                read=CsvRange(span, self.dialect, names, schema),
            )
            for span in spans
        ]

    def _first_row(self, file: File, data: mmap.mmap) -> int:
        """Return the offset of the first row after the header, or after a byte order mark."""
        marked = byte_order_mark(data[:4])
        if marked not in ("", "utf-8-sig"):
            raise SourceError(f"{file.path} is in {marked}; convert it to UTF-8 first")
        begin = len(_UTF8_BOM) if marked else 0
        if not self.dialect.has_header:
            return begin
        while data[begin : begin + 1] in (b"\r", b"\n"):
            begin += 1  # pyarrow skips empty lines before the header, too
        after = scanned_row_starts(data, begin, 1, self.dialect.delimiter)
        return next(after, len(data))

    def _names(self, file: File, header: bytes, data: mmap.mmap) -> tuple[str, ...]:
        """Return the names of the columns: those in the header, or f0, f1, … of the first row."""
        if self.dialect.has_header:
            row = header + b"\n"
        else:
            row = data[: next(scanned_row_starts(data, 0, 1, self.dialect.delimiter), len(data))]
        names = tuple(parsed(file, 0, row, self.dialect, (), None).column_names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceError(f"{file.path} has more than one column named {', '.join(twice)}")
        return names

    def _schema(self, names: tuple[str, ...], begin: int, spans: list[Span]) -> Any:
        """Return the types of all columns: those given by the user, the others inferred."""
        types = Types(self.dialect, names, dict(self.column_types))
        if set(names) <= set(dict(self.column_types)):
            return types.schema()  # nothing to infer
        file = spans[0].file
        with (
            file.open() as content,
            mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            after = scanned_row_starts(data, begin, _SAMPLE_BYTES, self.dialect.delimiter)
            end = next(after, len(data))
            types.look_at(file, 0, data[:end] if end > begin else data[:end] + b"\n")
        rest = [span for span in spans if span.file != file or span.start >= end]
        for span, sample in sampled(rest, self.dialect):
            types.look_at(span.file, span.start, sample)
        types.fill(span for span in spans if span.file != file or span.stop > end)
        return types.schema()

    def _selected(self, names: tuple[str, ...], schema: Any) -> Any:
        """Return the schema of the wanted columns, in the order in which they are wanted."""
        import pyarrow as pa

        wanted = names if self.columns is None else self.columns
        unknown = [name for name in (*wanted, *dict(self.column_types)) if name not in names]
        if unknown:
            raise InvalidArgumentError(
                f"{self.files[0].path} has no column {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(names)}"
            )
        return pa.schema([schema.field(name) for name in wanted])


@dataclass(frozen=True, slots=True)
class CsvRange:
    """Reader of the rows of a span as a table of the given schema."""

    span: Span
    dialect: Dialect
    names: tuple[str, ...]
    schema: Any

    def __call__(self) -> Any:
        """Read the rows as a ``pyarrow.Table``."""
        file, start = self.span.file, self.span.start
        data = self.span.read()
        if start == 0 and self.dialect.has_header and not data.endswith((b"\n", b"\r")):
            data += b"\n"  # a header alone; pyarrow needs its line ended
        elif not data.lstrip(b"\r\n"):
            return self.schema.empty_table()
        types = {field.name: field.type for field in self.schema}
        table = parsed(file, start, data, self.dialect, self.names, types)
        if has_hexadecimal(data):
            refuse_hexadecimal(file, start, data, self.dialect, self.names, types)
        return table


def csv(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    column_types: Mapping[str, Any] | None = None,
    part_bytes: int | Literal["auto"] = "auto",
    null_values: Sequence[str] | None = None,
    delimiter: str = ",",
    has_header: bool = True,
    encoding: str = "utf-8",
) -> Csv:
    """Read CSV files as tables, by ranges of whole rows where they are used.

    A map function is called once per part, with a ``pyarrow.Table``. Quoted values may hold
    delimiters, newlines and doubled quotes.

    Types hold for all parts. They are inferred from the first MiB and from samples spread over all
    files. If a column has no value there, all the rest is searched for one (which reads it once
    more); a column without any value is float64. A value further on that does not fit is a
    `SourceError` with file, line and column: it is never another value than the one written. Values
    are those that ``pandas.read_csv`` gives, except that dates and times are read as such, that
    integers beside nulls stay integers, and that strings are never null unless ``null_values`` says
    so.

    Parameters
    ----------
    path : path or sequence of paths
        Files (``.gz`` and one-member ``.zip`` are unpacked into the user's cache directory, once
        per node), directories, or patterns. On a cluster they must be at the same path on every
        node.
    columns : sequence of str, optional
        Columns to read, in this order; all by default.
    column_types : mapping of str to pyarrow.DataType or str, optional
        Types of columns, which are then not inferred, such as ``{"delay": "float64"}``.
    part_bytes : int or "auto"
        Bytes per part; ``"auto"`` depends on the total size only.
    null_values : sequence of str, optional
        Texts that stand for null, in string columns too. By default those of pandas (empty, NA,
        NaN, None, null …), which leave string columns as they are.
    delimiter : str
        One ASCII character.
    has_header : bool
        Whether the first row holds the names; otherwise they are ``f0``, ``f1``, …
    encoding : str
        Encoding of the files; a byte order mark of UTF-8 is dropped. UTF-16 and UTF-32 are refused.

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory has no CSV file, a pattern matches nothing.
    InvalidArgumentError, InvalidTypeError
        An argument cannot be used; for names of columns when the parts are made.
    SourceError
        When the parts are made or read: an empty file, a ragged row, a value that does not fit
        its type, bytes that are not UTF-8, a damaged archive, a file that changed.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "prices.csv"
    >>> _ = file.write_text("shop,price\\nnorth,3\\nsouth,4\\n")
    >>> ar.map_reduce(lambda table: sum(table["price"].to_pylist()), ar.sources.csv(file))
    [7]
    """
    import pyarrow as pa

    check_part_bytes(part_bytes)
    if not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii()):
        raise InvalidArgumentError(f"delimiter must be one ASCII character, not {delimiter!r}")
    if delimiter in '"\r\n':
        raise InvalidArgumentError(f"{delimiter!r} cannot be the delimiter")
    name = checked_encoding(encoding, delimiter.encode())
    if isinstance(null_values, str):
        raise InvalidTypeError(f"null_values must be a sequence of str, not {null_values!r}")
    types: dict[str, Any] = {}
    for column, kind in (column_types or {}).items():
        try:
            types[column] = pa.type_for_alias(kind) if isinstance(kind, str) else kind
        except ValueError as error:
            raise InvalidArgumentError(f"column_types[{column!r}]: {error}") from error
        if not isinstance(types[column], pa.DataType):
            raise InvalidTypeError(
                f"column_types[{column!r}] must be a pyarrow type or its name, not {kind!r}"
            )
    suffixes = TSV_SUFFIXES if delimiter == "\t" else CSV_SUFFIXES
    return Csv(
        tuple(File.of(found) for found in find_files(path, suffixes)),
        Dialect(
            delimiter,
            has_header,
            None if null_values is None else tuple(null_values),
            "utf-8" if name == "utf-8-sig" else name,
        ),
        checked_columns(columns),
        tuple(types.items()),
        part_bytes,
    )
