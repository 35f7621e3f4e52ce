"""Steps from the rows that are read to those that are wanted, each of one part at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError
from agentic_ray.tables.joining import added, check_join, index_of, joined


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
    """Joins each part with a small table, which is ``held[place]``.

    Parameters
    ----------
    digest : str
        Hash of the small table, by which a process knows that it has its index.
    names : tuple of (str, str), optional
        Columns that are added, by their names in the small table and in the joined one; by default
        all.
    """

    place: int
    on: tuple[str, ...]
    how: str
    suffix: str
    right: pa.Schema
    digest: str
    names: tuple[tuple[str, str], ...] | None = None

    def __call__(self, table: pa.Table, held: Any) -> pa.Table:
        check_join(table.schema, self.right, self.on, self.suffix)
        names = self.added(table.column_names) if self.names is None else self.names
        index = index_of(self.digest, held[self.place], self.on)
        return joined(table, index, self.on, self.how, names)

    def added(self, left: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the columns that are added to those of the left table."""
        if self.how in ("semi", "anti"):
            return ()
        return tuple(added(left, self.right.names, self.on, self.suffix))


Step: TypeAlias = Filter | Select | Map | Join


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


def pushed(
    schema: pa.Schema, steps: Sequence[Step], needed: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, Any, tuple[Step, ...]]:
    """Return what reading can do of the steps: columns (None: all) and filter; and what is left.

    Parameters
    ----------
    schema : pyarrow.Schema
        Columns of the source.
    needed : sequence of str or None
        Columns that are used of the last step's rows; None for all.
    """
    expression: Any = None
    at = 0
    columns: tuple[str, ...] | None = None
    for step in steps:
        if isinstance(step, Filter):
            own = step.expression
            expression = own if expression is None else expression & own
        elif isinstance(step, Select):
            columns = step.columns
        else:
            break
        at += 1
    # (A join that brings columns of which none is used still decides which rows there are.)
    left = list(steps[at:])
    used = None if needed is None else tuple(needed)
    schemas = [schema_after(schema, steps[: at + i]) for i in range(len(left))]
    for i in reversed(range(len(left))):
        left[i], used = _narrowed(left[i], schemas[i], used)
    if used is not None:
        columns = used
    return columns, expression, tuple(left)


def _narrowed(
    step: Step, before: pa.Schema | None, used: tuple[str, ...] | None
) -> tuple[Step, tuple[str, ...] | None]:
    """Return the step as it is if only ``used`` columns of its rows are, and the columns that it
    uses of those before; None for all."""
    if isinstance(step, Map):
        return step, None
    if isinstance(step, Select):
        kept = step.columns if used is None else tuple(n for n in step.columns if n in used)
        kept = kept or step.columns[:1]  # rows without a column have no number
        return Select(kept), kept
    if used is None or before is None:
        return step, None
    if isinstance(step, Filter):
        return step, tuple(dict.fromkeys((*used, *_named(step.expression, before))))
    names = tuple(pair for pair in step.added(before.names) if pair[1] in used)
    own = tuple(dict.fromkeys((*(name for name in used if name in before.names), *step.on)))
    return replace(step, names=names), own


def _named(expression: Any, schema: pa.Schema) -> list[str]:
    """Return the columns that an expression names: those without which it cannot be used."""
    found = []
    for name in schema.names:
        others = pa.schema([entry for entry in schema if entry.name != name])
        try:
            others.empty_table().filter(expression)
        except (pa.ArrowException, KeyError):
            found.append(name)
    return found


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
            check_join(table.schema, step.right, step.on, step.suffix)
            new = [step.right.field(n).with_name(to) for n, to in step.added(table.column_names)]
            table = pa.schema([*table.schema, *new]).empty_table()
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
