"""States of parts with many groups, cut into ranges of a hash of the groups' keys.

A range is small enough for the caches: to group its rows takes a fraction of the time that a large
hash table takes. The states of one range of all parts combine by themselves, in any process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from agentic_ray.tables.aggregates import Prepared, State, distinct_rows, prepared
from agentic_ray.tables.columns import takeable
from agentic_ray.tables.grouping import Grouping
from agentic_ray.tables.hashing import hashes

_BITS = 6
RANGES = 1 << _BITS
_POSITION_BITS = 40
"""Bits of a row's position in its part; the number of the part is above them."""
_FEW_GROUPS = 1 << 12
"""A state of at most so many groups, and pairs of keys and value, is not cut where it is made."""
_FEW_ROWS = 1 << 18
_SAMPLE = 1 << 14
_MANY = 0.85
"""Rows are cut before they are grouped if at least this share of a sample differs: there are then
about three times as many groups as the sample has rows, or more."""

Edges = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Ranged:
    """A state whose groups, and pairs of keys and value, stand in the order of their ranges.

    Parameters
    ----------
    state : State
        Within a range the groups are in any order: ``at:`` tells theirs.
    edges : ndarray
        Row of ``state.groups`` at which each range begins, and their number at last.
    pair_edges : mapping
        The same for each of ``state.distinct``.
    """

    state: State
    edges: Edges
    pair_edges: Mapping[str, Edges]

    @property
    def nbytes(self) -> int:
        return self.state.nbytes

    def range(self, low: int, high: int) -> State:
        """Return the state of the groups in ranges ``low..high``."""
        pairs = {
            name: _between(table, self.pair_edges[name], low, high)
            for name, table in self.state.distinct.items()
        }
        groups = _between(self.state.groups, self.edges, low, high)
        return State(groups, pairs, self.state.types)

    def only(self, low: int, high: int) -> Ranged:
        """Return the state without the groups of other ranges than ``low..high``."""
        return Ranged(
            self.range(low, high),
            np.clip(self.edges, self.edges[low], self.edges[high]) - self.edges[low],
            {
                name: np.clip(edges, edges[low], edges[high]) - edges[low]
                for name, edges in self.pair_edges.items()
            },
        )


def _between(table: pa.Table, edges: Edges, low: int, high: int) -> pa.Table:
    return table.slice(int(edges[low]), int(edges[high] - edges[low]))


def state_of_part(table: pa.Table, grouping: Grouping, number: int) -> State | Ranged:
    """Return the state of one part, with the positions of the groups' first rows among the rows of
    all parts; cut into ranges if there are many groups.

    Raises
    ------
    InvalidArgumentError
        The part lacks a column.
    InvalidTypeError
        A column has a type that a function cannot take.
    """
    ready = prepared(table, grouping, positions(number, table.num_rows))
    return _grouped_by_range(ready) if _has_many_groups(ready) else placed(ready.state())


def positions(number: int, rows: int) -> np.ndarray[Any, Any]:
    """Return the positions of the rows of part ``number`` among the rows of all parts."""
    return np.arange(rows) + (number << _POSITION_BITS)


def placed(state: State) -> State | Ranged:
    """Return the state of a part as it travels: cut if it has many rows."""
    rows = max(table.num_rows for table in (state.groups, *state.distinct.values()))
    return state if rows <= _FEW_GROUPS else ranged(state)


def ranged(state: State) -> Ranged:
    """Cut a state into ranges."""
    groups, edges = _in_ranges(state.groups, _keys(state.groups))
    pairs = {name: _in_ranges(table, _keys(table)) for name, table in state.distinct.items()}
    cut = State(groups, {name: table for name, (table, _) in pairs.items()}, state.types)
    return Ranged(cut, edges, {name: at for name, (_, at) in pairs.items()})


def _has_many_groups(ready: Prepared) -> bool:
    """Whether rows, to judge by some of them, have so many groups that these are best grouped
    range by range. The way that is chosen changes no bit of the state."""
    rows = ready.rows.num_rows
    if not ready.keys or rows < _FEW_ROWS:
        return False
    some = pa.array(np.arange(0, rows, max(rows // _SAMPLE, 1)))
    sample = takeable(ready.rows.select(ready.keys)).take(some)
    return len(np.unique(hashes(sample))) >= _MANY * len(some)


def _grouped_by_range(ready: Prepared) -> Ranged:
    rows, edges = _in_ranges(ready.rows, ready.keys)
    groups, counts = ready.grouped(_cut(rows, edges))
    pairs: dict[str, pa.Table] = {}
    pair_edges: dict[str, Edges] = {}
    for name, table in ready.distinct.items():
        own, own_edges = _in_ranges(table, ready.keys)
        found = [distinct_rows(some) for some in _cut(own, own_edges)]
        pairs[name] = pa.concat_tables(found).combine_chunks()
        pair_edges[name] = _sums(some.num_rows for some in found)
    state = State(groups.combine_chunks(), pairs, ready.types)
    return Ranged(state, _sums(counts), pair_edges)


def _cut(table: pa.Table, edges: Edges) -> list[pa.Table]:
    return [table.slice(low, high - low) for low, high in itertools.pairwise(edges.tolist())]


def _sums(counts: Iterable[int]) -> Edges:
    """Return where each run begins, and where the last ends."""
    return np.cumsum([0, *counts])


def _keys(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name[:1] == "k" and name[1:].isdigit()]


def _in_ranges(table: pa.Table, keys: Sequence[str]) -> tuple[pa.Table, Edges]:
    """Return the rows in the order of their ranges, else as they were, and where each begins."""
    table = takeable(table).combine_chunks()
    own = (hashes(table.select(list(keys))) >> np.uint64(64 - _BITS)).astype(np.uint8)
    order = np.argsort(own, kind="stable")  # a radix sort
    edges = _sums(np.bincount(own, minlength=RANGES).tolist())
    return table.take(pa.array(order)).combine_chunks(), edges
