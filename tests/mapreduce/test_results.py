"""What comes out: values, their order, their bits, and the empty input."""

from __future__ import annotations

import functools
import math
import operator
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import EmptyInputError

pytestmark = pytest.mark.usefixtures("ray_session")

quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
chunk_sizes = st.one_of(st.just("auto"), st.integers(1, 40))


# --- empty and tiny ----------------------------------------------------------------------


def test_an_empty_input_is_its_initial_value_or_an_error() -> None:
    assert ar.map_reduce(abs, [], operator.add, initial=7) == 7
    assert ar.map_reduce(abs, iter(()), operator.add, initial=7) == 7
    assert ar.map_reduce(abs, []) == []
    for empty in ([], range(0), iter(()), np.empty(0)):
        with pytest.raises(EmptyInputError) as caught:
            ar.map_reduce(abs, empty, operator.add)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, TypeError)  # as functools.reduce raises


def test_one_element_is_mapped_and_not_reduced() -> None:
    def never(left: Any, right: Any) -> Any:
        raise AssertionError("nothing to combine")

    assert ar.map_reduce(abs, [-3], never) == 3
    assert ar.map_reduce(abs, iter([-3]), never) == 3


def test_initial_is_combined_once_from_the_left() -> None:
    assert ar.map_reduce(str, range(12), operator.add, initial=">") == ">01234567891011"
    assert ar.map_reduce(str, range(12), operator.add, initial=">", chunk_size=5) == (
        ">01234567891011"
    )
    assert ar.map_reduce(abs, [2], operator.add, initial=None or 0) == 2
    assert ar.map_reduce(lambda x: [x], [2], operator.add, initial=[]) == [2]


def test_none_is_a_value_like_any_other() -> None:
    assert ar.map_reduce(lambda x: None, range(5)) == [None] * 5
    assert ar.map_reduce(lambda x: None, range(5), lambda a, b: None) is None


def test_nan_and_infinities_pass_through() -> None:
    assert math.isnan(ar.map_reduce(float, [1.0, float("nan"), 2.0], operator.add))
    assert ar.map_reduce(float, [1.0, float("inf")], operator.add) == float("inf")
    assert math.isnan(ar.map_reduce(float, [float("inf"), float("-inf")], operator.add))
    assert math.copysign(1, ar.map_reduce(float, [-0.0, -0.0], operator.add)) == -1.0


# --- order and bits ----------------------------------------------------------------------


@quick
@given(st.lists(st.text(max_size=4), min_size=1, max_size=60), chunk_sizes)
def test_order_is_kept_whatever_the_chunks(words: list[str], chunk_size: Any) -> None:
    expected = functools.reduce(operator.add, words)
    assert ar.map_reduce(str, words, operator.add, chunk_size=chunk_size) == expected


@quick
@given(st.lists(st.integers(), max_size=60), chunk_sizes)
def test_integers_agree_with_functools_reduce(numbers: list[int], chunk_size: Any) -> None:
    expected = functools.reduce(operator.add, (x * x for x in numbers), 0)
    found = ar.map_reduce(lambda x: x * x, numbers, operator.add, initial=0, chunk_size=chunk_size)
    assert found == expected


@quick
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=80)
)
def test_floats_agree_with_numpy_and_with_themselves(numbers: list[float]) -> None:
    found = ar.map_reduce(float, numbers, operator.add)
    assert found == pytest.approx(math.fsum(numbers), rel=1e-9, abs=1e-6 * max(map(abs, numbers)))
    assert ar.map_reduce(float, np.array(numbers), operator.add).hex() == found.hex()
    assert ar.map_reduce(float, iter(numbers), operator.add).hex() == found.hex()


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 4097, 20_001])
def test_automatic_chunks_never_change_a_bit(count: int) -> None:
    source = random.Random(count)
    data = [source.uniform(-1, 1) * 10 ** source.randint(-12, 12) for _ in range(count)]

    def fresh(shift: float) -> Any:
        return lambda x: x + shift * 0.0  # a new name for the cost model: cold

    found = {
        ar.map_reduce(fresh(float(i)), data, operator.add).hex()  # cold, then ...
        for i in range(2)
    }
    warm = fresh(9.0)
    for given_data in (data, np.array(data), iter(data), tuple(data), (x for x in data)):
        found.add(float(ar.map_reduce(warm, given_data, operator.add)).hex())  # ... ever warmer
    assert len(found) == 1


def test_equal_chunk_sizes_give_equal_bits_from_any_input() -> None:
    source = random.Random(5)
    data = [source.uniform(-1, 1) * 10 ** source.randint(-12, 12) for _ in range(5000)]
    for chunk_size in (1, 7, 64, 5000, 10**9):
        if chunk_size == 1:
            continue  # 5,000 calls; a power of two is the same tree as automatic
        found = {
            float(ar.map_reduce(float, given, operator.add, chunk_size=chunk_size)).hex()
            for given in (data, np.array(data), iter(data))
        }
        assert len(found) == 1, chunk_size


def test_a_power_of_two_as_chunk_size_is_the_automatic_tree() -> None:
    source = random.Random(6)
    data = [source.uniform(-1, 1) * 10 ** source.randint(-12, 12) for _ in range(3000)]
    automatic = ar.map_reduce(float, data, operator.add).hex()
    assert ar.map_reduce(float, data, operator.add, chunk_size=256).hex() == automatic


# --- what is called ----------------------------------------------------------------------


class Adder:
    def __init__(self, amounts: list[int]) -> None:
        self.amounts = amounts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and self.amounts == other.amounts

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: int) -> int:
        return x + sum(self.amounts)


def test_callables_of_all_kinds() -> None:
    assert ar.map_reduce(abs, [-1, 2]) == [1, 2]
    assert ar.map_reduce(functools.partial(pow, 2), [3, 4]) == [8, 16]
    assert ar.map_reduce("ab".join, ["xy", "z"]) == ["xaby", "z"]
    assert ar.map_reduce(int, ["3", "4"], max) == 4
    assert ar.map_reduce(operator.itemgetter(0), ["ab", "c"]) == ["a", "c"]
    assert ar.map_reduce(np.sqrt, [4.0], operator.add) == 2.0


def test_a_callable_without_a_hash_and_its_newest_state() -> None:
    adder = Adder([1])
    assert ar.map_reduce(adder, [1, 2]) == [2, 3]
    adder.amounts.append(10)
    assert ar.map_reduce(adder, [1, 2]) == [12, 13]


def test_a_helper_that_changed_between_two_calls_is_the_new_one() -> None:
    def scaled(x: int) -> int:
        return helper(x)

    namespace: dict[str, Any] = {"factor": 2}
    exec("def inner(x): return x * factor", namespace)
    exec("def helper(x): return inner(x)", namespace)
    helper = namespace["helper"]
    assert ar.map_reduce(scaled, [1, 2]) == [2, 4]
    namespace["factor"] = 3  # two calls below what is sent: no look at `scaled` shows it
    assert ar.map_reduce(scaled, [1, 2]) == [3, 6]


def test_large_captured_values_are_sent() -> None:
    table = np.arange(100_000)
    assert ar.map_reduce(lambda i: int(table[i]), range(0, 100_000, 25_000)) == [
        0,
        25_000,
        50_000,
        75_000,
    ]


# --- sizes -------------------------------------------------------------------------------


def test_large_elements_and_large_results() -> None:
    rows = [np.full(131_072, float(i)) for i in range(8)]
    back = ar.map_reduce(lambda row: row + 1, rows)
    assert [float(row[0]) for row in back] == [float(i + 1) for i in range(8)]
    assert all(len(row) == 131_072 for row in back)
    total = ar.map_reduce(lambda row: row * 2, rows, operator.add)
    np.testing.assert_array_equal(total, np.full(131_072, 2.0 * sum(range(8))))


def test_large_results_that_are_no_arrays() -> None:
    back = ar.map_reduce(lambda i: {"text": "x" * 1_000_000, "i": i}, range(4))
    assert [(len(value["text"]), value["i"]) for value in back] == [
        (1_000_000, i) for i in range(4)
    ]


def test_a_long_first_element_among_many_short_ones() -> None:
    import time

    def work(i: int) -> int:
        time.sleep(0.5 if i == 0 else 0)
        return i

    assert ar.map_reduce(work, range(20_000), operator.add) == sum(range(20_000))


# --- who may write to what ------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("reduce_fn", [None, operator.add])
def test_results_can_be_written_to_whatever_their_size(size: int, reduce_fn: Any) -> None:
    found = ar.map_reduce(lambda i: np.full(size, i), [1, 2], reduce_fn)
    arrays = found if reduce_fn is None else [found]
    for array in arrays:
        array[0] = 7
        assert array[0] == 7


@pytest.mark.parametrize("size", [3, 100_000])
def test_arrays_inside_results_can_be_written_to(size: int) -> None:
    def make(i: int) -> dict[str, Any]:
        kept = np.zeros(size)
        kept.flags.writeable = False
        return {"array": np.zeros(size), "frame": pd.DataFrame({"x": np.zeros(size)}), "kept": kept}

    for found in ar.map_reduce(make, range(2)):
        found["array"][0] = found["kept"][0] = 1
        found["frame"].iloc[0, 0] = 1
        assert found["frame"].x.sum() == found["array"].sum() == found["kept"].sum() == 1


@pytest.mark.parametrize("rows", [4, 40_000])
def test_elements_can_be_written_to_whatever_the_size_of_the_data(rows: int) -> None:
    data = np.ones((rows, 4), order="F")

    def write(row: Any) -> float:
        row[0] = 5
        return float(row.sum())

    assert ar.map_reduce(write, data, operator.add) == 8.0 * rows
    assert data.sum() == 4 * rows


@pytest.mark.parametrize("rows", [4, 40_000])
def test_blocks_are_read_only_whatever_the_size_of_the_data(rows: int) -> None:
    @ar.codelet
    def flags(block: Any) -> tuple[bool, bool]:
        return block.flags.writeable, block.flags.c_contiguous

    for data in (np.ones((rows, 4)), np.ones((rows, 4), order="F")):
        assert set(ar.map_reduce(flags, data, chunk_size=rows // 2)) == {(False, True)}
