"""Windows of event time are those of a plain loop, however the rows are batched."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    SourceError,
    StreamStateError,
)
from agentic_ray.stream import windows
from agentic_ray.stream.windows import (
    Fixed,
    Open,
    Rules,
    Session,
    added,
    closed,
    session,
    sliding,
    tumbling,
)
from agentic_ray.tables.grouping import Grouping, named_aggregates

AGGREGATES = named_aggregates(
    None, {"n": "size", "total": ("x", "sum"), "last": ("x", "last"), "kinds": ("x", "nunique")}
)


def rules(window: Any, **options: Any) -> Rules:
    given = {"max_delay": 0, "max_jump": 0, "max_open_rows": 10**6, "skip": False, **options}
    return Rules(window, Grouping(("k",), AGGREGATES), "t", **given)


def run(rows: list[tuple[Any, ...]], own: Rules, cuts: list[int]) -> tuple[list[Any], Open]:
    table = pa.table(
        {
            "t": pa.array([row[0] for row in rows], pa.float64()),
            "k": pa.array([row[1] for row in rows], pa.string()),
            "x": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    state, found = Open(), []
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, stop in itertools.pairwise(edges):
        state = added(state, table.slice(start, stop - start), own)
        state, more = closed(state, own)
        found += [] if more is None else more.to_pylist()
    state, more = closed(state, own, final=True)
    return found + ([] if more is None else more.to_pylist()), state


def expected(rows: list[tuple[Any, ...]], own: Rules) -> tuple[dict[Any, list[float]], int]:
    """The values of each window (start, end, key), row by row, and the late rows."""
    late, latest = 0, None
    kept: dict[Any, list[float]] = defaultdict(list)
    sessions: dict[Any, list[tuple[int, int, float]]] = defaultdict(list)
    for i, (t, key, x) in enumerate(rows):
        time = round(t * 1e6)
        mark = None if latest is None else latest - own.max_delay
        if isinstance(own.window, Fixed):
            size, step = own.window.size, own.window.step
            begin = time // step * step
            starts = [begin - j * step for j in range(size // step + 1)]
            starts = [s for s in starts if s <= time < s + size]
            admitted = [s for s in starts if mark is None or s + size > mark]
            for start in admitted:
                kept[start, start + size, key].append(x)
        else:
            admitted = [time] if mark is None or time >= mark else []
            if admitted:
                sessions[key].append((time, i, x))
        late += not admitted
        latest = time if latest is None else max(latest, time)
    if isinstance(own.window, Session):
        for key, found in sessions.items():
            group: list[tuple[int, int, float]] = []
            for row in sorted(found):
                if group and row[0] - group[-1][0] >= own.window.gap:
                    kept[group[0][0], group[-1][0] + own.window.gap, key] += [r[2] for r in group]
                    group = []
                group.append(row)
            kept[group[0][0], group[-1][0] + own.window.gap, key] += [r[2] for r in group]
    return kept, late


ROWS = st.lists(
    st.tuples(
        st.integers(-50, 50).map(lambda t: t / 4),
        st.sampled_from(["a", "b", None]),
        st.integers(-100, 100).map(float),
    ),
    max_size=40,
)
WINDOWS = st.sampled_from([tumbling(2), sliding(3, 1), sliding(2.5, 1), session(1.5)])
CUTS = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=200, deadline=None)
@given(ROWS, WINDOWS, CUTS, st.sampled_from([0, 1, 5]), st.sampled_from([3, 4096]))
def test_windows_are_those_of_a_loop(
    rows: list[Any], window: Any, cuts: list[int], delay: int, block: int
) -> None:
    own = rules(window, max_delay=delay * 1_000_000)
    before = windows.BLOCK_ROWS
    windows.BLOCK_ROWS = block
    try:
        found, state = run(rows, own, cuts)
    finally:
        windows.BLOCK_ROWS = before
    wanted, late = expected(rows, own)
    assert state.late == late
    assert {
        (round(w["window_start"] * 1e6), round(w["window_end"] * 1e6), w["k"]): (
            w["n"],
            w["total"],
            w["last"],
            w["kinds"],
        )
        for w in found
    } == {key: (len(xs), sum(xs), xs[-1], len(set(xs))) for key, xs in wanted.items()}
    assert len(found) == len(wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 900), max_size=8), WINDOWS)
def test_no_bit_depends_on_the_batches(seed: int, cuts: list[int], window: Any) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (float(t), str(k), float(x) / 3)
        for t, k, x in zip(
            np.sort(rng.random(900) * 20) + rng.random(900),
            rng.integers(0, 3, 900),
            rng.normal(size=900) * 1e9,
            strict=True,
        )
    ]
    own = rules(window, max_delay=500_000)
    before = windows.BLOCK_ROWS
    windows.BLOCK_ROWS = 64
    try:
        at_once, whole = run(rows, own, [])
        found, state = run(rows, own, cuts)
    finally:
        windows.BLOCK_ROWS = before
    order = ("window_end", "window_start", "k")
    key = lambda row: tuple(row[name] for name in order)  # noqa: E731
    assert sorted(found, key=key) == sorted(at_once, key=key)
    assert state.late == whole.late


def test_an_event_of_the_far_future_moves_nothing() -> None:
    own = rules(tumbling(1), max_jump=10_000_000)
    rows = [(0.0, "a", 1.0), (1e9, "a", 2.0), (0.5, "a", 3.0), (5.0, "a", 4.0), (1e9, "a", 5.0)]
    found, state = run(rows, own, [2, 3])
    assert [(w["window_start"], w["n"]) for w in found] == [(0.0, 2), (5.0, 1)]
    assert state.ahead == 2
    assert state.late == 0


def test_timestamps_come_out_as_timestamps() -> None:
    time = dt.datetime(2026, 11, 30, 8, tzinfo=dt.UTC)
    kind = pa.timestamp("ms", "Europe/Zurich")
    table = pa.table({"t": pa.array([time], kind), "k": ["a"], "x": [1.0]})
    own = rules(tumbling(dt.timedelta(minutes=1)))
    _, found = closed(added(Open(), table, own), own, final=True)
    assert found is not None
    assert found["window_start"].to_pylist() == [time]
    assert found["window_end"].to_pylist() == [time + dt.timedelta(minutes=1)]


def test_rows_without_a_time_are_an_error_or_counted() -> None:
    rows = [(0.0, "a", 1.0), (None, "a", 2.0), (float("nan"), "a", 2.0)]
    with pytest.raises(SourceError, match="row 1 has no event time"):
        run(rows, rules(tumbling(1)), [])
    found, state = run(rows, rules(tumbling(1), skip=True), [])
    assert [w["n"] for w in found] == [1]
    assert state.untimed == 2


def test_open_windows_are_bounded() -> None:
    with pytest.raises(StreamStateError, match="max_open_rows=10"):
        run([(float(i), str(i), 0.0) for i in range(11)], rules(session(100), max_open_rows=10), [])


def test_arguments_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="size"):
        tumbling(0)
    with pytest.raises(InvalidTypeError, match="gap"):
        session("1 s")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="step"):
        sliding(1, 2)
    with pytest.raises(InvalidArgumentError, match="no column 't'"):
        added(Open(), pa.table({"k": ["a"], "x": [1]}), rules(tumbling(1)))
    with pytest.raises(InvalidTypeError, match="string"):
        added(Open(), pa.table({"t": ["a"], "k": ["a"], "x": [1]}), rules(tumbling(1)))


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@pytest.mark.parametrize("window", [tumbling(5), sliding(6, 3), session(2)])
def test_sizes_alone_need_no_column(window: Any, rows_at_once: int) -> None:
    times = [0, 1, 7, 8, 2, 30, 0, 31]
    table = pa.table({"t": times, "x": list(range(len(times)))})
    counted, summed = (
        Rules(window, Grouping((), named_aggregates(None, given)), "t", 0, 0, 10**6, False)
        for given in ({"n": "size"}, {"n": "size", "total": ("x", "sum")})
    )
    found = []
    for rules_ in (counted, summed):
        open_ = Open()
        for at in range(0, len(times), rows_at_once):
            open_ = added(open_, table.slice(at, rows_at_once), rules_)
        open_, windows_ = closed(open_, rules_, final=True)
        assert windows_ is not None
        names = ["window_start", "window_end", "n"]
        found.append((open_.late, windows_.select(names).to_pylist()))
    assert found[0] == found[1]
    assert sum(row["n"] for row in found[0][1]) > 0
