"""Dask's collections under our scheduler give what they give under Dask's threads."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import agentic_ray as ar
from agentic_ray.errors import (
    BlockResultError,
    InvalidArgumentError,
    InvalidTypeError,
    MissingKeyError,
    PoisonTaskError,
)
from agentic_ray.runtime import Stored

pytestmark = pytest.mark.usefixtures("ray_session")


def get(*args: Any, **options: Any) -> Any:
    return ar.interop.dask.get(*args, **options)


# --- graphs ------------------------------------------------------------------------------

OLD: dict[Any, Any] = {
    "x": 1,
    ("y", 0): (operator.add, "x", 10),
    "list": ["x", ("y", 0)],
    "sum": (sum, ["x", ("y", 0), (operator.mul, "x", 5)]),
    "other": "sum",
    "again": "other",
    "text": "no key",
    "dict": (dict, [["a", "x"]]),
    "big": np.arange(20_000.0),
    "total": (np.sum, "big"),
}
NEW: dict[Any, Any] = {
    "x": DataNode("x", 1),
    ("y", 0): Task(("y", 0), operator.add, TaskRef("x"), 10),
    "list": List(TaskRef("x"), Task(None, operator.neg, TaskRef(("y", 0)))),
    "kwargs": Task("kwargs", int, TaskRef("text"), base=TaskRef("sixteen")),
    "text": DataNode("text", "ff"),
    "sixteen": Task("sixteen", operator.add, 8, 8),
    "other": Alias("other", "kwargs"),
    "nested": Task("nested", sum, List(TaskRef("x"), Task(None, abs, -4))),
}


@pytest.mark.parametrize("graph", [OLD, NEW], ids=["old", "new"])
def test_every_key_of_a_graph(graph: dict[Any, Any]) -> None:
    keys = [*graph, [list(graph)[:2], []], []]
    expected, found = dask.get(graph, keys), get(graph, keys)
    assert str(found) == str(expected)
    assert list(map(type, found)) == list(map(type, expected))
    for key in graph:
        np.testing.assert_equal(get(graph, key), dask.get(graph, key))


def test_keys_that_look_alike_are_told_apart() -> None:
    graph = {"('a', 1)": (abs, -1), ("a", 1): (abs, -2), ("a", "1"): (abs, -3)}
    assert get(graph, [*graph]) == (1, 2, 3)


def test_keys_that_are_not_there() -> None:
    with pytest.raises(MissingKeyError, match="no key 'z'"):
        get({"x": 1}, "z")
    with pytest.raises(LookupError):
        get({"x": Task("x", abs, TaskRef("gone"))}, "x")


def test_options_of_other_schedulers_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match="num_workers"):
        dask.delayed(abs)(1).compute(scheduler=ar.interop.dask.get, num_workers=4)


def test_functions_run_in_other_processes() -> None:
    def pid(_: int) -> int:
        return os.getpid()

    with ar.interop.dask.enabled():
        found = dask.compute(*(dask.delayed(pid)(i) for i in range(4)))
    assert os.getpid() not in found


def test_an_exception_comes_as_it_was_raised() -> None:
    def fails() -> None:
        raise KeyError("mine")

    with ar.interop.dask.enabled(), pytest.raises(KeyError, match="mine"):
        dask.delayed(abs)(dask.delayed(fails)()).compute()


def test_a_function_that_ends_its_process_is_named() -> None:
    with ar.interop.dask.enabled(), pytest.raises(PoisonTaskError, match="exit"):
        dask.delayed(os._exit)(3).compute()


def test_many_short_tasks_are_bundled_and_explained() -> None:
    def step(x: int, y: int) -> int:
        return x + y

    total = dask.delayed(sum)([dask.delayed(step)(i, dask.delayed(step)(i, 1)) for i in range(300)])
    with ar.interop.dask.enabled() as runs:
        assert total.compute() == sum(2 * i + 1 for i in range(300))
    assert sum(run.items_total for run in runs) == 601
    assert runs[-1].bundles_total < 150
    assert "step" in ar.explain(runs[-1])


# --- collections -------------------------------------------------------------------------


def _frame() -> Any:
    numbers = np.arange(60)
    frame = pd.DataFrame({"key": numbers % 7, "value": numbers / 3.0})
    return dd.from_pandas(frame, npartitions=4)


def _array() -> Any:
    return da.from_array(np.random.default_rng(0).random((60, 80)), chunks=(20, 30))


COLLECTIONS: dict[str, Callable[[], Any]] = {
    "sum": lambda: _array().sum(),
    "statistics": lambda: da.stack([_array().mean(axis=1), _array().std(axis=1)]),
    "matmul": lambda: _array() @ _array().T,
    "indexing": lambda: _array()[::-2, [3, 50, 7]].rechunk((7, 1)),
    "cumulative": lambda: da.cumsum(_array(), axis=0),
    "overlap": lambda: da.map_overlap(lambda b: b - b.mean(), _array(), depth=1, boundary=0.0),
    "svd": lambda: da.linalg.svd(_array().rechunk((20, 80)))[1],
    "quantiles": lambda: da.percentile(_array().ravel(), [5, 50, 95]),
    "masked": lambda: da.where(_array() > 0.5, _array(), 0).argmax(axis=0),
    "random": lambda: da.random.default_rng(1).normal(size=(90,), chunks=30),
    "large chunks": lambda: da.arange(200_000, chunks=50_000)[::-1] * 2,
    "bag": lambda: db.from_sequence(range(50), npartitions=5).map(lambda x: x * x).sum(),
    "bag groups": lambda: db.from_sequence(["the", "cat", "the", "dog"]).frequencies(sort=True),
    "bag shuffle": lambda: (
        db.from_sequence(range(20), npartitions=3).groupby(lambda x: x % 3).map(str)
    ),
    "bag folds": lambda: db.from_sequence(range(30)).foldby(lambda x: x % 3, operator.add, 0),
    "frame": lambda: _frame().groupby("key").value.agg(["mean", "max"]),
    "frame rows": lambda: _frame()[_frame().value > 3].assign(twice=lambda f: f.value * 2),
    "frame merge": lambda: _frame().merge(
        _frame().groupby("key").value.sum().to_frame("s"), on="key"
    ),
    "frame sorted": lambda: _frame().sort_values("key").value.cumsum(),
    "delayed": lambda: dask.delayed(lambda **named: sorted(named.items()))(a=dask.delayed(abs)(-1)),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection(name: str) -> None:
    with ar.interop.dask.enabled():
        made = COLLECTIONS[name]()
        expected = made.compute(scheduler="sync")
        found = made.compute()
    assert type(found) is type(expected)
    if isinstance(found, pd.DataFrame | pd.Series):
        columns = list(found.columns) if isinstance(found, pd.DataFrame) else None
        if name == "frame merge":
            found, expected = (f.sort_values(columns, ignore_index=True) for f in (found, expected))
        assert found.equals(expected)
    else:
        np.testing.assert_array_equal(found, expected)
    if isinstance(found, np.ndarray) and found.ndim:
        found[0] = 0  # results can be written to


def test_shuffles_by_files_on_one_machine_are_refused() -> None:
    for made in (_frame().shuffle("key", npartitions=3), COLLECTIONS["bag shuffle"]()):
        with pytest.raises(InvalidArgumentError, match=r"dataframe\.shuffle\.method"):
            made.compute(scheduler=ar.interop.dask.get)


def test_persisting_and_going_on() -> None:
    with ar.interop.dask.enabled():
        kept = (_array() + 1).persist()
        found = (kept * 2).compute()
    np.testing.assert_array_equal(found, (_array().compute(scheduler="sync") + 1) * 2)


def test_an_xarray_climatology() -> None:
    days = pd.date_range("2001-01-01", periods=365)
    values = da.from_array(np.random.default_rng(0).random((365, 6)), chunks=(90, 6))
    cube = xr.DataArray(values, dims=("time", "x"), coords={"time": days})
    anomaly = cube.groupby("time.month") - cube.groupby("time.month").mean()
    expected = anomaly.compute(scheduler="sync")
    with ar.interop.dask.enabled():
        xr.testing.assert_identical(anomaly.compute(), expected)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=7)), st.data())
@settings(max_examples=15, deadline=None)
def test_arrays_go_both_ways(values: Any, data: st.DataObject) -> None:
    chunks = tuple(data.draw(st.integers(1, n)) for n in values.shape)
    theirs = da.from_array(values, chunks=chunks)
    ours = ar.interop.dask.from_dask((theirs * 2).T)
    assert ours.chunks == (theirs * 2).T.chunks
    np.testing.assert_array_equal(np.asarray(ours + 1), (values * 2).T + 1)
    back = ar.interop.dask.to_dask(ours.T)
    assert back.chunks == ours.T.chunks
    for scheduler in (ar.interop.dask.get, "threads"):
        np.testing.assert_array_equal(back.compute(scheduler=scheduler), values * 2)


def test_chunks_in_the_object_store_are_given_to_tasks_where_they_are() -> None:
    values = np.random.default_rng(0).standard_normal((600, 500))
    ours = ar.array.map_blocks(lambda b: b * 3, ar.array.asarray(values, chunks=200), dtype=float)
    theirs = ar.interop.dask.to_dask(ours)
    assert any(isinstance(node.chunk, Stored) for node in dict(theirs.dask).values())
    with ar.interop.dask.enabled():
        found = (theirs @ theirs.T - 1).compute()
    np.testing.assert_allclose(found, (values * 3) @ (values * 3).T - 1)
    again = ar.interop.dask.from_dask(theirs + 1)
    np.testing.assert_array_equal(np.asarray(again), values * 3 + 1)


def test_what_is_no_array_of_numbers_is_refused() -> None:
    x = da.arange(10, chunks=5)
    with pytest.raises(InvalidArgumentError, match="compute_chunk_sizes"):
        ar.interop.dask.from_dask(x[x > 2])
    assert np.asarray(ar.interop.dask.from_dask(x[x > 2].compute_chunk_sizes())).tolist() == [
        *range(3, 10)
    ]
    with pytest.raises(BlockResultError, match="shape"):
        ar.interop.dask.from_dask(x.map_blocks(lambda b: b[:2], dtype=x.dtype, chunks=(5,)))
    with pytest.raises(BlockResultError, match="masked"):
        ar.interop.dask.from_dask(da.ma.masked_greater(x, 3))
    with pytest.raises(InvalidTypeError):
        ar.interop.dask.from_dask(da.from_array(np.array([None, 1]), chunks=1))
    with pytest.raises(InvalidTypeError):
        ar.interop.dask.from_dask(np.arange(3))
    with pytest.raises(InvalidTypeError):
        ar.interop.dask.to_dask(x)


def test_writes_that_would_be_lost_are_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    x = da.ones((4, 4), chunks=2) + 1
    on_disk = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", shape=(4, 4))
    with ar.interop.dask.enabled():
        for target in (np.zeros((4, 4)), on_disk, zarr.zeros((4, 4), chunks=(2, 2))):
            with pytest.raises(InvalidArgumentError, match="only copies"):
                x.store(target)
            with pytest.raises(InvalidArgumentError, match="only copies"):
                da.store([x, x * 2], [target, target], lock=False)
        with pytest.raises(InvalidArgumentError, match="only copies"):
            x.to_zarr(zarr.zeros((4, 4), chunks=(2, 2)))
        with pytest.raises(InvalidArgumentError, match="only copies"):
            xr.Dataset({"x": (("a", "b"), x)}).to_zarr(zarr.storage.MemoryStore(), compute=True)
        target = zarr.create_array(tmp_path / "y.zarr", shape=(4, 4), chunks=(2, 2), dtype="f8")
        x.store(target, lock=False)
        x.to_zarr(str(tmp_path / "z.zarr"))
        xr.Dataset({"x": (("a", "b"), x)}).to_zarr(tmp_path / "w.zarr")
    assert (target[:] == 2).all()
    assert (zarr.open_array(tmp_path / "z.zarr")[:] == 2).all()
    assert (zarr.open_group(tmp_path / "w.zarr")["x"][:] == 2).all()
