"""Joins of parts with a small table, by an index of the small table's keys.

Each process makes the index of a small table once and keeps it for all parts. Rows come in the
order of the left table, then of the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.recent import Recent
from agentic_ray.tables.columns import plain, takeable, whole
from agentic_ray.tables.travel import as_rows, streamed

HOW = ("inner", "left", "semi", "anti")
Numbers: TypeAlias = "np.ndarray[Any, Any]"
"""Array of 32-bit or 64-bit integers."""

_SPREAD = 4
"""Whole numbers are looked up by position if they spread over at most so many times as many
positions as there are values."""
_LEAST_SPREAD = 1 << 16
_BLOCK_ROWS = 1 << 15


@dataclass(frozen=True)
class Lookup:
    """Numbers of values: 0, 1, … in the order of ``values``, and -1 for all others and null.

    Whole numbers (also dates and times) that lie close together are looked up by position; others
    by pyarrow's hash table.
    """

    values: pa.Array
    low: int = 0
    places: Numbers | None = None

    @classmethod
    def of(cls, values: pa.Array) -> Lookup:
        """Make the lookup of different values without null."""
        numbers = _as_integers(values)
        if numbers is None or not len(numbers):
            return cls(values)
        low, high = int(numbers.min()), int(numbers.max())
        if high - low >= max(_LEAST_SPREAD, _SPREAD * len(numbers)):
            return cls(values)
        places = np.full(high - low + 3, -1, np.int32)  # the first and the last: all others
        places[_away(numbers, low)] = np.arange(len(numbers))
        return cls(values, low, places)

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes) + (0 if self.places is None else self.places.nbytes)

    def numbers(self, column: Any) -> Numbers:
        """Return the number of each value of a column."""
        if self.places is not None:
            integers = _as_integers(column)
            assert integers is not None, "both sides have one type"
            found = np.empty(len(integers), np.int32)
            for begin in range(0, len(integers), _BLOCK_ROWS):  # which stay in the cache
                block = slice(begin, begin + _BLOCK_ROWS)
                away = _away(integers[block], self.low)
                self.places.take(away, mode="clip", out=found[block])
        else:
            at = pc.index_in(column, value_set=self.values, skip_nulls=True)
            found = pc.fill_null(whole(at), -1).to_numpy()
            if column.null_count:
                found = found.copy()
        if column.null_count:
            found[pc.is_null(whole(column)).to_numpy(zero_copy_only=False)] = -1
        return np.asarray(found)


def _away(integers: np.ndarray[Any, Any], low: int) -> Numbers:
    """Return how far integers are above ``low``, and 1; below it, not above 0."""
    # (It is computed modulo 2**64: no two integers of 64 bits are as far, so none that is not in a
    # range of less than 2**63 seems to be.)
    first = np.uint64((low - 1) % (1 << 64)).astype(np.int64)
    return np.asarray(integers.view(np.int64) - first)


def _as_integers(column: Any) -> np.ndarray[Any, Any] | None:
    """Return a column of whole numbers, dates or times as 64-bit integers, with any values where it
    is null; None for other types."""
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        column = column.cast(pa.int32()) if kind.bit_width == 32 else column.cast(pa.int64())
    elif not pa.types.is_integer(kind):
        return None
    if column.null_count:
        column = column.fill_null(0)
    wide = np.uint64 if kind == pa.uint64() else np.int64
    return np.asarray(whole(column).to_numpy()).astype(wide, copy=False)


@dataclass(frozen=True)
class Index:
    """Rows of a table by the values of its keys.

    Parameters
    ----------
    rows : pyarrow.Table
    columns, pairs : tuple of Lookup
        Of each key; and of each further key, of its number together with that of the keys before.
    order, ends : array of int
        Numbers of the rows by key; where those of each key end. None: key ``n`` is row ``n``.
    """

    rows: pa.Table
    columns: tuple[Lookup, ...]
    pairs: tuple[Lookup, ...]
    order: Numbers | None
    ends: Numbers | None

    @property
    def nbytes(self) -> int:
        own = sum(lookup.nbytes for lookup in (*self.columns, *self.pairs))
        arrays = (array.nbytes for array in (self.order, self.ends) if array is not None)
        return int(self.rows.nbytes + own + sum(arrays))

    @classmethod
    def of(cls, table: pa.Table, on: Sequence[str]) -> Index:
        """Make the index of a table."""
        columns: list[Lookup] = []
        pairs: list[Lookup] = []
        numbers = np.zeros(table.num_rows, np.int64)
        for name in on:
            key = key_column(table[name])
            lookup = Lookup.of(_different(key))
            own = lookup.numbers(key)
            if columns:
                together = _paired(numbers, own, len(lookup.values))
                pairs.append(Lookup.of(_different(pa.array(together, mask=together < 0))))
                own = pairs[-1].numbers(pa.array(together))
            columns.append(lookup)
            numbers = own
        count = len((pairs or columns)[-1].values)
        order = ends = None
        if count < table.num_rows or not np.array_equal(numbers, np.arange(count)):
            order = np.argsort(numbers, kind="stable")
            order = order[np.count_nonzero(numbers < 0) :]  # a key that is null matches nothing
            ends = np.cumsum(np.bincount(numbers[numbers >= 0], minlength=count))
        return cls(table, tuple(columns), tuple(pairs), order, ends)

    def numbers(self, table: pa.Table, on: Sequence[str]) -> Numbers:
        """Return the number of each row's keys, -1 where no row here has them."""
        keys = [key_column(table[name]) for name in on]
        numbers = self.columns[0].numbers(keys[0])
        for key, column, pair in zip(keys[1:], self.columns[1:], self.pairs, strict=True):
            together = _paired(numbers, column.numbers(key), len(column.values))
            numbers = pair.numbers(pa.array(together))
        return numbers

    def matches(self, numbers: Numbers, *, keep: bool) -> tuple[Numbers | None, Numbers]:
        """Return the rows of both tables that belong together.

        Parameters
        ----------
        numbers : array of int
            Of the left table's rows.
        keep : bool
            Whether rows without a match are there, once, with -1 on the right.

        Returns
        -------
        left : array of int or None
            None: each row once, in order.
        right : array of int
        """
        if self.order is None or self.ends is None:
            if keep or (numbers >= 0).all():
                return None, numbers
            left = np.flatnonzero(numbers >= 0)
            return left, numbers[left]
        starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)
        found = numbers >= 0
        counts = np.zeros(len(numbers), np.int64)
        first = np.zeros(len(numbers), np.int64)
        first[found] = starts[numbers[found]]
        counts[found] = self.ends[numbers[found]] - first[found]
        if keep:
            counts[~found] = 1
        left = np.repeat(np.arange(len(numbers)), counts)
        before = np.cumsum(counts) - counts
        at = np.repeat(first - before, counts) + np.arange(len(left))
        if not keep:
            return left, self.order[at]
        right = np.full(len(left), -1, np.int64)
        inside = found[left]
        right[inside] = self.order[at[inside]]
        return left, right


def _different(column: Any) -> pa.Array:
    """Return the different values of a column, without null, in the order of their first row."""
    values = pc.unique(column)
    return values.filter(pc.is_valid(values)) if values.null_count else values


def _paired(first: Numbers, second: Numbers, count: int) -> Numbers:
    """Return a number for each pair, if ``second`` is below ``count``; -1 where one is."""
    together = first.astype(np.int64) * max(count, 1) + second
    return np.where((first < 0) | (second < 0), -1, together)


def key_column(column: Any) -> Any:
    """Return a column of keys in the type in which both tables have it."""
    column = plain(column)
    kind = key_type(column.type)
    return column if column.type == kind else column.cast(kind)


def key_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain` makes of it, with the one type that joins use for strings."""
    kind = plain(pa.chunked_array([], kind)).type
    if pa.types.is_string(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary(kind) else kind


def check_join(left: pa.Schema | None, right: pa.Schema, on: tuple[str, ...], suffix: str) -> None:
    """Refuse a join whose keys differ in type or are floats, or whose columns would collide."""
    for name in on:
        for side, schema in (("left", left), ("right", right)):
            if schema is None:
                continue
            if name not in schema.names:
                raise InvalidArgumentError(
                    f"the {side} table has no column {name!r}; it has {', '.join(schema.names)}"
                )
            kind = key_type(schema.field(name).type)
            if pa.types.is_floating(kind) or pa.types.is_nested(kind):
                raise InvalidTypeError(
                    f"column {name!r} is {kind}, which cannot be joined on; cast it first"
                )
        if left is not None:
            one, other = (key_type(schema.field(name).type) for schema in (left, right))
            if one != other:
                raise InvalidTypeError(
                    f"column {name!r} is {one} on the left and {other} on the right; cast one"
                )
    if left is not None:
        names = [*left.names, *(new for _, new in added(left.names, right.names, on, suffix))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidArgumentError(
                f"both tables have a column {', '.join(map(repr, twice))}; give another suffix"
            )


def added(
    left: Sequence[str], right: Sequence[str], on: Sequence[str], suffix: str
) -> list[tuple[str, str]]:
    """Return the columns that the right table adds: their names there and in the joined table."""
    return [(name, name + suffix if name in left else name) for name in right if name not in on]


def joined(
    left: pa.Table, index: Index, on: Sequence[str], how: str, names: Sequence[tuple[str, str]]
) -> pa.Table:
    """Join a part with an indexed table, of which it gets the columns in ``names``."""
    left = takeable(left)
    numbers = index.numbers(left, on)
    if how in ("semi", "anti"):
        kept = (numbers >= 0) == (how == "semi")
        return left if kept.all() else left.filter(pa.array(kept))
    at, right = index.matches(numbers, keep=how == "left")
    found = left if at is None else left.take(pa.array(at))
    places = pa.array(right, mask=right < 0) if how == "left" else pa.array(right)
    for name, new in names:
        found = found.append_column(
            index.rows.schema.field(name).with_name(new), index.rows[name].take(places)
        )
    return found


_indexes: Recent[tuple[str, tuple[str, ...]], Index] = Recent(
    8, 1 << 30, lambda index: index.nbytes
)
"""Indexes that were made last in this process, by digest of the table and its keys."""


def index_of(digest: str, value: Any, on: tuple[str, ...]) -> Index:
    """Return the index of a table that came with a task; this process makes it once."""
    return _indexes.get_or_make((digest, on), lambda: Index.of(_owned(value), on))


def _owned(value: Any) -> pa.Table:
    """Return the table in memory of this process: the index outlives the task, and what a task is
    given from the object store may be moved when it is over."""
    return takeable(as_rows(streamed(as_rows(value)))).combine_chunks()
