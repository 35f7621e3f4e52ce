"""Sorts a table by samples: cuts the values into ranges, one sort for each.

Each part is cut at the same rows; the pieces of one range are then sorted together. Rows with equal
keys fall into one range, so the order of all is that of one stable sort.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, TaskGraph
from agentic_ray.runtime import get_session
from agentic_ray.tables.columns import plain, takeable
from agentic_ray.tables.conversion import together
from agentic_ray.tables.running import (
    Held,
    Outcome,
    graph_of,
    outcomes,
)
from agentic_ray.tables.travel import as_rows, packed, streamed

if TYPE_CHECKING:
    from agentic_ray.tables.table import Table

_SAMPLES = 256
"""Rows of each part that are looked at to choose the ranges."""
Keys = tuple[tuple[str, str], ...]


def sort_keys(given: Any) -> Keys:
    """Return keys as pairs of column and direction.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        They are no such keys.
    """
    several = [given] if isinstance(given, str) else list(given)
    found = []
    for key in several:
        name, way = (key, "ascending") if isinstance(key, str) else key
        if not isinstance(name, str):
            raise InvalidTypeError(f"a column is named by a str, not {name!r}")
        if way not in ("ascending", "descending"):
            raise InvalidArgumentError(f"{name!r} is sorted 'ascending' or 'descending', not {way}")
        found.append((name, way))
    if not found:
        raise InvalidArgumentError("sort_by needs a column")
    return tuple(found)


@dataclass(frozen=True)
class Sample:
    """Keys of some rows of a part, evenly spread, as bytes of Arrow's stream."""

    keys: Keys

    def __call__(self, table: pa.Table, number: int) -> tuple[int, bytes]:
        rows = table.num_rows
        at = np.unique(np.linspace(0, max(rows - 1, 0), min(_SAMPLES, rows)).astype(np.int64))
        return rows, packed(_only_keys(table, self.keys).take(pa.array(at)))


def _only_keys(table: pa.Table, keys: Keys) -> pa.Table:
    return pa.table({f"k{i}": plain(table[name]) for i, (name, _) in enumerate(keys)})


def _order(table: pa.Table, keys: Keys) -> Any:
    """Return the numbers of the rows in order; the sort is stable."""
    ways = [(f"k{i}", way) for i, (_, way) in enumerate(keys)]
    return pc.sort_indices(table, sort_keys=ways)


@dataclass(frozen=True)
class Cut:
    """Cuts a part at the bounds: one table for each range, as bytes of Arrow's stream."""

    keys: Keys
    bounds: bytes

    def __call__(self, table: pa.Table, number: int) -> list[Any]:
        table = takeable(table)
        bounds = as_rows(self.bounds)
        both = pa.concat_tables([bounds, _only_keys(table, self.keys)])
        order = _order(both, self.keys).to_numpy()
        # A bound comes before the rows that equal it; so a row's range is the number of bounds
        # before it.
        is_bound = order < bounds.num_rows
        ranges = np.empty(len(order), np.int64)
        ranges[order] = np.cumsum(is_bound)
        own = ranges[bounds.num_rows :]
        order = np.argsort(own, kind="stable")
        edges = np.searchsorted(own[order], np.arange(bounds.num_rows + 2))
        in_order = table.take(pa.array(order)).combine_chunks()
        return [
            streamed(in_order.slice(low, high - low))
            for low, high in itertools.pairwise(edges.tolist())
        ]


def _pick(cut: Outcome, at: int) -> Any:
    """Return one piece of a cut part, so that it alone travels to the task that needs it."""
    return cut.value[at]


@dataclass(frozen=True)
class SortRange:
    """Kernel that sorts the pieces of one range."""

    keys: Keys

    def __call__(self, pieces: Sequence[Any]) -> Outcome:
        table = pa.concat_tables(map(as_rows, pieces), promote_options="default")
        found = table.take(_order(_only_keys(table, self.keys), self.keys))
        return Outcome(found, found.num_rows, found.nbytes)


def sorted_table(table: Table, given: str | Sequence[str | tuple[str, str]]) -> Table:
    """Return the table sorted; its parts stay in the object store of the cluster.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        A key is not there, or its type has no order.
    """
    from agentic_ray.tables.table import Memory  # tables import this module

    keys = sort_keys(given)
    names = [name for name, _ in keys]
    table._check(names)
    samples = outcomes(table._work(Sample(keys), names))
    seen = together([as_rows(outcome.value[1]) for outcome in samples])
    try:
        order = _order(seen, keys)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise InvalidTypeError(f"cannot sort by {', '.join(names)}: {error}") from error
    ranges = max(1, min(len(samples), seen.num_rows))
    places = [seen.num_rows * i // ranges for i in range(1, ranges)]
    bounds = seen.take(order.take(pa.array(places, pa.int64())))
    work = table._work(Cut(keys, packed(bounds)), None)
    tasks, cut = graph_of(work)
    codelet = Codelet("tables.sort", SortRange(keys))
    pick = Codelet("tables.pick", _pick, cost=CostHint(items=0))
    size = sum(piece.bytes for piece in work.pieces) // ranges
    picks = {
        (key, at): Task.of(pick, Ref(key), at, key=f"{key}/piece/{at}")
        for key in cut
        for at in range(ranges)
    }
    sorts = [
        Task.of(
            codelet,
            [Ref(picks[key, at].key) for key in cut],
            key=f"{cut[0]}/sort/{at}",
            cost=CostHint(read_bytes=size, items=1),
        )
        for at in range(ranges)
    ]
    run = get_session().submit(
        TaskGraph([*tasks, *picks.values(), *sorts], [task.key for task in sorts]), asked=len(sorts)
    )
    held = tuple(run.handles())
    table._tell(work, samples)
    parts = tuple(Held(at, None, size, f"range {at}") for at in range(ranges))
    schema = table.schema
    if schema is None:
        probe = dataclasses.replace(table, source=Memory(parts, seen.schema), steps=(), held=held)
        schema = probe.head(0).schema
    made: Table = dataclasses.replace(table, source=Memory(parts, schema), steps=(), held=held)
    return made
