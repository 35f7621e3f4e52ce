"""Windows of event time, and the state of those that are open. Pure: no clock, no files, no Ray.

Rows are numbered as they come. Neither what is late nor any bit of a result depends on how rows
are batched: the watermark is that of the rows before a row, and rows are aggregated in blocks of
a fixed number of rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    SourceError,
    StreamStateError,
)
from agentic_ray.tables.aggregates import State, combine, finish, partial
from agentic_ray.tables.columns import normalised_keys
from agentic_ray.tables.grouping import Grouping

BLOCK_ROWS = 4096
"""Rows that are aggregated together; the rows of a block that is not full are kept."""
_NEVER = -(1 << 62)
_START = "window_start"
_END = "window_end"
_MICROSECONDS = 1_000_000

Duration: TypeAlias = float | datetime.timedelta
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Windows of ``size`` microseconds, one beginning every ``step``."""

    size: int
    step: int


@dataclass(frozen=True, slots=True)
class Session:
    """Windows of one key that end when no event has come for ``gap`` microseconds."""

    gap: int


Window: TypeAlias = Fixed | Session


def microseconds(value: Duration, name: str) -> int:
    """Return a time given in seconds, or as a timedelta, in microseconds.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        It is no such time, or below one microsecond (0 is allowed for ``max_delay``).
    """
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidTypeError(f"{name} must be seconds or a timedelta, not {value!r}")
    if not 0 <= seconds < 1e11:
        raise InvalidArgumentError(f"{name} must be from 0 to 1e11 seconds, not {value!r}")
    found = round(seconds * _MICROSECONDS)
    if found == 0 and name != "max_delay":
        raise InvalidArgumentError(f"{name} must be at least a microsecond, not {value!r}")
    return found


def tumbling(size: Duration) -> Fixed:
    """Windows that follow each other: every event is in one.

    Parameters
    ----------
    size : float or timedelta
        Seconds; windows begin at multiples of it since 1970.
    """
    found = microseconds(size, "size")
    return Fixed(found, found)


def sliding(size: Duration, step: Duration) -> Fixed:
    """Windows of ``size`` seconds, one beginning every ``step`` seconds: they overlap.

    Parameters
    ----------
    size, step : float or timedelta
        ``step`` is at most ``size``, and at least a thousandth of it.
    """
    found = Fixed(microseconds(size, "size"), microseconds(step, "step"))
    if not found.step <= found.size <= 1000 * found.step:
        raise InvalidArgumentError(
            f"step must be at most size, and at least size / 1000, not {step!r} with size {size!r}"
        )
    return found


def session(gap: Duration) -> Session:
    """Windows of one key that end when no event came for ``gap`` seconds.

    Parameters
    ----------
    gap : float or timedelta
    """
    return Session(microseconds(gap, "gap"))


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that decides which windows come out.

    Parameters
    ----------
    window : Window
    grouping : Grouping
        Keys and aggregates of each window.
    time : str
        Column of event time.
    max_delay, max_jump : int
        Microseconds that the watermark stays behind the latest event; and by how much an event may
        be ahead of all before it (0: any).
    max_open_rows : int
        Rows, and groups, of open windows that are kept at most.
    skip : bool
        Whether rows without a time are left out; else they are an error.
    """

    window: Window
    grouping: Grouping
    time: str
    max_delay: int
    max_jump: int
    max_open_rows: int
    skip: bool


@dataclass(frozen=True, slots=True)
class Open:
    """State between two rows: windows that are open, and what was counted.

    Parameters
    ----------
    rows : int
        Rows that have come.
    latest : int
        Latest event time, in microseconds.
    late, ahead, untimed : int
        Rows left out: in no open window any more, too far ahead, and without a time.
    state : State or None
        Aggregates of whole blocks, by window and key.
    pending : pyarrow.Table or None
        Rows of the block that is not full; of session windows, all rows of open ones.
    is_timestamp : bool
        Whether event times are timestamps; else seconds.
    """

    rows: int = 0
    latest: int = _NEVER
    late: int = 0
    ahead: int = 0
    untimed: int = 0
    state: State | None = None
    pending: pa.Table | None = None
    is_timestamp: bool = False


def times_of(column: Any) -> tuple[Ints, Any]:
    """Return event times in microseconds, and a mask of the rows that have none.

    Raises
    ------
    InvalidTypeError
        The column is no time: neither timestamps nor numbers of seconds.
    """
    kind = column.type
    missing = column.is_null().to_numpy()
    if pa.types.is_timestamp(kind):
        whole = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
        return pc.fill_null(whole, 0).to_numpy().astype(np.int64), missing
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise InvalidTypeError(f"event times must be timestamps or seconds, not {kind}")
    seconds = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
    far = ~(np.abs(seconds) < 1e11)  # NaN too
    missing = missing | far
    return np.round(np.where(far, 0.0, seconds) * _MICROSECONDS).astype(np.int64), missing


def added(open_: Open, table: pa.Table, rules: Rules) -> Open:
    """Return the state after more rows.

    Raises
    ------
    InvalidArgumentError, InvalidTypeError
        A column is missing, or of a wrong type.
    SourceError
        A row has no event time.
    StreamStateError
        Open windows have more rows or groups than are allowed.
    """
    missing = [n for n in (rules.time, *rules.grouping.columns) if n not in table.column_names]
    if missing:
        raise InvalidArgumentError(
            f"there is no column {', '.join(map(repr, missing))}; there are "
            f"{', '.join(table.column_names)}"
        )
    times, untimed = times_of(table[rules.time])
    if untimed.any() and not rules.skip:
        at = open_.rows + int(np.flatnonzero(untimed)[0])
        raise SourceError(
            f"row {at} has no event time in column {rules.time!r}; on_error='skip' leaves such "
            "rows out"
        )
    used = ~untimed
    before = _latest_before(open_.latest, times, used)
    ahead = np.zeros(len(times), bool)
    if rules.max_jump and _jumps(times, before, used, rules.max_jump).any():
        before, ahead = _without_jumps(open_.latest, times, used, rules.max_jump)
        used &= ~ahead
    latest = max(open_.latest, int(times[used].max())) if used.any() else open_.latest
    kept = table.select(list(rules.grouping.columns))
    after = replace(
        open_,
        latest=latest,
        untimed=open_.untimed + int(untimed.sum()),
        ahead=open_.ahead + int(ahead.sum()),
        is_timestamp=pa.types.is_timestamp(table.schema.field(rules.time).type),
    )
    watermarks = np.where(before == _NEVER, _NEVER, before - rules.max_delay)
    if isinstance(rules.window, Session):
        found = _added_to_sessions(after, kept, times, used, watermarks)
    else:
        found = _added_to_fixed(after, kept, times, used, watermarks, rules.window, rules)
    found = replace(found, rows=open_.rows + len(times))
    size = (0 if found.pending is None else found.pending.num_rows) + (
        0 if found.state is None else found.state.groups.num_rows
    )
    if size > rules.max_open_rows:
        raise StreamStateError(
            f"open windows have {size} rows and groups, more than max_open_rows="
            f"{rules.max_open_rows}; the watermark may stand still, or windows be too long"
        )
    return found


def _latest_before(latest: int, times: Ints, used: Any) -> Ints:
    """Return for each row the latest event time of the rows before it."""
    counted = np.where(used, times, _NEVER)
    return np.maximum.accumulate(np.concatenate([[latest], counted]))[:-1]


def _jumps(times: Ints, before: Ints, used: Any, most: int) -> Any:
    return used & (before != _NEVER) & (times > before + most)


def _without_jumps(latest: int, times: Ints, used: Any, most: int) -> tuple[Ints, Any]:
    """Leave out rows that are too far ahead, one by one: such a row moves nothing."""
    before, ahead = np.empty(len(times), np.int64), np.zeros(len(times), bool)
    for i, time in enumerate(times.tolist()):
        before[i] = latest
        if used[i]:
            ahead[i] = latest != _NEVER and time > latest + most
            latest = latest if ahead[i] else max(latest, time)
    return before, ahead


def _added_to_fixed(
    open_: Open, table: pa.Table, times: Ints, used: Any, marks: Ints, window: Fixed, rules: Rules
) -> Open:
    count = -(-window.size // window.step)
    last = times // window.step * window.step
    starts = last[:, None] - np.arange(count - 1, -1, -1, dtype=np.int64) * window.step
    ends = starts + window.size
    inside = used[:, None] & (ends > times[:, None])
    admitted = inside & (ends > marks[:, None])
    rows, places = np.nonzero(admitted)  # by rows: each window has its rows in order
    late = int((used & ~admitted.any(axis=1)).sum())
    more = _started(table, rows, starts[rows, places])
    blocks = (open_.rows + rows) // BLOCK_ROWS
    full = (open_.rows + len(times)) // BLOCK_ROWS  # blocks before this one are full
    pending, state = open_.pending, open_.state
    keyed = keyed_by(rules.grouping, _START)
    at = 0
    first = open_.rows // BLOCK_ROWS
    for block in range(first, full + 1):
        end = int(np.searchsorted(blocks, block, side="right"))
        piece = more.slice(at, end - at)
        at = end
        pending = piece if pending is None else _joined(pending, piece)
        if block < full:
            own = partial(pending, keyed)
            state = own if state is None else combine(state, own)
            pending = None
    return replace(open_, late=open_.late + late, state=state, pending=pending)


def _added_to_sessions(open_: Open, table: pa.Table, times: Ints, used: Any, marks: Ints) -> Open:
    """Keep the rows. A row behind the watermark is late: its session may have ended."""
    admitted = used & (times >= marks)
    more = _started(table, np.flatnonzero(admitted), times[admitted])
    pending = more if open_.pending is None else _joined(open_.pending, more)
    late = int((used & ~admitted).sum())
    return replace(open_, late=open_.late + late, pending=pending)


def _started(table: pa.Table, rows: Any, starts: Ints) -> pa.Table:
    """Return rows with the starts of their windows. (Where only sizes are asked for, the table has
    no columns, and pyarrow takes no rows from it.)"""
    if not table.num_columns:
        return pa.table({_START: starts})
    return table.take(pa.array(rows)).append_column(_START, pa.array(starts))


def _joined(left: pa.Table, right: pa.Table) -> pa.Table:
    try:
        return pa.concat_tables([left, right], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidTypeError(
            f"rows have other types than those before: {error}; give the source a schema"
        ) from error


def keyed_by(grouping: Grouping, *columns: str) -> Grouping:
    """Return a grouping with columns of the window before the keys."""
    return Grouping((*columns, *grouping.keys), grouping.aggregates)


def closed(open_: Open, rules: Rules, *, final: bool = False) -> tuple[Open, pa.Table | None]:
    """Return the state without the windows that the watermark has passed (``final``: without any),
    and these: start, end, keys and aggregates, in the order of end, start and keys; None if there
    is none."""
    mark = _NEVER if open_.latest == _NEVER else open_.latest - rules.max_delay
    if isinstance(rules.window, Session):
        after, found = _closed_sessions(open_, rules, rules.window.gap, mark, final)
    else:
        after, found = _closed_fixed(open_, rules, rules.window.size, mark, final)
    if found is None:
        return after, None
    order: list[tuple[str, str]] = [(_END, "ascending"), (_START, "ascending")]
    order += [(name, "ascending") for name in rules.grouping.keys]
    found = found.take(pc.sort_indices(found, sort_keys=order))
    for at, name in enumerate((_START, _END)):
        found = found.set_column(at, name, _shown(found[name], open_.is_timestamp))
    return after, found.combine_chunks()


def _shown(column: Any, is_timestamp: bool) -> Any:
    if is_timestamp:
        return column.cast(pa.timestamp("us", "UTC"))
    return pc.divide(column.cast(pa.float64()), float(_MICROSECONDS))


def _closed_fixed(
    open_: Open, rules: Rules, size: int, mark: int, final: bool
) -> tuple[Open, pa.Table | None]:
    keyed = keyed_by(rules.grouping, _START)

    def over(column: Any) -> Any:
        if final:
            return pa.chunked_array([pa.repeat(pa.scalar(True), len(column))])
        return pc.less_equal(column, pa.scalar(mark - size, pa.int64()))

    done: State | None = None
    state, pending = open_.state, open_.pending
    if state is not None and pc.any(over(state.groups["k0"])).as_py():
        done = _chosen(state, over)
        state = _chosen(state, lambda column: pc.invert(over(column)))
    if pending is not None and pending.num_rows and pc.any(over(pending[_START])).as_py():
        own = partial(pending.filter(over(pending[_START])), keyed)
        done = own if done is None else combine(done, own)
        pending = pending.filter(pc.invert(over(pending[_START])))
    if done is None:
        return open_, None
    found = finish(done, keyed)
    end = pc.add(found[_START], pa.scalar(size, pa.int64()))
    return replace(open_, state=state, pending=pending), found.add_column(1, _END, end)


def _chosen(state: State, mask: Any) -> State:
    distinct = {name: pairs.filter(mask(pairs["k0"])) for name, pairs in state.distinct.items()}
    return State(state.groups.filter(mask(state.groups["k0"])), distinct, state.types)


def _closed_sessions(
    open_: Open, rules: Rules, gap: int, mark: int, final: bool
) -> tuple[Open, pa.Table | None]:
    rows = open_.pending
    if rows is None or not rows.num_rows:
        return open_, None
    times = rows[_START].to_numpy()
    groups = _group_numbers([rows[name] for name in rules.grouping.keys], rows.num_rows)
    order = np.lexsort((np.arange(len(times)), times, groups))
    at, of = times[order], groups[order]
    begins = np.concatenate([[True], (of[1:] != of[:-1]) | (at[1:] - at[:-1] >= gap)])
    number = np.cumsum(begins) - 1
    firsts = np.flatnonzero(begins)
    starts = at[firsts]
    ends = at[np.concatenate([firsts[1:], [len(at)]]) - 1] + gap
    over = np.ones(len(ends), bool) if final else ends <= mark
    if not over.any():
        return open_, None
    chosen = over[number]
    done = rows.take(pa.array(order[chosen])).drop_columns(_START)
    done = done.append_column(_START, pa.array(starts[number][chosen]))
    done = done.append_column(_END, pa.array(ends[number][chosen]))
    keyed = keyed_by(rules.grouping, _START, _END)
    left = rows.take(pa.array(np.sort(order[~chosen])))
    return replace(open_, pending=left), finish(partial(done, keyed), keyed)


def _group_numbers(keys: Sequence[Any], count: int) -> Ints:
    """Return for each row the number of its group of keys."""
    columns = {f"k{i}": key for i, key in enumerate(normalised_keys(keys, count))}
    table = pa.table({**columns, "row": pa.array(range(count), pa.int64())})
    found = pa.TableGroupBy(table, list(columns), use_threads=False).aggregate([("row", "list")])
    lists = found["row_list"].combine_chunks()
    numbers = np.empty(count, np.int64)
    numbers[pc.list_flatten(lists).to_numpy()] = pc.list_parent_indices(lists).to_numpy()
    return numbers
