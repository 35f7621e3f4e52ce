"""Tables go over their rows, columns over their values, whatever library they are of."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.sources.frames import Column, Rows, sequence_of

COLUMNS = {"count": [1, 2, 3, 4, 5], "name": ["a", "b", None, "d", ""]}
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


def polars(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def pandas(columns: dict[str, Any]) -> Any:
    frame = pd.DataFrame(
        {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    )
    frame.index = pd.Index(range(100, 100 + len(frame)))
    return frame


TABLES: list[Any] = [
    pytest.param(pa.table, id="Arrow table"),
    pytest.param(lambda columns: pa.table(columns).to_batches()[0], id="Arrow batch"),
    pytest.param(pandas, id="pandas"),
    pytest.param(polars, id="polars"),
]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("chunk_size", ["auto", 2])
def test_a_table_goes_over_its_rows(make: Callable[..., Any], chunk_size: Any) -> None:
    assert ar.map_reduce(dict, make(COLUMNS), chunk_size=chunk_size) == ROWS


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("leaf_size", ["auto", 2, 100])
def test_a_fold_goes_through_the_rows(make: Callable[..., Any], leaf_size: Any) -> None:
    found = ar.fold(
        make(COLUMNS), lambda rows, row: [*rows, row], operator.add, [], leaf_size=leaf_size
    )
    assert found == ROWS


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("make", TABLES)
def test_a_codelet_is_given_blocks_of_the_table(make: Callable[..., Any]) -> None:
    @ar.codelet
    def block(part: Any) -> tuple[str, int]:
        return type(part).__name__, int(part.shape[0])

    parts = ar.map_reduce(block, make(COLUMNS), chunk_size=2)
    assert [rows for _, rows in parts] == [2, 2, 1]
    assert {name for name, _ in parts} <= {"Table", "DataFrame"}


@pytest.mark.usefixtures("ray_session")
def test_a_large_table_travels_through_the_object_store() -> None:
    frame = pd.DataFrame({"x": np.arange(50_000.0), "y": np.arange(50_000)})
    expected = float(frame.x.sum() + frame.y.sum())
    for table in (frame, pa.Table.from_pandas(frame)):
        assert ar.map_reduce(lambda r: r["x"] + r["y"], table, operator.add) == expected


@pytest.mark.usefixtures("ray_session")
def test_an_array_of_ours_goes_over_its_rows() -> None:
    found = ar.map_reduce(lambda row: float(row.sum()), xp.reshape(xp.arange(6), (3, 2)))
    assert found == [1.0, 5.0, 9.0]
    with pytest.raises(InvalidTypeError, match="0-d"):
        ar.map_reduce(float, xp.asarray(3))


# --- without Ray ----------------------------------------------------------------------------

values = st.one_of(st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False))
tables = st.dictionaries(st.text(min_size=1, max_size=3), st.just(0), max_size=4).flatmap(
    lambda names: st.integers(0, 7).flatmap(
        lambda rows: st.fixed_dictionaries(
            {name: st.lists(st.integers(-99, 99) | st.none(), min_size=rows, max_size=rows)
             for name in names}
        )
    )
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables.filter(bool), st.integers(0, 7), st.integers(0, 7))
def test_slices_that_travel_are_slices_of_the_rows(columns: Any, start: int, stop: int) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for make in (pa.table, pandas):
        whole = sequence_of(make(columns))
        assert isinstance(whole, Rows)
        assert len(whole) == len(rows)
        function, arguments = whole[start:stop].__reduce__()
        assert list(function(*arguments)) == rows[start:stop]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, None, 4]),
        pa.chunked_array([[1, 2], [None, 4]]),
        pd.Series([1, 2, None, 4], dtype=object, index=[9, 8, 7, 6]),
        pd.Index([1, 2, None, 4], dtype=object),
    ],
)
def test_a_column_goes_over_its_values(column: Any) -> None:
    found = sequence_of(column)
    assert isinstance(found, Column)
    assert list(found) == [1, 2, None, 4]
    function, arguments = found[1:3].__reduce__()
    assert list(function(*arguments)) == [2, None]


def test_a_slice_of_an_arrow_table_takes_only_itself_along() -> None:
    whole = sequence_of(pa.table({"text": ["x" * 100] * 10_000}))
    assert whole is not None
    _, (stream,) = whole[10:20].__reduce__()
    assert len(stream) < 5_000


def test_columns_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="several columns named 'a'"):
        sequence_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))


class OtherTable:
    """As a table of a library that is not known here; iterating gives names."""

    columns = ("a",)
    dtypes = (int,)

    def __iter__(self) -> Any:
        return iter(self.columns)


def test_other_tables_are_refused_with_advice() -> None:
    with pytest.raises(InvalidTypeError, match=r"pyarrow\.Table"):
        sequence_of(OtherTable())


def test_a_lazy_frame_and_a_dataset_say_what_to_do() -> None:
    frame = polars({"a": [1]}).lazy()
    with pytest.raises(InvalidTypeError, match="collect"):
        sequence_of(frame)
    xarray = pytest.importorskip("xarray")
    with pytest.raises(InvalidTypeError, match="first axis"):
        sequence_of(xarray.Dataset({"a": ("x", [1, 2])}))
    assert sequence_of(xarray.DataArray([1, 2])) is None


@pytest.mark.parametrize("data", [[1], (1,), {"a": 1}, {1}, range(3), np.arange(3), iter([]), 3])
def test_what_is_no_table_is_left_alone(data: Any) -> None:
    assert sequence_of(data) is None
