"""``describe``, ``word_count`` and ``group_by``: figures of tables and texts, block by block."""

from __future__ import annotations

import decimal
import math
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NotRequired

from pydantic import BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from agentic_ray.errors import InvalidParametersError
from agentic_ray.master.jsonvalues import whole
from agentic_ray.master.named.uploads import UploadParams, line_blocks, table_blocks

if TYPE_CHECKING:
    import pyarrow as pa

Aggregation = Literal["sum", "mean", "min", "max", "count"]
Name = Annotated[str, Field(max_length=1000)]

_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_MOST_WORDS: Final = 1_000_000


@with_config(ConfigDict(extra="forbid"))
class TableParams(TypedDict):
    """Parameters of ``describe``: rows as objects, or an uploaded table."""

    data: list[dict[str, Any]] | UploadParams


@with_config(ConfigDict(extra="forbid"))
class WordParams(TypedDict):
    """Parameters of ``word_count``: texts, or an uploaded text; only the ``most`` frequent."""

    data: list[str] | UploadParams
    most: NotRequired[Annotated[int, Field(ge=1, le=_MOST_WORDS), BeforeValidator(whole)]]


@with_config(ConfigDict(extra="forbid"))
class GroupParams(TypedDict):
    """Parameters of ``group_by``: a table, the columns of the groups, and what of the others."""

    data: list[dict[str, Any]] | UploadParams
    by: Annotated[list[Name], Field(min_length=1, max_length=20)]
    aggregations: Annotated[dict[Name, list[Aggregation]], Field(max_length=100)]


def describe(params: TableParams) -> dict[str, Any]:
    """For each column: its type, values and missing values; of numbers mean, std, min and max."""
    from agentic_ray.mapreduce import map_reduce

    blocks = list(table_blocks(params["data"]))
    if not blocks:
        return {}
    found: dict[str, _Column] = map_reduce(_described, blocks, _joined)
    return {name: column.shown() for name, column in found.items()}


def word_count(params: WordParams) -> dict[str, int]:
    """Count each word, the most frequent first; upper and lower case are one."""
    from agentic_ray.mapreduce import map_reduce

    blocks = list(line_blocks(params["data"]))
    counts: Counter[str] = map_reduce(_words, blocks, _added, initial=Counter())
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(order[: params.get("most", _MOST_WORDS)])


def group_by(params: GroupParams) -> list[dict[str, Any]]:
    """Return a row for each group, ordered by the columns of the groups.

    Columns are called ``COLUMN_AGGREGATION``. Sums of integers are exact.
    """
    from agentic_ray.mapreduce import map_reduce

    by = params["by"]
    wanted = [(column, each) for column, all in params["aggregations"].items() for each in all]
    blocks = list(table_blocks(params["data"]))
    if not blocks:
        return []
    parts = sorted({part for column, each in wanted for part in _parts(column, each)})
    table: pa.Table = map_reduce(
        partial(_grouped, by, parts), blocks, partial(_regrouped, by, parts)
    )
    rows = table.sort_by([(name, "ascending") for name in by]).to_pylist()
    return [
        {name: row[name] for name in by}
        | {f"{column}_{each}": _aggregate(row, column, each) for column, each in wanted}
        for row in rows
    ]


# --- describe -----------------------------------------------------------------------------


class _Column:
    """Figures of one column, of some blocks."""

    def __init__(self, kind: str, count: int, missing: int) -> None:
        self.kind = kind
        self.count = count
        self.missing = missing
        self.mean = 0.0
        self.squares = 0.0  # of the distances from the mean
        self.least: Any = None
        self.most: Any = None

    def join(self, other: _Column) -> _Column:
        """Merge the facts about a column in two parts."""
        made = _Column(self.kind, self.count + other.count, self.missing + other.missing)
        if self.kind != other.kind:
            made.kind = f"{self.kind}, {other.kind}" if other.kind not in self.kind else self.kind
        if made.count:
            step = other.mean - self.mean
            made.mean = self.mean + step * other.count / made.count
            made.squares = (
                self.squares + other.squares + step * step * self.count * other.count / made.count
            )
        known = [c for c in (self, other) if c.least is not None]
        if known:
            made.least = min(c.least for c in known)
            made.most = max(c.most for c in known)
        return made

    def shown(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "type": self.kind,
            "count": self.count,
            "missing": self.missing,
        }
        if self.least is not None:
            spread = self.squares / (self.count - 1) if self.count > 1 else math.nan
            told |= {"mean": self.mean, "std": math.sqrt(spread) if spread == spread else spread}
            told |= {"min": self.least, "max": self.most}
        return told


def _described(table: pa.Table) -> dict[str, _Column]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name in table.column_names:
        values = table.column(name)
        made = _Column(str(values.type), len(values) - values.null_count, values.null_count)
        is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        if is_number and made.count:
            floats = values.drop_null().cast(pa.float64(), safe=False).to_numpy()
            made.mean = float(floats.mean())
            made.squares = float(((floats - made.mean) ** 2).sum())
            ends = pc.min_max(values).as_py()
            made.least, made.most = ends["min"], ends["max"]
        found[name] = made
    return found


def _joined(a: dict[str, _Column], b: dict[str, _Column]) -> dict[str, _Column]:
    return {
        name: a[name].join(b[name]) if name in a and name in b else (a | b)[name]
        for name in {**a, **b}
    }


# --- words --------------------------------------------------------------------------------


def _words(lines: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(_WORD.findall(line.lower()))
    if len(counts) > _MOST_WORDS:
        raise InvalidParametersError(f"there are more than {_MOST_WORDS:,} different words")
    return counts


def _added(a: Counter[str], b: Counter[str]) -> Counter[str]:
    return a + b


# --- groups -------------------------------------------------------------------------------


def _parts(column: str, aggregation: Aggregation) -> list[tuple[str, str]]:
    """From what an aggregation is made, each of which can be joined over blocks."""
    if aggregation == "mean":
        return [(column, "sum"), (column, "count")]
    return [(column, aggregation)]


def _aggregate(row: dict[str, Any], column: str, aggregation: Aggregation) -> Any:
    if aggregation != "mean":
        return _plain(row[f"{column}_{aggregation}"])
    total, count = row[f"{column}_sum"], row[f"{column}_count"]
    return None if not count else float(total) / count


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, decimal.Decimal) else value


def _grouped(by: list[str], parts: list[tuple[str, str]], table: pa.Table) -> pa.Table:
    missing = {*by, *(column for column, _ in parts)} - set(table.column_names)
    if missing:
        raise InvalidParametersError(f"there is no column {', '.join(sorted(missing))[:500]}")
    import pyarrow as pa

    for column, each in parts:
        kind = table.schema.field(column).type
        if each == "sum":
            if pa.types.is_integer(kind):  # (Arrow's sums of integers wrap around)
                kind = pa.decimal128(38, 0)
                place = table.column_names.index(column)
                table = table.append_column(f"{column}\0sum", table.column(place).cast(kind))
            elif not pa.types.is_floating(kind):
                raise InvalidParametersError(f"column {column!r} holds no numbers to be added")
    columns = [
        (f"{column}\0sum" if f"{column}\0{each}" in table.column_names else column, each)
        for column, each in parts
    ]
    made = table.group_by(by, use_threads=False).aggregate(columns)
    return _renamed(made, by, parts)


def _regrouped(by: list[str], parts: list[tuple[str, str]], a: pa.Table, b: pa.Table) -> pa.Table:
    import pyarrow as pa

    both = pa.concat_tables([a, b], promote_options="permissive")
    again = [(f"{column}_{each}", "sum" if each == "count" else each) for column, each in parts]
    return _renamed(both.group_by(by, use_threads=False).aggregate(again), by, parts)


def _renamed(table: pa.Table, by: list[str], parts: list[tuple[str, str]]) -> pa.Table:
    """Columns in the order of groups and parts, each called after its part."""
    keys = [table.column(name) for name in by]
    rest = [name for name in table.column_names if name not in by]
    columns = [table.column(name) for name in rest]
    import pyarrow as pa

    return pa.Table.from_arrays(
        [*keys, *columns], names=[*by, *(f"{column}_{each}" for column, each in parts)]
    )
