"""Every kind of data that map_reduce takes, and those it refuses."""

from __future__ import annotations

import array
import collections
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import agentic_ray as ar
from agentic_ray.errors import (
    EmptyInputError,
    InvalidArgumentError,
    InvalidTypeError,
)

pytestmark = pytest.mark.usefixtures("ray_session")


def double(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([1, 2, 3], id="list"),
        pytest.param((4, 5), id="tuple"),
        pytest.param([7], id="one element"),
        pytest.param([], id="empty list"),
        pytest.param(range(5), id="range"),
        pytest.param(range(10, 0, -3), id="range with a negative step"),
        pytest.param(range(10**40, 10**40 + 7, 2), id="range of large ints"),
        pytest.param(range(0), id="empty range"),
        pytest.param(range(5, 5, -1), id="empty falling range"),
        pytest.param(collections.deque([1, 2, 3]), id="deque"),
        pytest.param(collections.UserList([1, 2, 3]), id="UserList"),
        pytest.param(array.array("i", [1, 2, 3]), id="array.array"),
        pytest.param({"a": 1, "b": 2}, id="dict"),
        pytest.param({3, 1, 2}, id="set"),
        pytest.param(frozenset([5]), id="frozenset"),
        pytest.param({"a": 1}.values(), id="dict view"),
        pytest.param([0, -1, 10**50, -(10**50)], id="ints of any size"),
        pytest.param(["a", "bc", ""], id="strings"),
        pytest.param([b"ab", b""], id="bytes as elements"),
        pytest.param([[1], [2, 3], []], id="lists as elements"),
        pytest.param([(1,), ()], id="tuples as elements"),
        pytest.param([1.5, 2, True, 1j], id="mixed numbers"),
    ],
)
@pytest.mark.parametrize("chunk_size", ["auto", 2])
def test_a_list_comes_back_in_order(data: Any, chunk_size: Any) -> None:
    assert ar.map_reduce(double, data, chunk_size=chunk_size) == [x * 2 for x in data]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(np.arange(10.0), id="1-d"),
        pytest.param(np.arange(12).reshape(4, 3), id="2-d"),
        pytest.param(np.arange(24).reshape(2, 3, 4), id="3-d"),
        pytest.param(np.empty((0, 3)), id="empty"),
        pytest.param(np.arange(20)[::3], id="strided"),
        pytest.param(np.arange(12).reshape(3, 4).T, id="transposed"),
        pytest.param(np.arange(10)[::-1], id="reversed"),
        pytest.param(np.array([1, 10**30, -1], dtype=object), id="object"),
        pytest.param(np.array([True, False]), id="bool"),
        pytest.param(np.array([1, 2], dtype=">i4"), id="big-endian"),
        pytest.param(np.broadcast_to(np.arange(3), (4, 3)), id="broadcast"),
    ],
)
def test_an_array_is_mapped_along_its_first_axis(data: np.ndarray[Any, Any]) -> None:
    found = ar.map_reduce(lambda row: row + row, data, chunk_size=3)
    assert len(found) == len(data)
    for row, expected in zip(found, data, strict=True):
        np.testing.assert_array_equal(row, expected + expected)


def test_a_structured_array_gives_records() -> None:
    data = np.array([(1, 2.5), (3, 4.5)], dtype=[("count", "i4"), ("weight", "f8")])
    assert ar.map_reduce(lambda r: float(r["count"] * r["weight"]), data, operator.add) == 16.0


def test_a_read_only_array_is_mapped_and_left_as_it_was() -> None:
    data = np.arange(6.0)
    data.flags.writeable = False
    assert ar.map_reduce(float, data, operator.add) == 15.0
    assert data.sum() == 15.0


def test_a_large_array_travels_through_the_object_store() -> None:
    data = np.arange(300_000, dtype=np.float64)
    assert ar.map_reduce(float, data, operator.add) == float(data.sum())


def test_a_0d_array_is_refused_with_advice() -> None:
    with pytest.raises(InvalidTypeError, match="reshape"):
        ar.map_reduce(double, np.array(3))


@pytest.mark.parametrize("data", [b"ab", bytearray(b"ab"), 5, None, object(), 1.5])
def test_what_is_no_collection_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="cannot map over"):
        ar.map_reduce(double, data)


def test_an_iterator_is_read_once_and_to_its_end() -> None:
    iterator = iter(range(1000))
    assert ar.map_reduce(double, iterator, operator.add) == 999_000
    assert next(iterator, None) is None


def test_an_iterator_is_read_as_it_is_needed() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(1_000_000_000):
            read.append(i)
            yield i

    def fail_at_40(x: int) -> int:
        if x == 40:
            raise ValueError("far enough")
        return x

    with pytest.raises(ValueError, match="far enough"):
        ar.map_reduce(fail_at_40, numbers(), operator.add)
    assert 40 < len(read) < 10_000_000


def test_a_cyclic_element_is_sent_as_it_is() -> None:
    ring: list[Any] = []
    ring.append(ring)
    assert ar.map_reduce(lambda x: x[0][0] is x, [ring, ring]) == [True, True]


def test_deeply_nested_elements_are_sent_as_they_are() -> None:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    assert ar.map_reduce(len, [nested] * 3) == [1, 1, 1]


def test_a_huge_range_is_not_listed() -> None:
    with pytest.raises(ZeroDivisionError):
        ar.map_reduce(lambda x: 1 / 0, range(10**30), operator.add)


# --- object refs -------------------------------------------------------------------------


def test_an_object_ref_of_an_array_is_mapped_where_it_is() -> None:
    data = np.arange(200_000, dtype=np.float64)
    ref = ray.put(data)
    assert ar.map_reduce(float, ref, operator.add) == float(data.sum())
    assert ar.map_reduce(np.sum, [ray.put(data), ray.put(data[:3])], operator.add) == float(
        data.sum() + data[:3].sum()
    )


def test_an_object_ref_of_something_else_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="NumPy arrays"):
        ar.map_reduce(double, ray.put({"a": 1}))


# --- files -------------------------------------------------------------------------------


def test_a_path_is_read_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("one\ntwo\n\nthree\n")
    for given in (path, ar.sources.text_lines(str(path))):
        assert ar.map_reduce(len, given) == [3, 3, 0, 5]
    assert ar.map_reduce(len, path, operator.add) == 11


def test_an_empty_file_is_an_empty_input(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("")
    assert ar.map_reduce(len, path) == []
    assert ar.map_reduce(len, path, operator.add, initial=5) == 5
    with pytest.raises(EmptyInputError):
        ar.map_reduce(len, path, operator.add)


def test_lines_of_many_parts_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    lines = [f"{i:06d}" for i in range(5000)]
    path.write_text("\n".join(lines))
    source = ar.sources.text_lines(path, part_bytes=1000)
    assert ar.map_reduce(str, source, operator.add) == "".join(lines)


def test_csv_is_read_as_tables(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i * 2}\n" for i in range(100)))
    total = ar.map_reduce(
        lambda table: sum(table["a"].to_pylist() + table["b"].to_pylist()), path, operator.add
    )
    assert total == 3 * sum(range(100))


def test_parquet_is_read_by_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path, row_group_size=100)
    values = ar.map_reduce(lambda table: table["a"].to_pylist(), path, operator.add)
    assert values == list(range(1000))


def test_a_missing_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ar.map_reduce(len, tmp_path / "absent.csv")


@pytest.mark.parametrize("text", ["hello", "", __file__, "x" * 1000])
def test_a_str_is_refused_with_both_readings(text: str) -> None:
    with pytest.raises(InvalidTypeError, match=r"list\(text\).*pathlib.Path.*text_lines") as caught:
        ar.map_reduce(double, text)
    assert len(str(caught.value)) < 400


# --- arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"chunk_size": 0}, InvalidArgumentError, "chunk_size"),
        ({"chunk_size": -3}, InvalidArgumentError, "chunk_size"),
        ({"chunk_size": 1.5}, InvalidTypeError, "chunk_size"),
        ({"chunk_size": True}, InvalidTypeError, "chunk_size"),
        ({"chunk_size": "big"}, InvalidTypeError, "chunk_size"),
        ({"chunk_size": None}, InvalidTypeError, "chunk_size"),
        ({"tag": "tpu"}, InvalidArgumentError, "tag"),
        ({"tag": None}, InvalidArgumentError, "tag"),
        ({"priority": "high"}, InvalidTypeError, "priority"),
        ({"initial": 0}, InvalidArgumentError, "initial"),
        ({"reduce_fn": 3}, InvalidTypeError, "reduce_fn"),
    ],
)
def test_unusable_options_are_refused_by_name(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        ar.map_reduce(double, [1, 2], **options)


def test_a_map_function_must_be_callable() -> None:
    with pytest.raises(InvalidTypeError, match="map_fn"):
        ar.map_reduce(3, [1])  # type: ignore[arg-type]


def test_numpy_chunk_sizes_count_as_ints() -> None:
    assert ar.map_reduce(double, [1, 2, 3], chunk_size=np.int64(2)) == [2, 4, 6]
