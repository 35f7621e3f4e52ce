"""Functions that make a table of files, or of a table in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.sources._files import Paths
from agentic_ray.tables.conversion import as_arrow
from agentic_ray.tables.files import find_origins
from agentic_ray.tables.running import Held
from agentic_ray.tables.scans import SUFFIXES, Format, OnError, scan_of
from agentic_ray.tables.table import Memory, Table
from agentic_ray.tables.travel import packed

_PART_BYTES = 16 << 20


def col(name: str) -> Any:
    """Return the expression of a column's value, for `Table.filter`.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> prices = ar.tables.from_arrow({"price": [3, 4, 5]})
    >>> prices.filter(ar.tables.col("price") > 3).count()
    2
    """
    return pc.field(name)


def read_parquet(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
    schema: pa.Schema | None = None,
    on_error: OnError = "raise",
) -> Table:
    """Read Parquet files as a table, by row groups.

    Names of folders such as ``year=2013`` become columns. Their types are those of ``schema``, else
    those that `Table.write_parquet` has kept in its manifest, else int64 if all values are whole
    numbers, else text; ``__HIVE_DEFAULT_PARTITION__`` is null. Only the columns that are used are
    read, and only row groups whose statistics allow rows that pass the filter.

    Parameters
    ----------
    path : path, URL, or sequence of them
        Files, folders (searched to any depth) or patterns with ``*`` and ``**``. A URL such as
        ``s3://bucket/data/*.parquet`` is read by pyarrow's file systems, or by those of fsspec. On
        a cluster local files must be at the same path on every node.
    columns : sequence of str, optional
        As `Table.select`.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where ``path`` is.
    schema : pyarrow.Schema, optional
        Columns and types to which the files are fitted, and types of folders' names: absent columns
        are null, values are cast where that loses nothing. By default all files must have those of
        the first.
    on_error : {"raise", "skip"}
        What to do about a file or row group that cannot be read: raise `SourceError`, which names
        it, or leave it out, with a warning; `Table.report` lists what was left out.

    Raises
    ------
    FileNotFoundError
        A path does not exist, a pattern or a folder has no such file.
    SourceError
        Here or when a value is asked for: a file is damaged, unlike the first, or has changed.
    InvalidArgumentError, InvalidTypeError
        An argument cannot be used.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "sales"
    >>> sales = ar.tables.from_arrow({"shop": ["north", "south"], "price": [3, 4]})
    >>> _ = sales.write_parquet(folder, partition_by="shop")
    >>> south = ar.tables.read_parquet(folder).filter(ar.tables.col("shop") == "south")
    >>> south.to_arrow().to_pylist()
    [{'price': 4, 'shop': 'south'}]
    """
    return _table("parquet", path, columns, filesystem, schema, on_error)


def read_csv(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    filesystem: Any = None,
    schema: pa.Schema | None = None,
    on_error: OnError = "raise",
    null_values: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Table:
    """Read CSV files as a table, by ranges of whole rows; compressed files too.

    Types are found, and values are read, as by `agentic_ray.sources.csv`. Files of other file
    systems are read whole, by pyarrow, which finds the types in the beginning of the first.

    Parameters
    ----------
    path, columns, filesystem, on_error
        As for `read_parquet`.
    delimiter : str
        One ASCII character.
    schema : pyarrow.Schema, optional
        The columns of the files and their types; by default they are found.
    null_values, encoding
        As for `agentic_ray.sources.csv`; for local files.
    """
    options = {"delimiter": delimiter, "null_values": null_values, "encoding": encoding}
    return _table("csv", path, columns, filesystem, schema, on_error, options)


def read_json(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
    schema: pa.Schema | None = None,
    on_error: OnError = "raise",
) -> Table:
    """Read files of JSON lines (one object a line) as a table, by ranges of lines.

    Without ``schema`` the types are those of the first MiB of each file; a field, or a value, that
    does not fit further on is a `SourceError` with the line.

    Parameters
    ----------
    path, columns, filesystem, schema, on_error
        As for `read_parquet`. Fields that an object lacks are null.
    """
    return _table("json", path, columns, filesystem, schema, on_error)


def read_ipc(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
    on_error: OnError = "raise",
) -> Table:
    """Read files of Arrow's IPC format (Feather) as a table, by record batches.

    Parameters
    ----------
    path, columns, filesystem, on_error
        As for `read_parquet`.
    """
    return _table("ipc", path, columns, filesystem, None, on_error)


def read_orc(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    filesystem: Any = None,
    on_error: OnError = "raise",
) -> Table:
    """Read ORC files as a table, by stripes.

    Parameters
    ----------
    path, columns, filesystem, on_error
        As for `read_parquet`.
    """
    return _table("orc", path, columns, filesystem, None, on_error)


def read_text(path: Paths, *, encoding: str = "utf-8", on_error: OnError = "raise") -> Table:
    """Read local text files as a table of one column, ``line``; compressed files too.

    Parameters
    ----------
    path, encoding
        As for `agentic_ray.sources.text_lines`.
    on_error
        As for `read_parquet`.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "play.txt"
    >>> _ = file.write_text("to be or\\nnot to be\\n")
    >>> ar.tables.read_text(file).word_count().to_pylist()[:2]
    [{'word': 'to', 'count': 2}, {'word': 'be', 'count': 2}]
    """
    return _table("text", path, None, None, None, on_error, {"encoding": encoding})


def from_arrow(data: Any, *, part_rows: int | None = None) -> Table:
    """Make a table of one in memory, in parts.

    Parameters
    ----------
    data : pyarrow.Table, RecordBatch, frame of pandas or polars, or mapping of columns
        The index of a pandas frame is left out.
    part_rows : int, optional
        Rows of a part; by default about 16 MiB.

    Raises
    ------
    InvalidTypeError
        It is no table.
    """
    table = as_arrow(data)
    if part_rows is None:
        part_rows = max(1, int(_PART_BYTES * max(table.num_rows, 1) / max(table.nbytes, 1)))
    elif part_rows < 1:
        raise InvalidArgumentError(f"part_rows must be at least 1, not {part_rows}")
    starts = range(0, max(table.num_rows, 1), part_rows)
    slices = [packed(table.slice(start, part_rows)) for start in starts]
    parts = tuple(
        Held(i, min(part_rows, table.num_rows - start), len(part), f"rows from {start}")
        for i, (start, part) in enumerate(zip(starts, slices, strict=True))
    )
    return Table(Memory(parts, table.schema), held=tuple(slices))


def _table(
    format: Format,
    path: Paths,
    columns: Sequence[str] | None,
    filesystem: Any,
    schema: pa.Schema | None,
    on_error: OnError,
    options: Mapping[str, Any] | None = None,
) -> Table:
    if schema is not None and not isinstance(schema, pa.Schema):
        raise InvalidTypeError(f"schema must be a pyarrow.Schema, not {type(schema).__name__}")
    if isinstance(columns, str):
        raise InvalidTypeError(f"columns must be a sequence of str, not the str {columns!r}")
    origins = find_origins(path, SUFFIXES[format], filesystem)
    given = dict(options or {})
    scan = scan_of(format, origins, schema=schema, on_error=on_error, options=given)
    table = Table(scan)
    return table if columns is None else table.select(*columns)
