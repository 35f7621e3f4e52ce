"""Aggregates of groups as states of parts: made by pyarrow's kernels, combined, and finished.

A state holds one row for each group: what a part adds to each aggregate. States of neighbouring
parts combine to the state of both. Groups stay in the order of their first row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidTypeError, SumOverflowError
from agentic_ray.tables.columns import normalised_keys, plain, table_of, whole
from agentic_ray.tables.grouping import Aggregate, Grouping, check_columns

_MERGED = {
    "at": "min",
    "rows": "sum",
    "count": "sum",
    "sum": "sum",
    "min": "min",
    "max": "max",
    "first": "first",
    "last": "last",
    "any": "any",
    "all": "all",
}
_COUNTS = ("rows", "count")
_WHOLE = pa.decimal128(38, 0)
"""Type of sums of integers: it holds the sum of any number of 64-bit integers."""


@dataclass(frozen=True, slots=True)
class State:
    """The share of one part, or of several neighbouring ones, in each aggregate.

    Parameters
    ----------
    groups : pyarrow.Table
        Columns ``k0``, ``k1``, … (the keys) and ``STATE:COLUMN``; a row for each group. ``at:`` is
        the position of a group's first row, where it is kept.
    distinct : mapping
        For each column whose different values are counted a table of keys and value, each pair
        once.
    types : mapping
        Types of the columns of values.
    """

    groups: pa.Table
    distinct: Mapping[str, pa.Table] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return int(self.groups.nbytes + sum(table.nbytes for table in self.distinct.values()))


# --- of one part --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of a part, ready to be grouped. Some of the rows, all of a group among them, give the
    very state that all rows give of that group.

    Parameters
    ----------
    rows : pyarrow.Table
        Columns ``k0``, ``k1``, … (the keys), and those that the kernels take. ``at:``, the rows'
        positions, is there if positions were given.
    keys : tuple of str
        Columns of keys; without any all rows are one group.
    calls, outputs : tuple
        What pyarrow's kernels do with which column, and the names of the states that they give.
    deviations : tuple of str
        Columns of values of which the squared deviations are kept.
    distinct : mapping
        For each column whose different values are counted a table of keys and value.
    types : mapping
        Types of the columns of values.
    """

    rows: pa.Table
    keys: tuple[str, ...]
    calls: tuple[tuple[Any, str], ...]
    outputs: tuple[str, ...]
    deviations: tuple[str, ...]
    distinct: Mapping[str, pa.Table]
    types: Mapping[str, pa.DataType]

    def state(self) -> State:
        """Return the state of all rows."""
        pairs = {column: distinct_rows(table) for column, table in self.distinct.items()}
        return State(self.grouped([self.rows])[0], pairs, self.types)

    def grouped(self, runs: Sequence[pa.Table]) -> tuple[pa.Table, list[int]]:
        """Return the groups of runs of the rows, one run after the other, and the number of groups
        of each."""
        if not self.keys:
            found = [_one_group(rows, self.calls, self.outputs) for rows in runs]
        elif self.deviations:
            calls, outputs = (*self.calls, ("row", "list")), (*self.outputs, "row")
            found = [_grouped(_numbered(rows, "row"), self.keys, calls, outputs) for rows in runs]
        else:
            found = [_grouped(rows, self.keys, self.calls, self.outputs) for rows in runs]
        counts = [one.num_rows for one in found]
        found = [
            self._with_deviations(rows, one) if self.deviations else one
            for rows, one in zip(runs, found, strict=True)
        ]
        together = pa.concat_tables(found)
        for name in self.outputs:
            state, _, column = name.partition(":")
            if state not in ("at", "rows"):
                together = _settled(together, name, state, self.types[column])
        return together, counts

    def _with_deviations(self, rows: pa.Table, found: pa.Table) -> pa.Table:
        """Add the sums of squared deviations to the groups of rows."""
        lists = None
        if self.keys:
            lists = found["row"].combine_chunks()
            found = found.drop_columns("row")
        for column in self.deviations:
            numbers = rows[f"m2:{column}"]
            away = (
                _deviation(numbers, found, column)
                if lists is None
                else _deviations(numbers, found, lists, column)
            )
            found = found.append_column(f"m2:{column}", away)
        return found


def partial(table: pa.Table, grouping: Grouping) -> State:
    """Return the state of one part.

    Raises
    ------
    InvalidArgumentError
        The part lacks a column.
    InvalidTypeError
        A column has a type that a function cannot take.
    """
    return prepared(table, grouping).state()


def prepared(
    table: pa.Table, grouping: Grouping, positions: np.ndarray[Any, Any] | None = None
) -> Prepared:
    """Return the rows of one part, ready to be grouped; with ``positions`` the state tells of each
    group the first of its rows, as ``at:``.

    Raises
    ------
    InvalidArgumentError
        The part lacks a column.
    InvalidTypeError
        A column has a type that a function cannot take.
    """
    check_columns(table.column_names, grouping)
    alone = not grouping.keys and table.num_rows > 0
    keys = normalised_keys([table[name] for name in grouping.keys], 0 if alone else table.num_rows)
    names = [f"k{i}" for i in range(len(keys))]
    columns: dict[str, Any] = {} if alone else dict(zip(names, keys, strict=True))
    calls: list[tuple[Any, str]] = []
    outputs: list[str] = []
    types: dict[str, pa.DataType] = {}
    deviations: list[str] = []
    if positions is not None:
        columns["at:"] = pa.array(positions)
        calls.append(("at:", "min"))
        outputs.append("at:")
    if any(a.function == "size" for a in grouping.aggregates):
        calls.append(([], "count_all"))
        outputs.append("rows:")
    for column in grouping.values:
        value = plain(table[column])
        types[column] = value.type
        for state in grouping.wanted(column):
            name = f"{state}:{column}"
            if state == "m2":
                columns[name] = _numbers(value, column)
                deviations.append(column)
                continue
            columns[name] = _prepared(value, state, column)
            calls.append((name, state))
            outputs.append(name)
    distinct = {}
    for column in grouping.distinct:
        (value,) = normalised_keys([table[column]], table.num_rows)
        own = normalised_keys([table[name] for name in grouping.keys], table.num_rows)
        pairs = {**dict(zip(names, own, strict=True)), "value": value}
        distinct[column] = table_of(pairs, table.num_rows)
    return Prepared(
        table_of(columns, table.num_rows),
        () if alone else tuple(names),
        tuple(calls),
        tuple(outputs),
        tuple(deviations),
        distinct,
        types,
    )


def _numbered(table: pa.Table, name: str) -> pa.Table:
    return table.append_column(name, pa.array(np.arange(table.num_rows)))


def _grouped(
    table: pa.Table, keys: Sequence[str], calls: Sequence[tuple[Any, str]], outputs: Sequence[str]
) -> pa.Table:
    """Group by pyarrow, in one thread; groups come in the order of their first row, or in any if
    their positions are among the outputs.

    (pyarrow's own order is that of its hash table, which is nearly, but not always, this one.)
    """
    ordered = "at:" not in outputs
    if ordered:
        table = _numbered(table, "at:")
        calls = [*calls, ("at:", "min")]
    found = pa.TableGroupBy(table, list(keys), use_threads=False).aggregate(list(calls))
    if ordered:
        first = whole(found["at:_min"]).to_numpy()
        if (first[1:] < first[:-1]).any():
            found = found.take(pa.array(np.argsort(first)))
    given = {name: i for i, name in enumerate(found.column_names)}
    places = [
        given[call if not isinstance(column, str) else f"{column}_{call}"]
        for column, call in calls[: len(outputs)]
    ]
    return found.select([*(given[key] for key in keys), *places]).rename_columns([*keys, *outputs])


def _one_group(
    table: pa.Table, calls: Sequence[tuple[Any, str]], outputs: Sequence[str]
) -> pa.Table:
    """Aggregate all rows as one group, as `_grouped` does, without looking at keys."""
    found: dict[str, Any] = {"k0": pa.array([0], pa.int8())}
    for (column, call), output in zip(calls, outputs, strict=True):
        if call == "count_all":
            found[output] = pa.array([table.num_rows], pa.int64())
            continue
        value = table[column]
        if call == "count":
            found[output] = pa.array([len(value) - value.null_count], pa.int64())
        elif call == "sum" and pa.types.is_floating(value.type):
            # (NumPy's sum, of one array: that of pyarrow depends on how the column is chunked.)
            numbers = _floats(value)
            found[output] = pa.array([numbers.sum() if len(numbers) else None], pa.float64())
        elif call in ("first", "last"):
            known = value.drop_null()
            known = known.slice(0 if call == "first" else max(len(known) - 1, 0), 1)
            found[output] = known if len(known) else pa.nulls(1, value.type)
        elif call in ("min", "max"):
            found[output] = pa.repeat(pc.min_max(value)[call], 1)
        else:
            found[output] = pa.repeat(pc.call_function(call, [value]), 1)
    return pa.table(found)


def _floats(value: Any) -> np.ndarray[Any, Any]:
    """Return the values of a column of float64 that are not null."""
    return np.asarray(whole(value.drop_null() if value.null_count else value).to_numpy())


def _deviation(value: Any, found: pa.Table, column: str) -> Any:
    """Return the sum of squared deviations of all rows from their mean."""
    numbers = _floats(value)
    mean = float(found[f"sum:{column}"].cast(pa.float64())[0].as_py() or 0) / max(len(numbers), 1)
    away = numbers - mean
    return pa.array([(away * away).sum()], pa.float64())


def _prepared(value: Any, state: str, column: str) -> Any:
    """Return the column that a kernel takes for a state, in a type that loses nothing."""
    kind = value.type
    if state == "count":
        return value
    if state in ("any", "all"):
        if not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
            raise _unfit(state, column, kind)
        return value.cast(pa.bool_())
    if state in ("min", "max", "first", "last"):
        if pa.types.is_duration(kind):
            return value.cast(pa.int64())
        if pa.types.is_nested(kind) or (pa.types.is_decimal(kind) and state in ("first", "last")):
            raise _unfit(state, column, kind)
        return value.cast(pa.int64()) if pa.types.is_null(kind) else value
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_duration(kind) and state == "sum")
    ):
        value = value.cast(pa.int64())
    elif pa.types.is_floating(kind):
        return value.cast(pa.float64())
    elif pa.types.is_decimal(kind):
        wide = kind.precision > 28  # a sum of 10**10 of fewer digits has less than 38
        return value.cast(pa.decimal256(76, kind.scale)) if wide else value
    elif not pa.types.is_integer(kind):
        raise _unfit("sum", column, kind)
    return _summable(value)


def _summable(value: Any) -> Any:
    """Return integers whose sums cannot overflow: as they are, or as decimals if they are large."""
    bounds = pc.min_max(value).as_py()
    most = max(abs(bounds["min"] or 0), abs(bounds["max"] or 0))
    if most * max(len(value), 1) < 1 << 63:
        return value.cast(pa.int64())
    return value.cast(pa.decimal128(20, 0)).cast(_WHOLE)


def _settled(table: pa.Table, name: str, state: str, kind: pa.DataType) -> pa.Table:
    """Bring a state to the one type that it has in every part."""
    if state != "sum" or pa.types.is_floating(kind):
        return table
    at = table.column_names.index(name)
    wide = pa.decimal256(76, kind.scale) if pa.types.is_decimal(kind) else _WHOLE
    return table.set_column(at, name, table.column(at).cast(wide))


def _numbers(value: Any, column: str) -> Any:
    kind = value.type
    if pa.types.is_boolean(kind):
        value = value.cast(pa.int8())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise _unfit("variance", column, kind)
    return value.cast(pa.float64(), safe=False)


def _deviations(value: Any, found: pa.Table, lists: Any, column: str) -> Any:
    """Return each group's sum of squared deviations from its mean.

    (pyarrow's variance of a group depends, in its last bits, on how the column is chunked. Its sums
    go row by row.)
    """
    rows = pc.list_flatten(lists)
    numbers = np.empty(len(rows), np.int64)
    numbers[rows.to_numpy()] = pc.list_parent_indices(lists).to_numpy()
    group = pa.array(numbers)
    count = found[f"count:{column}"].cast(pa.float64())
    mean = pc.divide(found[f"sum:{column}"].cast(pa.float64()), count)
    away = pc.subtract(whole(value), whole(mean).take(group))
    table = pa.table({"group": group, "value": pc.multiply(away, away)})
    sums = _grouped(table, ["group"], [("value", "sum")], ["value"])
    own = sums.take(pa.array(np.argsort(sums["group"].to_numpy())))  # groups may be in any order
    return pc.fill_null(own["value"], 0.0)


def _unfit(function: str, column: str, kind: pa.DataType) -> InvalidTypeError:
    return InvalidTypeError(f"column {column!r} is {kind}, which has no {function}")


def distinct_rows(table: pa.Table) -> pa.Table:
    """Return the rows whose value is not null, each once."""
    table = table.filter(pc.is_valid(table["value"]))
    found = pa.TableGroupBy(table, table.column_names, use_threads=False).aggregate([])
    return found.select(table.column_names)


# --- of neighbouring parts ----------------------------------------------------------------


FAN_IN = 64
"""States of neighbouring parts that are combined at once. The order of additions, and so the last
bits of sums, depend on it."""


def combine(left: State, right: State) -> State:
    """Return the state of two neighbouring parts; see `combined`."""
    return combined((left, right))


def combined(states: Sequence[State]) -> State:
    """Return the state of all parts, at most `FAN_IN` of them combined at once.

    Groups are independent of each other: the states of some groups of each part combine to the
    state of these groups.

    Raises
    ------
    InvalidTypeError
        A column has another type in one part than in others.
    """
    level = list(states)
    while len(level) > 1:
        level = [_at_once(level[at : at + FAN_IN]) for at in range(0, len(level), FAN_IN)]
    return level[0]


def _at_once(states: Sequence[State]) -> State:
    if len(states) == 1:
        return states[0]
    types: dict[str, pa.DataType] = {}
    for state in states:
        for column, kind in state.types.items():
            before = types.get(column, kind)
            if before != kind and not (pa.types.is_null(before) or pa.types.is_null(kind)):
                raise InvalidTypeError(
                    f"column {column!r} is {before} in one part and {kind} in another; cast it, or "
                    "give a schema"
                )
            types[column] = kind if pa.types.is_null(before) else before
    both = _joined([state.groups for state in states])
    keys = [name for name in both.column_names if name.startswith("k") and name[1:].isdigit()]
    names = [name for name in both.column_names if name not in keys]
    plain_states = [name for name in names if not name.startswith("m2:")]
    calls = [(name, _MERGED[name.partition(":")[0]]) for name in plain_states]
    if len(plain_states) < len(names):
        found = _grouped(
            _numbered(both, "row"), keys, [*calls, ("row", "list")], [*plain_states, "row"]
        )
        lists = found["row"].combine_chunks()
        found = found.drop_columns("row")
        for name in names:
            if name.startswith("m2:"):
                found = found.append_column(name, _joint_m2(both, found, lists, name[3:]))
    else:
        found = _grouped(both, keys, calls, plain_states)
    for name in plain_states:  # sums of decimals come back as wide as they can be
        at = found.column_names.index(name)
        kind = both.schema.field(name).type
        if found.column(at).type != kind:
            found = found.set_column(at, name, found.column(at).cast(kind))
    found = found.select(both.column_names)
    distinct = {
        column: distinct_rows(_joined([state.distinct[column] for state in states]))
        for column in states[0].distinct
    }
    return State(found, distinct, types)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate; a column of nulls alone takes the type of the other parts'."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidTypeError(f"two parts have other types: {error}") from error


def _joint_m2(both: pa.Table, found: pa.Table, lists: Any, column: str) -> Any:
    """Add up sums of squared deviations, each moved to the mean of all (Chan, Golub, LeVeque)."""
    rows = pc.list_flatten(lists)
    group = pc.list_parent_indices(lists)
    counts = both[f"count:{column}"].cast(pa.float64())
    total = found[f"count:{column}"].cast(pa.float64())
    means = pc.divide(both[f"sum:{column}"].cast(pa.float64()), counts)
    mean = pc.divide(found[f"sum:{column}"].cast(pa.float64()), total)
    away = pc.subtract(pc.take(means, rows), pc.take(mean, group))
    between = pc.multiply(pc.take(counts, rows), pc.multiply(away, away))
    # (Of one part alone the deviation is 0, also where the values are so large that it is not
    # finite; and a part without values, whose mean is null, moves nothing.)
    alone = pc.equal(pc.take(counts, rows), pc.take(total, group))
    between = pc.fill_null(pc.if_else(alone, 0.0, between), 0.0)
    values = pc.add(pc.take(both[f"m2:{column}"], rows), between)
    table = pa.table({"group": group, "value": values})
    return _grouped(table, ["group"], [("value", "sum")], ["value"])["value"]


# --- the answer ---------------------------------------------------------------------------


def finish(state: State, grouping: Grouping) -> pa.Table:
    """Return the answer: the keys under their names, then the aggregates.

    Raises
    ------
    SumOverflowError
        A sum of integers or decimals does not fit the type of the answer.
    """
    groups = state.groups
    if not grouping.keys and groups.num_rows == 0:
        groups = _one_row(groups)
    # (Without keys there is one constant column in their place.)
    columns: list[Any] = [groups[f"k{i}"] for i in range(len(grouping.keys))]
    names = list(grouping.keys)
    for aggregate in grouping.aggregates:
        names.append(aggregate.output)
        columns.append(_finished(state, groups, aggregate))
    return pa.table(columns, names=names)


def _one_row(groups: pa.Table) -> pa.Table:
    """Return the row of no rows at all: counts are 0, everything else is null."""
    return pa.table(
        {
            field.name: pa.array([0], field.type)
            if field.name.partition(":")[0] in _COUNTS
            else pa.nulls(1, field.type)
            for field in groups.schema
        }
    )


def _finished(state: State, groups: pa.Table, aggregate: Aggregate) -> Any:
    column, function = aggregate.column, aggregate.function
    if function == "size":
        return groups["rows:"]
    assert column is not None, "every other function is of a column"
    kind = state.types[column]
    if function == "count":
        return groups[f"count:{column}"]
    if function == "nunique":
        return _distinct_counts(groups, state.distinct[column])
    if function == "sum":
        return _sum_as(groups[f"sum:{column}"], kind, column)
    if function in ("min", "max", "first", "last"):
        value = groups[f"{function}:{column}"]
        if pa.types.is_null(kind):  # pyarrow casts nothing to it
            return pa.nulls(len(value))
        return value.cast(kind) if value.type != kind else value
    if function in ("any", "all"):
        return groups[f"{function}:{column}"]
    count = groups[f"count:{column}"].cast(pa.float64())
    if function == "mean":
        if pa.types.is_duration(kind):
            raise _unfit("mean", column, kind)
        return pc.divide(groups[f"sum:{column}"].cast(pa.float64()), count)
    less = pc.subtract(count, 1.0)
    variance = pc.divide(groups[f"m2:{column}"], pc.if_else(pc.greater(less, 0.0), less, None))
    return pc.sqrt(variance) if function == "std" else variance


def _sum_as(value: Any, kind: pa.DataType, column: str) -> Any:
    """Return a sum in the type of the answer: 64-bit integers, float64, or as many decimals."""
    if pa.types.is_floating(kind):
        return value
    if pa.types.is_decimal(kind):
        wanted: pa.DataType = pa.decimal128(38, kind.scale)
        if pa.types.is_decimal256(kind):
            wanted = pa.decimal256(76, kind.scale)
    else:
        wanted = pa.uint64() if pa.types.is_unsigned_integer(kind) else pa.int64()
    try:
        value = value.cast(wanted)
    except pa.ArrowInvalid as error:
        raise SumOverflowError(
            f"a sum of column {column!r} does not fit {wanted}: {error}; cast the column to "
            "float64 or to a decimal type first"
        ) from error
    return value.cast(kind) if pa.types.is_duration(kind) else value


def _distinct_counts(groups: pa.Table, pairs: pa.Table) -> Any:
    keys = [name for name in pairs.column_names if name != "value"]
    # The groups come first, with 0 each, so that they stay in their order, also those without any.
    none = groups.select(keys).append_column("n", pa.array([0] * groups.num_rows, pa.int64()))
    each = pairs.select(keys).append_column("n", pa.array([1] * pairs.num_rows, pa.int64()))
    return _grouped(_joined([none, each]), keys, [("n", "sum")], ["n"])["n"]
