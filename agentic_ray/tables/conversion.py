"""Tables of other kinds as pyarrow's, and parts as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from agentic_ray.errors import InvalidTypeError


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate parts; a column of nulls alone takes its type from the others.

    Raises
    ------
    InvalidTypeError
        Parts have other columns or types.
    """
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidTypeError(f"the function gave parts of other types: {error}") from error


def as_arrow(data: Any) -> pa.Table:
    """Return a table of any kind as pyarrow's.

    Raises
    ------
    InvalidTypeError
        It is no table.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        return pa.table(dict(data))
    if type(data).__module__.startswith("pandas.") and hasattr(data, "columns"):
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    raise InvalidTypeError(f"{type(data).__name__} is no table")
