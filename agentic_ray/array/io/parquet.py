"""Numeric columns of Parquet files through pyarrow, read by row groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.core.views import squeezed
from agentic_ray.array.io.files import PathLike, Place, Stamp, places_of
from agentic_ray.array.io.reading import Region, opened
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Columns of files with equal columns, their rows one file after the other.

    ``groups``: for each file the number of rows in each row group.
    """

    stamps: tuple[Stamp, ...]
    columns: tuple[str, ...]
    dtype: DType
    groups: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return self.stamps[0].place.path

    @property
    def shape(self) -> Shape:
        return (sum(map(sum, self.groups)), len(self.columns))

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        return tuple([n for file in self.groups for n in file]) or (0,), ()

    def read(self, region: Region) -> NDArray:
        rows, picked = region
        columns = self.columns[picked]
        out = np.empty((max(0, rows.stop - rows.start), len(columns)), self.dtype)
        begin = 0
        for stamp, groups in zip(self.stamps, self.groups, strict=True):
            starts = grids.offsets(groups)
            low, high = max(rows.start - begin, 0), min(rows.stop - begin, starts[-1])
            if low < high:
                wanted = [i for i in range(len(groups)) if starts[i] < high and starts[i + 1] > low]
                skip = low - starts[wanted[0]]
                to = low + begin - rows.start
                for at, values in enumerate(self._group(stamp, wanted, columns)):
                    out[to : to + high - low, at] = values[skip : skip + high - low]
            begin += starts[-1]
        return out[:: rows.step]

    def _group(self, stamp: Stamp, groups: list[int], columns: tuple[str, ...]) -> list[NDArray]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        place = stamp.check()
        try:
            with place.open() as file:
                table = pq.ParquetFile(file).read_row_groups(
                    groups, columns=list(columns), use_threads=False
                )
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{place.path}: row groups {groups} unreadable: {error}") from error
        result: list[NDArray] = []
        for name in columns:
            column = table.column(name)
            if column.null_count and self.dtype.kind not in "fc":
                raise SourceError(
                    f"{place.path}: column {name!r} has {column.null_count} nulls, which the "
                    f"file's statistics do not say; {self.dtype} has no value for them"
                )
            if column.null_count and not pa.types.is_floating(column.type):
                column = column.cast(pa.float64(), safe=False)
            result.append(np.asarray(column.to_numpy()))
        return result


def from_parquet(
    path: PathLike | Sequence[PathLike],
    columns: Sequence[str] | str | None = None,
    *,
    separate: bool = False,
    chunks: Any = "auto",
    device: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Numeric columns of Parquet files as lazy arrays.

    Only the columns and row groups that are needed are read. A null becomes NaN, so that a
    column of integers or booleans with nulls counts as float64.

    Parameters
    ----------
    path : path, URL or sequence of these
        Rows of several files follow each other.
    columns : sequence of str or str, optional
        Default: all columns. One name alone gives an array of one axis.
    separate : bool
        Give a dict with an array of one axis for each column, in its own dtype, instead of one
        array of rows and columns in the dtype that all promote to.
    chunks
        As in `asarray`; by default made up of whole row groups.

    Returns
    -------
    Array or dict of str to Array

    Raises
    ------
    FileNotFoundError
        There is no such file.
    SourceError
        (a ValueError) A file is truncated, not Parquet, or its columns differ.
    KeyError
        A column does not exist; the message names those that do.
    InvalidTypeError
        A column does not hold numbers or booleans.
    """
    opened_files = [_opened(place) for place in places_of(path, storage_options)]
    stamps = tuple([stamp for stamp, _ in opened_files])
    first = opened_files[0][1].schema_arrow
    names = list(first.names) if columns is None else columns
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise InvalidArgumentError(f"{stamps[0].place.path}: no columns were asked for")
    dtypes = {name: _dtype(opened_files, name) for name in names}
    groups = tuple(
        [
            tuple([meta.row_group(i).num_rows for i in range(meta.num_row_groups)]) or (0,)
            for _, meta in ((stamp, file.metadata) for stamp, file in opened_files)
        ]
    )

    def array(chosen: list[str], dtype: DType, cut: Any) -> Array:
        return opened(ParquetSource(stamps, tuple(chosen), dtype, groups), cut, device)

    def vector(name: str) -> Array:
        cut = chunks if isinstance(chunks, str) else (_rows(chunks), -1)
        return Array(squeezed(array([name], dtypes[name], cut)._node, (1,)))

    if separate:
        return {name: vector(name) for name in names}
    if isinstance(columns, str):
        return vector(columns)
    return array(names, np.result_type(*dtypes.values()), chunks)


def _rows(chunks: Any) -> Any:
    """The entry for rows of what a user wrote as chunks of a vector."""
    return chunks[0] if isinstance(chunks, tuple | list) and len(chunks) == 1 else chunks


def _opened(place: Place) -> tuple[Stamp, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamp = place.stamp()
    try:
        with place.open() as file:
            return stamp, pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"{place.path}, of {stamp.size} bytes, is not a whole Parquet file: {error}"
        ) from error


def _dtype(files: Sequence[tuple[Stamp, Any]], name: str) -> DType:
    """The dtype that holds this column of all files."""
    import pyarrow as pa

    found: list[DType] = []
    for stamp, file in files:
        schema = file.schema_arrow
        if name not in schema.names:
            known = ", ".join(schema.names[:10])
            raise KeyError(f"{stamp.place.path} has no column {name!r}; it has: {known}")
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise InvalidTypeError(
                f"{stamp.place.path}: column {name!r} holds {kind}, not numbers or booleans"
            )
        dtype = np.dtype(kind.to_pandas_dtype())
        found.append(np.dtype(np.float64) if dtype.kind in "biu" and _nulls(file, name) else dtype)
    if len(set(found)) > 1 and any(dtype.kind == "b" for dtype in found):
        raise SourceError(f"column {name!r} is of several kinds: {', '.join(map(str, found))}")
    return np.result_type(*found)


def _nulls(file: Any, name: str) -> bool:
    """Whether the statistics of any row group count nulls in this column."""
    meta = file.metadata
    at = next((i for i in range(meta.num_columns) if meta.schema.column(i).path == name), None)
    if at is None:
        return False
    for group in range(meta.num_row_groups):
        statistics = meta.row_group(group).column(at).statistics
        if statistics is not None and statistics.has_null_count and statistics.null_count:
            return True
    return False
