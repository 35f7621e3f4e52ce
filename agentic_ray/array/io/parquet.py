"""Numeric columns of Parquet files through pyarrow: read by row groups, written by chunks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray
from agentic_ray.array.core.views import squeezed
from agentic_ray.array.io.files import PathLike, Place, Stamp, places_of, replacing
from agentic_ray.array.io.reading import Region, opened
from agentic_ray.array.io.writing import written
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
            if column.null_count and self.dtype.kind not in "fcmM":
                raise SourceError(
                    f"{place.path}: column {name!r} has {column.null_count} nulls, which the "
                    f"file's statistics do not say; {self.dtype} has no value for them"
                )
            if column.null_count and self.dtype.kind == "f":
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
    """Return numeric columns of Parquet files as lazy arrays.

    Only the needed columns and row groups are read. A null becomes NaN, so that a column of
    integers or booleans with nulls counts as float64.

    Parameters
    ----------
    path : path, URL, pattern, directory or sequence of these
        Files; rows of several files follow each other, those of a pattern or directory in the order
        of their names.
    columns : sequence of str or str, optional
        Names of columns; default: all. One name alone gives an array of one axis.
    separate : bool
        Whether to return a dict with an array of one axis for each column, in its own dtype,
        instead of one array of rows and columns in the dtype that all promote to.
    chunks
        Chunks as in `asarray`; by default made up of whole row groups.

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
        A column does not exist; the message names the existing ones.
    InvalidTypeError
        A column does not hold numbers, booleans, dates or times.

    Examples
    --------
    >>> import agentic_ray.array as xp, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "points.parquet")
    >>> xp.to_parquet(path, xp.asarray([[1.0, 2.0], [3.0, 4.0]]), columns=["x", "y"])
    >>> xp.from_parquet(path, columns=["y"]).compute()
    array([[2.],
           [4.]])
    """
    places = places_of(path, storage_options, suffix=".parquet")
    opened_files = [_opened(place) for place in places]
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
    """Return the chunks of rows that a user gave as chunks of a vector."""
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
    """Return the dtype that holds this column of all files."""
    import pyarrow as pa

    found: list[DType] = []
    for stamp, file in files:
        schema = file.schema_arrow
        if name not in schema.names:
            known = ", ".join(schema.names[:10])
            raise KeyError(f"{stamp.place.path} has no column {name!r}; it has: {known}")
        kind = schema.field(name).type
        plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()
        dated = pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind)
        if not plain and not (dated and getattr(kind, "tz", None) is None):
            raise InvalidTypeError(
                f"{stamp.place.path}: column {name!r} holds {kind}, not numbers, booleans or "
                "times without a zone"
            )
        dtype = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
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


# --- writing -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PartsTarget:
    """A directory that gets one file for each chunk of rows.

    ``starts`` are the rows at which chunks begin; ``schema`` and ``options`` are pyarrow's
    arguments, pickled once.
    """

    folder: str
    columns: tuple[str, ...]
    starts: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]
    serial: bool = False

    def __str__(self) -> str:
        return self.folder

    def write(self, region: Region, /, *blocks: NDArray) -> None:
        import pyarrow.parquet as pq

        number = self.starts.index(region[0].start)
        table = _table(dict(zip(self.columns, blocks, strict=True)))
        path = os.path.join(self.folder, f"part-{number:05}.parquet")
        pq.write_table(table, path, **dict(self.options))


def _table(columns: Mapping[str, NDArray]) -> Any:
    import pyarrow as pa

    return pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})


def to_parquet(
    path: PathLike,
    x: Any,
    /,
    columns: Sequence[str] | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write the columns of an array, or several arrays, as Parquet; the file appears when all of it
    is written.

    A path that ends in ``.parquet`` or ``.pq`` becomes one file: chunk after chunk comes to the
    caller and makes a row group. Any other path becomes a directory with a file for each chunk of
    rows, written in parallel by the tasks that compute them (on several nodes: to a shared file
    system).

    Parameters
    ----------
    path : path or URL
        File or directory; a URL must be that of one file.
    x : array_like or dict of str to array_like
        A matrix, whose columns are written; a vector, which is one column; or vectors by name, each
        in its own dtype.
    columns : sequence of str, optional
        Names of the columns of an array; default: ``c0``, ``c1``, ...
    storage_options : dict, optional
        Options of the URL's fsspec file system.
    **options
        Further arguments of ``pyarrow.parquet.write_table``, such as ``compression``.

    Raises
    ------
    InvalidArgumentError
        Columns differ in length, names do not fit them, or a URL is that of a directory.
    InvalidTypeError
        Parquet has no such numbers (complex ones).
    OSError
        Writing failed, and the old data are still there.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "points.parquet")
    >>> xp.to_parquet(path, xp.asarray([[1.0, 2.0], [3.0, 4.0]]), columns=["x", "y"])
    >>> xp.from_parquet(path).compute()
    array([[1., 2.],
           [3., 4.]])
    """
    import pyarrow.parquet as pq

    place = Place.of(path, storage_options)
    vectors = _vectors(x, columns)
    starts = grids.offsets(next(iter(vectors.values())).chunks[0])
    is_file = place.path.endswith((".parquet", ".pq"))
    if place.is_url and not is_file:
        raise InvalidArgumentError(f"{place.path}: a URL must name one file, ending in .parquet")
    with replacing(place) as staged:
        if not is_file:
            os.mkdir(staged.path)
            target = _PartsTarget(
                staged.path, tuple(vectors), tuple(starts[:-1]), tuple(options.items())
            )
            written(target, *vectors.values())
            return
        schema = _table({name: np.empty(0, v.dtype) for name, v in vectors.items()}).schema
        with staged.create() as file, pq.ParquetWriter(file, schema, **options) as writer:
            for low, high in itertools.pairwise(starts):
                parts = [vector[low:high]._node for vector in vectors.values()]
                found = dict(zip(vectors, evaluate.values(parts), strict=True))
                writer.write_table(_table(found))


def _vectors(x: Any, columns: Sequence[str] | None) -> dict[str, Array]:
    """Return the columns to write, by name, in the same chunks."""
    if isinstance(x, Mapping):
        if columns is not None:
            raise InvalidArgumentError("columns: vectors by name have their names already")
        found = {str(name): Array(strict_operand(value)) for name, value in x.items()}
    else:
        array = Array(strict_operand(x))
        if array.ndim not in (1, 2):
            raise InvalidArgumentError(f"a table needs 1 or 2 axes, not {array.ndim}")
        parts = [array] if array.ndim == 1 else [array[:, i] for i in range(array.shape[1])]
        names = [f"c{i}" for i in range(len(parts))] if columns is None else list(columns)
        if len(names) != len(parts) or len(set(names)) != len(names):
            raise InvalidArgumentError(
                f"{len(parts)} columns need as many different names: {names}"
            )
        found = dict(zip(names, parts, strict=True))
    if not found or any(v.ndim != 1 or v.shape != next(iter(found.values())).shape
                        for v in found.values()):  # fmt: skip
        raise InvalidArgumentError("columns must be vectors of one length, at least one")
    for name, vector in found.items():
        if vector.dtype.kind not in "biufmM":
            raise InvalidTypeError(f"column {name!r}: Parquet has no {vector.dtype}")
    cuts = [(vector.shape, vector.chunks, vector.nbytes) for vector in found.values()]
    rows = grids.unify(cuts[0][0], cuts)
    return {name: vector.rechunk(rows) for name, vector in found.items()}
