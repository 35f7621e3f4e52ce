"""Parquet files as tables by row groups; sizes come from the files' own metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentic_ray.errors import InvalidArgumentError, SourceError
from agentic_ray.sources._base import Part, checked_columns
from agentic_ray.sources._files import File, Paths, find_files

SUFFIXES = (".parquet", ".pq")

# Row groups are read together until they have this many bytes. This is a constant, so that the
# parts depend on the files alone.
_PART_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Parquet:
    """A `Source` of tables; made by `parquet`."""

    files: tuple[File, ...]
    columns: tuple[str, ...] | None

    def parts(self) -> list[Part]:
        """Return runs of row groups of every file in order, with their rows and uncompressed bytes.

        Raises
        ------
        SourceError
            A file is damaged, or two files have different columns.
        InvalidArgumentError
            ``columns`` names a column that the files do not have.
        """
        parts: list[Part] = []
        schema: Any = None
        for file in self.files:
            with _opened(file) as opened:
                own = self._selected(file, opened.schema_arrow)
                schema = own if schema is None else schema
                if own != schema:
                    raise SourceError(
                        f"{file.path} has other columns or types than {self.files[0].path}: "
                        f"{_difference(own, schema)}"
                    )
                parts += self._parts_of(file, opened.metadata)
        if not parts:  # no rows at all: one empty table, which has the columns
            parts.append(self._part(self.files[0], 0, 0, 0, 0))
        return parts

    def _parts_of(self, file: File, metadata: Any) -> Iterator[Part]:
        first = rows = size = 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            size += _bytes_of(metadata.row_group(group), self.columns)
            if size >= _PART_BYTES or group == metadata.num_row_groups - 1:
                yield self._part(file, first, group + 1, rows, size)
                first, rows, size = group + 1, 0, 0

    def _part(self, file: File, first: int, end: int, rows: int, size: int) -> Part:
        return Part(
            label=f"{file.name}[row groups {first}:{end}]",
            bytes=size,
            items=rows,
            unit="block",
            read=RowGroups(file, first, end, self.columns),
        )

    def _selected(self, file: File, schema: Any) -> Any:
        import pyarrow as pa

        schema = schema.remove_metadata()
        if self.columns is None:
            return schema
        unknown = [name for name in self.columns if name not in schema.names]
        if unknown:
            raise InvalidArgumentError(
                f"{file.path} has no column {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(schema.names)}"
            )
        return pa.schema([schema.field(name) for name in self.columns])


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Reader of row groups ``first..end`` of a file as one table."""

    file: File
    first: int
    end: int
    columns: tuple[str, ...] | None

    def __call__(self) -> Any:
        """Read the rows as a ``pyarrow.Table``, columns in the order wanted."""
        with _opened(self.file) as opened:
            table = opened.read_row_groups(
                list(range(self.first, self.end)),
                columns=None if self.columns is None else list(self.columns),
                use_threads=False,  # the executor's own threads are the parallelism
            )
        return table if self.columns is None else table.select(list(self.columns))


def _difference(own: Any, first: Any) -> str:
    """Say how the schema of a file differs from the first one's."""
    missing = [name for name in first.names if name not in own.names]
    more = [name for name in own.names if name not in first.names]
    said = [f"it lacks {name!r}" for name in missing] + [
        f"it has {name!r} as well" for name in more
    ]
    said += [
        f"{field.name!r} is {field.type} instead of {first.field(field.name).type}"
        for field in own
        if field.name in first.names and field.type != first.field(field.name).type
    ]
    return ", ".join(said or ["the same columns in another order, or null where the first is not"])


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    """Open the file as a ``pyarrow.parquet.ParquetFile``; damage is a `SourceError` naming it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = file.local_path()
    try:
        with pq.ParquetFile(path) as opened:
            yield opened
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise SourceError(f"{file.path} cannot be read as Parquet: {error}") from error


def _bytes_of(group: Any, columns: tuple[str, ...] | None) -> int:
    """Sum the uncompressed bytes of the columns wanted (a nested column is several in the file)."""
    if columns is None:
        return int(group.total_byte_size)
    chunks = map(group.column, range(group.num_columns))
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] in columns
    )


def parquet(path: Paths, *, columns: Sequence[str] | None = None) -> Parquet:
    """Read Parquet files as tables, by row groups where they are used.

    A map function is called once per part, with a ``pyarrow.Table``. A part is one row group, or
    several of one file while they have less than 32 MiB together.

    Parameters
    ----------
    path : path or sequence of paths
        Files, directories (every ``.parquet`` and ``.pq`` file in them at any depth; names of
        directories such as ``year=2013`` do not become columns), or patterns. On a cluster they
        must be at the same path on every node.
    columns : sequence of str, optional
        Columns to read, in this order; all by default.

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory has no Parquet file, a pattern matches nothing.
    InvalidArgumentError, InvalidTypeError
        ``columns`` cannot be used; unknown names when the parts are made.
    SourceError
        When the parts are made or read: a file is damaged, changed, or unlike the first one.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "prices.parquet"
    >>> pq.write_table(pa.table({"price": [3, 4]}), file)
    >>> ar.map_reduce(lambda table: sum(table["price"].to_pylist()), ar.sources.parquet(file))
    [7]
    """
    return Parquet(
        tuple(File.of(found) for found in find_files(path, SUFFIXES)),
        checked_columns(columns),
    )
