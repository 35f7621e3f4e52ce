"""Aggregates of parts, combined in the tree, are pandas' aggregates of the whole."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SumOverflowError
from agentic_ray.graph import fold
from agentic_ray.tables.aggregates import combine, finish, partial
from agentic_ray.tables.grouping import FUNCTIONS, Aggregate, Grouping, named_aggregates


def aggregated(table: pa.Table, grouping: Grouping, cuts: list[int]) -> pa.Table:
    edges = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    return finish(fold(combine, [partial(part, grouping) for part in parts]), grouping)


def of(keys: tuple[str, ...], **named: Any) -> Grouping:
    return Grouping(keys, named_aggregates(None, named))


KEYS = st.sampled_from([None, "a", "b", "", "ä"])
FLOATS = st.floats(-1e6, 1e6) | st.none()
ROWS = st.lists(st.tuples(KEYS, st.integers(-(2**31), 2**31) | st.none(), FLOATS), max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=5)


@settings(max_examples=150, deadline=None)
@given(ROWS, CUTS)
def test_groups_are_those_of_pandas(rows: list[tuple[Any, ...]], cuts: list[int]) -> None:
    table = pa.table(
        {
            "k": pa.array([row[0] for row in rows], pa.string()),
            "i": pa.array([row[1] for row in rows], pa.int64()),
            "f": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    grouping = of(
        ("k",),
        rows="size",
        i_sum=("i", "sum"),
        i_min=("i", "min"),
        i_max=("i", "max"),
        i_count=("i", "count"),
        i_mean=("i", "mean"),
        i_nunique=("i", "nunique"),
        f_sum=("f", "sum"),
        f_var=("f", "var"),
        f_std=("f", "std"),
        f_first=("f", "first"),
        f_last=("f", "last"),
    )
    answer = aggregated(table, grouping, cuts)
    found = answer.to_pandas()
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    by = frame.groupby("k", dropna=False, sort=False)
    assert answer["k"].to_pylist() == [None if pd.isna(key) else key for key in by.size().index]
    wanted = {
        "rows": by.size(),
        "i_sum": by["i"].sum(min_count=1),
        "i_min": by["i"].min(),
        "i_max": by["i"].max(),
        "i_count": by["i"].count(),
        "i_mean": by["i"].mean(),
        "i_nunique": by["i"].nunique(),
        "f_sum": by["f"].sum(min_count=1),
        "f_first": by["f"].first(),
        "f_last": by["f"].last(),
    }
    for name, series in wanted.items():
        np.testing.assert_allclose(
            found[name].to_numpy(float), series.to_numpy(float, na_value=np.nan), rtol=1e-9
        )
    values: dict[Any, list[float]] = {}
    for row in rows:
        values.setdefault(row[0], [])
        if row[2] is not None:
            values[row[0]].append(row[2])
    for key, variance, deviation in zip(found["k"], found["f_var"], found["f_std"], strict=True):
        own = values[None if pd.isna(key) else key]
        if len(own) < 2:
            assert math.isnan(variance)
            continue
        np.testing.assert_allclose(variance, np.var(own, ddof=1), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(deviation, np.std(own, ddof=1), rtol=1e-7, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12), CUTS)
def test_sums_of_integers_are_exact_or_refused(values: list[int], cuts: list[int]) -> None:
    table = pa.table({"x": pa.array(values, pa.int64())})
    grouping = of((), s=("x", "sum"), m=("x", "mean"))
    if -(2**63) <= sum(values) < 2**63:
        found = aggregated(table, grouping, cuts).to_pylist()[0]
        assert found["s"] == sum(values)
        np.testing.assert_allclose(found["m"], sum(values) / len(values), rtol=1e-12)
    else:
        with pytest.raises(SumOverflowError, match="'x'"):
            aggregated(table, grouping, cuts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, -0.0, math.nan, -math.nan, 1.5, None]), max_size=20), CUTS)
def test_float_keys_that_are_equal_are_one_group(values: list[Any], cuts: list[int]) -> None:
    found = aggregated(pa.table({"k": pa.array(values, pa.float64())}), of(("k",), n="size"), cuts)
    wanted: dict[str, int] = {}
    for value in values:
        name = "null" if value is None else str(value + 0.0).lstrip("-")
        wanted[name] = wanted.get(name, 0) + 1
    names = ["null" if key is None else str(key) for key in found["k"].to_pylist()]
    assert dict(zip(names, found["n"].to_pylist(), strict=True)) == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), CUTS, st.sampled_from([0.0, 1e9]))
def test_variances_do_not_cancel(values: list[float], cuts: list[int], offset: float) -> None:
    shifted = [value + offset for value in values]
    found = aggregated(pa.table({"x": shifted}), of((), v=("x", "var")), cuts)
    wanted = np.var(np.asarray(shifted) - offset, ddof=1)
    np.testing.assert_allclose(found["v"][0].as_py(), wanted, rtol=1e-6, atol=1e-12)


def test_the_bits_do_not_depend_on_who_combines_first() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"k": rng.integers(0, 5, 1000), "x": rng.normal(size=1000) * 1e10})
    grouping = of(("k",), s=("x", "sum"), v=("x", "var"))
    cuts = list(range(0, 1000, 100))
    first = aggregated(table, grouping, cuts)
    assert first.equals(aggregated(table, grouping, cuts))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.decimal128(10, 2), [decimal.Decimal("1.10"), None, decimal.Decimal("2.25")]),
        (pa.decimal128(38, 2), [decimal.Decimal("1.10"), None, decimal.Decimal("2.25")]),
        (pa.decimal256(50, 2), [decimal.Decimal("1.10"), None, decimal.Decimal("2.25")]),
        (pa.uint64(), [2**63, None, 2**63 - 1]),
        (pa.int8(), [127, None, 127]),
        (pa.duration("ms"), [dt.timedelta(1), None, dt.timedelta(2)]),
        (pa.float16(), [np.float16(1), None, np.float16(2)]),
        (pa.bool_(), [True, None, True]),
    ],
    ids=str,
)
def test_sums_keep_their_kind(kind: pa.DataType, values: list[Any]) -> None:
    table = pa.table({"x": pa.array(values, kind)})
    found = aggregated(table, of((), s=("x", "sum"), n=("x", "count")), [1, 2]).to_pylist()
    assert found == [{"s": values[0] + values[2], "n": 2}]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us", "Europe/Zurich"), pa.timestamp("ns"), pa.date32(), pa.time64("us")],
    ids=str,
)
def test_times_keep_their_type_and_zone(kind: pa.DataType) -> None:
    column = pa.array([3, None, 1, 2], pa.int32() if kind == pa.date32() else pa.int64())
    table = pa.table({"t": column.cast(kind), "k": [1, 1, 2, 2]})
    found = aggregated(table, of(("k",), a=("t", "min"), b=("t", "max")), [1, 3])
    assert found.schema.field("a").type == kind
    assert found["b"].cast(column.type).to_pylist() == [3, 2]
    keys = aggregated(table, of(("t",), n="size"), [2])
    assert keys.schema.field("t").type == kind
    assert keys["n"].to_pylist() == [1, 1, 1, 1]


def test_dictionaries_of_parts_that_differ_are_one() -> None:
    first = pa.table({"k": pa.array(["a", "b", "a"]).dictionary_encode()})
    second = pa.table({"k": pa.array(["b", None, "c"]).dictionary_encode()})
    grouping = of(("k",), n="size", low=("k", "min"), distinct=("k", "nunique"))
    state = combine(partial(first, grouping), partial(second, grouping))
    assert finish(state, grouping).to_pydict() == {
        "k": ["a", "b", None, "c"],
        "n": [2, 2, 1, 1],
        "low": ["a", "b", None, "c"],
        "distinct": [1, 1, 0, 1],
    }


def test_no_rows_give_no_groups_and_without_keys_one_row() -> None:
    empty = pa.table({"k": pa.array([], pa.string()), "x": pa.array([], pa.int32())})
    named = {"n": "size", "s": ("x", "sum"), "v": ("x", "var"), "u": ("x", "nunique")}
    assert aggregated(empty, of(("k",), **named), [0]).num_rows == 0
    assert aggregated(empty, of((), **named), []).to_pylist() == [
        {"n": 0, "s": None, "v": None, "u": 0}
    ]


def test_a_part_of_nulls_alone_takes_the_others_type() -> None:
    grouping = of(("k",), s=("x", "sum"), m=("x", "max"))
    nulls = pa.table({"k": pa.nulls(2), "x": pa.nulls(2)})
    known = pa.table({"k": ["a"], "x": pa.array([3], pa.int64())})
    for left, right in ((nulls, known), (known, nulls)):
        found = finish(combine(partial(left, grouping), partial(right, grouping)), grouping)
        assert sorted(found.to_pylist(), key=str) == [
            {"k": "a", "s": 3, "m": 3},
            {"k": None, "s": None, "m": None},
        ]


@pytest.mark.parametrize("keys", [(), ("k",)])
def test_every_function_of_nulls_alone(keys: tuple[str, ...]) -> None:
    table = pa.table({"k": [1, 1], "x": pa.nulls(2)})
    named = {name: ("x", name) for name in FUNCTIONS if name != "size"}
    found = aggregated(table, of(keys, **named), [1]).to_pylist()[0]
    assert found.pop("count") == found.pop("nunique") == 0
    found.pop("k", None)
    assert set(found.values()) == {None}


@settings(max_examples=50, deadline=None)
@given(ROWS, CUTS)
def test_without_keys_the_answer_is_that_of_one_group(
    rows: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    table = pa.table(
        {
            "one": pa.array([0] * len(rows), pa.int8()),
            "s": pa.array([row[0] for row in rows], pa.string()),
            "i": pa.array([row[1] for row in rows], pa.int64()),
            "f": pa.array([row[2] for row in rows], pa.float32()),
            "b": pa.array([row[1] is None for row in rows], pa.bool_()),
            "t": pa.array([row[1] for row in rows], pa.timestamp("ns", "UTC")),
            "d": pa.array([row[0] for row in rows], pa.dictionary(pa.int8(), pa.string())),
        }
    )
    named: dict[str, Any] = {"rows": "size", "any": ("b", "any"), "all": ("b", "all")}
    for column in "sifbtd":
        for function in ("min", "max", "first", "last", "count", "nunique"):
            named[f"{column} {function}"] = (column, function)
    for column in "if":
        for function in ("sum", "mean", "var"):
            named[f"{column} {function}"] = (column, function)
    alone = aggregated(table, of((), **named), cuts)
    keyed = aggregated(table, of(("one",), **named), cuts).drop_columns("one")
    if not rows:
        return
    assert alone.schema == keyed.schema
    one, other = alone.to_pylist()[0], keyed.to_pylist()[0]
    for name in one:
        if name in ("f sum", "f mean", "f var", "i var") and one[name] is not None:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-3)
        else:
            assert one[name] == other[name]


def test_a_column_that_changes_its_type_is_named() -> None:
    grouping = of((), s=("x", "count"))
    a, b = (partial(pa.table({"x": v}), grouping) for v in ([1], ["a"]))
    with pytest.raises(InvalidTypeError, match="'x' is int64 in one part and string"):
        combine(a, b)


@pytest.mark.parametrize("function", ["sum", "mean", "var"])
def test_functions_that_a_type_has_not_are_refused(function: str) -> None:
    table = pa.table({"x": ["a"]})
    with pytest.raises(InvalidTypeError, match="'x' is string"):
        aggregated(table, of((), y=("x", function)), [])


def test_descriptions_are_checked() -> None:
    assert named_aggregates({"x": ["sum", "max"], "y": "count"}, {}) == (
        Aggregate("x_sum", "x", "sum"),
        Aggregate("x_max", "x", "max"),
        Aggregate("y_count", "y", "count"),
    )
    with pytest.raises(InvalidArgumentError, match="median"):
        named_aggregates({"x": "median"}, {})
    with pytest.raises(InvalidArgumentError, match="two aggregates"):
        named_aggregates({"x": "sum"}, {"x_sum": ("y", "sum")})
    with pytest.raises(InvalidArgumentError, match="at least one"):
        named_aggregates({}, {})
    with pytest.raises(InvalidTypeError, match="column, function"):
        named_aggregates(None, {"a": "b"})
    with pytest.raises(InvalidArgumentError, match="no column 'z'; there are x"):
        partial(pa.table({"x": [1]}), of(("z",), n="size"))


def test_many_groups_of_two_keys_come_in_the_order_of_their_first_rows() -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "a": rng.integers(0, 50, 4000),
            "b": pa.array([f"c{k}" for k in rng.integers(0, 5, 4000)]),
            "x": rng.normal(size=4000),
        }
    )
    found = aggregated(table, of(("a", "b"), v=("x", "var")), [1000, 1001, 3000]).to_pandas()
    by = table.to_pandas().groupby(["a", "b"], sort=False)["x"].var().reset_index()
    assert found[["a", "b"]].equals(by[["a", "b"]])
    np.testing.assert_allclose(found["v"], by["x"], rtol=1e-9)


@pytest.mark.parametrize("keys", [(), ("k",)])
@pytest.mark.parametrize("functions", ["size", ["size"], ["size", "sum"]])
def test_the_size_of_a_column_is_that_of_its_group(keys: tuple[str, ...], functions: Any) -> None:
    table = pa.table({"k": ["a", "b", "a"], "x": [1, None, 3]})
    grouping = Grouping(keys, named_aggregates({"x": functions}, {}))
    answer = finish(partial(table, grouping), grouping)
    assert answer["x_size"].to_pylist() == ([2, 1] if keys else [3])
