"""Aggregates of all parts: combined here while they are small, else by a shuffle.

In the shuffle the state of each part is cut by a hash of the groups' keys, and each range of hashes
is combined by itself: no process needs all groups. The way changes neither bits nor order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import LostDataError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, TaskGraph
from agentic_ray.runtime import get_session
from agentic_ray.runtime.values import Stored, fetch
from agentic_ray.tables.aggregates import FAN_IN, State, combined, finish
from agentic_ray.tables.grouping import Grouping
from agentic_ray.tables.hashing import hashes
from agentic_ray.tables.running import MOST_DEATHS, Outcome, Work, loaded, submitted
from agentic_ray.tables.travel import as_rows, streamed

HERE_BYTES = 8 << 20
"""States of all parts that have together at most so many bytes are combined in the caller's
process."""
_RANGE_BYTES = 16 << 20
_MOST_RANGES = 256
_POSITION_BITS = 40
"""Bits of a group's position in its part; the number of the part is above them."""


@dataclass(frozen=True)
class Cut:
    """Kernel that cuts the state of a part: a packed state for each range of hashes, then the
    outcome without the state."""

    ranges: int

    def __call__(self, number: int, outcome: Outcome) -> list[Any]:
        state: State = outcome.value
        keys = _keys(state.groups)
        positions = np.arange(state.groups.num_rows) + (number << _POSITION_BITS)
        groups = state.groups.append_column("at:", pa.array(positions))
        cut_groups = _cut(groups, keys, self.ranges)
        cut_pairs = {name: _cut(pairs, keys, self.ranges) for name, pairs in state.distinct.items()}
        cut: list[Any] = [
            Packed(cut_groups[at], {name: cut_pairs[name][at] for name in cut_pairs}, state.types)
            for at in range(self.ranges)
        ]
        return [*cut, replace(outcome, value=None)]


@dataclass(frozen=True, slots=True)
class Packed:
    """A state as it travels: its tables as Arrow's streams in arrays of bytes."""

    groups: Any
    distinct: Any
    types: Any

    def load(self) -> State:
        """Return the state."""
        pairs = {name: as_rows(value) for name, value in self.distinct.items()}
        return State(as_rows(self.groups), pairs, self.types)


def _keys(groups: pa.Table) -> list[str]:
    return [name for name in groups.column_names if name[:1] == "k" and name[1:].isdigit()]


def _cut(table: pa.Table, keys: Sequence[str], ranges: int) -> list[Any]:
    """Return the rows of each range of hashes, in their order."""
    own = (hashes(table.select(keys)) >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)
    order = np.argsort(own.astype(np.uint16), kind="stable")
    edges = np.searchsorted(own[order], np.arange(ranges + 1, dtype=np.uint64))
    sorted_rows = table.take(pa.array(order)).combine_chunks()
    return [
        streamed(sorted_rows.slice(low, high - low))
        for low, high in itertools.pairwise(edges.tolist())
    ]


def _pick(values: Sequence[Any], at: int) -> Any:
    return values[at]


def _merged(states: Sequence[Packed]) -> Packed:
    """Combine the states of a range of hashes, of neighbouring parts."""
    state = combined([one.load() for one in states])
    pairs = {name: streamed(pairs) for name, pairs in state.distinct.items()}
    return Packed(streamed(state.groups), pairs, state.types)


@dataclass(frozen=True)
class Finish:
    """Kernel that combines the states of a range of hashes to its rows of the answer; the last
    column is the position of the group's first row."""

    grouping: Grouping

    def __call__(self, states: Sequence[Packed]) -> pa.Table:
        state = combined([one.load() for one in states])
        answer = finish(state, self.grouping)
        return pa.table([*answer.columns, state.groups["at:"]], names=[*answer.column_names, "at:"])


def aggregated(work: Work, grouping: Grouping) -> tuple[pa.Table, list[Outcome]]:
    """Aggregate the states that the parts give; return the answer, and the outcomes without their
    values.

    Work whose values were lost with the cluster's only node is done again.

    Raises
    ------
    SumOverflowError
        A sum of integers or decimals does not fit the type of the answer.
    InvalidTypeError
        A column has another type in one part than in others.
    """
    for left in reversed(range(MOST_DEATHS)):
        try:
            return _aggregated(work, grouping)
        except LostDataError:
            if not left:
                raise
    raise AssertionError("the last round raises")


def _aggregated(work: Work, grouping: Grouping) -> tuple[pa.Table, list[Outcome]]:
    states = submitted(work).handles()
    size = sum(
        state.size_bytes if isinstance(state, Stored) else loaded(state).nbytes for state in states
    )
    if size > HERE_BYTES and len(states) > 1 and grouping.keys:
        return _shuffled(states, size, grouping)
    found = [loaded(fetch(state) if isinstance(state, Stored) else state) for state in states]
    answer = finish(combined([outcome.value for outcome in found]), grouping)
    return answer, [replace(outcome, value=None) for outcome in found]


def _shuffled(
    states: Sequence[Any], size: int, grouping: Grouping
) -> tuple[pa.Table, list[Outcome]]:
    session = get_session()
    ranges = min(max(math.ceil(size / _RANGE_BYTES), 2 * session.slots), _MOST_RANGES)
    cut = Codelet(f"tables.cut{ranges}", Cut(ranges))
    pick = Codelet("tables.pick", _pick, cost=CostHint(items=0))
    merge = Codelet("tables.merge", _merged)
    last = Codelet("tables.finish", Finish(grouping))
    each = size // len(states)
    tasks: list[Task] = []
    columns: list[list[str]] = [[] for _ in range(ranges + 1)]
    for number, state in enumerate(states):
        whole = Task.of(
            cut, number, state, key=f"cut/{number}", cost=CostHint(read_bytes=each, items=1)
        )
        tasks.append(whole)
        for at in range(ranges + 1):
            one = Task.of(pick, Ref(whole.key), at, key=f"cut/{number}/{at}")
            tasks.append(one)
            columns[at].append(one.key)
    answers: list[str] = []
    for at, keys in enumerate(columns[:-1]):
        level = 0
        while len(keys) > FAN_IN:
            level += 1
            above: list[str] = []
            for low in range(0, len(keys), FAN_IN):
                some = keys[low : low + FAN_IN]
                key = f"range/{at}/{level}/{low}"
                cost = CostHint(read_bytes=len(some) * each // ranges, items=1)
                tasks.append(Task.of(merge, [Ref(k) for k in some], key=key, cost=cost))
                above.append(key)
            keys = above
        cost = CostHint(read_bytes=size // ranges, items=1)
        tasks.append(Task.of(last, [Ref(k) for k in keys], key=f"range/{at}", cost=cost))
        answers.append(f"range/{at}")
    run = session.submit(TaskGraph(tasks, [*answers, *columns[-1]]), asked=ranges)
    found = run.result()
    answer = pa.concat_tables(found[:ranges], promote_options="default")
    order = pc.sort_indices(answer["at:"])
    answer = answer.drop_columns("at:").take(order)
    return answer, [loaded(outcome) for outcome in found[ranges:]]
