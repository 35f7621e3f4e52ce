"""Descriptions of groupings: keys, and functions of columns under names of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

FUNCTIONS = (
    *("sum", "mean", "min", "max", "count", "size", "var", "std"),
    *("first", "last", "any", "all", "nunique"),
)
_NEEDED = {
    "sum": ("sum",),
    "mean": ("sum", "count"),
    "min": ("min",),
    "max": ("max",),
    "count": ("count",),
    "size": ("rows",),
    "var": ("sum", "count", "m2"),
    "std": ("sum", "count", "m2"),
    "first": ("first",),
    "last": ("last",),
    "any": ("any",),
    "all": ("all",),
    "nunique": (),
}
"""The states that each function is finished from."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A column of the answer: ``function`` of ``column`` in each group, under the name
    ``output``; ``column`` is None for ``size``."""

    output: str
    column: str | None
    function: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """Keys and aggregates of a ``group_by``; without keys all rows are one group."""

    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are needed, each once."""
        named = (a.column for a in self.aggregates if a.column is not None)
        return tuple(dict.fromkeys((*self.keys, *named)))

    @property
    def values(self) -> tuple[str, ...]:
        """Columns that are aggregated, each once."""
        named = (a.column for a in self.aggregates if a.column is not None)
        return tuple(dict.fromkeys(named))

    def wanted(self, column: str) -> tuple[str, ...]:
        """Return the states that are kept of a column."""
        used = [s for a in self.aggregates if a.column == column for s in _NEEDED[a.function]]
        return tuple(dict.fromkeys(used))

    @property
    def distinct(self) -> tuple[str, ...]:
        """Columns whose different values are counted."""
        named = (a.column for a in self.aggregates if a.function == "nunique" and a.column)
        return tuple(dict.fromkeys(named))


def named_aggregates(
    given: Mapping[str, Any] | None, named: Mapping[str, Any]
) -> tuple[Aggregate, ...]:
    """Return the aggregates of a call ``agg({column: functions}, name=(column, function))``.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        An unknown function, two columns of one name, or nothing to do.
    """
    found: list[Aggregate] = []
    for column, functions in (given or {}).items():
        if not isinstance(column, str):
            raise InvalidTypeError(f"a column is named by a str, not {column!r}")
        several = [functions] if isinstance(functions, str) else functions
        if not isinstance(several, Sequence):
            raise InvalidTypeError(f"{column!r} needs the name of a function, not {functions!r}")
        found += [_aggregate(f"{column}_{name}", column, name) for name in several]
    for output, pair in named.items():
        if pair == "size":
            found.append(Aggregate(output, None, "size"))
            continue
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise InvalidTypeError(f"{output} must be (column, function) or 'size', not {pair!r}")
        found.append(_aggregate(output, *pair))
    for aggregate in found:
        if aggregate.function not in FUNCTIONS:
            raise InvalidArgumentError(
                f"{aggregate.function!r} is no function of a group; there are "
                f"{', '.join(FUNCTIONS)}"
            )
        if aggregate.function != "size" and not isinstance(aggregate.column, str):
            raise InvalidTypeError(f"a column is named by a str, not {aggregate.column!r}")
    outputs = [aggregate.output for aggregate in found]
    if not outputs:
        raise InvalidArgumentError("agg needs at least one aggregate")
    twice = sorted({name for name in outputs if outputs.count(name) > 1})
    if twice:
        raise InvalidArgumentError(f"two aggregates are named {', '.join(twice)}")
    return tuple(found)


def _aggregate(output: str, column: str, function: str) -> Aggregate:
    """Return an aggregate of a column; the size of a group is the same for each of them."""
    return Aggregate(output, None if function == "size" else column, function)


def check_outputs(aggregates: Sequence[Aggregate], keys: Sequence[str]) -> None:
    """Refuse aggregates under the name of a key."""
    twice = [one.output for one in aggregates if one.output in keys]
    if twice:
        raise InvalidArgumentError(f"{', '.join(twice)} is a key; name the aggregate otherwise")


def check_columns(columns: Sequence[str], grouping: Grouping) -> None:
    """Refuse rows that lack a column of the grouping."""
    missing = [name for name in grouping.columns if name not in columns]
    if missing:
        raise InvalidArgumentError(
            f"there is no column {', '.join(map(repr, missing))}; there are {', '.join(columns)}"
        )
