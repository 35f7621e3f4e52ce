"""Manifests: what was written in a folder, by which job."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    arrow_schema: str = ""
    """The columns' types, by which names of folders are read: Arrow's message in base64."""

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @classmethod
    def now(
        cls,
        path: str,
        job: str,
        format: str,
        schema: pa.Schema,
        partition_by: tuple[str, ...],
        files: Sequence[WrittenFile],
    ) -> Written:
        """Return the manifest of a folder whose files a job has written: with the present time, and
        with the types of the columns of ``schema``."""
        message = schema.remove_metadata().serialize().to_pybytes()
        return cls(
            path,
            job,
            format,
            time.time(),
            tuple(schema.names),
            partition_by,
            tuple(files),
            base64.b64encode(message).decode(),
        )

    def json(self) -> bytes:
        """Return the content of the manifest's file."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()


def schema_in(manifest: Any) -> pa.Schema | None:
    """Return the schema that a manifest keeps; None if an earlier version of this package, which
    kept none, has written the manifest.

    Raises
    ------
    ValueError, TypeError, AttributeError, pyarrow.ArrowException
        It is no manifest.
    """
    text = manifest.get("arrow_schema")
    if not text:
        return None
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))


def empty_file(schema: pa.Schema, format: str) -> tuple[str, bytes]:
    """Return name and content of the file of a table without rows: it has all columns, since no
    name of a folder has any."""
    kept = schema.empty_table()
    sink = pa.BufferOutputStream()
    if format == "parquet":
        pq.write_table(kept, sink)
    else:
        pacsv.write_csv(kept, sink)
    return f"part-000000-0.{format}", sink.getvalue().to_pybytes()
