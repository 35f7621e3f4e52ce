"""Codelets over blocks of arrays, their blocks, and where they may run."""

from __future__ import annotations

import operator
import threading
from typing import Any

import numpy as np
import pytest
import ray

import agentic_ray as ar
from agentic_ray.errors import NoSuitableDeviceError

pytestmark = pytest.mark.usefixtures("ray_session")


@ar.codelet
def total(block: Any, *, xp: Any) -> float:
    return float(xp.sum(block))


@ar.codelet
def size(block: Any) -> int:
    return len(block)


@ar.codelet
def add(left: Any, right: Any, *, xp: Any) -> Any:
    return xp.add(left, right)


@ar.codelet
def pair(block: Any, *, xp: Any) -> tuple[int, Any]:
    return len(block), xp.asarray(block)[:1].tolist()


def test_blocks_cover_the_rows_once_and_in_order() -> None:
    data = np.arange(10)
    assert ar.map_reduce(pair, data, chunk_size=4) == [(4, [0]), (4, [4]), (2, [8])]
    assert ar.map_reduce(size, data.reshape(5, 2), chunk_size=2) == [2, 2, 1]


@pytest.mark.parametrize("reduce_fn", [operator.add, lambda a, b: a + b, add, np.add])
def test_any_callable_reduces(reduce_fn: Any) -> None:
    data = np.arange(1000.0)
    assert ar.map_reduce(total, data, reduce_fn, chunk_size=64) == data.sum()


@pytest.mark.parametrize(
    "data",
    [
        np.arange(1000.0),
        np.arange(1000.0).reshape(250, 4),
        np.arange(2000.0)[::2],
        range(1000),
        [float(i) for i in range(1000)],
    ],
    ids=["1-d", "2-d", "strided", "range", "list"],
)
def test_sums_agree_with_numpy(data: Any) -> None:
    assert ar.map_reduce(total, data, operator.add) == np.sum(data)
    assert ar.map_reduce(total, data, operator.add, chunk_size=7) == np.sum(data)


def test_an_empty_array_has_no_blocks() -> None:
    assert ar.map_reduce(total, np.empty(0)) == []
    assert ar.map_reduce(total, np.empty((0, 3)), operator.add, initial=1.0) == 1.0


def test_large_arrays_and_object_refs_have_the_same_bits() -> None:
    data = np.random.default_rng(3).standard_normal(1_000_000)
    found = {ar.map_reduce(total, given, operator.add).hex() for given in (data, ray.put(data))}
    for _ in range(3):
        found.add(ar.map_reduce(total, data, operator.add).hex())
    assert len(found) == 1
    halves = [ray.put(data[:524_288]), ray.put(data[524_288:])]
    assert ar.map_reduce(total, halves, operator.add) == pytest.approx(data.sum())


def test_arrays_as_values_are_combined() -> None:
    columns = ar.codelet(lambda block, *, xp: xp.sum(block, axis=0))
    data = np.arange(40_000.0).reshape(10_000, 4)
    np.testing.assert_array_equal(ar.map_reduce(columns, data, operator.add), data.sum(axis=0))


def test_a_codelet_may_change_its_block_without_harm_to_the_data() -> None:
    @ar.codelet
    def negate(block: Any) -> float:
        block = block.copy()
        block *= -1
        return float(block.sum())

    data = np.ones(1000)
    assert ar.map_reduce(negate, data, operator.add) == -1000.0
    assert data.sum() == 1000.0


def test_a_codelet_runs_in_a_thread_of_an_executor_and_a_function_in_a_process() -> None:
    @ar.codelet
    def where(block: Any) -> tuple[bool, str]:
        return threading.current_thread() is threading.main_thread(), ray.util.get_node_ip_address()

    first = ar.map_reduce_job(where, np.arange(4.0), chunk_size=1)
    assert len(first.result()) == 4


def test_an_error_in_a_codelet_comes_home() -> None:
    @ar.codelet
    def fail(block: Any) -> float:
        if block[0] >= 64:
            raise ArithmeticError("block of 64")
        return 0.0

    with pytest.raises(ArithmeticError, match="block of 64") as caught:
        ar.map_reduce(fail, np.arange(128.0), operator.add, chunk_size=32)
    assert caught.value.chunk_index is not None  # type: ignore[attr-defined]
    assert caught.value.element_index in (2, 3)  # type: ignore[attr-defined]


def test_without_a_gpu_the_gpu_tag_runs_on_the_cpu_and_says_so() -> None:
    if any(node.gpus for node in ar.cluster().nodes):
        pytest.skip("this machine has a GPU")
    job = ar.map_reduce_job(total, np.arange(100_000.0), operator.add, tag="gpu")
    assert job.result() == np.arange(100_000.0).sum()
    placements = [p for p in job.placements() if p.node_id != "caller"]
    assert placements
    assert all(p.device == "cpu" for p in placements)
    assert any("no usable GPU" in p.reason for p in placements)


def test_a_gpu_only_codelet_is_refused_at_once() -> None:
    if any(node.gpus for node in ar.cluster().nodes):
        pytest.skip("this machine has a GPU")
    only = ar.Codelet("only_gpu", None, lambda x: x)
    graph = ar.TaskGraph([ar.Task.of(only, 1, key="k")], ["k"])
    run = ar.get_session().submit(graph)
    with pytest.raises(NoSuitableDeviceError, match="only_gpu"):
        run.result(timeout=10)
