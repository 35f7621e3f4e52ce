"""Tables and columns of other libraries as sequences that can be cut and sent.

Iterating a table gives the names of its columns (pandas), or the columns (Arrow, polars); nobody
wants to map over those, so here it gives rows. None of these libraries is imported: data of a
library can only be there if its module is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError


class Rows:
    """Rows of a table; each is a dict of plain values by column.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
    """

    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def nbytes(self) -> int:
        if _is(self.table, "pandas", "DataFrame"):
            return int(self.table.memory_usage().sum())
        if _is(self.table, "polars", "DataFrame"):
            return int(self.table.estimated_size())
        return int(self.table.nbytes)

    def __len__(self) -> int:
        return int(self.table.shape[0])

    def __getitem__(self, rows: slice) -> Rows:
        start, stop, _ = rows.indices(len(self))
        if _is(self.table, "pandas", "DataFrame"):
            return Rows(self.table.iloc[start:stop])
        return Rows(self.table.slice(start, max(0, stop - start)))

    def __iter__(self) -> Iterator[dict[Any, Any]]:
        table = self.table
        if _is(table, "polars", "DataFrame"):
            yield from table.iter_rows(named=True)
        elif _is(table, "pandas", "DataFrame"):
            names = list(table.columns)
            columns = [table.iloc[:, place] for place in range(len(names))]
            if not names:
                yield from ({} for _ in range(len(table)))
            for row in zip(*columns, strict=True):
                yield dict(zip(names, row, strict=True))
        else:
            yield from table.to_pylist()

    def __reduce__(self) -> Any:
        if _is(self.table, "pyarrow", "Table", "RecordBatch"):
            return _from_ipc, (_to_ipc(self.table),)
        return Rows, (self.table,)


def _to_ipc(table: Any) -> bytes:
    """Write a table as Arrow's own stream: pickling a slice would send the whole table."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def _from_ipc(stream: bytes) -> Rows:
    import pyarrow as pa

    return Rows(pa.ipc.open_stream(stream).read_all())


class Column:
    """Values of a Series, an Index or an Arrow array, one by one, as plain values.

    Parameters
    ----------
    values : pandas.Series, pandas.Index, polars.Series, pyarrow.Array or pyarrow.ChunkedArray
    """

    def __init__(self, values: Any) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Column:
        start, stop, _ = part.indices(len(self))
        if _is(self.values, "pandas", "Series"):
            return Column(self.values.iloc[start:stop])
        return Column(self.values[start:stop])

    def __iter__(self) -> Iterator[Any]:
        if _is(self.values, "pyarrow", "Array", "ChunkedArray"):
            return iter(self.values.to_pylist())
        return iter(self.values)

    def __reduce__(self) -> Any:
        if _is(self.values, "pyarrow", "Array", "ChunkedArray"):
            import pyarrow as pa

            return _column_from_ipc, (_to_ipc(pa.table({"values": self.values})),)
        return Column, (self.values,)

    def array(self) -> np.ndarray[Any, Any]:
        """Return the values as an array for a codelet.

        Raises
        ------
        InvalidTypeError
            The values are no numbers, or some are missing.
        """
        found = np.asarray(self.values)
        if found.dtype.hasobject:
            raise InvalidTypeError(
                f"a codelet takes blocks of arrays, and this {type(self.values).__name__} makes "
                "an array of objects; convert it first, or map a plain function over its values"
            )
        return found


def _column_from_ipc(stream: bytes) -> Column:
    return Column(_from_ipc(stream).table.column("values"))


def _is(data: Any, library: str, *names: str) -> bool:
    """Whether ``data`` is an instance of one of these classes, if the library is loaded."""
    module = sys.modules.get(library)
    kinds = tuple(kind for name in names if (kind := getattr(module, name, None)) is not None)
    return isinstance(data, kinds)


def sequence_of(data: Any) -> Rows | Column | None:
    """Return a table as its rows, a column as its values; None for anything else.

    Raises
    ------
    InvalidTypeError
        A table of a kind that cannot be cut into rows here; the message says what to do.
    InvalidArgumentError
        Two columns have the same name.
    """
    if (
        _is(data, "pandas", "DataFrame")
        or _is(data, "polars", "DataFrame")
        or _is(data, "pyarrow", "Table", "RecordBatch")
    ):
        names = data.schema.names if hasattr(data, "to_pylist") else list(data.columns)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InvalidArgumentError(
                f"a row is a dict by column, and the table has several columns named "
                f"{', '.join(map(repr, twice))}; rename them"
            )
        return Rows(data)
    if (
        _is(data, "pandas", "Series", "Index")
        or _is(data, "polars", "Series")
        or _is(data, "pyarrow", "Array", "ChunkedArray")
    ):
        return Column(data)
    _refuse_other_tables(data)
    return None


def _refuse_other_tables(data: Any) -> None:
    name = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    advice = ""
    if _is(data, "polars", "LazyFrame"):
        advice = "it is not computed yet; call its collect()"
    elif _is(data, "xarray", "Dataset"):
        advice = (
            "iterating it gives the names of its variables; pass one of them, data['name'], to go "
            "along its first axis, or data.to_dataframe().reset_index() to go over rows"
        )
    elif not _is(data, "xarray", "DataArray") and (
        hasattr(data, "__dataframe__")
        or hasattr(data, "__arrow_c_stream__")
        or (hasattr(data, "columns") and hasattr(data, "dtypes"))
    ):
        advice = (
            "iterating a table gives its columns; make it a pyarrow.Table, a polars or a pandas "
            "DataFrame to go over its rows, or pass list(data) to go over what it iterates"
        )
    if advice:
        raise InvalidTypeError(f"cannot map over {name}: {advice}")
