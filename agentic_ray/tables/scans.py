"""Plans how files are read as parts of one table: which pieces, with which columns and types.

The pieces depend on the files alone. Damaged files are an error, or are counted and listed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.ipc as ipc
import pyarrow.orc as paorc

from agentic_ray.errors import InvalidArgumentError, SourceError, StorageError
from agentic_ray.sources import csv as csv_source
from agentic_ray.sources import text_lines
from agentic_ray.sources._csv import CsvRange
from agentic_ray.sources._text import LineRange
from agentic_ray.tables.files import Origin
from agentic_ray.tables.partitions import partition_values
from agentic_ray.tables.pieces import (
    UNREADABLE,
    Batches,
    CsvFile,
    CsvRows,
    JsonFile,
    JsonRows,
    NoRows,
    Pack,
    Piece,
    RowGroups,
    Stripes,
    TextRows,
    Whole,
    packs,
    parquet_format,
    parsed_json,
)
from agentic_ray.tables.stores import reaching

OnError = Literal["raise", "skip"]
Format = Literal["parquet", "csv", "json", "ipc", "orc", "text"]

_LARGEST_PART_BYTES = 32 << 20
_SMALLEST_PART_BYTES = 1 << 20
_PARTS_WANTED = 64
_SAMPLE_BYTES = 1 << 20
_PACKED = (".gz", ".zip", ".bz2", ".zst", ".lz4", ".br", ".snappy")

SUFFIXES: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz", ".csv.zip", ".tsv", ".tsv.gz", ".tsv.zip"),
    "json": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "ipc": (".arrow", ".feather", ".ipc", ".arrows"),
    "orc": (".orc",),
    "text": (),
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be read and was left out: the file, the place in it ("" for all
    of it), and the error."""

    path: str
    where: str
    error: str


@dataclass(frozen=True, slots=True)
class Planned:
    """Pieces to read, and what was left out already: ``pruned`` pieces of ``total`` cannot have
    rows that pass the filter."""

    pieces: tuple[Piece | Pack, ...]
    skipped: tuple[Skipped, ...]
    pruned: int

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Scan:
    """Files that are read as one table.

    Parameters
    ----------
    format : str
    origins : tuple of Origin
    schema : pyarrow.Schema
        Columns of the files, then those that names of folders stand for.
    partitions : tuple
        For each file the expression of its folders' values, or None.
    on_error : {"raise", "skip"}
    given : bool
        Whether the caller gave the schema, to which files are fitted.
    skipped : tuple of Skipped
        Files of which not even the schema could be read.
    options : tuple
        Options of the format, as pairs.
    """

    format: Format
    origins: tuple[Origin, ...]
    schema: pa.Schema
    partitions: tuple[Any, ...]
    on_error: OnError
    given: bool
    skipped: tuple[Skipped, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        first = self.origins[0].path.rpartition("/")[2] if self.origins else "no file"
        more = f" and {len(self.origins) - 1} more" if len(self.origins) > 1 else ""
        return f"{self.format} {first}{more}"

    def plan(self, columns: Sequence[str] | None, filter: Any) -> Planned:
        """Return the pieces that may have rows that pass ``filter``.

        Raises
        ------
        SourceError
            A file is damaged or unlike the others, and ``on_error`` is "raise".
        """
        kept = self._kept(filter)
        pieces: list[Piece] = []
        skipped = list(self.skipped)
        pruned = len(self.origins) - len(kept)
        if self.format == "parquet":
            files: list[_RowGroupsOf] = []
            for origin, partition in kept:
                with self._skipping(origin, skipped):
                    files.append(self._row_groups(origin, partition, columns, filter))
            most = part_bytes(sum(file.size for file in files))
            for file in files:
                pieces += file.pieces(most, self.schema)
                pruned += file.pruned
        else:
            most = part_bytes(sum(origin.size for origin, _ in kept))
            for origin, partition in kept:
                with self._skipping(origin, skipped):
                    pieces += self._pieces(origin, partition, most)
        if not pieces:
            pieces.append(Piece("", "no rows", 0, 0, NoRows(self.schema)))
        return Planned(packs(pieces, most), tuple(skipped), pruned)

    @contextlib.contextmanager
    def _skipping(self, origin: Origin, skipped: list[Skipped]) -> Iterator[None]:
        """Turn errors about a file into one that names it, or into an entry of ``skipped``."""
        try:
            with reaching(origin.filesystem, origin.path):
                yield
        except StorageError:
            raise
        except (SourceError, FileNotFoundError, *UNREADABLE) as error:
            problem = (
                error
                if isinstance(error, SourceError | FileNotFoundError)
                else _damaged(origin, self.format, error)
            )
            if self.on_error == "raise":
                raise problem from error
            skipped.append(Skipped(origin.path, "", str(problem)))

    def _kept(self, filter: Any) -> list[tuple[Origin, Any]]:
        """Return the files whose folders' names do not exclude the filter."""
        both = list(zip(self.origins, self.partitions, strict=True))
        if filter is None or not any(partition is not None for partition in self.partitions):
            return both
        # pyarrow decides; it opens no file for that.
        dataset = ds.FileSystemDataset.from_paths(
            [str(i) for i in range(len(both))],
            schema=self.schema,
            format=ds.IpcFileFormat(),
            filesystem=self.origins[0].filesystem,
            partitions=list(self.partitions),
        )
        return [both[int(fragment.path)] for fragment in dataset.get_fragments(filter=filter)]

    def _pieces(self, origin: Origin, partition: Any, most: int) -> list[Piece]:
        make: dict[str, Callable[[Origin, int], Iterator[tuple[str, int, int | None, Any]]]] = {
            "csv": self._csv,
            "json": self._json,
            "ipc": self._ipc,
            "orc": self._orc,
            "text": self._text,
        }
        return [
            Piece(origin.path, where, size, rows, Whole(origin, inner, partition, self.schema))
            for where, size, rows, inner in make[self.format](origin, most)
        ]

    def _row_groups(
        self, origin: Origin, partition: Any, columns: Sequence[str] | None, filter: Any
    ) -> _RowGroupsOf:
        fragment = parquet_format().make_fragment(origin.path, origin.filesystem, partition)
        _check_schema(self, origin, fragment.physical_schema)
        metadata = fragment.metadata
        kept = [
            info.id
            for part in fragment.split_by_row_group(filter, schema=self.schema)
            for info in part.row_groups
        ]
        groups = [metadata.row_group(number) for number in kept]
        return _RowGroupsOf(
            origin,
            partition,
            tuple(
                (number, info.num_rows, _column_bytes(info, columns))
                for number, info in zip(kept, groups, strict=True)
            ),
            metadata.num_row_groups - len(kept),
        )

    def _csv(self, origin: Origin, most: int) -> Iterator[tuple[str, int, int | None, Any]]:
        if not origin.is_local:
            delimiter = dict(self.options)["delimiter"]
            schema = _in_file(self)
            yield "", origin.size, None, CsvFile(origin, delimiter, schema)
            return
        schema = _in_file(self)
        options = dict(self.options)
        types = {name: schema.field(name).type for name in schema.names}
        source = csv_source([origin.path], column_types=types, part_bytes=most, **options)
        for part in source.parts():
            read = part.read
            assert isinstance(read, CsvRange), "a CSV source has ranges"
            if tuple(read.schema.names) != tuple(schema.names):
                raise _differs(origin, read.schema, self)
            yield (
                f"bytes {read.span.start}:{read.span.stop}",
                part.bytes,
                None,
                CsvRows(read),
            )

    def _json(self, origin: Origin, most: int) -> Iterator[tuple[str, int, int | None, Any]]:
        if not origin.is_local or origin.path.lower().endswith(_PACKED):
            yield "", origin.size, None, JsonFile(origin, _in_file(self))
            return
        for read in _ranges(origin, "utf-8", most):
            where = f"bytes {read.start}:{read.stop}"
            yield where, read.stop - read.start, None, JsonRows(read, _in_file(self))

    def _text(self, origin: Origin, most: int) -> Iterator[tuple[str, int, int | None, Any]]:
        if not origin.is_local:
            raise InvalidArgumentError("lines of text are read from local files only")
        for read in _ranges(origin, dict(self.options).get("encoding", "utf-8"), most):
            where = f"bytes {read.start}:{read.stop}"
            yield where, read.stop - read.start, None, TextRows(read)

    def _ipc(self, origin: Origin, most: int) -> Iterator[tuple[str, int, int | None, Any]]:
        with origin.filesystem.open_input_file(origin.path) as file:
            if not _is_ipc_file(file):
                _check_schema(self, origin, ipc.open_stream(file).schema)
                yield "", origin.size, None, Batches(origin, 0, None)
                return
            opened = ipc.open_file(file)
            _check_schema(self, origin, opened.schema)
            count = opened.num_record_batches
        for first, end in _runs(count, origin.size, most):
            where = f"record batches {first}:{end}"
            yield where, origin.size * (end - first) // count, None, Batches(origin, first, end)

    def _orc(self, origin: Origin, most: int) -> Iterator[tuple[str, int, int | None, Any]]:
        with origin.filesystem.open_input_file(origin.path) as file:
            opened = paorc.ORCFile(file)
            _check_schema(self, origin, opened.schema)
            count = opened.nstripes
        for first, end in _runs(count, origin.size, most):
            size = origin.size * (end - first) // count
            yield f"stripes {first}:{end}", size, None, Stripes(origin, first, end)


@dataclass(frozen=True, slots=True)
class _RowGroupsOf:
    """Row groups of a Parquet file that may have rows that pass: number, rows and bytes of each."""

    origin: Origin
    partition: Any
    groups: tuple[tuple[int, int, int], ...]
    pruned: int

    @property
    def size(self) -> int:
        return sum(size for _, _, size in self.groups)

    def pieces(self, most: int, schema: pa.Schema) -> list[Piece]:
        """Return pieces of neighbouring row groups, which have at most ``most`` bytes together or
        are one."""
        found: list[Piece] = []
        begin = 0
        size = 0
        for at, (_, _, own) in enumerate(self.groups):
            if at > begin and size + own > most:
                found.append(self._piece(begin, at, schema))
                begin, size = at, 0
            size += own
        if begin < len(self.groups):
            found.append(self._piece(begin, len(self.groups), schema))
        return found

    def _piece(self, begin: int, end: int, schema: pa.Schema) -> Piece:
        some = self.groups[begin:end]
        numbers = tuple(number for number, _, _ in some)
        return Piece(
            self.origin.path,
            f"row groups {numbers[0]}:{numbers[-1] + 1}",
            sum(size for _, _, size in some),
            sum(rows for _, rows, _ in some),
            RowGroups(self.origin, numbers, self.partition, schema),
        )


def part_bytes(total: int) -> int:
    """Return the bytes that a part of files of ``total`` bytes has at most, unless it cannot be cut
    further: a 64th, as a power of two from 1 to 32 MiB. It depends on the files alone, so that
    results have the same bits on every cluster."""
    wanted = 1 << (max(total // _PARTS_WANTED, 1) - 1).bit_length()
    return min(max(wanted, _SMALLEST_PART_BYTES), _LARGEST_PART_BYTES)


def _runs(count: int, size: int, most: int) -> list[tuple[int, int]]:
    """Cut ``count`` batches of a file into runs of at most about ``most`` bytes."""
    step = max(1, count * most // max(size, 1))
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def _ranges(origin: Origin, encoding: str, most: int) -> list[LineRange]:
    found = []
    for part in text_lines(origin.path, encoding=encoding, part_bytes=most).parts():
        assert isinstance(part.read, LineRange), "lines are read by ranges"
        found.append(part.read)
    return found


def _column_bytes(group: Any, columns: Sequence[str] | None) -> int:
    if columns is None:
        return int(group.total_byte_size)
    chunks = map(group.column, range(group.num_columns))
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] in columns
    )


def _is_ipc_file(file: Any) -> bool:
    magic = file.read(6)
    file.seek(0)
    return bool(magic == b"ARROW1")


def _in_file(scan: Scan) -> pa.Schema:
    """Return the columns that are in the files, without those of folders' names."""
    folders = set()
    for partition in scan.partitions[:1]:
        if partition is not None:
            folders = set(ds.get_partition_keys(partition))
    return pa.schema([entry for entry in scan.schema if entry.name not in folders])


def _check_schema(scan: Scan, origin: Origin, own: pa.Schema) -> None:
    """Refuse a file with other columns or types than the first, unless the caller gave a schema."""
    if scan.given and scan.format == "parquet":
        return
    expected = _in_file(scan)
    if own.remove_metadata() != expected.remove_metadata():
        problem = difference(own, expected)
        if problem:
            raise _differs(origin, own, scan)


def _differs(origin: Origin, own: pa.Schema, scan: Scan) -> SourceError:
    said = difference(own, _in_file(scan)) or "the same columns in another order"
    like = "the schema that was given" if scan.given else scan.origins[0].path
    return SourceError(f"{origin.path} has other columns or types than {like}: {said}")


def difference(own: pa.Schema, first: pa.Schema) -> str:
    """Say how the schema of a file differs from the expected one; "" if no column does."""
    said = [f"it lacks {name!r}" for name in first.names if name not in own.names]
    said += [f"it has {name!r} as well" for name in own.names if name not in first.names]
    said += [
        f"{field.name!r} is {field.type} instead of {first.field(field.name).type}"
        for field in own
        if field.name in first.names and field.type != first.field(field.name).type
    ]
    if not said and own.names != first.names:
        said.append("the same columns in another order")
    return ", ".join(said)


def _damaged(origin: Origin, format: str, error: BaseException) -> SourceError:
    return SourceError(f"{origin.path} cannot be read as {format}: {error}")


def scan_of(
    format: Format,
    origins: Sequence[Origin],
    *,
    schema: pa.Schema | None,
    on_error: OnError,
    options: dict[str, Any],
) -> Scan:
    """Return the scan of files; without ``schema`` it is that of the first file that can be read
    (of JSON lines, of the beginnings of all of them).

    Raises
    ------
    SourceError
        A file is damaged, and ``on_error`` is "raise", or all are.
    InvalidArgumentError
        ``on_error`` is something else.
    """
    if on_error not in ("raise", "skip"):
        raise InvalidArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    folders, partitions = partition_values(origins, schema)
    skipped: list[Skipped] = []
    good = list(zip(origins, partitions, strict=True))
    found = schema
    if found is None:
        found, good, skipped = _inferred(format, good, on_error, options)
    own = [entry for entry in found if entry.name not in folders.names]
    metadata_free = pa.schema(own).remove_metadata()
    whole = pa.schema([*metadata_free, *folders])
    return Scan(
        format,
        tuple(origin for origin, _ in good),
        whole,
        tuple(partition for _, partition in good),
        on_error,
        schema is not None,
        tuple(skipped),
        tuple(options.items()),
    )


def _inferred(
    format: Format, files: list[tuple[Origin, Any]], on_error: OnError, options: dict[str, Any]
) -> tuple[pa.Schema, list[tuple[Origin, Any]], list[Skipped]]:
    """Return the schema of the files, those that are left, and those that cannot be read."""
    skipped: list[Skipped] = []
    left = list(files)
    found: pa.Schema | None = None
    if format == "csv" and left[0][0].is_local and on_error == "raise":
        # The types hold for all files: the source looks at samples of all of them.
        source = csv_source([origin.path for origin, _ in left], **options)
        read = source.parts()[0].read
        assert isinstance(read, CsvRange), "a CSV source has ranges"
        return read.schema, left, skipped
    for item in files:
        origin = item[0]
        try:
            with reaching(origin.filesystem, origin.path):
                own = _schema_of(format, origin, options)
        except StorageError:
            raise
        except (SourceError, FileNotFoundError, *UNREADABLE) as error:
            problem = error if isinstance(error, SourceError) else _damaged(origin, format, error)
            if on_error == "raise":
                raise problem from error
            skipped.append(Skipped(origin.path, "", str(problem)))
            left.remove(item)
            continue
        if found is None or format != "json":
            found = own
        else:
            found = _united(found, own, origin)
        if format != "json":
            break
    if found is None:
        raise SourceError(
            f"none of {len(files)} files can be read; the first error: {skipped[0].error}"
        )
    return found, left, skipped


def _united(found: pa.Schema, own: pa.Schema, origin: Origin) -> pa.Schema:
    try:
        return pa.unify_schemas([found, own], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(
            f"{origin.path} has other types than the files before it: {error}"
        ) from error


def _schema_of(format: Format, origin: Origin, options: dict[str, Any]) -> pa.Schema:
    if format == "parquet":
        return parquet_format().make_fragment(origin.path, origin.filesystem).physical_schema
    if format == "text":
        return pa.schema([("line", pa.large_string())])
    if format == "csv" and origin.is_local:
        read = csv_source([origin.path], **options).parts()[0].read
        assert isinstance(read, CsvRange), "a CSV source has ranges"
        return read.schema
    if format in ("csv", "json"):
        with origin.filesystem.open_input_stream(origin.path) as stream:
            if format == "csv":
                parse = pacsv.ParseOptions(delimiter=options["delimiter"])
                return pacsv.open_csv(stream, parse_options=parse).schema
            data = stream.read(_SAMPLE_BYTES)
            if len(data) == _SAMPLE_BYTES:
                data = data[: data.rfind(b"\n") + 1] or data + stream.read()
        if not data.strip():
            raise SourceError(f"{origin.path} is empty")
        return parsed_json(data, None).schema
    with origin.filesystem.open_input_file(origin.path) as file:
        if format == "orc":
            return paorc.ORCFile(file).schema
        return ipc.open_file(file).schema if _is_ipc_file(file) else ipc.open_stream(file).schema
