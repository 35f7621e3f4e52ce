"""Joins by an index, and hashes of keys: as pandas joins, whatever the types and the cuts."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.tables.hashing import hashes
from agentic_ray.tables.joining import HOW, Index, Lookup, added, joined

WORDS = st.sampled_from(["", "a", "b", "ä", "long " * 40]) | st.none()
NUMBERS = st.sampled_from([-(2**63), -3, 0, 1, 2, 70_000, 2**63 - 1]) | st.none()
SIDE = st.lists(st.tuples(NUMBERS, WORDS), max_size=12)


def joined_by_hand(left: list[Any], right: list[Any], how: str) -> list[Any]:
    found: list[Any] = []
    for i, key in enumerate(left):
        matches = [j for j, other in enumerate(right) if None not in key and other == key]
        if how in ("semi", "anti"):
            found += [(i,)] if bool(matches) == (how == "semi") else []
        elif matches or how == "inner":
            found += [(i, j) for j in matches]
        else:
            found.append((i, None))
    return found


def table(rows: list[Any], number: str) -> pa.Table:
    return pa.table(
        {
            "k": pa.array([row[0] for row in rows], pa.int64()),
            "s": pa.array([row[1] for row in rows], pa.string()),
            number: pa.array(range(len(rows)), pa.int64()),
        }
    )


@settings(max_examples=80, deadline=None)
@given(SIDE, SIDE, st.sampled_from(HOW), st.sampled_from([("k",), ("s",), ("k", "s"), ("s", "k")]))
def test_rows_that_match_come_in_order(
    left: list[Any], right: list[Any], how: str, on: tuple[str, ...]
) -> None:
    one, other = table(left, "left"), table(right, "right").select([*on, "right"])
    names = () if how in ("semi", "anti") else added(one.column_names, other.column_names, on, "_")
    found = joined(one, Index.of(other, on), on, how, names)
    at = [{"k": 0, "s": 1}[name] for name in on]
    wanted = joined_by_hand(
        [tuple(row[i] for i in at) for row in left],
        [tuple(row[i] for i in at) for row in right],
        how,
    )
    columns = ["left"] if how in ("semi", "anti") else ["left", "right"]
    assert list(zip(*(found[name].to_pylist() for name in columns), strict=True)) == wanted


DAY = dt.date(2020, 1, 1)
KEYS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int8(), [-128, 127, None, 0]),
    (pa.uint64(), [2**64 - 1, 0, None, 2**63]),
    (pa.bool_(), [True, False, None, True]),
    (pa.date32(), [DAY, DAY + dt.timedelta(1), None, DAY]),
    (pa.time32("s"), [dt.time(1), dt.time(2), None, dt.time(1)]),
    (pa.timestamp("ns", "Europe/Oslo"), [5, 3, None, 5]),
    (pa.duration("ms"), [5, -3, None, 5]),
    (pa.decimal128(10, 2), [decimal.Decimal("1.10"), decimal.Decimal("2.25"), None, None]),
    (pa.binary(2), [b"ab", b"cd", None, b"ab"]),
    (pa.large_binary(), [b"", b"cd", None, b"cd"]),
    (pa.dictionary(pa.int32(), pa.string()), ["x", "y", None, "x"]),
    (pa.string_view(), ["x", "a long text that has no room inside", None, "x"]),
    (pa.null(), [None, None, None, None]),
]


@pytest.mark.parametrize(("kind", "values"), KEYS, ids=lambda value: str(value)[:20])
def test_keys_of_every_type(kind: pa.DataType, values: list[Any]) -> None:
    left = pa.table(
        {"k": pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)])}
    )
    right = pa.table({"k": pa.array(values, kind), "n": [0, 1, 2, 3]})
    found = joined(left, Index.of(right, ("k",)), ("k",), "left", [("n", "n")])
    known = pa.array(values, kind).to_pylist()
    wanted = [
        match
        for value in known
        for match in [j for j, o in enumerate(known) if o is not None and o == value] or [None]
    ]
    assert found["n"].to_pylist() == wanted
    assert found["k"].type == (pa.large_string() if kind == pa.string_view() else kind)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    st.integers(-(2**63), 2**63 - 30),
)
def test_lookups_know_what_they_hold(some: list[int], others: list[int], low: int) -> None:
    for values in (some, list(range(low, low + 20))):
        lookup = Lookup.of(pa.array(values, pa.int64()))
        asked = [*values, *others, -(2**63), 2**63 - 1]
        found = lookup.numbers(pa.chunked_array([asked], pa.int64()))
        assert found.tolist() == [values.index(v) if v in values else -1 for v in asked]


def test_hashes_are_of_values_whatever_holds_them() -> None:
    texts = ["", "a", "ab", "ba", None, "ä" * 300]
    plain = hashes(pa.table({"k": pa.array(texts)}))
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert hashes(pa.table({"k": pa.array(texts, kind)})).tolist() == plain.tolist()
    later = pa.table({"k": pa.array(["x", *texts])}).slice(1)
    assert hashes(later).tolist() == plain.tolist()
    assert len(set(plain.tolist())) == len(texts)
    floats = hashes(pa.table({"k": [0.0, -0.0, float("nan"), -float("nan"), 1.5, None]}))
    assert floats[0] == floats[1] != floats[4]
    assert floats[2] == floats[3]
    assert floats[5] == plain[4] == hashes(pa.table({"k": pa.nulls(1)}))[0]


@pytest.mark.parametrize(("kind", "values"), KEYS, ids=lambda value: str(value)[:20])
def test_hashes_of_every_type(kind: pa.DataType, values: list[Any]) -> None:
    array = pa.array(values, kind)
    found = hashes(pa.table({"k": array}))
    known = array.to_pylist()
    for i, j in np.ndindex(4, 4):
        assert (found[i] == found[j]) == (known[i] == known[j])


def test_hashes_spread() -> None:
    numbers = np.arange(100_000)
    for column in (numbers, numbers * 1024, pa.array([f"key {n}" for n in numbers])):
        found = hashes(pa.table({"k": column, "c": np.zeros(len(numbers), np.int8)}))
        counts = np.bincount((found >> np.uint64(60)).astype(int), minlength=16)
        assert 5_500 < counts.min() <= counts.max() < 7_000
