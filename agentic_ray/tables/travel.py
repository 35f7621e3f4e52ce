"""How a table travels with a task: as bytes of Arrow's stream."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from agentic_ray.runtime import Inline


def as_rows(value: Any) -> pa.Table:
    """Return a table that came as bytes of Arrow's stream, alone or packed, or as itself."""
    if isinstance(value, Inline):
        value = value.load()
    if isinstance(value, pa.Table):
        return value
    return pa.ipc.open_stream(pa.py_buffer(value)).read_all()


def packed(table: pa.Table) -> bytes:
    """Return a table as bytes of Arrow's stream. (A pickle of a slice has the whole table.)"""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
