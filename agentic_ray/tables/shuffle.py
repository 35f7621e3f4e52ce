"""Aggregates of all parts: combined here while they are small, else by a shuffle.

In the shuffle each range of hashes of the groups' keys is combined by itself: no process needs all
groups. The way changes neither bits nor order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from agentic_ray.errors import LostDataError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, TaskGraph
from agentic_ray.runtime import get_session
from agentic_ray.runtime.values import Stored, fetch
from agentic_ray.tables.aggregates import State, combined, finish
from agentic_ray.tables.grouping import Grouping
from agentic_ray.tables.ranges import RANGES, Edges, Ranged, ranged
from agentic_ray.tables.running import MOST_DEATHS, Outcome, Work, loaded, submitted
from agentic_ray.tables.travel import as_rows, streamed

HERE_BYTES = 8 << 20
"""States of all parts that have together at most so many bytes are combined in the caller's
process."""
_STEP_BYTES = 1 << 20
"""States are combined in steps of at least so many bytes: each step has a cost of its own."""
_TASK_BYTES = 64 << 20
"""A task of the shuffle combines states of about so many bytes, at most."""


@dataclass(frozen=True)
class Cut:
    """Kernel that cuts the state of a part: a packed state for each run of ranges, then the outcome
    without the state.

    Parameters
    ----------
    edges : tuple of int
        Range at which each run begins, and the number of ranges at last.
    """

    edges: tuple[int, ...]

    def __call__(self, outcome: Outcome) -> list[Any]:
        state = _ranged(outcome.value)
        runs = itertools.pairwise(self.edges)
        cut: list[Any] = [_packed(state.only(low, high)) for low, high in runs]
        return [*cut, replace(outcome, value=None)]


@dataclass(frozen=True, slots=True)
class Packed:
    """A state as it travels: its tables as Arrow's streams in arrays of bytes. (A pickle of a slice
    has the whole table.)"""

    groups: Any
    distinct: Any
    types: Any
    edges: Edges
    pair_edges: Any

    def load(self) -> Ranged:
        """Return the state."""
        pairs = {name: as_rows(value) for name, value in self.distinct.items()}
        state = State(as_rows(self.groups), pairs, self.types)
        return Ranged(state, self.edges, self.pair_edges)


def _packed(cut: Ranged) -> Packed:
    pairs = {name: streamed(table) for name, table in cut.state.distinct.items()}
    groups = streamed(cut.state.groups)
    return Packed(groups, pairs, cut.state.types, cut.edges, cut.pair_edges)


def _ranged(value: Any) -> Ranged:
    """Return a state of any kind as one that is cut."""
    if isinstance(value, Outcome):
        value = value.value
    if isinstance(value, Packed):
        return value.load()
    return value if isinstance(value, Ranged) else ranged(value)


def _pick(values: Sequence[Any], at: int) -> Any:
    return values[at]


def _rest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes without their states."""
    return [replace(outcome, value=None) for outcome in outcomes]


@dataclass(frozen=True)
class Finish:
    """Kernel that combines the states of ranges ``low..high`` to their rows of the answer, ``step``
    ranges after the other; the last column is the position of a group's first row."""

    grouping: Grouping
    low: int
    high: int
    step: int

    def __call__(self, values: Sequence[Any]) -> pa.Table:
        states = [_ranged(value) for value in values]
        found = []
        for low in range(self.low, self.high, self.step):
            high = min(low + self.step, self.high)
            found.append(_finished([one.range(low, high) for one in states], self.grouping))
        return pa.concat_tables(found, promote_options="default").combine_chunks()


def _finished(states: Sequence[State], grouping: Grouping) -> pa.Table:
    """Return the answer of states, with the position of each group's first row at last."""
    state = combined(states)
    answer = finish(state, grouping)
    at = state.groups["at:"]
    # (Without keys and rows there is an answer, but no group.)
    at = at if len(at) == answer.num_rows else pa.nulls(answer.num_rows, at.type)
    return pa.table([*answer.columns, at], names=[*answer.column_names, "at:"])


def in_order(answers: Sequence[pa.Table]) -> pa.Table:
    """Return rows of the answer in the order of the groups' first rows, without the positions."""
    answer = pa.concat_tables(answers, promote_options="default").combine_chunks()
    at = answer["at:"].to_numpy()
    answer = answer.drop_columns("at:")
    return answer if (at[1:] > at[:-1]).all() else answer.take(pa.array(np.argsort(at)))


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
    whole = [one.state if isinstance(one, Ranged) else one for one in (o.value for o in found)]
    return in_order([_finished(whole, grouping)]), _rest(found)


def _share_memory() -> bool:
    """Whether all tasks see the same copy of each state: there is one node."""
    return len(get_session().cluster().alive_nodes) == 1


def _shuffled(
    states: Sequence[Any], size: int, grouping: Grouping
) -> tuple[pa.Table, list[Outcome]]:
    session = get_session()
    count = min(max(math.ceil(size / _TASK_BYTES), 2 * session.slots), RANGES)
    edges = tuple(RANGES * at // count for at in range(count + 1))
    each = size // len(states)
    if _share_memory():
        tasks: list[Task] = []
        given: list[list[Any]] = [list(states)] * count
        rest = [Task.of(Codelet("tables.rest", _rest), list(states), key="rest")]
    else:
        tasks, given, rest = _cut(states, edges, each)
    answers = []
    step = max(1, RANGES * _STEP_BYTES // size)
    for at, values in enumerate(given):
        last = Codelet("tables.finish", Finish(grouping, edges[at], edges[at + 1], step))
        cost = CostHint(read_bytes=size // count, items=1)
        answers.append(Task.of(last, values, key=f"range/{at}", cost=cost))
    graph = TaskGraph([*tasks, *rest, *answers], [task.key for task in (*answers, *rest)])
    found = session.submit(graph, asked=count).result()
    return in_order(found[:count]), [outcome for some in found[count:] for outcome in some]


def _cut(
    states: Sequence[Any], edges: tuple[int, ...], each: int
) -> tuple[list[Task], list[list[Any]], list[Task]]:
    """Return tasks that cut each state where it is, for each run of ranges the references to its
    pieces, and the tasks that give what else the outcomes have."""
    cut = Codelet("tables.cut", Cut(edges))
    pick = Codelet("tables.pick", _pick, cost=CostHint(items=0))
    tail = Codelet("tables.tail", _tail, cost=CostHint(items=0))
    count = len(edges) - 1
    tasks: list[Task] = []
    given: list[list[Any]] = [[] for _ in range(count)]
    rest: list[Task] = []
    for number, state in enumerate(states):
        cost = CostHint(read_bytes=each, items=1)
        whole = Task.of(cut, state, key=f"cut/{number}", cost=cost)
        picks = [Task.of(pick, Ref(whole.key), at, key=f"cut/{number}/{at}") for at in range(count)]
        for some, one in zip(given, picks, strict=True):
            some.append(Ref(one.key))
        last = Task.of(tail, Ref(whole.key), key=f"cut/{number}/rest")
        tasks += [whole, *picks]
        rest.append(last)
    return tasks, given, rest


def _tail(values: Sequence[Any]) -> list[Any]:
    return list(values[-1:])
