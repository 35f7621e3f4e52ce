"""For schemathesis, which finds it by ``SCHEMATHESIS_HOOKS``: files of the formats of uploads."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import schemathesis
from hypothesis import strategies as st

ROWS = st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=20)


def npy(values: list[int]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, np.int64))
    return file.getvalue()


def arrow(values: list[int]) -> bytes:
    file = io.BytesIO()
    table = pa.table({"n": values})
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def as_parquet(values: list[int]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"n": values}), file)
    return file.getvalue()


def csv(values: list[int]) -> bytes:
    return ("n\n" + "\n".join(map(str, values)) + "\n").encode()


made: dict[str, Any] = {
    "application/x-npy": npy,
    "application/vnd.apache.arrow.stream": arrow,
    "application/vnd.apache.parquet": as_parquet,
    "text/csv": csv,
    "text/plain": lambda values: " ".join(map(str, values)).encode(),
}
for media, make in made.items():
    schemathesis.openapi.media_type(media, ROWS.map(make))
