"""Writes a table as files in a folder, all or nothing, with a manifest of what was written.

Each attempt of a part writes in a folder of its own, so that second copies and attempts that died
harm nobody. The caller's process then moves the files of the attempts that count into one new
folder, and puts that in place in one step.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    SourceError,
    TargetExistsError,
)
from agentic_ray.sources._files import sync
from agentic_ray.tables.columns import plain
from agentic_ray.tables.files import MANIFEST, as_filesystem, of_url
from agentic_ray.tables.manifests import Written, WrittenFile, empty_file
from agentic_ray.tables.partitions import check_partitions
from agentic_ray.tables.running import outcomes
from agentic_ray.tables.store_writing import Store
from agentic_ray.tables.stores import is_far, reaching
from agentic_ray.tables.table import Table
from agentic_ray.tables.travel import packed

_EXCHANGE = 2  # of renameat2: both names change places in one step
_AT_FDCWD = -100


@dataclass(frozen=True)
class WritePart:
    """Writes the rows of a part in a folder of this attempt, and names the files."""

    staging: str
    format: str
    partition_by: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]
    filesystem: Any = None

    def __call__(self, table: pa.Table, number: int) -> tuple[Any, ...]:
        with reaching(self.filesystem, self.staging):
            return self._written(table, number)

    def _written(self, table: pa.Table, number: int) -> tuple[Any, ...]:
        folder = f"{self.staging}/{number}-{uuid.uuid4().hex}"
        filesystem = self.filesystem or pafs.LocalFileSystem()
        if self.filesystem is None:
            os.mkdir(folder)  # fails for an attempt so late that all is over
        for name in self.partition_by:
            if name not in table.column_names:
                raise InvalidArgumentError(
                    f"there is no column {name!r} to partition by; there are "
                    f"{', '.join(table.column_names)}"
                )
            at = table.column_names.index(name)
            table = table.set_column(at, name, plain(table[name]))
        check_partitions(table, self.partition_by)
        schema = packed(table.schema.empty_table())
        if table.num_rows == 0:
            return folder, (), schema
        written: list[WrittenFile] = []

        def visit(file: Any) -> None:
            written.append(WrittenFile(os.path.relpath(file.path, folder), 0, file.size))

        file_format, options = _format(self.format, dict(self.options))
        try:
            ds.write_dataset(
                table,
                folder,
                filesystem=filesystem,
                format=file_format,
                file_options=options,
                basename_template=f"part-{number:06d}-{{i}}.{self.format}",
                partitioning=self._partitioning(table.schema),
                file_visitor=visit,
                use_threads=False,
                max_partitions=max(table.num_rows, 1),
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidTypeError(
                f"the rows cannot be written as {self.format}: {error}"
            ) from error
        # Rows are counted in what was written, not in what was meant to be.
        delimiter = dict(self.options).get("delimiter", ",")
        counted = tuple(
            dataclasses.replace(
                file,
                rows=_rows_of(
                    filesystem,
                    f"{folder}/{file.path}",
                    self.format,
                    table.column_names,
                    delimiter,
                ),
            )
            for file in sorted(written, key=lambda file: file.path)
        )
        total = sum(file.rows for file in counted)
        if total != table.num_rows:
            raise SourceError(f"{total} of {table.num_rows} rows were written to {folder}")
        for file in counted if self.filesystem is None else ():
            sync(os.path.join(folder, file.path))
        return folder, counted, schema

    def _partitioning(self, schema: pa.Schema) -> Any:
        if not self.partition_by:
            return None
        fields = [schema.field(name) for name in self.partition_by]
        return ds.partitioning(pa.schema(fields), flavor="hive")


def _format(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    if name == "parquet":
        file_format = ds.ParquetFileFormat()
        return file_format, file_format.make_write_options(**options)
    csv_format = ds.CsvFileFormat()
    return csv_format, csv_format.make_write_options(**options)


def _rows_of(
    filesystem: Any, path: str, format: str, columns: Sequence[str], delimiter: str
) -> int:
    if format == "parquet":
        return int(pq.read_metadata(path, filesystem=filesystem).num_rows)
    with (
        filesystem.open_input_stream(path) as stream,
        pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        ) as reader,
    ):
        return sum(batch.num_rows for batch in reader)


def write(
    table: Table,
    path: str | os.PathLike[str],
    format: str,
    partition_by: str | Sequence[str],
    mode: str,
    job: str | None,
    options: Mapping[str, Any],
    filesystem: Any = None,
) -> Written:
    """Write a table; see `Table.write_parquet`."""
    if mode not in ("error", "overwrite"):
        raise InvalidArgumentError(f"mode must be 'error' or 'overwrite', not {mode!r}")
    if not isinstance(path, str | os.PathLike):
        raise InvalidTypeError(f"a path must be a str or os.PathLike, not {path!r}")
    path = os.fspath(path)
    if filesystem is not None:
        filesystem = as_filesystem(filesystem)
    elif "://" in path:
        filesystem, path = of_url(path)
    names = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    table._check(names)
    schema = table.schema
    if schema is not None and names and set(schema.names) <= set(names):
        raise InvalidArgumentError("every column would be a name of folders, and no file has any")
    _check_options(format, options)
    job = job or uuid.uuid4().hex
    if is_far(filesystem):
        store = Store(filesystem, path.rstrip("/"), mode, job)
        return store.write(
            format,
            names,
            lambda staging: _parts_of(
                table, WritePart(staging, format, names, tuple(options.items()), filesystem)
            ),
        )
    target = _checked_target(path, mode)
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}.writing")
    staging.mkdir(parents=True)
    try:
        make = WritePart(str(staging), format, names, tuple(options.items()))
        written = _gathered(_parts_of(table, make), staging, target, format, names, job)
        _put_in_place(staging / "all", target, mode)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def _parts_of(table: Table, make: WritePart) -> list[Any]:
    """Write the parts; return what each attempt that counts has written."""
    work = table._work(make, None)
    found = outcomes(work)
    table._tell(work, found)
    return [outcome.value for outcome in found]


def _checked_target(path: str, mode: str) -> Path:
    target = Path(os.path.abspath(os.path.expanduser(path)))
    if target.exists():
        if mode == "error":
            raise TargetExistsError(f"{target} is there; mode='overwrite' replaces all of it")
        if target.is_symlink() or not target.is_dir():
            raise InvalidArgumentError(f"{target} is no folder, so it cannot be replaced by one")
        if not (target / MANIFEST).exists() and any(target.iterdir()):
            raise TargetExistsError(
                f"{target} was not written by this package (it has no {MANIFEST}); move it away"
            )
    return target


def _check_options(format: str, options: Mapping[str, Any]) -> None:
    try:
        _format(format, dict(options))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{format} cannot be written so: {error}") from error
    if format == "parquet" and not pa.Codec.is_available(options["compression"] or "uncompressed"):
        raise InvalidArgumentError(f"there is no compression {options['compression']!r} here")


def _gathered(
    parts: Sequence[tuple[str, tuple[WrittenFile, ...], bytes]],
    staging: Path,
    target: Path,
    format: str,
    partition_by: tuple[str, ...],
    job: str,
) -> Written:
    """Move the files of all parts into one folder, and write the manifest there."""
    whole = staging / "all"
    whole.mkdir()
    files: list[WrittenFile] = []
    for folder, written, _ in parts:
        for file in written:
            source, new = Path(folder) / file.path, whole / file.path
            if not source.exists() or source.stat().st_size != file.bytes:
                raise SourceError(
                    f"{source}, which a node has written, is not there; the folder must be at the "
                    "same path on every node"
                )
            new.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, new)
            files.append(file)
    schema = pa.ipc.open_stream(parts[0][2]).schema
    if not files:  # no rows: one file that has the columns
        only = empty_file(schema, format)
        (whole / only[0]).write_bytes(only[1])
        files = [WrittenFile(only[0], 0, len(only[1]))]
    found = Written.now(str(target), job, format, schema, partition_by, files)
    manifest = whole / MANIFEST
    manifest.write_bytes(found.json())
    sync(manifest)
    return found


def _put_in_place(new: Path, target: Path, mode: str) -> None:
    """Give ``new`` the name ``target`` in one step; what was there goes where ``new`` was.

    Raises
    ------
    TargetExistsError
        Another job has written the folder meanwhile, and ``mode`` is "error".
    """
    if target.exists() and (mode == "overwrite" or not any(target.iterdir())):
        _exchange(new, target)
    else:
        try:
            os.rename(new, target)
        except OSError as error:  # not empty
            raise TargetExistsError(f"{target} was written by another job meanwhile") from error
    sync(target.parent)


def _exchange(new: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    change = getattr(libc, "renameat2", None)
    done = change is not None and not change(
        _AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(target), _EXCHANGE
    )
    if not done:  # a file system that cannot exchange two names: for an instant there is no folder
        old = new.with_name("old")
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
