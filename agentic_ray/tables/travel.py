"""Sends tables with tasks, as bytes of Arrow's stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from agentic_ray.runtime import Inline, pack


def as_rows(value: Any) -> pa.Table:
    """Return a table that came as bytes of Arrow's stream, alone or sent, or as itself."""
    if isinstance(value, Inline):
        value = value.load()
    if isinstance(value, pa.Table):
        return value
    return pa.ipc.open_stream(pa.py_buffer(value)).read_all()


def sent(value: Any) -> Any:
    """Return bytes of Arrow's stream as an argument of tasks: large ones are put in the object
    store, where all processes of a node see the same copy."""
    # (An array of bytes is mapped from there; a bytes object would be copied by each task.)
    return pack(np.frombuffer(value, np.uint8)) if isinstance(value, bytes) else value


def streamed(table: pa.Table) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a table as Arrow's stream in an array of bytes. (A pickle of a slice has the whole
    table.)"""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def packed(table: pa.Table) -> bytes:
    """Return a table as bytes of Arrow's stream."""
    return streamed(table).tobytes()
