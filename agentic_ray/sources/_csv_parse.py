"""CSV text parsed by pyarrow, with errors that say where they are and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentic_ray.errors import SourceError
from agentic_ray.sources._files import File
from agentic_ray.sources._rows import row_offset

_PROBLEM = re.compile(
    r"(?:In CSV column #(?P<column>\d+): |CSV parse error: )?(?:Row #(?P<row>\d+): )?"
    r"(?:CSV conversion error to (?P<kind>.+?): )?(?P<detail>.*)",
    re.DOTALL,
)
_MORE_NULLS = ("None", "<NA>")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
"""Texts of false, as in pandas. By itself pyarrow takes 1 and 0 for truth values too, in a column
that has such texts."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Rules by which the text of a CSV file is read."""

    delimiter: str = ","
    has_header: bool = True
    null_values: tuple[str, ...] | None = None
    encoding: str = "utf-8"

    @property
    def nulls(self) -> list[str]:
        """Texts that stand for null."""
        import pyarrow.csv as pc

        if self.null_values is not None:
            return list(self.null_values)
        return [*pc.ConvertOptions().null_values, *_MORE_NULLS]

    def parse(
        self,
        data: bytes,
        *,
        names: Sequence[str],
        first: bool,
        types: Mapping[str, Any] | None,
        columns: Sequence[str] | None = None,
    ) -> Any:
        """Parse ``data`` into a ``pyarrow.Table``.

        ``names`` are those of all columns, empty to take them from the data; ``first`` says that
        the data is the beginning of a file; ``types`` maps the columns wanted to their types, or is
        None to infer the types of ``columns``, or of all.
        """
        import pyarrow as pa
        import pyarrow.csv as pc

        from_data = self.has_header and first
        if types is not None:
            columns = list(types)
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
                include_columns=columns,
                null_values=self.nulls,
                true_values=_TRUE,
                false_values=_FALSE,
                strings_can_be_null=self.null_values is not None,
            ),
        )


def parsed(
    file: File,
    start: int,
    data: bytes,
    dialect: Dialect,
    names: Sequence[str],
    types: Mapping[str, Any] | None,
    columns: Sequence[str] | None = None,
) -> Any:
    """Parse bytes at ``start`` as `Dialect.parse`; errors say where they are and what to do."""
    import pyarrow as pa

    text = _as_utf8(file, start, data, dialect.encoding)
    try:
        return dialect.parse(text, names=names, first=start == 0, types=types, columns=columns)
    except pa.ArrowInvalid as error:
        first = file.line_number(start)
        found = _PROBLEM.fullmatch(str(error))
        assert found is not None, "it matches any text"
        column, row, kind, problem = found.group("column", "row", "kind", "detail")
        last = first + max(data.count(b"\n"), 1) - 1
        where = f"lines {first} to {last}"
        if row is not None:
            where = f"line {line_of_row(file, start, data, int(row) - 1, dialect)}"
        if column is not None:
            name = names[int(column)] if names else f"number {int(column) + 1}"
            kind = kind or (types or {}).get(name, "what it holds elsewhere")
            problem = (
                f"column {name!r} was taken for {kind}, which does not fit: {problem}; "
                f"pass column_types={{{name!r}: ...}}"
            )
        raise SourceError(f"{file.path}, {where}: {problem}") from error


def line_of_row(file: File, start: int, data: bytes, row: int, dialect: Dialect) -> int:
    """Return the number, from 1, of the line at which a row begins that has ``row`` rows before it
    in ``data``, the bytes of the file from ``start``. A header counts as a row."""
    offset = row_offset(data, row, dialect.delimiter)
    return file.line_number(start) + data.count(b"\n", 0, offset)


def _as_utf8(file: File, start: int, data: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        return data
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{file.path}: byte 0x{data[error.start]:02x} at offset {start + error.start} is not "
            f"valid {encoding} ({error.reason}); pass the file's encoding="
        ) from error
