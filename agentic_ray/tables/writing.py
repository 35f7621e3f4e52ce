"""Writes a table as files in a folder, all or nothing, with a manifest of what was written.

Each attempt of a part writes in a folder of its own, so that second copies and attempts that died
harm nobody. The caller's process then moves the files of the attempts that count into one new
folder, and puts that in place in one step.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    SourceError,
    TargetExistsError,
)
from agentic_ray.sources._files import sync
from agentic_ray.tables.columns import plain
from agentic_ray.tables.running import outcomes
from agentic_ray.tables.table import Table
from agentic_ray.tables.travel import packed

MANIFEST = "_manifest.json"
_EXCHANGE = 2  # of renameat2: both names change places in one step
_AT_FDCWD = -100


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that was written: its path in the folder, its rows and bytes."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """Manifest of a folder: what was written, by which job, when (seconds since 1970)."""

    path: str
    job: str
    format: str
    written_at: float
    columns: tuple[str, ...]
    partition_by: tuple[str, ...]
    files: tuple[WrittenFile, ...]

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class WritePart:
    """Writes the rows of a part in a folder of this attempt, and names the files."""

    staging: str
    format: str
    partition_by: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    def __call__(self, table: pa.Table, number: int) -> tuple[Any, ...]:
        folder = os.path.join(self.staging, f"{number}-{uuid.uuid4().hex}")
        os.mkdir(folder)  # fails for an attempt so late that all is over
        schema = packed(table.schema.empty_table())
        for name in self.partition_by:
            if name not in table.column_names:
                raise InvalidArgumentError(
                    f"there is no column {name!r} to partition by; there are "
                    f"{', '.join(table.column_names)}"
                )
            at = table.column_names.index(name)
            table = table.set_column(at, name, plain(table[name]))
        if table.num_rows == 0:
            return folder, (), schema
        written: list[WrittenFile] = []

        def visit(file: Any) -> None:
            path = os.path.relpath(file.path, folder)
            written.append(WrittenFile(path, 0, os.path.getsize(file.path)))

        file_format, options = _format(self.format, dict(self.options))
        ds.write_dataset(
            table,
            folder,
            format=file_format,
            file_options=options,
            basename_template=f"part-{number:06d}-{{i}}.{self.format}",
            partitioning=self._partitioning(table.schema),
            file_visitor=visit,
            use_threads=False,
            max_partitions=max(table.num_rows, 1),
        )
        # Rows are counted in what was written, not in what was meant to be.
        delimiter = dict(self.options).get("delimiter", ",")
        counted = tuple(
            dataclasses.replace(
                file,
                rows=_rows_of(
                    os.path.join(folder, file.path), self.format, table.column_names, delimiter
                ),
            )
            for file in sorted(written, key=lambda file: file.path)
        )
        total = sum(file.rows for file in counted)
        if total != table.num_rows:
            raise SourceError(f"{total} of {table.num_rows} rows were written to {folder}")
        for file in counted:
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


def _rows_of(path: str, format: str, columns: Sequence[str], delimiter: str) -> int:
    if format == "parquet":
        return int(ds.dataset(path, format="parquet").count_rows())
    with pacsv.open_csv(
        path,
        read_options=pacsv.ReadOptions(use_threads=False),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    ) as reader:
        return sum(batch.num_rows for batch in reader)


def write(
    table: Table,
    path: str | os.PathLike[str],
    format: str,
    partition_by: str | Sequence[str],
    mode: str,
    job: str | None,
    options: Mapping[str, Any],
) -> Written:
    """Write a table; see `Table.write_parquet`."""
    target = _checked_target(path, mode)
    names = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    table._check(names)
    schema = table.schema
    if schema is not None and names and set(schema.names) <= set(names):
        raise InvalidArgumentError("every column would be a name of folders, and no file has any")
    _check_options(format, options)
    job = job or uuid.uuid4().hex
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}.writing")
    staging.mkdir(parents=True)
    try:
        make = WritePart(str(staging), format, names, tuple(options.items()))
        work = table._work(make, None)
        found = outcomes(work)
        table._tell(work, found)
        written = _gathered(
            [outcome.value for outcome in found], staging, target, format, names, job
        )
        _put_in_place(staging / "all", target, mode)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def _checked_target(path: str | os.PathLike[str], mode: str) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InvalidTypeError(f"a path must be a str or os.PathLike, not {path!r}")
    if mode not in ("error", "overwrite"):
        raise InvalidArgumentError(f"mode must be 'error' or 'overwrite', not {mode!r}")
    if "://" in os.fspath(path):
        raise InvalidArgumentError(
            f"{os.fspath(path)} is a URL; tables are written to local folders, which can be put in "
            "place in one step"
        )
    target = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
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
        kept = pa.schema([entry for entry in schema if entry.name not in partition_by])
        only = whole / f"part-000000-0.{format}"
        if format == "parquet":
            pq.write_table(kept.empty_table(), only)
        else:
            pacsv.write_csv(kept.empty_table(), only)
        files = [WrittenFile(only.name, 0, only.stat().st_size)]
    found = Written(
        str(target), job, format, time.time(), tuple(schema.names), partition_by, tuple(files)
    )
    manifest = whole / MANIFEST
    manifest.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
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
