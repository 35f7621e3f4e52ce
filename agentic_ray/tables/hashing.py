"""Hashes of rows, the same in every process, for cutting tables by their keys.

Values that are one group have one hash. Different values may have the same: it decides where a row
goes, never what it is equal to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.tables.columns import plain, whole

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD1B54A32D192ED03)
_BLOCK_ROWS = 1 << 15
"""Rows that are hashed at once: what is made on the way stays in the caches."""
_WEIGHTS = np.random.default_rng(0).integers(1, 1 << 63, 256, dtype=np.uint64) | np.uint64(1)


def hashes(table: pa.Table) -> Hashes:
    """Return a hash of each row of a table of keys; a null has one whatever the column's type."""
    columns = [plain(column) for column in table.columns]
    found = np.zeros(table.num_rows, np.uint64)
    for low in range(0, table.num_rows, _BLOCK_ROWS):
        own = found[low : low + _BLOCK_ROWS]
        for column in columns:
            own[:] = _mixed(own * _ODD + _column(column.slice(low, _BLOCK_ROWS)))
    return found


def _mixed(values: Hashes) -> Hashes:
    """Let each bit change about half of all (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _column(column: Any) -> Hashes:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL)
    array = whole(column)
    if isinstance(array, pa.ChunkedArray):  # too long for one array of this type
        return np.concatenate([_column(chunk) for chunk in array.chunks])
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        found = _numbers(array)
    elif pa.types.is_floating(kind):
        found = _floats(array)
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        found = _numbers(array.cast(pa.int32() if kind.bit_width == 32 else pa.int64()))
    else:
        if not (pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)):
            text = pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
            array = array.cast(pa.large_binary() if text else pa.large_string())
        found = _texts(array)
    if array.null_count:
        found[pc.is_null(array).to_numpy(zero_copy_only=False)] = _NULL
    return found


def _numbers(array: pa.Array) -> Hashes:
    if array.null_count:
        array = array.fill_null(pa.scalar(0).cast(array.type))
    values = array.to_numpy(zero_copy_only=False)
    wide = np.uint64 if values.dtype == np.uint64 else np.int64
    return np.asarray(values.astype(wide).view(np.uint64))


def _floats(array: pa.Array) -> Hashes:
    if array.null_count:
        array = array.fill_null(0.0)
    values = array.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0  # -0.0 is 0.0
    values[np.isnan(values)] = np.nan  # one of all NaNs
    return np.asarray(values.view(np.uint64))


def _texts(array: pa.Array) -> Hashes:
    """Return the sum of each text's bytes, times weights by their place in it."""
    count = len(array)
    _, ends, content = array.buffers()
    if not count:
        return np.zeros(0, np.uint64)
    edges = np.frombuffer(ends, np.int64)[array.offset : array.offset + count + 1]
    lengths = np.diff(edges)
    total = int(edges[-1] - edges[0])
    found = lengths.astype(np.uint64) * _ODD
    if not total or content is None:
        return found
    data = np.frombuffer(content, np.uint8)[edges[0] : edges[-1]]
    places = np.arange(total) - np.repeat(edges[:-1] - edges[0], lengths)
    with np.errstate(over="ignore"):
        sums = np.cumsum((data.astype(np.uint64) + np.uint64(1)) * _WEIGHTS[places % 256])
    sums = np.concatenate([np.zeros(1, np.uint64), sums])
    return np.asarray(found + (sums[edges[1:] - edges[0]] - sums[edges[:-1] - edges[0]]))
