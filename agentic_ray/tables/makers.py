"""Functions of the rows of a part: what a task makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidTypeError
from agentic_ray.tables.aggregates import State
from agentic_ray.tables.columns import plain, whole
from agentic_ray.tables.grouping import Grouping
from agentic_ray.tables.ranges import Ranged, placed, positions, state_of_part
from agentic_ray.tables.travel import as_rows, packed


@dataclass(frozen=True)
class Whole:
    """All rows."""

    def __call__(self, table: pa.Table, number: int) -> pa.Table:
        return table


@dataclass(frozen=True)
class Head:
    """The first rows. (A slice would travel with all of them.)"""

    rows: int

    def __call__(self, table: pa.Table, number: int) -> pa.Table:
        return as_rows(packed(table.slice(0, self.rows)))


@dataclass(frozen=True)
class Rows:
    """The number of rows."""

    def __call__(self, table: pa.Table, number: int) -> int:
        return int(table.num_rows)


@dataclass(frozen=True)
class Partial:
    """The state of aggregates."""

    grouping: Grouping

    def __call__(self, table: pa.Table, number: int) -> State | Ranged:
        return state_of_part(table, self.grouping, number)


@dataclass(frozen=True)
class Words:
    """The state of counts of words."""

    column: str

    def __call__(self, table: pa.Table, number: int) -> State | Ranged:
        text = plain(table[self.column])
        if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
            raise InvalidTypeError(f"column {self.column!r} is {text.type}, not text")
        words = pc.list_flatten(pc.utf8_split_whitespace(text))
        counted = pc.value_counts(whole(words))
        found = pa.table({"k0": counted.field("values"), "rows:": counted.field("counts")})
        found = found.filter(pc.not_equal(found["k0"], ""))  # white space at an end gives one
        found = found.set_column(0, "k0", found["k0"].cast(pa.large_string()))
        return placed(State(found.append_column("at:", pa.array(positions(number, len(found))))))
