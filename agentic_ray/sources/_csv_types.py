"""Types of the columns of CSV files, inferred from samples. If pyarrow reads a value otherwise than
pandas does, the column gets a type that holds the value, or an error names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from agentic_ray.errors import SourceError
from agentic_ray.sources._csv_parse import Dialect, line_of_row, parsed
from agentic_ray.sources._files import File
from agentic_ray.sources._rows import scanned_row_starts

SPREAD_SAMPLES: Final = 16
SPREAD_BYTES: Final = 1 << 16
"""Samples are taken at so many places beside the beginning, with so many bytes each."""
_BLOCK_BYTES: Final = 1 << 17
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_EXACT_IN_DOUBLE: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Span:
    """Whole rows of a file, in bytes ``start..stop``."""

    file: File
    start: int
    stop: int

    def read(self, most: int | None = None) -> bytes:
        """Read its bytes, or the first ``most`` of them."""
        size = self.stop - self.start
        with self.file.open() as content:
            content.seek(self.start)
            return content.read(size if most is None else min(size, most))


def sampled(spans: list[Span], dialect: Dialect) -> Iterator[tuple[Span, bytes]]:
    """Yield some rows of some of the spans, spread over all of them."""
    for number in range(min(SPREAD_SAMPLES, len(spans))):
        span = spans[number * len(spans) // min(SPREAD_SAMPLES, len(spans))]
        data = span.read(SPREAD_BYTES)
        if len(data) < span.stop - span.start:
            cut = next(scanned_row_starts(data, 0, len(data) // 2, dialect.delimiter), None)
            if cut is None:
                continue  # a row longer than the sample
            data = data[:cut]
        yield span, data


class Types:
    """Types of all columns, as far as the samples tell.

    Parameters
    ----------
    names : sequence of str
        Names of all columns.
    given : mapping
        Types that were given: nothing is inferred of these columns.
    """

    def __init__(self, dialect: Dialect, names: tuple[str, ...], given: Mapping[str, Any]) -> None:
        self._dialect = dialect
        self._names = names
        self._given = given
        self._found: dict[str, Any] = {}
        self._rows = 0

    def look_at(self, file: File, start: int, data: bytes) -> None:
        """Widen the types so that they hold the values in ``data``, rows at ``start`` of a file."""
        table = parsed(file, start, data, self._dialect, self._names, None)
        self._rows += table.num_rows
        for field in table.schema:
            if field.name in self._given:
                continue
            kind = self._checked(file, start, data, field, table.column(field.name))
            before = self._found.get(field.name)
            self._found[field.name] = kind if before is None else _wider(before, kind)

    def fill(self, rest: Iterable[Span]) -> None:
        """Look for values of the columns that have had none so far, until each has a value."""
        for span in rest:
            empty = self._empty()
            if not empty:
                return
            data = span.read()
            if not data.strip(b"\r\n"):
                continue
            table = parsed(span.file, span.start, data, self._dialect, self._names, None, empty)
            if any(table[name].null_count < table.num_rows for name in empty):
                self.look_at(span.file, span.start, data)

    def schema(self) -> Any:
        """Return the schema of all columns. A column without any value is float64, as in pandas,
        unless there are no rows either."""
        import pyarrow as pa

        nothing = pa.float64() if self._rows else pa.string()
        found = dict.fromkeys(self._names, nothing) | self._found
        found |= dict.fromkeys(self._empty(), nothing) | dict(self._given)
        return pa.schema([pa.field(name, found[name]) for name in self._names])

    def _empty(self) -> list[str]:
        import pyarrow as pa

        return [name for name, kind in self._found.items() if pa.types.is_null(kind)]

    def _checked(self, file: File, start: int, data: bytes, field: Any, column: Any) -> Any:
        """Return the type of a column in one sample, or another type that keeps its values."""
        import pyarrow as pa

        if pa.types.is_binary(field.type):
            raise SourceError(
                f"column {field.name!r} of {file.path} is not valid UTF-8; convert the file, pass "
                f"its encoding=, or column_types={{{field.name!r}: 'binary'}}"
            )
        if pa.types.is_integer(field.type) and has_hexadecimal(data):
            texts = self._texts(file, start, data, field.name)
            return pa.string() if any(map(is_hexadecimal, texts)) else field.type
        if not pa.types.is_floating(field.type):
            return field.type
        values = column.drop_null().to_numpy()
        if (values != np.floor(values)).any():
            return field.type  # one of them is written as no integer
        texts = self._texts(file, start, data, field.name)
        nulls = frozenset(self._dialect.nulls)
        numbers = [text for text in texts if text not in nulls]
        if not all(map(_INTEGER.fullmatch, numbers)):
            return field.type
        values = list(map(int, numbers))
        if min(values) >= 0 and max(values) < 1 << 64 and not any("+" in text for text in numbers):
            return pa.uint64()
        largest = max(values, key=abs)
        if abs(largest) <= _EXACT_IN_DOUBLE:
            return field.type
        header = 1 if start == 0 and self._dialect.has_header else 0
        row = header + texts.index(numbers[values.index(largest)])
        raise SourceError(
            f"{file.path}, line {line_of_row(file, start, data, row, self._dialect)}: column "
            f"{field.name!r} has the integer {largest}, and 64 bits do not hold all its integers; "
            f"pass column_types={{{field.name!r}: ...}} with 'string', 'float64' or "
            "pyarrow.decimal128(38)"
        )

    def _texts(self, file: File, start: int, data: bytes, name: str) -> list[str]:
        """Return the cells of a column as they are written."""
        import pyarrow as pa

        types = {name: pa.string()}
        column = parsed(file, start, data, self._dialect, self._names, types).column(name)
        return ["" if text is None else text.strip(" \t") for text in column.to_pylist()]


def has_hexadecimal(data: bytes) -> bool:
    """Whether there may be a number such as ``0x10`` somewhere."""
    # (A search for two bytes that begin with a digit takes as long as reading the numbers. One byte
    # that is rare is found at memory speed, and NumPy looks at pairs in blocks that fit the cache.)
    if b"x" not in data and b"X" not in data:
        return False
    content = np.frombuffer(data, np.uint8)
    for low in range(0, len(content) - 1, _BLOCK_BYTES):
        block = content[low : low + _BLOCK_BYTES + 1]
        if ((block[:-1] == ord("0")) & ((block[1:] | 0x20) == ord("x"))).any():
            return True
    return False


def is_hexadecimal(text: str) -> bool:
    """Whether pyarrow reads a text as a number in base 16, which pandas does not."""
    return text.strip(" \t").lower().removeprefix("-").startswith("0x")


def refuse_hexadecimal(
    file: File,
    start: int,
    data: bytes,
    dialect: Dialect,
    names: Sequence[str],
    types: Mapping[str, Any],
) -> None:
    """Raise SourceError if a column taken for integers has a number in base 16: pyarrow reads it,
    but the sample had none, and pandas takes such a column for strings."""
    import pyarrow as pa

    texts = {name: pa.string() for name, kind in types.items() if pa.types.is_integer(kind)}
    if not texts:
        return
    table = parsed(file, start, data, dialect, names, texts)
    for name in texts:
        for row, text in enumerate(table.column(name).to_pylist()):
            if text is not None and is_hexadecimal(text):
                row += 1 if start == 0 and dialect.has_header else 0
                raise SourceError(
                    f"{file.path}, line {line_of_row(file, start, data, row, dialect)}: column "
                    f"{name!r} was taken for {types[name]} and has {text!r}; pass "
                    f"column_types={{{name!r}: 'string'}}"
                )


def _wider(first: Any, second: Any) -> Any:
    """Return a type for the values of both."""
    import pyarrow as pa

    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    kinds = {first, second}
    if pa.float64() in kinds and kinds & {pa.int64(), pa.uint64()}:
        return pa.float64()
    if kinds == {pa.date32(), pa.timestamp("s")}:
        return pa.timestamp("s")
    if pa.timestamp("ns") in kinds and kinds <= {
        pa.date32(),
        pa.timestamp("s"),
        pa.timestamp("ns"),
    }:
        return pa.timestamp("ns")
    if kinds == {pa.int64(), pa.uint64()}:
        return pa.uint64()  # a negative value among them does not fit, and is named then
    return pa.string()
