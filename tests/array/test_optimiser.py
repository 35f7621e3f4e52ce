"""Rewriting keeps values and makes less work; compiled programs keep every bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import arrays, same

import agentic_ray.array as xp
from agentic_ray.array import io
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core import compiled, evaluate, kernel_source
from agentic_ray.array.core.compile_queue import compiling
from agentic_ray.array.core.node import literal, topological
from agentic_ray.array.core.rewrite import Applied
from agentic_ray.array.core.rules import optimize
from agentic_ray.recent import Recent


def _steps(x: xp.Array) -> list[str]:
    trace: list[Applied] = []
    optimize([x._node], trace)
    return [step.rule for step in trace]


def test_slices_go_down_to_where_values_are_made() -> None:
    x = xp.arange(1000, chunks=10)
    y = ((x + 1) * 2 - xp.ones(1000, chunks=10))[100:300:2][:50]
    steps = _steps(y)
    assert {"slice before elementwise", "slice of a range", "slice of a constant"} <= set(steps)
    assert "slice of a slice" in _steps(xp.asarray(np.arange(1000), chunks=10)[9:300:2][:50])
    tasks, _ = evaluate.plan([y._node])
    assert len(tasks) <= y._node.blocks + 1
    same(y, ((np.arange(1000) + 1) * 2 - 1.0)[100:300:2][:50])


def test_what_is_needed_as_a_whole_is_not_computed_again_for_its_slices() -> None:
    """Edges of each generation are slices of the one before: computed apart, they would be edges
    of edges, and the plan would grow as a power of the number of generations."""

    def generation(names: Any, x: Any) -> Any:
        return names.maximum(names.roll(x, 1, axis=0) + names.roll(x, (0, -1), axis=(0, 1)), x + 1)

    theirs = np.arange(120.0).reshape(10, 12)
    ours, sizes = xp.asarray(theirs, chunks=5), []
    for _ in range(12):
        ours, theirs = generation(xp, ours), generation(np, theirs)
        sizes.append(len(list(topological(optimize([ours._node])))))
    assert sizes[-1] - sizes[-2] <= sizes[3] - sizes[2]
    same(ours, theirs)
    both = xp.asarray(np.arange(12.0)) + 1
    assert "slice before elementwise" in _steps(both[:2] + both[2:4])
    assert "slice before elementwise" not in _steps(both[:4] + both[4:8])


def test_an_array_that_is_one_scalar_leaves_the_scalar_weak() -> None:
    """Every expression with this scalar shares one node for it."""
    scalar = xp.Array(literal(2.625))
    assert float(scalar) == 2.625
    same(xp.Array(literal(2.625)).persist() * 2, np.float64(5.25))
    assert evaluate.values([scalar._node, scalar._node]) == [2.625, 2.625]
    for size in (3, 100_000):
        assert (xp.ones(size, dtype="float32") * 2.625).compute().dtype == np.float32


def test_a_stencil_reads_a_file_once(tmp_path: Path) -> None:
    values = np.arange(120_000.0).reshape(20_000, 6)
    io.to_zarr(tmp_path / "x.zarr", xp.asarray(values), chunks=(10_000, 6))
    x = io.from_zarr(tmp_path / "x.zarr")
    y = x[1:] - x[:-1]
    assert "slice into read" not in _steps(y)
    same(y, values[1:] - values[:-1])
    assert "slice into read" in _steps(x[:3_000] + x[3_000:6_000])


@given(arrays(("int64", "float64")), st.data())
def test_rewriting_keeps_values(pair: Any, data: st.DataObject) -> None:
    ours, theirs = pair
    if not theirs.ndim:
        return
    first = tuple(data.draw(st.slices(n)) if n else slice(None) for n in theirs.shape)
    cut = theirs[first]
    second = tuple(data.draw(st.slices(n) | st.integers(0, n - 1)) if n else slice(None)
                   for n in cut.shape)  # fmt: skip
    column = np.arange(theirs.shape[-1])
    same(
        ((ours * 2 + xp.asarray(column, chunks=1)) - 1)[first][second],
        ((theirs * 2 + column) - 1)[first][second],
    )
    axes = tuple(data.draw(st.permutations(range(theirs.ndim))))
    twice = xp.permute_dims(xp.permute_dims(ours, axes), axes)
    same(twice, theirs.transpose(axes).transpose(axes))


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "int64"])
@pytest.mark.parametrize(
    ("axis", "chunks"), [(0, (70, 40)), (1, (300, 9)), (None, (70, 9)), (0, -1)]
)
def test_a_mean_beside_a_deviation_is_made_in_the_same_pass(
    dtype: str, axis: int | None, chunks: Any
) -> None:
    values = (np.random.default_rng(0).normal(size=(300, 80)) * 100).astype(dtype)
    x = xp.asarray(values, chunks=chunks)
    alone = np.asarray(xp.mean(x, axis=axis, keepdims=True))
    both = (x - xp.mean(x, axis=axis, keepdims=True)) / xp.std(x, axis=axis, keepdims=True)
    assert "one pass for both" in _steps(both)
    roots = [xp.mean(x, axis=axis)._node, xp.std(x, axis=axis)._node]
    tasks, _ = evaluate.plan(roots)
    assert len([task for task in tasks if task.cost.items]) == x._node.blocks
    beside = evaluate.values(roots)[0]
    assert np.asarray(beside).tobytes() == alone.tobytes()
    theirs = (values - values.mean(axis, keepdims=True)) / values.std(axis, keepdims=True)
    near = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(np.asarray(both), theirs, rtol=near, atol=near)


def test_a_mean_of_another_precision_is_made_by_itself() -> None:
    x = xp.asarray(np.ones((300, 80), np.float16), chunks=(70, 80))
    assert "one pass for both" not in _steps(xp.mean(x, axis=0) + xp.std(x, axis=0))
    assert "one pass for both" not in _steps(xp.mean(x, axis=0) + xp.std(x, axis=1)[:80])


def test_equal_parts_are_computed_once() -> None:
    x = xp.asarray(np.arange(100.0), chunks=10)
    y = xp.sin(x).sum() + xp.sin(x).sum()
    tasks, _ = evaluate.plan([y._node])
    assert sum("sin" in task.codelet.name for task in tasks) == 10


def test_a_chain_is_one_task_for_each_chunk() -> None:
    x = xp.asarray(np.arange(100.0), chunks=10)
    tasks, _ = evaluate.plan([xp.sqrt((x + 1) * 2 - x)._node])
    assert len(tasks) == 10


def test_what_is_computed_of_the_callers_arrays_is_cut_before_it_is_computed() -> None:
    rng = np.random.default_rng(0)
    values, column, row = rng.normal(size=(60, 8)), rng.normal(size=(60, 1)), rng.normal(size=8)
    x = xp.asarray(values)
    y = xp.exp(x * xp.asarray(column) + xp.asarray(row) - 1) * xp.mean(x, axis=0)
    z = y.rechunk((7, -1))
    assert "cut before elementwise" in _steps(z)
    same(z, np.exp(values * column + row - 1) * values.mean(axis=0))
    tasks, _ = evaluate.plan([z._node])
    assert not [task for task in tasks if "assemble" in task.codelet.name]
    other = (xp.sort(x, axis=0) + 1).rechunk((7, -1))
    assert "cut before elementwise" not in _steps(other)
    same(other, np.sort(values, axis=0) + 1)


def test_rows_to_columns_goes_in_two_steps() -> None:
    rows, columns = grids.normalize((1, -1), (400, 400), np.dtype(float)), ((400,), (1,) * 400)
    (between,) = grids.stations(rows, columns)
    assert between is not None
    assert grids.numblocks(between) == (20, 20)
    array = np.arange(160_000).reshape(400, 400)
    x = xp.asarray(array, chunks=(1, -1)).rechunk((-1, 1))
    tasks, _ = evaluate.plan([(x + 1).rechunk((-1, 1))._node])
    assert len(tasks) < 3 * 400 + 400
    same(xp.asarray(array, chunks=(1, -1))[:, ::-1].rechunk((-1, 1)), array[:, ::-1])


def test_what_is_compiled_is_compiled_in_either_form() -> None:
    assert kernel_source._EXACT.keys() == kernel_source._IN_LANES.keys()


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_programs_have_the_same_bits(
    dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    array, row = rng.normal(size=(900, 500)).astype(dtype), rng.normal(size=500).astype(dtype)
    x, r = xp.asarray(array, chunks=(470, 500)), xp.asarray(row)
    y = xp.asarray(array[::-1].copy(), chunks=(470, 500))
    narrow = xp.asarray(array[:, :30].copy(), chunks=(700, 30)) - 0.5
    wide = xp.asarray(array[:36].reshape(3, 6000), chunks=(3, 4000))
    expressions = [
        ((x + 1) * 2).sum(),
        (xp.sqrt(abs(x)) / 3 - r).mean(),
        -x * r + x * x,
        (x - x.mean(axis=1, keepdims=True)).sum(),
        (x * r).mean(axis=0),
        (x / 3).std(axis=0),
        x.std(axis=0),
        narrow.T @ narrow,
        (x - r).max(axis=0),
        (wide * 3).sum(axis=0),
        x.reshape(900, 25, 20).var(axis=0),
        (-xp.sqrt(abs(x - 3)) / y).sum(),
        (xp.square(y) + +x).sum(),
        ((x - x.max()) * y).sum(),
    ]
    if dtype == "float32":  # one of each form: compiling takes its time
        expressions = [expressions[i] for i in (0, 2, 4, 5, 11, 12, 13)]

    def results() -> list[bytes]:
        found = []
        for array_ in expressions:
            for node in topological([array_._node]):
                node.value = None
            found.append(np.asarray(array_).tobytes())
        return found

    monkeypatch.setattr(compiled, "WORTH_ELEMENTS", 1 << 60)
    monkeypatch.setattr(compiled, "_kernels", Recent(256))
    plain = results()
    monkeypatch.setattr(compiled, "WORTH_ELEMENTS", 0)
    results()
    assert compiling.wait(timeout=120)
    kernels = [kernel for kernel in compiled._kernels.values() if kernel is not None]
    assert len(kernels) >= 4
    in_lanes = [
        kernel for kernel in kernels if "total_of_rest" in kernel._function.py_func.__globals__
    ]
    assert len(in_lanes) == 4
    assert {kernel._form for kernel in kernels} == {"", "total", "rows", "spread"}
    assert results() == plain
    compiled._kernels.clear()  # another process finds them on disk
    results()
    assert compiling.wait(timeout=120)
    assert sum(kernel is not None for kernel in compiled._kernels.values()) == len(kernels)
    assert results() == plain
