"""The demo's reduction against pandas, without Ray; and what its check and report say."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agentic_ray.demo import check, report
from agentic_ray.demo.flights import COLUMN_TYPES, Delays, Moments, delays_of, worst_routes
from agentic_ray.demo.run import JobReport, flights_file
from agentic_ray.errors import CheckFailedError
from agentic_ray.schedule.metrics import Metrics, PlacementRecord

SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMN_TYPES.items()])
NUMBERS = np.arange(10.0)

flights_rows = st.lists(
    st.tuples(
        st.sampled_from(["AA", "UA", "é", None]),
        st.sampled_from(["EWR", "JFK"]),
        st.sampled_from(["LAX", "TYS", "MIA"]),
        st.one_of(st.none(), st.integers(-80, 1300)),
    ),
    max_size=60,
)


def table_of(rows: list[tuple[Any, ...]]) -> Any:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 4
    return pa.table([pa.array(column) for column in columns], names=SCHEMA.names).cast(SCHEMA)


def by_pandas(rows: list[tuple[Any, ...]]) -> Delays:
    frame = pd.DataFrame(rows, columns=SCHEMA.names).astype({"arr_delay": float})
    return Delays(
        check._grouped(frame.groupby("carrier")["arr_delay"]),
        check._grouped(frame.groupby(["origin", "dest"])["arr_delay"]),
    )


@settings(deadline=None)
@given(rows=flights_rows, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_moments_of_any_parts_merge_to_pandas_results(
    rows: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [delays_of(table_of(rows[low:high])) for low, high in itertools.pairwise(edges)]
    found = functools.reduce(Delays.merge, parts, Delays())
    squares = float(np.sum(NUMBERS * NUMBERS))
    check.compare(found, by_pandas(rows), squares, NUMBERS)


def test_variance_keeps_its_digits_far_from_zero() -> None:
    values = np.random.default_rng(0).normal(1e9, 1.0, 10_000)
    parts = [
        Moments(len(part), float(part.mean()), float(((part - part.mean()) ** 2).sum()))
        for part in np.array_split(values, 37)
    ]
    merged = functools.reduce(Moments.merge, parts)
    assert merged.count == 10_000
    assert merged.std == pytest.approx(float(np.std(values, ddof=1)), rel=1e-9)


def test_one_flight_has_no_deviation() -> None:
    moments = delays_of(table_of([("AA", "EWR", "LAX", 5)])).by_carrier["AA"]
    assert (moments.count, moments.mean) == (1, 5.0)
    assert math.isnan(moments.std)


def test_worst_routes_leave_out_rare_ones_and_break_ties_by_name() -> None:
    by_route = {
        ("JFK", "LAX"): Moments(200, 5.0, 0.0),
        ("EWR", "LAX"): Moments(200, 5.0, 0.0),
        ("EWR", "TYS"): Moments(99, 50.0, 0.0),
        ("EWR", "MIA"): Moments(100, 1.0, 0.0),
    }
    names = [route for route, _ in worst_routes(by_route, 2, 100)]
    assert names == [("EWR", "LAX"), ("JFK", "LAX")]


DELAYS = Delays({"AA": Moments(3, 2.0, 6.0)}, {("EWR", "LAX"): Moments(300, 2.0, 6.0)})


@pytest.mark.parametrize(
    ("wrong", "squares", "message"),
    [
        (Delays({"AA": Moments(4, 2.0, 6.0)}, DELAYS.by_route), 285.0, "flights of carrier AA: 4"),
        (Delays({"AA": Moments(3, 2.1, 6.0)}, DELAYS.by_route), 285.0, "mean of carrier AA: 2.1"),
        (Delays({"AA": Moments(3, math.nan, 6.0)}, DELAYS.by_route), 285.0, "mean of carrier AA"),
        (Delays(DELAYS.by_carrier, {}), 285.0, "routes: "),
        (
            Delays(DELAYS.by_carrier, {("EWR", "LAX"): Moments(300, 2.0, 7.0)}),
            285.0,
            "standard deviation of route EWR→LAX",
        ),
        (DELAYS, 285.0 * (1 + 1e-8), "sum of squares"),
    ],
)
def test_the_check_finds_any_difference(wrong: Delays, squares: float, message: str) -> None:
    agreement = check.compare(DELAYS, DELAYS, 285.0, NUMBERS)
    assert (agreement.compared, agreement.largest_relative_difference) == (9, 0.0)
    with pytest.raises(CheckFailedError) as caught:
        check.compare(wrong, DELAYS, squares, NUMBERS)
    assert message in str(caught.value)


def results(**changes: Any) -> report.Results:
    record = PlacementRecord(
        "map[function+other]-0123456789abcdef/17",
        "n" * 28,
        "cpu",
        None,
        0.25,
        "least [loaded]",
        0.0,
        0.25,
    )
    metrics = Metrics(0.9, 0.1, 1.0, 1.0, 0.01, 1.0, 0.9, 2, 30, 20)
    jobs = [JobReport("flights", [record] * 20, metrics), JobReport("squares", [], metrics)]
    made = report.Results("flights.csv", DELAYS, 10, 285.0, jobs, None, None)
    return dataclasses.replace(made, **changes)


def shown(made: report.Results, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    report.show(made, console, **options)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_tables_show_results_placements_and_figures() -> None:
    text = " ".join(shown(results()).split())  # titles wrap at their table's width
    for expected in (
        "EWR → LAX",
        "least [loaded]",
        "map[function+ot…3456789abcdef/17",
        "and 8 more",
        "at least 100 arrivals",
        "285.0",
        "efficiency: busy seconds",
    ):
        assert expected in text
    assert "check" not in text
    assert "more" not in shown(results(), all_placements=True)


def test_the_outcome_of_the_check_is_shown() -> None:
    assert "check passed: 9 results" in shown(results(agreement=check.Agreement(9, 1e-15)))
    assert "check failed: mean [x] differs" in shown(results(failure="mean [x] differs"))


def test_json_is_strict_and_complete() -> None:
    one = Delays({"AA": Moments(1, 2.0, 0.0)}, {})
    made = results(delays=one, failure="no")
    loaded = json.loads(report.as_json(made))
    assert loaded["carriers"] == [
        {"carrier": "AA", "flights": 1, "mean_minutes": 2.0, "std_minutes": None}
    ]
    assert loaded["check"] == {"passed": False, "message": "no"}
    assert len(loaded["jobs"]["flights"]["placements"]) == 20
    assert loaded["jobs"]["flights"]["metrics"]["efficiency"] == 0.9


def test_the_data_file_is_found_without_importing_its_package() -> None:
    assert Path(flights_file()).name == "flights.csv.zip"


def test_a_missing_data_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"agentic-ray\[demo\]"):
        flights_file()
