"""Columns brought to the types that pyarrow's kernels take, and floats that are equal made so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidTypeError


def plain(column: Any) -> Any:
    """Return a column in a type that kernels take: dictionaries decoded, views as strings, half
    floats as float32.

    (Parts have dictionaries of their own, which number the same values otherwise.)
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return plain(pa.chunked_array(storage, kind.storage_type))
    if kind == pa.string_view():
        return column.cast(pa.large_string())
    if kind == pa.binary_view():
        return column.cast(pa.large_binary())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    return column


def whole(column: Any) -> Any:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def takeable(table: pa.Table) -> pa.Table:
    """Return a table whose rows can be taken by their numbers: views of text, which pyarrow cannot
    take from, become text."""
    for at, entry in enumerate(table.schema):
        if entry.type in (pa.string_view(), pa.binary_view()):
            table = table.set_column(at, entry.name, plain(table.column(at)))
    return table


def normalised_keys(columns: Sequence[Any], rows: int) -> list[Any]:
    """Return columns to group by: every NaN the same, -0.0 as 0.0. Without any, one constant.

    Raises
    ------
    InvalidTypeError
        A column is of lists, structs or maps.
    """
    found = []
    for column in columns:
        value = plain(column)
        if pa.types.is_nested(value.type):
            raise InvalidTypeError(f"a column of type {value.type} cannot be grouped by")
        if pa.types.is_floating(value.type):
            zero, nan = pa.scalar(0.0, value.type), pa.scalar(float("nan"), value.type)
            value = pc.if_else(pc.is_nan(value), nan, pc.add(value, zero))
        elif pa.types.is_null(value.type):
            # (Of another part it may be anything: concatenation promotes null.)
            value = value.cast(pa.null())
        found.append(value)
    return found or [pa.repeat(pa.scalar(0, pa.int8()), rows)]


def table_of(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Return a table of columns; one without columns keeps the number of rows by a constant."""
    if columns:
        return pa.table(dict(columns))
    return pa.table({"": pa.nulls(rows)})
