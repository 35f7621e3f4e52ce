"""Steps from the rows that are read to those that are wanted, each of one part at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError
from agentic_ray.tables.columns import plain
from agentic_ray.tables.travel import as_rows


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps the rows for which an expression is true."""

    expression: Any

    def __call__(self, table: pa.Table, held: Any) -> pa.Table:
        return table.filter(self.expression)


@dataclass(frozen=True, slots=True)
class Select:
    """Keeps some columns, in this order."""

    columns: tuple[str, ...]

    def __call__(self, table: pa.Table, held: Any) -> pa.Table:
        missing = [name for name in self.columns if name not in table.column_names]
        if missing:
            raise InvalidArgumentError(
                f"there is no column {', '.join(map(repr, missing))}; there are "
                f"{', '.join(table.column_names)}"
            )
        return table.select(list(self.columns))


@dataclass(frozen=True, slots=True)
class Map:
    """Calls a user's function with each part."""

    function: Callable[[pa.Table], Any]

    def __call__(self, table: pa.Table, held: Any) -> pa.Table:
        return as_table(self.function(table))


@dataclass(frozen=True, slots=True)
class Join:
    """Joins each part with a small table, which is ``held[place]``."""

    place: int
    on: tuple[str, ...]
    how: str
    suffix: str
    right: pa.Schema

    def __call__(self, table: pa.Table, held: Any) -> pa.Table:
        return joined(table, as_rows(held[self.place]), self.on, self.how, self.suffix)


Step: TypeAlias = Filter | Select | Map | Join

HOW = {"inner": "inner", "left": "left outer", "semi": "left semi", "anti": "left anti"}


def as_table(value: Any) -> pa.Table:
    """Return what a user's function gave as a table.

    Raises
    ------
    BlockResultError
        It is none.
    """
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, dict):
        return pa.table(value)
    if hasattr(value, "__arrow_c_stream__"):  # frames of pandas, polars and others
        found = pa.table(value)
        return found.replace_schema_metadata(None)
    raise BlockResultError(
        f"the function must return a table (of pyarrow, pandas or polars) or a dict of columns, "
        f"not {type(value).__name__}"
    )


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
            kind = _value_type(schema.field(name).type)
            if pa.types.is_floating(kind) or pa.types.is_nested(kind):
                raise InvalidTypeError(
                    f"column {name!r} is {kind}, which cannot be joined on; cast it first"
                )
        if left is not None:
            one, other = (_value_type(schema.field(name).type) for schema in (left, right))
            if one != other:
                raise InvalidTypeError(
                    f"column {name!r} is {one} on the left and {other} on the right; cast one"
                )
    if left is not None:
        names = [*left.names, *_added(left.names, right.names, on, suffix)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidArgumentError(
                f"both tables have a column {', '.join(map(repr, twice))}; give another suffix"
            )


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain` makes of it, with the one type that joins use for strings."""
    kind = plain(pa.chunked_array([], kind)).type
    if pa.types.is_string(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary(kind) else kind


def _added(left: Sequence[str], right: Sequence[str], on: Sequence[str], suffix: str) -> list[str]:
    return [name + suffix if name in left else name for name in right if name not in on]


def joined(left: pa.Table, right: pa.Table, on: Sequence[str], how: str, suffix: str) -> pa.Table:
    """Join two tables; rows come in the order of the left one, then of the right one.

    pyarrow joins the keys alone, beside the numbers of the rows: so the order is known, and columns
    of any type come along.
    """
    check_join(left.schema, right.schema, tuple(on), suffix)
    pairs = _keys(left, on, "left").join(
        _keys(right, on, "right"),
        keys=[f"k{i}" for i in range(len(on))],
        join_type=HOW[how],
        use_threads=False,
    )
    order = [("left", "ascending")]
    if how in ("inner", "left"):
        order.append(("right", "ascending"))
    pairs = pairs.sort_by(order)
    found = left.take(pairs["left"])
    if how in ("semi", "anti"):
        return found
    others = [name for name in right.column_names if name not in on]
    for name, new in zip(
        others, _added(left.column_names, right.column_names, on, suffix), strict=True
    ):
        found = found.append_column(new, right[name].take(pairs["right"]))
    return found


def _keys(table: pa.Table, on: Sequence[str], number: str) -> pa.Table:
    keys = {f"k{i}": plain(table[name]) for i, name in enumerate(on)}
    keys = {name: column.cast(_value_type(column.type)) for name, column in keys.items()}
    return pa.table({**keys, number: pa.array(range(table.num_rows), pa.int64())})


def pushed(
    steps: Sequence[Step], needed: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, Any, tuple[Step, ...]]:
    """Return what reading can do of the steps: columns (None: all) and filter; and what is left.

    ``needed`` are the columns that are used of the last step's rows, or None for all.
    """
    columns: tuple[str, ...] | None = None
    expression: Any = None
    at = 0
    for step in steps:
        if isinstance(step, Filter):
            own = step.expression
            expression = own if expression is None else expression & own
        elif isinstance(step, Select):
            columns = step.columns
        else:
            break
        at += 1
    if at == len(steps) and needed is not None:
        columns = tuple(needed)
    return columns, expression, tuple(steps[at:])


def schema_after(schema: pa.Schema, steps: Sequence[Step]) -> pa.Schema | None:
    """Return the columns after the steps; None after a user's function.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        A step names a column that is not there, or compares what cannot be compared.
    """
    table = schema.empty_table()
    for step in steps:
        if isinstance(step, Map):
            return None
        if isinstance(step, Join):
            table = step(table, {step.place: step.right.empty_table()})
            continue
        try:
            table = step(table, ())
        except (pa.ArrowException, TypeError) as error:
            if isinstance(error, InvalidTypeError):
                raise
            raise InvalidArgumentError(
                f"the filter does not fit the columns {', '.join(table.column_names)}: {error}"
            ) from error
    return table.schema


def is_expression(value: Any) -> bool:
    """Whether a value is an expression of pyarrow."""
    return isinstance(value, pc.Expression)
