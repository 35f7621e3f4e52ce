"""Manifests: what was written in a folder, by which job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq


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

    def json(self) -> bytes:
        """Return the content of the manifest's file."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()


def empty_file(schema: pa.Schema, partition_by: Sequence[str], format: str) -> tuple[str, bytes]:
    """Return name and content of the file of a table without rows: it has the columns."""
    kept = pa.schema([entry for entry in schema if entry.name not in partition_by]).empty_table()
    sink = pa.BufferOutputStream()
    if format == "parquet":
        pq.write_table(kept, sink)
    else:
        pacsv.write_csv(kept, sink)
    return f"part-000000-0.{format}", sink.getvalue().to_pybytes()
