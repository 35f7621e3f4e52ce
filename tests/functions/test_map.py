"""`ar.function`, `ar.map` and `ar.ml.predict` on CPUs, over the shared Ray; cards in
``tests/runtime``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.errors import (
    BlockResultError,
    ImpossibleResourcesError,
    InvalidArgumentError,
    InvalidTypeError,
    NoSuitableDeviceError,
)
from agentic_ray.functions import Function

pytestmark = pytest.mark.usefixtures("ray_session")


def test_results_are_in_order_and_one_for_each_item() -> None:
    @ar.function(batch_size=7)
    def doubled(numbers: list[int]) -> list[int]:
        assert 1 <= len(numbers) <= 7
        return [2 * number for number in numbers]

    assert list(ar.map(doubled, range(100))) == [2 * i for i in range(100)]
    assert list(ar.map(doubled, [])) == []
    assert ar.map_reduce(doubled, range(100), lambda a, b: a + b) == 9900
    assert doubled([1, 2]) == [2, 4]


def test_setup_is_called_once_a_process(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def setup() -> int:
        with made.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return 10

    @ar.function(setup=setup)
    def scaled(ten: int, number: int) -> tuple[int, int]:
        return ten * number, os.getpid()

    results = list(ar.map(scaled, range(50)))
    assert [value for value, _ in results] == [10 * i for i in range(50)]
    setups = made.read_text().split()
    assert len(setups) == len(set(setups))
    assert {str(pid) for _, pid in results} <= set(setups)


def test_items_are_read_as_results_are_taken() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100_000):
            read.append(i)
            yield i

    @ar.function(max_concurrency=2, batch_size=3)
    def same(numbers: list[int]) -> list[int]:
        return numbers

    with ar.map(same, items()) as results:
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        assert len(read) <= 3 * 4
    with pytest.raises(StopIteration):
        next(results)


def test_errors_arrive_as_their_own_type() -> None:
    @ar.function
    def picky(number: int) -> int:
        if number == 7:
            raise LookupError("seven")
        return number

    with pytest.raises(LookupError, match="seven") as error:
        list(ar.map(picky, range(20)))
    assert error.value.element_index == 7  # type: ignore[attr-defined]

    @ar.function(batch_size=4)
    def wrong(numbers: list[int]) -> list[int]:
        return numbers[1:]

    with pytest.raises(BlockResultError, match=r"one result for each of the \d items"):
        list(ar.map(wrong, range(8)))

    def broken() -> None:
        raise OSError("no such model")

    @ar.function(setup=broken)
    def never(model: None, number: int) -> int:
        return number

    with pytest.raises(OSError, match="no such model"):
        list(ar.map(never, [1]))


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    died = tmp_path / "died"

    @ar.function
    def mortal(number: int) -> int:
        if number == 3 and not died.exists():
            died.touch()
            os._exit(1)
        return -number

    assert list(ar.map(mortal, range(8))) == [-i for i in range(8)]


def test_without_a_gpu_it_is_refused_or_runs_on_a_cpu() -> None:
    @ar.function(gpu_memory="1 GB")
    def only(number: int) -> int:
        return number

    with pytest.raises(NoSuitableDeviceError, match="no GPU"):
        list(ar.map(only, [1]))

    @only.cpu
    def instead(number: int) -> int:
        return -number

    assert list(ar.map(only, [1, 2])) == [-1, -2]

    @ar.function(gpus=0.5)
    def either(number: int, *, device: str) -> str:
        return f"{device} {number}"

    assert list(ar.map(either, [1])) == ["cpu 1"]
    with pytest.raises(NoSuitableDeviceError, match="no GPU"):
        ar.reserve(gpus=1)
    with pytest.raises(ImpossibleResourcesError, match="CPUs"):
        list(ar.map(Function(abs, cpus=4096), [1]))


def test_rows_of_arrays() -> None:
    rows = np.arange(3000.0).reshape(1000, 3)

    @ar.function(batch_size=64)
    def summed(batch: Any) -> Any:
        assert isinstance(batch, np.ndarray)
        return batch.sum(axis=1)

    assert np.array_equal(ar.ml.predict(summed, rows), rows.sum(axis=1))
    chunked = xp.from_numpy(rows) if hasattr(xp, "from_numpy") else xp.asarray(rows)
    assert np.array_equal(ar.ml.predict(summed, chunked), rows.sum(axis=1))
    assert ar.ml.predict(lambda rows: [str(row) for row in rows], range(3)) == ["0", "1", "2"]

    class Model:
        def predict_proba(self, rows: Any) -> Any:
            return rows[:, :2] / 2

    got = ar.ml.predict(Model(), rows, method="predict_proba", batch_size=100)
    assert np.array_equal(got, rows[:, :2] / 2)


@pytest.mark.parametrize(
    "options",
    [
        {"gpus": 2},
        {"gpus": -0.1},
        {"gpus": float("nan")},
        {"gpus": True},
        {"gpu_memory": "much"},
        {"gpu_memory": 0},
        {"gpu_memory": 1.5},
        {"memory": -1},
        {"cpus": "2"},
        {"batch_size": 0},
        {"batch_size": "large"},
        {"batch_size": True},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        ar.function(**options)(abs)


def test_what_is_no_function_and_what_has_no_items() -> None:
    wrong: Any = 5
    with pytest.raises(InvalidTypeError):
        ar.function(wrong)
    with pytest.raises(InvalidTypeError):
        ar.function(setup=wrong)(abs)
    for data in (wrong, "text", np.array(3.0)):
        with pytest.raises(InvalidTypeError):
            ar.map(abs, data)
    with pytest.raises(InvalidTypeError):
        ar.ml.predict(object(), [1])
    with pytest.raises(InvalidArgumentError):
        ar.ml.predict(ar.function(abs), [1], batch_size=3)
    with pytest.raises(InvalidArgumentError, match="said where it is made"):
        ar.map_reduce(ar.function(abs), [1], tag="gpu")


def test_a_table_is_mapped_by_its_rows_and_a_column_by_its_values() -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}, index=[5, 6, 7])
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}]

    def same(row: Any) -> Any:
        return row

    assert list(ar.map(same, frame)) == rows
    assert list(ar.map(same, pa.Table.from_pandas(frame, preserve_index=False))) == rows
    assert list(ar.map(ar.function(len, batch_size=None), frame)) == [2, 2, 2]
    assert ar.map_reduce(ar.function(same), frame) == rows
    assert list(ar.map(same, frame["b"])) == ["x", "y", "z"]
    with pytest.raises(InvalidArgumentError, match="several columns named 'a'"):
        ar.map(same, pd.DataFrame(np.eye(2), columns=["a", "a"]))
    with pytest.raises(InvalidTypeError, match="gives its columns"):
        ar.map(same, pa.Table.from_pandas(frame).to_reader())


def test_a_text_is_refused_and_both_readings_are_named() -> None:
    with pytest.raises(InvalidTypeError, match=r"'abc'.*its characters or a file"):
        ar.map(abs, "abc")


@pytest.mark.parametrize("length", [3, 1_000_000])
def test_results_can_be_written_to_whatever_their_size(length: int) -> None:
    def made(_: int) -> Any:
        return {"ones": np.ones(length)}

    (one,) = ar.map(made, [0])
    one["ones"][0] = 5.0
    two = ar.submit(ar.function(made), 0).result()
    two["ones"][0] = 5.0
    assert one["ones"].sum() == two["ones"].sum() == length + 4


@pytest.mark.parametrize("read", [0, 1, 300])
def test_items_that_raise_lose_no_result_before_them(read: int) -> None:
    def numbers() -> Iterator[int]:
        yield from range(read)
        raise KeyError("unread")

    results = ar.map(abs, numbers())
    found: list[int] = []
    with pytest.raises(KeyError, match="unread"):
        found.extend(results)
    assert found == list(range(read))
    assert list(results) == []


def test_threads_share_the_results() -> None:
    results = ar.map(abs, range(300))
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(list, [results] * 4))
    assert sorted(itertools.chain(*taken)) == list(range(300))
